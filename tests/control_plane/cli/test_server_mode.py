"""An installation moves from the embedded event store to a server, and goes on there in processes of their own."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio

from control_plane.foundation.clock import utc_now
from devstack.stores.clickhouse import EmbeddedClickHouse
from devstack.stores.valkey import EmbeddedValkey
from tests.control_plane.cli.conftest import STARTS_WITHIN_SECONDS, ServerProcess, run_km
from tests.control_plane.usage.conftest import SECRET, Call, Gateway

SHARDS = 2


class Traffic:
    """Calls of one account, shipped by two nodes, each into a shard of its own."""

    def __init__(self, redis_url: str, account_id: str) -> None:
        self._redis_url = redis_url
        self._account_id = account_id
        self._numbers = itertools.count(1)
        self._positions = [0] * SHARDS

    def ship(self, count: int) -> list[list[Call]]:
        """Ship new calls of a minute ago, half of them to each shard."""
        at = utc_now() - timedelta(minutes=1)
        made = [
            [Call(at=at, account=self._account_id, number=next(self._numbers)) for _ in range(count // SHARDS)]
            for _ in range(SHARDS)
        ]
        self.ship_again(made)
        return made

    def ship_again(self, calls: list[list[Call]]) -> None:
        asyncio.run(self._ship(calls))

    async def _ship(self, calls: list[list[Call]]) -> None:
        client = redis.asyncio.Redis.from_url(self._redis_url)
        for shard, some in enumerate(calls):
            node = Gateway(client, shipper=f"node_{shard}", shard=shard, position=self._positions[shard])
            await node.ship(some)
            self._positions[shard] = node.position
        await client.aclose()


@pytest.fixture
def clickhouse(tmp_path: Path) -> Iterator[EmbeddedClickHouse]:
    server = EmbeddedClickHouse(tmp_path / "clickhouse")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def embedded_env(
    server_env: dict[str, str], own_valkey: Callable[[], EmbeddedValkey], tmp_path: Path
) -> dict[str, str]:
    return server_env | {
        "KM_REDIS_URL": own_valkey().url,
        "KM_CLICKHOUSE_DSN": f"chdb://{tmp_path / 'events'}",
        "KM_GATEWAY_SECRET": SECRET.decode(),
        "KM_USAGE_SHARDS": str(SHARDS),
    }


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    with ExitStack() as running:

        def start(env: dict[str, str], part: str) -> ServerProcess:
            name = f"{part}-{time.monotonic_ns()}.log"
            process = ServerProcess(env, tmp_path / name, arguments=(part, "--port", "0"))
            process.start()
            running.callback(lambda: process.process.poll() is None and process.stop())
            process.wait_until_ready()
            return process

        yield start


def ask(server: ServerProcess, method: str, path: str, **given: Any) -> Any:
    headers = {"Authorization": f"Bearer {server.env['KM_TOKEN']}"}
    answer = httpx.request(method, f"{server.url}/admin/v1{path}", headers=headers, timeout=30, **given)
    assert answer.is_success, answer.text
    return answer.json()


def wait_for_calls(server: ServerProcess, expected: int) -> None:
    """Wait until the usage that the API tells is what was called, and stays that."""
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    calls = -1
    while calls != expected:
        assert time.monotonic() < deadline, (calls, server.log_path.read_text()[-4000:])
        time.sleep(0.1)
        calls = sum(row["calls"] for row in ask(server, "GET", "/usage?group_by=mode")["items"])


class TestServerMode:
    def test_an_installation_moves_and_goes_on(
        self, embedded_env: dict[str, str], clickhouse: EmbeddedClickHouse, start: Callable[..., ServerProcess]
    ) -> None:
        serve = start(embedded_env, "serve")
        account_id = ask(serve, "POST", "/accounts", json={"name": "Moving"})["id"]
        traffic = Traffic(embedded_env["KM_REDIS_URL"], account_id)
        first = traffic.ship(20)
        wait_for_calls(serve, 20)
        too_early = run_km(
            "events", "copy", "--from", embedded_env["KM_CLICKHOUSE_DSN"], "--to", clickhouse.dsn, env={}
        )
        assert "is `km serve` still running?" in too_early.stderr
        serve.stop()

        copied = run_km(
            "events", "copy", "--from", embedded_env["KM_CLICKHOUSE_DSN"], "--to", clickhouse.dsn, "--json",
            env=embedded_env,
        )  # fmt: skip
        assert copied.returncode == 0, copied.stderr
        assert json.loads(copied.stdout)["events"] == 20
        assert "usage_events " in copied.stderr

        env = embedded_env | {"KM_CLICKHOUSE_DSN": clickhouse.dsn}
        with ThreadPoolExecutor(3) as threads:
            api, *workers = threads.map(partial(start, env), ["api", "worker", "worker"])
        wait_for_calls(api, 20)
        traffic.ship_again(first)
        traffic.ship(30)
        wait_for_calls(api, 50)

        clickhouse.kill()
        traffic.ship(10)
        clickhouse.start()
        wait_for_calls(api, 60)
        workers[0].stop()
        traffic.ship(10)
        wait_for_calls(api, 70)

        assert len(ask(api, "GET", f"/accounts/{account_id}/events?limit=100")["items"]) == 70
        events, letters = ask(api, "GET", "/event-store")["tables"]
        assert (events["table"], letters["rows"]) == ("usage_events", 0)
        assert events["rows"] >= 70
