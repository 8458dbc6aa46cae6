"""Histories of calls on their way into usage: what happens to them, and a plain count of them."""

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.redis_names import usage_stream

EXAMPLES = itertools.count(1)
KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"units": 3, "tokens": 11},
    {"status": 500},
    {"mode": Mode.TEST, "tokens": 2},
    {"outcome": Outcome.RATE_LIMITED, "status": 429},
    {"key": "key_2", "path": "/weather/v1/forecast"},
    {"replayed": "true"},
    {"replayed": "TRUE", "units": 2, "tokens": 3, "path": "/weather/v1/forecast"},
    {"replayed": "true", "status": 503},
    {"replayed": "true", "mode": Mode.TEST},
)
HOURS_AGO = (0, 1, 2, 25)


class DeathError(Exception):
    pass


@dataclass
class Spool:
    """Lines of one segment with their offsets, and which of them were shipped."""

    lines: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0])
    shipped: int = 0

    def write(self, line: dict[str, Any]) -> None:
        self.lines.append(json.dumps(line).encode())
        self.ends.append(self.ends[-1] + len(self.lines[-1]) + 1)


class History:
    """Plays actions, and knows the calls that were made."""

    def __init__(self, world: Any, number: int) -> None:
        self.world = world
        self.accounts = [f"acc_{number}_{index}" for index in range(3)]
        self.gateway = world.make_gateway(shipper=f"node_{number}", segment=f"seg-{number}", numbers=world.numbers)
        self.spool = Spool()
        self.calls: list[Any] = []

    async def play(self, name: str, *arguments: Any) -> None:
        await getattr(self, name.replace(" ", "_"))(*arguments)

    async def calls_(self, count: int, account: int, hours_ago: int, kind: dict[str, Any]) -> None:
        # towards the end of an hour as often as not, so that 24 hours end in the middle of one
        at = self.world.noon - timedelta(hours=hours_ago, minutes=-7 * (len(self.calls) % 8))
        at += timedelta(milliseconds=len(self.calls))
        made = self.gateway.calls(count, at=at, account=self.accounts[account], **kind)
        self.calls += made
        for call in made:
            self.spool.write(call.line())

    async def deliver(self, *batches: tuple[int, int, int, dict[str, Any]]) -> None:
        for count, hours_ago, minute, kind in batches:
            at = self.world.noon - timedelta(hours=hours_ago, minutes=-minute)
            made = self.gateway.calls(count, at=at, account=self.accounts[0], **kind)
            self.calls += made
            for call in made:
                self.spool.write(call.line())
        await self.ship(len(self.spool.lines))
        await self.collect()
        await self.aggregate()

    async def repeat(self, which: int) -> None:
        """The same line is written twice: a receipt under two request ids is the worst form of it."""
        if self.calls:
            call = self.calls[which % len(self.calls)]
            self.spool.write(call.line() | ({"id": f"again{which}"} if which % 2 else {}))

    async def ship(self, count: int) -> None:
        await self._ship(self.spool.shipped, self.spool.shipped + count)
        self.spool.shipped = min(self.spool.shipped + count, len(self.spool.lines))

    async def ship_ahead(self, count: int) -> None:
        """The second piece before the first."""
        first = self.spool.shipped
        await self._ship(first + count, first + 2 * count)
        await self._ship(first, first + count)
        self.spool.shipped = min(first + 2 * count, len(self.spool.lines))

    async def ship_again(self) -> None:
        self.spool.shipped = await self._committed()

    async def collect(self) -> None:
        await self.world.collect()

    async def collector_dies(self, after: int) -> None:
        collector = self.world.make_collector()

        async def die(_progress: Any) -> None:
            raise DeathError

        collector.steps = (*collector.steps[:after], ("die", die), *collector.steps[after:])
        for _ in range(2):
            try:
                await collector.collect()
            except DeathError:
                return

    async def redis_forgets(self) -> None:
        await self.world.redis.flushall()
        await self.ship_again()

    async def redis_loses_the_oldest(self) -> None:
        """One entry is gone while those behind it are collected: the shipper learns it from the position."""
        found = await self.world.redis.xrange(usage_stream(0), count=1)
        for entry_id, _ in found:
            await self.world.redis.xdel(usage_stream(0), entry_id)
        await self.collect()

    async def aggregate(self) -> None:
        await self.world.aggregate()

    async def aggregator_dies(self) -> None:
        def die(*_arguments: Any, **_more: Any) -> None:
            raise DeathError

        with self.world.monkeypatch.context() as patch:
            patch.setattr(self.world.store, "hour_figures", die)
            with contextlib.suppress(DeathError):
                await self.world.aggregate()

    async def finish(self) -> None:
        """As a shipper does: ship again from what is committed, until everything is."""
        for _ in range(10):
            await self.collect()
            self.spool.shipped = await self._committed()
            if self.spool.shipped == len(self.spool.lines):
                break
            await self.ship(len(self.spool.lines))
        else:
            pytest.fail("the segment is never committed")
        await self.aggregate()

    async def _ship(self, first: int, last: int) -> None:
        first, last = min(first, len(self.spool.lines)), min(last, len(self.spool.lines))
        if first < last:
            await self.gateway.add(
                start=self.spool.ends[first],
                end=self.spool.ends[last],
                lines=b"\n".join(self.spool.lines[first:last]),
            )

    async def _committed(self) -> int:
        async with self.world.sessions() as session:
            end = await session.scalar(
                text("SELECT end_offset FROM shipper_positions WHERE segment = :segment"),
                {"segment": self.gateway.segment},
            )
        return self.spool.ends.index(end or 0)


