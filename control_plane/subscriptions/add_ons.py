"""Add-ons beside a subscription's plan: added, changed in quantity, removed. Nothing here commits.

Every change cuts the phase in force, so that what each add-on was there for can be told apart.
"""

from datetime import datetime
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.queries import plan_versions
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.subscriptions.model import Status
from control_plane.subscriptions.offers import offered_version, require_addition
from control_plane.subscriptions.phases import ahead, rewrite
from control_plane.subscriptions.queries import period_end
from control_plane.subscriptions.records import facts, note_change, own_subscription
from control_plane.subscriptions.tables import Subscription, SubscriptionAddOn

MAX_QUANTITY = 10_000


class AddOnHeldError(ConflictError):
    """The add-on is there already, once for all: it has a quantity."""

    def __init__(self, add_on_code: str) -> None:
        super().__init__(
            "add_on_held", f"The subscription has add-on {add_on_code} already; change its quantity instead."
        )


class AddOnsClosedError(ConflictError):
    """Nothing is sold beside a plan that costs nothing for now."""

    def __init__(self, status: str) -> None:
        instead = "end the trial first" if status == Status.TRIALING else "resume it first"
        super().__init__(
            "add_ons_closed", f"No add-on can be changed on a subscription that is {status}: {instead}."
        )


async def add_on(
    session: AsyncSession,
    *,
    subscription_id: str,
    add_on_code: str,
    quantity: int = 1,
    allow_unlisted: bool = False,
    actor: str,
    now: datetime,
) -> Subscription:
    """Add the version of an add-on that is on sale to a subscription, from now on.

    Raises:
        NotFoundError, SubscriptionOverError, AddOnsClosedError, AddOnHeldError, NotAnAddOnError,
        PlanNotOnSaleError, PlanUnlistedError, CurrencyDiffersError, ProductDiffersError, IntervalDiffersError,
        BillingDiffersError.
        ValidationFailedError: the quantity.
    """
    now = floor_ms(now)
    _check_quantity(quantity)
    account, subscription = await own_subscription(session, subscription_id, now)
    version = await offered_version(
        session, add_on_code, account=account, allow_unlisted=allow_unlisted, kind="add_on"
    )
    require_addition(subscription, version)
    _require_open(subscription)
    # one that begins later, too: of two requests at once, the later may have come first
    if add_on_code in await _codes_ahead(session, subscription, now):
        raise AddOnHeldError(add_on_code)
    before = facts(subscription)
    subscription.add_ons.append(_row(version.id, quantity, ends_at=None, now=now))
    await _cut(session, subscription, action="add_on_added", before=before, actor=actor, now=now)
    return subscription


async def change_quantity(
    session: AsyncSession, *, subscription_id: str, add_on_code: str, quantity: int, actor: str, now: datetime
) -> Subscription:
    """Have another quantity of an add-on from now on, of the version that is held. The same changes nothing.

    A removal that is planned stays planned.

    Raises:
        NotFoundError: no such subscription, or no such add-on on it. SubscriptionOverError, AddOnsClosedError.
        ValidationFailedError: the quantity.
    """
    now = floor_ms(now)
    _check_quantity(quantity)
    subscription, held = await _held_add_on(session, subscription_id, add_on_code, now)
    _require_open(subscription)
    if held.quantity == quantity:
        return subscription
    before = facts(subscription)
    if held.starts_at == now:
        held.quantity = quantity
    else:
        subscription.add_ons.append(_row(held.plan_version_id, quantity, ends_at=held.ends_at, now=now))
        held.ends_at = now
    await _cut(session, subscription, action="add_on_changed", before=before, actor=actor, now=now)
    return subscription


