"""Plugins written for kong-pdk, in both of its styles, run here as they run there."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kong_plugins.server.methods import ARGUMENT_AND_RESULT
from tests.server.conftest import ROOT, RunningServer, StartServer, eventually
from tests.server.kong_client import ClosedError, pdk
from tests.server.kong_pdk_server import MULTI_MAPS, KongPdkServer

FOREIGN = Path(__file__).parent / "foreign"
STYLES = ("lua", "python")
PHASES = ("certificate", "rewrite", "access", "response", "preread", "log")
KONG = {
    "kong.request.get_headers": {"host": "example.test", "x-many": ["1", "2"]},
    "kong.request.get_query": {"page": "3", "tag": ["a", "b"], "flag": True},
    "kong.request.get_method": "POST",
    "kong.request.get_path": "/v1/items",
    "kong.request.get_raw_body": "a body",
    "kong.client.get_forwarded_ip": "203.0.113.9",
    "kong.client.get_ip": "10.0.0.9",
    "kong.client.get_port": 4711,
    "kong.client.get_consumer": {"id": "c1", "username": "ann"},
    "kong.router.get_route": {"id": "r1", "name": "items"},
    "kong.ctx.shared.get": {"a": [1, 2], "b": "x"},
    "kong.nginx.get_ctx": "ctx",
    "kong.nginx.get_tls1_version_str": "TLSv1.3",
    "kong.nginx.req_start_time": 1700000000.5,
    "kong.ip.is_trusted": True,
    "kong.service.set_upstream": True,
    "kong.service.response.get_status": 201,
    "kong.service.response.get_headers": {"x-up": "stream"},
    "kong.service.response.get_raw_body": "answer",
    "kong.log.serialize": '{"a": 1}',
}


def under_ours(server: RunningServer, plugin: str, phase: str, config: Any = None) -> list[tuple[str, list[Any]]]:
    """Run one event and return what Kong was asked, with the arguments as one list."""
    outcome = server.client().request(plugin, config or {}, phase, _protobuf_answer)
    return [(name, _as_list(name, argument)) for name, argument in outcome.calls]


def under_kong_pdk(server: KongPdkServer, plugin: str, phase: str) -> list[tuple[str, list[Any]]]:
    calls = []

    def answer(method: str, arguments: list[Any]) -> Any:
        # what Kong itself makes of these: `kong.log` can be called, and maxima have a default
        name = "kong.log.notice" if method == "kong.log" else method
        calls.append((name, arguments or ([100] if method in MULTI_MAPS else [])))
        return KONG.get(method)

    server.run(server.start(plugin, {}), phase, answer)
    return calls


def _protobuf_answer(method: str, argument: Any) -> Any:
    value = KONG.get(method)
    if method.endswith("get_raw_body"):
        return {"content": value} if method.startswith("kong.request") else value
    return value


def _as_list(method: str, argument: Any) -> list[Any]:
    kind = ARGUMENT_AND_RESULT[method][0]
    if kind == "Empty":
        return []
    if kind == "ListValue":
        return argument
    if kind in ("KV", "Target", "ExitArgs", "AuthenticateArgs"):
        return [value.decode() if isinstance(value, bytes) else _present(value) for value in argument.values()]
    return [argument.decode() if isinstance(argument, bytes) else argument]


def _present(value: Any) -> Any:
    """A consumer without what was not given."""
    return {name: one for name, one in value.items() if one != []} if isinstance(value, dict) else value


@pytest.fixture(scope="module")
def ours() -> Iterator[RunningServer]:
    directory = Path(tempfile.mkdtemp(prefix="kms"))
    names = [f"{name}-{style}" for name in ("greet", "tour") for style in STYLES]
    options = ["--workers", "1", "--plugins-dir", str(FOREIGN), "--plugins", ",".join(names)]
    server = RunningServer(directory, [*options, "--lua-style", "greet-lua,tour-lua"], {})
    server.wait_ready(1)
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


class TestKongPdkPlugin:
    @pytest.mark.parametrize("style", STYLES)
    def test_runs_in_its_style(self, ours: RunningServer, style: str):
        answer = pdk({"host": "example.test"})
        outcome = ours.client().request(f"greet-{style}", {"message": "good day"}, "access", answer)
        assert outcome.calls[1] == ("kong.response.set_header", {"k": "x-greeting", "v": "good day, example.test"})
        assert outcome.exit is None

    @pytest.mark.parametrize("style", STYLES)
    def test_asks_kong_in_every_phase_what_it_asks_under_kong_pdk(
        self, ours: RunningServer, directory: Path, style: str
    ):
        options = ["--no-lua-style"] if style == "python" else []
        theirs = KongPdkServer(directory, FOREIGN, *options)
        try:
            for phase in PHASES:
                expected = under_kong_pdk(theirs, f"tour-{style}", phase)
                assert len(expected) > 1
                got = under_ours(ours, f"tour-{style}", phase)
                assert got == expected
        finally:
            theirs.stop()

    def test_gets_every_header_as_a_list(self, ours: RunningServer):
        calls = under_ours(ours, "tour-python", "access")
        shown = json.loads(next(arguments[0] for name, arguments in calls if name == "kong.log.notice"))
        assert shown["headers"] == {"host": ["example.test"], "x-many": ["1", "2"]}
        assert shown["arguments"] == {"page": ["3"], "tag": ["a", "b"], "flag": []}

    def test_of_the_other_style_fails_closed(self, start_server: StartServer):
        server = start_server(plugins=f"greet-lua={FOREIGN / 'greet-lua.py'}", workers=1)
        outcome = server.client().request("greet-lua", {}, "access", pdk({"host": "a"}))
        assert outcome.exit["status"] == 503

    def test_is_described_to_kong_with_every_phase_it_has(self):
        command = [sys.executable, "-m", "kong_plugins.server.main", "--dump", "tour-lua", "--plugins-dir"]
        done = subprocess.run(
            [*command, str(FOREIGN)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
        )
        (plugin,) = json.loads(done.stdout)["Plugins"]
        assert sorted(plugin["Phases"]) == sorted(PHASES)
        assert (plugin["Version"], plugin["Priority"]) == ("0.0.0", 0)


PAIRS = """
class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        answers = [
            kong.request.get_raw_body(),
            kong.vault.get("{vault://a/b}"),
            kong.response.set_header("x", object()),
            kong.request.get_header("host"),
            kong.log.err("a"),
        ]
        kong.response.exit(200, [[data, error is None] for data, error in answers])
        raise AssertionError("exit does not return")
