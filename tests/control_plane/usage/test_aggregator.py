"""Hours are recomputed whole: what ends in the rollup, and what concurrent events and workers cannot spoil."""

# ruff: noqa: PLR0917 - fixtures are arguments

import asyncio
import time
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import to_ms
from control_plane.usage.model import HourKey
from control_plane.usage.operations import touch_hours
from control_plane.usage.rollups.aggregator import AggregatorConfig, aggregate_touched, run_aggregator
from control_plane.usage.rollups.pace import Lane, Pace, shared_costs
from control_plane.usage.tables import TouchedHour, UsageHour, UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

Sessions = async_sessionmaker[AsyncSession]
MINUTE = timedelta(minutes=1)
LONG_AGO = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


async def rows(sessions: Sessions) -> list[UsageHourly]:
    async with sessions() as session:
        return list(await session.scalars(select(UsageHourly).order_by(UsageHourly.hour, UsageHourly.phase_id)))


async def total(sessions: Sessions, column: str) -> int:
    async with sessions() as session:
        return await session.scalar(text(f"SELECT coalesce(sum({column}), 0) FROM usage_hourly"))


async def hour(sessions: Sessions, account: str, at: datetime) -> UsageHour | None:
    async with sessions() as session:
        return await session.get(UsageHour, (account, at))


class TestAggregating:
    async def test_adds_up_what_calls_report(self, gateway, collect, aggregate, sessions, noon):
        await gateway.ship(gateway.calls(3, units=5, tokens=7))
        await collect()
        await aggregate()
        (row,) = await rows(sessions)
        assert (row.account_id, row.hour, row.phase_id, row.product) == ("acc_1", noon, "", "weather")
        assert (row.endpoint, row.status, row.outcome, row.mode) == (
            "GET /weather/v1/current/{city}",
            200,
            "served",
            "live",
        )
        assert (row.calls, row.units, row.billable_calls, row.billable_units) == (3, 15, 3, 15)
        assert (row.bytes_in, row.bytes_out, row.latency_ms_sum, row.gateway_ms_sum) == (900, 3600, 36, 6)
        assert (row.dimensions, row.billable_dimensions) == ({"tokens": 21}, {"tokens": 21})
        found = await hour(sessions, "acc_1", noon)
        assert found is not None
        assert (found.revision, row.revision) == (1, 1)

    async def test_clears_the_marks(self, gateway, collect, aggregate, sessions, noon):
        for account in range(5):
            await gateway.ship(gateway.calls(2, account=f"acc_{account}"))
        await collect()
        assert await aggregate() == 5
        assert await aggregate() == 0
        async with sessions() as session:
            assert (await session.scalars(select(TouchedHour))).all() == []

    @pytest.mark.parametrize(
        "not_billed",
        [
            {"mode": Mode.TEST},
            {"outcome": Outcome.RATE_LIMITED, "status": 429},
            {"outcome": Outcome.QUOTA_EXCEEDED, "status": 429},
            {"outcome": Outcome.NOT_ENTITLED, "status": 403},
            {"status": 500},
            {"status": 503},
        ],
    )
    async def test_counts_test_refused_and_failed_calls_but_never_bills_them(
        self, not_billed, gateway, collect, aggregate, sessions
    ):
        await gateway.ship(gateway.calls(4, tokens=3, **not_billed) + gateway.calls(1))
        await collect()
        await aggregate()
        assert await total(sessions, "calls") == 5
        assert await total(sessions, "billable_calls") == 1
        assert await total(sessions, "billable_units") == 1
        assert all(row.billable_dimensions == {} for row in await rows(sessions))

    async def test_never_bills_calls_of_nobody(self, gateway, collect, aggregate, sessions):
        (made,) = gateway.calls(1)
        await gateway.ship([made.line() | {"ru": "", "ra": ""}])
        await collect()
        await aggregate()
        (row,) = await rows(sessions)
        assert (row.account_id, row.outcome, row.calls, row.billable_calls) == ("", "unattributed", 1, 0)

    async def test_a_late_event_lands_in_its_hour_as_a_revision(self, gateway, collect, aggregate, sessions, noon):
        await gateway.ship(gateway.calls(2))
        await collect()
        await aggregate()
        await gateway.ship(gateway.calls(1, at=noon + timedelta(minutes=59)))
        await collect(now=noon + timedelta(days=2))
        await aggregate()
        (row,) = await rows(sessions)
        assert (row.hour, row.calls, row.revision) == (noon, 3, 2)

    async def test_a_redelivery_that_changes_nothing_makes_no_revision(
        self, gateway, collect, aggregate, sessions, noon
    ):
        calls = gateway.calls(2, tokens=4)
        for _ in range(2):
            await gateway.ship(calls)
            await collect()
            assert await aggregate() == 1
        found = await hour(sessions, "acc_1", noon)
        assert found is not None
        assert found.revision == 1

    async def test_many_hours_take_several_passes(self, gateway, collect, sessions, store, noon):
        calls = [gateway.calls(1, at=noon - timedelta(hours=number))[0] for number in range(7)]
        await gateway.ship(calls)
        await collect()
        done = [await aggregate_touched(sessions, store, now=noon, limit=3) for _ in range(4)]
        assert done == [3, 3, 1, 0]
        assert await total(sessions, "calls") == 7


