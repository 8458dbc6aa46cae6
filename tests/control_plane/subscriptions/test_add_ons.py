"""Add-ons stand beside the plan: each change cuts the phase, so that billing and gateways know what held when."""

import itertools
from datetime import timedelta

import pytest

from control_plane.catalog.currencies import CurrencyDiffersError
from control_plane.catalog.operations import archive_plan
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.subscriptions.add_ons import (
    MAX_QUANTITY,
    AddOnHeldError,
    AddOnsClosedError,
    add_on,
    change_quantity,
    keep_add_on,
    remove_add_on,
)
from control_plane.subscriptions.advance import advance
from control_plane.subscriptions.offers import (
    BillingDiffersError,
    IntervalDiffersError,
    NotAnAddOnError,
    PlanNotOnSaleError,
    PlanUnlistedError,
    ProductDiffersError,
)
from control_plane.subscriptions.operations import cancel
from control_plane.subscriptions.plan_changes import change
from control_plane.subscriptions.records import SubscriptionOverError
from control_plane.subscriptions.statuses import pause, resume
from control_plane.subscriptions.timelines import timeline
from tests.control_plane.builders import (
    ACTOR,
    a_new_version,
    a_published_plan,
    a_subscription,
    an_account,
    audit_of,
    outbox_of,
)
from tests.control_plane.subscriptions.showing import at, flat, phases_of

DAY = timedelta(days=1)
PERIOD_END = at("2026-04-17T10:00")


@pytest.fixture
async def account(session, now):
    await a_published_plan(session, now=now, code="starter")
    await a_published_plan(session, now=now, code="growth", position=1, prices=(flat("199"),))
    for position, code in enumerate(("calls", "support"), start=2):
        await a_published_plan(session, now=now, code=code, position=position, kind="add_on", prices=(flat("5"),))
    return await an_account(session, now=now)


@pytest.fixture
async def subscription(session, account, now):
    return await a_subscription(session, account, now=now)


def of(subscription, now):
    return {"subscription_id": subscription.id, "actor": ACTOR, "now": now}


