"""The Admin API, and the settings the gateway starts with."""

import hashlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from devstack.gateway.settings import SettingsError, parse_conf, server_from_option, settings_from_conf
from tests.devstack.support import REPOSITORY, RunningGateway, file_log, warden


class TestConfigPush:
    def test_applies_and_shows_the_hash(self, gateway: RunningGateway):
        pushed = gateway.configuration(routes=[{"name": "other", "paths": ["/other"]}])
        answer = gateway.push(pushed)
        assert answer.status_code == 201
        assert [one["name"] for one in answer.json()["routes"].values()] == ["other"]
        status = httpx.get(f"{gateway.admin}/status").json()
        assert status["configuration_hash"] == hashlib.md5(pushed.encode()).hexdigest()
        assert httpx.get(f"{gateway.url}/other/v1/current/oslo").status_code == 200
        assert httpx.get(f"{gateway.url}/weather/v1/current/oslo").status_code == 404

    def test_answers_304_when_nothing_changed(self, gateway: RunningGateway):
        text = gateway.configuration()
        url = f"{gateway.admin}/config?check_hash=1"
        yaml_body = {"content": text.encode(), "headers": {"Content-Type": "text/yaml"}}
        for body in (yaml_body, {"data": {"config": text}}, {"json": {"config": text}}):
            assert httpx.post(url, **body).status_code == 304
        assert gateway.push(text).status_code == 201

    def test_refuses_whole_and_keeps_what_there_was(self, gateway: RunningGateway):
        before = httpx.get(f"{gateway.admin}/status").json()
        bad = gateway.configuration(plugins=[warden(plan="free"), file_log(gateway.spool)])
        answer = gateway.push(bad)
        assert answer.status_code == 400
        problem = answer.json()
        assert problem["name"] == "invalid declarative configuration"
        assert problem["fields"] == {"plugins": [{"config": {"plan": "unknown field"}}]}
        assert "plugin 'warden': field 'config.plan': unknown field" in problem["message"]
        assert httpx.get(f"{gateway.admin}/status").json() == before
        assert httpx.get(f"{gateway.url}/weather/v1/current/oslo").status_code == 200

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"content": b""}, 400),
            ({"content": b"\xff\xfe", "headers": {"Content-Type": "text/yaml"}}, 400),
            ({"content": b": : :", "headers": {"Content-Type": "text/yaml"}}, 400),
            ({"data": {"other": "x"}}, 400),
        ],
    )
    def test_refuses_what_is_no_configuration(self, gateway: RunningGateway, body: dict, status: int):
        assert httpx.post(f"{gateway.admin}/config", **body).status_code == status

    def test_a_push_reaches_the_plugins(self, gateway: RunningGateway):
        gateway.apply(gateway.configuration(plugins=[warden(retry_seconds=9)]))
        shown = httpx.get(f"{gateway.url}/weather/x", headers={"x-do": "show-config"}).json()
        assert shown["config"]["retry_seconds"] == 9

    def test_running_requests_keep_their_configuration(self, gateway: RunningGateway):
        answers: list[httpx.Response] = []

        def call() -> None:
            url = f"{gateway.url}/weather/v1/slow?ms=1500"
            answers.append(httpx.get(url, timeout=30))

        caller = threading.Thread(target=call)
        caller.start()
        for number in range(5):
            routes = [{"name": f"other-{number}", "paths": ["/other"]}]
            assert gateway.push(gateway.configuration(routes=routes)).status_code == 201
        caller.join()
        # whether it began before or after the first push: it was handled under one of the two, whole
        assert answers[0].status_code in {200, 404}

    def test_the_configuration_can_be_read_back(self, gateway: RunningGateway):
        shown = json.loads(httpx.get(f"{gateway.admin}/config").json()["config"])
        assert [one["name"] for one in shown["plugins"].values()] == ["warden", "file-log"]


class TestNode:
    def test_says_that_it_is_not_kong(self, gateway: RunningGateway):
        node = httpx.get(gateway.admin).json()
        assert "stands in for Kong in development and tests only" in node["tagline"]
        assert node["version"] == "3.9.3"

    def test_knows_no_other_address(self, gateway: RunningGateway):
        assert httpx.get(f"{gateway.admin}/consumers").status_code == 404
        assert httpx.delete(f"{gateway.admin}/config").status_code == 405

    def test_help_says_what_it_is_for(self):
        shown = subprocess.run(
            [sys.executable, "-m", "devstack.gateway", "--help"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == 0
        assert "STANDS IN FOR KONG IN DEVELOPMENT AND TESTS ONLY" in " ".join(shown.stdout.split())

    def test_a_bad_configuration_file_stops_it_with_a_sentence(self, tmp_path: Path):
        path = tmp_path / "kong.yml"
        path.write_text("_format_version: '3.0'\nservices: [{name: up, host: h, hots: x}]\n")
        shown = subprocess.run(
            [sys.executable, "-m", "devstack.gateway", "--config", str(path)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == 1
        assert "service 'up': field 'hots': unknown field" in shown.stderr
        assert "Traceback" not in shown.stderr


class TestSettings:
    def test_reads_the_keys_of_kong_conf(self):
        settings = settings_from_conf(
            parse_conf(
                """
                # two plugins, one process
                plugins = bundled,km-a,km-b
                pluginserver_names = a,b
                pluginserver_a_socket = /run/km.sock
                pluginserver_a_start_cmd = env KM_REDIS=redis://127.0.0.1:6379/0 km-pluginserver /run/km.sock
                pluginserver_a_query_cmd = km-pluginserver --dump km-a
                pluginserver_b_socket = /run/km.sock
                pluginserver_b_query_cmd = km-pluginserver --dump km-b   # no start command: runs already
                proxy_listen = 127.0.0.1:9000
                admin_listen = 9001
                """
            )
        )
        assert settings.plugins == ("bundled", "km-a", "km-b")
        assert (settings.proxy_port, settings.admin_port) == (9000, 9001)
        first, second = settings.servers
        assert first.start_command == "env KM_REDIS=redis://127.0.0.1:6379/0 km-pluginserver /run/km.sock"
        assert (second.start_command, second.query_command) == (None, "km-pluginserver --dump km-b")

    def test_a_hyphen_in_a_name_is_an_underscore_in_its_keys(self):
        settings = settings_from_conf(
            parse_conf(
                """
                pluginserver_names = km-a
                pluginserver_km_a_socket = /run/km.sock
                pluginserver_km_a_query_cmd = km-pluginserver --dump km-a
                """
            )
        )
        assert [server.name for server in settings.servers] == ["km-a"]

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("ssl_cert = x", "ssl_cert"),
            ("database = postgres", "database"),
            ("proxy_listen = 0.0.0.0:8000", "proxy_listen"),
            ("pluginserver_names = a", "pluginserver_a_socket"),
            ("pluginserver_b_socket = /x", "pluginserver_b_socket"),
            ("just words", "line 1"),
        ],
    )
    def test_refuses_the_rest_by_name(self, text: str, named: str):
        with pytest.raises(SettingsError, match=named):
            settings_from_conf(parse_conf(text))

    def test_a_plugin_server_as_an_option(self):
        server = server_from_option("name=a,socket=/x.sock,query_cmd=q --dump a,start_cmd=env A=b,c run")
        assert (server.query_command, server.start_command) == ("q --dump a", "env A=b,c run")
        with pytest.raises(SettingsError):
            server_from_option("socket=/x.sock")
