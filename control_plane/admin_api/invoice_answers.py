"""Answers that tell of invoices, payments and credit notes."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, Field

from control_plane.admin_api.forms import Moment, MoneyAnswer
from control_plane.admin_api.invoice_forms import Status
from control_plane.billing.credit_notes.model import Reason
from control_plane.billing.credit_notes.tables import CreditNote
from control_plane.billing.invoices.explaining import explained
from control_plane.billing.invoices.tables import Invoice, InvoiceLine
from control_plane.billing.payments.model import left_minor
from control_plane.billing.payments.tables import InvoicePayment


class TierUseAnswer(BaseModel):
    """The units of a line that fell into one tier."""

    first_unit: int
    last_unit: int | None
    quantity: int
    unit_amount: str
    flat_amount: str


class DiscountAnswer(BaseModel):
    description: str
    amount: MoneyAnswer


class TaxAnswer(BaseModel):
    name: str
    percent: str
    amount: MoneyAnswer


class SpanAnswer(BaseModel):
    start: Moment
    end: Moment


class InvoiceAnswer(BaseModel):
    id: str
    number: str | None = Field(description="Null while it is a draft.")
    account_id: str
    subscription_id: str | None
    status: Status
    reason: str = Field(description="`start`, `period`, `change`, `final` or `manual`.")
    period: SpanAnswer
    subtotal: MoneyAnswer
    discounts: list[DiscountAnswer]
    taxes: list[TaxAnswer]
    total: MoneyAnswer
    credits_applied: MoneyAnswer = Field(description="Paid from prepaid credits.")
    balance_applied: MoneyAnswer = Field(description="Paid from the account's balance; below 0: added to it.")
    amount_due: MoneyAnswer
    amount_paid: MoneyAnswer
    credited: MoneyAnswer = Field(description="What credit notes took off what was due.")
    left: MoneyAnswer = Field(description="What is left to pay; of a void invoice nothing.")
    overdue: bool
    created_at: Moment
    finalise_at: Moment | None = Field(description="When a draft becomes final, at the earliest.")
    finalised_at: Moment | None
    due_at: Moment | None
    paid_at: Moment | None
    voided_at: Moment | None


class InvoiceLineAnswer(BaseModel):
    position: int
    kind: str
    subscription_id: str | None
    period: SpanAnswer
    description: str
    formula: str
    meter: str | None
    used_units: int | None
    quantity: int
    unit_amount: str | None = Field(description="Decimal, major unit; null where tiers differ.")
    exact_amount: str = Field(description="Decimal, major unit, before rounding half up.")
    amount: MoneyAnswer
    tiers: list[TierUseAnswer]
    explanation: list[str] = Field(description="How the amount came about, in sentences.")


class PaymentAnswer(BaseModel):
    id: str
    kind: Literal["payment", "balance", "refund"] = Field(
        description="`balance`: taken from the account's balance, no money came in."
    )
    amount: MoneyAnswer
    surplus: MoneyAnswer = Field(description="The part that went to the account's balance.")
    paid_on: date
    reference: str
    method: str
    author: str
    created_at: Moment


class CreditNoteLineAnswer(BaseModel):
    description: str
    amount: MoneyAnswer


class CreditNoteAnswer(BaseModel):
    id: str
    number: str
    invoice_id: str
    account_id: str
    reason: Reason
    dispute_id: str | None
    note: str
    lowers_billed: bool = Field(
        description="Counts against what was billed: the next invoice does not give it again."
    )
    lines: list[CreditNoteLineAnswer]
    subtotal: MoneyAnswer
    discount: MoneyAnswer
    taxes: list[TaxAnswer]
    total: MoneyAnswer
    to_due: MoneyAnswer = Field(description="Taken off what was due.")
    to_balance: MoneyAnswer = Field(description="Added to the account's balance.")
    to_outside: MoneyAnswer = Field(description="To be paid back by other means.")
    author: str
    created_at: Moment


class InvoiceDetailAnswer(InvoiceAnswer):
    lines: list[InvoiceLineAnswer]
    payments: list[PaymentAnswer]
    credit_notes: list[str] = Field(description="Numbers of the credit notes against it.")
    seller: dict[str, Any] | None = Field(description="As written down when it became final.")
    buyer: dict[str, Any] | None = Field(description="As written down when it became final.")
    note: str


def invoice_fields(invoice: Invoice, now: datetime) -> dict[str, Any]:
    """Return the fields of an answer; its lines are not read."""

    def money(amount_minor: int) -> MoneyAnswer:
        return MoneyAnswer.of(amount_minor, invoice.currency)

    same = ("id", "number", "account_id", "subscription_id", "status", "reason", "created_at", "finalise_at")
    moments = ("finalised_at", "due_at", "paid_at", "voided_at")
    return {
        **{name: getattr(invoice, name) for name in (*same, *moments)},
        "period": SpanAnswer(start=invoice.period_start, end=invoice.period_end),
        "subtotal": money(invoice.subtotal_minor),
        "discounts": [
            DiscountAnswer(description=one["description"], amount=money(one["amount_minor"]))
            for one in invoice.discounts
        ],
        "taxes": _taxes(invoice.taxes, invoice.currency),
        "total": money(invoice.total_minor),
        "credits_applied": money(invoice.credits_applied_minor),
        "balance_applied": money(invoice.balance_applied_minor),
        "amount_due": money(invoice.amount_due_minor),
        "amount_paid": money(invoice.amount_paid_minor),
        "credited": money(invoice.credited_minor),
        "left": money(0 if invoice.status == "void" else left_minor(invoice)),
        "overdue": invoice.status == "open" and invoice.due_at is not None and invoice.due_at <= now,
    }


def invoice_answer(invoice: Invoice, now: datetime) -> InvoiceAnswer:
    return InvoiceAnswer(**invoice_fields(invoice, now))


def detail_answer(
    invoice: Invoice, payments: Sequence[InvoicePayment], credit_notes: Sequence[CreditNote], now: datetime
) -> InvoiceDetailAnswer:
    """Return an invoice, loaded with its lines, with all that became of it."""
    return InvoiceDetailAnswer(
        **invoice_fields(invoice, now),
        lines=[_line(line, invoice.currency) for line in invoice.lines],
        payments=[payment_answer(payment) for payment in payments],
        credit_notes=[note.number for note in credit_notes],
        seller=invoice.seller,
        buyer=invoice.buyer,
        note=invoice.note,
    )


def payment_answer(payment: InvoicePayment) -> PaymentAnswer:
    same = ("id", "kind", "paid_on", "reference", "method", "author", "created_at")
    return PaymentAnswer(
        **{name: getattr(payment, name) for name in same},
        amount=MoneyAnswer.of(payment.amount_minor, payment.currency),
        surplus=MoneyAnswer.of(payment.surplus_minor, payment.currency),
    )


def credit_note_answer(note: CreditNote) -> CreditNoteAnswer:
    """Return a credit note that was loaded with its lines."""

    def money(amount_minor: int) -> MoneyAnswer:
        return MoneyAnswer.of(amount_minor, note.currency)

    same = ("id", "number", "invoice_id", "account_id", "reason", "dispute_id", "note", "lowers_billed")
    return CreditNoteAnswer(
        **{name: getattr(note, name) for name in (*same, "author", "created_at")},
        lines=[
            CreditNoteLineAnswer(description=line.description, amount=money(line.amount_minor))
            for line in note.lines
        ],
        subtotal=money(note.subtotal_minor),
        discount=money(note.discount_minor),
        taxes=_taxes(note.taxes, note.currency),
        total=money(note.total_minor),
        to_due=money(note.to_due_minor),
        to_balance=money(note.to_balance_minor),
        to_outside=money(note.to_outside_minor),
    )


def _taxes(taxes: Sequence[dict[str, Any]], currency: str) -> list[TaxAnswer]:
    return [
        TaxAnswer(name=tax["name"], percent=tax["percent"], amount=MoneyAnswer.of(tax["amount_minor"], currency))
        for tax in taxes
    ]


def _line(line: InvoiceLine, currency: str) -> InvoiceLineAnswer:
    same = ("position", "kind", "subscription_id", "description", "formula", "meter", "used_units", "quantity")
    return InvoiceLineAnswer(
        **{name: getattr(line, name) for name in same},
        period=SpanAnswer(start=line.period_start, end=line.period_end),
        unit_amount=None if line.unit_amount is None else _decimal(line.unit_amount),
        exact_amount=_decimal(line.exact_amount),
        amount=MoneyAnswer.of(line.amount_minor, currency),
        tiers=[TierUseAnswer.model_validate(tier) for tier in line.tiers],
        explanation=list(explained(line, currency)),
    )


def _decimal(value: Decimal) -> str:
    return f"{value:f}"
