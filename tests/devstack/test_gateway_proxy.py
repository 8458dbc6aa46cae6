"""What callers and upstreams see of a request that goes through the gateway."""

import asyncio
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from devstack.ports import free_port
from tests.devstack.support import RunningGateway, wait_for

HEX_ID = re.compile(r"[0-9a-f]{32}")


def line_of(gateway: RunningGateway, request_id: str) -> dict:
    found = wait_for(lambda: [one for one in gateway.lines() if one["request"]["id"] == request_id])
    assert len(found) == 1
    return found[0]


def raw_exchange(port: int, request: bytes) -> bytes:
    """Send bytes and read until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.fixture
def scripted_upstream() -> Iterator[Callable[[bytes | None], int]]:
    """An upstream that answers every connection's first request with these bytes, then closes (None: at once)."""
    servers: list[socket.socket] = []
    broken_off = threading.Event()

    def serve(server: socket.socket, answer: bytes | None) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                if answer is not None:
                    connection.recv(65536)
                    try:
                        connection.sendall(answer)
                    except ConnectionError:
                        broken_off.set()

    def make(answer: bytes | None) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        make.broken_off = broken_off
        threading.Thread(target=serve, args=(server, answer), daemon=True).start()
        return server.getsockname()[1]

    yield make
    for server in servers:
        # wakes the thread that waits in accept, which close alone would not
        server.shutdown(socket.SHUT_RDWR)
        server.close()


class TestHeaders:
    def test_the_answer_carries_the_plugins_and_the_gateways_headers(self, gateway: RunningGateway):
        answer = httpx.get(f"{gateway.url}/weather/v1/current/oslo", headers={"apikey": "k"})
        assert answer.status_code == 200
        assert answer.json()["city"] == "oslo"
        assert answer.headers["x-km-receipt"] == "r-1"
        assert answer.headers["x-ratelimit-limit"] == "10"
        assert answer.headers["via"] == "1.1 kong/3.9.3"
        assert HEX_ID.fullmatch(answer.headers["x-kong-request-id"])
        assert int(answer.headers["x-kong-upstream-latency"]) >= 0
        assert int(answer.headers["x-kong-proxy-latency"]) >= 0

    def test_the_upstream_sees_who_called_and_what_the_plugin_set(self, gateway: RunningGateway):
        sent = {"apikey": "secret", "X-Twice": "one", "X-Forwarded-For": "10.0.0.1", "Connection": "close, X-Drop"}
        answer = httpx.get(f"{gateway.url}/weather/v1/echo?a=1&b", headers=[*sent.items(), ("X-Drop", "me")])
        seen = answer.json()
        headers = dict(seen["headers"])
        assert seen["path"] == "/v1/echo"
        assert seen["query"] == "a=1&b"
        assert headers["apikey"] == "redacted"
        assert headers["x-km-receipt"] == "r-1"
        assert headers["host"] == f"127.0.0.1:{gateway.upstream_port}"
        assert headers["x-forwarded-for"] == "10.0.0.1, 127.0.0.1"
        assert headers["x-forwarded-proto"] == "http"
        assert headers["x-forwarded-host"] == "127.0.0.1"
        assert headers["x-forwarded-port"] == str(gateway.proxy_port)
        assert headers["x-forwarded-path"] == "/weather/v1/echo"
        assert headers["x-forwarded-prefix"] == "/weather"
        assert headers["x-real-ip"] == "127.0.0.1"
        assert headers["x-kong-request-id"] == answer.headers["x-kong-request-id"]
        assert headers["connection"] == "keep-alive"
        assert "x-drop" not in headers
        assert "secret" not in answer.text

    def test_request_ids_are_never_the_same(self, gateway: RunningGateway):
        with httpx.Client() as client:
            ids = {
                client.get(f"{gateway.url}/weather/v1/status/200").headers["x-kong-request-id"] for _ in range(50)
            }
        assert len(ids) == 50

    def test_hop_by_hop_headers_of_the_upstream_stay_behind(
        self, gateway: RunningGateway, scripted_upstream: Callable[[bytes], int]
    ):
        port = scripted_upstream(
            b"HTTP/1.1 200 OK\r\nConnection: close, X-Inner\r\nX-Inner: 1\r\nKeep-Alive: timeout=5\r\n"
            b"X-Same: a\r\nX-Same: b\r\nX-Km-Receipt: forged\r\nVia: 1.0 inner\r\nContent-Length: 2\r\n\r\nok"
        )
        gateway.apply(gateway.configuration(port=port))
        answer = httpx.get(f"{gateway.url}/weather/x")
        assert answer.text == "ok"
        assert "x-inner" not in answer.headers
        assert "keep-alive" not in answer.headers
        assert answer.headers.get_list("x-same") == ["a", "b"]
        assert answer.headers["via"] == "1.0 inner, 1.1 kong/3.9.3"
        # the plugin's comes first, so that nobody reads the upstream's in its place
        assert answer.headers.get_list("x-km-receipt") == ["r-1", "forged"]
        assert line_of(gateway, answer.headers["x-kong-request-id"])["km_receipt_out"] == "r-1"


