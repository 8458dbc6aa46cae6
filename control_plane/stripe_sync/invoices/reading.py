"""From Stripe's invoices to values. Nothing of Stripe's shapes goes further than this."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import stripe as sdk

from control_plane.stripe_sync.client import Stripe
from control_plane.stripe_sync.outcomes import StripeRefused
from control_plane.stripe_sync.subscriptions.reading import id_of, moment

ADJUSTMENT_KEY: Final = "km_adjustment"
PAGE: Final = 100
CYCLE: Final = "subscription_cycle"
MADE_AT_ONCE: Final = frozenset({"subscription_create", "subscription_update", "manual"})
_READ_WITH: Final = ["discounts", "discounts.source.coupon", "payments"]
Named = tuple[tuple[str, int], ...]
"""Names with amounts in minor units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSeen:
    """A line of an invoice of Stripe's."""

    id: str
    description: str
    amount_minor: int
    discount_minor: int
    quantity: int | None
    price_id: str | None
    item_id: str | None
    invoice_item_id: str | None
    adjustment_id: str | None
    proration: bool
    starts_at: datetime
    ends_at: datetime
    discounts: tuple[int, ...] = ()
    added_taxes: tuple[int, ...] = ()

    def total_of(self, amount_minor: int) -> int:
        """Return what a part of the line comes to with its part of each discount and tax, as Stripe credits it."""
        if not self.amount_minor:
            return 0
        part = Decimal(amount_minor) / self.amount_minor
        shares = [-_rounded(part * one) for one in self.discounts] + [
            _rounded(part * one) for one in self.added_taxes
        ]
        return amount_minor + sum(shares)


