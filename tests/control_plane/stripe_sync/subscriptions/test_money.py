"""Discounts, referrals and who is billed: what Stripe is told of them, once."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from control_plane.billing.balance.queries import balances_of_account
from control_plane.billing.discounts.coupons import create_coupon, create_promotion_code
from control_plane.billing.discounts.founding import FoundingTerms, open_founding_offer
from control_plane.billing.discounts.model import CodeTerms, CouponTerms, Duration
from control_plane.billing.discounts.queries import discounts_of
from control_plane.billing.discounts.referrals import assign_referrer, referral_code, set_reward
from control_plane.billing.line_scopes import LineScope
from control_plane.billing.profiles.model import BillingProfile
from control_plane.billing.profiles.operations import set_billing_profile
from control_plane.foundation.errors import KmError
from control_plane.stripe_sync.catalog.pushing import push_what_waits
from control_plane.stripe_sync.catalog.tables import StripeSetup
from control_plane.stripe_sync.invoices.mirror import apply_invoice
from control_plane.stripe_sync.subscriptions.add_on_requests import add_on
from control_plane.stripe_sync.subscriptions.customers import apply_customer
from control_plane.stripe_sync.subscriptions.discounts import give_discount, take_discount
from control_plane.stripe_sync.subscriptions.portal import portal_url
from control_plane.stripe_sync.subscriptions.requests import change_plan
from control_plane.stripe_sync.subscriptions.tables import StripeBalanceCredit, StripeCustomer, StripeDiscount
from control_plane.stripe_sync.subscriptions.worker import take_up
from tests.control_plane.builders import a_published_plan
from tests.control_plane.stripe_sync.catalog.builders import a_price
from tests.control_plane.stripe_sync.subscriptions.conftest import GROWTH, SETUP_FEE, Shop

HALF = CouponTerms(name="Half price", percent=Decimal(50), duration=Duration.PERIODS, count=3)


async def a_code(shop: Shop, code: str = "SPRING26", terms: CouponTerms = HALF, **code_terms: int) -> None:
    now = shop.ctx.now
    async with shop.sessions() as session, session.begin():
        await create_coupon(session, code=code.lower(), terms=terms, actor="ada", now=now)
        await create_promotion_code(
            session, code=code, coupon_code=code.lower(), terms=CodeTerms(**code_terms), actor="ada", now=now
        )


class TestDiscounts:
    async def test_a_promotion_code_is_taken_off_at_stripe_and_counted_here(self, shop: Shop) -> None:
        await a_code(shop, max_redemptions=1)
        bought = await shop.buy(promotion_code="spring26")
        assert [one["amount_paid"] for one in shop.at_stripe("invoice")] == [2450]
        async with shop.sessions() as session:
            [here] = await discounts_of(session, bought.id)
            at_stripe = (await session.scalars(select(StripeDiscount))).one()
        assert (here.row.source, at_stripe.percent, at_stripe.coupon_id) == (
            "promotion_code",
            Decimal(50),
            here.row.coupon_id,
        )
        # three periods of a month are three months
        assert at_stripe.ends_at is not None
        assert at_stripe.ends_at - at_stripe.starts_at > timedelta(days=88)
        with pytest.raises(KmError, match="as often as it may be"):
            await (await shop.another()).start(promotion_code="SPRING26")

    async def test_for_an_api_product_holds_for_plans_that_came_after_it_was_first_used(self, shop: Shop) -> None:
        await a_code(shop, terms=replace(HALF, product_codes=("weather",)))
        await shop.buy(promotion_code="spring26")
        async with shop.sessions() as session, session.begin():
            await a_published_plan(
                session, code="pro", position=2, prices=GROWTH, now=shop.ctx.now, billed_by="stripe"
            )
        await push_what_waits(shop.ctx)
        other = await shop.another()
        await other.buy("pro", promotion_code="spring26")
        assert sorted(one["amount_paid"] for one in shop.at_stripe("invoice")) == [2450, 9950]
        async with shop.sessions() as session:
            used = set(await session.scalars(select(StripeDiscount.coupon_id)))
        assert len(used) == 1
        assert None not in used
        await shop.see()

    async def test_what_an_open_checkout_was_promised_nobody_else_gets(self, shop: Shop) -> None:
        await a_code(shop, max_redemptions=1)
        await shop.start(promotion_code="SPRING26")
        other = await shop.another()
        with pytest.raises(KmError) as refused:
            await other.start(promotion_code="SPRING26")
        assert refused.value.code == "promotion_code_used_up"
        await a_code(shop, "FIXED26", replace(HALF, scope=LineScope.FIXED))
        with pytest.raises(KmError) as refused:
            await other.start(promotion_code="FIXED26")
        assert refused.value.code == "coupon_not_at_stripe"

    async def test_founding_members_have_theirs_from_the_first_invoice_on(self, shop: Shop) -> None:
        async with shop.sessions() as session, session.begin():
            terms = FoundingTerms(percent=Decimal(25), max_accounts=1)
            await open_founding_offer(session, terms=terms, actor="ada", now=shop.ctx.now)
        await a_code(shop)
        with pytest.raises(KmError) as refused:
            await shop.start(promotion_code="SPRING26")
        assert refused.value.code == "one_discount_at_checkout"
        bought = await shop.buy()
        assert [one["amount_paid"] for one in shop.at_stripe("invoice")] == [3675]
        async with shop.sessions() as session:
            assert [one.row.source for one in await discounts_of(session, bought.id)] == ["founding"]

    async def test_come_to_a_subscription_that_runs_and_go(self, shop: Shop) -> None:
        await a_code(shop)
        bought = await shop.buy()
        given = await give_discount(shop.ctx, subscription_id=bought.id, promotion_code="SPRING26", actor="ada")
        assert given.state == "done"
        assert len(shop.at_stripe()[0]["discounts"]) == 1
        async with shop.sessions() as session:
            [held] = await discounts_of(session, bought.id)
        taken = await take_discount(shop.ctx, subscription_id=bought.id, discount_id=held.row.id, actor="ada")
        assert (taken.state, shop.at_stripe()[0]["discounts"]) == ("done", [])


class TestReferrals:
    async def test_a_first_payment_at_stripe_is_rewarded_on_the_balance_there_once(self, shop: Shop) -> None:
        await shop.buy()
        other, now = await shop.another(), shop.ctx.now
        async with shop.sessions() as session, session.begin():
            await set_reward(session, currency="USD", amount_minor=2000, actor="ada", now=now)
            code = await referral_code(session, account_id=shop.account_id, now=now)
            await assign_referrer(session, account_id=other.account_id, code=code, actor="ada", now=now)
        await other.buy()
        for invoice in shop.at_stripe("invoice"):
            await apply_invoice(shop.ctx, invoice["id"])
        shop.sim.control.fault("reset_after", method="POST", path="/v1/customers/*/balance_transactions")
        for _ in range(3):
            await take_up(shop.later(minutes=2).ctx)
        async with shop.sessions() as session:
            credit = (await session.scalars(select(StripeBalanceCredit))).one()
            assert (credit.state, credit.amount_minor) == ("done", 2000)
            assert [one.amount_minor for one in await balances_of_account(session, shop.account_id)] == [0]
            customer_id = (await session.get_one(StripeCustomer, shop.account_id)).customer_id
        balances = {one["id"]: one["balance"] for one in shop.at_stripe("customer")}
        assert sorted(balances.values()) == [-2000, 0]
        await apply_customer(shop.ctx, customer_id)
        async with shop.sessions() as session:
            assert (await session.get_one(StripeCustomer, shop.account_id)).balance_minor == -2000


class TestCustomers:
    async def test_follow_the_billing_profile(self, shop: Shop) -> None:
        await shop.buy()
        profile = BillingProfile(
            legal_name="Ada Ltd",
            address_lines=("1 High St", "Flat 2"),
            city="Berlin",
            postal_code="10115",
            country="DE",
            tax_id="DE123456789",
            invoice_email="billing@ada.example",
        )
        shop.later(minutes=1)
        async with shop.sessions() as session, session.begin():
            await set_billing_profile(
                session, account_id=shop.account_id, profile=profile, actor="ada", now=shop.ctx.now
            )
        await take_up(shop.ctx)
        [customer] = shop.at_stripe("customer")
        assert (customer["name"], customer["email"], customer["address"]["city"]) == (
            "Ada Ltd",
            "billing@ada.example",
            "Berlin",
        )
        assert [(one["type"], one["value"]) for one in shop.at_stripe("tax_id")] == [("eu_vat", "DE123456789")]
        assert await take_up(shop.ctx) == 0
        features = {"features": {"invoice_history": {"enabled": True}}}
        made = await shop.ctx.stripe.call(lambda c: c.v1.billing_portal.configurations.create_async(features))
        async with shop.sessions() as session, session.begin():
            (await session.get_one(StripeSetup, "main")).portal_configuration_id = made.id
        url = await portal_url(shop.ctx, account_id=shop.account_id, return_url="https://shop.example/")
        assert url.startswith(shop.sim.url)
        other = await shop.another()
        with pytest.raises(KmError, match="bought nothing"):
            await portal_url(shop.ctx, account_id=other.account_id, return_url="https://shop.example/")


class TestSetupFees:
    async def test_of_an_add_on_is_not_that_of_a_plan(self, shop: Shop) -> None:
        by_stripe: dict[str, Any] = {"now": shop.ctx.now, "billed_by": "stripe"}
        extra = (a_price("flat", amount="10"), a_price("setup_fee", amount="7"))
        async with shop.sessions() as session, session.begin():
            await a_published_plan(session, code="pro", position=2, prices=(*GROWTH, SETUP_FEE), **by_stripe)
            await a_published_plan(session, code="extra", position=3, kind="add_on", prices=extra, **by_stripe)
        await push_what_waits(shop.ctx)
        bought = await shop.buy()
        asked: dict[str, Any] = {"subscription_id": bought.id, "actor": "ada"}
        assert (await add_on(shop.ctx, add_on_code="extra", **asked)).state == "done"
        assert (await shop.row()).setup_fee_at is None
        for plan in ("pro", "growth", "pro"):
            assert (await change_plan(shop.ctx, plan_code=plan, at="now", **asked)).state == "done"
        lines = [line for invoice in shop.at_stripe("invoice") for line in invoice["lines"]["data"]]
        assert [line["amount"] for line in lines if line["amount"] in {700, 2500}] == [700, 2500]
