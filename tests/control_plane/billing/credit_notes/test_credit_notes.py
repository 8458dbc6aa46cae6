"""Credit notes in the database: numbered, never more than the invoice, and where the money goes."""

import asyncio

import pytest
from sqlalchemy.exc import IntegrityError

from control_plane.billing.balance.operations import IdempotencyKeyTakenError
from control_plane.billing.balance.queries import balances_of_account
from control_plane.billing.credit_notes.disputed import DisputeNotDecidedError
from control_plane.billing.credit_notes.model import CreditedLine, CreditExceedsInvoiceError, Reason
from control_plane.billing.credit_notes.operations import (
    CorrectionNeedsLinesError,
    CreditRequest,
    _check,
    issue_credit_note,
)
from control_plane.billing.credit_notes.queries import notes_of_invoice
from control_plane.billing.credit_notes.refunds import RefundExceedsCreditError, note_refund
from control_plane.billing.credits.queries import credit_sums
from control_plane.billing.invoices.finalising import InvoiceTerms
from control_plane.billing.invoices.queries import invoice as invoice_by_id
from control_plane.billing.payments.model import InvoiceStepRefusedError
from control_plane.billing.payments.operations import pay_invoice, void_invoice
from control_plane.billing.prepaid.purchases import NewPurchase, sell_credits
from control_plane.billing.profiles.model import Seller
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.usage.requests.disputes import operations as disputes
from control_plane.usage.requests.disputes.model import Decision, DisputeFacts, Step
from tests.control_plane.billing.final_invoices import DEC_1, a_final_invoice
from tests.control_plane.builders import ACTOR, an_account, audit_of

VAT = {"name": "VAT", "percent": "20", "taxable_minor": 15_000, "amount_minor": 3_000, "note": ""}
GOODWILL = CreditRequest(reason=Reason.GOODWILL)


@pytest.fixture
async def invoice(session):
    """Lines of $100.00 and $50.00 and $30.00 of tax: $180.00."""
    account = await an_account(session, now=DEC_1)
    return await a_final_invoice(session, account.id, amounts=(10_000, 5_000), taxes=[VAT])


async def credit(session, invoice, request=GOODWILL, *, key="k1"):
    return await issue_credit_note(
        session, invoice_id=invoice.id, request=request, idempotency_key=key, actor=ACTOR, now=DEC_1
    )


async def pay(session, invoice, amount_minor=None):
    await pay_invoice(
        session,
        invoice_id=invoice.id,
        amount_minor=amount_minor,
        paid_on=DEC_1.date(),
        reference="wire",
        actor=ACTOR,
        now=DEC_1,
    )


async def balance_of(session, account_id):
    return {row.currency: row.amount_minor for row in await balances_of_account(session, account_id)}


def ways(note):
    return note.to_due_minor, note.to_balance_minor, note.to_outside_minor


