import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kong_plugins.server import metrics
from kong_plugins.server.options import parse_options
from kong_plugins.server.registry import BUILT_IN
from kong_plugins.server.secrets_mask import mask_secrets
from tests.server.conftest import PLUGINS, ROOT


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-m", "kong_plugins.server.main", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )


class TestDump:
    def test_prints_what_kong_reads(self):
        result = run("--dump", "probe", "--plugins-dir", str(PLUGINS))
        fields = [{"do": {"type": "string"}}, {"secret": {"type": "string", "encrypted": True}}]
        assert json.loads(result.stdout) == {
            "Protocol": "ProtoBuf:1",
            "Plugins": [
                {
                    "Name": "probe",
                    "Phases": ["access", "log"],
                    "Priority": 77,
                    "Version": "1.2.3",
                    "Schema": {"name": "probe", "fields": [{"config": {"type": "record", "fields": fields}}]},
                }
            ],
        }

    def test_needs_neither_gevent_nor_the_servers_parts(self):
        result = run("--dump", "meter", "--plugins-dir", str(PLUGINS))
        assert result.returncode == 0
        loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if "|" in line}
        assert not loaded & {"gevent", "redis", "kong_plugins.server.master"}

    @pytest.mark.parametrize("name", ["nobody", "broken", "../server/plugins/probe"])
    def test_fails_with_a_reason_and_prints_nothing(self, name: str):
        result = run("--dump", name, "--plugins-dir", str(PLUGINS))
        assert (result.returncode, result.stdout) == (1, "")
        assert "cannot be imported" in result.stderr


class TestOptions:
    def test_come_from_the_environment_and_the_command_line_goes_first(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("KM_PLUGINSERVER_SOCKET", "/run/a.sock")
        monkeypatch.setenv("KM_PLUGINSERVER_WORKERS", "3")
        monkeypatch.setenv("KM_PLUGINSERVER_PLUGINS", "a, b")
        monkeypatch.setenv("KM_PLUGINSERVER_REPLACE", "yes")
        options = parse_options(["--workers", "2"])
        assert options.socket == Path("/run/a.sock")
        assert (options.workers, options.plugins, options.replace) == (2, ("a", "b"), True)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--workers", "0"],
            ["--socket", "/" + "x" * 120],
            ["--plugins-dir", "/nowhere"],
            ["--log-level", "loud"],
            ["--socket-mode", "rw"],
            ["--socket-mode", "066"],
        ],
    )
    def test_that_make_no_sense_are_refused(self, arguments: list[str]):
        with pytest.raises(SystemExit) as ended:
            parse_options(arguments)
        assert ended.value.code == 2


class TestEnvFile:
    def test_gives_the_plugins_what_the_environment_does_not_have(self, start_server, directory: Path):
        file = directory / "env"
        file.write_text("# secrets\n\nKM_TEST_TOKEN=t0ps3cret=value\nPROBE_STOP_FILE=/nowhere\n")
        file.chmod(0o600)
        stopped = directory / "stopped"
        options = ("--env-file", str(file), "--socket-mode", "600")
        server = start_server(*options, plugins="probe,broken", PROBE_STOP_FILE=str(stopped))
        assert server.messages("plugin cannot be served")[0]["detail"] == "KM_TEST_TOKEN is wrong: [redacted]"
        assert server.socket.stat().st_mode & 0o777 == 0o600
        assert not server.messages("everyone can read or write the file of secrets")
        server.stop()
        assert stopped.exists()

    @pytest.mark.parametrize("line", ["t0ps3cret", "t0 ps3cret=1", "=t0ps3cret"])
    def test_with_a_line_nobody_understands_ends_the_start_and_is_not_quoted(
        self, start_server, directory: Path, line: str
    ):
        file = directory / "env"
        file.write_text(f"A=1\n{line}\n")
        server = start_server("--env-file", str(file), wait=False)
        assert server.process.wait(20) == 1
        assert "line 2: NAME=VALUE is expected" in server.log_text()
        assert "ps3cret" not in server.log_text()

    def test_that_is_not_there_ends_the_start(self, start_server, directory: Path):
        server = start_server("--env-file", str(directory / "none"), wait=False)
        assert server.process.wait(20) == 1
        assert "No such file or directory" in server.log_text()


class TestBuiltInPlugins:
    def test_are_named_as_the_contract_has_them(self):
        assert BUILT_IN["km-monetize"] == "kong_plugins.plugins.km_monetize"
        assert len(BUILT_IN) == 4


class TestMetricsWithoutServer:
    def test_count_in_the_process(self):
        counter = metrics.counter("km_test_alone_total", {"a": "1"})
        assert metrics.counter("km_test_alone_total", {"a": "1"}) is counter
        counter.inc()
        counter.inc(2)
        assert counter.value == 3
        histogram = metrics.histogram("km_test_alone_seconds", buckets=(1.0,))
        histogram.observe(1.0)
        histogram.observe(7.0)
        assert histogram.cells() == [1, 1, 8.0]

    def test_refuse_a_name_of_another_kind(self):
        metrics.counter("km_test_kind_total")
        with pytest.raises(TypeError):
            metrics.gauge("km_test_kind_total")
        with pytest.raises(TypeError):
            metrics.histogram("km_test_kind_total")


class TestMaskSecrets:
    def test_takes_out_what_the_schema_marks_and_what_is_named_so(self):
        schema = {"fields": [{"config": {"fields": [{"pin": {"type": "string", "referenceable": True}}]}}]}
        config = {"pin": "12345", "redis_url": "redis://:pw@h", "nested": {"api_key": ["kkkk"]}, "policy": "open"}
        text = mask_secrets("12345 redis://:pw@h kkkk open", config=config, schema=schema)
        assert text == "[redacted] [redacted] [redacted] open"
