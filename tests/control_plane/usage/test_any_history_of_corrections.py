"""Whatever comes late and is corrected, between any seals: the ledger ends as a plain count does.

Hours are sealed, opened again by calls that come late, voids and amendments, some of them withdrawn. At every past
moment figures and ledger tell what was sealed then.
"""

import contextlib
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.usage.corrections.amending import AmendedPlace, amend_hour, withdraw_amendment
from control_plane.usage.corrections.amounts import BelowZeroError
from control_plane.usage.corrections.voiding import void_event, withdraw_void
from control_plane.usage.rollups.sealing import SealingConfig, seal_hours
from control_plane.usage.summary import GroupBy, usage_as_of, usage_summary
from tests.control_plane.usage.histories import EXAMPLES, KINDS, History, expected, hour_of, rolled_up

corrections = st.one_of(
    st.tuples(
        st.just("calls"), st.integers(1, 4), st.integers(0, 1), st.sampled_from((0, 1, 25)), st.sampled_from(KINDS)
    ),
    st.tuples(st.just("ship"), st.integers(1, 9)),
    st.tuples(st.just("work")),
    st.tuples(st.just("aggregator dies")),
    st.tuples(st.just("seal")),
    st.tuples(st.just("void"), st.integers(0, 50)),
    st.tuples(
        st.just("amend"), st.integers(0, 1), st.sampled_from((0, 1, 25)), st.integers(-3, 3), st.integers(-9, 9)
    ),
    st.tuples(st.just("withdraw"), st.integers(0, 50)),
)


@dataclass(frozen=True)
class Amended:
    """An amendment as it was made: added to the billable calls and units, and to the tokens, of an hour."""

    account: str
    hour: datetime
    calls: int
    tokens: int


class CorrectedHistory(History):
    """A history with seals and corrections; knows what was sealed at each moment."""

    def __init__(self, world: Any, number: int) -> None:
        super().__init__(world, number)
        self.now = world.noon + timedelta(days=2)
        self.made: dict[str, Any] = {}
        self.withdrawn: set[str] = set()
        self.known: dict[tuple[str, str], Any] = {}
        self.seals: list[tuple[datetime, dict[tuple[str, str], Any]]] = []

    async def subscribe(self) -> None:
        if not hasattr(self.world, "version"):  # all examples share the stores
            await self.world.catalog.product(unit_headers={"tokens": "x-tokens"})
            self.world.version = await self.world.catalog.plan_version()
        version = self.world.version
        for account in self.accounts:
            await self.world.catalog.account(account)
            phase = (f"ph_{account}", version, self.world.noon - timedelta(days=30), None)
            await self.world.catalog.subscription(phase, account=account)

    async def work(self) -> None:
        await self.collect()
        await self.aggregate()

    async def seal(self) -> None:
        """Two passes with the aggregator between: the first may ask for a last look at the events."""
        self.now += timedelta(minutes=10)
        for look in (True, False):
            async with self.world.sessions() as session, session.begin():
                await session.execute(text("UPDATE shippers SET retired_at = last_seen_at"))
                await seal_hours(session, config=SealingConfig(), now=self.now)
            if look:
                await self.world.aggregate(now=self.now)
        async with self.world.sessions() as session:
            sealed = await session.execute(
                text("SELECT account_id, hour FROM usage_hours WHERE sealed_at IS NOT NULL")
            )
            hours = {(account, hour.strftime("%Y-%m-%dT%H:%M:%SZ")) for account, hour in sealed}
            span = self._span()
            standing = by_hour(await usage_summary(session, **span))
        for place in hours:
            self.known[place] = standing.get(place, [])
        self.seals.append((self.now, {place: rows for place, rows in self.known.items() if rows}))

    async def void(self, which: int) -> None:
        if not self.calls:
            return
        call = self.calls[which % len(self.calls)]
        with contextlib.suppress(NotFoundError):  # it is not stored yet
            async with self.world.sessions() as session, session.begin():
                row = await void_event(
                    session, self.world.store, account_id=call.account, hour=hour_of(call),
                    event_id=call.receipt.event_id, reason="a wrong answer", actor="tester", now=self.now,
                )  # fmt: skip
            self.made[row.id] = call.receipt.event_id

    async def amend(self, account: int, hours_ago: int, calls: int, tokens: int) -> None:
        hour = self.world.noon - timedelta(hours=hours_ago)
        place = AmendedPlace(account_id=self.accounts[account], hour=hour, product="weather")
        with contextlib.suppress(BelowZeroError, ValidationFailedError):  # there is less; it changes nothing
            async with self.world.sessions() as session, session.begin():
                row = await amend_hour(
                    session, place=place, calls=calls, meters={"requests": calls, "tokens": tokens},
                    reason="agreed", actor="tester", now=self.now,
                )  # fmt: skip
            self.made[row.id] = Amended(place.account_id, hour, calls, tokens)

    async def withdraw(self, which: int) -> None:
        if not self.made:
            return
        found = sorted(self.made)[which % len(self.made)]
        take_back = withdraw_void if found.startswith("uvd") else withdraw_amendment
        name = "void_id" if found.startswith("uvd") else "amendment_id"
        with contextlib.suppress(BelowZeroError):  # others have taken what it added
            async with self.world.sessions() as session, session.begin():
                await take_back(session, **{name: found}, reason="not so", actor="tester", now=self.now)
            self.withdrawn.add(found)

    def in_force(self, kind: type) -> list[Any]:
        return [
            made for found, made in self.made.items() if found not in self.withdrawn and isinstance(made, kind)
        ]

    async def sealed_at(self, at: datetime) -> dict[tuple[str, str], Any]:
        async with self.world.sessions() as session:
            return by_hour((await usage_as_of(session, at=at, **self._span())).figures, self.accounts)

    async def ledger(self, at: datetime) -> Counter[tuple[Any, ...]]:
        async with self.world.sessions() as session:
            rows = await session.execute(
                text(
                    "SELECT account_id, hour, meter, CAST(sum(delta_units) AS bigint) FROM usage_ledger "
                    "WHERE account_id = ANY(:accounts) AND meter IN ('', 'requests', 'tokens') "
                    "AND sealed_at <= :at GROUP BY 1, 2, 3"
                ),
                {"accounts": self.accounts, "at": at},
            )
            return Counter({tuple(place): units for *place, units in rows if units})

    def billed(self) -> Counter[tuple[Any, ...]]:
        """Count what is billed of each hour, one call after the other, and then what amendments add and take."""
        found: Counter[tuple[Any, ...]] = Counter()
        names = {"billable calls": "", "billable units": "requests", "billable tokens": "tokens"}
        for (account, hour, *_, what), amount in expected(self.calls, voided=self.in_force(str)).items():
            if what in names:
                found[account, hour, names[what]] += amount
        for one in self.in_force(Amended):
            found[one.account, one.hour, ""] += one.calls
            found[one.account, one.hour, "requests"] += one.calls
            found[one.account, one.hour, "tokens"] += one.tokens
        return +found

    def _span(self) -> dict[str, Any]:
        start = self.world.noon - timedelta(days=3)
        groups = [GroupBy.ACCOUNT, GroupBy.HOUR, GroupBy.OUTCOME, GroupBy.STATUS]
        return {"start": start, "end": start + timedelta(days=4), "group_by": groups}


