"""Malformed keys, spool lines, stream entries and API bodies: refused or set aside, and the good ones go on."""

import asyncio
import json
import re
import threading

import httpx
import psycopg
import pytest
import redis

from devstack.demo.scenario import create_customer
from gateway_contract import redis_names
from gateway_contract.api_keys import generate_api_key, hash_api_key
from gateway_contract.modes import Mode
from gateway_contract.usage_lines import FIELD_LINES
from tests.end_to_end.counting import NumberedTraffic, events_by_path, eventually, get, rollup_calls

WIDE = ((5_000, 1_000), (100_000, 60_000))


@pytest.fixture
def stack(shared_stack):
    return shared_stack


@pytest.fixture
async def customer(stack, control):
    """A paying customer whose calls are served; those that showed it stand in no numbered path."""
    customer = await create_customer(control, name="Steady", plan="starter", windows=WIDE, quota=None)

    async def works():
        return (await get(f"{stack.proxy_url}/weather/v1/current/oslo", customer.key))[0] == 200

    assert await eventually(works, seconds=20, pause=0.1)
    return customer


async def metric(url: str, name: str, *, token: str = "", **labels: str) -> float:
    """Return the sum of a counter's series that carry these labels; the server's page wants a token."""
    _, _, page = await get(url, Authorization=f"Bearer {token}")
    found = re.findall(rf"^{name}(?:{{(.*)}})? ([0-9.e+]+)$", page, re.MULTILINE)
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(float(value) for names, value in found if all(one in names for one in wanted))


class TestMalformedKeys:
    async def test_are_refused_without_asking_redis(self, stack, customer):
        good, unknown = customer.key, generate_api_key(Mode.LIVE)
        swapped = good[:20] + good[21] + good[20] + good[22:] if good[20] != good[21] else good[:-1] + "!"
        malformed = [
            swapped,
            good[:-1],
            good + "x",
            good.replace("live", "test"),
            good.upper(),
            "km_live_",
            "km_live_" + "é" * 38,
            "x" * 5_000,
            "' OR 1=1 --",
        ]
        asked = Commands(stack.redis_url, f"{redis_names.PREFIX}{{key:")
        url = f"{stack.proxy_url}/weather/v1/current/oslo"
        with asked:
            answers = [await get(url, key) for key in malformed]
            # a well-formed key that nobody has is looked up: so the watch does see look-ups
            assert (await get(url, unknown))[0] == 401
            await eventually(lambda: asked.saw(hash_api_key(unknown)), seconds=10, pause=0.05)
        assert [(status, json.loads(body)["code"]) for status, _, body in answers] == [
            (401, "malformed_key")
        ] * len(malformed)
        assert all(headers["content-type"] == "application/problem+json" for _, headers, _ in answers)
        assert all("www-authenticate" in headers for _, headers, _ in answers)
        looked_up = {hash_ for line in asked.lines for hash_ in re.findall(r"[0-9a-f]{64}", line)}
        # the customer's own key may be read again behind our back, the malformed ones never
        assert looked_up <= {hash_api_key(unknown), hash_api_key(good)}


class Commands:
    """Commands that clients send to Redis while the context lasts, those that name a key with this prefix."""

    def __init__(self, url: str, prefix: str) -> None:
        self.lines: list[str] = []
        self._client = redis.Redis.from_url(url)
        self._prefix = prefix
        self._started = threading.Event()
        self._done = "km-test-watch-ends"
        self._thread = threading.Thread(target=self._watch)

    async def saw(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def __enter__(self):
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_):
        self._client.echo(self._done)
        self._thread.join(10)
        self._client.close()

    def _watch(self):
        with self._client.monitor() as monitor:
            self._started.set()
            for command in monitor.listen():
                if self._done in command["command"]:
                    return
                if self._prefix in command["command"]:
                    self.lines.append(command["command"])


GARBAGE = [
    b"garbage",
    b"{",
    b"[]",
    b"null",
    b"7",
    b'"text"',
    b'{"request": {}}',
    b'{"v": 1}',
    b'{"v": 99, "id": "x"}',
    b"[" * 100_000,
    bytes(number for number in range(256) if number != ord("\n")) * 16,
    b'{"request": {"id": "' + b"x" * 3_000_000 + b'"}}',
    b'{"started_at": "soon", "request": {"id": "a"}}',
]


