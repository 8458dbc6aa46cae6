"""Plugins through the wire protocol: what they see, what they can do, and how they fail."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from devstack.children import is_running
from tests.devstack.support import RunningGateway, file_log, wait_for, warden


class TestWhatAPluginSees:
    def test_of_the_request(self, gateway: RunningGateway):
        headers = [("X-Do", "show"), ("X-Custom", "a"), ("x-custom", "b"), ("Host", "api.example:8000")]
        answer = httpx.post(
            f"{gateway.url}/weather/v1//items?a=1&a=2&flag&b=%C3%A9", headers=headers, content="body é".encode()
        )
        seen = answer.json()
        assert seen["headers"]["x-custom"] == ["a", "b"]
        assert seen["headers"]["host"] == "api.example:8000"
        assert seen["header"] == "a"
        assert seen["method"] == "POST"
        assert seen["path"] == "/weather/v1/items"
        assert seen["path_with_query"] == "/weather/v1//items?a=1&a=2&flag&b=%C3%A9"
        assert seen["raw_query"] == "a=1&a=2&flag&b=%C3%A9"
        assert seen["query"] == {"a": ["1", "2"], "flag": True, "b": "é"}
        assert seen["query_arg"] == "1"
        assert (seen["host"], seen["scheme"], seen["ip"]) == ("api.example", "http", "127.0.0.1")
        assert seen["body"] == "body é"
        assert seen["request_id"] == answer.headers["x-kong-request-id"]
        assert seen["nginx_id"] != seen["request_id"]
        assert (seen["route"]["name"], seen["route"]["paths"]) == ("weather", ["/weather"])
        assert (seen["service"]["name"], seen["service"]["host"]) == ("up", "127.0.0.1")

    def test_of_its_configuration(self, gateway: RunningGateway):
        config = httpx.get(f"{gateway.url}/weather/x", headers={"x-do": "show-config"}).json()["config"]
        assert config["api_product"] == "weather"
        assert config["prefix"] is None
        assert config["policy"] == "open"
        assert config["retry_seconds"] == 3
        assert config["key_names"] == ["apikey"]

    def test_a_body_it_read_still_reaches_the_upstream(self, gateway: RunningGateway):
        gateway.apply(gateway.configuration())
        answer = httpx.post(
            f"{gateway.url}/weather/x", headers={"x-do": "rewrite", "x-custom": "gone"}, content=b"original"
        )
        seen = answer.json()
        assert (seen["method"], seen["path"], seen["query"]) == ("POST", "/v1/echo", "by=plugin")
        assert seen["body"] == "from the plugin"
        assert "x-custom" not in dict(seen["headers"])
        assert dict(seen["headers"])["x-added"] == "two"


class TestExit:
    def test_answers_in_the_upstreams_place(self, gateway: RunningGateway):
        answer = httpx.get(f"{gateway.url}/weather/v1/current/oslo", headers={"x-do": "refuse"})
        assert answer.status_code == 401
        assert answer.json() == {"code": "key_unknown"}
        assert answer.headers["x-km-receipt"] == "refused-1"
        assert answer.headers["content-type"] == "application/json"
        assert int(answer.headers["x-kong-response-latency"]) >= 0
        assert "x-kong-upstream-latency" not in answer.headers
        assert answer.headers["server"] == "kong/3.9.3"

    def test_many_of_them_leak_no_connection(self, gateway: RunningGateway):
        pid = gateway.plugin_server_pid()
        with httpx.Client() as client:
            for _ in range(300):
                client.get(f"{gateway.url}/weather/x", headers={"x-do": "refuse"})
        family = [pid, *[int(one) for one in _children(pid)]]
        assert sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in family) < 250


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


class TestLogPhase:
    def test_sees_the_finished_request_whoever_answered_it(self, gateway: RunningGateway, tmp_path: Path):
        seen = tmp_path / "witness.jsonl"
        witness = {"name": "witness", "config": {"path": str(seen)}}
        gateway.apply(gateway.configuration(plugins=[warden(), witness, file_log(gateway.spool)]))
        served = httpx.get(f"{gateway.url}/weather/v1/current/oslo?apikey=q", headers={"apikey": "k"})
        refused = httpx.get(f"{gateway.url}/weather/v1/current/oslo", headers={"x-do": "refuse"})
        unknown = httpx.get(f"{gateway.url}/nowhere")

        def noted() -> dict[str, dict]:
            lines = [json.loads(line) for line in seen.read_text().splitlines()] if seen.exists() else []
            found = {line["log"]["request"]["id"]: line for line in lines}
            return found if len(found) == 3 else {}

        found = wait_for(noted)
        line = found[served.headers["x-kong-request-id"]]
        assert line["account"] == "acc_42"
        assert line["status"] == 200
        assert line["receipt"] == "r-1"
        assert line["headers"]["apikey"] == "redacted"
        # a higher priority than file-log: the log is still whole
        assert line["log"]["request"]["querystring"] == {"apikey": "q"}
        assert line["log"]["response"]["headers"]["x-km-receipt"] == "r-1"
        assert found[refused.headers["x-kong-request-id"]]["log"]["source"] == "kong"
        assert found[unknown.headers["x-kong-request-id"]]["status"] == 404


class TestFailClosed:
    """No request reaches the upstream without a decision."""

    @pytest.mark.parametrize("what", ["raise", "misuse", "no-such-thing"])
    def test_a_plugin_that_fails(self, gateway: RunningGateway, what: str):
        answer = httpx.get(f"{gateway.url}/weather/v1/current/oslo", headers={"x-do": what})
        assert answer.status_code in {500, 503}
        assert "temperature" not in answer.text
        assert httpx.get(f"{gateway.url}/weather/v1/current/oslo").status_code == 200

    def test_a_plugin_that_hangs(self, new_gateway: Callable[..., RunningGateway]):
        gateway = new_gateway(options=("--plugin-timeout-seconds", "1"))
        gateway.start(gateway.configuration())
        answer = httpx.get(f"{gateway.url}/weather/v1/current/oslo", headers={"x-do": "hang"}, timeout=30)
        assert answer.status_code == 500
        assert answer.json()["message"] == "An unexpected error occurred"
        assert httpx.get(f"{gateway.url}/weather/v1/current/oslo").status_code == 200

    def test_a_plugin_that_kills_its_worker_is_tried_again_and_then_refused(
        self, new_gateway: Callable[..., RunningGateway]
    ):
        gateway = new_gateway()
        gateway.start(gateway.configuration())
        answer = httpx.get(f"{gateway.url}/weather/v1/current/oslo", headers={"x-do": "die"}, timeout=60)
        assert answer.status_code >= 500
        assert "closed (attempt 1)" in gateway.log()
        wait_for(lambda: httpx.get(f"{gateway.url}/weather/v1/current/oslo", timeout=60).status_code == 200)

    def test_a_plugin_server_that_is_stopped_refuses_within_its_time(
        self, new_gateway: Callable[..., RunningGateway]
    ):
        gateway = new_gateway(options=("--plugin-timeout-seconds", "1"))
        gateway.start(gateway.configuration())
        family = [gateway.plugin_server_pid(), *[int(one) for one in _children(gateway.plugin_server_pid())]]
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        try:
            assert httpx.get(f"{gateway.url}/weather/v1/current/oslo", timeout=30).status_code == 500
        finally:
            for pid in family[::-1]:
                os.kill(pid, signal.SIGCONT)

    def test_a_plugin_server_that_is_killed_is_started_again(self, new_gateway: Callable[..., RunningGateway]):
        gateway = new_gateway()
        gateway.start(gateway.configuration())
        first = gateway.plugin_server_pid()
        os.kill(first, signal.SIGKILL)
        deadline, statuses = time.monotonic() + 30, set()
        with httpx.Client(timeout=30) as client:
            while time.monotonic() < deadline:
                answer = client.get(f"{gateway.url}/weather/v1/current/oslo")
                statuses.add(answer.status_code)
                # served only with a decision
                assert (answer.status_code == 200) == (answer.headers.get("x-km-receipt") == "r-1")
                if 500 in statuses and answer.status_code == 200:
                    break
                time.sleep(0.02)
        assert statuses == {200, 500}
        assert gateway.plugin_server_pid() != first

    def test_without_a_plugin_server_nothing_goes_through(self, new_gateway: Callable[..., RunningGateway]):
        gateway = new_gateway(server_options="--workers 1 --no-such-option")
        with pytest.raises(Exception, match="not ready"):
            gateway.start(gateway.configuration(), ready_seconds=2)
        assert httpx.get(f"{gateway.url}/weather/v1/current/oslo").status_code == 500
        (line,) = gateway.lines()
        assert line["response"]["status"] == 500


class TestProcesses:
    def test_an_orderly_stop_finishes_what_runs(self, new_gateway: Callable[..., RunningGateway]):
        gateway = new_gateway()
        gateway.start(gateway.configuration())
        answers: list[int] = []

        def call() -> None:
            answers.append(httpx.get(f"{gateway.url}/weather/v1/slow?ms=1500", timeout=30).status_code)

        caller = threading.Thread(target=call)
        caller.start()
        # admitted and on its way to the upstream
        time.sleep(0.7)
        gateway.child.send_signal(signal.SIGTERM)
        caller.join()
        assert answers == [200]
        assert [line["response"]["status"] for line in gateway.lines()] == [200]
        wait_for(lambda: gateway.child.exit_code() == 0)

    def test_the_plugin_server_ends_with_a_killed_gateway(self, new_gateway: Callable[..., RunningGateway]):
        gateway = new_gateway()
        gateway.start(gateway.configuration())
        family = [gateway.plugin_server_pid(), *[int(one) for one in _children(gateway.plugin_server_pid())]]
        os.kill(gateway.child.pid, signal.SIGKILL)
        wait_for(lambda: not any(is_running(pid) for pid in family))

    def test_a_killed_gateway_has_logged_every_answer_it_gave(self, new_gateway: Callable[..., RunningGateway]):
        gateway = new_gateway()
        gateway.start(gateway.configuration())
        answered = []
        with httpx.Client(timeout=30) as client:
            for number in range(200):
                if number == 150:
                    os.kill(gateway.child.pid, signal.SIGKILL)
                try:
                    answer = client.get(f"{gateway.url}/weather/v1/current/oslo")
                except httpx.TransportError:
                    break
                answered.append(answer.headers["x-kong-request-id"])
        assert len(answered) >= 150
        assert set(answered) <= {line["request"]["id"] for line in gateway.lines()}