def by_hour(figures: Any, accounts: Any = None) -> dict[tuple[str, str], list[Any]]:
    found: dict[tuple[str, str], list[Any]] = {}
    for one in figures:
        if accounts is None or one.by["account"] in accounts:
            found.setdefault((one.by["account"], one.by["hour"]), []).append(one)
    return {place: sorted(rows, key=lambda row: sorted(row.by.items())) for place, rows in found.items()}


class TestAnyHistoryOfCorrections:
    @settings(
        max_examples=12,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
    @given(history=st.lists(corrections, min_size=5, max_size=14))
    async def test_of_seals_and_corrections_bills_a_plain_count(self, world, history):
        played = CorrectedHistory(world, next(EXAMPLES))
        await played.subscribe()
        opening = [("calls", 3, 0, 0, {"units": 2, "tokens": 4}), ("ship", 9), ("work",), ("seal",)]
        for name, *arguments in [*opening, *history]:
            await played.play("calls_" if name == "calls" else name, *arguments)
        await played.finish()
        await played.seal()
        assert await rolled_up(world, played.accounts) == expected(played.calls, voided=played.in_force(str))
        assert await played.ledger(played.now) == played.billed()
        for at, known in played.seals:
            here = {place: rows for place, rows in known.items() if place[0] in played.accounts}
            assert await played.sealed_at(at) == here
            assert await played.ledger(at) == ledger_of(here)


def ledger_of(known: dict[tuple[str, str], list[Any]]) -> Counter[tuple[Any, ...]]:
    """Return what figures that were sealed say of billable units."""
    found: Counter[tuple[Any, ...]] = Counter()
    for (account, hour), rows in known.items():
        for row in rows:
            place = account, datetime.fromisoformat(hour)
            found[*place, ""] += row.billable_calls
            found[*place, "requests"] += row.billable_units
            found[*place, "tokens"] += row.billable_dimensions.get("tokens", 0)
    return +found
