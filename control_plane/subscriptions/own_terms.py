"""What one subscription has of its own: limits in place of its plan's, and a spend cap. Nothing here commits."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.queries import plan_versions
from control_plane.catalog.rules import MAX_CONCURRENCY, check_quota, check_quota_cap
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.unset import UNSET, Unset
from control_plane.foundation.windows import check_windows, windows_to_json
from control_plane.subscriptions.cap_renewal import renew_cap
from control_plane.subscriptions.earlier_quotas import EARLIER_QUOTAS, with_earlier_quota
from control_plane.subscriptions.queries import period_at, phase_at
from control_plane.subscriptions.records import bumped_subscription, facts, record
from control_plane.subscriptions.tables import Subscription
from gateway_contract.records import Window


async def override_limits(
    session: AsyncSession,
    *,
    subscription_id: str,
    windows: Iterable[Window] | Unset | None = UNSET,
    quota_units: int | Unset | None = UNSET,
    quota_cap_units: int | Unset | None = UNSET,
    concurrency_limit: int | Unset | None = UNSET,
    actor: str,
    now: datetime,
) -> Subscription:
    """Give one subscription limits of its own in place of its plan's; None goes back to the plan's.

    A quota is that of the whole billing period in which it is given, and of those after it; periods that are over
    stay as they were.

    A quota's cap needs a quota that charges, and a limit of calls at a time a plan that has one: under a plan
    without, later on, they rest.

    Raises:
        NotFoundError, SubscriptionOverError. ValidationFailedError: names the wrong field.
    """
    now = floor_ms(now)
    overrides: dict[str, Any] = {}
    if windows is not UNSET:
        overrides["windows"] = None if windows is None else windows_to_json(check_windows(windows))
    if quota_units is not UNSET:
        overrides["quota_units"] = check_quota(quota_units)
    if quota_cap_units is not UNSET:
        overrides["quota_cap_units"] = quota_cap_units
    if concurrency_limit is not UNSET:
        overrides["concurrency_limit"] = concurrency_limit
    _, subscription = await bumped_subscription(session, subscription_id, now)
    before = facts(subscription)
    if "quota_units" in overrides and overrides["quota_units"] != subscription.overrides.get("quota_units"):
        overrides[EARLIER_QUOTAS] = with_earlier_quota(
            subscription.overrides,
            quota_units=subscription.overrides.get("quota_units"),
            period=period_at(subscription, now),
            started_at=subscription.started_at,
        )
    merged = {**subscription.overrides, **overrides}
    subscription.overrides = {name: value for name, value in merged.items() if value is not None}
    if subscription.overrides != before["overrides"]:
        await _check_overrides(session, subscription, given=overrides, now=now)
        await record(session, subscription, action="subscription.overridden", before=before, actor=actor, now=now)
    return subscription


async def set_spend_cap(
    session: AsyncSession, *, subscription_id: str, amount_minor: int | None, actor: str, now: datetime
) -> Subscription:
    """Set the most to pay for a billing period, before tax, or take it away (None). Idempotent.

    Whether a cap can be kept is for `billing.spend_caps` to say, which alone calls this.

    Raises:
        NotFoundError, SubscriptionOverError.
    """
    now = floor_ms(now)
    _, subscription = await bumped_subscription(session, subscription_id, now)
    if subscription.spend_cap_minor == amount_minor:
        return subscription
    before = facts(subscription)
    subscription.spend_cap_minor = amount_minor
    renew_cap(subscription, now)
    await session.flush()
    await record(session, subscription, action="subscription.spend_capped", before=before, actor=actor, now=now)
    return subscription


async def _check_overrides(
    session: AsyncSession, subscription: Subscription, *, given: dict[str, Any], now: datetime
) -> None:
    phase = phase_at(subscription, now)
    if phase is None:
        return
    plan = (await plan_versions(session, [phase.plan_version_id]))[phase.plan_version_id]
    _check_quota_overrides(subscription.overrides, plan, given=given)
    limit = given.get("concurrency_limit")
    if limit is not None:
        if plan.concurrency_limit is None:
            raise ValidationFailedError(
                "concurrency_limit", f"plan {plan.plan.code} has no limit of calls at a time"
            )
        if not 1 <= limit <= MAX_CONCURRENCY:
            raise ValidationFailedError("concurrency_limit", f"must be between 1 and {MAX_CONCURRENCY}")


def _check_quota_overrides(overrides: dict[str, Any], plan: PlanVersion, *, given: dict[str, Any]) -> None:
    quota_units = overrides.get("quota_units", plan.quota_units)
    if "quota_cap_units" in overrides:
        check_quota_cap(overrides["quota_cap_units"], quota_units=quota_units, quota_hard=plan.quota_hard)
    elif plan.quota_cap_units is not None and quota_units is not None and quota_units >= plan.quota_cap_units:
        field = "quota_units" if given.get("quota_units") is not None else "quota_cap_units"
        message = f"must be less than the plan's cap of {plan.quota_cap_units} units, or have a cap of its own"
        raise ValidationFailedError(field, message if field == "quota_units" else "is needed by this quota")
