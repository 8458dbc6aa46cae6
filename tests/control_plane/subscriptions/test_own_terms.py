"""Limits and spend caps of single subscriptions, and when gateways are told of a cap anew."""

from datetime import UTC, datetime, timedelta

import pytest

from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.period import BillingPeriod
from control_plane.subscriptions.advance import advance
from control_plane.subscriptions.cap_renewal import EDGE, cap_periods
from control_plane.subscriptions.model import Advanced
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.own_terms import override_limits, set_spend_cap
from control_plane.subscriptions.records import SubscriptionOverError
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timelines import timeline
from gateway_contract.records import Concurrency
from tests.control_plane.builders import (
    ACTOR,
    a_published_plan,
    a_subscription,
    an_account,
    audit_of,
    outbox_of,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
CAPPED = {"quota_units": 500, "quota_cap_units": 900, "concurrency": Concurrency(limit=20, lease_ms=60_000)}


@pytest.fixture
async def account(session, now):
    return await an_account(session, now=now)


@pytest.fixture
async def subscription(session, now, account):
    await a_published_plan(session, now=now, **CAPPED)
    await a_published_plan(session, now=now, code="growth", position=1)
    found = await a_subscription(session, account, now=now)
    await advance(session, now=now)  # the catalogue's own news
    await session.refresh(account)
    return found


class TestOverrides:
    async def test_a_quota_leaves_periods_that_are_over_as_they_were(self, session, subscription, now):
        async def give(quota_units, at):
            of = {"subscription_id": subscription.id, "actor": ACTOR, "now": at}
            await override_limits(session, quota_units=quota_units, **of)

        await give(700, now)
        await give(None, now + 40 * DAY)
        await give(800, now + 41 * DAY)
        await give(750, now + 100 * DAY)
        await give(750, now + 140 * DAY)
        found = await timeline(session, subscription.id)
        periods = [found.period_at(now + days * DAY) for days in (0, 40, 75, 100, 400)]
        assert [found.own_quota_in(period) for period in periods] == [700, 800, 800, 750, 750]

    async def test_replace_cap_and_concurrency_and_go_back(self, session, subscription, now):
        options = {"subscription_id": subscription.id, "actor": ACTOR, "now": now}
        await override_limits(session, quota_cap_units=1000, concurrency_limit=5, **options)
        assert subscription.overrides == {"quota_cap_units": 1000, "concurrency_limit": 5}
        await override_limits(session, quota_cap_units=None, concurrency_limit=None, **options)
        assert subscription.overrides == {}

    @pytest.mark.parametrize(
        ("limits", "problem"),
        [
            ({"quota_cap_units": 500}, "quota_cap_units: must be greater than the quota's 500 units"),
            (
                {"quota_units": 900},
                "quota_units: must be less than the plan's cap of 900 units, or have a cap of its own",
            ),
            ({"concurrency_limit": 0}, "concurrency_limit: must be between 1 and 100000"),
        ],
    )
    async def test_are_refused_by_field(self, session, subscription, now, limits, problem):
        with pytest.raises(ValidationFailedError) as refused:
            await override_limits(session, subscription_id=subscription.id, **limits, actor=ACTOR, now=now)
        assert str(refused.value) == problem

    async def test_a_larger_quota_may_bring_its_own_cap(self, session, subscription, now):
        options = {"subscription_id": subscription.id, "actor": ACTOR, "now": now}
        await override_limits(session, quota_units=2000, quota_cap_units=3000, **options)
        with pytest.raises(ValidationFailedError, match="quota_cap_units: is needed by this quota"):
            await override_limits(session, quota_cap_units=None, **options)

    async def test_need_a_plan_with_such_limits(self, session, subscription, now):
        await change_plan(session, subscription_id=subscription.id, plan_code="growth", actor=ACTOR, now=now)
        options = {"subscription_id": subscription.id, "actor": ACTOR, "now": now}
        with pytest.raises(ValidationFailedError, match="plan growth has no limit of calls at a time"):
            await override_limits(session, concurrency_limit=5, **options)
        with pytest.raises(ValidationFailedError, match="needs a quota with on_exceed: charge"):
            await override_limits(session, quota_cap_units=5, **options)


class TestSetSpendCap:
    async def test_is_audited_and_told_at_once(self, session, account, subscription, now):
        told, version = len(await outbox_of(session, "account.changed")), account.gateway_version
        await set_spend_cap(session, subscription_id=subscription.id, amount_minor=250_00, actor=ACTOR, now=now)
        await session.refresh(account)
        assert account.gateway_version == version + 1
        assert len(await outbox_of(session, "account.changed")) == told + 1
        row = (await audit_of(session, subscription.id))[-1]
        assert (row.action, row.actor) == ("subscription.spend_capped", ACTOR)
        assert (row.before["spend_cap_minor"], row.after["spend_cap_minor"]) == (None, 250_00)

    async def test_the_same_again_is_not_audited_again(self, session, subscription, now):
        for _ in range(2):
            await set_spend_cap(session, subscription_id=subscription.id, amount_minor=5, actor=ACTOR, now=now)
        actions = [row.action for row in await audit_of(session, subscription.id)]
        assert actions.count("subscription.spend_capped") == 1

    async def test_can_be_taken_away(self, session, subscription, now):
        for amount in (5, None):
            await set_spend_cap(
                session, subscription_id=subscription.id, amount_minor=amount, actor=ACTOR, now=now
            )
        await session.flush()
        assert (subscription.spend_cap_minor, subscription.spend_cap_due_at) == (None, None)

    async def test_of_one_that_is_over_is_refused(self, session, subscription, now):
        await cancel(session, subscription_id=subscription.id, at="now", actor=ACTOR, now=now + HOUR)
        with pytest.raises(SubscriptionOverError):
            await set_spend_cap(
                session, subscription_id=subscription.id, amount_minor=5, actor=ACTOR, now=now + HOUR
            )


class TestRenewal:
    """A cap is compiled for one period, so gateways are told of it again around each period's end."""

    async def capped(self, session, subscription, now):
        await set_spend_cap(session, subscription_id=subscription.id, amount_minor=5, actor=ACTOR, now=now)
        return BillingPeriod(
            subscription.anchor_at, subscription.anchor_at.replace(month=subscription.anchor_at.month + 1)
        )

    async def told(self, session, account, moment) -> bool:
        before = account.gateway_version
        await advance(session, now=moment)
        await session.refresh(account)
        return account.gateway_version > before

    async def test_happens_on_both_sides_of_a_periods_end_once_each(self, session, account, subscription, now):
        period = await self.capped(session, subscription, now)
        second = timedelta(seconds=1)
        moments = {
            period.end - EDGE - second: False,
            period.end - EDGE: True,
            period.end - second: False,
            period.end + EDGE - second: False,
            period.end + EDGE: True,
            period.end + DAY: False,
        }
        found = {moment: await self.told(session, account, moment) for moment in moments}
        assert found == moments

    async def test_is_counted(self, session, subscription, now):
        period = await self.capped(session, subscription, now)
        assert await advance(session, now=period.end - EDGE) == Advanced(0, 0, 0, 1)
        assert await advance(session, now=period.end - EDGE) == Advanced(0, 0, 0, 0)

    async def test_that_came_late_is_done_at_once_and_once(self, session, account, subscription, now):
        period = await self.capped(session, subscription, now)
        assert await self.told(session, account, period.end + 3 * DAY)
        assert not await self.told(session, account, period.end + 3 * DAY)

    async def test_of_a_cap_set_just_after_a_period_began_does_not_wait_for_its_end(
        self, session, subscription, now
    ):
        period = await self.capped(session, subscription, now)
        moment = period.end + timedelta(minutes=1)
        await set_spend_cap(session, subscription_id=subscription.id, amount_minor=6, actor=ACTOR, now=moment)
        assert subscription.spend_cap_due_at == period.end + EDGE

    async def test_follows_a_change_of_plan_at_ever_longer_intervals(self, session, account, subscription, now):
        await self.capped(session, subscription, now)
        changed_at = now + DAY
        await change_plan(
            session, subscription_id=subscription.id, plan_code="growth", actor=ACTOR, now=changed_at
        )
        times = []
        while (due := subscription.spend_cap_due_at) < changed_at + 12 * HOUR:
            times.append((due - changed_at).total_seconds())
            assert await self.told(session, account, due)
        pauses = [after - before for before, after in zip([0, *times], times, strict=False)]
        assert times[0] == pytest.approx(2, abs=0.01)
        assert pauses == sorted(pauses)
        assert 10 < len(times) < 50

    async def test_does_not_happen_without_a_cap(self, session, account, subscription, now):
        assert not await self.told(session, account, now + 40 * DAY)

    async def test_ends_with_the_subscription(self, session, account, subscription, now):
        await self.capped(session, subscription, now)
        await cancel(session, subscription_id=subscription.id, at="now", actor=ACTOR, now=now + HOUR)
        assert not await self.told(session, account, now + 60 * DAY)

    def test_both_periods_count_around_the_end_of_one(self):
        held = Subscription(anchor_at=datetime(2026, 1, 1, tzinfo=UTC), interval="month", time_zone="UTC")
        second = timedelta(seconds=1)
        february, march = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)

        def starts(moment):
            return [period.start for period in cap_periods(held, moment)]

        assert starts(march - EDGE - second) == [february]
        assert starts(march - EDGE) == [february, march]
        assert starts(march + EDGE - second) == [february, march]
        assert starts(march + EDGE) == [march]
