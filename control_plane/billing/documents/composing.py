"""From rows to documents: what an invoice or a credit note says. Pure but for reading the rows' fields."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from control_plane.billing.credit_notes.tables import CreditNote
from control_plane.billing.documents.model import (
    Document,
    DocumentLine,
    SummaryRow,
    buyer_party,
    day,
    money,
    seller_party,
    span,
)
from control_plane.billing.invoices.explaining import explained
from control_plane.billing.invoices.tables import Invoice, InvoiceLine

_MARKS = {"draft": "Draft", "void": "Void"}
_STATUS = {"open": "Open", "paid": "Paid", "void": "Void", "uncollectible": "Uncollectible", "draft": "Draft"}
_REASONS = {"correction": "Correction", "dispute": "Dispute", "goodwill": "Goodwill"}


def invoice_document(
    invoice: Invoice,
    *,
    seller: Mapping[str, Any],
    buyer: Mapping[str, Any],
    credit_notes: Sequence[CreditNote] = (),
    time_zone: str = "UTC",
    now: datetime,
) -> Document:
    """Return what an invoice, loaded with its lines, says. A draft takes `seller` and `buyer`, as it has none yet.

    Dates are by the clock of `time_zone`. Credit notes are those of this invoice.
    """
    zone = ZoneInfo(time_zone)
    sold_by = invoice.seller if invoice.seller is not None else seller
    return Document(
        title="Invoice",
        number=invoice.number or "",
        mark=_MARKS.get(invoice.status, ""),
        seller=seller_party(sold_by),
        buyer=buyer_party(invoice.buyer if invoice.buyer is not None else buyer),
        facts=tuple(_invoice_facts(invoice, zone, now)),
        lines=tuple(_line(line, invoice, zone) for line in invoice.lines),
        summary=tuple(_invoice_summary(invoice, credit_notes)),
        notes=tuple(_invoice_notes(invoice, sold_by, zone)),
        made_at=invoice.finalised_at or invoice.created_at,
    )


def credit_note_document(note: CreditNote, invoice: Invoice, *, time_zone: str = "UTC") -> Document:
    """Return what a credit note, loaded with its lines, says; `invoice` is the one that it is against."""
    zone = ZoneInfo(time_zone)
    currency = note.currency
    facts = [
        ("Date", day(note.created_at, zone)),
        ("For invoice", invoice.number or ""),
        ("Invoice date", day(invoice.finalised_at or invoice.created_at, zone)),
        ("Reason", _REASONS[note.reason]),
    ]
    notes = [note.note, *(tax.get("note", "") for tax in note.taxes)]
    return Document(
        title="Credit note",
        number=note.number,
        mark="",
        seller=seller_party(note.seller),
        buyer=buyer_party(note.buyer or {"legal_name": note.account_id}),
        facts=tuple(facts),
        lines=tuple(
            DocumentLine(description=line.description, amount=money(line.amount_minor, currency))
            for line in note.lines
        ),
        summary=tuple(_credit_summary(note)),
        notes=tuple(text for text in notes if text),
        made_at=note.created_at,
    )


def _invoice_facts(invoice: Invoice, zone: ZoneInfo, now: datetime) -> Iterable[tuple[str, str]]:
    if invoice.finalised_at is not None:
        yield "Date", day(invoice.finalised_at, zone)
    if invoice.subscription_id is not None and invoice.period_end > invoice.period_start:
        yield "Period", span(invoice.period_start, invoice.period_end, zone)
    if invoice.due_at is not None and invoice.amount_due_minor:
        yield "Due", day(invoice.due_at, zone)
    overdue = invoice.status == "open" and invoice.due_at is not None and invoice.due_at <= now
    yield "Status", "Overdue" if overdue else _STATUS[invoice.status]
    if invoice.paid_at is not None:
        yield "Paid", day(invoice.paid_at, zone)
    if invoice.voided_at is not None:
        yield "Void since", day(invoice.voided_at, zone)


def _line(line: InvoiceLine, invoice: Invoice, zone: ZoneInfo) -> DocumentLine:
    return DocumentLine(
        description=line.description,
        amount=money(line.amount_minor, invoice.currency),
        explanation=tuple(text for text in _explanation(line, invoice, zone) if text),
    )


def _explanation(line: InvoiceLine, invoice: Invoice, zone: ZoneInfo) -> Iterable[str]:
    sentences = explained(line, invoice.currency)
    # that $49.00 = $49.00 says nothing
    yield from sentences[1:] if line.formula == money(line.amount_minor, invoice.currency) else sentences
    of_line, of_invoice = (line.period_start, line.period_end), (invoice.period_start, invoice.period_end)
    if line.subscription_id is not None and of_line != of_invoice:
        yield span(*of_line, zone)


def _row(currency: str, label: str, amount_minor: int, *, strong: bool = False) -> SummaryRow:
    return SummaryRow(label=label, amount=money(amount_minor, currency), strong=strong)


def _invoice_summary(invoice: Invoice, credit_notes: Sequence[CreditNote]) -> Iterable[SummaryRow]:
    row = partial(_row, invoice.currency)
    if invoice.discounts or invoice.taxes:
        yield row("Subtotal", invoice.subtotal_minor)
    for discount in invoice.discounts:
        yield row(discount["description"], -discount["amount_minor"])
    for tax in invoice.taxes:
        yield row(_tax_label(tax, invoice.currency), tax["amount_minor"])
    yield row("Total", invoice.total_minor, strong=True)
    yield from _settled(invoice, credit_notes)


def _settled(invoice: Invoice, credit_notes: Sequence[CreditNote]) -> Iterable[SummaryRow]:
    row = partial(_row, invoice.currency)
    if invoice.credits_applied_minor:
        yield row("Paid from prepaid credits", -invoice.credits_applied_minor)
    if invoice.balance_applied_minor:
        from_or_to = "Paid from" if invoice.balance_applied_minor > 0 else "Added to"
        yield row(f"{from_or_to} account balance", -invoice.balance_applied_minor)
    if invoice.status == "void":
        return
    if invoice.amount_paid_minor:
        yield row("Paid", -invoice.amount_paid_minor)
    for note in credit_notes:
        if note.to_due_minor:
            yield row(f"Credit note {note.number}", -note.to_due_minor)
    left = invoice.amount_due_minor - invoice.amount_paid_minor - invoice.credited_minor
    yield row("Amount due", left, strong=True)


def _credit_summary(note: CreditNote) -> Iterable[SummaryRow]:
    row = partial(_row, note.currency)
    if note.discount_minor or note.taxes:
        yield row("Subtotal", note.subtotal_minor)
    if note.discount_minor:
        yield row("Discount given before", -note.discount_minor)
    for tax in note.taxes:
        yield row(f"{tax['name']} {tax['percent']} %", tax["amount_minor"])
    yield row("Total credited", note.total_minor, strong=True)
    ways = (
        ("Taken off what was due", note.to_due_minor),
        ("Added to account balance", note.to_balance_minor),
        ("To be paid back", note.to_outside_minor),
    )
    for label, amount_minor in ways:
        if amount_minor:
            yield row(label, amount_minor)


def _tax_label(tax: Mapping[str, Any], currency: str) -> str:
    return f"{tax['name']} {tax['percent']} % on {money(tax['taxable_minor'], currency)}"


def _invoice_notes(invoice: Invoice, seller: Mapping[str, Any], zone: ZoneInfo) -> Iterable[str]:
    if invoice.status == "draft":
        yield "This is a draft: it may still change, and is not to be paid."
    if invoice.status == "void":
        yield "This invoice is void and is not to be paid."
    if invoice.status == "open" and invoice.due_at is not None:
        yield f"Please pay by {day(invoice.due_at, zone)} and quote {invoice.number}."
        yield from _given(seller.get("payment_note", ""))
    for tax in invoice.taxes:
        yield from _given(tax.get("note", ""))
    yield from _given(invoice.note)


def _given(text: str) -> Iterable[str]:
    if text:
        yield text
