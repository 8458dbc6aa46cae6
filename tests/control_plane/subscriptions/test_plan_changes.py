"""More begins at once, less when the billing period ends; what is planned can be taken back."""

from datetime import timedelta

import pytest

from control_plane.catalog.tables import PlanVersion, Price
from control_plane.foundation.errors import ValidationFailedError
from control_plane.subscriptions.advance import advance
from control_plane.subscriptions.offers import BillingDiffersError, PlanIsAddOnError
from control_plane.subscriptions.operations import cancel, change_plan, withdraw_cancellation
from control_plane.subscriptions.plan_changes import SubscriptionEndingError, change, discard_change, gives_more
from control_plane.subscriptions.statuses import pause, resume
from tests.control_plane.builders import (
    ACTOR,
    a_published_plan,
    a_subscription,
    an_account,
    audit_of,
    outbox_of,
)
from tests.control_plane.subscriptions.showing import at, commitment, flat, phases_of

DAY = timedelta(days=1)
PERIOD_END = at("2026-04-17T10:00")


@pytest.fixture
async def account(session, now):
    await a_published_plan(session, now=now, code="starter", quota_units=1_000)
    await a_published_plan(session, now=now, code="growth", position=1, prices=(flat("199"),), quota_units=500)
    await a_published_plan(session, now=now, code="small", position=2, prices=(flat("9"),), quota_units=5_000)
    return await an_account(session, now=now)


@pytest.fixture
async def subscription(session, account, now):
    return await a_subscription(session, account, now=now)


def a_version(*, by_quote=False, quota_units=None, prices=()):
    return PlanVersion(
        currency="USD",
        by_quote=by_quote,
        quota_units=quota_units,
        prices=[
            Price(model=price.model, params=price.params, currency=price.currency or "USD") for price in prices
        ],
    )


def of(subscription, now):
    return {"subscription_id": subscription.id, "actor": ACTOR, "now": now}


class TestChange:
    async def test_to_a_dearer_plan_is_now(self, session, subscription, now):
        changed = await change(session, plan_code="growth", **of(subscription, now + DAY))
        assert (changed.at, changed.effective_at) == ("now", now + DAY)
        assert await phases_of(session, subscription) == [
            ("starter", "paid", now, now + DAY),
            ("growth", "paid", now + DAY, None),
        ]

    async def test_to_a_cheaper_plan_waits_for_the_period_to_end(self, session, subscription, now):
        changed = await change(session, plan_code="small", **of(subscription, now + DAY))
        assert (changed.at, changed.effective_at) == ("period_end", PERIOD_END)
        assert await phases_of(session, subscription) == [
            ("starter", "paid", now, PERIOD_END),
            ("small", "paid", PERIOD_END, None),
        ]
        told = len(await outbox_of(session, "subscription.changed"))
        await advance(session, now=PERIOD_END)
        assert (await outbox_of(session, "subscription.changed"))[told:] == [subscription.id]

    async def test_at_the_moment_that_is_asked_for(self, session, subscription, now):
        assert (await change(session, plan_code="small", at="now", **of(subscription, now))).at == "now"
        later = await change(session, plan_code="growth", at="period_end", **of(subscription, now))
        assert later.effective_at == PERIOD_END

    async def test_to_the_version_in_force_takes_a_planned_one_back(self, session, subscription, now):
        await change(session, plan_code="small", **of(subscription, now))
        assert (await change(session, plan_code="starter", **of(subscription, now + DAY))).at == "now"
        assert await phases_of(session, subscription) == [("starter", "paid", now, None)]

    async def test_of_a_paused_one_leaves_it_paused(self, session, subscription, now):
        await pause(session, **of(subscription, now + DAY))
        await change(session, plan_code="growth", **of(subscription, now + 2 * DAY))
        assert (await phases_of(session, subscription))[-1] == ("growth", "paused", now + 2 * DAY, None)

    async def test_tells_billing_and_the_gateway(self, session, account, subscription, now):
        version, told = account.gateway_version, len(await outbox_of(session, "subscription.changed"))
        await change(session, plan_code="growth", **of(subscription, now + DAY))
        assert (await outbox_of(session, "subscription.changed"))[told:] == [subscription.id]
        assert account.gateway_version == version + 1

    async def test_is_refused_where_the_subscription_ends_before(self, session, subscription, now):
        await cancel(session, at="period_end", **of(subscription, now))
        with pytest.raises(SubscriptionEndingError, match="ends on 2026-04-17") as refused:
            await change(session, plan_code="small", **of(subscription, now + DAY))
        assert refused.value.code == "subscription_ending"
        await change(session, plan_code="growth", **of(subscription, now + DAY))
        assert (await phases_of(session, subscription))[-1] == ("growth", "paid", now + DAY, PERIOD_END)

    async def test_to_an_add_on_is_refused(self, session, account, subscription, now):
        await a_published_plan(session, now=now, code="extra", position=3, kind="add_on")
        for attempt in (
            change(session, plan_code="extra", **of(subscription, now)),
            change_plan(session, plan_code="extra", **of(subscription, now)),
            a_subscription(session, account, now=now, plan="extra"),
        ):
            with pytest.raises(PlanIsAddOnError) as refused:
                await attempt
            assert refused.value.code == "plan_is_add_on"

    async def test_from_our_invoices_to_stripes_is_refused(self, session, subscription, now):
        await a_published_plan(session, now=now, code="by-stripe", position=3, billed_by="stripe")
        with pytest.raises(BillingDiffersError, match="billed by Stripe") as refused:
            await change(session, plan_code="by-stripe", **of(subscription, now))
        assert refused.value.code == "billing_differs"


