"""Processes that are kept running, with small commands; the whole stack is driven by the end-to-end tests."""

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from devstack.children import ChildFailedError, is_running
from devstack.data_lock import sole_use_of
from devstack.kong_files import render_gateway_conf
from devstack.ports import free_port, is_listening, preferred_port
from devstack.stack import Stack
from devstack.stores.valkey import EmbeddedValkey
from devstack.supervisor import Command, CommandProcess, Supervisor
from tests.devstack.support import REPOSITORY, wait_for


class Sleeper:
    """A command that notes every start in a file, and is ready when it did."""

    def __init__(self, directory: Path, script: str = "echo $$ >> starts; exec sleep 600") -> None:
        self.directory = directory
        self._script = script
        self._known = 0

    def command(self) -> Command:
        self._known = len(self.starts())
        return Command(
            argv=["/bin/sh", "-c", self._script],
            env={"PATH": os.defpath},
            cwd=self.directory,
            log_path=self.directory / "log",
            ready=lambda: len(self.starts()) > self._known,
        )

    def starts(self) -> list[int]:
        path = self.directory / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor()
    yield made
    made.stop()


class TestSupervisor:
    def test_a_killed_process_comes_back(self, supervisor: Supervisor, tmp_path: Path):
        sleeper = Sleeper(tmp_path)
        supervisor.start("sleeper", CommandProcess(sleeper.command))
        killed = supervisor["sleeper"].kill()
        supervisor["sleeper"].wait_ready()
        assert sleeper.starts()[0] == killed
        assert sleeper.starts()[1] == supervisor["sleeper"].process.pid
        assert supervisor["sleeper"].restarts == 1

    def test_one_that_is_held_stays_down_until_it_is_released(self, supervisor: Supervisor, tmp_path: Path):
        sleeper = Sleeper(tmp_path)
        supervisor.start("sleeper", CommandProcess(sleeper.command))
        supervisor["sleeper"].hold()
        assert not is_running(sleeper.starts()[0])
        with pytest.raises(ChildFailedError):
            supervisor["sleeper"].wait_ready(timeout_seconds=1.5)
        assert len(sleeper.starts()) == 1
        supervisor["sleeper"].release()
        supervisor["sleeper"].wait_ready()
        assert len(sleeper.starts()) == 2

    def test_one_that_ends_by_itself_comes_back_too(self, supervisor: Supervisor, tmp_path: Path):
        sleeper = Sleeper(tmp_path, "echo $$ >> starts; sleep 0.2")
        supervisor.start("sleeper", CommandProcess(sleeper.command))
        wait_for(lambda: len(sleeper.starts()) >= 2)

    def test_stopping_leaves_nothing_and_starts_nothing(self, supervisor: Supervisor, tmp_path: Path):
        sleeper = Sleeper(tmp_path)
        supervisor.start("sleeper", CommandProcess(sleeper.command))
        supervisor.stop()
        assert not any(is_running(pid) for pid in sleeper.starts())
        assert not [one for one in threading.enumerate() if one.name == "watch-sleeper"]

    def test_a_paused_process_can_be_stopped(self, supervisor: Supervisor, tmp_path: Path):
        sleeper = Sleeper(tmp_path)
        supervisor.start("sleeper", CommandProcess(sleeper.command))
        supervisor["sleeper"].send_signal(signal.SIGSTOP)
        supervisor.stop()
        assert not is_running(sleeper.starts()[0])

    def test_a_first_start_that_fails_says_why_and_leaves_nothing(self, supervisor: Supervisor, tmp_path: Path):
        sleeper = Sleeper(tmp_path, "echo no port left; exit 1")
        with pytest.raises(ChildFailedError, match="no port left"):
            supervisor.start("sleeper", CommandProcess(sleeper.command))
        assert supervisor.all() == []

    def test_stores_are_supervised_in_the_same_way(self, supervisor: Supervisor, tmp_path: Path):
        valkey = EmbeddedValkey(tmp_path)
        supervisor.start("valkey", valkey)
        killed = supervisor["valkey"].kill()
        supervisor["valkey"].wait_ready()
        assert valkey.pid != killed
        with redis.Redis.from_url(valkey.url) as client:
            assert client.ping()


