"""Keys through the whole: refused at the next call after revocation, and readable nowhere."""

import asyncio
import re
import subprocess

import aiohttp
import psycopg
import pytest
import redis

from devstack.demo.scenario import create_customer
from gateway_contract.api_keys import API_KEY_PATTERN, generate_api_key
from gateway_contract.modes import Mode
from tests.end_to_end.counting import eventually, rollup_calls

WIDE = ((5_000, 1_000), (100_000, 60_000))


async def get(url, headers):
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.text()


class TestRevokedKey:
    @pytest.mark.slow
    async def test_is_refused_at_its_next_call_and_the_others_go_on(self, stack, control):
        customer = await create_customer(control, name="Acme", plan="growth", windows=WIDE, quota=None)
        url = f"{stack.proxy_url}/weather/v1/current/oslo"
        other = await control.post(f"/accounts/{customer.account_id}/keys", {"name": "second", "mode": "live"})

        async def works():
            return (await get(url, {"apikey": customer.key}))[0] == 200

        assert await eventually(works, seconds=10)
        for _ in range(20):  # warm in every worker
            assert (await get(url, {"apikey": customer.key}))[0] == 200
        await control.post(f"/keys/{customer.key_id}/revoke")

        async def refused():
            return (await get(url, {"apikey": customer.key}))[0] == 401

        assert await eventually(refused, seconds=5, pause=0.05)
        assert [(await get(url, {"apikey": customer.key}))[0] for _ in range(10)] == [401] * 10
        assert (await get(url, {"apikey": other["text"]}))[0] == 200


class TestNoKeyIsReadableAnywhere:
    @pytest.mark.slow
    async def test_not_in_any_store_log_or_spool_after_every_kind_of_answer(self, stack, control):
        customer = await create_customer(control, name="Acme", plan="starter", windows=((5, 1_000),), quota=None)
        base = f"{stack.proxy_url}/weather/v1"
        unknown = generate_api_key(Mode.LIVE)
        test_key = (await control.post(f"/accounts/{customer.account_id}/keys", {"name": "t", "mode": "test"}))[
            "text"
        ]
        mistyped = customer.key[:-1] + ("x" if customer.key[-1] != "x" else "y")

        async def works():
            return (await get(f"{base}/current/oslo", {"apikey": customer.key}))[0] == 200

        assert await eventually(works, seconds=10)
        statuses = set()
        keys = (customer.key, unknown, test_key, mistyped)
        for key in keys:
            forms = (
                {"apikey": key},
                {"Authorization": f"Bearer {key}"},
                {"Cookie": f"apikey={key}", "apikey": key},
                {"X-Other": key, "Referer": f"https://example.com/?key={key}", "x-api-key": key},
            )
            for headers in forms:
                for path in ("current/oslo", "status/500", "echo", f"current/oslo?apikey={key}&x=1"):
                    statuses.add((await get(f"{base}/{path}", headers))[0])
                await asyncio.sleep(0.3)
        assert {200, 401, 403, 429, 500} <= statuses, statuses

        async def counted():
            return await rollup_calls(control) >= 64

        assert await eventually(counted)
        events = [event async for event in control.pages(f"/accounts/{customer.account_id}/events")]
        events += [event async for event in control.pages("/unattributed-events")]
        assert len(events) >= 64
        assert API_KEY_PATTERN.search(repr(events)) is None
        found = await asyncio.to_thread(_places_with_keys, stack, keys)
        assert found == []


def _places_with_keys(stack, keys):
    """Return where a key can be read: every file of the stack, every row of PostgreSQL, every value in Redis."""
    secrets = [re.escape(key[8:]).encode() for key in keys]
    pattern = re.compile(b"|".join(secrets))
    files = [path for path in stack.data_dir.rglob("*") if path.is_file() and not path.is_socket()]
    found = [str(path) for path in files if pattern.search(path.read_bytes())]
    if pattern.search(_every_row(stack.database_url)):
        found += ["postgresql"]
    client = redis.Redis.from_url(stack.redis_url)
    for name in client.scan_iter():
        kind = client.type(name)
        value = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"stream": client.xrange,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"set": client.smembers,
        }[kind](name)
        if pattern.search(repr((name, value)).encode()):
            found.append(f"redis {name!r}")
    processes = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, check=True).stdout
    if pattern.search(processes):
        found.append("process list")
    return found


def _every_row(database_url):
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        tables = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        rows = [connection.execute(f"SELECT t::text FROM {name} t").fetchall() for (name,) in tables]
    return repr(rows).encode()