class TestMalformedSpoolLines:
    async def test_are_set_aside_and_counted_and_the_good_ones_between_them_count(self, stack, control, customer):
        shipper = f"http://127.0.0.1:{stack.ports.shipper}/metrics"
        dropped = "km_shipper_lines_dropped_total"
        before = await metric(shipper, dropped)
        live = stack.spool_dir / "usage.log"
        traffic = NumberedTraffic(stack.proxy_url, customer.key, run="spool", concurrency=2)
        for number, line in enumerate(GARBAGE):
            with live.open("ab", buffering=0) as file:
                file.write(line + b"\n")
            await self.send(traffic, stack, number)
        # the rest of a line that a full disk cut off, with a good line behind it
        with live.open("ab", buffering=0) as file:
            file.write(b'{"request": {"method": "GET", "uri": "/weath')
        await self.send(traffic, stack, len(GARBAGE))
        # one more file of the spool, and nothing in it is any good
        (stack.spool_dir / "stray.log").write_bytes(b"\xff\xfe\n" * 3)
        bad = len(GARBAGE) + 1 + 3

        async def set_aside():
            return await metric(shipper, dropped) - before >= bad

        assert await eventually(set_aside)
        assert await metric(shipper, dropped) - before == bad
        await assert_all_counted(control, customer, traffic)
        rejected = (stack.spool_dir / "rejected" / "rejected.jsonl").read_text().splitlines()
        assert len(rejected) >= bad
        assert {"reason", "segment", "offset", "line"} <= json.loads(rejected[-1]).keys()
        assert "torn" in {json.loads(line)["reason"] for line in rejected}

    async def send(self, traffic, stack, number):
        for city in range(2):
            path = f"/weather/v1/current/spool-{number}-{city}"
            traffic.answers[path] = (await get(stack.proxy_url + path, traffic.key))[0]

    async def test_a_forged_line_belongs_to_nobody_and_is_never_billed(self, stack, control, customer):
        forged = {
            "v": 1,
            "id": "f" * 32,
            "at": 1_795_000_000_000,
            "ru": f"1.AAAAAAAAAAAA.1.1.1795000000000.{customer.account_id}.{customer.key_id}"
            ".weather.live.served.1000000.AAAAAAAAAAAAAAAAAAAAAA",
            "ra": "",
            "sv": "weather",
            "rt": "weather",
            "m": "GET",
            "p": "/forged",
            "st": 200,
            "so": "upstream",
            "bi": 1,
            "bo": 1,
            "lt": 1,
            "lk": 1,
            "lp": 1,
            "ip": "127.0.0.1",
            "u": {"tokens": "1000000"},
        }
        (stack.spool_dir / "forged.log").write_text(json.dumps(forged) + "\n")

        async def stored():
            return [e async for e in control.pages("/unattributed-events") if e["path"] == "/forged"]

        (event,) = await eventually(stored)
        assert (event["account_id"], event["outcome"], event["flags"]) == ("", "unattributed", ["bad_receipt"])
        preview = await control.get(f"/accounts/{customer.account_id}/invoices/preview/weather")
        assert "tokens" not in preview["used_units"]
        assert preview["used_units"]["requests"] < 1_000


async def assert_all_counted(control, customer, traffic):
    """Every call of the traffic is stored once, and rollups and invoice have what is stored of the customer."""

    async def all_stored():
        stored = await events_by_path(control, [customer.account_id])
        return stored if traffic.answers.keys() <= stored.keys() else None

    stored = await eventually(all_stored)
    assert stored is not None, "answered calls are missing in the event store"
    answers = {path: [status] for path, status in traffic.answers.items()}
    assert {path: stored[path] for path in answers} == answers

    async def same_everywhere():
        events = [event async for event in control.pages(f"/accounts/{customer.account_id}/events")]
        served = [event for event in events if event["outcome"] == "served"]
        rolled_up = await rollup_calls(control, account=customer.account_id, outcome="served")
        preview = await control.get(f"/accounts/{customer.account_id}/invoices/preview/weather")
        # the call that showed the key works is one more
        return len(traffic.answers) + 1 == len(served) == rolled_up == preview["used_units"]["requests"]

    assert await eventually(same_everywhere)


class TestMalformedStreamEntries:
    async def test_are_set_aside_and_do_not_stall_the_collector(self, stack, control, customer):
        metrics = f"{stack.control_url}/metrics"
        token = stack.admin_token
        letters = "km_usage_dead_letters_total"
        before = {kind: await metric(metrics, letters, kind=kind, token=token) for kind in ("entry", "line")}
        place = {"shipper": "nobody", "segment": "1-a.seg", "start": "0", "end": "100", "shipped_up_to_ms": "0"}
        entries = [
            {"x": "y"},
            {**place, "start": "one"},
            {**place, "start": "200"},
            {**place, "shipper": ""},
            {**place, "segment": b"\xff\xfe"},
            {**place, "end": "9" * 40},
            {b"\xff": b"\x00" * 10_000},
        ]
        lines = [b"garbage", b"{}", b'{"v": 1, "id": 7}', b"\xff\xfe\x00", b"[" * 50_000]
        with redis.Redis.from_url(stack.redis_url) as store:
            for entry in [*entries, {**place, FIELD_LINES: b"\n".join(lines)}]:
                store.xadd(redis_names.usage_stream(0), entry)
            traffic = NumberedTraffic(stack.proxy_url, customer.key, run="stream", concurrency=2)
            await traffic.send_until_stopped(at_most=40)
            await assert_all_counted(control, customer, traffic)

            async def set_aside():
                found = await metric(metrics, letters, token=token)
                return found - sum(before.values()) >= len(entries) + len(lines)

            assert await eventually(set_aside)
            assert await metric(metrics, letters, kind="entry", token=token) - before["entry"] == len(entries)
            assert await metric(metrics, letters, kind="line", token=token) - before["line"] == len(lines)

            async def worked_off():
                return store.xpending(redis_names.usage_stream(0), redis_names.COLLECTOR_GROUP)["pending"] == 0

            assert await eventually(worked_off, pause=0.05)