class TestBodies:
    def test_a_large_request_arrives_whole(self, gateway: RunningGateway):
        body = bytes(range(256)) * 8192
        answer = httpx.post(f"{gateway.url}/weather/v1/reports", content=body, timeout=30)
        assert answer.status_code == 201
        assert answer.json() == {"received_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        line = line_of(gateway, answer.headers["x-kong-request-id"])
        assert line["request"]["size"] > len(body)

    def test_a_chunked_request_arrives_whole(self, gateway: RunningGateway):
        pieces = [b"a" * 10, b"b" * 100_000, b"c"]
        answer = httpx.post(f"{gateway.url}/weather/v1/reports", content=iter(pieces), timeout=30)
        assert answer.json()["sha256"] == hashlib.sha256(b"".join(pieces)).hexdigest()

    def test_an_answer_streams_while_the_upstream_still_works(self, gateway: RunningGateway):
        with httpx.stream(
            "GET", f"{gateway.url}/weather/v1/history/oslo?lines=3&pause_ms=300", timeout=30
        ) as answer:
            assert answer.headers["transfer-encoding"] == "chunked"
            lines = answer.iter_lines()
            first = json.loads(next(lines))
            # no line in the log yet: the rest of the answer is still to come
            seen = [one["request"]["id"] for one in gateway.lines()]
            assert answer.headers["x-kong-request-id"] not in seen
            rest = [json.loads(line) for line in lines]
        assert [one["day"] for one in [first, *rest]] == [0, -1, -2]
        assert answer.headers["x-kong-request-id"] in [one["request"]["id"] for one in gateway.lines()]

    def test_a_long_answer_comes_whole(self, gateway: RunningGateway):
        answer = httpx.get(f"{gateway.url}/weather/v1/history/oslo?lines=5000", timeout=60)
        assert len(answer.text.splitlines()) == 5000

    @pytest.mark.parametrize("status", [204, 304])
    def test_answers_without_a_body(self, gateway: RunningGateway, status: int):
        with httpx.Client() as client:
            assert client.get(f"{gateway.url}/weather/v1/status/{status}").content == b""
            assert client.get(f"{gateway.url}/weather/v1/status/200").status_code == 200

    def test_head_has_the_length_and_no_body(self, gateway: RunningGateway):
        with httpx.Client() as client:
            wanted = client.get(f"{gateway.url}/weather/v1/current/oslo").headers["content-length"]
            answer = client.head(f"{gateway.url}/weather/v1/current/oslo")
            assert (answer.headers["content-length"], answer.content) == (wanted, b"")
            assert client.get(f"{gateway.url}/weather/v1/status/200").status_code == 200

    def test_http_1_0_gets_an_answer_that_ends_with_the_connection(self, gateway: RunningGateway):
        request = b"GET /weather/v1/history/oslo?lines=2 HTTP/1.0\r\nHost: x\r\n\r\n"
        head, _, body = raw_exchange(gateway.proxy_port, request).partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert len(body.splitlines()) == 2

    def test_pipelined_requests_are_answered_in_order(self, gateway: RunningGateway):
        one = b"GET /weather/v1/status/%d HTTP/1.1\r\nHost: x\r\n%b\r\n"
        wanted = [201, 404, 500, 200]
        request = b"".join(one % (status, b"Connection: close\r\n" if status == 200 else b"") for status in wanted)
        statuses = re.findall(rb"HTTP/1.1 (\d+)", raw_exchange(gateway.proxy_port, request))
        assert [int(status) for status in statuses] == wanted

    def test_expect_continue(self, gateway: RunningGateway):
        head = b"POST /weather/v1/reports HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n"
        with socket.create_connection(("127.0.0.1", gateway.proxy_port), timeout=20) as connection:
            connection.sendall(head + b"Connection: close\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 100")
            connection.sendall(b"ok")
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 201")

    def test_a_refused_upload_does_not_spoil_the_connection(self, gateway: RunningGateway):
        with httpx.Client(timeout=30) as client:
            refused = client.post(
                f"{gateway.url}/weather/v1/reports", content=b"x" * 500_000, headers={"x-do": "refuse"}
            )
            assert refused.status_code == 401
            assert client.get(f"{gateway.url}/weather/v1/status/200").status_code == 200


class TestErrors:
    def test_no_route(self, gateway: RunningGateway):
        answer = httpx.get(f"{gateway.url}/nothing/here")
        assert answer.status_code == 404
        assert answer.json() == {
            "message": "no Route matched with those values",
            "request_id": answer.headers["x-kong-request-id"],
        }
        line = line_of(gateway, answer.headers["x-kong-request-id"])
        assert (line["source"], line["response"]["status"], "route" in line) == ("kong", 404, False)

    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"no http at all\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: nine\r\n\r\n",
        ],
    )
    def test_malformed_requests_are_refused(self, gateway: RunningGateway, request_bytes: bytes):
        assert raw_exchange(gateway.proxy_port, request_bytes).startswith(b"HTTP/1.1 400")

    def test_a_huge_head_is_refused(self, gateway: RunningGateway):
        answer = raw_exchange(gateway.proxy_port, b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
        assert answer.startswith(b"HTTP/1.1 431")

    def test_websockets_are_refused_by_name(self, gateway: RunningGateway):
        request = (
            b"GET /weather/v1/echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", gateway.proxy_port), timeout=20) as connection:
            connection.sendall(request)
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 501")
        assert b"websockets are not supported by the local gateway" in answer

    def test_an_upstream_that_is_down(self, gateway: RunningGateway):
        gateway.apply(gateway.configuration(port=free_port(), retries=2))
        answer = httpx.get(f"{gateway.url}/weather/x")
        assert answer.status_code == 502
        assert answer.json()["message"] == "An invalid response was received from the upstream server"
        # what the plugin set stays: the caller can still prove that the call was admitted
        assert answer.headers["x-km-receipt"] == "r-1"
        line = line_of(gateway, answer.headers["x-kong-request-id"])
        assert (line["source"], line["upstream_status"]) == ("kong", "502, 502, 502")
        assert line["km_receipt"] == "r-1"

    def test_an_upstream_that_is_too_slow(self, gateway: RunningGateway):
        gateway.apply(gateway.configuration(read_timeout=300, retries=0))
        answer = httpx.get(f"{gateway.url}/weather/v1/slow?ms=5000")
        assert answer.status_code == 504
        assert answer.json()["message"] == "The upstream server is timing out"

    def test_an_answer_that_breaks_off_is_seen_to_be_broken(
        self, gateway: RunningGateway, scripted_upstream: Callable[[bytes], int]
    ):
        port = scripted_upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        gateway.apply(gateway.configuration(port=port))
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{gateway.url}/weather/x")
        (line,) = wait_for(gateway.lines)
        assert line["response"]["status"] == 200

    def test_an_upstream_that_speaks_no_http(
        self, gateway: RunningGateway, scripted_upstream: Callable[[bytes], int]
    ):
        gateway.apply(gateway.configuration(port=scripted_upstream(b"SSH-2.0-nothing\r\n\r\n"), retries=0))
        assert httpx.get(f"{gateway.url}/weather/x").status_code == 502

    def test_a_post_is_not_repeated_once_it_was_sent(
        self, gateway: RunningGateway, scripted_upstream: Callable[[bytes], int]
    ):
        gateway.apply(gateway.configuration(port=scripted_upstream(b"")))
        answer = httpx.post(f"{gateway.url}/weather/x", content=b"pay")
        assert answer.status_code == 502
        assert line_of(gateway, answer.headers["x-kong-request-id"])["upstream_status"] == "502"


