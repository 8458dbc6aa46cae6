"""The plugins apart, and the other door for usage: every count agrees as with km-monetize and file-log."""

import asyncio
import json
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import redis
import yaml
from typer.testing import CliRunner

from control_plane.entrypoints.cli import create_cli
from devstack.demo.scenario import create_customer
from devstack.stack import temporary_stack
from gateway_contract import plugins, redis_names
from gateway_contract.file_log import EXPRESSION_KEY, render_privacy_expression
from gateway_contract.headers import DEFAULT_REPLAY_HEADERS
from tests.end_to_end.counting import (
    NumberedTraffic,
    counters_of,
    events_by_path,
    eventually,
    get,
    rollup_calls,
)
from tests.end_to_end.recorder import recording_upstream

UNITS = {"tokens": "x-usage-tokens"}
OLD_KONG = """
_format_version: "3.0"
consumers:
  - username: acme
    custom_id: crm-4711
    keyauth_credentials:
      - {key: 9f1d3c6a-acme-weather-2019, tags: [production]}
"""
LIMIT, CALLS = 100, 300
ONCE_A_MINUTE = ((LIMIT, 60_000),)
WIDE = ((5_000, 1_000), (100_000, 60_000))

FILE_LOG = {
    "name": "file-log",
    "config": {
        "path": "the stack puts its own here",
        "reopen": True,
        "custom_fields_by_lua": {EXPRESSION_KEY: render_privacy_expression(UNITS, DEFAULT_REPLAY_HEADERS)},
    },
}
USAGE_METER = {"name": plugins.USAGE_METER, "config": {"unit_headers": UNITS}}
WAYS = {
    "key_auth_and_plan_limit": ([plugins.KEY_AUTH, plugins.PLAN_LIMIT], FILE_LOG),
    "usage_meter": ([plugins.MONETIZE], USAGE_METER),
}


def kong_yml(attached: list[str], door: dict, *, recorder_port: int) -> str:
    def services():
        yield "weather", {"host": "127.0.0.1", "port": 1}, "/weather", {}
        # sells the same product; what a test key must not reach
        recorder = {"host": "127.0.0.1", "port": recorder_port}
        yield "recorded", recorder, "/recorded", {}
        yield "sandboxed", {**recorder, "host": "localhost"}, "/sandboxed", {"sandbox_upstream": "unknown-to-kong"}
        yield "taken-over", recorder, "/taken-over", {"imported_keys": True}

    def attachment(name: str, options: dict) -> dict:
        own = {} if name == plugins.PLAN_LIMIT else options
        return {"name": name, "config": {"api_product": "weather", **own}}

    document = {
        "_format_version": "3.0",
        "services": [
            {
                "name": name,
                **place,
                "routes": [
                    {
                        "name": name,
                        "paths": [path],
                        "plugins": [attachment(plugin, options) for plugin in attached],
                    }
                ],
            }
            for name, place, path, options in services()
        ],
        "plugins": [door],
    }
    return yaml.safe_dump(document)


@pytest.fixture(scope="module", params=WAYS)
def way(request, tmp_path_factory):
    """One stack for each way; every test has customers of its own."""
    attached, door = WAYS[request.param]
    with ExitStack() as leaving:
        recorder = leaving.enter_context(recording_upstream())
        base = tmp_path_factory.mktemp("kong") / "kong.yml"
        base.write_text(kong_yml(attached, door, recorder_port=recorder.port))
        stack = leaving.enter_context(temporary_stack(fast=True, kong_config=base))
        yield SimpleNamespace(name=request.param, stack=stack, recorder=recorder, door=door["name"])


@pytest.fixture
def stack(way):
    return way.stack


async def customer_of(control, stack, *, windows, name):
    """A paying customer whose key the gateway knows already; that took no call."""
    customer = await create_customer(control, name=name, plan="starter", windows=windows, quota=None)

    async def projected():
        with redis.Redis.from_url(stack.redis_url) as store:
            return store.hexists(redis_names.account_versions(customer.account_id), customer.key_id)

    assert await eventually(projected, seconds=20, pause=0.05)
    return customer