OWNED = (
    "accounts",
    "api_keys",
    "api_products",
    "api_tokens",
    "audit_log",
    "plan_versions",
    "plans",
    "prices",
    "subscription_phases",
    "subscriptions",
)
# method and path, content type, body, status, the field that is named (None where the body as a whole is wrong)
JSON = "application/json"
BODIES = [
    ("POST /accounts", JSON, b"", 422, None),
    ("POST /accounts", JSON, b"{", 422, None),
    ("POST /accounts", JSON, b"[1]", 422, None),
    ("POST /accounts", JSON, b"\xff\xfe", 422, None),
    ("POST /accounts", JSON, b"[" * 200_000, 400, None),
    ("POST /accounts", "text/plain", b'{"name": "x"}', 422, None),
    ("POST /accounts", JSON, b'{"name": ""}', 422, "name"),
    ("POST /accounts", JSON, b'{"name": "a\\u0000b"}', 422, "name"),
    ("POST /accounts", JSON, b'{"name": "x", "nmae": "y"}', 422, "nmae"),
    ("POST /accounts", JSON, b'{"name": "x", "currency": "QQQ"}', 422, "currency"),
    ("POST /accounts/{account}/keys", JSON, b'{"name": "x", "mode": "prod"}', 422, "mode"),
    ("POST /accounts/{account}/keys", JSON, b'{"name": "x", "mode": "live", "scopes": [1]}', 422, "scopes[0]"),
    ("POST /accounts/{account}/subscriptions", JSON, b'{"plan": 7}', 422, "plan"),
    ("POST /accounts/{account}/subscriptions", JSON, b'{"plan": "starter", "anchor_at": "x"}', 422, "anchor_at"),
    ("POST /accounts/acc_1/subscriptions", JSON, b'{"plan": "starter"}', 422, "account_id"),
    ("POST /keys/{key}/rotate", JSON, b'{"overlap_seconds": "long"}', 422, "overlap_seconds"),
    ("PATCH /keys/{key}", JSON, b'{"ip_ranges": ["1.2.3.4/99"]}', 422, "ip_ranges[0]"),
    (
        "POST /products",
        JSON,
        b'{"code": "maps", "name": "Maps", "service": "weather", "routes": []}',
        422,
        "routes",
    ),
    ("POST /plans/apply", "application/yaml", b"plans: {", 422, None),
    ("POST /plans/apply", "application/yaml", b"plans: []\ncolour: red\n", 422, "colour"),
    ("POST /tokens", JSON, b'{"name": "x", "role": "king"}', 422, "role"),
    ("POST /accounts", JSON, b'{"name": "' + b"x" * 20_000_000 + b'"}', 413, None),
]


def owned_rows(stack):
    """Every row of what the administrator owns, less what workers do behind our back and when a token was used."""
    rows = "SELECT (to_jsonb(t) - 'last_used_at' - 'gateway_version')::text FROM {table} t {where} ORDER BY 1"
    with psycopg.connect(stack.database_url.replace("+psycopg", "")) as connection:
        return {
            table: connection.execute(
                rows.format(table=table, where="WHERE actor NOT LIKE 'system%'" if table == "audit_log" else "")
            ).fetchall()
            for table in OWNED
        }


class TestMalformedApiBodies:
    async def test_are_answered_by_a_problem_that_names_the_field_and_nothing_is_written(
        self, stack, control, customer
    ):
        before = await asyncio.to_thread(owned_rows, stack)
        headers = {"Authorization": f"Bearer {stack.admin_token}"}
        async with httpx.AsyncClient(base_url=f"{stack.control_url}/admin/v1", headers=headers) as client:
            for route, kind, body, status, field in BODIES:
                method, path = route.format(account=customer.account_id, key=customer.key_id).split(" ")
                answer = await client.request(method, path, content=body, headers={"Content-Type": kind})
                problem = answer.json()
                shown = (route, body[:60], problem)
                assert answer.status_code == problem["status"] == status, shown
                assert answer.headers["content-type"] == "application/problem+json", shown
                assert problem["type"] == f"urn:kong-monetize:problem:{problem['code']}", shown
                assert problem["request_id"] == answer.headers["x-request-id"], shown
                if field is not None:
                    assert [one["field"] for one in problem["errors"]] == [field], shown
        assert await asyncio.to_thread(owned_rows, stack) == before
