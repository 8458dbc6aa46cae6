"""Stripe's invoices as answers."""

from typing import Any

from pydantic import Field

from control_plane.admin_api.forms import Answer, Moment, MoneyAnswer
from control_plane.stripe_sync.invoices.queries import InvoiceDetail
from control_plane.stripe_sync.invoices.standing import Expectation
from control_plane.stripe_sync.invoices.tables import StripeAdjustment, StripeInvoice, StripeInvoiceLine


class StripeInvoiceAnswer(Answer):
    """An invoice of Stripe's as it was when it was read last."""

    id: str = Field(description="Stripe's.")
    number: str | None
    account_id: str
    subscription_id: str | None
    status: str = Field(description="Stripe's: `draft`, `open`, `paid`, `void`, `uncollectible`; or `deleted`.")
    billing_reason: str = Field(description="Stripe's, like `subscription_cycle`.")
    subtotal: MoneyAnswer
    discount: MoneyAnswer
    tax: MoneyAnswer = Field(description="What tax adds.")
    total: MoneyAnswer
    from_balance: MoneyAnswer = Field(description="What the customer's balance paid; below 0: was added to it.")
    amount_due: MoneyAnswer
    amount_paid: MoneyAnswer
    credited: MoneyAnswer
    attempts: int = Field(description="How often a payment was tried.")
    next_attempt_at: Moment | None
    created_at: Moment
    finalizes_at: Moment | None = Field(description="When Stripe makes a draft final by itself.")
    finalised_at: Moment | None
    paid_at: Moment | None
    hosted_url: str | None = Field(description="Where the customer sees and pays it.")
    pdf_url: str | None
    finalization_error: str | None
    read_at: Moment

    @classmethod
    def of(cls, row: StripeInvoice) -> "StripeInvoiceAnswer":
        return cls(**_fields(row))


class StripeLineAnswer(Answer):
    kind: str = Field(description="`flat`, `metered`, `setup_fee`, `proration`, `adjustment` (ours) or `other`.")
    description: str
    quantity: int | None
    amount: MoneyAnswer
    discount: MoneyAnswer
    start: Moment
    end: Moment


class StripePaymentAnswer(Answer):
    id: str
    status: str
    amount: MoneyAnswer
    paid_at: Moment | None


class StripeAdjustmentAnswer(Answer):
    """What we added to an invoice, or gave back of it."""

    id: str
    cause: str = Field(
        description="`not_native` (Stripe cannot rate the price), `allowance` (an own quota), `late_usage`, "
        "`correction`; by hand `dispute` or `goodwill`."
    )
    way: str = Field(description="`item`, `credit_note`, or `written_off`.")
    state: str = Field(description="`wanted`, `done` or `refused`.")
    amount: MoneyAnswer
    description: str
    refusal: str | None
    created_at: Moment


class StripeCreditNoteAnswer(Answer):
    id: str
    number: str | None
    status: str
    amount: MoneyAnswer
    memo: str
    pdf_url: str | None
    created_at: Moment


class StripeDisputeAnswer(Answer):
    """A payment that the customer's bank asks back."""

    id: str
    status: str
    reason: str
    amount: MoneyAnswer
    evidence_due_at: Moment | None
    created_at: Moment


class StripeDraftAnswer(Answer):
    """What is still to be done, or was done, before the draft became final."""

    state: str = Field(description="`waiting`, `adjusting`, `releasing`, `done`, `late` or `gone`.")
    reason: str = Field(description="What it waits for, or why it is late.")
    held_at: Moment | None = Field(description="Since then we make it final, not Stripe.")
    done_at: Moment | None


class StripeDifferenceAnswer(Answer):
    what: str
    cause: str
    expected: MoneyAnswer
    actual: MoneyAnswer


class StripeCheckAnswer(Answer):
    """The final invoice against what was expected: after discounts, before tax and balance."""

    agrees: bool
    expected: MoneyAnswer
    actual: MoneyAnswer
    differences: list[StripeDifferenceAnswer]
    unknown: list[str] = Field(description="What nobody but Stripe can know: `tax`.")
    checked_at: Moment


class StripeInvoiceDetailAnswer(StripeInvoiceAnswer):
    """An invoice and all that belongs to it."""

    lines: list[StripeLineAnswer]
    payments: list[StripePaymentAnswer]
    adjustments: list[StripeAdjustmentAnswer]
    credit_notes: list[StripeCreditNoteAnswer]
    disputes: list[StripeDisputeAnswer]
    draft: StripeDraftAnswer | None
    check: StripeCheckAnswer | None

    @classmethod
    def of_detail(cls, found: InvoiceDetail) -> "StripeInvoiceDetailAnswer":
        row, currency = found.invoice, found.invoice.currency
        return cls(
            **_fields(row),
            lines=[_line(line, currency) for line in row.lines],
            payments=[
                StripePaymentAnswer(
                    id=one.id,
                    status=one.status,
                    amount=MoneyAnswer.of(one.amount_minor, currency),
                    paid_at=one.paid_at,
                )
                for one in row.payments
            ],
            adjustments=[adjustment_answer(one) for one in found.adjustments],
            credit_notes=[
                StripeCreditNoteAnswer(
                    id=one.id,
                    number=one.number,
                    status=one.status,
                    amount=MoneyAnswer.of(one.amount_minor, one.currency),
                    memo=one.memo,
                    pdf_url=one.pdf_url,
                    created_at=one.created_at,
                )
                for one in found.credit_notes
            ],
            disputes=[
                StripeDisputeAnswer(
                    id=one.id,
                    status=one.status,
                    reason=one.reason,
                    amount=MoneyAnswer.of(one.amount_minor, one.currency),
                    evidence_due_at=one.evidence_due_at,
                    created_at=one.created_at,
                )
                for one in found.disputes
            ],
            draft=_draft(found),
            check=_check(found),
        )


