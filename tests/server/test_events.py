import contextlib
import socket
import struct
import threading
from typing import Any

import pytest

from kong_plugins.server import messages
from tests.server.conftest import RunningServer, StartServer, eventually
from tests.server.kong_client import ClosedError, KongClient, pdk

KEY = "km_live_" + "Ab3" * 12 + "Zz"
PROBLEM = {"type": "about:blank", "status": 503, "code": "gateway_plugin_failed"}


def is_refusal(outcome: Any) -> bool:
    return outcome.exit["status"] == 503 and PROBLEM.items() <= outcome.body.items()


class TestEvent:
    def test_gives_the_plugin_kongs_answers_and_kong_the_plugins_calls(self, shared_server: RunningServer):
        outcome = shared_server.client().request(
            "probe", {"do": "headers"}, "access", pdk({"a": "1", "b": ["2", "3"]})
        )
        assert outcome.names == ["kong.request.get_headers", "kong.service.request.set_headers"]
        assert outcome.calls[0][1] == 100
        assert outcome.calls[1][1]["X-Seen"] == "2"
        assert outcome.exit is None

    def test_reuses_the_connection_for_many_events(self, shared_server: RunningServer):
        client = shared_server.client()
        for _ in range(50):
            client.request("probe", {"do": "headers"}, "access", pdk({"a": "1"}))
        assert len(client.pool) == 1

    def test_ends_with_exit_and_closes_the_connection(self, shared_server: RunningServer):
        client = shared_server.client()
        instance = client.start_instance("probe", {"do": "exit"})
        connection = client.connect()
        client.send(connection, _event(instance, "access"))
        assert client.read(connection) == b"kong.response.exit"
        answer = messages.decode("ExitArgs", client.read(connection))
        assert (answer["status"], answer["headers"]["Retry-After"]) == (429, "7")
        assert connection.recv(1) == b""

    def test_ends_with_exit_even_where_the_plugin_catches_everything(self, shared_server: RunningServer):
        outcome = shared_server.client().request("probe", {"do": "swallow"}, "access")
        assert outcome.names == ["kong.response.exit"]
        assert outcome.exit["status"] == 403

    def test_runs_next_to_events_that_wait(self, shared_server: RunningServer):
        client = shared_server.client()
        instance = client.start_instance("probe", {"do": "sleep", "seconds": 2})
        waiting = [client.connect_anew() for _ in range(20)]
        for connection in waiting:
            client.send(connection, _event(instance, "access"))
            assert client.read(connection) == b"kong.log.debug"
            client.read(connection)
            client.send(connection, b"")
        assert client.request("probe", {"do": "headers"}, "access", pdk({})).exit is None
        for connection in waiting:
            assert client.read(connection) == b"kong.log.debug"
            connection.close()

    def test_survives_frames_in_single_bytes_and_many_at_once(self, shared_server: RunningServer):
        client = shared_server.client()
        instance = client.start_instance("probe", {"do": "headers"})
        connection = client.connect()
        frame = _event(instance, "access")
        for byte in struct.pack("<I", len(frame)) + frame:
            connection.sendall(bytes([byte]))
        client.read(connection)
        client.read(connection)
        connection.sendall(b"\0\0\0\0")
        client.read(connection)
        client.read(connection)
        second = struct.pack("<I", len(frame)) + frame
        connection.sendall(b"\0\0\0\0" + second)
        assert client.read(connection) == b""
        assert messages.decode("RpcReturn", client.read(connection)) == {"sequence": 9}
        assert client.read(connection) == b"kong.request.get_headers"
        connection.close()

    def test_carries_large_answers(self, shared_server: RunningServer):
        headers = {f"x-{number}": "v" * 8000 for number in range(100)}
        outcome = shared_server.client().request("probe", {"do": "headers"}, "access", pdk(headers))
        assert outcome.calls[1][1]["X-Seen"] == "100"

    def test_ends_quietly_when_kong_leaves(self, shared_server: RunningServer):
        client = shared_server.client()
        before = shared_server.metric("km_pluginserver_events_total", result="lost")
        instance = client.start_instance("probe", {"do": "headers"})
        connection = client.connect()
        client.send(connection, _event(instance, "access"))
        client.read(connection)
        connection.close()
        eventually(lambda: shared_server.metric("km_pluginserver_events_total", result="lost") > before, "counted")


