"""Voids and amendments: what they change, what they may not, and that all of it can be taken back."""

# ruff: noqa: PLR0917 - fixtures are arguments

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.gateway_sync.usage_reads import hour_usage
from control_plane.usage.corrections.amending import (
    AmendedPlace,
    ReferenceTakenError,
    amend_hour,
    withdraw_amendment,
)
from control_plane.usage.corrections.amounts import BelowZeroError
from control_plane.usage.corrections.hours import HourTooOldError
from control_plane.usage.corrections.queries import list_amendments, list_voids, voided_events
from control_plane.usage.corrections.voiding import void_event, withdraw_void
from control_plane.usage.daily.retention import HourlyRetentionConfig, drop_old_hours
from control_plane.usage.daily.rollup import DailyConfig, roll_up_days
from control_plane.usage.operations import touch_hours
from control_plane.usage.queries import billable_units
from control_plane.usage.requests.history import event_search
from control_plane.usage.rollups import metrics
from control_plane.usage.rollups.aggregator import aggregate_touched
from control_plane.usage.rollups.sealing import SealingConfig, seal_hours
from control_plane.usage.summary import GroupBy, usage_summary

Sessions = async_sessionmaker[AsyncSession]
HOUR = timedelta(hours=1)
LATER = timedelta(days=200)
AS = {"reason": "ticket 4711", "actor": "token:tok_1"}


@dataclass
class Desk:
    """Corrects usage of acc_1 at noon, each time in a transaction of its own."""

    sessions: Sessions
    store: Any
    noon: datetime

    @property
    def now(self) -> datetime:
        return self.noon + 3 * HOUR

    async def void(self, event_id: str, **more: Any) -> Any:
        given = {"account_id": "acc_1", "hour": self.noon, "event_id": event_id, "now": self.now, **AS, **more}
        async with self.sessions() as session, session.begin():
            return await void_event(session, self.store, **given)

    async def unvoid(self, void_id: str, **more: Any) -> Any:
        async with self.sessions() as session, session.begin():
            return await withdraw_void(session, void_id=void_id, **({"now": self.now} | AS | more))

    async def amend(self, *, hour: datetime | None = None, phase_id: str | None = None, **more: Any) -> Any:
        place = AmendedPlace(
            account_id="acc_1", hour=hour or self.noon, product="weather", phase_id=phase_id, key_id="key_1"
        )
        async with self.sessions() as session, session.begin():
            return await amend_hour(session, place=place, **({"now": self.now} | AS | more))

    async def unamend(self, amendment_id: str, **more: Any) -> Any:
        given = {"amendment_id": amendment_id, "now": self.now} | AS | more
        async with self.sessions() as session, session.begin():
            return await withdraw_amendment(session, **given)

    async def billable(self) -> dict[str, int]:
        """Return what is billed of the subscription, as invoices read it."""
        async with self.sessions() as session:
            subscription = await session.scalar(text("SELECT id FROM subscriptions"))
            span = {"start": self.noon - 9 * HOUR, "end": self.noon + 9 * HOUR}
            phases = await billable_units(session, subscription_id=subscription, **span)
        found = {"calls": sum(phase.calls for phase in phases)}
        for phase in phases:
            for meter, units in phase.units.items():
                found[meter] = found.get(meter, 0) + units
        return {meter: found[meter] for meter in ("calls", "requests", "tokens") if meter in found}

    async def deltas(self) -> list[tuple[int, str, int]]:
        async with self.sessions() as session:
            rows = await session.execute(
                text(
                    "SELECT revision, meter, delta_units FROM usage_ledger "
                    "WHERE meter IN ('requests', 'tokens') ORDER BY 1, 2"
                )
            )
            return [tuple(row) for row in rows]


@pytest.fixture
async def desk(sessions, store, catalog, noon) -> Desk:
    await catalog.account()
    await catalog.product(unit_headers={"tokens": "x-tokens"})
    version = await catalog.plan_version()
    await catalog.subscription(("ph_1", version, noon - 24 * HOUR, None))
    return Desk(sessions, store, noon)


