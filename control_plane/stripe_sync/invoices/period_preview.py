"""What a billing period costs that Stripe bills: the usual preview, reckoned as Stripe does. Reads only.

The usual preview cuts fixed prices by time to the millisecond and takes our discounts and taxes; Stripe counts
seconds, starts allowances anew after a change of plan, and has discounts and taxes of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.discounts.model import AppliedDiscount
from control_plane.billing.model import InvoiceLine, InvoicePreview, preview_lines
from control_plane.foundation.money import Money
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.model import RatedLine
from control_plane.stripe_sync.invoices.expected import InvoiceEvent
from control_plane.stripe_sync.invoices.facts import BillingFacts, billing_facts, period_due
from control_plane.stripe_sync.invoices.standing import Expectation, expected_invoice
from control_plane.stripe_sync.invoices.tables import StripeInvoice, StripeInvoiceLine, is_charged
from control_plane.stripe_sync.invoices.totals import LineKind
from control_plane.stripe_sync.subscriptions.model import LIVE_AT_STRIPE
from control_plane.stripe_sync.subscriptions.tables import StripeSubscription

_FIXED = (LineKind.FLAT.value, LineKind.PRORATION.value, LineKind.SETUP_FEE.value)
_KINDS = {LineKind.FLAT: "recurring", LineKind.PRORATION: "recurring", LineKind.SETUP_FEE: "setup_fee"}


@dataclass(frozen=True, slots=True)
class PeriodPreview:
    """The preview of a period, and Stripe's next invoice where there will be one."""

    preview: InvoicePreview
    next_invoice: Expectation | None


async def as_stripe_bills(
    session: AsyncSession, preview: InvoicePreview, *, now: datetime
) -> PeriodPreview | None:
    """Return a preview as Stripe bills the period; None where Stripe does not bill the subscription.

    Fixed prices are what Stripe's invoices say, use is what is due by our rating in Stripe's way. Taxes are not in
    it: `next_invoice` says what is known of them.
    """
    row = await session.get(StripeSubscription, preview.subscription_id)
    if row is None:
        return None
    facts = await billing_facts(session, preview.subscription_id)
    fixed = await _fixed_lines(session, facts, preview.period)
    due = await period_due(session, facts, preview.period)
    used = preview_lines(one.line for one in due)
    expected = None
    if row.status in LIVE_AT_STRIPE:
        expected = await expected_invoice(session, preview.subscription_id, now=now, event=InvoiceEvent.PERIOD_END)
    lines = (*(_as_line(facts, one) for one in fixed), *used)
    subtotal = sum(line.line.amount_minor for line in lines)
    running = expected is not None and now in preview.period
    discounts = await _discounts(session, preview, fixed, expected if running else None)
    taken = sum(one.amount_minor for one in discounts)
    shown = replace(
        preview,
        lines=lines,
        subtotal_minor=subtotal,
        discounts=discounts,
        taxes=(),
        total_minor=subtotal - taken,
    )
    return PeriodPreview(shown, expected)


async def _fixed_lines(
    session: AsyncSession, facts: BillingFacts, period: BillingPeriod
) -> list[StripeInvoiceLine]:
    lines = await _lines(session, facts.row.subscription_id, period, _FIXED)
    return [line for line in lines if line.charge_key.partition("/")[0] in facts.terms]


async def _lines(
    session: AsyncSession, subscription_id: str, period: BillingPeriod, kinds: Iterable[str]
) -> list[StripeInvoiceLine]:
    line = StripeInvoiceLine
    rows = await session.scalars(
        select(line)
        .join(StripeInvoice, StripeInvoice.id == line.invoice_id)
        .where(
            StripeInvoice.subscription_id == subscription_id,
            is_charged(),
            line.kind.in_(list(kinds)),
            line.period_start >= period.start,
            line.period_start < period.end,
        )
        .order_by(StripeInvoice.created_at, line.position)
    )
    return list(rows)


def _as_line(facts: BillingFacts, line: StripeInvoiceLine) -> InvoiceLine:
    terms = facts.terms[line.charge_key.partition("/")[0]]
    exact = Money(line.amount_minor, facts.currency).as_decimal()
    quantity = line.quantity or 1
    by_unit = line.kind == LineKind.FLAT.value
    return InvoiceLine(
        kind=_KINDS[LineKind(line.kind)],
        plan_code=terms.plan_code,
        plan_name=terms.plan_name,
        plan_version=terms.version,
        meter=None,
        used_units=None,
        unit=None,
        line=RatedLine(
            description=line.description,
            formula="as Stripe has charged",
            quantity=quantity,
            unit_amount=exact / Decimal(quantity) if by_unit else None,
            tiers=(),
            exact_amount=exact,
            amount_minor=line.amount_minor,
            currency=facts.currency,
        ),
    )


async def _discounts(
    session: AsyncSession,
    preview: InvoicePreview,
    fixed: Iterable[StripeInvoiceLine],
    expected: Expectation | None,
) -> tuple[AppliedDiscount, ...]:
    """Return what discounts took off fixed prices, and take or took off use."""
    if expected is None:
        metered = (LineKind.METERED.value, LineKind.ADJUSTMENT.value)
        billed = await _lines(session, preview.subscription_id, preview.period, metered)
        of_use = sum(line.discount_minor for line in billed)
    else:
        in_use = {LineKind.METERED, LineKind.ADJUSTMENT}
        of_use = sum(line.discount_minor for line in expected.invoice.lines if line.kind in in_use)
    amount = of_use + sum(line.discount_minor for line in fixed)
    if not amount:
        return ()
    return (AppliedDiscount(discount_id="", description="Discounts at Stripe", amount_minor=amount, shares=()),)
