"""An invoice that is final: paid once however often it is told, made void, given up."""

import asyncio
from datetime import date, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from control_plane.billing.balance.operations import adjust_balance
from control_plane.billing.balance.queries import balances_of_account
from control_plane.billing.invoices.queries import invoice as invoice_by_id
from control_plane.billing.manual_invoices.operations import create_draft
from control_plane.billing.payments import operations
from control_plane.billing.payments.model import (
    InvoiceNotVoidableError,
    InvoiceStepRefusedError,
    PaymentExceedsDueError,
    PaymentReferenceTakenError,
    left_minor,
)
from control_plane.billing.payments.operations import (
    check_payment,
    give_up_invoice,
    pay_invoice,
    payments_of_invoice,
    void_invoice,
)
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from tests.control_plane.billing.final_invoices import a_final_invoice
from tests.control_plane.builders import ACTOR, an_account, audit_of

PAID_ON = date(2026, 3, 17)


@pytest.fixture
async def invoice(session, now):
    account = await an_account(session, now=now)
    return await a_final_invoice(session, account.id, amounts=(4_900,), now=now)


async def pay(session, invoice, amount_minor=None, *, now, **options):
    options = {"reference": "transfer 1", "paid_on": PAID_ON, **options}
    return await pay_invoice(
        session, invoice_id=invoice.id, amount_minor=amount_minor, **options, actor=ACTOR, now=now
    )


async def balance_of(session, account_id):
    return {row.currency: row.amount_minor for row in await balances_of_account(session, account_id)}


class TestPayInvoice:
    async def test_is_paid_when_nothing_is_left(self, session, invoice, now):
        await pay(session, invoice, 1_900, now=now)
        assert (invoice.status, left_minor(invoice)) == ("open", 3_000)
        later = now + timedelta(days=1)
        await pay(session, invoice, 3_000, reference="transfer 2", now=later)
        assert (invoice.status, invoice.paid_at, left_minor(invoice)) == ("paid", later, 0)
        rows = [row for row in await audit_of(session, invoice.id) if row.action == "invoice.paid"]
        assert [row.after["status"] for row in rows] == ["open", "paid"]

    async def test_without_an_amount_all_that_is_left_is_paid(self, session, invoice, now):
        await pay(session, invoice, 1_000, now=now)
        payment = await pay(session, invoice, reference="rest", now=now)
        assert (payment.amount_minor, invoice.status) == (3_900, "paid")

    async def test_the_same_reference_counts_once(self, session, invoice, now):
        first = await pay(session, invoice, 4_900, now=now)
        assert (await pay(session, invoice, 4_900, now=now)).id == first.id
        assert (await pay(session, invoice, now=now)).id == first.id
        assert (invoice.amount_paid_minor, len(await payments_of_invoice(session, invoice.id))) == (4_900, 1)

    async def test_the_same_reference_counts_once_when_it_comes_twice_at_the_same_time(self, sessions, now):
        async with sessions() as session, session.begin():
            account = await an_account(session, now=now)
            invoice = await a_final_invoice(session, account.id, now=now)

        async def one():
            async with sessions() as session, session.begin():
                return (await pay(session, invoice, 2_000, now=now)).id

        assert len(set(await asyncio.gather(one(), one(), one()))) == 1
        async with sessions() as session:
            assert (await invoice_by_id(session, invoice.id)).amount_paid_minor == 2_000

    async def test_refuses_another_amount_under_the_same_reference(self, session, invoice, now):
        await pay(session, invoice, 1_000, now=now)
        with pytest.raises(PaymentReferenceTakenError, match=r"10.00 USD was noted"):
            await pay(session, invoice, 2_000, now=now)

    async def test_one_transfer_may_pay_two_invoices(self, session, invoice, now):
        other = await a_final_invoice(session, invoice.account_id, now=now)
        await pay(session, invoice, now=now)
        await pay(session, other, now=now)
        assert (invoice.status, other.status) == ("paid", "paid")

    async def test_refuses_more_than_is_left_unless_the_rest_goes_to_the_balance(self, session, invoice, now):
        with pytest.raises(PaymentExceedsDueError, match=r"Only 49.00 USD"):
            await pay(session, invoice, 5_000, now=now)
        payment = await pay(session, invoice, 5_000, surplus_to_balance=True, now=now)
        assert (payment.surplus_minor, invoice.amount_paid_minor, invoice.status) == (100, 4_900, "paid")
        assert await balance_of(session, invoice.account_id) == {"USD": 100}
        await pay(session, invoice, 5_000, surplus_to_balance=True, now=now)
        assert await balance_of(session, invoice.account_id) == {"USD": 100}

    async def test_refuses_what_is_not_owed(self, session, invoice, now):
        await void_invoice(session, invoice_id=invoice.id, reason="wrong", actor=ACTOR, now=now)
        draft = await create_draft(session, account_id=invoice.account_id, actor=ACTOR, now=now)
        for one in (invoice, draft):
            with pytest.raises(InvoiceStepRefusedError, match=f"is {one.status}: it cannot be paid"):
                await pay(session, one, 100, now=now)

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"amount_minor": 0}, "amount_minor"),
            ({"paid_on": date(2026, 3, 19)}, "paid_on"),
            ({"reference": " "}, "reference"),
            ({"method": "a\nb"}, "method"),
        ],
    )
    def test_refuses_what_cannot_be(self, now, wrong, field):
        given = {"amount_minor": None, "paid_on": PAID_ON, "reference": "r", "method": "", **wrong}
        with pytest.raises(ValidationFailedError) as refused:
            check_payment(**given, now=now)
        assert refused.value.field == field

    async def test_refuses_an_invoice_that_is_not_there(self, session, now):
        with pytest.raises(NotFoundError):
            await pay_invoice(session, invoice_id="inv_x", paid_on=PAID_ON, reference="r", actor=ACTOR, now=now)

    async def test_the_first_to_be_paid_rewards_the_referrer(self, session, invoice, now, monkeypatch):
        rewarded = []

        async def reward(_session, *, invoice, now):
            rewarded.append((invoice.id, now))

        monkeypatch.setattr(operations, "reward_first_payment", reward)
        await pay(session, invoice, 900, now=now)
        assert rewarded == []
        await pay(session, invoice, reference="rest", now=now)
        assert rewarded == [(invoice.id, now)]

    async def test_the_database_refuses_to_change_what_was_noted(self, session, invoice, now):
        payment = await pay(session, invoice, 900, now=now)
        payment.amount_minor = 1
        with pytest.raises(IntegrityError, match="never changed"):
            await session.flush()