class TestStackFiles:
    def test_the_gateway_gets_one_name_for_each_plugin_and_one_server(self, tmp_path: Path):
        conf = render_gateway_conf(
            socket=tmp_path / "km.sock",
            configuration=tmp_path / "kong.yml",
            proxy_port=1,
            admin_port=2,
            metrics_port=3,
            workers=1,
            environment={"PYTHONPATH": "/repo", "KM_GATEWAY_SECRET": "with 'quotes' and spaces"},
        )
        lines = dict(line.split(" = ", 1) for line in conf.splitlines())
        assert lines["plugins"] == "bundled,km-monetize,km-key-auth,km-plan-limit,km-usage-meter"
        assert lines["pluginserver_names"] == "monetize,key_auth,plan_limit,usage_meter"
        assert [name for name in lines if name.endswith("start_cmd")] == ["pluginserver_monetize_start_cmd"]
        shown = subprocess.run(
            [
                "/bin/sh",
                "-c",
                lines["pluginserver_monetize_start_cmd"].split(" -m ")[0] + " -c 'import os; "
                'print(os.environ["KM_GATEWAY_SECRET"])\'',
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout == "with 'quotes' and spaces\n"

    def test_secrets_are_for_the_owner_only_and_stay_the_same(self, tmp_path: Path):
        first, second = Stack(tmp_path), Stack(tmp_path)
        for stack in (first, second):
            stack._prepare_files()
            stack.stop()
        assert (
            first.gateway_environment()["KM_GATEWAY_SECRET"] == second.gateway_environment()["KM_GATEWAY_SECRET"]
        )
        for name in ("secrets.json", "kong.conf"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600

    def test_a_long_directory_gets_a_short_socket(self, tmp_path: Path):
        stack = Stack(tmp_path / ("long" * 20))
        stack._prepare_files()
        try:
            assert len(os.fsencode(stack._socket)) < 90
        finally:
            stack.stop()
        assert not stack._socket.parent.exists()


class TestPorts:
    def test_a_port_is_given_once(self):
        assert len({free_port() for _ in range(50)}) == 50

    def test_a_preferred_port_that_is_taken_is_replaced(self, tmp_path: Path):
        valkey = EmbeddedValkey(tmp_path)
        valkey.start()
        try:
            assert is_listening(valkey.port)
            assert preferred_port(valkey.port) != valkey.port
        finally:
            valkey.stop()


class TestModules:
    def test_the_launcher_is_told_apart_from_the_child_by_its_error(self, tmp_path: Path):
        launcher = REPOSITORY / "devstack" / "launch.py"
        shown = subprocess.run(
            [sys.executable, str(launcher), "1", "9", "-1", "-1", "true"], capture_output=True, check=False
        )
        # not its parent: the one that asked is gone, so nothing is started
        assert shown.returncode == 1


class TestStackStart:
    def test_a_second_one_in_the_same_directory_touches_nothing(self, tmp_path: Path):
        with sole_use_of(tmp_path):
            with pytest.raises(ChildFailedError, match=f"another stack runs in {tmp_path}"):
                Stack(tmp_path).start()
            assert [path.name for path in tmp_path.iterdir()] == ["stack.lock"]
        with sole_use_of(tmp_path):
            pass

    def test_a_start_that_fails_leaves_nothing_running(self, tmp_path: Path):
        bad = tmp_path / "kong.yml"
        bad.write_text("_format_version: '3.0'\nservices: [{name: up, host: h, hots: x}]\n")
        stack = Stack(tmp_path / "data", fast=True, kong_config=bad)
        with pytest.raises(ChildFailedError, match="field 'hots': unknown field"):
            stack.start()
        ports = stack.ports
        assert not any(is_listening(port) for port in (ports.postgres, ports.valkey, ports.upstream))
        stack.destroy()