class TestFailingPlugin:
    @pytest.mark.parametrize("do", ["raise", "raise_first", "leave", "bad_value"])
    def test_refuses_the_request_in_the_access_phase(self, shared_server: RunningServer, do: str):
        outcome = shared_server.client().request("probe", {"do": do}, "access", pdk({"apikey": KEY}))
        assert is_refusal(outcome)
        assert outcome.exit["headers"]["Content-Type"] == "application/problem+json"

    def test_ends_the_event_normally_in_the_log_phase(self, shared_server: RunningServer):
        client = shared_server.client()
        outcome = client.request("probe", {"do": "raise"}, "log", pdk({"apikey": KEY}))
        assert outcome.exit is None
        assert client.request("probe", {"do": "headers"}, "log", pdk({})).exit is None

    def test_is_refused_for_a_phase_it_does_not_have(self, shared_server: RunningServer):
        assert is_refusal(shared_server.client().request("probe", {"do": "headers"}, "rewrite"))

    def test_never_shows_keys_headers_or_secrets_in_the_log(self, shared_server: RunningServer):
        client = shared_server.client()
        client.request("probe", {"do": "raise"}, "access", pdk({"apikey": KEY}))
        client.request("probe", {"do": "raise"}, "access", pdk({"apikey": "opaque-header-value"}))
        client.request("probe", {"do": "log_key"}, "access", pdk({"apikey": KEY}))
        client.request("probe", {"do": "spawn"}, "access", pdk({"apikey": "opaque-header-value"}))
        with pytest.raises(ClosedError):
            client.start_instance("probe", {"do": "refuse", "secret": "hunter2hunter2"})
        text = eventually(lambda: shared_server.messages("Kong's call is refused") and shared_server.log_text())
        assert "km_live_[redacted]" in text
        for value in (KEY, "opaque-header-value", "hunter2hunter2"):
            assert value not in text
        assert any("probe.py" in place for line in shared_server.log_lines() for place in line.get("stack", []))

    def test_gives_kongs_log_no_keys_either(self, shared_server: RunningServer):
        outcome = shared_server.client().request("probe", {"do": "kong_log"}, "access", pdk({"apikey": KEY}))
        assert outcome.argument("kong.log.err") == ["saw ", "km_live_[redacted]", 5]


class TestTime:
    def test_refuses_a_request_whose_event_takes_too_long(self, start_server: StartServer):
        server = start_server("--event-timeout-seconds", "0.5", workers=1)
        outcome = server.client().request("probe", {"do": "sleep"}, "access")
        assert is_refusal(outcome)
        assert server.metric("km_pluginserver_timeouts_total") == 1
        assert server.metric("km_pluginserver_events_total", result="timeout") == 1

    def test_refuses_it_too_while_kong_is_slow_to_answer_a_call(self, start_server: StartServer):
        """Kong reads on after its answer: the refusal must be there, the connection open until it was read."""
        server = start_server("--event-timeout-seconds", "0.5", workers=1)
        client = server.client()
        instance = client.start_instance("probe", {"do": "ask"})
        connection = client.connect()
        client.send(connection, _event(instance, "access"))
        assert client.read(connection) == b"kong.request.get_path"
        client.read(connection)
        eventually(lambda: server.metric("km_pluginserver_timeouts_total") == 1, "timed out")
        client.send(connection, messages.encode("String", {"v": "/late"}))
        assert client.read(connection) == b"kong.response.exit"
        assert messages.decode("ExitArgs", client.read(connection))["status"] == 503
        connection.close()

    def test_ends_a_late_log_event_and_keeps_the_connection_in_step(self, start_server: StartServer):
        server = start_server("--event-timeout-seconds", "0.5", workers=1)
        client = server.client()
        instance = client.start_instance("probe", {"do": "ask"})
        connection = client.connect()
        client.send(connection, _event(instance, "log"))
        client.read(connection)
        client.read(connection)
        eventually(lambda: server.metric("km_pluginserver_timeouts_total") == 1, "timed out")
        client.send(connection, messages.encode("String", {"v": "/late"}))
        assert client.read(connection) == b""
        assert messages.decode("RpcReturn", client.read(connection)) == {"sequence": 9}
        assert client.handle_event(instance, "log", pdk({}), connection).names == [
            "kong.request.get_path",
            "kong.log.debug",
        ]


