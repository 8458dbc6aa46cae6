"""Issuing credit notes. Nothing here commits.

What was billed too much comes back by itself: the next invoice bills what is due less what was billed. A credit
note that `lowers_billed` gives the same money sooner, and counts in that sum, so it is not given twice; one that
does not is given on top (see docs/invoice-documents.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.balance.entries import NewEntry, lock_balances
from control_plane.billing.balance.operations import IdempotencyKeyTakenError, add_to_balance
from control_plane.billing.credit_notes.disputed import dispute_lowers_billed
from control_plane.billing.credit_notes.model import (
    MAX_NOTE,
    Billed,
    CreditedLine,
    CreditExceedsInvoiceError,
    NoteAmounts,
    Reason,
    of_amount,
    of_everything,
    of_lines,
)
from control_plane.billing.credit_notes.queries import billed_by, credit_note, notes_of_invoice
from control_plane.billing.credit_notes.tables import CreditNote, CreditNoteLine
from control_plane.billing.discounts.giving_back import CorrectedLine, give_room_back
from control_plane.billing.discounts.referrals import reward_first_payment
from control_plane.billing.invoices.numbers import CREDIT_NOTES, take_numbers
from control_plane.billing.invoices.queries import locked_invoice
from control_plane.billing.invoices.tables import Invoice, InvoiceLine
from control_plane.billing.payments.model import PAYABLE, InvoiceStepRefusedError, left_minor
from control_plane.billing.payments.operations import catch_up_for
from control_plane.billing.payments.records import facts, lock_invoice, note_not_billed, record, settle
from control_plane.billing.prepaid.purchases import grant_paid_credits
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.ids import new_id

CREDITABLE = PAYABLE | {"paid"}
Way = Literal["balance", "outside"]


class CorrectionNeedsLinesError(ValidationFailedError):
    """Only lines can be counted against what was billed."""

    def __init__(self) -> None:
        super().__init__(
            "amount_minor",
            "cannot correct a bill: name the lines that were billed too high, or the reason goodwill",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditRequest:
    """What is to be taken back: some lines, an amount with tax, or all that is left (neither).

    `surplus`: where what exceeds the amount still due goes: the account's `balance`, or `outside`: paid back by
    other means, as far as it was paid in money.
    """

    reason: Reason
    note: str = ""
    lines: tuple[CreditedLine, ...] = ()
    amount_minor: int | None = None
    dispute_id: str | None = None
    surplus: Way = "balance"

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "reason": str(self.reason),
            "note": self.note,
            "lines": [[line.position, line.amount_minor] for line in self.lines],
            "amount_minor": self.amount_minor,
            "dispute_id": self.dispute_id,
            "surplus": self.surplus,
        }


async def issue_credit_note(
    session: AsyncSession,
    *,
    invoice_id: str,
    request: CreditRequest,
    idempotency_key: str,
    actor: str,
    now: datetime,
) -> CreditNote:
    """Take back some or all of a final invoice, with its share of discount and tax; the same key: the same note.

    It reduces what is still due, and where nothing is, the rest goes where `request.surplus` says. Number, lines
    and audit row come with it; a subscription that owes nothing more is active again.

    Raises:
        NotFoundError, ValidationFailedError: no such invoice, dispute or line; texts, amounts.
        InvoiceStepRefusedError: it is a draft or void. CreditExceedsInvoiceError, NothingToCreditError.
        DisputeNotDecidedError. IdempotencyKeyTakenError: it stands for another request.
    """
    _check(request, idempotency_key)
    invoice = await lock_invoice(session, invoice_id, for_money=True)
    before = await _under_key(session, invoice_id, idempotency_key)
    if before is not None:
        if before.request != request.as_dict():
            raise IdempotencyKeyTakenError(idempotency_key)
        return before
    if invoice.status not in CREDITABLE:
        raise InvoiceStepRefusedError(invoice_id, invoice.status, "credited")
    lowers_billed = await _lowers_billed(session, invoice, request)
    billed = await billed_by(session, invoice)
    amounts = _amounts(billed, request, lowers_billed=lowers_billed)
    ways = await _ways(session, invoice, amounts.total_minor, request.surplus)
    was = facts(invoice)
    note = _credit_note(invoice, request, amounts, ways, lowers_billed=lowers_billed, actor=actor, now=now)
    note.idempotency_key = idempotency_key
    invoice.credited_minor += ways["to_due_minor"]
    paid = settle(invoice, now=now)
    if lowers_billed:
        await _lower_billed(session, invoice, amounts, now=now)
    if note.to_balance_minor:
        of = invoice.account_id, invoice.currency
        await lock_balances(session, {of}, create={of})
    # the last lock: whoever takes a number keeps others from taking one
    (note.number,) = await take_numbers(session, series=CREDIT_NOTES, count=1)
    session.add(note)
    details = {"credit_note": note.number, "reason": note.reason, "total_minor": note.total_minor, **ways}
    await record(session, invoice, action="invoice.credited", before=was, details=details, actor=actor, now=now)
    if note.to_balance_minor:
        await _to_balance(session, note, now=now)
    if paid:
        if invoice.amount_paid_minor:
            await grant_paid_credits(session, invoice=await locked_invoice(session, invoice_id), now=now)
            await reward_first_payment(session, invoice=invoice, now=now)
        await catch_up_for(session, invoice, actor=actor, now=now)
    return await credit_note(session, note.id)


def _check(request: CreditRequest, idempotency_key: str) -> None:
    if request.lines and request.amount_minor is not None:
        raise ValidationFailedError("amount_minor", "cannot go with lines")
    if request.amount_minor is not None and request.amount_minor <= 0:
        raise ValidationFailedError("amount_minor", "must be above 0")
    if (request.reason is Reason.DISPUTE) != (request.dispute_id is not None):
        raise ValidationFailedError("dispute_id", "goes with the reason dispute, and is wanted there")
    if len(request.note) > MAX_NOTE:
        raise ValidationFailedError("note", f"must be at most {MAX_NOTE} characters")
    if not idempotency_key.strip():
        raise ValidationFailedError("idempotency_key", "must not be empty")


async def _under_key(session: AsyncSession, invoice_id: str, idempotency_key: str) -> CreditNote | None:
    wanted = CreditNote.invoice_id == invoice_id, CreditNote.idempotency_key == idempotency_key
    note_id = await session.scalar(select(CreditNote.id).where(*wanted))
    return None if note_id is None else await credit_note(session, note_id)


async def _lowers_billed(session: AsyncSession, invoice: Invoice, request: CreditRequest) -> bool:
    if request.dispute_id is not None:
        return await dispute_lowers_billed(session, request.dispute_id, account_id=invoice.account_id)
    return request.reason is Reason.CORRECTION


def _amounts(billed: Billed, request: CreditRequest, *, lowers_billed: bool) -> NoteAmounts:
    if billed.total_minor <= 0 or billed.left_minor <= 0:
        raise CreditExceedsInvoiceError(billed.left_minor, billed.currency)
    if request.lines:
        return of_lines(billed, request.lines)
    if request.amount_minor is not None:
        if lowers_billed:
            raise CorrectionNeedsLinesError
        return of_amount(billed, request.amount_minor, description=_words(request, billed))
    if billed.credited.total_minor and not lowers_billed:
        return of_amount(billed, billed.left_minor, description=f"Rest of invoice {billed.number}")
    return of_everything(billed)


def _words(request: CreditRequest, billed: Billed) -> str:
    what = {Reason.GOODWILL: "Goodwill", Reason.DISPUTE: "Dispute settled"}.get(request.reason, "Credit")
    return f"{what}, invoice {billed.number}"


async def _ways(session: AsyncSession, invoice: Invoice, total_minor: int, surplus: Way) -> dict[str, int]:
    """Return how a note's total is split: first what is still due, then money that was paid, then the balance."""
    due = min(total_minor, max(0, left_minor(invoice))) if invoice.status in PAYABLE else 0
    outside = 0
    if surplus == "outside":
        promised = sum(note.to_outside_minor for note in await notes_of_invoice(session, invoice.id))
        outside = min(total_minor - due, invoice.amount_paid_minor - promised)
    return {"to_due_minor": due, "to_balance_minor": total_minor - due - outside, "to_outside_minor": outside}