class TestVoidInvoice:
    async def test_gives_back_what_the_balance_paid_and_bills_its_lines_anew(self, session, now):
        account = await an_account(session, now=now)
        await adjust_balance(
            session, account_id=account.id, currency="USD", amount_minor=50, reason="r", actor=ACTOR, now=now
        )
        invoice = await a_final_invoice(session, account.id, balance_applied_minor=900, now=now)
        voided = await void_invoice(session, invoice_id=invoice.id, reason="wrong buyer", actor=ACTOR, now=now)
        assert (voided.status, voided.voided_at) == ("void", now)
        assert await balance_of(session, account.id) == {"USD": 950}
        await void_invoice(session, invoice_id=invoice.id, reason="wrong buyer", actor=ACTOR, now=now)
        assert await balance_of(session, account.id) == {"USD": 950}
        (row,) = [row for row in await audit_of(session, invoice.id) if row.action == "invoice.voided"]
        assert row.after["reason"] == "wrong buyer"

    async def test_refuses_what_was_paid_in_part(self, session, invoice, now):
        await pay(session, invoice, 1, now=now)
        with pytest.raises(InvoiceNotVoidableError):
            await void_invoice(session, invoice_id=invoice.id, reason="r", actor=ACTOR, now=now)

    async def test_refuses_what_is_paid(self, session, invoice, now):
        await pay(session, invoice, now=now)
        with pytest.raises(InvoiceStepRefusedError, match="is paid: it cannot be made void"):
            await void_invoice(session, invoice_id=invoice.id, reason="r", actor=ACTOR, now=now)

    async def test_wants_a_reason(self, session, invoice, now):
        with pytest.raises(ValidationFailedError):
            await void_invoice(session, invoice_id=invoice.id, reason=" ", actor=ACTOR, now=now)


class TestGiveUpInvoice:
    async def test_an_uncollectible_invoice_can_still_be_paid(self, session, invoice, now):
        await give_up_invoice(session, invoice_id=invoice.id, reason="bankrupt", actor=ACTOR, now=now)
        assert invoice.status == "uncollectible"
        await pay(session, invoice, now=now)
        assert invoice.status == "paid"

    async def test_refuses_a_void_one(self, session, invoice, now):
        await void_invoice(session, invoice_id=invoice.id, reason="r", actor=ACTOR, now=now)
        with pytest.raises(InvoiceStepRefusedError, match="is void: it cannot be called uncollectible"):
            await give_up_invoice(session, invoice_id=invoice.id, reason="r", actor=ACTOR, now=now)