@pytest.fixture
def shipped(gateway, collect, aggregate, noon) -> Callable[..., Any]:
    """Ships calls and counts them; returns them."""

    async def shipped(count: int, **kind: Any) -> list[Any]:
        calls = gateway.calls(count, **kind)
        await gateway.ship(calls, shipped_up_to=noon + 9 * HOUR)
        await collect()
        await aggregate(now=noon + 3 * HOUR)
        return calls

    return shipped


@pytest.fixture
def seal(sessions, aggregate, desk) -> Callable[..., Any]:
    async def seal() -> None:
        await aggregate(now=desk.now)
        async with sessions() as session, session.begin():
            await seal_hours(session, config=SealingConfig(), now=desk.now)

    return seal


class TestVoiding:
    async def test_the_event_counts_nothing_and_stays_in_the_history(self, shipped, desk, seal, store, noon):
        first, _ = await shipped(2, units=3, tokens=7)
        await seal()
        void = await desk.void(first.receipt.event_id)
        await seal()
        assert await desk.billable() == {"calls": 1, "requests": 3, "tokens": 7}
        assert await desk.deltas() == [
            (1, "requests", 6), (1, "tokens", 14), (2, "requests", -3), (2, "tokens", -7)
        ]  # fmt: skip
        page = await event_search(store, account_id="acc_1", start=noon, end=noon + HOUR)
        ids = [event.event_id for event in page.items]
        assert first.receipt.event_id in ids
        async with desk.sessions() as session:
            found = await voided_events(session, account_id="acc_1", event_ids=ids)
            assert {event_id: row.id for event_id, row in found.items()} == {first.receipt.event_id: void.id}

    async def test_is_taken_back_by_another_row(self, shipped, desk, seal):
        first, _ = await shipped(2)
        void = await desk.void(first.receipt.event_id)
        assert (await desk.void(first.receipt.event_id)).id == void.id
        await seal()
        assert (await desk.billable())["calls"] == 1
        done = [await desk.unvoid(void.id), await desk.unvoid(void.id, reason="again")]
        assert [record.withdrawal.reason for record in done] == ["ticket 4711", "ticket 4711"]
        await seal()
        assert (await desk.billable())["calls"] == 2
        # and can be voided once more
        assert (await desk.void(first.receipt.event_id)).id != void.id

    async def test_leaves_audit_rows(self, shipped, desk):
        (only,) = await shipped(1)
        void = await desk.void(only.receipt.event_id)
        await desk.unvoid(void.id)
        async with desk.sessions() as session:
            rows = await session.execute(
                text("SELECT action, actor, entity_id FROM audit_log WHERE entity_type = 'usage_void' ORDER BY id")
            )
            assert [tuple(row) for row in rows] == [
                ("usage_void.made", "token:tok_1", void.id),
                ("usage_void.withdrawn", "token:tok_1", void.id),
            ]

    async def test_refuses_what_is_no_event_of_that_hour_and_account(self, shipped, desk, catalog, noon):
        (only,) = await shipped(1)
        await catalog.account("acc_2")
        for wrong in ({"event_id": "testemitter-999"}, {"hour": noon - HOUR}, {"account_id": "acc_2"}):
            with pytest.raises(NotFoundError):
                await desk.void(**{"event_id": only.receipt.event_id, **wrong})
        for wrong in (
            {"hour": noon + HOUR / 2},
            {"hour": noon + 9 * HOUR},
            {"reason": " "},
            {"reason": "x" * 1001},
        ):
            with pytest.raises(ValidationFailedError):
                await desk.void(only.receipt.event_id, **wrong)

    async def test_refuses_an_hour_that_is_not_counted_again(self, shipped, desk, noon):
        (only,) = await shipped(1)
        void = await desk.void(only.receipt.event_id)
        with pytest.raises(HourTooOldError):
            await desk.void("testemitter-999", now=noon + LATER)
        with pytest.raises(HourTooOldError):
            await desk.unvoid(void.id, now=noon + LATER)

    async def test_of_an_original_bills_no_replay_in_its_place(self, shipped, desk, seal):
        (original,) = await shipped(1)
        await shipped(2, replayed="true")
        await desk.void(original.receipt.event_id)
        await seal()
        assert (await desk.billable())["calls"] == 0

    async def test_of_a_replay_that_is_billed_takes_it_alone(self, shipped, desk, seal):
        unmatched, _ = await shipped(2, replayed="true", tokens=4)
        assert (await desk.billable())["calls"] == 1
        await desk.void(unmatched.receipt.event_id)
        await seal()
        assert await desk.billable() == {"calls": 0, "requests": 0}
        async with desk.sessions() as session:
            assert await session.scalar(text("SELECT sum(calls) FROM usage_hourly")) == 1


