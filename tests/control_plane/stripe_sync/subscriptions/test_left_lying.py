"""What goes wrong with one thing does not hold up another, ask Stripe without end, or last for ever."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from control_plane.billing.profiles.model import BillingProfile
from control_plane.billing.profiles.operations import set_billing_profile
from control_plane.stripe_sync.client import StripeRefused
from control_plane.stripe_sync.subscriptions import requests, worker
from control_plane.stripe_sync.subscriptions.applying import apply_subscription
from control_plane.stripe_sync.subscriptions.checkout import apply_checkout
from control_plane.stripe_sync.subscriptions.customers import ensure_customer
from control_plane.stripe_sync.subscriptions.tables import StripeCheckout, StripeCustomer
from control_plane.stripe_sync.subscriptions.worker import Failing, take_up
from tests.control_plane.stripe_sync.subscriptions.conftest import Shop


async def checkouts(shop: Shop) -> list[StripeCheckout]:
    async with shop.sessions() as session:
        return list(await session.scalars(select(StripeCheckout).order_by(StripeCheckout.id)))


class TestOldClock:
    async def test_a_reading_that_waited_rewrites_nothing_that_was_done_meanwhile(self, shop: Shop) -> None:
        bought = await shop.buy()
        shop.later(days=1)
        waited = shop.ctx
        shop.later(minutes=20)
        await requests.change_plan(shop.ctx, subscription_id=bought.id, plan_code="growth", actor="ada")
        before = await shop.subscription()
        await apply_subscription(waited, (await shop.row()).stripe_id)
        after = await shop.subscription()
        assert [(one.id, one.starts_at, one.ends_at) for one in after.phases] == [
            (one.id, one.starts_at, one.ends_at) for one in before.phases
        ]
        assert (await shop.row()).read_at == shop.ctx.now


class TestCheckouts:
    async def test_started_at_once_on_other_terms_leave_one_that_can_be_paid(self, shop: Shop) -> None:
        plans = ("starter", "growth", "starter", "growth")
        await asyncio.gather(*(shop.start(plan) for plan in plans), return_exceptions=True)
        there = [one["id"] for one in shop.at_stripe("checkout.session") if one["status"] == "open"]
        here = [one.session_id for one in await checkouts(shop) if one.state == "open"]
        assert len(there) <= 1
        assert here == there

    async def test_that_stripe_does_not_know_are_closed(self, shop: Shop) -> None:
        await shop.start()
        async with shop.sessions() as session, session.begin():
            await session.execute(update(StripeCheckout).values(session_id="cs_test_gone"))
        other = await shop.start("growth")
        assert [one.state for one in await checkouts(shop)] == ["expired", "open"]
        async with shop.sessions() as session, session.begin():
            await session.execute(
                update(StripeCheckout)
                .where(StripeCheckout.id == other.checkout.id)
                .values(session_id="cs_test_gone_too")
            )
        shop.later(hours=3)
        await take_up(shop.ctx)
        assert [one.state for one in await checkouts(shop)] == ["expired", "expired"]

    async def test_paid_for_twice_say_so_and_are_not_asked_about_again(self, shop: Shop) -> None:
        started = await shop.start()
        async with shop.sessions() as session, session.begin():
            await session.execute(update(StripeCheckout).values(state="expired"))
        other = await shop.start("growth")
        for one in (started, other):
            assert (await shop.pay(one))["completed"]
        await apply_checkout(shop.ctx, started.checkout.session_id)
        shop.later(hours=3)
        await take_up(shop.ctx)
        first, second = await checkouts(shop)
        assert (first.state, second.state, second.problem_code) == ("completed", "refused", "subscribed_twice")
        assert await take_up(shop.ctx) == 0

    async def test_that_fail_are_tried_less_and_less_often(self, shop: Shop) -> None:
        await shop.start()
        shop.later(hours=3)
        shop.sim.control.fault("error_before", path="/v1/checkout/*", count=2)
        assert await take_up(shop.ctx) == 1
        assert await take_up(shop.ctx) == 0
        [checkout] = await checkouts(shop)
        assert checkout.next_try_at == shop.ctx.now + timedelta(hours=1)


class TestCustomers:
    async def test_with_an_address_that_stripe_refuses_can_pay_and_are_told_of_once(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await shop.buy()
        async with shop.sessions() as session, session.begin():
            await set_billing_profile(
                session,
                account_id=shop.account_id,
                profile=BillingProfile(legal_name="Ada", invoice_email="ada@example.com"),
                actor="ada",
                now=shop.ctx.now + timedelta(seconds=1),
            )
        shop.later(minutes=1)
        refusals = []
        call = type(shop.ctx.stripe).call

        async def refuse(stripe, ask, *, lane=None):
            if "update_async" in ask.__code__.co_names:
                refusals.append(ask)
                raise StripeRefused("email_invalid", "email", "Invalid email address")
            return await call(stripe, ask, lane=lane)

        monkeypatch.setattr(type(shop.ctx.stripe), "call", refuse)
        for _ in range(3):
            await take_up(shop.ctx)
        assert len(refusals) == 1
        assert await ensure_customer(shop.ctx, shop.account_id) == (await shop.row()).customer_id
        async with shop.sessions() as session:
            customer = (await session.scalars(select(StripeCustomer))).one()
        assert "Invalid email address" in customer.problem
        monkeypatch.undo()
        await take_up(shop.at(shop.ctx.now + timedelta(days=1, minutes=1)).ctx)
        [there] = shop.at_stripe("customer")
        assert there["email"] == "ada@example.com"


class TestOneThatFails:
    async def test_is_left_alone_for_a_minute_while_the_others_are_done(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await shop.start()
        other = await shop.another()
        await other.start()
        shop.later(hours=3)
        first = (await checkouts(shop))[0].session_id
        tried = []

        async def apply(ctx, session_id):
            tried.append(session_id)
            if session_id == first:
                raise ZeroDivisionError
            return await apply_checkout(ctx, session_id)

        monkeypatch.setattr(worker, "apply_checkout", apply)
        seconds = [0.0]
        failing = Failing(lambda: seconds[0])
        await take_up(shop.ctx, failing=failing)
        assert {one.session_id == first: one.state for one in await checkouts(shop)} == {
            True: "open",
            False: "expired",
        }
        seconds[0] = 59.0
        await take_up(shop.ctx.at(shop.ctx.now + timedelta(days=1)), failing=failing)
        assert tried.count(first) == 1
        seconds[0] = 61.0
        await take_up(shop.ctx.at(shop.ctx.now + timedelta(days=2)), failing=failing)
        assert tried.count(first) == 2
