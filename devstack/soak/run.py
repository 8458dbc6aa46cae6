"""One soak: a fresh stack, callers and faults for so many minutes, then calm, drain, evidence."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from devstack.demo.control import ControlClient, ControlError
from devstack.soak.checks import all_checks
from devstack.soak.customers import Customer, roles, set_up, write_kong_yml
from devstack.soak.evidence import USED_UP, Check, Evidence
from devstack.soak.faults import FaultRecord
from devstack.soak.key_search import KeySearch
from devstack.soak.ledger import SERVED, Ledger
from devstack.soak.repetitions import name_events
from devstack.soak.schedule import Plan, Progress, cause_faults
from devstack.soak.settling import an_hour_later, wait_until_settled
from devstack.soak.stored import (
    read_arrivals,
    read_billed_hours,
    read_billing,
    read_counters,
    read_events,
    read_replayed,
    read_rollups,
)
from devstack.soak.traffic import KeyChanger, Traffic, now_ms
from devstack.stack import Stack
from devstack.stack_layout import RedisKind
from gateway_contract.receipts import parse_secrets

STALE_MAX_SECONDS = 10
WORKERS = 2
CALM_SECONDS, LONGEST_CALM_SECONDS = 4.0, 40.0
DRAIN_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Result:
    """What is reported. `seconds` is how long callers called."""

    seed: int
    seconds: float
    ledger: Ledger
    faults: Sequence[FaultRecord]
    checks: Sequence[Check]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


def make_stack(directory: Path, *, redis: RedisKind = "server", **settings: str) -> Stack:
    """Return a stack, not started, with a route for each usage door. `settings` are more `KM_` variables."""
    configuration = directory / "soak-kong.yml"
    data_dir = directory / "stack"
    write_kong_yml(configuration, spool_file=data_dir / "spool" / "usage.log")
    return Stack(
        data_dir,
        fast=True,
        kong_config=configuration,
        plugin_workers=WORKERS,
        record_upstream=True,
        redis=redis,
        settings={"KM_STALE_MAX_SECONDS": str(STALE_MAX_SECONDS), **settings},
    )


async def soak(stack: Stack, plan: Plan, progress: Progress) -> Result:
    """Play on a running stack. Raises ControlError where the product refuses what the soak needs."""
    ledger = progress.ledger
    async with ControlClient(stack.control_url, stack.admin_token) as control:
        customers = await set_up(control, roles(minutes=plan.minutes))
        ledger.keys |= {life.key_id: life for customer in customers for life in customer.keys}
        started = time.monotonic()
        await _call_and_cause_faults(stack, control, customers, plan=plan, progress=progress)
        seconds = time.monotonic() - started
        progress.doing = "waiting until everything is stored"
        await _drain(control, now_ms())
        progress.doing = "collecting the evidence"
        evidence = await _collect(stack, control, customers, progress)
    undone = Check(
        "faults that could not be undone",
        len(progress.not_undone),
        f"{len(progress.not_caused)} could not be caused",
        tuple(progress.not_undone),
    )
    checks = [*all_checks(evidence), undone]
    return Result(seed=plan.seed, seconds=seconds, ledger=ledger, faults=progress.faults, checks=checks)


async def _call_and_cause_faults(
    stack: Stack, control: ControlClient, customers: list[Customer], *, plan: Plan, progress: Progress
) -> None:
    changing = [customer for customer in customers if customer.role.changing_keys]
    secrets = parse_secrets(stack.gateway_secret)
    ledger = progress.ledger
    progress.doing = "calls and faults"
    async with (
        Traffic(proxy_url=stack.proxy_url, secrets=secrets, ledger=ledger, seed=plan.seed) as traffic,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(traffic.run(customers))
        for customer in changing:
            changer = KeyChanger(
                control=control, redis_url=stack.redis_url, customer=customer, ledger=ledger, seed=plan.seed
            )
            group.create_task(changer.run(traffic.stopping))
        try:
            await cause_faults(stack, plan, progress)
            progress.doing = "calm after the last fault"
            await _calm(customers, ledger)
        finally:
            traffic.stopping.set()


async def _calm(customers: Sequence[Customer], ledger: Ledger) -> None:
    """Let calls go on until every account was served again."""
    began_ms = now_ms()
    ends = time.monotonic() + LONGEST_CALM_SECONDS
    await asyncio.sleep(CALM_SECONDS)
    wanted = {customer.account_id for customer in customers}
    while time.monotonic() < ends:
        served = {
            call.account_id
            for call in list(ledger.calls.values())
            if call.begun_ms > began_ms + CALM_SECONDS * 500 and call.code in {SERVED, *USED_UP}
        }
        if wanted <= served:
            return
        await asyncio.sleep(0.5)


async def _drain(control: ControlClient, ended_ms: int) -> None:
    """Wait until all shippers have shipped, and the collector has stored, whatever ended before that moment."""
    await _until(lambda: _all_shipped(control, ended_ms), seconds=DRAIN_SECONDS)


async def _all_shipped(control: ControlClient, ended_ms: int) -> bool:
    shippers = (await control.get("/shippers"))["items"]
    return bool(shippers) and all(shipper["shipped_up_to_ms"] > ended_ms for shipper in shippers)


async def _until(condition: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(ControlError, aiohttp.ClientError, TimeoutError):
            if await condition():
                return
        await asyncio.sleep(0.5)


async def _collect(
    stack: Stack, control: ControlClient, customers: Sequence[Customer], progress: Progress
) -> Evidence:
    ledger = progress.ledger
    search = KeySearch(ledger.key_texts())
    events = name_events(await read_events(control, customers, search), ledger)

    async def rolled_up() -> bool:
        return (await read_rollups(control)).total() >= len(events)

    await _until(rolled_up, seconds=60)
    rollups = await read_rollups(control)
    billing = {customer.account_id: await read_billing(control, customer) for customer in customers}
    starts = {account_id: found.period_start_ms for account_id, found in billing.items()}
    admitted = {c.account_id: read_counters(stack, c, starts[c.account_id]) for c in customers}
    replayed = {customer.account_id: await read_replayed(control, customer) for customer in customers}
    billed_hours = {customer.account_id: await read_billed_hours(control, customer) for customer in customers}
    progress.doing = "looking for keys on the disk"
    await asyncio.to_thread(search.look_at_stack, stack)
    progress.doing = "sealing and settling the hour"
    async with an_hour_later(stack):
        await wait_until_settled(control, customers)
    settled = {c.account_id: read_counters(stack, c, starts[c.account_id]) for c in customers}
    return Evidence(
        ledger=ledger,
        faults=progress.faults,
        customers=customers,
        events=events,
        arrivals=list(read_arrivals(stack.upstream_journal)),
        rollups=rollups,
        billing=billing,
        replayed=replayed,
        admitted=admitted,
        settled=settled,
        billed_hours=billed_hours,
        keys_found=search.found,
        searched_bytes=search.searched_bytes,
        stale_max_ms=STALE_MAX_SECONDS * 1000,
    )
