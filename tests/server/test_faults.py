"""A server that is stopped, full, flooded or pushed: what Kong gets, and that it goes on."""

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from kong_plugins.server import messages
from tests.server.conftest import RunningServer, StartServer, eventually
from tests.server.kong_client import ClosedError, KongClient, pdk

SERVED = ["kong.request.get_headers", "kong.service.request.set_headers"]


def event(instance: int, phase: str = "access") -> bytes:
    call = {"instance_id": instance, "event_name": phase}
    return messages.encode("RpcCall", {"cmd_handle_event": call, "sequence": 9})


def stay(client: KongClient, instance: int) -> socket.socket:
    """Begin an event that waits for Kong's answer, and return its connection."""
    connection = client.connect_anew()
    client.send(connection, event(instance))
    client.read(connection)
    client.read(connection)
    return connection


def cpu_seconds(pid: int) -> float:
    return sum(psutil.Process(pid).cpu_times()[:2])


def megabytes(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


class TestStoppedWorker:
    def test_is_replaced_and_nobody_waits_for_it(self, start_server: StartServer):
        """What it had in hand ends with a closed connection; what waited for it is served by the next worker."""
        server = start_server(workers=1)
        client = server.client()
        instance = client.start_instance("probe", {"do": "ask"})
        in_hand = stay(client, instance)
        (worker,) = server.workers()
        client.pool.clear()
        with stopped(worker):
            outcome = client.request("probe", {"do": "headers"}, "access", pdk({}))
            assert outcome.names == SERVED
            with pytest.raises(ClosedError):
                client.read(in_hand)
        assert server.workers() != [worker]
        assert server.metric("km_pluginserver_worker_restarts_total", reason="wedged") == 1
        assert client.handle_event(instance, "access", pdk({})).exit is None

    def test_does_not_hold_up_requests_that_others_can_serve(self, start_server: StartServer):
        server = start_server("--wedged-after-seconds", "100")
        client = server.client()
        instance = client.start_instance("probe", {"do": "worker"})
        with stopped(server.workers()[0]):
            # as many stay in its hands as the one that lives takes, at most
            for _ in range(20):
                outcome = client.handle_event(instance, "access", pdk({}), client.connect_anew())
                assert outcome.calls[0][1]["pid"] == str(server.workers()[1])


class TestStoppedMaster:
    def test_is_missed_by_nobody_and_kills_nobody_when_it_goes_on(self, start_server: StartServer):
        server = start_server()
        client = server.client()
        workers = server.workers()
        with stopped(server.pid):
            until = time.monotonic() + 2.5  # more than twice as long as a worker may be silent
            while time.monotonic() < until:
                outcome = client.request("probe", {"do": "headers"}, "access", pdk({}))
                assert outcome.names == SERVED
                time.sleep(0.01)
        assert server.get("/healthz")[0] == 200
        eventually(lambda: server.get("/readyz")[0] == 200, "it looks after its workers again")
        time.sleep(0.5)
        assert server.workers() == workers
        assert server.metric("km_pluginserver_worker_restarts_total") == 0


class TestDescriptors:
    """The limit is 100; 64 are kept back for plugins, so 50 connections have room (half, where that is more)."""

    @pytest.fixture
    def server(self, start_server: StartServer) -> RunningServer:
        return start_server(workers=1, plugins="probe,hoarder", descriptors=100)

    def test_are_left_to_plugins_however_many_connections_come(self, server: RunningServer):
        client = server.client()
        instance = client.start_instance("probe", {"do": "headers"})
        for _ in range(200):
            outcome = client.handle_event(instance, "access", pdk({}), client.connect_anew())
            assert outcome.names == SERVED
        (worker,) = server.workers()
        assert psutil.Process(worker).num_fds() <= 50 + 30
        assert server.metric("km_pluginserver_connections") <= 50
        assert server.metric("km_pluginserver_idle_connections_ended_total") >= 150
        # the connections used last are the ones that are left
        assert client.handle_event(instance, "access", pdk({}), client.pool[-1]).names == SERVED

    def test_of_busy_connections_are_not_taken_away_and_nothing_spins(self, server: RunningServer):
        client = server.client()
        ask = client.start_instance("probe", {"do": "ask"})
        client.pool.clear()
        client.opened.pop().close()
        eventually(lambda: server.metric("km_pluginserver_connections") == 0, "it has closed")
        busy = [stay(client, ask) for _ in range(50)]
        late = client.connect_anew()
        client.send(late, event(ask))
        eventually(lambda: server.metric("km_pluginserver_full_total") > 0, "it has noticed")
        (worker,) = server.workers()
        cpu = cpu_seconds(worker)
        late.settimeout(1.5)
        with pytest.raises(TimeoutError):
            late.recv(1)
        assert cpu_seconds(worker) - cpu < 0.7
        late.settimeout(30)
        for connection in busy:
            client.send(connection, b"")
            assert client.read(connection) == b"kong.log.debug"
        busy[0].close()  # room for one
        assert client.read(late) == b"kong.request.get_path"

    def test_that_ran_out_are_waited_for_without_spinning(self, server: RunningServer):
        client = server.client()
        hoarder = client.start_instance("hoarder", {})
        connection = client.pool.pop()
        client.send(connection, event(hoarder))
        asked = self._answer_until(client, connection, "TAKE", "kong.log.info")
        assert asked[-1] == "kong.log.info"  # it has them all, and stays in its event
        late = client.connect_anew()
        client.send(late, event(hoarder))
        eventually(lambda: server.metric("km_pluginserver_full_total") > 0, "accepting fails")
        (worker,) = server.workers()
        cpu = cpu_seconds(worker)
        time.sleep(1.5)
        assert cpu_seconds(worker) - cpu < 0.7
        client.send(connection, b"")  # the answer to the log call
        self._answer_until(client, connection, "GIVE", "")
        assert client.read(late) == b"kong.request.get_method"
        assert server.messages("worker is out of file descriptors")

    @staticmethod
    def _answer_until(client: KongClient, connection: socket.socket, method: str, last: str) -> list[str]:
        """Answer calls up to the named one, which is left unanswered; return all names."""
        names = []
        while True:
            names.append(client.read(connection).decode())
            client.read(connection)
            if names[-1] == last:
                return names
            asks_method = names[-1] == "kong.request.get_method"
            client.send(connection, messages.encode("String", {"v": method}) if asks_method else b"")

    def test_are_as_many_as_the_system_allows(self, start_server: StartServer):
        server = start_server(workers=1)
        soft, hard = psutil.Process(server.workers()[0]).rlimit(psutil.RLIMIT_NOFILE)
        assert soft >= min(16_384, hard)


class TestIdleConnections:
    def test_by_the_thousand_cost_little_and_are_in_nobodys_way(self, start_server: StartServer):
        server = start_server()
        client = server.client()
        assert client.request("probe", {"do": "headers"}, "access", pdk({})).names == SERVED
        before = sum(megabytes(pid) for pid in server.workers())
        idle = [client.connect_anew() for _ in range(2000)]
        eventually(lambda: server.metric("km_pluginserver_connections") >= 2001, "all are accepted")
        assert sum(megabytes(pid) for pid in server.workers()) - before < 60
        for _ in range(50):
            assert client.request("probe", {"do": "headers"}, "access", pdk({})).names == SERVED
        per_worker = [psutil.Process(pid).num_fds() for pid in server.workers()]
        assert min(per_worker) > 500  # the load is spread
        cpu = sum(cpu_seconds(pid) for pid in server.workers())
        time.sleep(1)
        assert sum(cpu_seconds(pid) for pid in server.workers()) - cpu < 0.5
        for connection in idle:
            connection.close()
        eventually(lambda: server.metric("km_pluginserver_connections") <= 2, "all have gone")


class TestHalfAFrame:
    @pytest.mark.parametrize("sent", [b"\x05", struct.pack("<I", 100) + b"abc"])
    def test_ends_its_connection_in_the_time_of_an_event(self, start_server: StartServer, sent: bytes):
        server = start_server("--event-timeout-seconds", "0.5", workers=1)
        client = server.client()
        half, silent = client.connect_anew(), client.connect_anew()
        half.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            assert half.recv(1) == b""
        assert server.metric("km_pluginserver_protocol_errors_total") == 1
        silent.settimeout(0.2)
        with pytest.raises(TimeoutError):  # one that has said nothing may stay: Kong's pool is full of such
            silent.recv(1)

    def test_may_come_slowly_as_long_as_it_comes(self, start_server: StartServer):
        server = start_server("--event-timeout-seconds", "2", workers=1)
        client = server.client()
        instance = client.start_instance("probe", {"do": "headers"})
        for _ in range(3):
            connection = client.connect()
            frame = event(instance)
            connection.sendall(struct.pack("<I", len(frame))[:2])
            time.sleep(0.3)
            connection.sendall(struct.pack("<I", len(frame))[2:] + frame)
            assert client.read(connection) == b"kong.request.get_headers"
            client.read(connection)
            client.send(connection, b"")
            client.read(connection)
            client.read(connection)
            client.send(connection, b"")
            assert client.read(connection) == b""
            client.read(connection)
            client.pool.append(connection)


class TestLeaks:
    def test_there_are_none_in_20000_events_refused_served_and_failed(self, start_server: StartServer):
        server = start_server(workers=1)
        client = server.client()
        (worker,) = server.workers()
        kinds: dict[str, Callable[..., Any]] = {"exit": pdk({}), "headers": pdk({"a": "1"}), "raise": pdk({})}

        def round_of_events(seconds_field: int) -> None:
            """One push of three new configurations, and 1,000 events."""
            instances = [client.start_instance("probe", {"do": do, "seconds": seconds_field}) for do in kinds]
            for number in range(1000):
                which = 2 if number % 100 == 0 else number % 2
                client.handle_event(instances[which], "access", list(kinds.values())[which])
            for instance in instances:
                client.close_instance(instance)
            client.opened = [one for one in client.opened if one.fileno() >= 0]

        for number in range(4):
            round_of_events(number)
        before, descriptors = megabytes(worker), psutil.Process(worker).num_fds()
        for number in range(4, 20):
            round_of_events(number)
        assert megabytes(worker) - before < 4
        assert abs(psutil.Process(worker).num_fds() - descriptors) <= 3
        assert server.metric("km_pluginserver_instances") == 0
        eventually(lambda: server.metric("km_pluginserver_events_total", plugin="probe") == 20_000, "all counted")


class TestConfigPush:
    def test_during_load_fails_no_event(self, start_server: StartServer):
        """A push gives new ids and closes the old ones at once, while events still use those."""
        server = start_server()
        pushing, wrong = threading.Event(), []
        events, repeats = [0] * 4, [0] * 4
        pushers, drivers = [server.client() for _ in events], [server.client() for _ in events]
        current = [client.start_instance("probe", {"do": "headers", "__seq__": 0}) for client in pushers]

        def load(number: int) -> None:
            while not pushing.is_set():
                try:
                    outcome = drivers[number].handle_event(current[number], "access", pdk({}))
                except ClosedError:
                    repeats[number] += 1  # so does Kong: no call came before the end
                    continue
                events[number] += 1
                if outcome.names != SERVED:
                    wrong.append(outcome)

        threads = [threading.Thread(target=load, args=(number,)) for number in range(len(events))]
        for thread in threads:
            thread.start()
        try:
            for push in range(1, 60):
                time.sleep(0.01)
                for number, client in enumerate(pushers):
                    old = current[number]
                    current[number] = client.start_instance("probe", {"do": "headers", "__seq__": push})
                    client.close_instance(old)
            eventually(lambda: min(events) > 20, "all were served")
        finally:
            pushing.set()
            for thread in threads:
                thread.join()
        assert wrong == []
        assert max(repeats) <= 60  # an event is repeated once for a push, at most
        assert server.metric("km_pluginserver_instances") == 4
        assert server.metric("km_pluginserver_events_total", result="failed") == 0
