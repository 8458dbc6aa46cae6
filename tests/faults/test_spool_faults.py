"""A disk that keeps no lines, with both doors: refused, or served and seen as admitted and not stored."""

import time
from types import SimpleNamespace

import gevent
import httpx
import pytest

from devstack.demo.control import ControlClient
from devstack.gateway.file_log import FileLog
from devstack.soak.customers import ROUTES, WIDE, Role, set_up
from devstack.soak.fault_causes import gateway_processes, no_more_bytes, read_gauge
from devstack.soak.ledger import Door
from devstack.soak.run import WORKERS, make_stack
from devstack.soak.stored import read_arrivals, read_billing, read_counters, read_events
from gateway_contract.api_keys import generate_api_key
from gateway_contract.file_log import EXPRESSION_KEY, render_privacy_expression
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.records import RedisDownPolicy
from kong_plugins.parts.spool_writer import SpoolWriteError, SpoolWriter
from tests.end_to_end.counting import eventually
from tests.plugins.conftest import make_call
from tests.plugins.fakes import grant

CALLS = 12


@pytest.fixture
def spool(tmp_path):
    directory = tmp_path / "spool"
    directory.mkdir()
    return directory


@pytest.fixture
def gateway(redis_url, start_worker, spool):
    worker = start_worker(redis_url, KM_SPOOL_DIR=str(spool))
    worker.start()
    return worker


def break_off(spool):
    """The directory is gone and a file lies in its place: nobody can write, whoever they are."""
    spool.rmdir()
    spool.write_text("")


class TestSpoolThatFailsSuddenly:
    """What passes before a worker looks again is admitted; nothing passes afterwards."""

    @pytest.mark.parametrize("policy", RedisDownPolicy)
    @pytest.mark.parametrize("door", Door)
    def test_is_refused_within_seconds_and_the_rest_shows_as_admitted(self, door, policy, gateway, project, spool):
        assert gateway.spool.trouble == ""
        account = project(grant=grant(windows=(), redis_down=policy))
        assert make_call(account.text).served
        break_off(spool)
        served, deadline = 1, time.monotonic() + 20
        while make_call(account.text).served:
            served += 1
            assert time.monotonic() < deadline
            if door is Door.METER:
                with pytest.raises(SpoolWriteError):
                    SpoolWriter(spool).append({})
            gevent.sleep(0.05)
        if door is Door.METER:
            assert served == 2, "the worker that cannot write knows at once"
        assert account.counters()["calls"] == served
        assert [make_call(account.text).code for _ in range(5)] == ["unavailable"] * 5
        assert account.counters()["calls"] == served
        spool.unlink()
        spool.mkdir()
        while not make_call(account.text).served:
            assert time.monotonic() < deadline
            gevent.sleep(0.05)


class TestFileLog:
    def test_says_nothing_to_callers_of_a_line_that_it_could_not_write(self, spool):
        log = FileLog()
        config = {
            "path": str(spool / "usage.log"),
            "reopen": True,
            "custom_fields_by_lua": {EXPRESSION_KEY: render_privacy_expression({})},
        }
        exchange = SimpleNamespace(serialize_values=[], path="/", headers={}, response_headers={}, serialize=dict)
        log.log(exchange, config)
        (spool / "usage.log").unlink()
        break_off(spool)
        log.log(exchange, config)
        assert log.failed_writes == 1
        log.close()


@pytest.fixture(scope="module")
def serving_stack(tmp_path_factory):
    """A stack whose operator wants calls served though no line can be kept."""
    stack = make_stack(tmp_path_factory.mktemp("spool-faults"), KM_SPOOL_FULL="serve")
    try:
        stack.start()
        yield stack
    finally:
        stack.destroy()


class TestServeAndCountAsUnsettled:
    @pytest.mark.slow
    async def test_calls_on_a_full_disk_are_admitted_not_stored_and_never_pass_unidentified(self, serving_stack):
        stack = serving_stack
        roles = [Role(f"by {door}", "closed", WIDE, per_second=1, concurrency=1, door=door) for door in Door]
        async with ControlClient(stack.control_url, stack.admin_token) as control:
            customers = await set_up(control, tuple(roles))
            async with httpx.AsyncClient(base_url=stack.proxy_url) as caller:
                for customer in customers:
                    assert await eventually(lambda c=customer: is_served(caller, c, "known"), seconds=20)
                with no_more_bytes(gateway_processes(stack)):
                    for customer in customers:
                        answers = [await call(caller, customer, f"full-{n}") for n in range(CALLS)]
                        assert [answer.status_code for answer in answers] == [200] * CALLS
                        # all workers have looked before the calls of the second customer
                        assert await eventually(lambda: all_workers_in_trouble(stack), seconds=20)
                    refused = [await call(caller, customers[0], "no-key", key=key) for key in strange_keys()]
                    assert {answer.status_code for answer in refused} == {401}
                assert read_gauge(stack, "km_gateway_spool_risked_total") >= CALLS
                for customer in customers:
                    assert await is_served(caller, customer, "after")
            events = await eventually(lambda: all_known(control, customers))
        for customer in customers:
            mine = [event for event in events if event.account_id == customer.account_id]
            stored = [event for event in mine if event.outcome == Outcome.SERVED]
            assert not any("full-" in event.path for event in stored)
            async with ControlClient(stack.control_url, stack.admin_token) as control:
                billing = await read_billing(control, customer)
            fields = read_counters(stack, customer, billing.period_start_ms)
            admitted = sum(count for name, count in fields.items() if name.startswith("c:"))
            assert admitted - len(stored) == CALLS, customer.role.name
        arrived = [arrival.path for arrival in read_arrivals(stack.upstream_journal)]
        assert sum("full-" in path for path in arrived) == 2 * CALLS
        assert not any("no-key" in path for path in arrived)


async def all_workers_in_trouble(stack):
    return read_gauge(stack, "km_gateway_spool_trouble") == WORKERS


def strange_keys():
    return ["", generate_api_key(Mode.LIVE)]


async def call(caller, customer, name, *, key=None):
    path = f"/{ROUTES[customer.role.door]}/v1/answers/{customer.role.door}-{name}"
    return await caller.get(path, headers={"apikey": customer.keys[0].text if key is None else key})


async def is_served(caller, customer, name):
    return (await call(caller, customer, name)).status_code == 200


async def all_known(control, customers):
    """Return the events once the calls before and after the fault are among them."""
    events = await read_events(control, customers)
    paths = {event.path.rpartition("/")[2] for event in events}
    return events if {f"{c.role.door}-{n}" for c in customers for n in ("known", "after")} <= paths else None
