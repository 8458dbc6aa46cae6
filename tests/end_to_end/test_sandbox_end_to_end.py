"""Test keys and their sandbox; and what is billed of answers that were repeated or broken off."""

import json
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import aiohttp
import pytest
import yaml

from devstack.children import start_child
from devstack.demo.scenario import create_customer
from devstack.ports import free_port, is_listening
from devstack.stack import temporary_stack
from gateway_contract import plugins
from gateway_contract.file_log import EXPRESSION_KEY, render_privacy_expression
from gateway_contract.headers import DEFAULT_REPLAY_HEADERS
from tests.end_to_end.counting import eventually, get, rollup_calls
from tests.end_to_end.recorder import recording_upstream

UNITS = {"tokens": "x-usage-tokens"}
WIDE = ((5_000, 1_000), (100_000, 60_000))
SANDBOX = {"sandbox_upstream": "weather-sandbox"}


def kong_yml(*, live_port: int, sandbox_port: int) -> str:
    def service(name: str, host: str, options: dict) -> dict:
        attached = {"name": plugins.MONETIZE, "config": {"api_product": "weather", **options}}
        route = {"name": name, "paths": [f"/{name}"], "plugins": [attached]}
        return {"name": name, "host": host, "port": live_port, "routes": [route]}

    file_log = {
        "path": "the stack puts its own here",
        "reopen": True,
        "custom_fields_by_lua": {EXPRESSION_KEY: render_privacy_expression(UNITS, DEFAULT_REPLAY_HEADERS)},
    }
    return yaml.safe_dump(
        {
            "_format_version": "3.0",
            "upstreams": [
                {"name": "weather-live", "targets": [{"target": f"127.0.0.1:{live_port}"}]},
                {"name": "weather-sandbox", "targets": [{"target": f"127.0.0.1:{sandbox_port}"}]},
            ],
            "services": [
                # the sample API: the stack gives it an address of its own
                service("weather", "127.0.0.1", {}),
                service("sandboxed", "weather-live", SANDBOX),
                service("bare", "weather-live", {}),
                service("unknown", "weather-live", {"sandbox_upstream": "nowhere"}),
            ],
            "plugins": [{"name": "file-log", "config": file_log}],
        }
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A stack whose live API is a recorder, and a sandbox beside it."""
    directory = tmp_path_factory.mktemp("sandbox")
    with ExitStack() as leaving:
        live = leaving.enter_context(recording_upstream())
        port = free_port()
        argv = [sys.executable, "-m", "devstack.upstream", "--port", str(port), "--name", "sandbox"]
        sandbox = start_child(argv, log_path=directory / "sandbox.log")
        leaving.callback(sandbox.stop)
        sandbox.wait_until(lambda: is_listening(port))
        base = directory / "kong.yml"
        base.write_text(kong_yml(live_port=live.port, sandbox_port=port))
        stack = leaving.enter_context(temporary_stack(fast=True, kong_config=base))
        yield SimpleNamespace(stack=stack, live=live, sandbox_port=port)


@pytest.fixture
def stack(world):
    return world.stack


async def customer_of(control, stack, *, name):
    """A paying customer whose key the gateway knows already."""
    customer = await create_customer(control, name=name, plan="starter", windows=WIDE, quota=None)

    async def known():
        return (await get(f"{stack.proxy_url}/weather/v1/current/first", customer.key))[0] == 200

    assert await eventually(known, seconds=20, pause=0.1)
    return customer


async def events_of(control, account_id, *, at_least):
    """The account's events but for the first calls, by path, once there are as many as wanted."""

    async def stored():
        found = [event async for event in control.pages(f"/accounts/{account_id}/events")]
        found = [event for event in found if not event["path"].endswith("/first")]
        return found if len(found) >= at_least else None

    return await eventually(stored)


async def billed(control, account_id, *, calls):
    """Requests on the invoice so far, without the first ones, once the rollup has counted that many calls."""

    async def counted():
        return await rollup_calls(control, account=account_id) >= calls

    assert await eventually(counted)
    usage = await control.get(f"/accounts/{account_id}/usage", [("group_by", "endpoint"), ("mode", "live")])
    preview = await control.get(f"/accounts/{account_id}/invoices/preview/weather")
    assert preview["used_units"]["requests"] == sum(row["billable_units"] for row in usage["items"])
    return preview["used_units"]["requests"]


class TestSandbox:
    @pytest.fixture
    async def keys(self, control, stack):
        customer = await customer_of(control, stack, name="Sandbox")
        issued = await control.post(f"/accounts/{customer.account_id}/keys", {"name": "try", "mode": "test"})

        async def known():
            return (await get(f"{stack.proxy_url}/bare/x", issued["text"]))[0] == 403

        assert await eventually(known, seconds=20, pause=0.1)
        return SimpleNamespace(account=customer.account_id, live=customer.key, test=issued["text"])

    async def test_a_test_key_reaches_the_sandbox_and_never_the_live_api(self, world, stack, control, keys):
        seen_before = len(world.live.seen)
        status, headers, body = await get(f"{stack.proxy_url}/sandboxed/v1/tokens?n=7", keys.test)
        assert (status, headers["x-upstream-name"]) == (200, "sandbox")
        assert headers["x-usage-tokens"] == "7"
        status, headers, _ = await get(f"{stack.proxy_url}/sandboxed/v1/echo", keys.test)
        assert (status, headers["x-upstream-name"]) == (200, "sandbox")
        for path in ("bare", "unknown"):
            status, _, body = await get(f"{stack.proxy_url}/{path}/by-test-key", keys.test)
            assert (status, json.loads(body)["code"]) == (403, "no_sandbox")
        assert len(world.live.seen) == seen_before

        status, headers, _ = await get(f"{stack.proxy_url}/sandboxed/by-live-key", keys.live)
        assert (status, "x-upstream-name" in headers) == (200, False)
        assert [path for path, _ in world.live.seen[seen_before:]] == ["/by-live-key"]
        assert world.live.headers_of("/by-live-key")["x-km-mode"] == "live"

    async def test_its_calls_are_metered_apart_and_never_billed(self, stack, control, keys):
        for city in ("oslo", "bergen"):
            assert (await get(f"{stack.proxy_url}/sandboxed/v1/current/{city}", keys.test))[0] == 200
        assert (await get(f"{stack.proxy_url}/sandboxed/by-live-key", keys.live))[0] == 200
        events = await events_of(control, keys.account, at_least=4)
        modes = {event["path"]: (event["mode"], event["outcome"]) for event in events}
        assert modes["/sandboxed/v1/current/oslo"] == ("test", "served")
        assert modes["/sandboxed/by-live-key"] == ("live", "served")
        assert modes["/bare/x"] == ("test", "no_sandbox")
        tests = {"account": keys.account, "mode": "test", "outcome": "served"}

        async def counted():
            return await rollup_calls(control, **tests) == 2

        assert await eventually(counted)
        figures = await control.get(f"/accounts/{keys.account}/usage", [("group_by", "mode")])
        by_mode = {row["by"]["mode"]: row for row in figures["items"]}
        assert by_mode["test"]["billable_calls"] == 0
        assert by_mode["live"]["billable_calls"] == by_mode["live"]["calls"]


class TestReplaysAndAborts:
    async def test_an_answer_that_the_upstream_repeats_is_billed_once(self, stack, control):
        customer = await customer_of(control, stack, name="Replays")
        url = f"{stack.proxy_url}/weather/v1/answers/order-1"
        before = await billed(control, customer.account_id, calls=1)
        # the first attempt fails in the upstream, which has done the work all the same
        for query, status in (("?status=503", 503), ("?replayed=true", 200), ("?replayed=True", 200)):
            assert (await get(url + query, customer.key))[0] == status
        events = await events_of(control, customer.account_id, at_least=3)
        assert sorted((event["status"], event["flags"]) for event in events) == [
            (200, ["replayed"]),
            (200, ["replayed"]),
            (503, []),
        ]
        assert await billed(control, customer.account_id, calls=before + 3) == before + 1
        usage = await control.get(f"/accounts/{customer.account_id}/usage", [("group_by", "endpoint")])
        assert sum(row["replayed_calls"] for row in usage["items"]) == 1

    async def test_an_answer_that_the_caller_breaks_off_is_counted_and_billed_once(self, stack, control):
        customer = await customer_of(control, stack, name="Aborts")
        before = await billed(control, customer.account_id, calls=1)
        url = f"{stack.proxy_url}/weather/v1/history/oslo?lines=2000&pause_ms=5"
        received = 0
        async with aiohttp.ClientSession(headers={"apikey": customer.key}) as session:
            answer = await session.get(url)
            head = sum(len(name) + len(value) + 4 for name, value in answer.raw_headers)
            async for piece in answer.content.iter_any():
                received += len(piece)
                if received > 500:
                    break
            answer.close()
        (event,) = await events_of(control, customer.account_id, at_least=1)
        assert (event["status"], event["outcome"], event["mode"]) == (200, "served", "live")
        assert head + received <= event["bytes_out"] < 100_000
        assert await billed(control, customer.account_id, calls=before + 1) == before + 1
