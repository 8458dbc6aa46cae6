"""What a change that is asked for comes to at Stripe: which kind it is, and what it needs. Reads only."""

from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.queries import plan_versions
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.stripe_sync.subscriptions.checkout_terms import prices_at_stripe
from control_plane.stripe_sync.subscriptions.held_here import HeldHere
from control_plane.stripe_sync.subscriptions.model import Holding
from control_plane.stripe_sync.subscriptions.steps import Kind
from control_plane.subscriptions.offers import offered_version, require_change
from control_plane.subscriptions.plan_changes import SubscriptionEndingError, gives_more, least_charge

At = Literal["auto", "now", "period_end"]
PREVIEW_HOLDS: Final = timedelta(hours=1)


class PaymentOverdueError(ConflictError):
    """Nothing more is sold to who has not paid."""

    def __init__(self, status: str) -> None:
        super().__init__(
            "payment_overdue",
            f"The subscription is {status} at Stripe: pay its open invoice first, in the portal.",
        )


async def plan_change_wanted(
    session: AsyncSession,
    held: HeldHere,
    *,
    plan_code: str,
    at: At,
    proration_at: datetime | None,
    allow_unlisted: bool,
    now: datetime,
) -> tuple[Kind, dict[str, Any]]:
    """Return what a change of plan comes to at Stripe; see `change_plan`."""
    version = await offered_version(session, plan_code, account=held.account, allow_unlisted=allow_unlisted)
    require_change(held.subscription, version)
    await prices_at_stripe(session, version, currency=held.account.currency)
    if version.id == held.now.plan_version_id:
        return Kind.WITHDRAW, {}
    running = (await plan_versions(session, [held.now.plan_version_id]))[held.now.plan_version_id]
    more = gives_more(version, than=running, currency=held.account.currency)
    if at == "auto":
        at = "now" if held.on_trial or more else "period_end"
    if at == "period_end":
        return schedule_wanted(held, Holding(version.id, (held.later or held.now).add_ons))
    currency = held.account.currency
    dearer = more or least_charge(version, currency) > least_charge(running, currency)
    target = Holding(version.id, held.now.add_ons)
    fees = await fees_of(session, held, version)
    kind, wanted = update_wanted(held, target, dearer=dearer, fees=fees, proration_at=proration_at, now=now)
    return kind, {**wanted, "later": None, "plan_fee": bool(fees)}


def update_wanted(
    held: HeldHere,
    target: Holding,
    *,
    dearer: bool,
    fees: list[str],
    proration_at: datetime | None = None,
    now: datetime,
) -> tuple[Kind, dict[str, Any]]:
    """Return an update of the items, and how it is charged; what is planned for later stays planned.

    Raises:
        PaymentOverdueError: it costs more, and the subscription is overdue. ValidationFailedError: `proration_at`.
    """
    if dearer and held.row.status in {"past_due", "unpaid", "paused"}:
        raise PaymentOverdueError(held.row.status)
    if proration_at is not None and not now - PREVIEW_HOLDS <= proration_at <= now + timedelta(minutes=1):
        raise ValidationFailedError("proration_at", "must be of a preview made within the last hour")
    moment = max(proration_at or now, held.row.current_period_start).replace(microsecond=0)
    charged = "always_invoice" if dearer else "create_prorations"
    later = None
    if held.later is not None:
        added = {key: count for key, count in target.add_ons if held.now.quantities.get(key) != count}
        gone = dict.fromkeys(held.now.quantities.keys() - target.quantities.keys(), 0)
        later = Holding.of(held.later.plan_version_id, {**held.later.quantities, **added, **gone}).as_dict()
    return Kind.UPDATE, {
        **target.as_dict(),
        "proration": "none" if held.on_trial else charged,
        "proration_at": moment.isoformat(),
        "setup_fees": fees,
        "later": later,
    }


def schedule_wanted(held: HeldHere, target: Holding) -> tuple[Kind, dict[str, Any]]:
    """Return that something is planned for the period's end, or that what was planned is taken back.

    Raises:
        SubscriptionEndingError: it ends then.
    """
    if target == held.now:
        return Kind.WITHDRAW, {}
    if held.subscription.ends_at is not None:
        raise SubscriptionEndingError(held.subscription.ends_at)
    return Kind.SCHEDULE, target.as_dict()


async def fees_of(session: AsyncSession, held: HeldHere, version: PlanVersion) -> list[str]:
    """Return the setup fees that a version brings: a plan's once in a subscription's life, an add-on's always."""
    prices = await prices_at_stripe(session, version, currency=held.account.currency)
    if version.plan.kind != "add_on" and held.row.setup_fee_at is not None:
        return []
    return [price.price_id for price in prices if price.kind == "setup_fee"]