class TestAmending:
    async def test_adds_to_what_is_billable_and_stands_apart(self, shipped, desk, seal, sessions, noon):
        await shipped(4, tokens=10)
        await seal()
        amendment = await desk.amend(calls=-1, meters={"requests": -1, "tokens": -15})
        await seal()
        assert await desk.billable() == {"calls": 3, "requests": 3, "tokens": 25}
        assert (await desk.deltas())[2:] == [(2, "requests", -1), (2, "tokens", -15)]
        async with sessions() as session:
            counted, amended = await usage_summary(
                session, account_id="acc_1", start=noon, end=noon + HOUR, group_by=[GroupBy.AMENDMENT]
            )
            assert (counted.by, counted.billable_calls) == ({"amendment": ""}, 4)
            assert (amended.by, amended.billable_calls) == ({"amendment": amendment.id}, -1)
            assert (amended.dimensions, amended.billable_dimensions) == ({"tokens": -15}, {"tokens": -15})
            # the gateway gets back what was taken, and has admitted what it has
            usage = await hour_usage(session, ["acc_1"], start=noon, end=noon + HOUR)
        assert [(line.key_id, line.admitted_calls, line.billed_units) for line in usage] == [("key_1", 4, 3)]

    async def test_never_takes_more_than_there_is(self, shipped, desk, seal):
        await shipped(4)
        await desk.amend(calls=-3, meters={"requests": -3})
        # what waits to be applied counts, too
        with pytest.raises(BelowZeroError, match="has 1 billable calls"):
            await desk.amend(calls=-2)
        with pytest.raises(BelowZeroError, match="has 0 units of tokens"):
            await desk.amend(meters={"tokens": -1})
        await seal()
        with pytest.raises(BelowZeroError, match="has 1 units of requests"):
            await desk.amend(meters={"requests": -2})
        await desk.amend(meters={"requests": -1})
        await seal()
        assert (await desk.billable())["requests"] == 0

    async def test_is_taken_back_unless_others_need_it(self, shipped, desk, seal):
        await shipped(1)
        more = await desk.amend(meters={"requests": 5})
        less = await desk.amend(meters={"requests": -6})
        await seal()
        assert (await desk.billable())["requests"] == 0
        with pytest.raises(BelowZeroError):
            await desk.unamend(more.id)
        await desk.unamend(less.id)
        await desk.unamend(more.id)
        assert (await desk.unamend(more.id, reason="again")).withdrawal.reason == "ticket 4711"
        await seal()
        assert (await desk.billable())["requests"] == 1

    async def test_takes_less_where_a_void_took_it_first(self, shipped, desk, seal):
        first, _ = await shipped(2, tokens=10)
        await desk.amend(meters={"tokens": -15})
        before = metrics.AMENDMENTS_CLAMPED._value.get()
        await desk.void(first.receipt.event_id)
        await seal()
        assert await desk.billable() == {"calls": 1, "requests": 1, "tokens": 0}
        assert metrics.AMENDMENTS_CLAMPED._value.get() == before + 1
        await desk.unvoid((await desk.void(first.receipt.event_id)).id)
        await seal()
        assert (await desk.billable())["tokens"] == 5

    async def test_bills_an_hour_without_usage(self, desk, seal, gateway, collect, noon):
        await gateway.heartbeat(noon + 9 * HOUR)
        await collect()
        await desk.amend(hour=noon - 2 * HOUR, calls=2, meters={"requests": 20})
        await seal()
        assert await desk.billable() == {"calls": 2, "requests": 20}
        assert await desk.deltas() == [(1, "requests", 20)]

    async def test_a_reference_is_amended_once(self, shipped, desk):
        await shipped(4)
        once = [await desk.amend(calls=-1, reference="D-1") for _ in range(3)]
        assert len({row.id for row in once}) == 1
        with pytest.raises(ReferenceTakenError):
            await desk.amend(calls=-2, reference="D-1")

    async def test_refuses_what_nothing_counts(self, shipped, desk, catalog, noon):
        await shipped(1)
        version = await catalog.plan_version()
        async with desk.sessions() as session, session.begin():
            half = noon + HOUR / 2
            await session.execute(text("UPDATE subscription_phases SET ends_at = :half"), {"half": half})
            await session.execute(
                text(
                    "INSERT INTO subscription_phases (id, subscription_id, plan_version_id, starts_at) "
                    "SELECT 'ph_2', id, :version, :half FROM subscriptions"
                ),
                {"version": version, "half": half},
            )
        wrong: tuple[tuple[dict[str, Any], str], ...] = (
            ({"phase_id": "ph_1", "meters": {"tokenz": 1}}, "meters.tokenz"),
            ({"phase_id": "ph_1", "meters": {"": 1}}, "meters."),
            ({"phase_id": "ph_1", "meters": {"tokens": 0}}, "meters"),
            ({"phase_id": "ph_1", "calls": 10**12 + 1}, "calls"),
            ({"calls": 1}, "phase_id"),
            ({"phase_id": "ph_3", "calls": 1}, "phase_id"),
            ({"hour": noon - 30 * HOUR, "calls": 1}, "hour"),
            ({"hour": noon + 9 * HOUR, "calls": 1}, "hour"),
        )
        for given, field in wrong:
            with pytest.raises(ValidationFailedError) as caught:
                await desk.amend(**given)
            assert caught.value.field == field

    async def test_of_an_old_hour_stands_on_the_figures_that_stand(
        self, shipped, desk, seal, sessions, store, monkeypatch, noon
    ):
        await shipped(4)
        await seal()

        def gone(*_arguments: Any, **_more: Any) -> None:
            raise AssertionError("its events have expired")

        amendment = await desk.amend(calls=-1, meters={"requests": -1}, now=noon + LATER)
        with monkeypatch.context() as patch:
            patch.setattr(store, "query", gone)
            read = store.hour_figures
            patch.setattr(store, "hour_figures", lambda hours, **more: gone() if hours else read(hours, **more))
            assert await aggregate_touched(sessions, store, now=noon + LATER) == 1
        async with sessions() as session, session.begin():
            await session.execute(text("UPDATE shippers SET shipped_up_to_ms = 4000000000000"))
            await seal_hours(session, config=SealingConfig(), now=noon + LATER)
        assert await desk.billable() == {"calls": 3, "requests": 3}
        assert (await desk.deltas())[1:] == [(2, "requests", -1)]
        await desk.unamend(amendment.id, now=noon + LATER)
        assert await aggregate_touched(sessions, store, now=noon + LATER) == 1
        assert await desk.billable() == {"calls": 4, "requests": 4}


