"""Declared meters as hours are recomputed, sealed and filled up: late events, voids, plan changes, backfills."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.catalog.meters import MeterFacts
from control_plane.catalog.tables import Meter, Price
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.corrections.voiding import void_event, withdraw_void
from control_plane.usage.meters.backfills import (
    BackfillRunningError,
    backfill,
    backfills,
    start_backfill,
    take_backfill_step,
)
from control_plane.usage.meters.demand import units_of_accounts
from control_plane.usage.meters.hourly import derive_meters
from control_plane.usage.meters.periods import PeriodsConfig, count_due_periods
from control_plane.usage.meters.reports import MeterFilter, hour_values, period_values
from control_plane.usage.meters.tables import MeterBackfill, MeterHourly, MeterPeriodState
from control_plane.usage.meters.values import priced_units_of_hours
from control_plane.usage.meters.workers import MetersConfig, forget_replaced, run_meter_backfills
from control_plane.usage.operations import touch_hours
from control_plane.usage.queries import billable_units
from control_plane.usage.rollups.aggregator import aggregate_touched
from control_plane.usage.rollups.sealing import SealingConfig, seal_hours
from control_plane.usage.rollups.tables import UsageLedger
from control_plane.usage.store import EventStore
from control_plane.usage.tables import UsageHour
from tests.control_plane.usage.metered import NOON, Event, a_meter, columns, plain_value

Sessions = async_sessionmaker[AsyncSession]
HOUR, DAY, MS = timedelta(hours=1), timedelta(days=1), timedelta(milliseconds=1)
MARCH, APRIL = NOON.replace(day=1, hour=0), NOON.replace(month=4, day=1, hour=0)
NOW = NOON + 2 * HOUR
SOON = PeriodsConfig(shortest_pause_seconds=0.0, pause_factor=0.0)
CHANGE = NOON + timedelta(minutes=13)
_TOUCH = text("""
INSERT INTO touched_hours (account_id, hour, generation, touched_at) VALUES (:account_id, :hour, 1, :now)
ON CONFLICT (account_id, hour) DO UPDATE SET generation = touched_hours.generation + 1
""")

COUNT = a_meter("count", code="calls", weights={"GET /a": 3})
SUM = a_meter("sum", "tokens", code="sum-tokens", events="all")
USERS = a_meter("unique", "properties.user", code="users", events="reported")
KEYS = a_meter("unique", "key_id", code="keys")
MOST = a_meter("max", "tokens", code="most-tokens", events="all")
SEATS = a_meter("latest", "seats", code="seats", events="all")
ALL = (COUNT, SUM, USERS, KEYS, MOST, SEATS)


@dataclass
class World:
    """One account with events that are stored, and hours that are recomputed when a test says so."""

    sessions: Sessions
    store: EventStore
    catalog: Any
    stored: dict[str, Event] = field(default_factory=dict)
    examples: list[list[Event]] = field(default_factory=list)

    async def declare(self, *meters: MeterFacts) -> None:
        async with self.sessions() as session, session.begin():
            session.add_all(
                Meter(
                    id=f"mtr_{meter.code}",
                    code=meter.code,
                    name=meter.name,
                    api_product_id="prod_weather",
                    aggregation=meter.aggregation.value,
                    value=meter.value,
                    events=meter.events.value,
                    filters=meter.filters.as_dict(),
                    weights=meter.weights,
                    created_at=NOON,
                )
                for meter in meters
            )

    async def price(self, version_id: str, *codes: str) -> None:
        async with self.sessions() as session, session.begin():
            await session.execute(text("ALTER TABLE prices DISABLE TRIGGER USER"))
            session.add_all(
                Price(
                    id=f"price_{version_id}_{code}",
                    plan_version_id=version_id,
                    currency="USD",
                    position=position,
                    model="per_unit",
                    meter=code,
                    params={"unit_amount": "1.00"},
                )
                for position, code in enumerate(codes)
            )
            await session.flush()
            await session.execute(text("ALTER TABLE prices ENABLE TRIGGER USER"))

    async def deliver(self, *events: Event) -> None:
        """Store events and touch their hours, as a collector does."""
        self.store.insert(columns(events))
        self.stored |= {event.id: event for event in events}
        async with self.sessions() as session, session.begin():
            for hour in sorted({(event.account, floor_hour(event.at)) for event in events}):
                await session.execute(_TOUCH, {"account_id": hour[0], "hour": hour[1], "now": NOW})

    async def count(self, *, now: datetime = NOW, meters: bool = True) -> None:
        derive = (derive_meters,) if meters else ()
        while await aggregate_touched(self.sessions, self.store, now=now, derive=derive):
            pass
        await self.count_periods(now=now)

    async def count_periods(self, *, now: datetime = NOW) -> int:
        return await count_due_periods(self.sessions, self.store, now=now, config=SOON)

    async def seal(self, *, now: datetime) -> int:
        async with self.sessions() as session, session.begin():
            result = await seal_hours(
                session, config=SealingConfig(), now=now, extra_units=(priced_units_of_hours,)
            )
        return len(result.sealed)

    async def void(self, event: Event, *, back: bool = False) -> None:
        async with self.sessions() as session, session.begin():
            made = await void_event(
                session, self.store, account_id=event.account, hour=floor_hour(event.at), event_id=event.id,
                reason="wrong", actor="test", now=NOW,
            )  # fmt: skip
            if back:
                await withdraw_void(session, void_id=made.id, reason="right", actor="test", now=NOW)

    async def backfill(self, code: str, *, starts_at: datetime | None = None, hours: int = 2) -> MeterBackfill:
        """Run a job to its end, in small steps."""
        async with self.sessions() as session, session.begin():
            job = await start_backfill(session, code=code, starts_at=starts_at, actor="test", now=NOW)
        while await self.step(hours=hours):
            pass
        await self.count_periods()
        async with self.sessions() as session:
            return await backfill(session, job.id)

    async def step(self, *, hours: int = 2) -> bool:
        async with self.sessions() as session, session.begin():
            return await take_backfill_step(session, self.store, now=NOW, hours=hours) is not None

    async def hourly(self) -> dict[tuple[str, datetime, str], int]:
        """Return values by phase, hour and meter."""
        async with self.sessions() as session:
            rows = await session.scalars(select(MeterHourly))
            return {(row.phase_id, row.hour, row.meter_id.removeprefix("mtr_")): row.value for row in rows}

    async def units(self, subscription_id: str, start: datetime = MARCH, end: datetime = APRIL) -> list[Any]:
        async with self.sessions() as session:
            phases = await billable_units(session, subscription_id=subscription_id, start=start, end=end)
        codes = {meter.code for meter in ALL}
        return [{code: units for code, units in phase.units.items() if code in codes} for phase in phases]

    def plain(
        self,
        phases: Sequence[tuple[str, datetime, datetime, int]],
        meters: Sequence[MeterFacts],
        left_out: Any = (),
    ) -> dict[tuple[str, datetime, str], int]:
        """Return what `hourly` must be, for phases (id, from, to, first status not billed)."""
        found = {}
        for phase, start, end, below in phases:
            events = [
                event
                for event in self.stored.values()
                if start <= event.at < end and event.account == "acc_1" and event.id not in left_out
            ]
            for hour in {floor_hour(event.at) for event in events}:
                for meter in meters:
                    of_hour = [event for event in events if floor_hour(event.at) == hour]
                    value = plain_value(meter, of_hour, below)
                    if value is not None:
                        found[phase, hour, meter.code] = value
        return found


@pytest.fixture
async def world(sessions: Sessions, store: EventStore, catalog: Any) -> World:
    await catalog.account()
    await catalog.product()
    return World(sessions, store, catalog)


async def subscribed(world: World, *, change: bool = False, priced: Sequence[str] = ()) -> str:
    """Return a subscription from the month's beginning; with a change of plan at 12:13 if wanted."""
    first = await world.catalog.plan_version()
    await world.price(first, *priced)
    if not change:
        return await world.catalog.subscription(("ph_1", first, MARCH, None))
    second = await world.catalog.plan_version(billable_statuses={"below": 400})
    await world.price(second, *priced)
    return await world.catalog.subscription(("ph_1", first, MARCH, CHANGE), ("ph_2", second, CHANGE, None))


