"""Changing what Stripe bills: ours follows what Stripe shows, and Stripe is asked once."""

from datetime import timedelta
from functools import partial

import pytest

from control_plane.foundation.errors import KmError
from control_plane.stripe_sync.client import StripeUnavailable
from control_plane.stripe_sync.subscriptions import add_on_requests, requests
from control_plane.stripe_sync.subscriptions.previews import preview_plan_change
from control_plane.stripe_sync.subscriptions.worker import take_up
from control_plane.subscriptions import operations, plan_changes, statuses
from control_plane.subscriptions.advance import advance
from control_plane.subscriptions.records import BilledByStripeError
from tests.control_plane.stripe_sync.subscriptions.conftest import Shop

DAYS_10 = timedelta(days=10)


async def change(shop: Shop, plan: str, **options):
    found = await shop.subscription()
    return await requests.change_plan(shop.ctx, subscription_id=found.id, plan_code=plan, actor="ada", **options)


def paid_minor(shop: Shop) -> list[int]:
    return [invoice["amount_paid"] for invoice in shop.at_stripe("invoice")]


class TestUpgrade:
    async def test_costs_what_the_preview_said_and_begins_when_it_is_paid(self, shop: Shop) -> None:
        bought = await shop.buy()
        shop.later(days=10)
        preview = await preview_plan_change(shop.ctx, subscription_id=bought.id, plan_code="growth")
        shop.later(minutes=20)
        made = await change(shop, "growth", proration_at=preview.proration_at)
        assert (made.state, made.kind, preview.at) == ("done", "update", "now")
        # 20 of 30 days: of 199.00 less of 49.00
        assert paid_minor(shop) == [4900, preview.amount_due_minor] == [4900, 10_000]
        assert [phase[::2] for phase in await shop.plans()] == [
            ("starter", bought.started_at),
            ("growth", shop.ctx.now),
        ]
        spans = await shop.spans()
        assert [(span.starts_at, span.ours_from) for span in spans] == [
            (bought.started_at, bought.started_at),
            (preview.proration_at, shop.ctx.now),
        ]

    async def test_that_stripe_could_not_make_for_days_costs_what_is_left_then(self, shop: Shop) -> None:
        await shop.buy()
        shop.later(days=10)
        shop.sim.control.fault("error_before", method="POST", path="/v1/subscriptions/*", count=1)
        assert (await change(shop, "growth")).state == "asked"
        shop.later(days=5)
        await take_up(shop.ctx)
        # half of 30 days: of 199.00 less of 49.00
        assert (paid_minor(shop), (await shop.plans())[-1][0]) == ([4900, 7500], "growth")
        assert (await shop.spans())[-1].starts_at == shop.ctx.now

    async def test_that_is_not_paid_changes_nothing_here(self, shop: Shop) -> None:
        bought = await shop.buy()
        shop.sim.control.order(
            "set_card", customer=(await shop.row()).customer_id, card="pm_card_chargeCustomerFail"
        )
        shop.later(days=1)
        made = await change(shop, "growth")
        assert made.state == "pending"
        assert [phase[0] for phase in await shop.plans()] == ["starter"]
        with pytest.raises(KmError, match="waits for its payment until"):
            await change(shop, "growth")
        shop.later(days=2)
        await take_up(shop.ctx)
        [change_row] = await shop.changes()
        assert (change_row.state, change_row.problem_code) == ("refused", "payment_failed")
        assert (await shop.subscription()).id == bought.id

    async def test_pending_is_made_when_the_customer_pays(self, shop: Shop) -> None:
        await shop.buy()
        customer_id = (await shop.row()).customer_id
        shop.sim.control.order("set_card", customer=customer_id, card="pm_card_chargeCustomerFail")
        assert (await change(shop, "growth")).state == "pending"
        shop.sim.control.order("set_card", customer=customer_id, card="pm_card_visa")
        open_invoice = next(one["id"] for one in shop.at_stripe("invoice") if one["status"] == "open")
        await shop.ctx.stripe.call(lambda c: c.v1.invoices.pay_async(open_invoice))
        await shop.see()
        assert [one.state for one in await shop.changes()] == ["done"]
        assert (await shop.plans())[-1][0] == "growth"

    async def test_pending_can_be_given_up_after_stripe_has_failed_to(self, shop: Shop) -> None:
        bought = await shop.buy()
        customer_id = (await shop.row()).customer_id
        shop.sim.control.order("set_card", customer=customer_id, card="pm_card_chargeCustomerFail")
        assert (await change(shop, "growth")).state == "pending"
        shop.sim.control.fault("error_after", method="POST", path="/v1/invoices/*/void")
        given_up = partial(requests.discard_change, shop.ctx, subscription_id=bought.id, actor="ada")
        with pytest.raises(StripeUnavailable):
            await given_up()
        assert (await given_up()).state == "withdrawn"

    async def test_pending_can_be_given_up(self, shop: Shop) -> None:
        bought = await shop.buy()
        customer_id = (await shop.row()).customer_id
        shop.sim.control.order("set_card", customer=customer_id, card="pm_card_chargeCustomerFail")
        shop.later(days=1)
        assert (await change(shop, "growth")).state == "pending"
        given_up = await requests.discard_change(shop.ctx, subscription_id=bought.id, actor="ada")
        assert given_up.state == "withdrawn"
        assert sorted(one["status"] for one in shop.at_stripe("invoice")) == ["paid", "void"]
        assert [phase[0] for phase in await shop.plans()] == ["starter"]


