import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from kong_plugins.server import messages
from tests.server.conftest import PLUGINS, ROOT, RunningServer, StartServer, eventually
from tests.server.kong_client import ClosedError, KongClient, pdk


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


class TestWedgedWorker:
    @pytest.mark.parametrize("how", ["sleep", "spin"])
    def test_is_killed_and_replaced_while_the_others_serve(self, start_server: StartServer, how: str):
        server = start_server(plugins="probe,blocker")
        client = server.client()
        before = server.workers()
        with pytest.raises(ClosedError):
            _once(client, how)
        eventually(lambda: len(server.workers()) == 2 and server.workers() != before, "a worker was replaced")
        eventually(lambda: len(server.messages("worker is ready")) == 3, "the new worker is ready")
        assert server.metric("km_pluginserver_worker_restarts_total", reason="wedged") == 1
        line = server.messages("worker is wedged and is killed")[0]
        assert any("blocker.py" in place for place in line["stack"])
        assert client.request("probe", {"do": "headers"}, "access", pdk({})).exit is None

    def test_counts_stay_when_its_process_is_gone(self, start_server: StartServer):
        server = start_server(plugins="probe,blocker", workers=1)
        client = server.client()
        for _ in range(7):
            client.request("probe", {"do": "headers"}, "access", pdk({}))
        with pytest.raises(ClosedError):
            _once(client, "sleep")
        eventually(lambda: len(server.messages("worker is ready")) == 2, "replaced")
        client.instances.clear()
        client.request("probe", {"do": "headers"}, "access", pdk({}))
        served = {"plugin": "probe", "result": "ok"}  # counted a moment after Kong has its answer
        eventually(lambda: server.metric("km_pluginserver_events_total", **served) == 8, "all are counted")


def _once(client: KongClient, how: str) -> None:
    instance = client.start_instance("blocker", {"how": how})
    client.handle_event(instance, "access", pdk({}), client.connect_anew())


class TestKilledWorker:
    def test_is_replaced_and_kong_recovers_by_itself(self, start_server: StartServer):
        server = start_server(workers=1)
        client = server.client()
        client.request("probe", {"do": "headers"}, "access", pdk({}))
        (victim,) = server.workers()
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(server.messages("worker is ready")) == 2, "replaced")
        outcome = client.request("probe", {"do": "headers"}, "access", pdk({}))
        assert (outcome.exit, outcome.restarts) == (None, 0)  # the instance outlived the worker
        assert server.metric("km_pluginserver_worker_restarts_total", reason="died") == 1

    def test_lets_no_request_through_unanswered(self, start_server: StartServer):
        """Under load, every request ends with the plugin's calls, or with an error Kong turns into a 500."""
        server = start_server()
        stop = threading.Event()
        outcomes = {"served": 0, "error": 0, "empty": 0}

        def load() -> None:
            client = KongClient(server.socket)
            while not stop.is_set():
                try:
                    outcome = client.request("probe", {"do": "headers"}, "access", pdk({}))
                except (ClosedError, OSError):
                    outcomes["error"] += 1
                    client.close()
                else:
                    decided = "kong.service.request.set_headers" in outcome.names or outcome.exit
                    outcomes["served" if decided else "empty"] += 1
            client.close()

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for count in (3, 4):
            time.sleep(0.3)
            with contextlib.suppress(ProcessLookupError):
                os.kill(server.workers()[0], signal.SIGKILL)
            eventually(lambda count=count: len(server.messages("worker is ready")) == count, "replaced")
        stop.set()
        for thread in threads:
            thread.join()
        assert outcomes["empty"] == 0
        assert outcomes["served"] > 100


