"""What a change of plan would cost now, by Stripe's own reckoning; nothing is changed or kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.calls import items_for
from control_plane.stripe_sync.subscriptions.changes import look
from control_plane.stripe_sync.subscriptions.held_here import held_here
from control_plane.stripe_sync.subscriptions.model import Holding
from control_plane.stripe_sync.subscriptions.reading import seconds
from control_plane.stripe_sync.subscriptions.steps import Kind
from control_plane.stripe_sync.subscriptions.wanted import At, plan_change_wanted


@dataclass(frozen=True, slots=True)
class PreviewLine:
    """A line of the invoice that the change would make at once."""

    description: str
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePreview:
    """What a change comes to. `at` now: give `proration_at` with the change, and it costs exactly this.

    At period end nothing is charged for it, and there are no amounts.
    """

    at: str
    effective_at: datetime
    proration_at: datetime | None
    currency: str
    subtotal_minor: int
    total_minor: int
    amount_due_minor: int
    lines: Sequence[PreviewLine]


async def preview_plan_change(
    ctx: StripeContext,
    *,
    subscription_id: str,
    plan_code: str,
    at: At = "auto",
    allow_unlisted: bool = False,
) -> ChangePreview:
    """Return what a change of plan would cost.

    Raises:
        As `requests.change_plan`.
    """
    async with ctx.sessions() as session, session.begin():
        held = await held_here(session, subscription_id, now=ctx.now)
        stripe_id, currency, period_end = held.row.stripe_id, held.row.currency, held.row.current_period_end
        kind, wanted = await plan_change_wanted(
            session,
            held,
            plan_code=plan_code,
            at=at,
            proration_at=None,
            allow_unlisted=allow_unlisted,
            now=ctx.now,
        )
        await session.rollback()
    if kind is not Kind.UPDATE:
        effective_at = period_end if kind is Kind.SCHEDULE else ctx.now
        return _nothing("period_end" if kind is Kind.SCHEDULE else "now", effective_at, currency)
    seen = await look(ctx, stripe_id)
    moment = datetime.fromisoformat(wanted["proration_at"])
    if wanted["proration"] == "none":
        return _nothing("now", ctx.now, currency)
    details: dict[str, Any] = {
        "items": await items_for(ctx, Holding.from_dict(wanted), seen),
        "proration_behavior": wanted["proration"],
        "proration_date": seconds(moment),
    }
    params: Any = {"subscription": stripe_id, "subscription_details": details}
    if wanted["setup_fees"]:
        params["invoice_items"] = [{"price": price_id, "quantity": 1} for price_id in wanted["setup_fees"]]
    found = await ctx.stripe.call(lambda c: c.v1.invoices.create_preview_async(params))
    return ChangePreview(
        at="now",
        effective_at=moment,
        proration_at=moment,
        currency=currency,
        subtotal_minor=found.subtotal,
        total_minor=found.total,
        amount_due_minor=found.amount_due,
        lines=[PreviewLine(line.description or "", line.amount) for line in found.lines.data],
    )


def _nothing(at: str, effective_at: datetime, currency: str) -> ChangePreview:
    return ChangePreview(
        at=at,
        effective_at=effective_at,
        proration_at=None,
        currency=currency,
        subtotal_minor=0,
        total_minor=0,
        amount_due_minor=0,
        lines=(),
    )