class TestGarbage:
    @pytest.mark.parametrize(
        "raw",
        [
            b"\xff\xff\xff\xffxxxx",
            struct.pack("<I", 3) + b"\xff\xff\xff",
            struct.pack("<I", 0),
            struct.pack("<I", 2) + b"\x08\x05",
            b"GET / HTTP/1.1\r\n\r\n",
        ],
    )
    def test_closes_the_connection_and_is_counted(self, shared_server: RunningServer, raw: bytes):
        before = shared_server.metric("km_pluginserver_protocol_errors_total")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(shared_server.socket))
            connection.sendall(raw)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(10) == b""
        eventually(lambda: shared_server.metric("km_pluginserver_protocol_errors_total") > before, "counted")
        assert shared_server.client().request("probe", {"do": "headers"}, "access", pdk({})).exit is None


class TestManyClients:
    def test_all_get_their_own_answers(self, shared_server: RunningServer):
        wrong: list[Any] = []

        def work(number: int) -> None:
            client = KongClient(shared_server.socket)
            headers = {f"h{index}": "x" for index in range(number)}
            for _ in range(100):
                seen = client.request("probe", {"do": "headers"}, "access", pdk(headers)).calls[1][1]["X-Seen"]
                if seen != str(number):
                    wrong.append((number, seen))
            client.close()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def _event(instance: int, phase: str) -> bytes:
    event = {"instance_id": instance, "event_name": phase}
    return messages.encode("RpcCall", {"cmd_handle_event": event, "sequence": 9})


def test_the_socket_is_open_to_kongs_user_and_nobody_sees_the_instances(shared_server: RunningServer):
    assert shared_server.socket.stat().st_mode & 0o777 == 0o666
    private = shared_server.directory / "km.sock.instances"
    assert private.stat().st_mode & 0o777 == 0o700
    assert all(one.stat().st_mode & 0o077 == 0 for one in private.iterdir())


GET_HEADERS, SET_HEADERS, SHARE = (
    "kong.request.get_headers",
    "kong.service.request.set_headers",
    "kong.ctx.shared.set",
)