class TestRaces:
    async def test_an_event_that_arrives_after_the_read_leaves_the_mark(
        self, gateway, collect, aggregate, sessions, store, monkeypatch, noon
    ):
        await gateway.ship(gateway.calls(2))
        await collect()
        read, loop = store.hour_figures, asyncio.get_running_loop()

        async def more() -> None:
            await gateway.ship(gateway.calls(3))
            await collect()

        def read_then_more(hours, **kw):
            figures = read(hours, **kw)
            if hours:
                asyncio.run_coroutine_threadsafe(more(), loop).result(30)
            return figures

        monkeypatch.setattr(store, "hour_figures", read_then_more)
        assert await aggregate_touched(sessions, store, now=noon) == 1
        monkeypatch.undo()
        async with sessions() as session:
            mark = await session.get(TouchedHour, ("acc_1", noon))
        assert mark is not None
        assert mark.generation == 2
        assert await total(sessions, "calls") == 2
        await aggregate()
        assert await total(sessions, "calls") == 5

    async def test_two_aggregators_never_work_on_the_same_hour(
        self, gateway, collect, sessions, store, monkeypatch, noon
    ):
        await gateway.ship([call for number in range(6) for call in gateway.calls(1, account=f"acc_{number}")])
        await collect()
        read, loop = store.hour_figures, asyncio.get_running_loop()
        seen = []

        def read_beside_another(hours, **kw):
            if hours and not seen:
                seen.append(set(hours))
                other = aggregate_touched(sessions, store, now=noon, limit=4)
                seen.append(asyncio.run_coroutine_threadsafe(other, loop).result(30))
            elif hours:
                seen.append(set(hours))
            return read(hours, **kw)

        monkeypatch.setattr(store, "hour_figures", read_beside_another)
        assert await aggregate_touched(sessions, store, now=noon, limit=4) == 4
        first, second, done_by_other = seen
        assert first.isdisjoint(second)
        assert done_by_other == 2
        assert await total(sessions, "calls") == 6

    async def test_a_crash_before_the_commit_leaves_everything_to_do(
        self, gateway, collect, aggregate, sessions, store, monkeypatch, noon
    ):
        await gateway.ship(gateway.calls(2))
        await collect()

        def die(*_args, **_kw):
            raise OSError("the event store is away")

        with monkeypatch.context() as patch:
            patch.setattr(store, "hour_figures", die)
            with pytest.raises(OSError, match="away"):
                await aggregate_touched(sessions, store, now=noon)
        assert await aggregate() == 1
        assert await total(sessions, "calls") == 2

    async def test_an_hour_that_cannot_be_read_holds_up_no_other(
        self, gateway, collect, sessions, store, monkeypatch, noon
    ):
        await gateway.ship(gateway.calls(1, account="acc_bad"))
        await collect()
        await gateway.ship([call for n in range(5) for call in gateway.calls(1, account=f"acc_{n}")])
        await collect()
        read, stop = store.hour_figures, asyncio.Event()

        def read_but_one(hours, **more):
            if any(key.account_id == "acc_bad" for key in hours):
                raise OSError("memory limit exceeded")
            return read(hours, **more)

        monkeypatch.setattr(store, "hour_figures", read_but_one)
        config = AggregatorConfig(hours_per_pass=6, pause_seconds=0.01)
        running = asyncio.create_task(
            run_aggregator(
                config=config, sessions=sessions, store=store, stop=stop, clock=lambda: noon + timedelta(hours=1)
            )
        )
        try:
            async with asyncio.timeout(30):
                while await total(sessions, "calls") < 5:  # noqa: ASYNC110 - the database tells nobody
                    await asyncio.sleep(0.05)
        finally:
            stop.set()
            await running
        async with sessions() as session:
            assert [mark.account_id for mark in await session.scalars(select(TouchedHour))] == ["acc_bad"]