"""
RAISES = """
from kong_pdk.exception import PDKException

class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        caught = []
        for method in (kong.request.get_raw_body, kong.vault.get, kong.cluster.get_id):
            try:
                method()
            except PDKException as error:
                caught.append(str(error))
        kong.response.error(400, "; ".join(caught), {"X-A": "1"})
"""


class TestFailedCall:
    @pytest.fixture
    def write(self, directory: Path) -> Callable[[str, str], Path]:
        def write(name: str, text: str) -> Path:
            path = directory / name
            path.write_text(text)
            return path

        return write

    def test_is_the_second_of_a_pair(self, start_server: StartServer, write: Callable[[str, str], Path]):
        path = write("pairs.py", PAIRS)
        server = start_server("--lua-style", workers=1, plugins=f"pairs={path}")
        answer = pdk({"host": "h"}, request_get_raw_body={"error": "too big"})
        outcome = server.client().request("pairs", {}, "access", answer)
        assert outcome.body == [[None, False], [None, False], [None, False], ["h", True], [None, True]]
        assert outcome.exit["headers"]["Content-Type"].startswith("application/json")

    def test_raises_kong_pdks_exception(self, start_server: StartServer, write: Callable[[str, str], Path]):
        path = write("raises.py", RAISES)
        server = start_server(workers=1, plugins=f"raises={path}")
        outcome = server.client().request("raises", {}, "access", pdk({}, request_get_raw_body={"error": "big"}))
        assert outcome.exit["status"] == 400
        raw_body, vault, cluster = outcome.body["message"].split("; ")
        assert raw_body == "kong.request.get_raw_body: big"
        assert vault.startswith("kong.vault.get is not among the methods")
        assert cluster.startswith("kong.cluster.get_id is not among the methods")


BODIES = """
class Plugin:
    def __init__(self, config):
        self.config = config

    def access(self, kong):
        body = kong.request.get_body()
        kong.service.request.set_body({"seen": body}, "application/json")
        kong.log.info(kong.request.get_raw_path(), kong.request.get_start_time())
        kong.log.info(kong.node.get_hostname() != "")