def _credit_note(
    invoice: Invoice,
    request: CreditRequest,
    amounts: NoteAmounts,
    ways: dict[str, int],
    *,
    lowers_billed: bool,
    actor: str,
    now: datetime,
) -> CreditNote:
    line_ids = {line.position: line.id for line in invoice.lines}
    return CreditNote(
        id=new_id("cn", now),
        invoice_id=invoice.id,
        account_id=invoice.account_id,
        reason=str(request.reason),
        dispute_id=request.dispute_id,
        note=request.note,
        lowers_billed=lowers_billed,
        currency=invoice.currency,
        subtotal_minor=amounts.subtotal_minor,
        discount_minor=amounts.discount_minor,
        tax_minor=amounts.tax_minor,
        total_minor=amounts.total_minor,
        **ways,
        taxes=list(amounts.taxes),
        seller=invoice.seller,
        buyer=invoice.buyer,
        request=request.as_dict(),
        author=actor,
        created_at=now,
        lines=[
            CreditNoteLine(
                id=new_id("cnl", now),
                position=number,
                invoice_line_id=None if line.position is None else line_ids[line.position],
                description=line.description,
                amount_minor=line.amount_minor,
            )
            for number, line in enumerate(amounts.lines, start=1)
        ],
    )


async def _lower_billed(session: AsyncSession, invoice: Invoice, amounts: NoteAmounts, *, now: datetime) -> None:
    taken: Sequence[tuple[int | None, int]] = [(line.position, line.amount_minor) for line in amounts.lines]
    corrected = _corrected(invoice, dict(taken))
    await give_room_back(session, invoice_id=invoice.id, lines=corrected, discount_minor=amounts.discount_minor)
    for position, amount_minor in taken:
        await session.execute(
            update(InvoiceLine)
            .where(InvoiceLine.invoice_id == invoice.id, InvoiceLine.position == position)
            .values(corrected_minor=InvoiceLine.corrected_minor + amount_minor)
        )
    await note_not_billed(session, invoice, positions={position for position, _ in taken}, now=now)


def _corrected(invoice: Invoice, taken: Mapping[int | None, int]) -> list[CorrectedLine]:
    return [
        CorrectedLine(
            charge=(line.period_start, line.charge_key),
            billed_minor=line.amount_minor - line.corrected_minor,
            taken_back_minor=taken[line.position],
        )
        for line in invoice.lines
        if line.position in taken
    ]


async def _to_balance(session: AsyncSession, note: CreditNote, *, now: datetime) -> None:
    entry = NewEntry(
        account_id=note.account_id,
        currency=note.currency,
        kind="credit_note",
        amount_minor=note.to_balance_minor,
        invoice_id=note.invoice_id,
        credit_note_id=note.id,
        reason=note.number,
        author=note.author,
    )
    await add_to_balance(session, entry, now=now)
