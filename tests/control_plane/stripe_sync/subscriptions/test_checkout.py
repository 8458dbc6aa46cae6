"""Buying at Stripe: nothing begins here before it is paid for there."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from control_plane.accounts.queries import account as account_of
from control_plane.foundation.errors import KmError
from control_plane.stripe_sync.client import Stripe
from control_plane.stripe_sync.effects import Effect
from control_plane.stripe_sync.subscriptions.applying import apply_subscription
from control_plane.stripe_sync.subscriptions.checkout import apply_checkout, close_checkout
from control_plane.stripe_sync.subscriptions.tables import StripeCheckout, StripeCustomer
from control_plane.stripe_sync.subscriptions.worker import take_up
from tests.control_plane.builders import a_published_plan, a_subscription
from tests.control_plane.stripe_sync.subscriptions.conftest import Shop


class TestCheckout:
    async def test_begins_what_was_paid_for_and_nothing_before(self, shop: Shop) -> None:
        started = await shop.start()
        assert started.url.startswith(shop.sim.url)
        await apply_checkout(shop.ctx, started.checkout.session_id)
        async with shop.sessions() as session:
            assert await session.scalar(select(StripeCheckout.state)) == "open"
        assert shop.at_stripe() == []
        assert (await shop.pay(started))["completed"]
        await apply_checkout(shop.ctx, started.checkout.session_id)
        found = await shop.subscription()
        assert (found.status, found.billed_by, found.anchor_at.isoformat(), found.time_zone) == (
            "active",
            "stripe",
            "2026-11-10T09:00:00+00:00",
            "UTC",
        )
        assert await shop.plans() == [("starter", "paid", shop.ctx.now)]
        row = await shop.row()
        assert (row.status, row.current_period_start, row.plan_version_id) == (
            "active",
            shop.ctx.now,
            found.phases[0].plan_version_id,
        )
        assert [(span.starts_at, span.ours_from) for span in await shop.spans()] == [(shop.ctx.now, shop.ctx.now)]

    async def test_ends_the_free_subscription_in_its_place(self, shop: Shop) -> None:
        async with shop.sessions() as session, session.begin():
            account = await account_of(session, shop.account_id)
            before = shop.ctx.now - timedelta(days=3)
            free = await a_subscription(session, account, now=before, plan="free")
            await a_published_plan(session, now=before, code="maps", product="maps")
            other = await a_subscription(session, account, now=before, plan="maps")
        bought = await shop.buy()
        async with shop.sessions() as session:
            ended = await session.get_one(type(free), free.id)
            beside = await session.get_one(type(other), other.id)
        # that to another API product has nothing to do with it
        assert (beside.status, beside.billed_by) == ("active", "own")
        assert (ended.status, ended.ends_at, bought.status) == ("canceled", bought.started_at, "active")

    async def test_a_declined_card_begins_nothing(self, shop: Shop) -> None:
        started = await shop.start()
        assert not (await shop.pay(started, "pm_card_chargeDeclined"))["completed"]
        await apply_checkout(shop.ctx, started.checkout.session_id)
        assert shop.at_stripe() == []

    async def test_again_on_the_same_terms_is_the_same_checkout_and_on_others_another(self, shop: Shop) -> None:
        first = await shop.start()
        assert (await shop.start()).url == first.url
        other = await shop.start("growth")
        assert other.checkout.id != first.checkout.id
        assert {one["id"]: one["status"] for one in shop.at_stripe("checkout.session")} == {
            first.checkout.session_id: "expired",
            other.checkout.session_id: "open",
        }
        assert len(shop.at_stripe("customer")) == 1

    async def test_a_trial_ends_at_a_full_hour_and_leaves_all_its_days(self, full_shop: Shop) -> None:
        shop = full_shop
        bought = await shop.buy("trial")
        assert bought.status == "trialing"
        ends_at = bought.trial_ends_at
        assert ends_at is not None
        assert (ends_at.minute, ends_at.second, ends_at == bought.anchor_at) == (0, 0, True)
        assert timedelta(days=14) <= ends_at - shop.ctx.now <= timedelta(days=14, hours=3)
        assert [phase[:2] for phase in await shop.plans()] == [("trial", "trial"), ("trial", "paid")]
        # the fee waits for the end of the trial
        assert shop.at_stripe("invoiceitem") == []

    async def test_reading_it_again_and_again_changes_nothing(self, shop: Shop) -> None:
        before = await shop.buy()
        for _ in range(2):
            await shop.see()
        after = await shop.subscription()
        assert [phase.id for phase in after.phases] == [phase.id for phase in before.phases]

    async def test_what_others_made_at_stripe_is_left_alone(self, shop: Shop) -> None:
        await shop.buy()
        async with shop.sessions() as session, session.begin():
            customer = (await session.scalars(select(StripeCustomer))).one()
        items = [{"price": item["price"]["id"]} for item in shop.at_stripe()[0]["items"]["data"]]
        asked = {"customer": customer.customer_id, "items": items, "payment_behavior": "default_incomplete"}
        foreign = await shop.ctx.stripe.call(lambda c: c.v1.subscriptions.create_async(asked))
        assert await apply_subscription(shop.ctx, foreign.id) is Effect.NOT_OURS


class TestTaxes:
    async def test_are_stripes_where_they_are_switched_on(self, shop: Shop) -> None:
        config = replace(shop.ctx.config, automatic_tax=True)
        async with Stripe.open(config) as stripe:
            started = await replace(shop, ctx=replace(shop.ctx, stripe=stripe)).start()
        [session] = shop.at_stripe("checkout.session")
        assert session["automatic_tax"]["enabled"]
        paid = shop.sim.control.order(
            "complete_checkout",
            session=started.checkout.session_id,
            address={"country": "DE", "line1": "1 High St", "postal_code": "10115", "city": "Berlin"},
        )
        assert paid["completed"]
        await apply_checkout(shop.ctx, started.checkout.session_id)
        assert (await shop.row()).automatic_tax


class TestRefusals:
    @pytest.mark.parametrize(
        ("plan", "code"),
        [("free", "not_billed_by_stripe"), ("none", "plan_not_found"), ("extra", "plan_is_add_on")],
    )
    async def test_say_what_cannot_be_bought(self, full_shop: Shop, plan: str, code: str) -> None:
        shop = full_shop
        with pytest.raises(KmError) as refused:
            await shop.start(plan)
        assert refused.value.code == code

    async def test_who_has_it_changes_the_plan_instead(self, shop: Shop) -> None:
        await shop.buy()
        with pytest.raises(KmError, match="change its plan instead"):
            await shop.start("growth")

    async def test_a_completed_one_cannot_be_closed(self, shop: Shop) -> None:
        started = await shop.start()
        await shop.pay(started)
        with pytest.raises(KmError, match="has been completed"):
            await close_checkout(shop.ctx, checkout_id=started.checkout.id, actor="ada")
        assert (await shop.subscription()).status == "active"


class TestAbandoned:
    async def test_is_closed_when_its_time_is_up(self, shop: Shop) -> None:
        started = await shop.start()
        assert await take_up(shop.ctx) == 0
        shop.later(hours=2, minutes=1)
        assert await take_up(shop.ctx) == 1
        async with shop.sessions() as session:
            assert await session.scalar(select(StripeCheckout.state)) == "expired"
        [session] = shop.at_stripe("checkout.session")
        assert (session["id"], session["status"]) == (started.checkout.session_id, "expired")
        assert await take_up(shop.ctx) == 0
