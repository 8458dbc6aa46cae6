"""Moving many subscriptions: who is moved when, who is not and why, and what is left after a change of mind."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.billing.operations import set_spend_cap
from control_plane.billing.plan_moves.candidates import MoveScope
from control_plane.billing.plan_moves.model import MoveTime, NobodyToMoveError, NoticeTooShortError, NotOpenError
from control_plane.billing.plan_moves.operations import cancel_move, exclude_from_move, schedule_move
from control_plane.billing.plan_moves.queries import items_page, move_report, preview_move
from control_plane.billing.plan_moves.tables import PlanMoveItem
from control_plane.billing.plan_moves.worker import PlanMovesConfig, move_once
from control_plane.catalog.model import PriceTerms
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timelines import timelines
from control_plane.usage.tables import UsageHourly
from tests.control_plane.builders import (
    ACTOR,
    a_new_version,
    a_published_plan,
    a_subscription,
    an_account,
    audit_of,
)

NOV_1 = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 5, 10, 30, tzinfo=UTC)
DEC_1 = datetime(2026, 12, 1, tzinfo=UTC)
DEC_10 = datetime(2026, 12, 10, tzinfo=UTC)
JAN_1 = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SCOPE = MoveScope(from_plan="starter", to_plan="starter")
AT_PERIOD_END = MoveTime(timing="period_end", at=DEC_10, notice_days=30)
AT_DATE = MoveTime(timing="date", at=DEC_10, notice_days=30)
WORKER = PlanMovesConfig(at_once=2)


def flat(amount: str) -> PriceTerms:
    return PriceTerms(model="flat", meter=None, params={"amount": amount})


def per_unit(amount: str) -> PriceTerms:
    return PriceTerms(model="per_unit", meter="requests", params={"unit_amount": amount})


OLD = {"prices": (flat("49.00"), per_unit("0.01"))}
NEW = {"prices": (flat("59.00"), per_unit("0.005"))}


async def customers(session: AsyncSession, count: int = 1, **options) -> list[Subscription]:
    return [
        await a_subscription(session, await an_account(session, now=NOV_1, **options), now=NOV_1)
        for _ in range(count)
    ]


async def old_and_new(session: AsyncSession, count: int = 1) -> list[Subscription]:
    """Customers of the old version, and the new one on sale."""
    await a_published_plan(session, now=NOV_1, **OLD)
    found = await customers(session, count)
    await a_new_version(session, now=NOV_1, **NEW)
    return found


async def schedule(session: AsyncSession, *, when: MoveTime = AT_PERIOD_END, **options) -> str:
    move = await schedule_move(session, **{"scope": SCOPE, "when": when, "actor": ACTOR, "now": NOW, **options})
    await session.commit()
    return move.id


async def work(sessions: async_sessionmaker[AsyncSession], *, now: datetime) -> None:
    for _ in range(20):
        if not await move_once(sessions, config=WORKER, now=now):
            return
    raise AssertionError("the worker never comes to an end")


async def outcome(session: AsyncSession, move_id: str) -> dict[str, tuple[str, str]]:
    rows = await session.execute(
        select(PlanMoveItem.subscription_id, PlanMoveItem.status, PlanMoveItem.reason_code).where(
            PlanMoveItem.move_id == move_id
        )
    )
    return {row[0]: (row[1], row[2]) for row in rows}


async def versions_of(session: AsyncSession, subscription: Subscription) -> list[tuple[str, datetime]]:
    found = (await timelines(session, [subscription.id]))[subscription.id]
    return [(phase.plan_version_id, phase.starts_at) for phase in found.phases]


class TestPreview:
    async def test_says_who_would_pay_what(self, session: AsyncSession):
        (first, second) = await old_and_new(session, 2)
        session.add(
            UsageHourly(
                account_id=second.account_id,
                hour=NOV_1 + DAY,
                phase_id=second.phases[0].id,
                product="weather",
                mode="live",
                key_id="key_1",
                endpoint="GET /v1/current",
                status=200,
                outcome="served",
                calls=10_000,
                units=10_000,
                billable_calls=10_000,
                billable_units=10_000,
                bytes_in=0,
                bytes_out=0,
                latency_ms_sum=0,
                gateway_ms_sum=0,
                revision=1,
            )
        )
        await session.flush()
        found = await preview_move(session, scope=SCOPE, when=AT_PERIOD_END, now=NOW)
        costs = {
            one.subscription_id: (one.cost.month_before_minor, one.cost.month_after_minor)
            for one in found.candidates
        }
        # 49.00 + 10,000 x 0.01 before, 59.00 + 10,000 x 0.005 after
        assert costs == {first.id: (49_00, 59_00), second.id: (149_00, 109_00)}
        assert [one.subscription_id for one in found.candidates] == [second.id, first.id]
        total = found.totals["USD"]
        assert (total.recurring_before_minor, total.recurring_after_minor) == (98_00, 118_00)
        assert total.difference_minor == -30_00
        assert {one.effective_at for one in found.candidates} == {JAN_1}

    async def test_says_who_cannot_be_moved_and_why(self, session: AsyncSession):
        both = {"prices": (*OLD["prices"], *(_in_euro(price) for price in OLD["prices"]))}
        await a_published_plan(session, now=NOV_1, **both)
        await a_published_plan(session, now=NOV_1, code="growth", position=1, prices=(flat("199.00"),))
        ending, changing, capped, moved = await customers(session, 4)
        (euro,) = await customers(session, currency="EUR")
        await a_new_version(session, now=NOV_1, prices=(flat("99.00"),))
        await cancel(session, subscription_id=ending.id, at="period_end", actor=ACTOR, now=NOW)
        await change_plan(
            session, subscription_id=changing.id, plan_code="growth", effective_at=DEC_1, actor=ACTOR, now=NOW
        )
        await set_spend_cap(session, subscription_id=capped.id, amount="80.00", actor=ACTOR, now=NOW)
        found = await preview_move(session, scope=SCOPE, when=AT_DATE, now=NOW)
        reasons = {one.subscription_id: one.cannot and one.cannot.code for one in found.candidates}
        assert reasons == {
            ending.id: "subscription_ending",
            changing.id: "change_planned",
            capped.id: "spend_cap_below_fixed_charges",
            euro.id: "currency_differs",
            moved.id: None,
        }
        assert found.movable == 1

    async def test_takes_only_the_versions_asked_for(self, session: AsyncSession):
        (first,) = await old_and_new(session)
        (second,) = await customers(session)
        await a_new_version(session, now=NOV_1, prices=(flat("69.00"),))
        for versions, expected in (((), {first.id, second.id}), ((1,), {first.id}), ((2,), {second.id})):
            scope = MoveScope(from_plan="starter", from_versions=versions, to_plan="starter")
            found = await preview_move(session, scope=scope, when=AT_DATE, now=NOW)
            assert {one.subscription_id for one in found.candidates} == expected


def _in_euro(price: PriceTerms) -> PriceTerms:
    return PriceTerms(model=price.model, meter=price.meter, params=price.params, currency="EUR")


class TestMove:
    async def test_moves_each_at_its_period_end(self, session: AsyncSession, sessions):
        found = await old_and_new(session, 3)
        old = found[0].phases[0].plan_version_id
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        report = await move_report(session, move_id)
        assert (report.counts, report.move.status) == ({"planned": 3}, "scheduled")
        for one in found:
            versions = await versions_of(session, one)
            assert versions == [(old, NOV_1), (report.move.plan_version_id, JAN_1)]
        await work(sessions, now=JAN_1 - DAY)
        assert (await move_report(session, move_id)).counts == {"planned": 3}
        await work(sessions, now=JAN_1)
        session.expunge_all()
        report = await move_report(session, move_id)
        assert (report.counts, report.move.status, report.move.finished_at) == ({"moved": 3}, "done", JAN_1)

    async def test_moves_all_at_a_date(self, session: AsyncSession, sessions):
        (one,) = await old_and_new(session)
        await schedule(session, when=AT_DATE)
        await work(sessions, now=NOW)
        assert (await versions_of(session, one))[-1][1] == DEC_10

    async def test_notices_say_who_must_be_told_by_when(self, session: AsyncSession):
        (one,) = await old_and_new(session)
        move_id = await schedule(session, message="Faster, for a little more.")
        ((item, name),) = (await items_page(session, move_id, status=None, cursor=None, limit=5)).items
        assert (item.tell_by, item.told_at, name) == (JAN_1 - 30 * DAY, None, "Ada")
        assert item.notice == {
            "account_name": "Ada",
            "from_plan": "starter",
            "from_version": 1,
            "to_plan": "starter",
            "to_plan_name": "Starter",
            "to_version": 2,
            "effective_at": JAN_1.isoformat(),
            "currency": "USD",
            "recurring_before_minor": 49_00,
            "recurring_after_minor": 59_00,
            "message": "Faster, for a little more.",
        }
        report = await move_report(session, move_id)
        assert (report.to_tell, report.tell_from) == (1, JAN_1 - 30 * DAY)
        assert item.subscription_id == one.id

    async def test_refuses_a_notice_that_is_too_short(self, session: AsyncSession):
        await old_and_new(session)
        with pytest.raises(NoticeTooShortError, match="2026-12-05 10:30"):
            await schedule(session, when=MoveTime(timing="period_end", at=DEC_1, notice_days=30))
        assert await schedule(session, when=MoveTime(timing="period_end", at=DEC_1, notice_days=25))

    async def test_refuses_to_move_nobody(self, session: AsyncSession):
        (one,) = await old_and_new(session)
        await cancel(session, subscription_id=one.id, at="period_end", actor=ACTOR, now=NOW)
        with pytest.raises(NobodyToMoveError):
            await schedule(session)

    async def test_who_changes_the_plan_meanwhile_is_left_alone(self, session: AsyncSession, sessions):
        before, after = await old_and_new(session, 2)
        await a_published_plan(session, now=NOV_1, code="growth", position=1, prices=(flat("199.00"),))
        move_id = await schedule(session)
        await change_plan(session, subscription_id=before.id, plan_code="growth", actor=ACTOR, now=NOW)
        await session.commit()
        await work(sessions, now=NOW)
        await change_plan(session, subscription_id=after.id, plan_code="growth", actor=ACTOR, now=NOW + DAY)
        await session.commit()
        await work(sessions, now=JAN_1)
        assert await outcome(session, move_id) == {
            before.id: ("skipped", "changed_since"),
            after.id: ("skipped", "changed_since"),
        }
        assert len(await versions_of(session, after)) == 2

    async def test_a_spend_cap_set_meanwhile_is_kept(self, session: AsyncSession, sessions):
        (one,) = await old_and_new(session)
        move_id = await schedule(session)
        await set_spend_cap(session, subscription_id=one.id, amount="50.00", actor=ACTOR, now=NOW)
        await session.commit()
        await work(sessions, now=NOW)
        assert (await outcome(session, move_id))[one.id] == ("skipped", "spend_cap_below_fixed_charges")
        assert len(await versions_of(session, one)) == 1

    async def test_a_subscription_waits_for_one_move_only(self, session: AsyncSession):
        (one, _) = await old_and_new(session, 2)
        await schedule(session, exclude={one.id: "asked to stay"})
        second = await schedule(session)
        statuses = sorted((await outcome(session, second)).values())
        assert statuses == [("skipped", "in_another_move"), ("waiting", "")]


class TestTakingBack:
    async def test_cancelling_leaves_everybody_as_before(self, session: AsyncSession, sessions):
        found = await old_and_new(session, 3)
        move_id = await schedule(session)
        await move_once(sessions, config=WORKER, now=NOW)  # two of three are planned
        await cancel_move(session, move_id=move_id, actor=ACTOR, now=NOW)
        await session.commit()
        await work(sessions, now=NOW)
        session.expunge_all()
        report = await move_report(session, move_id)
        assert (report.counts, report.move.status) == ({"canceled": 3}, "canceled")
        assert [len(await versions_of(session, one)) for one in found] == [1, 1, 1]
        actions = [row.action for row in await audit_of(session, move_id)]
        assert actions == ["plan_move.scheduled", "plan_move.canceled"]

    async def test_who_objects_stays(self, session: AsyncSession, sessions):
        one, other = await old_and_new(session, 2)
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        objection = {"move_id": move_id, "subscription_id": one.id, "reason": "objected", "actor": ACTOR}
        await exclude_from_move(session, **objection, now=NOW + DAY)
        await session.commit()
        await work(sessions, now=JAN_1)
        assert await outcome(session, move_id) == {one.id: ("excluded", "excluded"), other.id: ("moved", "")}
        assert len(await versions_of(session, one)) == 1
        with pytest.raises(NotOpenError):
            await exclude_from_move(session, **objection, now=JAN_1)

    async def test_a_change_the_customer_planned_outlives_the_move(self, session: AsyncSession, sessions):
        (one,) = await old_and_new(session)
        await a_published_plan(session, now=NOV_1, code="growth", position=1, prices=(flat("199.00"),))
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        planned = {"plan_code": "growth", "effective_at": DEC_1, "actor": ACTOR, "now": NOW}
        await change_plan(session, subscription_id=one.id, **planned)
        await cancel_move(session, move_id=move_id, actor=ACTOR, now=NOW)
        await session.commit()
        await work(sessions, now=NOW)
        assert (await versions_of(session, one))[-1][1] == DEC_1