class ExpectedLineAnswer(Answer):
    kind: str = Field(description="`flat`, `metered`, `setup_fee`, `proration` or `adjustment` (ours).")
    description: str
    quantity: int | None
    amount: MoneyAnswer
    discount: MoneyAnswer
    start: Moment
    end: Moment
    cause: str = Field(description="Of an adjustment.")


class ExpectedDiscountAnswer(Answer):
    name: str
    amount: MoneyAnswer


class ExpectedInvoiceAnswer(Answer):
    """Stripe's next invoice, if nothing else happens."""

    at: Moment = Field(description="When Stripe makes it.")
    event: str = Field(description="What makes it: `period_end`, `change` or `cancel_now`.")
    lines: list[ExpectedLineAnswer]
    subtotal: MoneyAnswer
    discounts: list[ExpectedDiscountAnswer]
    tax: MoneyAnswer | None = Field(description="What tax adds; null where Stripe alone reckons it.")
    total: MoneyAnswer = Field(description="Without tax where that is not known.")
    from_balance: MoneyAnswer
    amount_due: MoneyAnswer
    unknown: list[str] = Field(description="What is not in it because nobody but Stripe can know it: `tax`.")

    @classmethod
    def of(cls, found: Expectation) -> "ExpectedInvoiceAnswer":
        invoice, currency = found.invoice, found.invoice.currency
        return cls(
            at=found.at,
            event=found.event.value,
            lines=[
                ExpectedLineAnswer(
                    kind=line.kind.value,
                    description=line.description,
                    quantity=line.quantity,
                    amount=MoneyAnswer.of(line.amount_minor, currency),
                    discount=MoneyAnswer.of(line.discount_minor, currency),
                    start=line.starts_at,
                    end=line.ends_at,
                    cause=line.cause,
                )
                for line in invoice.lines
            ],
            subtotal=MoneyAnswer.of(invoice.subtotal_minor, currency),
            discounts=[
                ExpectedDiscountAnswer(name=name, amount=MoneyAnswer.of(amount, currency))
                for name, amount in invoice.discounts.items()
            ],
            tax=None if invoice.tax_minor is None else MoneyAnswer.of(invoice.tax_minor, currency),
            total=MoneyAnswer.of(invoice.total_minor, currency),
            from_balance=MoneyAnswer.of(invoice.balance_minor, currency),
            amount_due=MoneyAnswer.of(invoice.amount_due_minor, currency),
            unknown=list(found.unknown),
        )


def adjustment_answer(one: StripeAdjustment) -> StripeAdjustmentAnswer:
    return StripeAdjustmentAnswer(
        id=one.id,
        cause=one.cause,
        way=one.way,
        state=one.state,
        amount=MoneyAnswer.of(one.amount_minor, one.currency),
        description=one.description,
        refusal=one.refusal,
        created_at=one.created_at,
    )


def _fields(row: StripeInvoice) -> dict[str, Any]:
    def money(amount_minor: int) -> MoneyAnswer:
        return MoneyAnswer.of(amount_minor, row.currency)

    same = (
        "id number account_id subscription_id status billing_reason next_attempt_at created_at finalizes_at"
        " finalised_at paid_at hosted_url pdf_url finalization_error read_at"
    )
    return {
        **{name: getattr(row, name) for name in same.split()},
        "subtotal": money(row.subtotal_minor),
        "discount": money(row.discount_minor),
        "tax": money(row.tax_minor),
        "total": money(row.total_minor),
        "from_balance": money(row.balance_minor),
        "amount_due": money(row.amount_due_minor),
        "amount_paid": money(row.amount_paid_minor),
        "credited": money(row.credited_minor),
        "attempts": row.attempt_count,
    }


def _line(line: StripeInvoiceLine, currency: str) -> StripeLineAnswer:
    return StripeLineAnswer(
        kind=line.kind,
        description=line.description,
        quantity=line.quantity,
        amount=MoneyAnswer.of(line.amount_minor, currency),
        discount=MoneyAnswer.of(line.discount_minor, currency),
        start=line.period_start,
        end=line.period_end,
    )


def _draft(found: InvoiceDetail) -> StripeDraftAnswer | None:
    task = found.task
    if task is None:
        return None
    return StripeDraftAnswer(state=task.state, reason=task.reason, held_at=task.held_at, done_at=task.done_at)


def _check(found: InvoiceDetail) -> StripeCheckAnswer | None:
    check, currency = found.check, found.invoice.currency
    if check is None:
        return None
    return StripeCheckAnswer(
        agrees=check.agrees,
        expected=MoneyAnswer.of(check.expected_minor, currency),
        actual=MoneyAnswer.of(check.actual_minor, currency),
        differences=[
            StripeDifferenceAnswer(
                what=one["what"],
                cause=one["cause"],
                expected=MoneyAnswer.of(one["expected_minor"], currency),
                actual=MoneyAnswer.of(one["actual_minor"], currency),
            )
            for one in check.differences
        ],
        unknown=check.unknown,
        checked_at=check.checked_at,
    )
