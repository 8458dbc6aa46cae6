"""Subscribing, changing plans, cancelling: phases without gap or overlap, each change told and written down."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from control_plane.accounts.operations import suspend_account
from control_plane.catalog import queries as catalog
from control_plane.catalog.currencies import CurrencyDiffersError
from control_plane.catalog.operations import archive_plan
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.subscriptions import queries
from control_plane.subscriptions.advance import advance
from control_plane.subscriptions.model import OVER, TRANSITIONS, Status, TransitionRefusedError, check_transition
from control_plane.subscriptions.offers import (
    IntervalDiffersError,
    PlanNotOnSaleError,
    PlanUnlistedError,
    ProductDiffersError,
)
from control_plane.subscriptions.operations import (
    AlreadySubscribedError,
    cancel,
    change_plan,
    subscribe,
    withdraw_cancellation,
)
from control_plane.subscriptions.own_terms import override_limits
from control_plane.subscriptions.records import SubscriptionOverError
from control_plane.subscriptions.statuses import change_status
from control_plane.subscriptions.tables import SubscriptionPhase
from gateway_contract.records import Window
from tests.control_plane.builders import (
    ACTOR,
    a_new_version,
    a_published_plan,
    a_subscription,
    an_account,
    audit_of,
    outbox_of,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def plans_of(session, subscription) -> list[tuple[str, datetime, datetime | None]]:
    """Phases as they stand in the database: plan code, start, end."""
    await session.commit()
    await session.refresh(subscription, ["phases"])
    versions = await catalog.plan_versions(session, [phase.plan_version_id for phase in subscription.phases])
    return [
        (versions[phase.plan_version_id].plan.code, phase.starts_at, phase.ends_at)
        for phase in subscription.phases
    ]


@pytest.fixture
async def account(session, now):
    await a_published_plan(session, now=now, code="starter")
    await a_published_plan(session, now=now, code="growth", position=1)
    await a_published_plan(session, now=now, code="scale", position=2)
    return await an_account(session, now=now)


@pytest.fixture
async def subscription(session, account, now):
    return await a_subscription(session, account, now=now)


class TestSubscribe:
    async def test_opens_one_phase_on_the_version_on_sale(self, session, account, now):
        version = account.gateway_version
        subscription = await a_subscription(session, account, now=now)
        assert (subscription.status, subscription.interval, subscription.started_at) == ("active", "month", now)
        assert await plans_of(session, subscription) == [("starter", now, None)]
        assert account.gateway_version == version + 1
        assert (await outbox_of(session, "account.changed"))[-1] == account.id
        (row,) = await audit_of(session, subscription.id)
        assert (row.action, row.before) == ("subscription.started", None)

    async def test_follows_one_that_has_ended_before_a_worker_saw_it(self, session, account, subscription, now):
        await cancel(session, subscription_id=subscription.id, at="period_end", actor=ACTOR, now=now)
        end = subscription.ends_at
        with pytest.raises(AlreadySubscribedError):
            await a_subscription(session, account, now=end - timedelta(milliseconds=1))
        second = await a_subscription(session, account, now=end)
        assert (subscription.status, subscription.ends_at, second.started_at) == ("ended", end, end)
        assert (await audit_of(session, subscription.id))[-1].action == "subscription.ended"
        done = await advance(session, now=end)
        assert (done.phases_begun, done.subscriptions_ended) == (0, 0)

    async def test_periods_begin_on_a_full_hour(self, session, subscription, now):
        assert subscription.anchor_at == datetime(2026, 3, 17, 10, tzinfo=UTC)
        current, following = queries.current_and_next_period(subscription, now)
        assert (current.start, current.end) == (subscription.anchor_at, datetime(2026, 4, 17, 10, tzinfo=UTC))
        assert following.end == datetime(2026, 5, 17, 10, tzinfo=UTC)

    async def test_the_anchor_can_be_chosen(self, session, account, now):
        first = datetime(2026, 3, 1, tzinfo=UTC)
        subscription = await a_subscription(session, account, now=now, anchor_at=first)
        assert queries.current_and_next_period(subscription, now)[0].end == datetime(2026, 4, 1, tzinfo=UTC)

    @pytest.mark.parametrize(
        "anchor_at",
        [
            datetime(2026, 3, 1, 0, 30, tzinfo=UTC),
            datetime(2026, 3, 1),  # noqa: DTZ001 - the point
            # no clock of a zone goes there
            datetime(9999, 12, 31, 23, tzinfo=UTC),
        ],
    )
    async def test_refuses_an_anchor_that_is_no_full_hour_or_far_away(self, session, account, now, anchor_at):
        with pytest.raises(ValidationFailedError) as refused:
            await a_subscription(session, account, now=now, anchor_at=anchor_at)
        assert refused.value.field == "anchor_at"

    async def test_can_be_cancelled_by_a_server_whose_clock_is_behind(self, session, subscription, now):
        of = {"subscription_id": subscription.id, "actor": ACTOR}
        await cancel(session, at="now", **of, now=now - timedelta(milliseconds=1))
        assert (subscription.status, subscription.ends_at) == ("canceled", now)
        assert await plans_of(session, subscription) == []

    async def test_cuts_moments_to_the_gateways_milliseconds(self, session, account, now):
        subscription = await a_subscription(session, account, now=now + timedelta(microseconds=999))
        assert subscription.phases[0].starts_at == subscription.started_at == now

    async def test_one_live_subscription_for_each_product(self, session, account, subscription, now):
        with pytest.raises(AlreadySubscribedError, match=subscription.id):
            await a_subscription(session, account, now=now, plan="growth")
        await a_published_plan(session, now=now, code="maps-basic", product="maps")
        await a_subscription(session, account, now=now, plan="maps-basic")
        assert len(await queries.live_subscriptions(session, account.id)) == 2

    async def test_of_many_at_once_one_wins(self, sessions, session, account, now):
        await session.commit()

        async def run():
            async with sessions() as own, own.begin():
                return (await a_subscription(own, account, now=now)).id

        outcomes = await asyncio.gather(*(run() for _ in range(5)), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["AlreadySubscribedError"] * 4 + ["str"]

    async def test_again_after_the_end(self, session, account, subscription, now):
        await cancel(session, subscription_id=subscription.id, at="now", actor=ACTOR, now=now + HOUR)
        again = await a_subscription(session, account, now=now + HOUR)
        assert again.id != subscription.id
        assert (await queries.live_subscription(session, account.id, "weather")).id == again.id

    async def test_a_suspended_account_may_subscribe(self, session, account, now):
        await suspend_account(session, account_id=account.id, actor=ACTOR, now=now)
        assert (await a_subscription(session, account, now=now)).status == "active"

    @pytest.mark.parametrize("options", [{"visibility": "hidden"}, {"by_quote": True}], ids=["hidden", "by quote"])
    async def test_unlisted_plans_need_an_administrators_word(self, session, account, now, options):
        await a_published_plan(session, now=now, code="deal", position=9, **options)
        with pytest.raises(PlanUnlistedError):
            await a_subscription(session, account, now=now, plan="deal")
        allowed = await a_subscription(session, account, now=now, plan="deal", allow_unlisted=True)
        assert allowed.status == "active"

    async def test_an_archived_plan_is_not_sold_to_anybody(self, session, account, now):
        await archive_plan(session, code="starter", actor=ACTOR, now=now)
        with pytest.raises(PlanNotOnSaleError):
            await a_subscription(session, account, now=now, allow_unlisted=True)

    async def test_plan_and_account_share_a_currency(self, session, account, now):
        european = await an_account(session, now=now, currency="EUR")
        with pytest.raises(CurrencyDiffersError):
            await a_subscription(session, european, now=now)

    async def test_names_what_is_not_there(self, session, account, now):
        for options in (
            {"account_id": "acc_x", "plan_code": "starter"},
            {"account_id": account.id, "plan_code": "x"},
        ):
            with pytest.raises(NotFoundError):
                await subscribe(session, **options, actor=ACTOR, now=now)


class TestChangePlan:
    async def change(self, session, subscription, plan, now, effective_at=None):
        return await change_plan(
            session,
            subscription_id=subscription.id,
            plan_code=plan,
            effective_at=effective_at,
            actor=ACTOR,
            now=now,
        )

    async def test_now_splits_at_the_moment(self, session, subscription, now):
        await self.change(session, subscription, "growth", now + DAY)
        assert await plans_of(session, subscription) == [("starter", now, now + DAY), ("growth", now + DAY, None)]

    async def test_later_waits_until_it_is_told(self, session, subscription, now):
        await self.change(session, subscription, "growth", now, effective_at=now + DAY)
        assert await plans_of(session, subscription) == [("starter", now, now + DAY), ("growth", now + DAY, None)]
        assert [phase.applied_at for phase in subscription.phases] == [now, None]
        assert queries.phase_at(subscription, now + DAY - timedelta(milliseconds=1)) is subscription.phases[0]
        assert queries.phase_at(subscription, now + DAY) is subscription.phases[1]
        assert queries.phase_at(subscription, now - HOUR) is None

    async def test_replaces_changes_that_were_planned_for_later(self, session, subscription, now):
        await self.change(session, subscription, "growth", now, effective_at=now + 5 * DAY)
        await self.change(session, subscription, "scale", now, effective_at=now + 2 * DAY)
        assert await plans_of(session, subscription) == [
            ("starter", now, now + 2 * DAY),
            ("scale", now + 2 * DAY, None),
        ]
        await self.change(session, subscription, "starter", now + DAY)
        assert await plans_of(session, subscription) == [("starter", now, None)]

    async def test_adds_to_changes_that_were_planned_for_earlier(self, session, subscription, now):
        await self.change(session, subscription, "growth", now, effective_at=now + 2 * DAY)
        await self.change(session, subscription, "scale", now, effective_at=now + 5 * DAY)
        assert [code for code, _, _ in await plans_of(session, subscription)] == ["starter", "growth", "scale"]

    async def test_twice_in_the_same_millisecond_keeps_the_second(self, session, subscription, now):
        await self.change(session, subscription, "growth", now)
        assert await plans_of(session, subscription) == [("growth", now, None)]

    async def test_to_the_same_plan_takes_its_newest_version(self, session, subscription, now):
        newest = await a_new_version(session, now=now, quota_units=77)
        assert subscription.phases[0].plan_version_id != newest.id
        await self.change(session, subscription, "starter", now + HOUR)
        assert subscription.phases[-1].plan_version_id == newest.id

    async def test_keeps_the_end_of_a_cancelled_subscription(self, session, subscription, now):
        await cancel(session, subscription_id=subscription.id, at="period_end", actor=ACTOR, now=now)
        end = datetime(2026, 4, 17, 10, tzinfo=UTC)
        await self.change(session, subscription, "growth", now + DAY)
        assert await plans_of(session, subscription) == [("starter", now, now + DAY), ("growth", now + DAY, end)]
        with pytest.raises(ValidationFailedError):
            await self.change(session, subscription, "scale", now + DAY, effective_at=end)

    async def test_refuses_the_past(self, session, subscription, now):
        with pytest.raises(ValidationFailedError) as refused:
            await self.change(session, subscription, "growth", now, effective_at=now - HOUR)
        assert refused.value.field == "effective_at"

    async def test_refuses_other_products_and_intervals(self, session, subscription, now):
        await a_published_plan(session, now=now, code="maps-basic", product="maps")
        await a_published_plan(session, now=now, code="yearly", position=8, interval="year")
        with pytest.raises(ProductDiffersError):
            await self.change(session, subscription, "maps-basic", now)
        with pytest.raises(IntervalDiffersError):
            await self.change(session, subscription, "yearly", now)

    async def test_raises_the_accounts_version_each_time(self, session, account, subscription, now):
        before = account.gateway_version
        for plan in ("growth", "scale"):
            await self.change(session, subscription, plan, now + HOUR)
        assert account.gateway_version == before + 2
        rows = await audit_of(session, subscription.id)
        assert [len(row.after["phases"]) for row in rows] == [1, 2, 2]

    async def test_changes_at_once_leave_one_chain(self, sessions, session, subscription, now):
        await session.commit()

        async def run(number):
            async with sessions() as own, own.begin():
                plan = ("starter", "growth", "scale")[number % 3]
                await self.change(own, subscription, plan, now, effective_at=now + number * HOUR)

        await asyncio.gather(*(run(number) for number in range(1, 10)))
        phases = await plans_of(session, subscription)
        assert phases[-1][2] is None
        assert all(one[2] == other[1] for one, other in itertools.pairwise(phases))


class TestPhasesInTheDatabase:
    async def add(self, session, subscription, starts_at, ends_at=None):
        like = subscription.phases[0]
        session.add(
            SubscriptionPhase(
                id=new_id("ph"),
                subscription_id=subscription.id,
                plan_version_id=like.plan_version_id,
                starts_at=starts_at,
                ends_at=ends_at,
            )
        )
        await session.flush()

    async def test_only_one_is_open(self, session, subscription, now):
        with pytest.raises(IntegrityError, match="uq_subscription_phases_open"):
            await self.add(session, subscription, now + DAY)

    @pytest.mark.parametrize("start", [DAY - HOUR, DAY + HOUR], ids=["overlap", "gap"])
    async def test_neither_gap_nor_overlap_is_committed(self, session, subscription, now, start):
        await session.commit()
        subscription.phases[0].ends_at = now + DAY
        await self.add(session, subscription, now + start)
        with pytest.raises(IntegrityError, match="gap or an overlap"):
            await session.commit()

    async def test_removing_one_from_the_middle_is_not_committed(self, session, subscription, now):
        for days in (1, 2):
            options = {"plan_code": ("growth", "scale")[days - 1], "effective_at": now + days * DAY}
            await change_plan(session, subscription_id=subscription.id, **options, actor=ACTOR, now=now)
        await session.commit()
        await session.delete(subscription.phases[1])
        with pytest.raises(IntegrityError, match="gap or an overlap"):
            await session.commit()


class TestCancel:
    async def test_now_ends_it_at_once(self, session, account, subscription, now):
        await cancel(session, subscription_id=subscription.id, at="now", actor=ACTOR, now=now + DAY)
        assert (subscription.status, subscription.ends_at) == ("canceled", now + DAY)
        assert await plans_of(session, subscription) == [("starter", now, now + DAY)]
        assert await queries.live_subscription(session, account.id, "weather") is None

    async def test_at_period_end_runs_on_until_then_and_drops_later_plans(
        self, session, account, subscription, now
    ):
        end = datetime(2026, 4, 17, 10, tzinfo=UTC)
        await change_plan(
            session, subscription_id=subscription.id, plan_code="growth", effective_at=end, actor=ACTOR, now=now
        )
        await cancel(session, subscription_id=subscription.id, at="period_end", actor=ACTOR, now=now + DAY)
        assert (subscription.status, subscription.canceled_at, subscription.ends_at) == ("active", now + DAY, end)
        assert await plans_of(session, subscription) == [("starter", now, end)]
        assert len(queries.current_and_next_period(subscription, now)) == 1

    async def test_to_the_same_end_again_changes_nothing(self, session, subscription, now):
        for hours in (0, 1):
            at = now + hours * HOUR
            await cancel(session, subscription_id=subscription.id, at="period_end", actor=ACTOR, now=at)
        assert subscription.canceled_at == now
        assert len(await audit_of(session, subscription.id)) == 2

    async def test_can_be_hastened_and_withdrawn(self, session, subscription, now):
        await cancel(session, subscription_id=subscription.id, at="period_end", actor=ACTOR, now=now)
        await withdraw_cancellation(session, subscription_id=subscription.id, actor=ACTOR, now=now + HOUR)
        assert (subscription.canceled_at, subscription.ends_at) == (None, None)
        assert await plans_of(session, subscription) == [("starter", now, None)]
        await cancel(session, subscription_id=subscription.id, at="period_end", actor=ACTOR, now=now)
        await cancel(session, subscription_id=subscription.id, at="now", actor=ACTOR, now=now + DAY)
        assert await plans_of(session, subscription) == [("starter", now, now + DAY)]

    async def test_in_the_millisecond_of_its_start_leaves_no_phase(self, session, subscription, now):
        await cancel(session, subscription_id=subscription.id, at="now", actor=ACTOR, now=now)
        assert await plans_of(session, subscription) == []

    async def test_what_is_over_stays_over(self, session, subscription, now):
        await cancel(session, subscription_id=subscription.id, at="now", actor=ACTOR, now=now + DAY)
        options = {"subscription_id": subscription.id, "actor": ACTOR, "now": now + 2 * DAY}
        for attempt in (
            cancel(session, at="now", **options),
            withdraw_cancellation(session, **options),
            change_plan(session, plan_code="growth", **options),
            change_status(session, status="paused", **options),
            override_limits(session, quota_units=5, **options),
        ):
            with pytest.raises(SubscriptionOverError):
                await attempt

    async def test_nothing_changes_between_the_end_and_its_being_noted(self, session, subscription, now):
        await cancel(session, subscription_id=subscription.id, at="period_end", actor=ACTOR, now=now)
        with pytest.raises(SubscriptionOverError):
            await withdraw_cancellation(
                session, subscription_id=subscription.id, actor=ACTOR, now=subscription.ends_at
            )


class TestStatus:
    def test_every_step_is_in_the_table_or_refused(self):
        for before in Status:
            for after in Status:
                if after in TRANSITIONS[before]:
                    assert check_transition(before, after) is after
                else:
                    with pytest.raises(TransitionRefusedError):
                        check_transition(before, after)

    def test_nothing_leads_out_of_what_is_over(self):
        assert all(not TRANSITIONS[status] for status in OVER)
        assert set(TRANSITIONS) == set(Status)

    async def test_a_failed_payment_and_its_recovery(self, session, account, subscription, now):
        before = account.gateway_version
        for status in ("past_due", "past_due", "active"):
            await change_status(
                session, subscription_id=subscription.id, status=status, actor="stripe", now=now + HOUR
            )
        assert subscription.status == "active"
        assert [row.action for row in await audit_of(session, subscription.id)] == [
            "subscription.started",
            "subscription.past_due",
            "subscription.active",
        ]
        assert account.gateway_version > before

    async def test_the_database_knows_no_other_word(self, session, subscription):
        subscription.status = "asleep"
        with pytest.raises(IntegrityError, match="ck_subscriptions_status"):
            await session.flush()


class TestOverrideLimits:
    async def test_takes_the_plans_place_and_gives_it_back(self, session, subscription, now):
        options = {"subscription_id": subscription.id, "actor": ACTOR, "now": now + HOUR}
        await override_limits(session, windows=[Window(7, 1_000)], quota_units=9, **options)
        assert subscription.overrides == {"windows": [{"limit": 7, "window_ms": 1_000}], "quota_units": 9}
        await override_limits(session, windows=None, **options)
        assert subscription.overrides == {"quota_units": 9}

    @pytest.mark.parametrize(
        ("field", "limits"),
        [("quota_units", {"quota_units": 0}), ("windows[0].limit", {"windows": [Window(0, 1_000)]})],
    )
    async def test_refuses_by_field(self, session, subscription, now, field, limits):
        with pytest.raises(ValidationFailedError) as refused:
            await override_limits(session, subscription_id=subscription.id, **limits, actor=ACTOR, now=now)
        assert refused.value.field == field


class TestPhasesForHours:
    async def test_gives_every_phase_that_touches_a_span_once(self, session, account, subscription, now):
        await change_plan(session, subscription_id=subscription.id, plan_code="growth", actor=ACTOR, now=now + DAY)
        await cancel(session, subscription_id=subscription.id, at="now", actor=ACTOR, now=now + 2 * DAY)
        other = await an_account(session, now=now)
        await a_subscription(session, other, now=now)

        async def spans(*hours):
            found = await queries.phases_for_hours(session, [(account.id, now + a, now + b) for a, b in hours])
            return [(phase.product_code, phase.starts_at - now) for phase in found]

        first, second = ("weather", timedelta(0)), ("weather", DAY)
        assert await spans((-HOUR, timedelta(0))) == []
        assert await spans((-HOUR, timedelta(milliseconds=1))) == [first]
        assert await spans((DAY - HOUR, DAY)) == [first]
        assert await spans((DAY - HOUR, DAY + HOUR), (DAY, DAY + HOUR)) == [first, second]
        assert await spans((DAY, 9 * DAY)) == [second]
        assert await spans((2 * DAY, 9 * DAY)) == []
        assert await spans() == []