async def remove_add_on(
    session: AsyncSession,
    *,
    subscription_id: str,
    add_on_code: str,
    at: Literal["now", "period_end"],
    actor: str,
    now: datetime,
) -> Subscription:
    """End an add-on now, or when the billing period ends. To the same end again nothing changes.

    Raises:
        NotFoundError: no such subscription, or no such add-on on it. SubscriptionOverError.
    """
    now = floor_ms(now)
    subscription, held = await _held_add_on(session, subscription_id, add_on_code, now)
    ends_at = now if at == "now" else period_end(subscription, now)
    if held.ends_at is not None and held.ends_at <= ends_at:
        return subscription
    before = facts(subscription)
    if held.starts_at == ends_at:
        subscription.add_ons.remove(held)
        await session.delete(held)
    else:
        held.ends_at = ends_at
    await _cut(session, subscription, action="add_on_removed", before=before, actor=actor, now=now)
    return subscription


async def keep_add_on(
    session: AsyncSession, *, subscription_id: str, add_on_code: str, actor: str, now: datetime
) -> Subscription:
    """Take the removal of an add-on at period end back. Without one nothing changes.

    Raises:
        NotFoundError: no such subscription, or no such add-on on it. SubscriptionOverError.
    """
    now = floor_ms(now)
    subscription, held = await _held_add_on(session, subscription_id, add_on_code, now)
    if held.ends_at is None:
        return subscription
    before = facts(subscription)
    held.ends_at = None
    await _cut(session, subscription, action="add_on_kept", before=before, actor=actor, now=now)
    return subscription


async def held_versions(
    session: AsyncSession, subscription: Subscription, now: datetime
) -> dict[str, PlanVersion]:
    """Return the versions, with plan and prices, of the add-ons (loaded) in force at a moment, by row id."""
    held = [row for row in subscription.add_ons if is_held(row, now)]
    versions = await plan_versions(session, {row.plan_version_id for row in held})
    return {row.id: versions[row.plan_version_id] for row in held}


def is_held(row: SubscriptionAddOn, now: datetime) -> bool:
    """Say whether an add-on is in force at a moment."""
    return row.starts_at <= now and (row.ends_at is None or now < row.ends_at)


async def _held_add_on(
    session: AsyncSession, subscription_id: str, add_on_code: str, now: datetime
) -> tuple[Subscription, SubscriptionAddOn]:
    _, subscription = await own_subscription(session, subscription_id, now)
    held = await _held(session, subscription, add_on_code, now)
    if held is None:
        raise NotFoundError("add_on", f"{add_on_code} on subscription {subscription_id}")
    return subscription, held


async def _held(
    session: AsyncSession, subscription: Subscription, add_on_code: str, now: datetime
) -> SubscriptionAddOn | None:
    versions = await held_versions(session, subscription, now)
    rows = [row for row in subscription.add_ons if row.id in versions]
    return next((row for row in rows if versions[row.id].plan.code == add_on_code), None)


async def _codes_ahead(session: AsyncSession, subscription: Subscription, now: datetime) -> set[str]:
    ahead_of = {row.plan_version_id for row in subscription.add_ons if row.ends_at is None or row.ends_at > now}
    return {version.plan.code for version in (await plan_versions(session, ahead_of)).values()}


def _row(plan_version_id: str, quantity: int, *, ends_at: datetime | None, now: datetime) -> SubscriptionAddOn:
    return SubscriptionAddOn(
        id=new_id("sao", now),
        plan_version_id=plan_version_id,
        quantity=quantity,
        starts_at=now,
        ends_at=ends_at,
        created_at=now,
    )


async def _cut(
    session: AsyncSession,
    subscription: Subscription,
    *,
    action: str,
    before: dict[str, object],
    actor: str,
    now: datetime,
) -> None:
    await rewrite(session, subscription, ahead(subscription, now), at=now, now=now)
    action = f"subscription.{action}"
    await note_change(session, subscription, action=action, before=before, actor=actor, now=now)


def _require_open(subscription: Subscription) -> None:
    if subscription.status in {Status.TRIALING, Status.PAUSED}:
        raise AddOnsClosedError(subscription.status)


def _check_quantity(quantity: int) -> None:
    if not 1 <= quantity <= MAX_QUANTITY:
        raise ValidationFailedError("quantity", f"must be between 1 and {MAX_QUANTITY}")