class TestDiscardChange:
    async def test_takes_back_what_is_planned(self, session, subscription, now):
        await change(session, plan_code="small", **of(subscription, now))
        await discard_change(session, **of(subscription, now + DAY))
        assert await phases_of(session, subscription) == [("starter", "paid", now, None)]
        assert (await advance(session, now=PERIOD_END)).phases_begun == 0

    async def test_keeps_an_end_that_is_set(self, session, subscription, now):
        await cancel(session, at="period_end", **of(subscription, now))
        await change_plan(session, plan_code="small", effective_at=now + 3 * DAY, **of(subscription, now))
        await discard_change(session, **of(subscription, now + DAY))
        assert await phases_of(session, subscription) == [("starter", "paid", now, PERIOD_END)]

    async def test_without_one_changes_nothing(self, session, subscription, now):
        for _ in range(2):
            await discard_change(session, **of(subscription, now + DAY))
        assert len(await audit_of(session, subscription.id)) == 1

    async def test_is_too_late_once_it_has_begun(self, session, subscription, now):
        await change(session, plan_code="small", **of(subscription, now))
        await discard_change(session, **of(subscription, PERIOD_END))
        assert (await phases_of(session, subscription))[-1] == ("small", "paid", PERIOD_END, None)


class TestGivesMore:
    @pytest.mark.parametrize(
        ("terms", "than", "more"),
        [
            ({"prices": (flat("10"),)}, {"prices": (flat("9.99"),)}, True),
            ({"prices": (flat("9.99"),)}, {"prices": (flat("10"),)}, False),
            ({"prices": (flat("10"),)}, {"prices": (flat("10.00"),)}, False),
            ({"prices": (flat("10"),), "quota_units": 2}, {"prices": (flat("10"),), "quota_units": 1}, True),
            ({"prices": (flat("10"),), "quota_units": 1}, {"prices": (flat("10"),), "quota_units": 2}, False),
            ({"prices": (flat("10"),)}, {"prices": (flat("10"),), "quota_units": 2}, True),
            ({"prices": (flat("10"),), "quota_units": 2}, {"prices": (flat("10"),)}, False),
            ({"prices": (flat("9"),), "quota_units": 2}, {"prices": (flat("10"),), "quota_units": 1}, False),
            # a commitment is what a period costs at least: beside flat prices, or with them
            ({"prices": (flat("10"), commitment("5", "usage"))}, {"prices": (flat("14"),)}, True),
            ({"prices": (flat("10"), commitment("5", "all"))}, {"prices": (flat("10.50"),)}, False),
            ({"prices": (flat("10"), commitment("12", "all"))}, {"prices": (flat("10.50"),)}, True),
            # what is agreed upon apart
            ({"by_quote": True}, {"prices": (flat("10"),)}, True),
            ({"prices": (flat("10"),)}, {"by_quote": True}, False),
            # in the account's currency
            ({"prices": (flat("1"), flat("99", "EUR"))}, {"prices": (flat("2"), flat("98", "EUR"))}, True),
        ],
    )
    def test_by_what_costs_before_any_use_then_by_quota(self, terms, than, more):
        currency = "EUR" if any(price.currency == "EUR" for price in terms.get("prices", ())) else "USD"
        assert gives_more(a_version(**terms), than=a_version(**than), currency=currency) is more