class TestAddOn:
    async def test_cuts_the_phase_and_tells_everybody(self, session, account, subscription, now):
        version, told = account.gateway_version, len(await outbox_of(session, "subscription.changed"))
        await add_on(session, add_on_code="calls", quantity=3, **of(subscription, now + DAY))
        assert await phases_of(session, subscription) == [
            ("starter", "paid", now, now + DAY),
            ("starter", "paid", now + DAY, None, {"calls": 3}),
        ]
        assert account.gateway_version == version + 1
        assert (await outbox_of(session, "subscription.changed"))[told:] == [subscription.id]
        added = (await audit_of(session, subscription.id))[-1]
        assert (added.action, added.after["add_ons"][0]["quantity"]) == ("subscription.add_on_added", 3)

    async def test_is_added_once_by_two_requests_of_which_the_later_came_first(self, session, subscription, now):
        await add_on(session, add_on_code="calls", **of(subscription, now + DAY + timedelta(milliseconds=1)))
        with pytest.raises(AddOnHeldError):
            await add_on(session, add_on_code="calls", **of(subscription, now + DAY))
        assert len(subscription.add_ons) == 1

    async def test_stays_with_its_version_and_through_changes_of_plan(self, session, subscription, now):
        await add_on(session, add_on_code="calls", **of(subscription, now + DAY))
        held = subscription.add_ons[0].plan_version_id
        await a_new_version(session, now=now, code="calls", prices=(flat("6"),))
        await change(session, plan_code="growth", **of(subscription, now + 2 * DAY))
        await change_quantity(session, add_on_code="calls", quantity=2, **of(subscription, now + 3 * DAY))
        assert {row.plan_version_id for row in subscription.add_ons} == {held}
        assert (await phases_of(session, subscription))[1:] == [
            ("starter", "paid", now + DAY, now + 2 * DAY, {"calls": 1}),
            ("growth", "paid", now + 2 * DAY, now + 3 * DAY, {"calls": 1}),
            ("growth", "paid", now + 3 * DAY, None, {"calls": 2}),
        ]

    async def test_with_the_subscription_makes_one_phase(self, session, subscription, now):
        await add_on(session, add_on_code="calls", **of(subscription, now))
        await add_on(session, add_on_code="support", **of(subscription, now))
        assert await phases_of(session, subscription) == [
            ("starter", "paid", now, None, {"calls": 1, "support": 1})
        ]

    async def test_is_there_once(self, session, subscription, now):
        await add_on(session, add_on_code="calls", **of(subscription, now))
        with pytest.raises(AddOnHeldError) as refused:
            await add_on(session, add_on_code="calls", **of(subscription, now + DAY))
        assert refused.value.code == "add_on_held"

    async def test_is_refused_beside_what_costs_nothing(self, session, subscription, now):
        await pause(session, **of(subscription, now))
        with pytest.raises(AddOnsClosedError, match="paused: resume it first") as refused:
            await add_on(session, add_on_code="calls", **of(subscription, now + DAY))
        assert refused.value.code == "add_ons_closed"

    async def test_is_refused_in_a_trial(self, session, now):
        await a_published_plan(session, now=now, code="tried", trial_days=7)
        await a_published_plan(session, now=now, code="calls", position=1, kind="add_on")
        trialing = await a_subscription(session, await an_account(session, now=now), now=now, plan="tried")
        with pytest.raises(AddOnsClosedError, match="trialing: end the trial first"):
            await add_on(session, add_on_code="calls", **of(trialing, now + DAY))

    async def test_is_refused_unless_it_is_on_sale_for_this_one(self, session, subscription, now):
        for terms, error, code in (
            ({"product": "maps"}, ProductDiffersError, "product_differs"),
            ({"interval": "year"}, IntervalDiffersError, "interval_differs"),
            ({"currency": "EUR"}, CurrencyDiffersError, "currency_differs"),
            ({"visibility": "hidden"}, PlanUnlistedError, "plan_unlisted"),
            ({"billed_by": "stripe"}, BillingDiffersError, "billing_differs"),
            ({"kind": "plan"}, NotAnAddOnError, "not_an_add_on"),
        ):
            sold = {"kind": "add_on", "prices": (flat("5"),), **terms}
            await a_published_plan(session, now=now, code=code, position=9, **sold)
            with pytest.raises(error) as refused:
                await add_on(session, add_on_code=code, **of(subscription, now))
            assert refused.value.code == code

    async def test_is_refused_when_it_is_archived_or_unknown(self, session, subscription, now):
        await archive_plan(session, code="calls", actor=ACTOR, now=now)
        with pytest.raises(PlanNotOnSaleError):
            await add_on(session, add_on_code="calls", **of(subscription, now))
        with pytest.raises(NotFoundError):
            await add_on(session, add_on_code="nothing", **of(subscription, now))

    async def test_is_refused_when_the_subscription_is_over(self, session, subscription, now):
        await cancel(session, at="now", **of(subscription, now + DAY))
        with pytest.raises(SubscriptionOverError):
            await add_on(session, add_on_code="calls", **of(subscription, now + DAY))

    async def test_has_a_quantity(self, session, subscription, now):
        for attempt, quantity in itertools.product((add_on, change_quantity), (0, -1, MAX_QUANTITY + 1)):
            with pytest.raises(ValidationFailedError) as refused:
                await attempt(session, add_on_code="calls", quantity=quantity, **of(subscription, now))
            assert refused.value.field == "quantity"


