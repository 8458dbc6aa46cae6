"""Discounts on invoices as closing makes them, over several billing periods."""

from datetime import date, timedelta

import pytest

from control_plane.billing.credit_notes.model import CreditedLine, Reason
from control_plane.billing.credit_notes.operations import CreditRequest, issue_credit_note
from control_plane.billing.discounts.model import Duration
from control_plane.billing.discounts.queries import discounts_of, taken_off
from control_plane.billing.discounts.redeeming import remove_discount
from control_plane.billing.line_scopes import LineScope
from control_plane.billing.payments.operations import pay_invoice, void_invoice
from control_plane.subscriptions.operations import change_plan
from tests.control_plane.billing.discounts.coupon_rows import a_coupon, redeem
from tests.control_plane.billing.invoices.billing_kit import DAY, FEB_1, GROWTH, HOUR, JAN_1, MAR_1
from tests.control_plane.builders import ACTOR

GRACE = 2 * HOUR
HALF_FEBRUARY = FEB_1 + 14 * DAY


@pytest.fixture
async def customer(billing):
    """Starter from 1 January: $49.00 a month, then $0.0015 for each request above 50,000."""
    await billing.plan()
    return await billing.customer()


async def give(billing, customer, *, at=JAN_1, starts=None, **terms):
    async with billing.sessions() as session, session.begin():
        coupon = await a_coupon(session, now=at, code=terms.pop("code", "spring"), **terms)
        return await redeem(session, customer.id, now=at, coupon=coupon.code, starts=starts)


async def amounts(billing, customer):
    """Subtotal and discount of every final invoice."""
    return [(one.subtotal_minor, one.discount_minor) for one in await billing.invoices(customer)]


