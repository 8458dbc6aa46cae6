"""Plays histories of usage from the gateway and from applications to rollups, days, meters and the ledger."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from control_plane.usage.collect.collector import Progress
from control_plane.usage.daily.rollup import DailyConfig, roll_up_days
from control_plane.usage.extra_units import EXTRA_UNITS
from control_plane.usage.ingest.cloud_events import read_event
from control_plane.usage.ingest.model import ReportedEvent, Verdict
from control_plane.usage.ingest.writer import EventIngest, IngestConfig, IngestUnavailableError
from control_plane.usage.meters.hourly import derive_meters
from control_plane.usage.meters.periods import PeriodsConfig, count_due_periods
from control_plane.usage.rollups.aggregator import aggregate_touched
from control_plane.usage.rollups.sealing import SealingConfig, SealingResult, seal_hours
from control_plane.usage.store import EventStore
from gateway_contract.redis_names import COLLECTOR_GROUP, usage_stream
from tests.control_plane.usage.breaking import KilledError, StoreAwayError
from tests.control_plane.usage.histories import History
from tests.control_plane.usage.plain_usage import PlainPhase, Usage, judged, sums, usage_of_call, usage_of_report

HOUR = timedelta(hours=1)
WITHIN_SECONDS = 30.0
SOON = PeriodsConfig(shortest_pause_seconds=0.0, pause_factor=0.0)
# the database marks days by its own clock
AT_ONCE = DailyConfig(quiet=timedelta(days=-3650))
QUICK = IngestConfig(group_seconds=0.001, take_over_seconds=0.0, housekeeping_seconds=0.02)
Crash = tuple[int, bool] | None
"""At which boundary something breaks in a step, and whether the process dies of it."""


class WholeHistory(History):
    """A history of one spool and one application. `now` grows with every step."""

    def __init__(self, world: Any, number: int, phases: list[PlainPhase]) -> None:
        super().__init__(world, number)
        self.number = number
        self.now = world.noon + timedelta(days=2)
        self.phases = phases
        self.reports: dict[str, dict[str, Any]] = {}
        self.accepted: dict[str, dict[str, Any]] = {}
        self.claims: dict[datetime, int] = {}
        self.has_lost_an_entry = False

    async def play(self, name: str, *arguments: Any) -> None:
        self.now += timedelta(minutes=10)
        await super().play(name, *arguments)

    async def step(self, step: Callable[[], Any], crash: Crash) -> Any:
        """Take a step of the product; what is left of it after a crash is thrown away."""
        fuse = self.world.fuse
        if crash is not None:
            fuse.arm(crash[0], KilledError if crash[1] else StoreAwayError)
        try:
            return await step()
        except (KilledError, StoreAwayError):
            return None
        finally:
            fuse.disarm()

    # --- calls

    async def heartbeat(self) -> None:
        """The shipper says that all of its spool is in the stream, as long as that is so."""
        if self.spool.shipped == len(self.spool.lines):
            self.claims[self.now] = len(self.calls)
            await self.gateway.heartbeat(self.now)

    async def ship_everything_again(self) -> None:
        """Positions were forgotten: the whole segment comes once more, in other pieces."""
        async with self.world.sessions() as session, session.begin():
            names = {"segment": self.gateway.segment}
            await session.execute(text("DELETE FROM shipper_ranges WHERE segment = :segment"), names)
            await session.execute(text("DELETE FROM shipper_positions WHERE segment = :segment"), names)
        self.spool.shipped = 0
        await self.ship((len(self.spool.lines) + 1) // 2)
        await self.ship(len(self.spool.lines))

    async def redis_loses_the_oldest(self) -> None:
        self.has_lost_an_entry = True
        await super().redis_loses_the_oldest()

    async def redis_loses_its_group(self) -> None:
        if await self.world.redis.exists(usage_stream(0)):
            await self.world.redis.xgroup_destroy(usage_stream(0), COLLECTOR_GROUP)

    async def collect(self, crash: Crash = None) -> None:
        if crash is None:
            await self.world.collect(now=self.now)
        elif crash[1]:
            await self.step(self.world.make_collector(now=self.now).collect, crash)
        else:
            await self.step(self._run_collector, crash)

    async def _run_collector(self) -> None:
        """As a process does: steps that fail are tried again until they succeed."""
        stop = asyncio.Event()
        collector = self.world.make_collector(now=self.now, wait_seconds=0.005)
        task = asyncio.create_task(collector.run(stop))
        await until(self._nothing_waits, task)
        stop.set()
        await task

    async def _nothing_waits(self) -> bool:
        with contextlib.suppress(StoreAwayError):
            return not await self.world.redis.xlen(usage_stream(0))
        return False

    async def another_claims(self) -> None:
        """A collector that is taken for dead lives, and works off what another has worked off meanwhile."""
        slow = self.world.make_collector(now=self.now)
        batch = await slow.read_batch(wait_seconds=0)
        await self.collect()
        if batch:
            await slow._take_steps(Progress(batch, time.monotonic()))

    # --- reported events

    async def report(self, count: int, account: int, hours_ago: int, kind: dict[str, Any], crash: Crash) -> None:
        events = []
        for _ in range(count):
            made = len(self.reports)
            at = self.world.noon - timedelta(hours=hours_ago, minutes=-9 * (made % 6), milliseconds=-made)
            event = {
                "specversion": "1.0",
                "id": f"{self.number}-{made}",
                "source": "/shop",
                "subject": self.accounts[account],
                "time": at.isoformat(),
                "type": kind["type"],
                "data": {name: value for name, value in kind.items() if name != "type"},
            }
            self.reports[event["id"]] = event
            events.append(event)
        await self.step(lambda: self._send(events), crash)

    async def report_again(self, which: int, changed: bool, crash: Crash) -> None:  # noqa: FBT001 - drawn
        """The application sends what it sent before; with other content only what it knows to be taken."""
        known = self.accepted if changed else self.reports
        if known:
            event = known[sorted(known)[which % len(known)]]
            if changed:
                event = {**event, "data": {**event["data"], "units": {"tokens": 999}}}
            await self.step(lambda: self._send([event, event]), crash)

    async def _send(self, events: list[dict[str, Any]]) -> None:
        found = [self.read(event) for event in events]
        async with self.writer() as (ingest, running):
            asking = asyncio.create_task(ingest.submit(found))
            await asyncio.wait({asking, running}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                asking.cancel()  # it died with the question in hand
                return
            for event, verdict in zip(events, await asking, strict=True):
                if verdict.outcome in {"accepted", "duplicate"}:
                    self.accepted[event["id"]] = event

    @staticmethod
    def read(event: dict[str, Any]) -> ReportedEvent:
        found = read_event(json.dumps(event).encode())
        assert not isinstance(found, Verdict), found
        return found

    @contextlib.asynccontextmanager
    async def writer(self) -> Any:
        """Run a writer; it begins with what others have left."""

        class Kept(EventStore):
            def close(self) -> None:
                """All tests share the client."""

        async def open_store(_stop: asyncio.Event) -> EventStore:
            return Kept(self.world.store._client)

        now = self.now
        ingest = EventIngest(sessions=self.world.sessions, open_store=open_store, config=QUICK, clock=lambda: now)
        stop = asyncio.Event()
        task = asyncio.create_task(ingest.run(stop))

        async def is_up() -> bool:
            return ingest._refusal is None

        try:
            await until(is_up, task)
            with contextlib.suppress(IngestUnavailableError):
                yield ingest, task
        finally:
            stop.set()
            await task

    # --- what is made of it

    async def aggregate(self, limit: int = 200, crash: Crash = None) -> None:
        await self.step(lambda: self._aggregate(limit), crash)

    async def _aggregate(self, limit: int) -> None:
        arguments = {"now": self.now, "limit": limit, "derive": (derive_meters,)}
        while await aggregate_touched(self.world.sessions, self.world.store, **arguments):
            pass

    async def count_periods(self, crash: Crash = None) -> None:
        await self.step(self._count_periods, crash)

    async def _count_periods(self) -> None:
        await count_due_periods(self.world.sessions, self.world.store, now=self.now, config=SOON)

    async def roll_up_days(self, crash: Crash = None) -> None:
        async def step() -> None:
            async with self.world.sessions() as session, session.begin():
                await roll_up_days(session, config=AT_ONCE, now=self.now)

        await self.step(step, crash)

    async def seal(self, crash: Crash = None) -> None:
        """Seal what the shipper's word allows: then all that it spoke of is in the figures."""
        for look in (True, False):
            result = await self.step(self._seal, crash)
            if result is not None:
                await self._check_seals(result)
            if look:
                await self.aggregate()

    async def seal_early(self) -> None:
        """The node is retired, with calls still in its spool."""
        async with self.world.sessions() as session, session.begin():
            await session.execute(text("UPDATE shippers SET retired_at = last_seen_at"))
        await self.seal()

    async def _seal(self) -> SealingResult:
        async with self.world.sessions() as session, session.begin():
            return await seal_hours(session, config=SealingConfig(), now=self.now, extra_units=EXTRA_UNITS)

    async def _check_seals(self, result: SealingResult) -> None:
        async with self.world.sessions() as session:
            said = await session.scalar(
                text("SELECT shipped_up_to_ms FROM shippers WHERE shipper_id = :id AND retired_at IS NULL"),
                {"id": self.gateway.shipper},
            )
            rows = await session.execute(
                text("SELECT account_id, hour, CAST(sum(calls) AS int) FROM usage_hourly GROUP BY 1, 2")
            )
            counted = {(account, hour): calls for account, hour, calls in rows}
        if not said or self.has_lost_an_entry:
            return
        spoken_of = max(made for at, made in self.claims.items() if at.timestamp() * 1000 <= said)
        wanted = sums(map(usage_of_call, self.calls[:spoken_of]), lambda one: (one.event.account, one.hour))
        for one in result.sealed:
            if one.account_id in self.accounts:
                calls = wanted.get((one.account_id, one.hour), {}).get("calls", 0)
                assert counted.get((one.account_id, one.hour), 0) >= calls, "sealed before all calls were in"

    async def finish(self) -> None:
        for _ in range(10):
            await self.collect()
            self.spool.shipped = await self._committed()
            if self.spool.shipped == len(self.spool.lines):
                break
            await self.ship(len(self.spool.lines))
        else:
            pytest.fail("the segment is never committed")
        await self._send(list(self.reports.values()))
        self.now += timedelta(days=40)  # the billing periods are over
        await self.aggregate()
        await self.count_periods()
        await self.seal_early()
        await self.roll_up_days()

    def usage(self) -> list[Usage]:
        """Return every call and every event that was taken, once."""
        calls = {call.receipt.event_id: usage_of_call(call) for call in self.calls}
        reports = [usage_of_report(event, self.read(event).event_id) for event in self.accepted.values()]
        return judged([*calls.values(), *reports], self.phases)


async def until(true: Callable[[], Any], task: "asyncio.Task[None]") -> None:
    """Wait for something that a task brings about, unless the task ends."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while not task.done() and not await true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


NUMBERS = itertools.count(1)
