import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kong_plugins
from kong_plugins.server.methods import ARGUMENT_AND_RESULT
from kong_plugins.server.pdk import Kong
from tests.server.conftest import ROOT
from tests.server.kong_client import KongClient

HERE = Path(__file__).parent
SIGNATURES = (HERE / "pdk_signatures.txt").read_text().split("\n")[:-1]
EXAMPLE = HERE / "typed_plugin.py"
# what the protocol's messages have no place for, or what kong-pdk's own list of parameters lacks
NOT_CARRIED = {"kong.log.set_serialize_value": {"options"}}
THEIRS_LACK = {"kong.nginx.get_var", "kong.request.get_query_arg", "kong.nginx.set_ctx"}


def find(root: Any, name: str) -> Any:
    for part in name.split(".")[1:]:
        root = getattr(root, part)
    return root


class TestKongObject:
    @pytest.mark.parametrize("signature", SIGNATURES)
    def test_has_every_method_with_kongs_parameters_and_a_type_for_each(self, signature: str):
        name, _, parameters = signature.removesuffix(")").partition("(")
        assert name in ARGUMENT_AND_RESULT
        method = inspect.signature(find(Kong(None), name))
        assert ", ".join(method.parameters) == parameters
        assert method.return_annotation is not inspect.Signature.empty
        for one in method.parameters.values():
            assert one.annotation is not inspect.Parameter.empty

    @pytest.mark.filterwarnings("ignore:invalid escape sequence")  # kong-pdk's
    @pytest.mark.parametrize("signature", SIGNATURES)
    def test_takes_its_parameters_in_kong_pdks_order(self, signature: str):
        import importlib

        name, _, parameters = signature.removesuffix(")").partition("(")
        place = name.rpartition(".")[0]
        module = importlib.import_module(f"kong_pdk.pdk.{place}")
        theirs = inspect.signature(getattr(getattr(module, place.rpartition(".")[2]), name.rpartition(".")[2]))
        if name not in THEIRS_LACK:
            carried = [one for one in theirs.parameters if one not in NOT_CARRIED.get(name, ())]
            assert ", ".join(carried) == parameters

    def test_has_every_method_of_the_protocol(self):
        for name in ARGUMENT_AND_RESULT:
            assert callable(find(Kong(None), name)), name


class TestTypes:
    def test_let_mypy_find_a_wrong_call_and_nothing_else(self, tmp_path: Path):
        """Checked away from this tree's settings, as an author's editor would."""
        assert (Path(kong_plugins.__file__).parent / "py.typed").exists()
        plugin = tmp_path / "plugin.py"
        plugin.write_text(EXAMPLE.read_text())
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path / "c")]
        quiet = ["--no-error-summary", "--follow-imports=silent", "--hide-error-context"]
        done = subprocess.run(
            [*command, *quiet, str(plugin)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )
        found = re.findall(r"^\S*plugin\.py:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
        lines = plugin.read_text().splitlines()
        expected = [
            (str(number), line.partition("# wrong: ")[2])
            for number, line in enumerate(lines, start=1)
            if "# wrong: " in line
        ]
        assert len(expected) == 6
        assert found == expected, done.stdout + done.stderr


class TestTypedPlugin:
    def test_runs_as_it_is(self, start_server):
        server = start_server(workers=1, plugins=f"typed={EXAMPLE}")
        answers = {"kong.request.get_headers": {"a": "1"}, "kong.request.get_header": "h"}
        client: KongClient = server.client()
        outcome = client.request("typed", {}, "access", lambda method, _: answers.get(method))
        assert outcome.argument("kong.service.request.set_headers") == {"x-host": "h", "x-count": "1"}
        big = answers | {"kong.request.get_raw_body": {"content": b"x" * 11}}
        assert client.request("typed", {}, "access", lambda method, _: big.get(method)).exit["status"] == 413
