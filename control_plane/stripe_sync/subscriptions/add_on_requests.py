"""Add-ons beside the plan of a subscription that Stripe bills: wanted of Stripe, and carried out."""

from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.queries import plan_versions
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.held_here import HeldHere
from control_plane.stripe_sync.subscriptions.requests import request
from control_plane.stripe_sync.subscriptions.steps import Kind
from control_plane.stripe_sync.subscriptions.tables import StripeChange
from control_plane.stripe_sync.subscriptions.wanted import fees_of, schedule_wanted, update_wanted
from control_plane.subscriptions.add_ons import MAX_QUANTITY, AddOnHeldError, AddOnsClosedError
from control_plane.subscriptions.offers import offered_version, require_addition


async def add_on(
    ctx: StripeContext,
    *,
    subscription_id: str,
    add_on_code: str,
    quantity: int = 1,
    allow_unlisted: bool = False,
    actor: str,
) -> StripeChange:
    """Add the version of an add-on that is on sale, charged at once for the rest of the period.

    Raises:
        As `subscriptions.add_ons.add_on`; PlanNotAtStripeError, PaymentOverdueError, ChangeInProgressError.
    """
    _check_quantity(quantity)

    async def ask(session: AsyncSession, held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        _require_open(held)
        version = await offered_version(
            session, add_on_code, account=held.account, allow_unlisted=allow_unlisted, kind="add_on"
        )
        require_addition(held.subscription, version)
        if await _held_version(session, held, add_on_code) is not None:
            raise AddOnHeldError(add_on_code)
        fees = await fees_of(session, held, version)
        return update_wanted(held, held.now.with_add_on(version.id, quantity), dearer=True, fees=fees, now=ctx.now)

    return await request(ctx, subscription_id, ask, actor=actor)


async def change_quantity(
    ctx: StripeContext, *, subscription_id: str, add_on_code: str, quantity: int, actor: str
) -> StripeChange:
    """Have another quantity of an add-on from now on; more is charged at once, less credited on the next invoice.

    Raises:
        NotFoundError, SubscriptionOverError, AddOnsClosedError, ChangeInProgressError, PaymentOverdueError.
    """
    _check_quantity(quantity)

    async def ask(session: AsyncSession, held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        _require_open(held)
        version = await _required_version(session, held, add_on_code)
        dearer = quantity > held.now.quantities[version.id]
        return update_wanted(held, held.now.with_add_on(version.id, quantity), dearer=dearer, fees=[], now=ctx.now)

    return await request(ctx, subscription_id, ask, actor=actor)


async def remove_add_on(
    ctx: StripeContext, *, subscription_id: str, add_on_code: str, at: Literal["now", "period_end"], actor: str
) -> StripeChange:
    """End an add-on now (the unused time is credited on the next invoice), or when the billing period ends.

    Raises:
        NotFoundError, SubscriptionOverError, ChangeInProgressError, SubscriptionEndingError.
    """

    async def ask(session: AsyncSession, held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        version = await _required_version(session, held, add_on_code)
        if at == "now":
            return update_wanted(held, held.now.with_add_on(version.id, 0), dearer=False, fees=[], now=ctx.now)
        return schedule_wanted(held, (held.later or held.now).with_add_on(version.id, 0))

    return await request(ctx, subscription_id, ask, actor=actor)


async def keep_add_on(ctx: StripeContext, *, subscription_id: str, add_on_code: str, actor: str) -> StripeChange:
    """Take the removal of an add-on at period end back. Without one nothing changes.

    Raises:
        NotFoundError, SubscriptionOverError, ChangeInProgressError.
    """

    async def ask(session: AsyncSession, held: HeldHere) -> tuple[Kind, dict[str, Any]]:
        version = await _required_version(session, held, add_on_code)
        count = held.now.quantities[version.id]
        return schedule_wanted(held, (held.later or held.now).with_add_on(version.id, count))

    return await request(ctx, subscription_id, ask, actor=actor)


async def _held_version(session: AsyncSession, held: HeldHere, add_on_code: str) -> PlanVersion | None:
    ids = held.now.quantities.keys() | (held.later.quantities.keys() if held.later is not None else set())
    versions = await plan_versions(session, ids)
    return next((one for one in versions.values() if one.plan.code == add_on_code), None)


async def _required_version(session: AsyncSession, held: HeldHere, add_on_code: str) -> PlanVersion:
    version = await _held_version(session, held, add_on_code)
    if version is None or version.id not in held.now.quantities:
        raise NotFoundError("add_on", f"{add_on_code} on subscription {held.subscription.id}")
    return version


def _require_open(held: HeldHere) -> None:
    if held.subscription.status in {"trialing", "paused"}:
        raise AddOnsClosedError(held.subscription.status)


def _check_quantity(quantity: int) -> None:
    if not 1 <= quantity <= MAX_QUANTITY:
        raise ValidationFailedError("quantity", f"must be between 1 and {MAX_QUANTITY}")