class TestEndOfTheMaster:
    def test_by_kill_takes_the_workers_along(self, start_server: StartServer):
        server = start_server()
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        eventually(lambda: all(gone(pid) for pid in workers), "the workers have gone")

    def test_by_kill_takes_a_wedged_worker_along(self, start_server: StartServer):
        server = start_server("--wedged-after-seconds", "100", plugins="probe,blocker", workers=1)
        client = server.client()
        instance = client.start_instance("blocker", {"how": "sleep"})
        thread = threading.Thread(target=_ignore, args=(client, instance))
        thread.start()
        time.sleep(0.3)
        (worker,) = server.workers()
        server.process.kill()
        server.process.wait()
        eventually(lambda: gone(worker), "the worker has gone")
        thread.join()

    def test_follows_the_end_of_whoever_started_it(self, directory: Path):
        path = directory / "km.sock"
        code = (
            "import subprocess, sys, time\n"
            "p = subprocess.Popen([sys.executable, '-m', 'kong_plugins.server.main', '--socket', sys.argv[1],"
            " '--workers', '1', '--plugins', 'none'])\n"
            "print(p.pid, flush=True)\n"
            "time.sleep(600)\n"
        )
        with (
            (directory / "log").open("w") as log,
            subprocess.Popen(
                [sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
            ) as parent,
        ):
            master = int(parent.stdout.readline())
            eventually(path.exists, "the server is ready")
            parent.kill()
        eventually(lambda: gone(master), "the server has gone")
        eventually(lambda: not path.exists(), "and its socket")


def _ignore(client: KongClient, instance: int) -> None:
    with contextlib.suppress(ClosedError, OSError):
        client.handle_event(instance, "access", pdk({}), client.connect_anew())


class TestGracefulStop:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_lets_a_running_event_finish(self, start_server: StartServer, directory: Path, number: int):
        stopped = directory / "stopped"
        server = start_server(workers=1, PROBE_STOP_FILE=str(stopped))
        client = server.client()
        instance = client.start_instance("probe", {"do": "sleep", "seconds": 1.5})
        idle = client.connect_anew()
        asleep = threading.Event()
        result = []

        def answer(method: str, argument: object) -> None:
            asleep.set()

        thread = threading.Thread(target=lambda: result.append(client.handle_event(instance, "access", answer)))
        thread.start()
        assert asleep.wait(20)
        (worker,) = server.workers()
        server.process.send_signal(number)
        assert idle.recv(1) == b""  # connections without an event close at once
        thread.join()
        assert result[0].names == ["kong.log.debug", "kong.log.debug"]
        assert server.process.wait(20) == 0
        assert stopped.read_text() == f"{worker}\n"
        assert not server.socket.exists()

    def test_answers_what_has_been_sent_on_idle_and_on_waiting_connections(self, start_server: StartServer):
        """A connection closed over unread bytes is reset, and Kong answers a reset with 500."""
        server = start_server("--wedged-after-seconds", "100", workers=1)
        client = server.client()
        instance = client.start_instance("probe", {"do": "headers"})
        idle = [client.connect_anew() for _ in range(4)]
        for connection in idle:
            client.handle_event(instance, "access", pdk({}), connection)
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        sent = threading.Barrier(9)
        results = []

        def ask(connection: socket.socket) -> None:
            event = {"cmd_handle_event": {"instance_id": instance, "event_name": "access"}, "sequence": 9}
            client.send(connection, messages.encode("RpcCall", event))
            sent.wait(20)
            try:
                results.append(client.read(connection).decode())
            except (ClosedError, OSError) as error:
                results.append(repr(error))
            connection.close()

        waiting = [client.connect_anew() for _ in range(4)]
        threads = [threading.Thread(target=ask, args=(one,)) for one in (*idle, *waiting)]
        for thread in threads:
            thread.start()
        sent.wait(20)
        server.process.terminate()
        eventually(lambda: not server.socket.exists(), "the master has told the worker")
        time.sleep(0.1)
        os.kill(worker, signal.SIGCONT)
        for thread in threads:
            thread.join()
        assert results == ["kong.request.get_headers"] * 8
        assert server.process.wait(20) == 0

    def test_reaches_a_worker_that_is_being_forked(self):
        """The signal comes while the new process still has the handlers of the master."""
        code = (
            "import os, signal, sys, time\n"
            "from types import SimpleNamespace\n"
            "from kong_plugins.server import worker_process\n"
            "fork = os.fork\n"
            "def fork_and_stop():\n"
            "    pid = fork()\n"
            "    if pid:\n"
            "        os.kill(pid, signal.SIGTERM)\n"
            "    else:\n"
            "        time.sleep(0.3)\n"
            "    return pid\n"
            "os.fork = fork_and_stop\n"
            "signal.signal(signal.SIGTERM, lambda *_: None)\n"
            "context = SimpleNamespace(instances=worker_process.Path('/nonexistent'))\n"
            "worker = worker_process.start_worker(0, context, lambda: os._exit(7))\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1]))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
        )
        assert int(done.stdout) == -signal.SIGTERM

    def test_does_not_wait_for_ever(self, start_server: StartServer):
        server = start_server("--stop-seconds", "0.3", "--event-timeout-seconds", "100", workers=1)
        client = server.client()
        instance = client.start_instance("probe", {"do": "sleep", "seconds": 100})
        thread = threading.Thread(target=_ignore, args=(client, instance))
        thread.start()
        time.sleep(0.3)
        server.process.terminate()
        assert server.process.wait(20) == 0
        thread.join()


class TestSocketPlace:
    def test_second_server_waits_and_serves_when_the_first_has_gone(self, start_server: StartServer):
        first = start_server(workers=1)
        second = start_server(workers=1, wait=False)
        eventually(lambda: second.messages("worker is ready"), "the second is warm")
        time.sleep(0.3)
        assert not second.messages("plugin server is ready")
        assert json.loads(second.get("/readyz")[1])["socket"] == "waiting"
        assert first.client().request("probe", {"do": "headers"}, "access", pdk({})).exit is None
        first.stop()
        eventually(lambda: second.messages("plugin server is ready"), "the second took over")
        assert second.client().request("probe", {"do": "headers"}, "access", pdk({})).exit is None

    def test_second_server_gives_up_after_its_time(self, start_server: StartServer):
        first = start_server(workers=1)
        second = start_server("--wait-seconds", "0.2", workers=1, wait=False)
        assert second.process.wait(20) == 1
        assert first.client().request("probe", {"do": "headers"}, "access", pdk({})).exit is None

    def test_told_to_replace_takes_over_without_a_gap(self, start_server: StartServer):
        first = start_server(workers=1)
        client = first.client()
        instance = client.start_instance("probe", {"do": "headers"})
        second = start_server("--replace", workers=1)
        assert client.handle_event(instance, "access", pdk({})).exit is None  # on its open connection
        assert second.client().request("probe", {"do": "headers"}, "access", pdk({})).exit is None
        first.stop()
        assert second.client().request("probe", {"do": "headers"}, "access", pdk({})).exit is None

    def test_a_killed_servers_socket_is_in_nobodys_way(self, start_server: StartServer):
        server = start_server(workers=1)
        server.process.kill()
        server.process.wait()
        assert server.socket.exists()
        assert start_server(workers=1).client().request("probe", {"do": "headers"}, "access", pdk({})).exit is None

    def test_what_is_no_socket_is_left_alone(self, start_server: StartServer, directory: Path):
        (directory / "km.sock").write_text("precious")
        server = start_server(workers=1, wait=False)
        assert server.process.wait(20) == 1
        assert (directory / "km.sock").read_text() == "precious"
        assert server.messages("plugin server cannot start")

    def test_a_removed_socket_ends_the_server_so_that_kong_starts_it_anew(self, start_server: StartServer):
        server = start_server(workers=1)
        server.socket.unlink()
        assert server.process.wait(20) == 1


class TestLog:
    def test_nobody_reads_stops_no_worker(self, directory: Path):
        path = directory / "km.sock"
        options = ["--workers", "1", "--plugins", "probe", "--plugins-dir", str(PLUGINS)]
        command = [sys.executable, "-m", "kong_plugins.server.main", "--socket", str(path), *options]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
            try:
                eventually(path.exists, "the server is ready")
                client = KongClient(path)
                instance = client.start_instance("probe", {"do": "log_key"})
                for _ in range(1500):  # some 200 kB, three times what a pipe holds
                    client.handle_event(instance, "access", pdk({"apikey": "x" * 50}))
                client.close()
            finally:
                process.terminate()
                process.communicate()

    def test_is_not_flooded_by_a_plugin(self, start_server: StartServer):
        server = start_server(workers=1)
        for _ in range(2):
            server.client().request("probe", {"do": "log_often"}, "access", pdk({}))
        lines = [line["msg"] for line in server.log_lines() if line["logger"] == "probe"]
        assert lines == [f"again and again: {number}" for number in range(5)]

    def test_has_a_greenlets_failure_as_a_line_of_its_own(self, shared_server: RunningServer):
        shared_server.client().request("probe", {"do": "spawn"}, "access", pdk({"apikey": "quoted"}))
        lines = eventually(lambda: shared_server.messages("a greenlet ended on an exception"))
        assert lines[0]["error"] == "ValueError"
        assert all(line.startswith("{") for line in shared_server.log_text().splitlines())


class TestBrokenPlugin:
    def test_does_not_stop_the_others_and_fails_closed(self, start_server: StartServer):
        server = start_server(plugins="probe,broken", KM_TEST_TOKEN="t0ps3cret-value")
        client = server.client()
        assert client.request("probe", {"do": "headers"}, "access", pdk({})).exit is None
        with pytest.raises(ClosedError):
            client.request("broken", {}, "access")
        status, body = server.get("/readyz")
        assert (status, json.loads(body)["plugins"]) == (503, {"probe": "loaded", "broken": "failed"})
        assert server.messages("plugin cannot be served")[0]["detail"] == "KM_TEST_TOKEN is wrong: [redacted]"
        assert "t0ps3cret-value" not in server.log_text()


class TestStatus:
    def test_says_healthy_and_ready(self, shared_server: RunningServer):
        assert shared_server.get("/healthz") == (200, '{"status": "ok"}')
        status, body = shared_server.get("/readyz")
        assert status == 200
        assert json.loads(body)["workers"] == {"beating": 2, "of": 2}
        assert shared_server.get("/other")[0] == 404

    def test_counts_over_all_workers(self, start_server: StartServer):
        server = start_server(plugins="meter,probe")
        client = server.client()
        instance = client.start_instance("meter", {})
        for _ in range(10):
            client.handle_event(instance, "access", pdk({}, request_get_method="PUT"), client.connect_anew())
        assert server.metric("km_test_seen_total", kind="a") == 10
        assert server.metric("km_test_seen_total", kind="PUT") == 20
        assert server.metric("km_test_sizes_bucket", le="10") == 10
        assert server.metric("km_test_sizes_bucket", le="1") == 0
        assert server.metric("km_test_sizes_sum") == 50
        assert server.metric("km_pluginserver_events_total", plugin="meter", phase="access", result="ok") == 10
        assert server.metric("km_pluginserver_event_seconds_count", plugin="meter") == 10
        assert server.metric("km_pluginserver_pdk_calls_total", method="kong.request.get_method") == 10
        assert server.metric("km_pluginserver_connections_total") >= 10
        assert server.metric("km_pluginserver_workers") == 2
        assert server.metric("km_pluginserver_instances") == 1

    def test_is_text_prometheus_reads(self, shared_server: RunningServer):
        from prometheus_client.parser import text_string_to_metric_families

        shared_server.client().request("probe", {"do": "headers"}, "access", pdk({}))
        families = {one.name: one for one in text_string_to_metric_families(shared_server.get("/metrics")[1])}
        assert families["km_pluginserver_event_seconds"].type == "histogram"
        assert families["km_pluginserver_events"].type == "counter"

    def test_a_silent_client_does_not_stop_it(self, shared_server: RunningServer):
        with socket.create_connection(("127.0.0.1", shared_server.port)) as silent:
            silent.sendall(b"GET /metr")
            assert shared_server.get("/healthz")[0] == 200
