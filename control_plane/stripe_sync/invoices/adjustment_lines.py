"""Our adjustments as lines of an invoice that is expected. Pure."""

from collections.abc import Sequence

from control_plane.stripe_sync.invoices.adjustments import Plan
from control_plane.stripe_sync.invoices.facts import BillingFacts
from control_plane.stripe_sync.invoices.lines import Span
from control_plane.stripe_sync.invoices.totals import ExpectedLine, LineKind, after_discounts


def adjustment_lines(
    facts: BillingFacts, adjustments: Plan, span: Span, by_stripe: Sequence[ExpectedLine]
) -> list[ExpectedLine]:
    """Return our items as lines: what they take back is after the discounts on what it takes back of."""
    products = {key.partition("/")[0]: price.product_id for key, price in facts.sold.items()}
    found = []
    for one in adjustments.wanted:
        amount, key = one.amount_minor, one.line.charge_key
        if amount < 0:
            charged = [line for line in by_stripe if line.charge_key == key and line.kind is LineKind.METERED]
            amount = after_discounts(
                amount,
                charged_minor=sum(line.amount_minor for line in charged),
                discount_minor=sum(line.discount_minor for line in charged),
            )
        found.append(
            ExpectedLine(
                kind=LineKind.ADJUSTMENT,
                charge_key=key,
                product_id=products.get(one.line.plan_version_id),
                description=one.description,
                amount_minor=amount,
                starts_at=span.starts_at,
                ends_at=span.ends_at,
                discountable=amount > 0,
                cause=one.cause.value,
            )
        )
    return found