def import_keys(stack, path):
    words = ["keys", "import", str(path), "--api-product", "weather", "--plan", "starter"]
    env = {"KM_URL": stack.control_url, "KM_TOKEN": stack.admin_token}
    return CliRunner().invoke(create_cli(own_only=True), words, env=env)


async def issue_test_key(control, customer):
    issued = await control.post(f"/accounts/{customer.account_id}/keys", {"name": "sandbox", "mode": "test"})
    return issued["text"]


class TestOtherWaysToAttach:
    @pytest.mark.slow
    async def test_client_events_rollups_invoice_and_counters_agree_to_the_unit(self, way, stack, control):
        customer = await customer_of(control, stack, windows=ONCE_A_MINUTE, name="Counted")
        traffic = NumberedTraffic(stack.proxy_url, customer.key, run=f"agree-{way.name}", concurrency=8)
        await traffic.send_until_stopped(at_most=CALLS)
        # within a minute exactly LIMIT of them fit
        assert traffic.by_status() == {200: LIMIT, 429: CALLS - LIMIT}

        async def all_stored():
            found = await events_by_path(control, [customer.account_id])
            # calls of nobody are those of every test on this stack
            stored = {path: statuses for path, statuses in found.items() if f"/{traffic.run}-" in path}
            return stored if traffic.answers.keys() <= stored.keys() else None

        assert await eventually(all_stored) == {path: [status] for path, status in traffic.answers.items()}

        async def rolled_up():
            return await rollup_calls(control, account=customer.account_id) >= CALLS

        assert await eventually(rolled_up)
        served = {"account": customer.account_id, "outcome": "served", "status": 200, "mode": "live"}
        assert await rollup_calls(control, **served) == LIMIT
        refused = {"account": customer.account_id, "outcome": "rate_limited", "status": 429, "mode": "live"}
        assert await rollup_calls(control, **refused) == CALLS - LIMIT
        preview = await control.get(f"/accounts/{customer.account_id}/invoices/preview/weather")
        assert preview["used_units"] == {"requests": LIMIT}
        assert preview["quota"]["used_units"] == LIMIT
        assert counters_of(stack, preview) == {"calls": LIMIT, "units": LIMIT}

    async def test_a_refusal_tells_limit_wait_and_the_plan_that_fits(self, way, stack, control):
        customer = await customer_of(control, stack, windows=((1, 60_000),), name="Refused")
        url = f"{stack.proxy_url}/weather/v1/current/oslo"
        assert (await get(url, customer.key))[0] == 200
        status, headers, body = await get(url, customer.key)
        problem = json.loads(body)
        assert status == problem["status"] == 429
        assert headers["content-type"] == "application/problem+json"
        assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("1", "0")
        wait = int(headers["retry-after"])
        assert 1 <= wait <= 60
        assert headers["x-ratelimit-reset"] == headers["retry-after"]
        assert problem["code"] == "rate_limited"
        assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
        assert problem["violated-policies"] == ["per-minute"]
        assert problem["limit"] == {
            "name": "per-minute",
            "limit": 1,
            "remaining": 0,
            "window_seconds": 60.0,
            "retry_after_seconds": wait,
        }
        assert problem["plan"]["code"] == "starter"
        assert problem["upgrade"]["code"] == "growth"
        assert headers["ratelimit-policy"].startswith('"per-minute";q=1;w=60')
        assert headers["ratelimit"].startswith('"per-minute";r=0;t=')

    async def test_units_that_the_upstream_reports_reach_event_rollup_and_invoice(self, way, stack, control):
        customer = await customer_of(control, stack, windows=WIDE, name="Tokens")
        url = f"{stack.proxy_url}/weather/v1/tokens"
        for count in (17, 5):
            assert (await get(f"{url}?n={count}", customer.key))[0] == 200

        async def used():
            preview = await control.get(f"/accounts/{customer.account_id}/invoices/preview/weather")
            return preview["used_units"] if preview["used_units"].get("requests", 0) >= 2 else None

        assert await eventually(used) == {"requests": 2, "tokens": 22}
        events = [event async for event in control.pages(f"/accounts/{customer.account_id}/events")]
        assert sorted(event["dimensions"]["tokens"] for event in events) == [5, 17]
        assert [event["flags"] for event in events] == [[], []]

    async def test_a_test_key_without_a_sandbox_never_reaches_the_upstream(self, way, stack, control):
        customer = await customer_of(control, stack, windows=WIDE, name="Sandbox")
        test_key = await issue_test_key(control, customer)

        async def refused():
            status, _, body = await get(f"{stack.proxy_url}/recorded/by-test-key", test_key)
            return (status, json.loads(body)["code"]) if status != 401 else None  # not projected yet

        assert await eventually(refused, seconds=20, pause=0.1) == (403, "no_sandbox")
        status, _, body = await get(f"{stack.proxy_url}/sandboxed/by-test-key", test_key)
        assert (status, json.loads(body)["code"]) == (403, "no_sandbox")
        assert (await get(f"{stack.proxy_url}/recorded/by-live-key", customer.key))[0] == 200
        arrived = way.recorder.headers_of("/by-live-key")
        assert arrived["apikey"] == "redacted"
        assert arrived["x-km-account"] == customer.account_id
        assert way.recorder.headers_of("/by-test-key") is None

        async def stored():
            events = [event async for event in control.pages(f"/accounts/{customer.account_id}/events")]
            found = {(event["path"], event["mode"]): event for event in events}
            return found if ("/recorded/by-live-key", "live") in found else None

        found = await eventually(stored)
        assert {key for key in found if key[1] == "test"} == {
            ("/recorded/by-test-key", "test"),
            ("/sandboxed/by-test-key", "test"),
        }
        assert all(event["upstream_ms"] == -1 for key, event in found.items() if key[1] == "test")

        async def rolled_up():
            return await rollup_calls(control, account=customer.account_id, mode="test") >= 2

        assert await eventually(rolled_up)
        preview = await control.get(f"/accounts/{customer.account_id}/invoices/preview/weather")
        assert preview["used_units"] == {"requests": 1}

    async def test_a_key_taken_over_from_kong_works_and_its_calls_are_billed(self, way, stack, control, tmp_path):
        key, url = "9f1d3c6a-acme-weather-2019", f"{stack.proxy_url}/taken-over/1"
        (tmp_path / "kong.yml").write_text(OLD_KONG)
        assert (await get(url, key))[0] == 401
        done = await asyncio.to_thread(import_keys, stack, tmp_path / "kong.yml")
        assert done.exit_code == 0, done.stderr
        (account,) = (await control.get("/accounts", {"search": "crm-4711"}))["items"]

        async def works():
            return (await get(url, key))[0] == 200

        assert await eventually(works, seconds=20, pause=0.1)
        for headers in ({"x-api-key": key}, {"Authorization": f"Bearer {key}"}):
            assert (await get(url, **headers))[0] == 200
        assert way.recorder.headers_of("/1")["x-km-account"] == account["id"]
        assert (await get(url, key.replace("2019", "2020")))[0] == 401
        # a route that does not take keys of any form
        assert (await get(f"{stack.proxy_url}/recorded/1", key))[0] == 401

        async def billed():
            preview = await control.get(f"/accounts/{account['id']}/invoices/preview/weather")
            return preview["used_units"]["requests"] >= 3 and preview

        assert (await eventually(billed))["used_units"] == {"requests": 3}
        (imported,) = (await control.get(f"/accounts/{account['id']}/keys"))["items"]
        assert (imported["name"], imported["hint"], imported["origin"]) == ("production", "…2019", "imported")
        await control.post(f"/keys/{imported['id']}/revoke")

        async def refused():
            return (await get(url, key))[0] == 401

        assert await eventually(refused, seconds=20, pause=0.1)

    async def test_the_renderer_leaves_what_is_attached_alone(self, way, stack, control):
        preview = await control.get("/gateway/preview")
        assert preview["added"] == []
        found = [plugin["name"] for plugin in yaml.safe_load(preview["text"])["plugins"]]
        assert found == [way.door]