class TestDowngrade:
    async def test_is_planned_at_stripe_and_here_and_made_at_the_periods_end(self, shop: Shop) -> None:
        await shop.buy("growth")
        made = await change(shop, "starter")
        assert (made.state, made.kind) == ("scheduled", "schedule")
        assert made.effective_at == (await shop.row()).current_period_end
        planned = await shop.plans()
        assert [phase[0] for phase in planned] == ["growth", "starter"]
        assert planned[1][2].isoformat() == "2026-12-10T09:00:00+00:00"
        shop.at(made.effective_at + timedelta(minutes=1))
        await shop.see()
        assert [one.state for one in await shop.changes()] == ["done"]
        assert (await shop.plans()) == planned
        assert [span.ours_from.minute for span in await shop.spans()] == [20, 0]
        assert paid_minor(shop)[-1] in {0, 4900}

    async def test_is_binding_before_stripe_has_switched(self, shop: Shop) -> None:
        await shop.buy("growth")
        made = await change(shop, "starter")
        # ours begins at the full hour, Stripe switches twenty minutes on
        shop.at(made.effective_at - timedelta(minutes=10))
        await shop.see()
        assert [phase[0] for phase in await shop.plans()] == ["growth", "starter"]

    async def test_can_be_taken_back(self, shop: Shop) -> None:
        bought = await shop.buy("growth")
        await change(shop, "starter")
        shop.later(days=1)
        done = await requests.discard_change(shop.ctx, subscription_id=bought.id, actor="ada")
        assert done.state == "done"
        assert [phase[0] for phase in await shop.plans()] == ["growth"]
        assert [one.state for one in await shop.changes()] == ["withdrawn", "done"]
        assert len(await shop.spans()) == 1

    async def test_an_upgrade_takes_its_place(self, shop: Shop) -> None:
        await shop.buy("growth")
        await change(shop, "starter")
        shop.later(days=1)
        assert (await change(shop, "growth")).kind == "withdraw"
        assert [phase[0] for phase in await shop.plans()] == ["growth"]


class TestEnding:
    async def test_at_period_end_and_not_after_all(self, shop: Shop) -> None:
        bought = await shop.buy()
        await requests.cancel(shop.ctx, subscription_id=bought.id, at="period_end", actor="ada")
        ending = await shop.subscription()
        assert ending.ends_at is not None
        assert (ending.status, ending.ends_at.isoformat()) == ("active", "2026-12-10T09:00:00+00:00")
        await requests.keep(shop.ctx, subscription_id=bought.id, actor="ada")
        kept = await shop.subscription()
        assert (kept.ends_at, kept.canceled_at, len(kept.phases)) == (None, None, 1)
        await requests.cancel(shop.ctx, subscription_id=bought.id, at="period_end", actor="ada")
        shop.later(days=31)
        assert (await shop.see()).status == "ended"
        assert (await shop.row()).status == "canceled"

    async def test_now_with_the_unused_time_credited(self, shop: Shop) -> None:
        bought = await shop.buy()
        shop.later(days=15)
        made = await requests.cancel(
            shop.ctx, subscription_id=bought.id, at="now", unused_time="credited", actor="ada"
        )
        assert made.state == "done"
        over = await shop.subscription()
        assert (over.status, over.ends_at) == ("canceled", shop.ctx.now)
        # half of the month goes to the customer's balance
        assert shop.at_stripe("customer")[0]["balance"] == -2450


class TestTrial:
    async def test_ended_early_is_paid_with_its_setup_fee(self, full_shop: Shop) -> None:
        shop = full_shop
        bought = await shop.buy("trial")
        shop.later(minutes=1)
        await take_up(shop.ctx)
        assert [one.kind for one in await shop.changes()] == ["begin"]
        shop.later(days=2)
        made = await requests.end_trial(shop.ctx, subscription_id=bought.id, actor="ada")
        assert made.state == "done"
        found = await shop.subscription()
        assert (found.status, found.trial_ends_at) == ("active", shop.ctx.now)
        assert [phase[1] for phase in await shop.plans()] == ["trial", "paid"]
        assert paid_minor(shop)[-1] == 4900 + 2500

    async def test_made_longer(self, full_shop: Shop) -> None:
        shop = full_shop
        bought = await shop.buy("trial")
        await take_up(shop.ctx.at(shop.ctx.now + timedelta(minutes=1)))
        ends_at = bought.trial_ends_at + timedelta(days=3)
        await requests.extend_trial(shop.ctx, subscription_id=bought.id, ends_at=ends_at, actor="ada")
        found = await shop.subscription()
        assert (found.trial_ends_at, found.anchor_at) == (ends_at, ends_at)
        assert [(kind, begins) for _, kind, begins in await shop.plans()] == [
            ("trial", bought.started_at),
            ("paid", ends_at),
        ]

    async def test_goes_over_into_paying_by_itself(self, full_shop: Shop) -> None:
        shop = full_shop
        bought = await shop.buy("trial")
        shop.at(bought.trial_ends_at + timedelta(hours=2))
        found = await shop.see()
        assert (found.status, [phase[1] for phase in await shop.plans()]) == ("active", ["trial", "paid"])