class TestDiscountOnInvoices:
    async def test_is_on_what_is_charged_in_advance_and_by_use(self, billing, customer):
        row = await give(billing, customer)
        await billing.close(JAN_1 + HOUR)
        await billing.use(customer, 62_345, at=JAN_1 + 3 * DAY)
        await billing.close(FEB_1 + GRACE)
        # 12,345 above 50,000 are 18.52; 20 % of 67.52 is 13.504
        assert await amounts(billing, customer) == [(4_900, 980), (6_752, 1_350)]
        start, *_ = await billing.invoices(customer)
        assert start.discounts == [{"discount_id": row.id, "description": "Spring (20% off)", "amount_minor": 980}]
        assert (start.total_minor, start.amount_due_minor) == (3_920, 3_920)

    async def test_ends_after_its_months(self, billing, customer):
        await give(billing, customer, duration=Duration.MONTHS, count=1)
        await billing.close(JAN_1 + HOUR)
        await billing.use(customer, 60_000, at=JAN_1 + 3 * DAY)
        await billing.close(FEB_1 + GRACE)
        # of the second invoice January's use is discounted, February's price is not
        assert await amounts(billing, customer) == [(4_900, 980), (4_900 + 1_500, 300)]

    async def test_late_usage_of_a_discounted_period_is_discounted(self, billing, customer):
        await give(billing, customer, duration=Duration.ONCE)
        await billing.close(JAN_1 + HOUR)
        await billing.close(FEB_1 + GRACE)
        await billing.use(customer, 60_000, at=JAN_1 + 3 * DAY, known_at=FEB_1 + 5 * DAY)
        await billing.close(MAR_1 + GRACE)
        assert await amounts(billing, customer) == [(4_900, 980), (4_900, 0), (1_500 + 4_900, 300)]

    async def test_an_upgrade_credits_the_discount_with_the_price(self, billing, customer):
        await billing.plan("growth", **GROWTH)
        await give(billing, customer, duration=Duration.ONCE, starts="now")
        await billing.close(JAN_1 + HOUR)
        half = JAN_1 + timedelta(days=15, hours=12)
        async with billing.sessions() as session, session.begin():
            await change_plan(session, subscription_id=customer.id, plan_code="growth", actor=ACTOR, now=half)
        await billing.close(half)
        # half of Starter back, half of Growth: 99.50 - 24.50, less 20 %
        assert await amounts(billing, customer) == [(4_900, 980), (9_950 - 2_450, 1_500)]

    async def test_begun_between_it_credits_nothing_that_was_not_given(self, billing, customer):
        await billing.plan("growth", **GROWTH)
        await billing.close(JAN_1 + HOUR)
        half = JAN_1 + timedelta(days=15, hours=12)
        async with billing.sessions() as session, session.begin():
            await change_plan(session, subscription_id=customer.id, plan_code="growth", actor=ACTOR, now=half)
        await give(billing, customer, at=half)
        await billing.close(half)
        assert await amounts(billing, customer) == [(4_900, 0), (7_500, 1_990)]

    async def test_a_removed_one_holds_to_the_end_of_the_period(self, billing, customer):
        row = await give(billing, customer)
        await billing.close(JAN_1 + HOUR)
        async with billing.sessions() as session, session.begin():
            await remove_discount(
                session, subscription_id=customer.id, discount_id=row.id, actor=ACTOR, now=JAN_1 + DAY
            )
        await billing.use(customer, 60_000, at=JAN_1 + 3 * DAY)
        await billing.close(FEB_1 + GRACE)
        assert await amounts(billing, customer) == [(4_900, 980), (4_900 + 1_500, 300)]

    async def test_an_amount_off_is_for_each_period_and_several_apply_in_turn(self, billing, customer):
        await give(billing, customer, code="ten", amount_minor=1_000, currency="USD")
        await give(billing, customer, code="half", percent=50)
        await billing.close(JAN_1 + HOUR)
        await billing.use(customer, 60_000, at=JAN_1 + 3 * DAY)
        await billing.close(FEB_1 + GRACE)
        # 10.00 and half of 39.00; then 10.00 off February, January's is used up, and half of 54.00
        assert await amounts(billing, customer) == [(4_900, 1_000 + 1_950), (6_400, 1_000 + 2_700)]
        async with billing.sessions() as session:
            held = await discounts_of(session, customer.id)
            assert [(one.taken_minor, one.periods_taken) for one in held] == [(2_000, 2), (4_650, 2)]
            assert await taken_off(session, [held[1].row.coupon_id]) == {held[1].row.coupon_id: {"USD": 4_650}}

    async def test_nothing_to_pay_is_paid(self, billing, customer):
        await give(billing, customer, percent=100)
        await billing.close(JAN_1 + HOUR)
        (start,) = await billing.invoices(customer)
        assert (start.total_minor, start.status) == (0, "paid")

    async def test_of_a_void_invoice_it_is_given_again(self, billing, customer):
        await give(billing, customer, duration=Duration.ONCE, amount_minor=2_000, currency="USD")
        await billing.close(JAN_1 + HOUR)
        (start,) = await billing.invoices(customer)
        async with billing.sessions() as session, session.begin():
            await void_invoice(session, invoice_id=start.id, reason="wrong", actor=ACTOR, now=JAN_1 + DAY)
        await billing.close(JAN_1 + DAY + HOUR)
        assert await amounts(billing, customer) == [(4_900, 2_000), (4_900, 2_000)]

    async def test_of_other_lines_is_not_taken_back_with_a_line(self, billing, customer):
        await give(billing, customer, percent=50, scope=LineScope.FIXED)
        await billing.close(JAN_1 + HOUR)
        await billing.use(customer, 62_345, at=JAN_1 + 3 * DAY)
        await billing.close(FEB_1 + GRACE)
        _, period = await billing.invoices(customer)
        assert [line.amount_minor for line in period.lines] == [1_852, 4_900]
        parts = []
        for line in period.lines:
            request = CreditRequest(
                reason=Reason.GOODWILL, lines=(CreditedLine(position=line.position, amount_minor=1_000),)
            )
            async with billing.sessions() as session, session.begin():
                note = await issue_credit_note(
                    session,
                    invoice_id=period.id,
                    request=request,
                    idempotency_key=line.id,
                    actor=ACTOR,
                    now=FEB_1 + DAY,
                )
            parts.append((note.discount_minor, note.total_minor))
        assert parts == [(0, 1_000), (500, 500)]

    @pytest.mark.parametrize("terms", [{"amount_minor": 2_000, "currency": "USD"}, {"percent": 50}])
    async def test_of_what_was_corrected_though_it_was_due_it_is_given_again(self, billing, customer, terms):
        await give(billing, customer, **terms)
        await billing.close(JAN_1 + HOUR)
        (start,) = await billing.invoices(customer)
        async with billing.sessions() as session, session.begin():
            note = await issue_credit_note(
                session,
                invoice_id=start.id,
                request=CreditRequest(
                    reason=Reason.CORRECTION, lines=(CreditedLine(position=1, amount_minor=2_450),)
                ),
                idempotency_key="k",
                actor=ACTOR,
                now=JAN_1 + DAY,
            )
        assert (note.subtotal_minor, note.discount_minor) == (2_450, start.discount_minor // 2)
        await billing.close(JAN_1 + DAY + HOUR)
        assert await amounts(billing, customer) == [
            (4_900, start.discount_minor),
            (2_450, note.discount_minor),
        ]

    async def test_is_off_before_a_payment_is_asked_for(self, billing, customer):
        await give(billing, customer, percent=50)
        await billing.close(JAN_1 + HOUR)
        (start,) = await billing.invoices(customer)
        async with billing.sessions() as session, session.begin():
            await pay_invoice(
                session, invoice_id=start.id, reference="t", paid_on=date(2026, 1, 2), actor=ACTOR, now=JAN_1 + DAY
            )
        (start,) = await billing.invoices(customer)
        assert (start.status, start.amount_paid_minor) == ("paid", 2_450)