class TestIssueCreditNote:
    async def test_takes_back_a_share_of_the_discount_where_lines_do_not_say_theirs(self, session):
        account = await an_account(session, now=DEC_1)
        invoice = await a_final_invoice(session, account.id, amounts=(10_000, 5_000), discount_minor=1_500)
        lines = (CreditedLine(position=2),)
        note = await credit(session, invoice, CreditRequest(reason=Reason.GOODWILL, lines=lines))
        assert (note.discount_minor, note.total_minor) == (500, 4_500)

    async def test_takes_off_what_is_due(self, session, invoice):
        note = await credit(session, invoice, CreditRequest(reason=Reason.GOODWILL, amount_minor=6_000))
        assert (note.number, note.total_minor, note.tax_minor, ways(note)) == (
            "CN-000001",
            6_000,
            1_000,
            (6_000, 0, 0),
        )
        assert (invoice.status, invoice.credited_minor) == ("open", 6_000)
        await credit(session, invoice, key="k2")
        assert (invoice.status, invoice.paid_at, invoice.credited_minor) == ("paid", DEC_1, 18_000)
        rows = [row.after for row in await audit_of(session, invoice.id) if row.action == "invoice.credited"]
        assert [row["credit_note"] for row in rows] == ["CN-000001", "CN-000002"]

    async def test_what_was_paid_goes_to_the_balance(self, session, invoice):
        await pay(session, invoice, 16_000)
        note = await credit(session, invoice)
        assert ways(note) == (2_000, 16_000, 0)
        assert await balance_of(session, invoice.account_id) == {"USD": 16_000}

    async def test_or_out_of_the_house_as_far_as_it_was_paid_in_money(self, session):
        account = await an_account(session, now=DEC_1)
        invoice = await a_final_invoice(session, account.id, amounts=(10_000,), credits_applied_minor=4_000)
        await pay(session, invoice)
        note = await credit(session, invoice, CreditRequest(reason=Reason.GOODWILL, surplus="outside"))
        # $40.00 were prepaid credits: they cannot be paid out
        assert ways(note) == (0, 4_000, 6_000)

    async def test_the_same_key_gives_the_same_note_and_refuses_another_request(self, session, invoice):
        first = await credit(session, invoice, CreditRequest(reason=Reason.GOODWILL, amount_minor=100))
        again = await credit(session, invoice, CreditRequest(reason=Reason.GOODWILL, amount_minor=100))
        assert again.id == first.id
        with pytest.raises(IdempotencyKeyTakenError):
            await credit(session, invoice, CreditRequest(reason=Reason.GOODWILL, amount_minor=101))

    async def test_notes_at_the_same_time_never_take_back_more_than_the_invoice(self, sessions):
        async with sessions() as session, session.begin():
            account = await an_account(session, now=DEC_1)
            invoice = await a_final_invoice(session, account.id, amounts=(10_000,))

        async def one(key):
            async with sessions() as session, session.begin():
                request = CreditRequest(reason=Reason.GOODWILL, amount_minor=4_000)
                try:
                    return (await credit(session, invoice, request, key=key)).number
                except CreditExceedsInvoiceError:
                    return None

        made = await asyncio.gather(*(one(f"k{number}") for number in range(4)))
        # a note that is refused takes no number
        assert sorted(filter(None, made)) == ["CN-000001", "CN-000002"]
        async with sessions() as session:
            assert (await invoice_by_id(session, invoice.id)).credited_minor == 8_000

    async def test_refuses_a_void_invoice(self, session, invoice):
        await void_invoice(session, invoice_id=invoice.id, reason="r", actor=ACTOR, now=DEC_1)
        with pytest.raises(InvoiceStepRefusedError, match="is void: it cannot be credited"):
            await credit(session, invoice)

    async def test_an_invoice_that_gave_back_has_nothing_to_be_credited(self, session):
        account = await an_account(session, now=DEC_1)
        invoice = await a_final_invoice(session, account.id, amounts=(-500,), balance_applied_minor=-500)
        with pytest.raises(CreditExceedsInvoiceError):
            await credit(session, invoice)

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"lines": (CreditedLine(position=1),), "amount_minor": 5}, "amount_minor"),
            ({"amount_minor": 0}, "amount_minor"),
            ({"dispute_id": "dsp_x"}, "dispute_id"),
            ({"reason": Reason.DISPUTE}, "dispute_id"),
            ({"note": "x" * 1_001}, "note"),
        ],
    )
    def test_refuses_what_does_not_go_together(self, wrong, field):
        with pytest.raises(ValidationFailedError) as refused:
            _check(CreditRequest(**{"reason": Reason.GOODWILL, **wrong}), "k1")
        assert refused.value.field == field

    async def test_a_correction_names_lines(self, session, invoice):
        with pytest.raises(CorrectionNeedsLinesError):
            await credit(session, invoice, CreditRequest(reason=Reason.CORRECTION, amount_minor=100))
        note = await credit(session, invoice, CreditRequest(reason=Reason.CORRECTION))
        assert note.lowers_billed
        lines = (await invoice_by_id(session, invoice.id)).lines
        await session.refresh(lines[0])
        assert lines[0].corrected_minor == 10_000

    async def test_the_database_refuses_to_change_it(self, session, invoice):
        note = await credit(session, invoice)
        note.note = "another"
        with pytest.raises(IntegrityError, match="never changed"):
            await session.flush()

    async def test_credits_that_were_bought_are_granted_when_the_rest_is_credited(self, session):
        account = await an_account(session, now=DEC_1)
        purchase = NewPurchase(amount_minor=10_000)
        terms = InvoiceTerms(seller=Seller())
        invoice = await sell_credits(
            session, account_id=account.id, purchase=purchase, terms=terms, actor=ACTOR, now=DEC_1
        )
        await pay(session, invoice, 6_000)
        lines = (CreditedLine(position=1, amount_minor=4_000),)
        await credit(session, invoice, CreditRequest(reason=Reason.CORRECTION, lines=lines))
        (sums,) = await credit_sums(session, account.id, now=DEC_1)
        assert sums.available_minor == 6_000