"""


class TestMethodTheProtocolDoesNotHave:
    """Kong's Lua has them, MsgPack clients could call them: made of the calls there are."""

    @pytest.mark.parametrize(
        ("kind", "raw", "value"),
        [
            ("application/x-www-form-urlencoded", b"a=1&b=2&b=3&c", {"a": "1", "b": ["2", "3"], "c": ""}),
            ("application/json; charset=utf-8", b'{"a": [1]}', {"a": [1]}),
        ],
    )
    def test_is_made_of_others(
        self, start_server: StartServer, directory: Path, kind: str, raw: bytes, value: dict[str, Any]
    ):
        (directory / "bodies.py").write_text(BODIES)
        server = start_server(workers=1, plugins=f"bodies={directory / 'bodies.py'}")
        answer = pdk(
            {"content-type": kind},
            request_get_raw_body={"content": raw},
            nginx_get_var="/a%20b?c=d",
            nginx_req_start_time=1700000000.25,
        )
        outcome = server.client().request("bodies", {}, "access", answer)
        assert outcome.exit is None
        assert json.loads(outcome.argument("kong.service.request.set_raw_body")) == {"seen": value}
        assert outcome.argument("kong.service.request.set_header") == {
            "k": "Content-Type",
            "v": "application/json",
        }
        logged = [argument for name, argument in outcome.calls if name == "kong.log.info"]
        assert logged == [["/a%20b", 1700000000250], [True]]


class TestPluginDirectory:
    def test_serves_each_file_that_has_a_plugin_and_no_other(self, start_server: StartServer, directory: Path):
        plugins = directory / "plugins"
        plugins.mkdir()
        shutil.copy(FOREIGN / "greet-python.py", plugins / "greet-python.py")
        (plugins / "helper.py").write_text("VALUE = 1\n")
        (plugins / "_private.py").write_text("raise RuntimeError\n")
        (plugins / "notes.txt").write_text("no Python")
        options = ["--workers", "1", "--plugins-dir", str(plugins)]
        server = RunningServer(directory, options, {})
        try:
            server.wait_ready(1)
            names = server.client().call("cmd_get_plugin_names", {})["plugin_names"]["names"]
            assert [name for name in names if not name.startswith("km-")] == ["greet-python"]
            assert [line["plugin"] for line in server.messages("file is no plugin")] == ["helper"]
            plugins_known = json.loads(server.get("/readyz")[1])["plugins"]
            assert plugins_known["greet-python"] == "loaded"
            assert "helper" not in plugins_known
        finally:
            server.stop()

    def test_says_so_where_a_plugin_that_was_asked_for_is_none(self, start_server: StartServer):
        server = start_server(workers=1, plugins=f"tour={FOREIGN / 'tour.py'}")
        assert json.loads(server.get("/readyz")[1])["plugins"] == {"tour": "failed"}
        with pytest.raises(ClosedError):
            server.client().start_instance("tour", {})


class TestPluginModule:
    def test_is_served_by_its_import_name_and_by_its_file(self, start_server: StartServer, directory: Path):
        package = directory / "acme"
        package.mkdir()
        (package / "__init__.py").write_text("")
        shutil.copy(FOREIGN / "greet-lua.py", package / "greeting.py")
        names = f"greeting=acme.greeting,other={FOREIGN / 'greet-python.py'}"
        server = start_server("--lua-style", "greeting", workers=1, plugins=names, PYTHONPATH=str(directory))
        for name in ("greeting", "other"):
            outcome = server.client().request(name, {}, "access", pdk({"host": "h"}))
            assert outcome.calls[1] == ("kong.response.set_header", {"k": "x-greeting", "v": "hello, h"})

    def test_says_its_style_itself(self, start_server: StartServer, directory: Path):
        text = (FOREIGN / "greet-lua.py").read_text()
        (directory / "told.py").write_text(f"pdk_style = 'lua'\n{text}")
        (directory / "wrong.py").write_text(f"pdk_style = 'latin'\n{text}")
        names = f"told={directory / 'told.py'},wrong={directory / 'wrong.py'}"
        server = start_server(workers=1, plugins=names)
        outcome = server.client().request("told", {}, "access", pdk({"host": "h"}))
        assert outcome.calls[1][1]["v"] == "hello, h"
        eventually(lambda: server.messages("plugin cannot be served"), "a style nobody knows is said")
        with pytest.raises(ClosedError):
            server.client().start_instance("wrong", {})