class TestAddOns:
    async def test_come_in_any_number_and_go(self, full_shop: Shop) -> None:
        shop = full_shop
        bought = await shop.buy()
        shop.later(days=15)
        add = {"subscription_id": bought.id, "add_on_code": "extra", "actor": "ada"}
        assert (await add_on_requests.add_on(shop.ctx, **add, quantity=2)).state == "done"
        assert paid_minor(shop) == [4900, 1000]
        held = (await shop.subscription()).add_ons
        assert [(one.quantity, one.starts_at, one.ends_at) for one in held] == [(2, shop.ctx.now, None)]
        shop.later(hours=1)
        assert (await add_on_requests.change_quantity(shop.ctx, **add, quantity=3)).state == "done"
        removed = await add_on_requests.remove_add_on(shop.ctx, **add, at="period_end")
        assert removed.state == "scheduled"
        held = (await shop.subscription()).add_ons
        assert [(one.quantity, one.ends_at is None) for one in held] == [(2, False), (3, False)]
        kept = await add_on_requests.keep_add_on(shop.ctx, **add)
        assert kept.state == "done"
        assert [one.ends_at is None for one in (await shop.subscription()).add_ons] == [False, True]
        assert (await add_on_requests.remove_add_on(shop.ctx, **add, at="now")).state == "done"
        assert [item["quantity"] for item in shop.at_stripe()[0]["items"]["data"] if item.get("quantity")] == [1]

    async def test_a_planned_downgrade_outlives_them(self, full_shop: Shop) -> None:
        shop = full_shop
        bought = await shop.buy("growth")
        await change(shop, "starter")
        shop.later(days=1)
        await add_on_requests.add_on(shop.ctx, subscription_id=bought.id, add_on_code="extra", actor="ada")
        found = await shop.subscription()
        assert [phase[0] for phase in await shop.plans()] == ["growth", "growth", "starter"]
        assert [one.ends_at for one in found.add_ons] == [None]


class TestHereAlone:
    async def test_nothing_is_changed(self, shop: Shop) -> None:
        bought = await shop.buy()
        orders = {"subscription_id": bought.id, "actor": "ada", "now": shop.ctx.now}
        for order in (
            lambda session: plan_changes.change(session, plan_code="growth", **orders),
            lambda session: operations.cancel(session, at="now", **orders),
            lambda session: statuses.pause(session, **orders),
            lambda session: statuses.change_status(session, status="past_due", **orders),
        ):
            async with shop.sessions() as session, session.begin():
                with pytest.raises(BilledByStripeError):
                    await order(session)

    async def test_follows_what_is_done_at_stripe(self, shop: Shop) -> None:
        bought = await shop.buy()
        customer_id = (await shop.row()).customer_id
        shop.sim.control.order("set_card", customer=customer_id, card="pm_card_chargeCustomerFail")
        shop.later(days=30, hours=2)
        assert (await shop.see()).status == "past_due"
        shop.sim.control.order("set_card", customer=customer_id, card="pm_card_visa")
        open_invoice = next(one["id"] for one in shop.at_stripe("invoice") if one["status"] == "open")
        await shop.ctx.stripe.call(lambda c: c.v1.invoices.pay_async(open_invoice))
        assert (await shop.see()).status == "active"
        assert (await shop.subscription()).id == bought.id


class TestAnEndThatWasTakenBackLate:
    async def test_is_none_where_stripe_goes_on_and_is_paid(self, shop: Shop) -> None:
        bought = await shop.buy()
        await requests.cancel(shop.ctx, subscription_id=bought.id, at="period_end", actor="ada")
        row = await shop.row()
        shop.at(row.current_period_end - timedelta(minutes=10))
        async with shop.sessions() as session, session.begin():
            await advance(session, now=shop.ctx.now)
        assert (await shop.subscription()).status == "ended"
        # in the portal, before Stripe's end, which is later than ours by minutes
        going_on = {"cancel_at_period_end": False}
        await shop.ctx.stripe.call(lambda c: c.v1.subscriptions.update_async(row.stripe_id, going_on))
        found = await shop.see()
        assert (found.status, found.ends_at) == ("active", None)
        assert await shop.plans() == [("starter", "paid", bought.started_at)]
        shop.later(hours=3)
        assert (await shop.see()).status == "active"
        assert [one["status"] for one in shop.at_stripe("invoice")] == ["paid", "paid"]