class TestNoteRefund:
    async def test_pays_out_what_notes_said_once_for_each_reference(self, session, invoice):
        await pay(session, invoice)
        request = CreditRequest(reason=Reason.GOODWILL, amount_minor=5_000, surplus="outside")
        await credit(session, invoice, request)

        async def refund(amount_minor, reference):
            return await note_refund(
                session,
                invoice_id=invoice.id,
                amount_minor=amount_minor,
                paid_on=DEC_1.date(),
                reference=reference,
                actor=ACTOR,
                now=DEC_1,
            )

        first = await refund(3_000, "back 1")
        assert (await refund(3_000, "back 1")).id == first.id
        with pytest.raises(RefundExceedsCreditError, match=r"leave 20.00 USD"):
            await refund(2_001, "back 2")
        await refund(2_000, "back 2")


async def a_dispute(session, account_id, *, decision=Decision.ACCEPTED, voided=False):
    """A decided dispute; `voided` as if its decision had taken requests out of the count."""
    facts = DisputeFacts(subject="too many calls")
    made = await disputes.open_dispute(
        session, account_id=account_id, facts=facts, events=(), selection={}, actor=ACTOR, now=DEC_1
    )
    await disputes.start_review(session, dispute_id=made.id, text="", actor=ACTOR, now=DEC_1)
    await disputes.decide(
        session, dispute_id=made.id, decision=decision, explanation="yes", actor=ACTOR, now=DEC_1
    )
    if voided:
        await say_voided(session, made)
    return made


async def say_voided(session, dispute):
    await disputes._step(session, dispute, Step.REQUESTS_VOIDED, details={"requests": 1}, actor=ACTOR, now=DEC_1)
    await session.flush()


class TestDispute:
    @pytest.mark.parametrize("voided", [True, False])
    async def test_counts_against_what_was_billed_only_where_requests_were_voided(self, session, invoice, voided):
        dispute = await a_dispute(session, invoice.account_id, voided=voided)
        lines = (CreditedLine(position=2),)
        request = CreditRequest(reason=Reason.DISPUTE, dispute_id=dispute.id, lines=lines)
        assert (await credit(session, invoice, request)).lowers_billed is voided

    async def test_what_was_given_on_top_cannot_be_given_again_by_voids(self, session, invoice):
        dispute = await a_dispute(session, invoice.account_id)
        request = CreditRequest(reason=Reason.DISPUTE, dispute_id=dispute.id, amount_minor=500)
        await credit(session, invoice, request)
        with pytest.raises(IntegrityError, match="voids would give the same back again"):
            await say_voided(session, dispute)

    async def test_voids_after_a_note_that_counts_may_follow(self, session, invoice):
        dispute = await a_dispute(session, invoice.account_id, voided=True)
        lines = (CreditedLine(position=2),)
        await credit(session, invoice, CreditRequest(reason=Reason.DISPUTE, dispute_id=dispute.id, lines=lines))
        await say_voided(session, dispute)

    async def test_refuses_one_that_was_rejected_or_is_anothers(self, session, invoice):
        rejected = await a_dispute(session, invoice.account_id, decision=Decision.REJECTED)
        with pytest.raises(DisputeNotDecidedError):
            await credit(session, invoice, CreditRequest(reason=Reason.DISPUTE, dispute_id=rejected.id))
        other = await a_dispute(session, (await an_account(session, name="Bob", now=DEC_1)).id)
        with pytest.raises(NotFoundError):
            await credit(session, invoice, CreditRequest(reason=Reason.DISPUTE, dispute_id=other.id))
        assert list(await notes_of_invoice(session, invoice.id)) == []
