"""Plans that change within a period: what Stripe bills at once, what we add later, what was expected."""

from datetime import timedelta
from decimal import Decimal

from sqlalchemy import select

from control_plane.billing.discounts.coupons import create_coupon, create_promotion_code
from control_plane.billing.discounts.model import CodeTerms, CouponTerms, Duration
from control_plane.catalog.model import PriceTerms
from control_plane.stripe_sync.invoices.checking import check_invoices
from control_plane.stripe_sync.invoices.expected import InvoiceEvent
from control_plane.stripe_sync.invoices.mirror import apply_invoice
from control_plane.stripe_sync.invoices.standing import expected_invoice
from control_plane.stripe_sync.invoices.tables import StripeAdjustment, StripeInvoiceCheck
from control_plane.stripe_sync.invoices.waiting import waiting_lines
from control_plane.stripe_sync.subscriptions.requests import change_plan
from control_plane.subscriptions.own_terms import override_limits
from tests.control_plane.builders import ACTOR
from tests.control_plane.stripe_sync.invoices.conftest import BOUGHT_AT, ENDS_AT, HOUR, Bought

FIRST_HOUR = BOUGHT_AT.replace(minute=0, second=0)
FLAT_99 = PriceTerms(model="flat", meter=None, params={"amount": "99.00"})
MORE = PriceTerms(model="overage", meter="requests", params={"included": 5_000, "unit_amount": "0.01"})


async def expected_of(bought: Bought, event: InvoiceEvent, *, to: str | None = None) -> int:
    waiting = []
    if event is InvoiceEvent.PERIOD_END:
        [customer] = bought.sim.control.dump("customer")["customer"]
        waiting = await waiting_lines(
            bought.ctx.stripe, customer_id=customer["id"], stripe_subscription_id=bought.stripe_id
        )
    async with bought.sessions() as session:
        held = None if to is None else {to: 1}
        found = await expected_invoice(
            session, bought.subscription_id, now=bought.ctx.now, event=event, to=held, waiting=waiting
        )
        return found.invoice.total_minor


class TestUpgrade:
    async def test_is_billed_as_expected_and_usage_that_came_later_is_on_the_next(self, bought: Bought) -> None:
        await bought.plan("pro")
        bigger = await bought.plan("bigger", FLAT_99, MORE, position=1)
        await bought.buy("pro")
        await apply_invoice(bought.ctx, bought.latest()["id"])
        bought.at(BOUGHT_AT + timedelta(days=9, hours=5, minutes=11, seconds=7))
        await bought.use(1_100, hour=FIRST_HOUR + 5 * HOUR)
        expected = await expected_of(bought, InvoiceEvent.CHANGE, to=bigger)
        await change_plan(
            bought.ctx, subscription_id=bought.subscription_id, plan_code="bigger", at="now", actor=ACTOR
        )
        upgraded = await bought.hear()
        assert (upgraded.billing_reason, upgraded.status) == ("subscription_update", "paid")
        assert upgraded.total_minor == expected
        # by seconds: 69.57 for what is left of the one plan, 34.43 back for the other, 100 requests at 1.5 cents
        assert expected == 6_957 - 3_443 + 150
        await bought.use(40, hour=FIRST_HOUR + 9 * 24 * HOUR + 4 * HOUR, phase=0)
        await bought.use(5_010, hour=FIRST_HOUR + 20 * 24 * HOUR)
        at_end = await expected_of(bought, InvoiceEvent.PERIOD_END)
        assert at_end == 9_900 + 10 + 60
        bought.at(ENDS_AT + HOUR / 6)
        await bought.hear()
        await bought.work()
        async with bought.sessions() as session:
            [late] = await session.scalars(select(StripeAdjustment))
        assert (late.cause, late.amount_minor, late.details["units"]) == ("late_usage", 60, 40)
        bought.at(ENDS_AT + 2 * HOUR)
        assert (await bought.hear()).total_minor == at_end
        await check_invoices(bought.ctx)
        async with bought.sessions() as session:
            checks = await session.scalars(select(StripeInvoiceCheck))
            assert [check.differences for check in checks] == [[], [], []]


class TestOwnQuota:
    async def test_takes_off_what_stripe_charges_above_the_plans_and_no_more_than_discounts_left(
        self, bought: Bought
    ) -> None:
        await bought.plan("pro")
        async with bought.sessions() as session, session.begin():
            half = CouponTerms(name="Half", percent=Decimal(50), duration=Duration.FOREVER)
            by_us = {"actor": ACTOR, "now": bought.ctx.now}
            await create_coupon(session, code="half", terms=half, **by_us)
            await create_promotion_code(session, code="HALF-OFF", coupon_code="half", terms=CodeTerms(), **by_us)
        await bought.buy("pro", promotion_code="HALF-OFF")
        async with bought.sessions() as session, session.begin():
            await override_limits(
                session, subscription_id=bought.subscription_id, quota_units=1_500, actor=ACTOR, now=bought.ctx.now
            )
        bought.at(BOUGHT_AT + 20 * HOUR)
        await bought.use(1_700, hour=FIRST_HOUR + 5 * HOUR)
        expected = await expected_of(bought, InvoiceEvent.PERIOD_END)
        bought.at(ENDS_AT + HOUR / 6)
        await bought.hear()
        await bought.work()
        async with bought.sessions() as session:
            [own] = await session.scalars(select(StripeAdjustment))
        assert (own.cause, own.amount_minor, own.details["item_minor"]) == ("allowance", -750, -375)
        bought.at(ENDS_AT + 2 * HOUR)
        # half of 49.00 and of the 200 requests above the own quota
        assert (await bought.hear()).total_minor == expected == 2_450 + 150