class TestDerived:
    async def test_is_told_of_every_hour_and_of_those_that_changed(
        self, gateway, collect, aggregate, sessions, store, noon
    ):
        told = []

        async def derive(session, _store, recomputed):
            told.append((recomputed.hours, recomputed.changed))
            assert await session.scalar(text("SELECT count(*) FROM usage_hourly")) == 2
            return ()

        first = gateway.calls(1)
        await gateway.ship(first)
        await collect()
        await aggregate()
        await gateway.ship(first + gateway.calls(1, account="acc_2"))
        await collect()
        await aggregate_touched(sessions, store, now=noon, derive=[derive])
        hours = [("acc_1", to_ms(noon)), ("acc_2", to_ms(noon))]
        assert [([*hours], [*changed]) for hours, changed in told] == [(hours, hours[1:])]

    async def test_opens_an_hour_whose_derived_figures_changed_alone(
        self, gateway, collect, aggregate, sessions, store, noon
    ):
        async def derive(_session, _store, recomputed):
            return recomputed.hours

        calls = gateway.calls(1)
        await gateway.ship(calls)
        await collect()
        await aggregate_touched(sessions, store, now=noon, derive=[derive])
        found = await hour(sessions, "acc_1", noon)
        assert found is not None
        assert found.revision == 1  # its rows changed, too: one revision for both
        async with sessions() as session, session.begin():
            await session.execute(text("UPDATE usage_hours SET sealed_at = now()"))
        await gateway.ship(calls)
        await collect()
        await aggregate_touched(sessions, store, now=noon, derive=[derive])
        found = await hour(sessions, "acc_1", noon)
        assert found is not None
        assert (found.revision, found.sealed_at) == (2, None)


class TestPace:
    """One account's hour takes long: it rests in proportion, and others do not wait for it."""

    PACE = Pace(rest_factor=1000, heavy_ms=30)

    @pytest.fixture
    async def slow(self, gateway, collect, sessions, store, monkeypatch, noon):
        """Counts a hot account's hour slowly, then ships more for it; returns what works off marks."""
        read = store.hour_figures

        def read_slowly(hours, **more):
            if any(key.account_id == "acc_hot" for key in hours):
                time.sleep(0.05)
            return read(hours, **more)

        monkeypatch.setattr(store, "hour_figures", read_slowly)

        async def work(now: datetime, lane: Lane = Lane.ALL) -> int:
            return await aggregate_touched(sessions, store, now=now, pace=self.PACE, lane=lane)

        await gateway.ship(gateway.calls(3, account="acc_hot"))
        await collect()
        assert await work(noon + 10 * MINUTE) == 1
        await gateway.ship(gateway.calls(1, account="acc_hot") + gateway.calls(1, account="acc_calm"))
        await collect()
        return work

    async def test_a_heavy_hour_rests_while_others_go_on(self, slow, sessions, noon):
        assert await slow(noon + 10 * MINUTE) == 1
        assert await total(sessions, "calls") == 4
        async with sessions() as session:
            assert [mark.account_id for mark in await session.scalars(select(TouchedHour))] == ["acc_hot"]
        assert await slow(noon + 12 * MINUTE) == 1
        assert await total(sessions, "calls") == 5

    async def test_rests_no_longer_once_the_hour_can_be_sealed(self, slow, collect, gateway, sessions, noon):
        closed = noon + timedelta(hours=1, seconds=120)
        async with sessions() as session, session.begin():
            await session.execute(text("UPDATE usage_hours SET recompute_after = :far"), {"far": closed + MINUTE})
        assert await slow(closed - timedelta(milliseconds=1)) == 1
        assert await slow(closed) == 1
        # what comes later still does not make it busy
        await gateway.ship(gateway.calls(1, account="acc_hot"))
        await collect()
        assert await slow(closed) == 0
        assert await slow(closed + 2 * MINUTE) == 1

    async def test_heavy_hours_have_a_lane_of_their_own(self, slow, noon):
        assert await slow(noon + 20 * MINUTE, Lane.LIGHT) == 1
        assert await slow(noon + 20 * MINUTE, Lane.LIGHT) == 0
        assert await slow(noon + 20 * MINUTE, Lane.HEAVY) == 1

    def test_costs_are_shared_by_numbers_of_events(self):
        hours = [HourKey("acc_1", 0), HourKey("acc_2", 0), HourKey("acc_3", 0)]
        costs = shared_costs(hours, {hours[0]: 999_000, hours[1]: 1_000}, took_ms=2_000)
        assert costs == {hours[0]: 1_998, hours[1]: 2, hours[2]: 0}
        assert shared_costs(hours, {}, took_ms=50) == dict.fromkeys(hours, 0)

    def test_rest_grows_with_the_cost_up_to_a_bound(self):
        pace = Pace()
        assert [pace.rest(ms).total_seconds() for ms in (19, 20, 1_000, 6_000, 60_000)] == [0, 0.2, 10, 60, 60]