class TestCancelNow:
    async def test_keeps_or_credits_the_unused_time(self, session, account, subscription, now):
        await cancel(session, at="now", **of(subscription, now + DAY))
        assert subscription.unused_time == "kept"
        other = await a_subscription(session, account, now=now + DAY)
        await cancel(session, at="now", unused_time="credited", **of(other, now + 2 * DAY))
        assert (other.status, other.unused_time) == ("canceled", "credited")

    async def test_of_a_period_that_is_used_up_nothing_is_credited(self, session, subscription, now):
        with pytest.raises(ValidationFailedError) as refused:
            await cancel(session, at="period_end", unused_time="credited", **of(subscription, now))
        assert refused.value.field == "unused_time"


class TestPause:
    async def test_rests_until_it_is_resumed(self, session, account, subscription, now):
        version = account.gateway_version
        await pause(session, **of(subscription, now + DAY))
        await pause(session, **of(subscription, now + 2 * DAY))
        assert subscription.status == "paused"
        await resume(session, **of(subscription, now + 3 * DAY))
        await resume(session, **of(subscription, now + 4 * DAY))
        assert (subscription.status, account.gateway_version) == ("active", version + 4)
        assert await phases_of(session, subscription) == [
            ("starter", "paid", now, now + DAY),
            ("starter", "paused", now + DAY, now + 3 * DAY),
            ("starter", "paid", now + 3 * DAY, None),
        ]
        actions = [row.action for row in await audit_of(session, subscription.id)]
        assert actions == ["subscription.started", "subscription.paused", "subscription.resumed"]
        assert (await outbox_of(session, "subscription.changed")) == [subscription.id] * 3

    async def test_leaves_what_is_planned(self, session, subscription, now):
        await change(session, plan_code="small", **of(subscription, now))
        await pause(session, **of(subscription, now + DAY))
        await resume(session, **of(subscription, now + 2 * DAY))
        assert (await phases_of(session, subscription))[-1] == ("small", "paid", PERIOD_END, None)
        await pause(session, **of(subscription, now + 3 * DAY))
        await resume(session, **of(subscription, PERIOD_END + DAY))
        assert (await phases_of(session, subscription))[-2:] == [
            ("small", "paused", PERIOD_END, PERIOD_END + DAY),
            ("small", "paid", PERIOD_END + DAY, None),
        ]

    async def test_ends_with_the_subscription(self, session, subscription, now):
        await cancel(session, at="period_end", **of(subscription, now))
        await pause(session, **of(subscription, now + DAY))
        await withdraw_cancellation(session, **of(subscription, now + 2 * DAY))
        assert (await phases_of(session, subscription))[-1] == ("starter", "paused", now + DAY, None)
        await cancel(session, at="period_end", **of(subscription, now + 3 * DAY))
        await advance(session, now=PERIOD_END)
        assert subscription.status == "ended"
