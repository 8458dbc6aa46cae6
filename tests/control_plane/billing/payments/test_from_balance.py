"""What came into a balance later pays an open invoice: once for each reference, and never more than there is."""

import asyncio

import pytest

from control_plane.billing.balance.entries import BalanceTooLowError
from control_plane.billing.balance.operations import adjust_balance
from control_plane.billing.balance.queries import balances_of_account
from control_plane.billing.discounts.tables import FirstPayment
from control_plane.billing.payments.from_balance import pay_from_balance
from control_plane.billing.payments.model import (
    InvoiceStepRefusedError,
    PaymentExceedsDueError,
    PaymentReferenceTakenError,
    left_minor,
)
from control_plane.billing.payments.operations import payments_of_invoice
from tests.control_plane.billing.final_invoices import a_final_invoice
from tests.control_plane.billing.payments.test_payments import pay
from tests.control_plane.builders import ACTOR, an_account, audit_of


@pytest.fixture
async def account(session, now):
    return await an_account(session, now=now)


async def add(session, account, amount_minor, *, now):
    await adjust_balance(
        session,
        account_id=account.id,
        currency="USD",
        amount_minor=amount_minor,
        reason="goodwill",
        actor=ACTOR,
        now=now,
    )


async def take(session, invoice, amount_minor=None, *, now, reference="balance"):
    return await pay_from_balance(
        session, invoice_id=invoice.id, amount_minor=amount_minor, reference=reference, actor=ACTOR, now=now
    )


async def balance(session, account):
    return {row.currency: row.amount_minor for row in await balances_of_account(session, account.id)}["USD"]


class TestPayFromBalance:
    async def test_pays_all_that_is_left_and_leaves_the_rest(self, session, account, now):
        invoice = await a_final_invoice(session, account.id, amounts=(4_900,), now=now)
        await add(session, account, 6_000, now=now)
        payment = await take(session, invoice, now=now)
        assert (payment.kind, payment.amount_minor, invoice.status) == ("balance", 4_900, "paid")
        assert await balance(session, account) == 1_100
        assert [row.action for row in await audit_of(session, invoice.id)][-1] == "invoice.paid_from_balance"

    async def test_goes_as_far_as_the_balance_goes(self, session, account, now):
        invoice = await a_final_invoice(session, account.id, amounts=(4_900,), now=now)
        await add(session, account, 1_000, now=now)
        await take(session, invoice, now=now)
        assert (invoice.status, left_minor(invoice), await balance(session, account)) == ("open", 3_900, 0)
        with pytest.raises(BalanceTooLowError, match=r"holds 0\.00 USD"):
            await take(session, invoice, now=now, reference="again")
        await pay(session, invoice, now=now)
        assert invoice.status == "paid"

    async def test_the_same_reference_counts_once(self, session, account, now):
        invoice = await a_final_invoice(session, account.id, amounts=(4_900,), now=now)
        await add(session, account, 6_000, now=now)
        first = await take(session, invoice, 1_000, now=now)
        assert (await take(session, invoice, now=now)).id == first.id
        with pytest.raises(PaymentReferenceTakenError):
            await take(session, invoice, 2_000, now=now)
        assert (left_minor(invoice), await balance(session, account)) == (3_900, 5_000)
        assert len(await payments_of_invoice(session, invoice.id)) == 1

    async def test_refuses_more_than_is_left_or_there_and_what_is_paid(self, session, account, now):
        invoice = await a_final_invoice(session, account.id, amounts=(4_900,), now=now)
        await add(session, account, 6_000, now=now)
        with pytest.raises(PaymentExceedsDueError):
            await take(session, invoice, 5_000, now=now)
        other = await a_final_invoice(session, account.id, amounts=(9_000,), now=now)
        with pytest.raises(BalanceTooLowError):
            await take(session, other, 7_000, now=now)
        await take(session, invoice, now=now)
        with pytest.raises(InvoiceStepRefusedError):
            await take(session, invoice, now=now, reference="again")

    async def test_takes_no_more_than_there_is_where_two_invoices_are_paid_at_once(self, sessions, now):
        async with sessions() as session, session.begin():
            account = await an_account(session, now=now)
            invoices = [await a_final_invoice(session, account.id, amounts=(4_900,), now=now) for _ in range(2)]
            await add(session, account, 6_000, now=now)

        async def one(invoice):
            async with sessions() as session, session.begin():
                return (await take(session, invoice, now=now)).amount_minor

        assert sorted(await asyncio.gather(*map(one, invoices))) == [1_100, 4_900]

    async def test_is_no_first_payment_unless_money_came_in(self, session, account, now):
        await add(session, account, 6_000, now=now)
        first = await a_final_invoice(session, account.id, amounts=(4_900,), now=now)
        await take(session, first, now=now)
        assert await session.get(FirstPayment, account.id) is None
        second = await a_final_invoice(session, account.id, amounts=(4_900,), now=now)
        await pay(session, second, 4_000, now=now)
        await take(session, second, now=now)
        assert (second.status, (await session.get(FirstPayment, account.id)).invoice_id) == ("paid", second.id)