def _rounded(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentSeen:
    """A payment towards an invoice."""

    id: str
    status: str
    reference: str | None
    amount_minor: int
    created_at: datetime
    paid_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceState:
    """An invoice as Stripe showed it, with all its lines in order."""

    id: str
    customer_id: str
    stripe_subscription_id: str | None
    installation: str | None
    number: str | None
    status: str
    billing_reason: str
    collection: str
    currency: str
    period_start: datetime
    period_end: datetime
    subtotal_minor: int
    total_minor: int
    balance_minor: int
    amount_due_minor: int
    amount_paid_minor: int
    amount_remaining_minor: int
    credited_minor: int
    discounts: Named
    taxes: Named
    added_tax_minor: int
    automatic_tax: bool
    auto_advance: bool
    attempt_count: int
    next_attempt_at: datetime | None
    created_at: datetime
    finalizes_at: datetime | None
    finalised_at: datetime | None
    due_at: datetime | None
    paid_at: datetime | None
    voided_at: datetime | None
    hosted_url: str | None
    pdf_url: str | None
    finalization_error: str | None
    lines: tuple[LineSeen, ...]
    payments: tuple[PaymentSeen, ...]

    @property
    def discount_minor(self) -> int:
        return sum(amount for _, amount in self.discounts)

    @property
    def is_draft(self) -> bool:
        return self.status == "draft"

    @property
    def ends_period(self) -> bool:
        """Say whether it bills the use of a period that is over; only such a one, and no first one, is a draft."""
        return self.stripe_subscription_id is not None and (
            self.billing_reason == CYCLE or (self.is_draft and self.billing_reason not in MADE_AT_ONCE)
        )


async def read_invoice(stripe: Stripe, invoice_id: str) -> InvoiceState | None:
    """Read an invoice with all its lines; None where Stripe has none of this id, as of a deleted draft.

    Raises:
        StripeRefused: Stripe does not show it. StripeUnavailable.
    """
    try:
        found = await stripe.call(lambda c: c.v1.invoices.retrieve_async(invoice_id, {"expand": [*_READ_WITH]}))
    except StripeRefused as refused:
        if refused.is_missing:
            return None
        raise
    if getattr(found, "deleted", False):
        return None
    lines = list(found.lines.data)
    if found.lines.has_more:
        pages = stripe.every(lambda c: c.v1.invoices.line_items.list_async(invoice_id, {"limit": PAGE}))
        lines = [line async for line in pages]
    return state_of(found, lines)


def state_of(found: sdk.Invoice, lines: Iterable[sdk.InvoiceLineItem]) -> InvoiceState:
    """Return an invoice (discounts and payments expanded) as a value."""
    transitions, parent = found.status_transitions, found.parent
    of_subscription = None if parent is None else parent.subscription_details
    metadata = {} if of_subscription is None else _plain(of_subscription.metadata)
    ended = getattr(found, "ending_balance", None)
    taxes = getattr(found, "total_taxes", None) or []
    error = getattr(found, "last_finalization_error", None)
    return InvoiceState(
        id=found.id,
        customer_id=id_of(found.customer) or "",
        stripe_subscription_id=None if of_subscription is None else id_of(of_subscription.subscription),
        installation=metadata.get("km_installation") or _plain(found.metadata).get("km_installation"),
        number=found.number,
        status=found.status or "draft",
        billing_reason=found.billing_reason or "manual",
        collection=found.collection_method,
        currency=found.currency.upper(),
        period_start=moment(found.period_start),
        period_end=moment(found.period_end),
        subtotal_minor=found.subtotal,
        total_minor=found.total,
        balance_minor=found.total - found.amount_due if ended is None else ended - found.starting_balance,
        amount_due_minor=found.amount_due,
        amount_paid_minor=found.amount_paid,
        amount_remaining_minor=found.amount_remaining,
        credited_minor=found.post_payment_credit_notes_amount + found.pre_payment_credit_notes_amount,
        discounts=tuple(_discounts(found)),
        taxes=tuple((str(tax.tax_behavior), tax.amount) for tax in taxes),
        added_tax_minor=sum(tax.amount for tax in taxes if tax.tax_behavior == "exclusive"),
        automatic_tax=found.automatic_tax.enabled,
        auto_advance=bool(found.auto_advance),
        attempt_count=found.attempt_count,
        next_attempt_at=moment(found.next_payment_attempt),
        created_at=moment(found.created),
        finalizes_at=moment(getattr(found, "automatically_finalizes_at", None)),
        finalised_at=moment(transitions.finalized_at),
        due_at=moment(found.due_date),
        paid_at=moment(transitions.paid_at),
        voided_at=moment(transitions.voided_at),
        hosted_url=getattr(found, "hosted_invoice_url", None),
        pdf_url=getattr(found, "invoice_pdf", None),
        finalization_error=None if error is None else str(error.code or error.type),
        lines=tuple(_line(line) for line in lines),
        payments=tuple(_payment(one) for one in found.payments.data) if found.payments else (),
    )


def _line(line: sdk.InvoiceLineItem) -> LineSeen:
    parent = line.parent
    of_item = None if parent is None else parent.subscription_item_details
    of_invoice_item = None if parent is None else parent.invoice_item_details
    details: Any = of_item or of_invoice_item
    pricing = line.pricing
    return LineSeen(
        id=line.id,
        description=line.description or "",
        amount_minor=line.amount,
        discount_minor=sum(one.amount for one in line.discount_amounts or ()),
        quantity=line.quantity,
        price_id=None if pricing is None or pricing.price_details is None else id_of(pricing.price_details.price),
        item_id=None if of_item is None else of_item.subscription_item,
        invoice_item_id=None if details is None else details.invoice_item,
        adjustment_id=_plain(line.metadata).get(ADJUSTMENT_KEY),
        proration=False if details is None else bool(details.proration),
        starts_at=moment(line.period.start),
        ends_at=moment(line.period.end),
        discounts=tuple(one.amount for one in line.discount_amounts or ()),
        added_taxes=tuple(one.amount for one in line.taxes or () if one.tax_behavior == "exclusive"),
    )


def _payment(one: sdk.InvoicePayment) -> PaymentSeen:
    return PaymentSeen(
        id=one.id,
        status=one.status,
        reference=id_of(getattr(one.payment, "payment_intent", None) or getattr(one.payment, "charge", None)),
        amount_minor=one.amount_paid or one.amount_requested,
        created_at=moment(one.created),
        paid_at=moment(one.status_transitions.paid_at),
    )


def _discounts(found: sdk.Invoice) -> Iterable[tuple[str, int]]:
    names = {}
    for one in found.discounts:
        if not isinstance(one, str):
            coupon = one.source.coupon
            names[one.id] = (coupon.name or coupon.id) if isinstance(coupon, sdk.Coupon) else str(coupon)
    for taken in found.total_discount_amounts or ():
        key = id_of(taken.discount)
        yield names.get(key, key), taken.amount


def _plain(metadata: Any) -> dict[str, str]:
    return {} if metadata is None else dict(metadata.to_dict())