def an_event(number: int, at: datetime = NOON, **fields: Any) -> Event:
    return Event(f"call-{number}", at=at, **fields)


def a_report(number: int, at: datetime = NOON, user: str = "", **fields: Any) -> Event:
    properties = {"user": user} if user else {}
    return Event(
        f"app-{number}", at=at, outcome="reported", status=0, endpoint="", method="", key="", ip="", path="",
        upstream_ms=-1, properties=properties, **fields,
    )  # fmt: skip


events = st.builds(
    Event,
    id=st.integers(0, 20).map(lambda number: f"event-{number}"),
    at=st.integers(0, 3 * 3_600_000 - 1).map(lambda ms: NOON - HOUR + timedelta(milliseconds=ms)),
    mode=st.sampled_from(["live", "live", "test"]),
    outcome=st.sampled_from(["served", "reported"]),
    status=st.sampled_from([200, 404, 500]),
    endpoint=st.sampled_from(["GET /a", "GET /b"]),
    key=st.sampled_from(["key_1", "key_2", "key_3"]),
    dimensions=st.dictionaries(st.sampled_from(["tokens", "seats"]), st.integers(0, 100)),
    properties=st.dictionaries(st.just("user"), st.sampled_from(["ann", "bob", "eve"])),
)


class TestHistories:
    @settings(
        max_examples=4,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],  # shrinking would take an hour
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        made=st.lists(events, min_size=1, max_size=16, unique_by=lambda event: event.id),
        order=st.randoms(use_true_random=False),
        batches=st.integers(1, 4),
    )
    async def test_of_late_repeated_and_voided_events_end_as_a_plain_count(
        self, made, order, batches, world
    ) -> None:
        if not world.examples:
            await subscribed(world, change=True)
            await world.declare(*ALL)
        await _empty(world)
        # voids stay for good: each example has events of its own
        made = [replace(event, id=f"{len(world.examples)}-{event.id}") for event in made]
        world.examples.append(made)
        deliveries = [*made, *order.sample(made, len(made) // 2)]
        order.shuffle(deliveries)
        size = -(-len(deliveries) // batches)
        for start in range(0, len(deliveries), size):
            await world.deliver(*deliveries[start : start + size])
            await world.count()
        voided = order.sample(made, len(made) // 4)
        for event in voided:
            await world.void(event)
        for event in order.sample(made, len(made) // 4):
            if event not in voided:
                await world.void(event, back=True)
        await world.count()
        left_out = {event.id for event in voided}
        phases = [("ph_1", MARCH, CHANGE, 500), ("ph_2", CHANGE, APRIL, 400)]
        assert await world.hourly() == world.plain(phases, ALL, left_out)
        within = {
            phase: [event for event in made if start <= event.at < end and event.id not in left_out]
            for phase, start, end, _ in phases
        }
        found = await world.units((await _subscription(world)), MARCH, APRIL)
        for (phase, _, _, below), units in zip(phases, found, strict=True):
            expected = {meter.code: plain_value(meter, within[phase], below) for meter in ALL}
            assert units == {code: value for code, value in expected.items() if value is not None}


async def _empty(world: World) -> None:
    world.store._client.command("TRUNCATE TABLE usage_events")
    world.stored.clear()
    async with world.sessions() as session, session.begin():
        for table in ("meter_hourly", "meter_periods", "meter_period_states", "usage_hours", "usage_hourly"):
            await session.execute(text(f"DELETE FROM {table}"))
        await session.execute(text("DELETE FROM touched_hours"))


async def _subscription(world: World) -> str:
    async with world.sessions() as session:
        return await session.scalar(text("SELECT id FROM subscriptions"))


class TestHours:
    async def test_without_declared_meters_are_left_alone(self, world, monkeypatch) -> None:
        await subscribed(world)
        await world.deliver(an_event(1))
        asked = []
        monkeypatch.setattr(world.store, "query", lambda *_args: asked.append(1) or [])
        await world.count()
        assert (asked, await world.hourly()) == ([], {})

    async def test_of_accounts_without_a_subscription_have_no_values(self, world) -> None:
        await world.declare(COUNT)
        await world.deliver(an_event(1))
        await world.count()
        assert await world.hourly() == {}

    async def test_are_split_at_the_millisecond_of_a_plan_change(self, world) -> None:
        await subscribed(world, change=True)
        await world.declare(COUNT, MOST)
        await world.deliver(
            an_event(1, CHANGE - MS, endpoint="GET /b", dimensions={"tokens": 9}),
            an_event(2, CHANGE, endpoint="GET /b", dimensions={"tokens": 4}),
            an_event(3, CHANGE + MS, endpoint="GET /b", status=404),  # the second plan does not bill it
        )
        await world.count()
        assert await world.hourly() == {
            ("ph_1", NOON, "calls"): 1,
            ("ph_1", NOON, "most-tokens"): 9,
            ("ph_2", NOON, "calls"): 1,
            ("ph_2", NOON, "most-tokens"): 4,
        }

    async def test_follow_a_plan_change_that_reaches_back(self, world) -> None:
        await subscribed(world)
        await world.declare(COUNT)
        await world.deliver(an_event(1), an_event(2, NOON + HOUR / 2))
        await world.count()
        async with world.sessions() as session, session.begin():
            await session.execute(
                text("UPDATE subscription_phases SET ends_at = :at WHERE id = 'ph_1'"), {"at": CHANGE}
            )
            await touch_hours(session, account_id="acc_1", start=CHANGE, end=APRIL, now=NOW)
        await world.count()
        assert await world.hourly() == {("ph_1", NOON, "calls"): 3}

    async def test_lose_their_values_with_the_last_event_that_counted(self, world) -> None:
        subscription = await subscribed(world)
        await world.declare(COUNT, USERS)
        call, report = an_event(1), a_report(1, user="ann")
        await world.deliver(call, report)
        await world.count()
        assert await world.units(subscription) == [{"calls": 3, "users": 1}]
        for event in (call, report):
            await world.void(event)
        await world.count()
        assert (await world.hourly(), await world.units(subscription)) == ({}, [{}])

    async def test_count_repeated_answers_as_they_are_billed(self, world) -> None:
        await subscribed(world)
        await world.declare(COUNT)
        repeated = {"endpoint": "GET /b", "flags": ("replayed",)}
        await world.deliver(an_event(1, endpoint="GET /b"), an_event(2, NOON + MS, **repeated))
        unmatched = an_event(3, NOON + MS, path="/never-made", **repeated)
        await world.deliver(unmatched, an_event(4, NOON + 2 * MS, path="/never-made", **repeated))
        async with world.sessions() as session, session.begin():
            await session.execute(
                text("INSERT INTO replay_hours (account_id, hour) VALUES ('acc_1', :hour)"), {"hour": NOON}
            )
        await world.count()
        assert await world.hourly() == {("ph_1", NOON, "calls"): 2}

    async def test_open_a_seal_only_for_what_a_price_counts(self, world) -> None:
        await subscribed(world, priced=["calls"])
        await world.deliver(an_event(1))
        late = NOON + 2 * HOUR
        await world.count(now=late)
        assert await world.seal(now=late) == 1
        for meter, revision in ((SUM, 1), (COUNT, 2)):
            await world.declare(meter)
            async with world.sessions() as session, session.begin():
                await touch_hours(session, account_id="acc_1", start=NOON, end=NOON + HOUR, now=late)
            await world.count(now=late)
            async with world.sessions() as session:
                hour = await session.get(UsageHour, ("acc_1", NOON))
                assert (hour.revision, hour.sealed_at is None) == (revision, revision == 2)


class TestLedger:
    async def test_holds_what_priced_meters_that_add_up_came_to(self, world) -> None:
        await subscribed(world, priced=["calls", "most-tokens"])
        await world.declare(COUNT, SUM, MOST)
        # the application reports a dimension of the meter's name, too: it is no part of what the meter comes to
        await world.deliver(an_event(1, dimensions={"tokens": 5}), a_report(1, dimensions={"calls": 7}))
        await world.count(now=NOON + 2 * HOUR)
        assert await world.seal(now=NOON + 2 * HOUR) == 1
        assert await _ledger(world) == {(1, "calls"): 3}
        await world.deliver(an_event(2))
        await world.count(now=NOON + 3 * HOUR)
        assert await world.seal(now=NOON + 3 * HOUR) == 1
        assert await _ledger(world) == {(1, "calls"): 3, (2, "calls"): 3}

    async def test_agrees_with_what_is_billable(self, world) -> None:
        subscription = await subscribed(world, priced=["calls"])
        await world.declare(COUNT)
        await world.deliver(an_event(1), a_report(1, dimensions={"calls": 7}))
        await world.count()
        assert await world.units(subscription) == [{"calls": 3}]


async def _ledger(world: World) -> dict[tuple[int, str], int]:
    async with world.sessions() as session:
        rows = await session.scalars(
            select(UsageLedger).where(UsageLedger.meter.in_([meter.code for meter in ALL]))
        )
        return {(row.revision, row.meter): row.delta_units for row in rows}


class TestPeriods:
    async def test_count_each_value_once_however_many_hours_it_is_in(self, world) -> None:
        subscription = await subscribed(world)
        await world.declare(USERS)
        await world.deliver(
            a_report(1, MARCH, user="ann"),
            a_report(2, NOON, user="ann"),
            a_report(3, NOON, user="bob"),
            a_report(4, MARCH - MS, user="eve"),
            a_report(5, NOON, user=""),
        )
        await world.count()
        assert await world.units(subscription) == [{"users": 2}]

    async def test_have_a_value_for_each_plan_version_also_if_it_ran_twice(self, world) -> None:
        first, second = await world.catalog.plan_version(), await world.catalog.plan_version()
        hour = [NOON + number * HOUR / 4 for number in range(4)]
        subscription = await world.catalog.subscription(
            ("ph_1", first, MARCH, hour[1]), ("ph_2", second, hour[1], hour[2]), ("ph_3", first, hour[2], None)
        )
        await world.declare(USERS, MOST, SEATS, COUNT)
        await world.deliver(
            *(a_report(number, at, user="ann") for number, at in enumerate(hour)),
            a_report(7, hour[3], user="bob"),
            *(an_event(number, at, dimensions={"tokens": 9 - number}) for number, at in enumerate(hour)),
            *(an_event(4 + number, at, dimensions={"seats": number}) for number, at in enumerate(hour)),
        )
        await world.count()
        units = await world.units(subscription)
        assert units == [
            {"calls": 6, "users": 2, "most-tokens": 9},
            {"calls": 6, "users": 1, "most-tokens": 8, "seats": 1},
            {"calls": 12, "seats": 3},
        ]

    @pytest.mark.parametrize("anchor_day", [28, 29, 30, 31])
    async def test_are_half_open_and_follow_the_anchor(self, anchor_day, world) -> None:
        subscription = await subscribed(world)
        async with world.sessions() as session, session.begin():
            await session.execute(
                text("UPDATE subscriptions SET anchor_at = :at, started_at = :at"),
                {"at": datetime(2026, 1, anchor_day, tzinfo=NOON.tzinfo)},
            )
            await session.execute(
                text("UPDATE subscription_phases SET starts_at = :at"),
                {"at": datetime(2026, 1, anchor_day, tzinfo=NOON.tzinfo)},
            )
        await world.declare(USERS)
        start = datetime(2026, 2, 28, tzinfo=NOON.tzinfo)  # the last day of February, whichever the anchor
        end = datetime(2026, 3, anchor_day, tzinfo=NOON.tzinfo)
        await world.deliver(
            a_report(1, start - MS, user="before"),
            a_report(2, start, user="ann"),
            a_report(3, end - MS, user="bob"),
            a_report(4, end, user="after"),
        )
        now = end + HOUR
        await world.count(now=now)
        async with world.sessions() as session:
            values = await period_values(
                session, wanted=MeterFilter(subscription_id=subscription), start=start, end=end
            )
        assert [(one.start, one.end, one.value, one.is_pending) for one in values] == [(start, end, 2, False)]

    async def test_of_hot_accounts_rest_between_counts(self, world) -> None:
        subscription = await subscribed(world)
        await world.declare(USERS)
        rests = PeriodsConfig(shortest_pause_seconds=60.0)
        await world.deliver(a_report(1, user="ann"))
        await world.count()
        await world.deliver(a_report(2, user="bob"))
        await aggregate_touched(world.sessions, world.store, now=NOW, derive=(derive_meters,))
        assert await count_due_periods(world.sessions, world.store, now=NOW, config=rests) == 1
        await world.deliver(a_report(3, user="eve"))
        await aggregate_touched(world.sessions, world.store, now=NOW, derive=(derive_meters,))
        soon, later = NOW + timedelta(seconds=59), NOW + timedelta(seconds=60)
        assert await count_due_periods(world.sessions, world.store, now=soon, config=rests) == 0
        assert await _pending(world, subscription) == [True]
        assert await count_due_periods(world.sessions, world.store, now=later, config=rests) == 1
        assert await _pending(world, subscription) == [False]
        assert await world.units(subscription) == [{"users": 3}]

    def test_pauses_grow_with_what_a_count_takes_but_not_for_ever(self) -> None:
        config = PeriodsConfig()
        seconds = [config.pause(took).total_seconds() for took in (0.0, 2.0, 3600.0)]
        assert seconds == [10.0, 40.0, 900.0]

    async def test_are_counted_again_for_an_event_that_came_while_they_were(self, world, monkeypatch) -> None:
        subscription = await subscribed(world)
        await world.declare(USERS)
        await world.deliver(a_report(1, user="ann"))
        await aggregate_touched(world.sessions, world.store, now=NOW, derive=(derive_meters,))
        read, loop = world.store.query, asyncio.get_running_loop()

        async def more() -> None:
            await world.deliver(a_report(2, user="bob"))
            await aggregate_touched(world.sessions, world.store, now=NOW, derive=(derive_meters,))

        def read_then_more(statement: str, parameters: Any) -> Any:
            rows = read(statement, parameters)
            monkeypatch.undo()
            asyncio.run_coroutine_threadsafe(more(), loop).result(30)
            return rows

        monkeypatch.setattr(world.store, "query", read_then_more)
        assert await world.count_periods() == 1
        assert await world.units(subscription) == [{"users": 1}]
        assert await _pending(world, subscription) == [True]
        assert await world.count_periods() == 1
        assert await world.units(subscription) == [{"users": 2}]

    async def test_hold_the_seal_of_their_hours_once_they_are_over(self, world) -> None:
        await subscribed(world)
        await world.declare(USERS)
        last = APRIL - HOUR
        await world.deliver(a_report(1, last, user="ann"), a_report(2, APRIL, user="bob"))
        now = APRIL + 2 * HOUR
        await aggregate_touched(world.sessions, world.store, now=now, derive=(derive_meters,))
        assert await world.seal(now=now) == 1  # the hour of the period that runs
        assert await world.count_periods(now=now) == 2
        assert await world.seal(now=now) == 1

    async def test_stand_when_their_events_may_have_expired(self, world) -> None:
        subscription = await subscribed(world)
        await world.declare(USERS)
        await world.deliver(a_report(1, user="ann"), a_report(2, user="bob"))
        await world.count()
        async with world.sessions() as session, session.begin():
            await session.execute(text("UPDATE meter_period_states SET generation = generation + 1"))
        world.store._client.command("TRUNCATE TABLE usage_events")
        assert await world.count_periods(now=MARCH + 90 * DAY) == 1
        assert await world.units(subscription) == [{"users": 2}]

    async def test_that_fail_are_put_off_and_hold_up_no_other(self, world, monkeypatch) -> None:
        await subscribed(world)
        await world.declare(USERS)
        await world.deliver(a_report(1, user="ann"), a_report(2, APRIL, user="bob"))
        await aggregate_touched(world.sessions, world.store, now=NOW, derive=(derive_meters,))
        read = world.store.query

        def fail_once(statement: str, parameters: Any) -> Any:
            monkeypatch.undo()
            raise OSError("the event store is away")

        monkeypatch.setattr(world.store, "query", fail_once)
        with pytest.raises(OSError, match="away"):
            await world.count_periods()
        assert world.store.query == read
        async with world.sessions() as session:
            states = {row.period_start: row for row in await session.scalars(select(MeterPeriodState))}
        behind = [row for row in states.values() if row.counted_generation < row.generation]
        assert len(behind) == 1
        assert behind[0].due_at > NOW
        assert await world.count_periods(now=behind[0].due_at) == 1


async def _pending(world: World, subscription: str) -> list[bool]:
    async with world.sessions() as session:
        values = await period_values(
            session, wanted=MeterFilter(subscription_id=subscription), start=MARCH, end=APRIL
        )
    return [value.is_pending for value in values]


class TestBackfills:
    async def test_come_to_what_was_counted_live(self, world) -> None:
        subscription = await subscribed(world, change=True)
        made = [an_event(n, MARCH + n * 33 * HOUR, dimensions={"tokens": n, "seats": n % 3}) for n in range(12)]
        made += [a_report(n, MARCH + n * 44 * HOUR, user=f"user-{n % 4}") for n in range(9)]
        made += [an_event(90, CHANGE - MS), an_event(91, CHANGE, status=404)]
        await world.declare(*ALL)
        await world.deliver(*made)
        await world.void(made[2])
        await world.count()
        live, units = await world.hourly(), await world.units(subscription)
        assert live == world.plain([("ph_1", MARCH, CHANGE, 500), ("ph_2", CHANGE, APRIL, 400)], ALL, {made[2].id})
        async with world.sessions() as session, session.begin():
            for table in ("meter_hourly", "meter_periods", "meter_period_states"):
                await session.execute(text(f"DELETE FROM {table}"))
        for meter in ALL:
            job = await world.backfill(meter.code, hours=4)
            assert (job.status, job.subscriptions_done, job.hours_done) == ("done", 1, len(await _hours(world)))
        assert await world.hourly() == live
        assert await world.units(subscription) == units

    async def test_begin_with_the_current_period_or_where_they_are_told_to(self, world) -> None:
        await subscribed(world)
        async with world.sessions() as session, session.begin():
            long_ago = {"at": MARCH - 60 * DAY}
            await session.execute(text("UPDATE subscription_phases SET starts_at = :at"), long_ago)
        await world.deliver(
            *(an_event(n, at) for n, at in enumerate((MARCH - 2 * HOUR, MARCH - HOUR, MARCH, NOON)))
        )
        await world.count()
        await world.declare(COUNT)
        await world.backfill("calls")
        assert {hour for _, hour, _ in await world.hourly()} == {MARCH, NOON}
        await world.backfill("calls", starts_at=MARCH - HOUR)
        assert {hour for _, hour, _ in await world.hourly()} == {MARCH - HOUR, MARCH, NOON}

    async def test_open_no_seal_where_nothing_is_priced_and_bill_what_is(self, world) -> None:
        await subscribed(world, priced=["calls"])
        await world.deliver(an_event(1))
        await world.count()
        assert await world.seal(now=NOW) == 1
        await world.declare(COUNT, SUM)
        await world.backfill("sum-tokens")
        assert await world.seal(now=NOW) == 0
        await world.backfill("calls")
        assert await world.seal(now=NOW) == 1
        assert await _ledger(world) == {(2, "calls"): 3}

    async def test_stop_and_go_on_anywhere(self, world) -> None:
        await subscribed(world)
        await world.deliver(*(an_event(n, NOON - n * HOUR) for n in range(7)))
        await world.count()
        await world.declare(COUNT)
        async with world.sessions() as session, session.begin():
            job = await start_backfill(session, code="calls", actor="test", now=NOW)
        done = []
        for _ in range(3):
            async with world.sessions() as session:  # never committed
                await take_backfill_step(session, world.store, now=NOW, hours=3)
            assert await world.step(hours=3)
            async with world.sessions() as session:
                done.append((await backfill(session, job.id)).hours_done)
        assert done == [3, 6, 7]
        while await world.step(hours=3):
            pass
        assert len(await world.hourly()) == 7

    async def test_leave_out_hours_whose_events_may_have_expired(self, world) -> None:
        await subscribed(world)
        async with world.sessions() as session, session.begin():
            await session.execute(text("UPDATE subscription_phases SET starts_at = :at"), {"at": MARCH - 60 * DAY})
        old, kept = NOW - 88 * DAY, NOW - 80 * DAY
        await world.deliver(an_event(1, old), an_event(2, kept), an_event(3))
        await world.count()
        await world.declare(COUNT)
        async with world.sessions() as session, session.begin():
            job = await start_backfill(session, code="calls", starts_at=floor_hour(old), actor="test", now=NOW)
        async with world.sessions() as session, session.begin():
            step = await take_backfill_step(session, world.store, now=NOW + 5 * DAY)
        assert step is not None
        assert (step.backfill_id, step.hours, step.skipped) == (job.id, 2, 4 * 24)

    async def test_refuse_what_cannot_be_counted(self, world) -> None:
        await subscribed(world)
        await world.declare(COUNT)
        async with world.sessions() as session, session.begin():
            for wrong in (NOON + MS, NOW + HOUR, NOW - 100 * DAY):
                with pytest.raises(ValidationFailedError, match="starts_at"):
                    await start_backfill(session, code="calls", starts_at=wrong, actor="test", now=NOW)
            await start_backfill(session, code="calls", actor="test", now=NOW)
            with pytest.raises(BackfillRunningError):
                await start_backfill(session, code="calls", actor="test", now=NOW)

    async def test_stop_when_another_meter_takes_the_place(self, world) -> None:
        subscription = await subscribed(world)
        await world.deliver(an_event(1))
        await world.declare(COUNT, USERS)
        await world.count()
        async with world.sessions() as session, session.begin():
            job = await start_backfill(session, code="calls", actor="test", now=NOW)
            await session.execute(text("DELETE FROM meters WHERE code = 'calls'"))
        while await world.step():
            pass
        async with world.sessions() as session, session.begin():
            assert (await backfill(session, job.id)).status == "stopped"
            page = await backfills(session, meter_id="mtr_calls")
            assert [one.id for one in page.items] == [job.id]
            assert await forget_replaced(session) == 1
        assert await world.hourly() == {}
        assert await world.units(subscription) == [{}]

    async def test_are_worked_off_in_the_background(self, world) -> None:
        await subscribed(world)
        await world.deliver(*(an_event(n, NOON - n * HOUR) for n in range(4)))
        await world.count()
        await world.declare(COUNT)
        async with world.sessions() as session, session.begin():
            await start_backfill(session, code="calls", actor="test", now=NOW)
        stop = asyncio.Event()
        config = MetersConfig(hours_per_step=2, look_seconds=0.01)
        worker = asyncio.create_task(
            run_meter_backfills(
                config=config, sessions=world.sessions, store=world.store, stop=stop, clock=lambda: NOW
            )
        )
        async with asyncio.timeout(30):
            while len(await world.hourly()) < 4:  # noqa: ASYNC110 - the database tells, no event does
                await asyncio.sleep(0.05)
        stop.set()
        await worker


async def _hours(world: World) -> list[UsageHour]:
    async with world.sessions() as session:
        return list(await session.scalars(select(UsageHour)))


class TestDemand:
    async def test_is_what_meters_came_to_in_the_span(self, world) -> None:
        await subscribed(world)
        await world.declare(*ALL)
        await world.deliver(
            *(an_event(n, NOON - n * DAY, dimensions={"tokens": n, "seats": n}) for n in range(3)),
            *(a_report(n, NOON - n * DAY, user=f"user-{n % 2}") for n in range(3)),
            an_event(9, NOON - 3 * DAY, dimensions={"tokens": 99}),
        )
        await world.count()
        async with world.sessions() as session:
            found = await units_of_accounts(session, ["acc_1", "acc_2"], start=NOON - 2 * DAY, end=NOW)
        expected = {"calls": 9, "sum-tokens": 3, "most-tokens": 2, "seats": 0, "users": 2, "keys": 1}
        assert found == {("acc_1", "weather"): expected}


class TestReports:
    async def test_of_hours_come_in_pages(self, world) -> None:
        await subscribed(world)
        await world.declare(COUNT, MOST)
        await world.deliver(*(an_event(n, NOON - n * HOUR, dimensions={"tokens": n}) for n in range(3)))
        await world.count()
        found, cursor = [], None
        async with world.sessions() as session:
            while True:
                page = await hour_values(
                    session, wanted=MeterFilter(account_id="acc_1"), start=MARCH, end=APRIL, cursor=cursor, limit=2
                )
                found += page.items
                cursor = page.next_cursor
                if cursor is None:
                    break
            only = await hour_values(session, wanted=MeterFilter(code="calls"), start=NOON, end=APRIL)
        assert [(row.hour, row.code, row.value) for row in found] == [
            (NOON - 2 * HOUR, "calls", 3),
            (NOON - 2 * HOUR, "most-tokens", 2),
            (NOON - HOUR, "calls", 3),
            (NOON - HOUR, "most-tokens", 1),
            (NOON, "calls", 3),
            (NOON, "most-tokens", 0),
        ]
        assert [(row.code, row.value, row.events, row.end) for row in only.items] == [("calls", 3, 1, NOON + HOUR)]
