"""`km serve` as a process."""

import json
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from control_plane.entrypoints.server import _listen
from control_plane.entrypoints.settings import Settings
from devstack.stores.event_store import event_store_dsn
from devstack.stores.valkey import EmbeddedValkey
from gateway_contract import usage_lines
from gateway_contract.redis_names import usage_stream
from tests.control_plane.cli.conftest import STARTS_WITHIN_SECONDS, ServerProcess, run_km


def wait_for(condition: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class TestStart:
    def test_wrong_settings_are_named_a_line_each(self, server_env: dict[str, str]):
        env = server_env | {"KM_GATEWAY_SECRET": "short-secret", "KM_REDIS_URL": "http://nowhere"}
        done = run_km("serve", "--port", "0", env=env)
        assert done.returncode == 1
        lines = [line for line in done.stderr.splitlines() if line.startswith("km: KM_")]
        assert [line.split(":")[1].strip() for line in lines] == ["KM_REDIS_URL", "KM_GATEWAY_SECRET"]
        assert "short-secret" not in done.stderr

    def test_an_old_schema_is_refused_until_it_is_upgraded(
        self, server_env: dict[str, str], empty_database_url: str
    ):
        env = server_env | {"KM_DATABASE_URL": empty_database_url}
        refused = run_km("serve", "--port", "0", env=env)
        assert refused.returncode == 1
        assert "run `km db upgrade`" in refused.stderr
        assert run_km("db", "upgrade", env=env).returncode == 0
        token = json.loads(run_km("db", "create-token", "--role", "read_only", "--json", env=env).stdout)
        assert token["text"].startswith("kmt_")

    @pytest.mark.parametrize("process", ["api", "worker"])
    def test_the_embedded_event_store_is_for_one_process(self, server_env: dict[str, str], process: str):
        done = run_km(process, "--port", "0", env=server_env)
        assert done.returncode == 1
        assert "km: KM_CLICKHOUSE_DSN: the embedded event store serves one process" in done.stderr

    def test_an_address_that_is_taken_is_named(self, server: ServerProcess):
        port = server.url.rpartition(":")[2]
        done = run_km("serve", "--port", port, env=server.env)
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


class TestListening:
    def test_an_answer_in_pieces_waits_for_no_acknowledgement(self):
        settings = Settings.model_construct(host="127.0.0.1", port=0)
        with _listen(settings) as listener, socket.create_connection(listener.getsockname()):
            listener.settimeout(STARTS_WITHIN_SECONDS)
            connection, _ = listener.accept()
            with connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class TestRunning:
    def test_readiness_names_stores_and_workers(self, server: ServerProcess):
        assert server.readiness() == (
            200,
            {
                "status": "ready",
                "checks": {
                    "postgres": "ok",
                    "redis": "ok",
                    "event_store": "ok",
                    "worker_usage": "ok",
                    "worker_exports": "ok",
                    "worker_sinks": "ok",
                    "worker_projector": "ok",
                    "worker_subscriptions": "ok",
                    "worker_invoices": "ok",
                    "worker_overdue": "ok",
                    "worker_credit_expiry": "ok",
                    "worker_prepaid_draws": "ok",
                    "worker_plan_moves": "ok",
                    "worker_what_if": "ok",
                    "worker_reconciliation": "ok",
                    "worker_mail": "ok",
                    "worker_dunning": "ok",
                    "worker_upgrade_hints": "ok",
                    "worker_ingest": "ok",
                },
            },
        )

    def test_metrics_tell_of_workers(self, server: ServerProcess):
        headers = {"Authorization": f"Bearer {server.env['KM_TOKEN']}"}
        metrics = httpx.get(f"{server.url}/metrics", headers=headers, timeout=30).text
        assert 'km_worker_running{worker="projector"} 1.0' in metrics

    def test_the_documentation_comes_from_this_server_alone(self, server: ServerProcess):
        page = httpx.get(f"{server.url}/docs", timeout=30).text
        assert "https://" not in page
        schema = httpx.get(f"{server.url}/openapi.json", timeout=30).json()
        assert "/admin/v1/accounts" in schema["paths"]

    def test_the_log_is_json_without_any_key_or_token(self, server: ServerProcess):
        key = "km_live_" + "k" * 38
        headers = {"Authorization": f"Bearer {server.env['KM_TOKEN']}"}
        httpx.get(f"{server.url}/admin/v1/accounts/{key}?apikey={key}", headers=headers, timeout=30)
        log = server.log_path.read_text()
        assert key not in log
        assert server.env["KM_TOKEN"] not in log
        assert all(json.loads(line) for line in log.splitlines())


class TestManyRequests:
    def test_that_all_wait_keep_no_usage_from_being_counted(
        self, server: ServerProcess, valkey_server: EmbeddedValkey
    ):
        dsn = server.env["KM_DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://", 1)
        headers = {"Authorization": f"Bearer {server.env['KM_TOKEN']}"}
        with (
            psycopg.connect(dsn) as blocker,
            psycopg.connect(dsn, autocommit=True) as looker,
            ThreadPoolExecutor(45) as callers,
        ):
            blocker.execute("LOCK TABLE api_tokens IN ACCESS EXCLUSIVE MODE")
            waiting = [
                callers.submit(httpx.get, f"{server.url}/admin/v1/accounts", headers=headers, timeout=120)
                for _ in range(45)
            ]
            wait_for(lambda: waiting_for_a_lock(looker) >= 20, what="the requests do not wait")
            add_usage_line(valkey_server.url)
            wait_for(
                lambda: looker.execute("SELECT count(*) FROM usage_hourly").fetchone()[0] > 0,
                what="usage is not counted while requests wait",
            )
            blocker.rollback()
            assert {answer.result().status_code for answer in waiting} <= {200, 503}


def waiting_for_a_lock(connection: psycopg.Connection) -> int:
    found = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return found.fetchone()[0]


def add_usage_line(redis_url: str) -> None:
    """Ship one call of nobody."""
    line = {"v": 1, "id": "f" * 32, "at": time.time_ns() // 1_000_000, "st": 401, "ra": "-.no_key"}
    raw = json.dumps(line).encode()
    fields = {
        usage_lines.FIELD_SHIPPER: "node_a",
        usage_lines.FIELD_SEGMENT: "seg-1",
        usage_lines.FIELD_START: 0,
        usage_lines.FIELD_END: len(raw) + 1,
        usage_lines.FIELD_SHIPPED_UP_TO_MS: 0,
        usage_lines.FIELD_LINES: raw,
    }
    with redis.Redis.from_url(redis_url) as client:
        client.xadd(usage_stream(0), fields)


class TestRedisOutage:
    def test_readiness_follows_redis_down_and_up(
        self, server_env: dict[str, str], own_valkey: Callable[[], EmbeddedValkey], tmp_path: Path
    ):
        valkey = own_valkey()
        env = server_env | {
            "KM_REDIS_URL": valkey.url,
            "KM_CLICKHOUSE_DSN": event_store_dsn(tmp_path / "events"),
        }
        server = ServerProcess(env, tmp_path / "server.log")
        server.start()
        server.wait_until_ready()
        valkey.kill()
        wait_for(lambda: server.readiness()[1]["checks"]["redis"] == "failed", what="redis was not missed")
        headers = {"Authorization": f"Bearer {env['KM_TOKEN']}"}
        with httpx.Client(base_url=f"{server.url}/admin/v1", headers=headers, timeout=30) as client:
            assert client.post("/accounts", json={"name": "Acme"}).status_code == 201
            assert client.post("/rebuild").json()["code"] == "redis_unavailable"
        valkey.restart()
        server.wait_until_ready()
        assert server.stop() == 0


class TestStop:
    def test_starts_again_after_a_kill_and_ends_with_0_on_a_signal(
        self, server_env: dict[str, str], tmp_path: Path
    ):
        env = server_env | {"KM_CLICKHOUSE_DSN": event_store_dsn(tmp_path / "events")}
        server = ServerProcess(env, tmp_path / "server.log")
        server.start()
        server.wait_until_ready()
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        server.process.stdout.close()
        server.start()
        server.wait_until_ready()
        assert server.stop() == 0
        events = [json.loads(line)["event"] for line in server.log_path.read_text().splitlines()]
        assert events[-1] == "stopped"
        assert "worker_failed" not in events