class TestPhases:
    @pytest.fixture
    async def plans(self, catalog) -> tuple[str, str]:
        await catalog.account()
        await catalog.product()
        return await catalog.plan_version(), await catalog.plan_version(billable_statuses={"below": 600})

    async def test_an_hour_that_holds_a_change_of_plan_is_split_at_its_millisecond(
        self, gateway, collect, aggregate, sessions, catalog, plans, noon
    ):
        change = noon + timedelta(minutes=20, milliseconds=250)
        await catalog.subscription(("ph_1", plans[0], LONG_AGO, change), ("ph_2", plans[1], change, None))
        await gateway.ship(gateway.calls(3, at=change - timedelta(milliseconds=2)) + gateway.calls(4, at=noon))
        await collect()
        await aggregate()
        found = {row.phase_id: row.calls for row in await rows(sessions)}
        # 2 ms and 1 ms before belong to the old phase, the moment itself to the new one
        assert found == {"ph_1": 6, "ph_2": 1}

    async def test_each_phase_bills_the_statuses_of_its_plan_version(
        self, gateway, collect, aggregate, sessions, catalog, plans, noon
    ):
        change = noon + timedelta(minutes=20)
        await catalog.subscription(("ph_1", plans[0], LONG_AGO, change), ("ph_2", plans[1], change, None))
        await gateway.ship(gateway.calls(2, status=502) + gateway.calls(3, at=change, status=502))
        await collect()
        await aggregate()
        assert {row.phase_id: row.billable_calls for row in await rows(sessions)} == {"ph_1": 0, "ph_2": 3}

    async def test_calls_before_between_and_after_subscriptions_are_counted_without_phase(
        self, gateway, collect, aggregate, sessions, catalog, plans, noon
    ):
        start, end = noon + timedelta(minutes=10), noon + timedelta(minutes=30)
        await catalog.subscription(("ph_1", plans[0], start, end))
        for minute, count in ((5, 1), (10, 2), (29, 4), (30, 8), (70, 16)):
            await gateway.ship(gateway.calls(count, at=noon + timedelta(minutes=minute)))
        await collect()
        await aggregate()
        found = {(row.hour.hour, row.phase_id): row.calls for row in await rows(sessions)}
        assert found == {(12, ""): 9, (12, "ph_1"): 6, (13, ""): 16}

    async def test_products_are_split_at_their_own_changes_only(
        self, gateway, collect, aggregate, sessions, catalog, plans, noon
    ):
        await catalog.product("maps")
        maps = await catalog.plan_version("maps")
        change = noon + timedelta(minutes=30)
        await catalog.subscription(("ph_1", plans[0], LONG_AGO, change), ("ph_2", plans[1], change, None))
        await catalog.subscription(("ph_maps", maps, LONG_AGO, None), product="maps")
        for minute in (10, 40):
            at = noon + timedelta(minutes=minute)
            await gateway.ship(gateway.calls(1, at=at) + gateway.calls(1, at=at, product="maps"))
        await collect()
        await aggregate()
        assert {row.phase_id: row.calls for row in await rows(sessions)} == {"ph_1": 1, "ph_2": 1, "ph_maps": 2}

    async def test_a_change_that_reaches_back_is_taken_in_when_its_hours_are_touched(
        self, gateway, collect, aggregate, sessions, catalog, plans, noon
    ):
        for ago in range(4):
            await gateway.ship(gateway.calls(1, at=noon - timedelta(hours=ago)))
        await collect()
        await aggregate()
        await catalog.subscription(("ph_1", plans[0], noon - timedelta(hours=2), None))
        async with sessions() as session, session.begin():
            touched = await touch_hours(
                session,
                account_id="acc_1",
                start=noon - timedelta(hours=2),
                end=noon + timedelta(milliseconds=1),
                now=noon,
            )
        assert touched == 3
        assert await aggregate() == 3
        assert [row.phase_id for row in await rows(sessions)] == ["", "ph_1", "ph_1", "ph_1"]