def hour_of(call: Any) -> datetime:
    hour: datetime = call.at.replace(minute=0, second=0, microsecond=0)
    return hour


def expected(calls: list[Any], voided: Collection[str] = ()) -> Counter[tuple[Any, ...]]:
    """Count calls, units and tokens, all and billable, one call after the other as they happened.

    A voided call counts nothing, and is the original of its replays all the same.
    """
    found: Counter[tuple[Any, ...]] = Counter()
    originals: dict[tuple[Any, ...], datetime] = {}
    for call in sorted(calls, key=lambda call: (call.at, call.receipt.event_id)):
        counts = call.outcome is Outcome.SERVED and call.status < 500
        kind = (call.account, call.mode, call.product, call.path)
        last = originals.get(kind)
        replayed = counts and call.replayed != "" and last is not None and call.at - last <= timedelta(hours=24)
        if counts and not replayed:
            originals[kind] = call.at
        if call.receipt.event_id in voided:
            continue
        billed = counts and not replayed and call.mode is Mode.LIVE
        key = (call.account, hour_of(call), call.key, call.mode.value, call.outcome.value, call.status, replayed)
        for what, amount in (("calls", 1), ("units", call.units), ("tokens", call.tokens)):
            found[*key, what] += amount
            found[*key, f"billable {what}"] += amount * billed
    return +found


async def rolled_up(world: Any, accounts: list[str]) -> Counter[tuple[Any, ...]]:
    found: Counter[tuple[Any, ...]] = Counter()
    async with world.sessions() as session:
        rows = await session.execute(
            text("SELECT * FROM usage_hourly WHERE account_id = ANY(:accounts) AND amendment_id = ''"),
            {"accounts": accounts},
        )
        for row in rows:
            hour: datetime = row.hour
            key = (row.account_id, hour, row.key_id, row.mode, row.outcome, row.status, row.replayed)
            found[*key, "calls"] += row.calls
            found[*key, "units"] += row.units
            found[*key, "tokens"] += row.dimensions.get("tokens", 0)
            found[*key, "billable calls"] += row.billable_calls
            found[*key, "billable units"] += row.billable_units
            found[*key, "billable tokens"] += row.billable_dimensions.get("tokens", 0)
    return +found