class TestCallersWhoHangUp:
    def test_before_the_answer_leave_a_line_with_499(self, gateway: RunningGateway):
        request = b"GET /weather/v1/slow?ms=20000 HTTP/1.1\r\nHost: x\r\nX-Mark: gone\r\n\r\n"
        before = len(gateway.lines())
        connection = socket.create_connection(("127.0.0.1", gateway.proxy_port), timeout=20)
        connection.sendall(request)
        # the plugin has admitted it and the upstream works on it
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.close()
        wait_for(lambda: len(gateway.lines()) > before)
        line = next(one for one in gateway.lines() if one["response"]["status"] == 499)
        assert line["response"]["size"] == 0
        assert line["km_receipt"] == "r-1"
        assert line["source"] == "upstream"

    def test_while_the_plugin_decides_still_leave_its_receipt(self, gateway: RunningGateway):
        before = len(gateway.lines())
        connection = socket.create_connection(("127.0.0.1", gateway.proxy_port), timeout=20)
        connection.sendall(
            b"GET /weather/v1/status/200 HTTP/1.1\r\nHost: x\r\nX-Do: pause\r\nX-Seconds: 0.7\r\n\r\n"
        )
        connection.close()
        wait_for(lambda: len(gateway.lines()) > before)
        line = gateway.lines()[-1]
        assert (line["response"]["status"], line["km_receipt"]) == (499, "r-1")

    def test_in_the_middle_of_an_answer_leave_its_status(self, gateway: RunningGateway):
        before = len(gateway.lines())
        with httpx.stream("GET", f"{gateway.url}/weather/v1/history/oslo?lines=1000&pause_ms=50") as answer:
            next(answer.iter_bytes())
        wait_for(lambda: len(gateway.lines()) > before)
        line = line_of(gateway, answer.headers["x-kong-request-id"])
        assert line["response"]["status"] == 200
        assert line["response"]["size"] > 0

    @pytest.mark.parametrize("framing", [b"Content-Length: 20000000", b"Connection: close"])
    def test_in_the_middle_of_an_answer_leave_the_bytes_that_were_sent(
        self, gateway: RunningGateway, scripted_upstream: Callable[[bytes | None], int], framing: bytes
    ):
        """Whoever only stops sending is taken to have left, and still gets what is on its way: count it."""
        whole = b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing + b"x" * 20_000_000
        gateway.apply(gateway.configuration(port=scripted_upstream(whole)))
        before = len(gateway.lines())
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
            connection.settimeout(20)
            connection.connect(("127.0.0.1", gateway.proxy_port))
            connection.sendall(b"GET /weather/large HTTP/1.1\r\nHost: x\r\n\r\n")
            received = len(connection.recv(4096))
            # the rest of it no longer fits anywhere: the gateway waits for the caller
            time.sleep(0.3)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65_536):
                received += len(piece)
        wait_for(lambda: len(gateway.lines()) > before)
        line = gateway.lines()[-1]
        assert line["response"] == {"status": 200, "size": received}
        assert 4096 <= received < 19_000_000
        assert scripted_upstream.broken_off.wait(20)
        assert line["km_receipt"] == "r-1"


class TestManyAtOnce:
    async def test_every_answer_belongs_to_its_request(self, gateway: RunningGateway):
        async with httpx.AsyncClient(timeout=60) as client:

            async def one(number: int) -> bool:
                answer = await client.get(
                    f"{gateway.url}/weather/v1/echo?n={number}", headers={"x-n": str(number)}
                )
                seen = answer.json()
                return seen["query"] == f"n={number}" and ["x-n", str(number)] in seen["headers"]

            assert all(await asyncio.gather(*[one(number) for number in range(300)]))