async def waits_for_a_lock(sessions: Sessions) -> None:
    """Return once somebody waits; each look is a transaction, which would see the same as long as it lasts."""
    waiting = """SELECT count(*) FROM pg_stat_activity, pg_sleep(0.02)
        WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    found = 0
    async with asyncio.timeout(30):
        while not found:
            async with sessions() as session:
                found = await session.scalar(text(waiting))


class TestRecords:
    async def test_are_never_changed(self, shipped, desk, sessions):
        (only,) = await shipped(1)
        await desk.unvoid((await desk.void(only.receipt.event_id)).id)
        await desk.amend(calls=1)
        for table in ("usage_voids", "usage_amendments", "usage_withdrawals"):
            for statement in (f"UPDATE {table} SET reason = 'x'", f"DELETE FROM {table}"):
                with pytest.raises(DBAPIError, match="never changed"):
                    async with sessions() as session, session.begin():
                        await session.execute(text(statement))

    async def test_are_listed_page_by_page_the_last_one_first(self, shipped, desk, sessions, noon):
        calls = await shipped(5)
        made = [await desk.void(call.receipt.event_id) for call in calls]
        await desk.unvoid(made[0].id)
        amended = [await desk.amend(calls=1) for _ in range(3)]
        found, cursor = [], None
        async with sessions() as session:
            while True:
                page = await list_voids(session, account_id="acc_1", hour=noon, cursor=cursor, limit=2)
                found += page.items
                if (cursor := page.next_cursor) is None:
                    break
            assert [record.void.id for record in found] == [void.id for void in reversed(made)]
            assert [record.withdrawal is None for record in found] == [True] * 4 + [False]
            page = await list_amendments(session, account_id="acc_1")
            assert [record.amendment.id for record in page.items] == [row.id for row in reversed(amended)]
            assert (await list_amendments(session, hour=noon - HOUR)).items == ()

    async def test_of_an_unknown_id_there_are_none(self, desk):
        for take_back in (desk.unvoid, desk.unamend):
            with pytest.raises(NotFoundError):
                await take_back("nothing")

    async def test_of_hours_kept_by_day_stand_with_the_rest(self, shipped, desk, seal, sessions, store, noon):
        """Without the hour's rows its amendments are not its figures: the ledger would take back all else."""
        await shipped(3)
        await desk.amend(calls=2, meters={"requests": 2})
        await seal()
        before, much_later = await desk.deltas(), noon + timedelta(days=500)
        async with sessions() as session, session.begin():
            await roll_up_days(session, config=DailyConfig(), now=much_later)
            assert await drop_old_hours(session, config=HourlyRetentionConfig(), now=much_later) == 1
        async with sessions() as session, session.begin():
            await touch_hours(session, account_id="acc_1", start=noon, end=noon + HOUR, now=much_later)
        assert await aggregate_touched(sessions, store, now=much_later) == 1
        async with sessions() as session, session.begin():
            await session.execute(text("UPDATE shippers SET shipped_up_to_ms = 4000000000000"))
            await seal_hours(session, config=SealingConfig(), now=much_later)
            assert await session.scalar(text("SELECT count(*) FROM usage_hourly")) == 0
            assert await session.scalar(text("SELECT count(*) FROM touched_hours")) == 0
        assert await desk.deltas() == before

    async def test_wait_for_the_day_that_is_losing_its_hours(self, desk, sessions, noon):
        """An hour without usage has no row that dropping could lock: the day's row is what both look at."""
        day = {"day": noon.replace(hour=0)}
        async with sessions() as session, session.begin():
            insert = "INSERT INTO usage_days (account_id, day, rolled_up_at) VALUES ('acc_1', :day, :day)"
            await session.execute(text(insert), day)
        async with sessions() as session, session.begin():
            await session.execute(text("UPDATE usage_days SET hours_dropped_at = :day"), day)
            amending = asyncio.create_task(desk.amend(calls=1))
            await waits_for_a_lock(sessions)
        with pytest.raises(ConflictError, match="only the day's figures"):
            await amending

    async def test_keep_their_hour_whatever_becomes_of_its_row(self, desk, sessions, noon):
        """An old hour without figures loses its row to the aggregator, while a correction waits for it."""
        async with sessions() as session, session.begin():
            insert = "INSERT INTO usage_hours (account_id, hour) VALUES ('acc_1', :hour)"
            await session.execute(text(insert), {"hour": noon})
        async with sessions() as session, session.begin():
            await session.execute(text("SELECT 1 FROM usage_hours FOR UPDATE"))
            amending = asyncio.create_task(desk.amend(calls=1))
            await waits_for_a_lock(sessions)
            await session.execute(text("DELETE FROM usage_hours"))
        await amending
        async with sessions() as session:
            assert await session.scalar(text("SELECT count(*) FROM touched_hours")) == 1

    async def test_of_hours_kept_by_day_are_refused(self, shipped, desk, sessions, noon):
        await shipped(1)
        async with sessions() as session, session.begin():
            await session.execute(
                text(
                    "INSERT INTO usage_days (account_id, day, rolled_up_at, hours_dropped_at) "
                    "VALUES ('acc_1', :day, :day, :day)"
                ),
                {"day": noon.replace(hour=0)},
            )
        with pytest.raises(ConflictError, match="only the day's figures"):
            await desk.amend(calls=1)
