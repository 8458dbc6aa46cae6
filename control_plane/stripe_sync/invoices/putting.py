"""Putting adjustments on Stripe's invoices: each is made once, whatever is cut off in between.

Before Stripe is asked, the row says so; whoever takes it up again looks for it by its metadata first, since Stripe
forgets idempotency keys after a day, and keeps a failure as a key's answer.
"""

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import update

from control_plane.foundation.period import BillingPeriod
from control_plane.stripe_sync.client import StripeRefused, StripeUnavailable, options
from control_plane.stripe_sync.invoices import metrics
from control_plane.stripe_sync.invoices.reading import ADJUSTMENT_KEY
from control_plane.stripe_sync.invoices.tables import StripeAdjustment
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.reading import seconds

if TYPE_CHECKING:
    from stripe.params import InvoiceItemCreateParams

PAGE: Final = 100
MAX_DESCRIPTION: Final = 500
log = structlog.get_logger(__name__)


async def put_item(
    ctx: StripeContext,
    adjustment: StripeAdjustment,
    *,
    customer_id: str,
    product_id: str | None,
    period: BillingPeriod,
) -> bool:
    """Put an adjustment on the draft that it is for; False where Stripe refuses, as it does once it is final.

    Raises:
        StripeUnavailable: nobody knows; to be called again.
    """
    found = None
    if adjustment.first_tried_at is not None:
        found = await _item_on_draft(ctx, adjustment)
    if found is None:
        await _note(ctx, adjustment, first_tried_at=adjustment.first_tried_at or ctx.now)
        try:
            found = await _create(ctx, adjustment, customer_id=customer_id, product_id=product_id, period=period)
        except StripeRefused as refused:
            await _note(ctx, adjustment, state="refused", refusal=refused.sentence)
            metrics.ADJUSTMENTS.labels(adjustment.cause, "refused").inc()
            await log.awarning("stripe_adjustment_refused", adjustment=adjustment.id, reason=refused.sentence)
            return False
        except StripeUnavailable as away:
            if away.spent_key:
                await _note(ctx, adjustment, edition=adjustment.edition + 1)
            raise
    await _note(ctx, adjustment, state="done", stripe_id=found, done_at=ctx.now)
    metrics.ADJUSTMENTS.labels(adjustment.cause, "done").inc()
    return True


def item_minor(adjustment: StripeAdjustment) -> int:
    """Return what the item is: what discounts took off what it takes back is not given back again."""
    return int(adjustment.details.get("item_minor", adjustment.amount_minor))


def idempotency_key(ctx: StripeContext, adjustment: StripeAdjustment) -> str:
    return f"km:{ctx.config.installation}:adjustment:{adjustment.id}:{adjustment.edition}"


def metadata_of(ctx: StripeContext, adjustment: StripeAdjustment) -> dict[str, str]:
    """Return what marks an item or a credit note as made for an adjustment."""
    return {
        **ctx.config.metadata,
        "km_object": adjustment.id,
        ADJUSTMENT_KEY: adjustment.id,
        "km_cause": adjustment.cause,
    }


async def _create(
    ctx: StripeContext,
    adjustment: StripeAdjustment,
    *,
    customer_id: str,
    product_id: str | None,
    period: BillingPeriod,
) -> str:
    amount, currency = item_minor(adjustment), adjustment.currency.lower()
    params: InvoiceItemCreateParams = {
        "customer": customer_id,
        "invoice": adjustment.invoice_id or "",
        "description": adjustment.description[:MAX_DESCRIPTION],
        # what is taken back was charged after discounts, and is reckoned so already
        "discountable": amount > 0,
        "period": {"start": seconds(period.start), "end": seconds(period.end)},
        "metadata": metadata_of(ctx, adjustment),
    }
    if product_id is None:
        params["amount"] = amount
        params["currency"] = currency
    else:
        # with its product, so that discounts and taxes of the plan are those of the item
        params["price_data"] = {
            "currency": currency,
            "product": product_id,
            "unit_amount_decimal": Decimal(amount),
        }
        if ctx.config.automatic_tax:
            params["price_data"]["tax_behavior"] = "exclusive"
    key = options(idempotency_key(ctx, adjustment))
    made = await ctx.stripe.call(lambda c: c.v1.invoice_items.create_async(params, key))
    return made.id


async def _item_on_draft(ctx: StripeContext, adjustment: StripeAdjustment) -> str | None:
    invoice_id = adjustment.invoice_id or ""
    items = ctx.stripe.every(lambda c: c.v1.invoice_items.list_async({"invoice": invoice_id, "limit": PAGE}))
    async for item in items:
        metadata = {} if item.metadata is None else item.metadata.to_dict()
        if metadata.get(ADJUSTMENT_KEY) == adjustment.id:
            return item.id
    return None


async def _note(ctx: StripeContext, adjustment: StripeAdjustment, **values: str | int | datetime | None) -> None:
    async with ctx.sessions() as session, session.begin():
        await session.execute(
            update(StripeAdjustment)
            .where(StripeAdjustment.id == adjustment.id, StripeAdjustment.state == "wanted")
            .values(**values)
            .execution_options(synchronize_session=False)
        )
    for name, value in values.items():
        setattr(adjustment, name, value)
