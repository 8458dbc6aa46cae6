"""What waits at Stripe for a subscription's next invoice: prorations that were not invoiced at once, fees."""

import stripe as sdk

from control_plane.stripe_sync.client import Stripe
from control_plane.stripe_sync.invoices.reading import PAGE
from control_plane.stripe_sync.invoices.totals import ExpectedLine, LineKind
from control_plane.stripe_sync.subscriptions.reading import id_of, moment


async def waiting_lines(stripe: Stripe, *, customer_id: str, stripe_subscription_id: str) -> list[ExpectedLine]:
    """Return the invoice items that no invoice has yet, as lines; those of other subscriptions are left out.

    Raises:
        StripeRefused, StripeUnavailable.
    """
    items = stripe.every(
        lambda c: c.v1.invoice_items.list_async({"customer": customer_id, "pending": True, "limit": PAGE})
    )
    return [_line(item) async for item in items if _subscription(item) in {None, stripe_subscription_id}]


def _subscription(item: sdk.InvoiceItem) -> str | None:
    details = None if item.parent is None else item.parent.subscription_details
    return None if details is None else id_of(details.subscription)


def _line(item: sdk.InvoiceItem) -> ExpectedLine:
    priced = None if item.pricing is None else item.pricing.price_details
    return ExpectedLine(
        kind=LineKind.PRORATION if item.proration else LineKind.OTHER,
        charge_key="",
        product_id=None if priced is None else priced.product,
        description=item.description or "",
        amount_minor=item.amount,
        starts_at=moment(item.period.start),
        ends_at=moment(item.period.end),
        quantity=item.quantity,
        discountable=item.discountable,
    )
