"""What was billed too much comes back once: by a credit note now, or with the next invoice, never by both."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from control_plane.billing.balance.queries import balances_of_account
from control_plane.billing.credit_notes.model import CreditedLine, Reason
from control_plane.billing.credit_notes.operations import CreditRequest, issue_credit_note
from control_plane.billing.payments.operations import void_invoice
from control_plane.foundation.clock import floor_hour
from control_plane.usage.tables import UsageHourly
from tests.control_plane.billing.invoices.billing_kit import (
    DAY,
    FEB_1,
    HOUR,
    JAN_1,
    MAR_1,
    Billing,
    as_table,
)
from tests.control_plane.builders import ACTOR

USED_AT = JAN_1 + 3 * DAY


@pytest.fixture
def billing(sessions) -> Billing:
    return Billing(sessions)


async def a_customer(billing):
    """62,345 requests of Starter in January: 12,345 above the quota, $18.52; billed on 1 February."""
    await billing.plan()
    customer = await billing.customer()
    await billing.close(JAN_1)
    await billing.use(customer, 62_345, at=USED_AT)
    await billing.close(FEB_1 + HOUR)
    return customer


async def take_out(billing, customer, units, *, known_at):
    """Take requests of January out of the count, as a void does."""
    async with billing.sessions() as session, session.begin():
        hour = floor_hour(USED_AT)
        row = await session.scalar(
            select(UsageHourly).where(UsageHourly.account_id == customer.account_id, UsageHourly.hour == hour)
        )
        row.billable_calls -= units
        row.billable_units -= units
        row.revision = await billing._touch(session, customer.account_id, hour, known_at)


async def credit(billing, customer, reason, amount_minor, *, now=FEB_1 + DAY):
    """Credit the requests of the invoice of 1 February."""
    invoice = (await billing.invoices(customer))[1]
    async with billing.sessions() as session, session.begin():
        position = next(line.position for line in invoice.lines if line.description == "Requests")
        request = CreditRequest(reason=reason, lines=(CreditedLine(position=position, amount_minor=amount_minor),))
        return await issue_credit_note(
            session, invoice_id=invoice.id, request=request, idempotency_key="k", actor=ACTOR, now=now
        )


async def of_january(billing, customer):
    """What later invoices charge or give back of January's requests."""
    later = (await billing.invoices(customer))[2:]
    return sum(line.amount_minor for one in later for line in one.lines if line.period_start == JAN_1)


# what is credited (before, after) the requests are taken out, whether they are, and what comes later of January:
# 2,345 requests fewer are $3.52 less
CORRECTION, GOODWILL = Reason.CORRECTION, Reason.GOODWILL
SCENARIOS = {
    "without a note the next invoice gives it back": (None, None, True, -352),
    "a correction gives it now, and the next invoice nothing": ((CORRECTION, 352), None, True, 0),
    "it does not matter which comes first": (None, (CORRECTION, 352), True, 0),
    "of a correction in part the next invoice gives the rest": ((CORRECTION, 100), None, True, -252),
    "of one that is too high it takes the rest": (None, (CORRECTION, 400), True, 48),
    "a correction of what was right is charged again": ((CORRECTION, 352), None, False, 352),
    "goodwill is given on top": ((GOODWILL, 352), None, True, -352),
    "goodwill alone is not charged again": (None, (GOODWILL, 352), False, 0),
}


class TestNeverTwice:
    async def test_whatever_comes_first_the_money_comes_back_once(self, billing):
        await billing.plan()
        customers = {name: await billing.customer() for name in SCENARIOS}
        await billing.close(JAN_1)
        for customer in customers.values():
            await billing.use(customer, 62_345, at=USED_AT)
        await billing.close(FEB_1 + HOUR)
        for name, (before, _, taken_out, _) in SCENARIOS.items():
            if before is not None:
                await credit(billing, customers[name], *before)
            if taken_out:
                await take_out(billing, customers[name], 2_345, known_at=FEB_1 + 2 * DAY)
        await billing.close(FEB_1 + 3 * DAY)
        for name, (_, after, _, _) in SCENARIOS.items():
            if after is not None:
                await credit(billing, customers[name], *after, now=FEB_1 + 4 * DAY)
        await billing.close(MAR_1 + HOUR)
        found = {name: await of_january(billing, customer) for name, customer in customers.items()}
        assert found == {name: expected for name, (*_, expected) in SCENARIOS.items()}

    async def test_an_ended_subscription_gets_its_correction_by_itself_or_by_a_note(self, billing):
        customer = await a_customer(billing)
        await billing.cancel(customer, now=FEB_1 + DAY)
        await billing.close(FEB_1 + DAY)
        await credit(billing, customer, Reason.CORRECTION, 100, now=FEB_1 + DAY)
        await take_out(billing, customer, 2_345, known_at=FEB_1 + 2 * DAY)
        await billing.close(FEB_1 + 4 * DAY)
        await billing.close(FEB_1 + 4 * DAY + 2 * HOUR)
        assert await of_january(billing, customer) == -252
        async with billing.sessions() as session:
            (balance,) = await balances_of_account(session, customer.account_id)
        # the note took $1.00 off what was due; the rest could only go to the balance
        assert balance.amount_minor == 252


class TestVoid:
    async def test_what_a_void_invoice_charged_is_charged_again_once(self, billing):
        customer = await a_customer(billing)
        start, period = await billing.invoices(customer)
        async with billing.sessions() as session, session.begin():
            await void_invoice(session, invoice_id=period.id, reason="wrong buyer", actor=ACTOR, now=FEB_1 + DAY)
        await billing.close(FEB_1 + DAY)
        await billing.close(MAR_1 + HOUR)
        await billing.close(MAR_1 + 2 * HOUR + timedelta(days=2))
        lines = [line for one in (await billing.invoices(customer))[2:] for line in one.lines]
        of_void = sorted((line.period_start, line.amount_minor) for line in lines if line.period_start < MAR_1)
        assert [amount for _, amount in of_void if amount] == [1_852, 4_900]
        assert start.status == "open"
        assert as_table([period]) == [("period", [("Requests", 1_852), ("Starter plan", 4_900)])]