class TestQuantity:
    async def test_changes_at_once(self, session, subscription, now):
        await add_on(session, add_on_code="calls", **of(subscription, now))
        await change_quantity(session, add_on_code="calls", quantity=1, **of(subscription, now + DAY))
        await change_quantity(session, add_on_code="calls", quantity=5, **of(subscription, now + DAY))
        await change_quantity(session, add_on_code="calls", quantity=4, **of(subscription, now + DAY))
        assert await phases_of(session, subscription) == [
            ("starter", "paid", now, now + DAY, {"calls": 1}),
            ("starter", "paid", now + DAY, None, {"calls": 4}),
        ]

    async def test_keeps_a_planned_removal(self, session, subscription, now):
        await add_on(session, add_on_code="calls", **of(subscription, now))
        await remove_add_on(session, add_on_code="calls", at="period_end", **of(subscription, now))
        await change_quantity(session, add_on_code="calls", quantity=5, **of(subscription, now + DAY))
        assert (await phases_of(session, subscription))[-2:] == [
            ("starter", "paid", now + DAY, PERIOD_END, {"calls": 5}),
            ("starter", "paid", PERIOD_END, None),
        ]

    async def test_of_what_is_not_held_cannot_change(self, session, subscription, now):
        for attempt in (
            change_quantity(session, add_on_code="calls", quantity=2, **of(subscription, now)),
            remove_add_on(session, add_on_code="calls", at="now", **of(subscription, now)),
            keep_add_on(session, add_on_code="calls", **of(subscription, now)),
        ):
            with pytest.raises(NotFoundError) as refused:
                await attempt
            assert refused.value.code == "add_on_not_found"


class TestRemoval:
    async def test_at_once(self, session, subscription, now):
        await add_on(session, add_on_code="calls", **of(subscription, now))
        await remove_add_on(session, add_on_code="calls", at="now", **of(subscription, now + DAY))
        assert await phases_of(session, subscription) == [
            ("starter", "paid", now, now + DAY, {"calls": 1}),
            ("starter", "paid", now + DAY, None),
        ]
        await add_on(session, add_on_code="calls", **of(subscription, now + 2 * DAY))

    async def test_in_the_millisecond_of_its_start_leaves_nothing(self, session, subscription, now):
        await add_on(session, add_on_code="calls", **of(subscription, now + DAY))
        await remove_add_on(session, add_on_code="calls", at="now", **of(subscription, now + DAY))
        assert await phases_of(session, subscription) == [("starter", "paid", now, None)]
        assert subscription.add_ons == []

    async def test_at_period_end_is_planned_told_then_and_can_be_taken_back(
        self, session, account, subscription, now
    ):
        await add_on(session, add_on_code="calls", **of(subscription, now))
        for _ in range(2):
            await remove_add_on(session, add_on_code="calls", at="period_end", **of(subscription, now + DAY))
        planned = [
            ("starter", "paid", now, PERIOD_END, {"calls": 1}),
            ("starter", "paid", PERIOD_END, None),
        ]
        assert await phases_of(session, subscription) == planned
        for _ in range(2):
            await keep_add_on(session, add_on_code="calls", **of(subscription, now + DAY))
        assert await phases_of(session, subscription) == [("starter", "paid", now, None, {"calls": 1})]
        await remove_add_on(session, add_on_code="calls", at="period_end", **of(subscription, now + DAY))
        told = len(await outbox_of(session, "subscription.changed"))
        assert (await advance(session, now=PERIOD_END)).phases_begun == 1
        assert (await outbox_of(session, "subscription.changed"))[told:] == [subscription.id]
        actions = [row.action.removeprefix("subscription.") for row in await audit_of(session, subscription.id)]
        assert actions == ["started", "add_on_added", "add_on_removed", "add_on_kept", "add_on_removed"]

    async def test_and_a_planned_change_of_plan_do_not_disturb_each_other(self, session, subscription, now):
        await add_on(session, add_on_code="calls", **of(subscription, now))
        await change(session, plan_code="growth", at="period_end", **of(subscription, now))
        await remove_add_on(session, add_on_code="calls", at="period_end", **of(subscription, now))
        await pause(session, **of(subscription, now + DAY))
        await keep_add_on(session, add_on_code="calls", **of(subscription, now + DAY))
        await resume(session, **of(subscription, now + 2 * DAY))
        assert (await phases_of(session, subscription))[-2:] == [
            ("starter", "paid", now + 2 * DAY, PERIOD_END, {"calls": 1}),
            ("growth", "paid", PERIOD_END, None, {"calls": 1}),
        ]


class TestTimeline:
    async def test_ends_with_the_subscription_whatever_is_held(self, session, subscription, now):
        await add_on(session, add_on_code="calls", **of(subscription, now))
        await cancel(session, at="now", **of(subscription, now + DAY))
        found = await timeline(session, subscription.id)
        assert [(phase.ends_at, len(phase.add_ons)) for phase in found.phases] == [(now + DAY, 1)]