class TestPluginThatDoesNotWait:
    """`waits_for_kong = False`: calls that Kong answers with nothing travel with what comes next."""

    @pytest.fixture
    def server(self, start_server: StartServer) -> RunningServer:
        return start_server("--event-timeout-seconds", "1", workers=1, plugins="hasty")

    def begin(self, client: KongClient, do: str, phase: str = "access") -> socket.socket:
        """Start an event and answer its first call."""
        instance = client.start_instance("hasty", {"do": do})
        connection = client.connect_anew()
        client.send(connection, _event(instance, phase))
        assert client.read(connection).decode() == GET_HEADERS
        client.read(connection)
        client.send(connection, b"")
        return connection

    def read_calls(self, client: KongClient, connection: socket.socket, count: int) -> list[str]:
        """Read that many calls and answer none."""
        calls = []
        for _ in range(count):
            calls.append(client.read(connection).decode())
            client.read(connection)
        return calls

    def test_has_its_last_calls_and_the_end_of_the_event_sent_at_once(self, server: RunningServer):
        client = server.client()
        connection = self.begin(client, "nothing")
        assert self.read_calls(client, connection, 2) == [SET_HEADERS, SHARE]
        assert client.read(connection) == b""
        assert messages.decode("RpcReturn", client.read(connection)) == {"sequence": 9}

    def test_has_the_answers_skipped_and_the_connection_used_again(self, server: RunningServer):
        client = server.client()
        for _ in range(20):
            outcome = client.request("hasty", {"do": "nothing"}, "access", pdk({}))
            assert outcome.names == [GET_HEADERS, SET_HEADERS, SHARE]
        assert len(client.opened) == 1
        assert server.metric("km_pluginserver_unanswered_calls_total") == 0

    def test_gets_the_answer_to_what_it_asks(self, server: RunningServer):
        outcome = server.client().request("hasty", {"do": "ask"}, "access", pdk({}, request_get_method="PUT"))
        assert outcome.names[1:] == [SET_HEADERS, SHARE, "kong.request.get_method", "kong.response.set_headers"]
        assert outcome.argument("kong.response.set_headers") == {"method": "PUT"}

    def test_exits_once_kong_has_answered_all_calls_before(self, server: RunningServer):
        """Kong answers each; writing to a closed connection would make it answer 500."""
        outcome = server.client().request("hasty", {"do": "exit"}, "access", pdk({}))
        assert outcome.names == [GET_HEADERS, SET_HEADERS, SHARE, "kong.response.exit"]
        assert outcome.exit["status"] == 403

    @pytest.mark.parametrize("do", ["raise", "stall"])
    def test_fails_closed(self, server: RunningServer, do: str):
        client = server.client()
        instance = client.start_instance("hasty", {"do": do})
        outcome = client.handle_event(instance, "access", pdk({}, request_get_method="GET"))
        assert is_refusal(outcome)
        # what it had set before it failed was not sent, or has been answered
        assert (SET_HEADERS in outcome.names) == (do == "stall")

    @pytest.mark.parametrize("do", ["raise", "stall"])
    def test_ends_a_log_event_all_the_same(self, server: RunningServer, do: str):
        client = server.client()
        instance = client.start_instance("hasty", {"do": do})
        for _ in range(2):
            outcome = client.handle_event(instance, "log", pdk({}, request_get_method="GET"))
            assert outcome.names[:3] == [GET_HEADERS, SET_HEADERS, SHARE]
            assert outcome.exit is None
        assert len(client.opened) == 1

    def test_runs_out_of_time_while_kong_is_slow_to_answer(self, server: RunningServer):
        """The refusal follows the calls; Kong answers those and reads on."""
        client = server.client()
        connection = self.begin(client, "ask")
        assert self.read_calls(client, connection, 3) == [SET_HEADERS, SHARE, "kong.request.get_method"]
        client.send(connection, b"")
        assert client.read(connection) == b"kong.response.exit"
        assert messages.decode("ExitArgs", client.read(connection))["status"] == 503
        client.send(connection, b"")
        connection.close()

    def test_is_not_cut_off_by_a_stop_before_kong_has_answered(self, server: RunningServer):
        client = server.client()
        connection = self.begin(client, "nothing")
        assert self.read_calls(client, connection, 2) == [SET_HEADERS, SHARE]
        assert client.read(connection) == b""
        client.read(connection)
        server.process.terminate()
        eventually(lambda: not server.socket.exists(), "the master has told the worker")
        for _ in range(2):
            client.send(connection, b"")  # a closed connection would refuse this
        assert connection.recv(1) == b""
        assert server.process.wait(20) == 0

    def test_is_counted_where_kong_goes_without_an_answer(self, server: RunningServer):
        client = server.client()
        connection = self.begin(client, "nothing")
        self.read_calls(client, connection, 2)
        connection.close()
        eventually(lambda: server.metric("km_pluginserver_unanswered_calls_total") == 2, "it was counted")
