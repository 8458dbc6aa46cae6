"""Lines of file-log, compared with lines a real Kong wrote."""

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.devstack.support import DATA, RunningGateway, file_log, wait_for, warden

LINES = [json.loads(line) for line in (DATA / "recorded-file-log-lines.jsonl").read_text().splitlines()]
SERIALIZED = [json.loads(line) for line in (DATA / "recorded-log-serialize.jsonl").read_text().splitlines()]
# set by `authenticate`, which the plugin of the recording did not call
ONLY_HERE = {"consumer", "authenticated_entity"}


def shape(value: Any) -> Any:
    """Names and types, not values."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def only_line(gateway: RunningGateway, request_id: str) -> dict[str, Any]:
    (found,) = wait_for(lambda: [one for one in gateway.lines() if one["request"]["id"] == request_id])
    return found


class TestShape:
    def test_a_served_request(self, gateway: RunningGateway):
        answer = httpx.get(f"{gateway.url}/weather/v1/current/oslo")
        line = only_line(gateway, answer.headers["x-kong-request-id"])
        assert line.keys() >= ONLY_HERE
        assert shape({name: value for name, value in line.items() if name not in ONLY_HERE}) == shape(LINES[0])

    def test_a_refused_request(self, gateway: RunningGateway):
        answer = httpx.get(f"{gateway.url}/weather/v1/current/oslo", headers={"x-do": "refuse"})
        line = only_line(gateway, answer.headers["x-kong-request-id"])
        assert shape(line) == shape(LINES[1])
        for name in ("source", "upstream_status"):
            assert line[name] == LINES[1][name]
        assert line["latencies"]["proxy"] == LINES[1]["latencies"]["proxy"] == -1

    def test_the_whole_log_before_the_privacy_expression(self, gateway: RunningGateway, tmp_path: Path):
        seen = tmp_path / "witness.jsonl"
        plugins = [warden(), {"name": "witness", "config": {"path": str(seen)}}]
        gateway.apply(gateway.configuration(plugins=plugins))
        httpx.post(f"{gateway.url}/weather/v1/status/200?page=2", headers=[("x-custom", "a"), ("x-custom", "b")])
        line = json.loads(wait_for(lambda: seen.exists() and seen.read_text()))["log"]
        recorded = SERIALIZED[0]["value"]
        for part in (line, recorded):
            # which headers there are is the caller's and the upstream's business
            part["request"]["headers"] = dict.fromkeys(("x-custom", "host"), "")
            part["response"]["headers"] = {}
            part["consumer"]["tags"] = []
        assert shape(line) == shape(recorded)


class TestContent:
    def test_sizes_are_what_went_over_the_wire(self, gateway: RunningGateway):
        request = (
            b"POST /weather/v1/reports HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
        )
        with socket.create_connection(("127.0.0.1", gateway.proxy_port), timeout=20) as connection:
            connection.sendall(request)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        request_id = answer.lower().split(b"x-kong-request-id: ")[1][:32].decode()
        line = only_line(gateway, request_id)
        assert line["request"]["size"] == len(request)
        assert line["response"]["size"] == len(answer)

    @pytest.mark.parametrize(
        "sent",
        [
            {"headers": {"apikey": "KEYSECRET"}},
            {"headers": {"authorization": "Bearer KEYSECRET"}},
            {"headers": {"cookie": "key=KEYSECRET"}},
            {"params": {"apikey": "KEYSECRET"}},
        ],
    )
    @pytest.mark.parametrize("path", ["/weather/v1/current/oslo", "/nowhere"])
    @pytest.mark.parametrize("do", ["admit", "refuse", "raise"])
    def test_a_presented_key_is_in_no_line(self, gateway: RunningGateway, sent: dict, path: str, do: str):
        headers = {**sent.get("headers", {}), "x-do": do}
        answer = httpx.get(gateway.url + path, headers=headers, params=sent.get("params"))
        line = only_line(gateway, answer.headers["x-kong-request-id"])
        assert "KEYSECRET" not in json.dumps(line)
        assert line["path"] == path

    def test_unit_headers_are_in_it(self, gateway: RunningGateway):
        plugins = [warden(), file_log(gateway.spool, tokens="X-Usage-Tokens")]
        gateway.apply(gateway.configuration(plugins=plugins))
        httpx.get(f"{gateway.url}/weather/v1/tokens?n=123")
        httpx.get(f"{gateway.url}/weather/v1/current/oslo")
        first, second = gateway.lines()
        assert first["km_unit_tokens"] == "123"
        assert "km_unit_tokens" not in second

    def test_the_line_is_there_when_the_answer_is(self, gateway: RunningGateway):
        with httpx.Client() as client:
            for path in ("/weather/v1/current/oslo", "/weather/v1/history/oslo?lines=3", "/nowhere"):
                for _ in range(20):
                    request_id = client.get(gateway.url + path).headers["x-kong-request-id"]
                    assert request_id in gateway.spool.read_text()

    @pytest.mark.parametrize("reopen", [True, False])
    def test_after_a_rename(self, gateway: RunningGateway, *, reopen: bool):
        gateway.apply(gateway.configuration(plugins=[warden(), file_log(gateway.spool, reopen=reopen)]))
        httpx.get(f"{gateway.url}/weather/v1/current/oslo")
        taken = gateway.spool.rename(gateway.directory / "segment")
        httpx.get(f"{gateway.url}/weather/v1/current/oslo")
        assert (len(taken.read_text().splitlines()), len(gateway.lines())) == ((1, 1) if reopen else (2, 0))

    def test_a_disk_that_takes_nothing_does_not_stop_the_gateway(self, gateway: RunningGateway):
        gateway.apply(gateway.configuration(plugins=[warden(), file_log(gateway.directory / "none" / "x.log")]))
        assert httpx.get(f"{gateway.url}/weather/v1/current/oslo").status_code == 200
        assert "cannot write" in gateway.log()
