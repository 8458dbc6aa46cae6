"""Setting spend caps, and refusing what would break one. Nothing here commits."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.accounts.queries import account
from control_plane.billing.spend_caps import (
    charges_of,
    charges_within,
    phases_unchanged,
    phases_within,
    unbounded_dimension,
)
from control_plane.catalog.meter_queries import meters_of_versions
from control_plane.catalog.meters import Aggregation, MeteredEvents
from control_plane.catalog.model import MEASURED_METERS
from control_plane.catalog.prices import canonical_amount
from control_plane.catalog.queries import api_product, plan_versions
from control_plane.catalog.tables import Meter, PlanVersion
from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.foundation.money import Money, minor_units
from control_plane.rating.spend_cap import (
    MAX_CAP_MINOR,
    VersionCharges,
    charged_minor,
    charges_by_use,
    fixed_minor,
    reported_dimensions,
)
from control_plane.rating.words import format_amount
from control_plane.subscriptions import own_terms
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.queries import current_and_next_period, phase_at
from control_plane.subscriptions.queries import subscription as subscription_by_id
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.rollups.phase_units import units_of_phases

FIELD = "amount"


class MaximumMissingError(ConflictError):
    """A spend cap needs to know how much one call can cost, and for this route nobody said."""

    def __init__(self, *, plan: str, product: str, route: str, dimension: str) -> None:
        why = (
            "how many of them a call comes to is known only afterwards."
            if dimension in MEASURED_METERS
            else f"API product {product} does not declare how many of them one call to route {route} can report "
            "at most (unit_maximums)."
        )
        super().__init__(
            "unit_maximum_missing",
            f"No spend cap can be kept on plan {plan}: it charges for {dimension}, and {why}",
        )


class MeterUncappedError(ConflictError):
    """A spend cap is kept by the gateway, call by call; what this meter counts, it cannot bound."""

    def __init__(self, *, plan: str, meter: Meter) -> None:
        super().__init__(
            "meter_uncapped",
            f"No spend cap can be kept on plan {plan}: it charges for {meter.name} ({meter.code}), and "
            f"{_why_unbounded(meter)}",
        )


def _why_unbounded(meter: Meter) -> str:
    if meter.events != MeteredEvents.CALLS:
        return "what applications report never passes the gateway."
    if meter.aggregation == Aggregation.UNIQUE:
        return "how many different values a period comes to is known only afterwards."
    if meter.aggregation in {Aggregation.MAX, Aggregation.LATEST}:
        return "what it comes to can change with every event until the period is over."
    return "the gateway counts requests and reported units only, not what a meter makes of them."


class CapBelowFixedChargesError(ConflictError):
    """What is fixed for a billing period costs more than the subscription's spend cap, or than is left of it."""

    def __init__(self, *, what: str, cap: str) -> None:
        super().__init__(
            "spend_cap_below_fixed_charges",
            f"{what}, more than the spend cap of {cap}: raise the cap or remove it first.",
        )


@dataclass(frozen=True, slots=True)
class CappedSubscription:
    """A subscription whose cap was set. Not `effective`: its plan charges nothing by use, nothing is capped."""

    subscription_id: str
    amount_minor: int
    currency: str
    effective: bool


async def set_spend_cap(
    session: AsyncSession, *, subscription_id: str, amount: str, actor: str, now: datetime
) -> CappedSubscription:
    """Set the most to pay for a billing period of a subscription, all lines, before tax: `"250.00"`.

    It holds at once, and for every period from then on. What the period has cost already stays; a cap that is
    reached before it is set refuses whatever would cost more. Under a plan that charges nothing by use it is kept
    for the day on which another plan does.

    Raises:
        NotFoundError, SubscriptionOverError. ValidationFailedError: not an amount, or less than what is fixed for
        a period. MaximumMissingError, MeterUncappedError: a call can cost any amount.
    """
    subscription = await subscription_by_id(session, subscription_id)
    versions = await plan_versions(session, {phase.plan_version_id for phase in subscription.phases})
    current = phase_at(subscription, now) or subscription.phases[-1]
    currency = (await account(session, subscription.account_id)).currency
    amount_minor = _amount_minor(amount, currency)
    _check_fixed_charges(subscription, versions, amount_minor, currency, now)
    await _check_bounds(session, subscription, [versions[key] for key in _versions_ahead(subscription, now)])
    effective = charges_by_use(charges_of(versions[current.plan_version_id], subscription, currency))
    await own_terms.set_spend_cap(
        session, subscription_id=subscription_id, amount_minor=amount_minor, actor=actor, now=now
    )
    return CappedSubscription(subscription_id, amount_minor, currency, effective)


async def remove_spend_cap(
    session: AsyncSession, *, subscription_id: str, actor: str, now: datetime
) -> Subscription:
    """Take a spend cap away. Without one nothing changes.

    Raises:
        NotFoundError, SubscriptionOverError.
    """
    return await own_terms.set_spend_cap(
        session, subscription_id=subscription_id, amount_minor=None, actor=actor, now=now
    )


async def require_cap_kept(session: AsyncSession, subscription: Subscription, *, now: datetime) -> None:
    """Refuse a change of plan, just made, under which the subscription's spend cap (if any) could not be kept.

    Of this billing period counts what is known of its use by now: the gateway's calls of the last seconds are not.

    Raises:
        MaximumMissingError, MeterUncappedError, CapBelowFixedChargesError.
    """
    cap_minor = subscription.spend_cap_minor
    if cap_minor is None:
        return
    versions = await plan_versions(session, {phase.plan_version_id for phase in subscription.phases})
    ahead = [versions[key] for key in sorted(_versions_ahead(subscription, now))]
    await _check_bounds(session, subscription, ahead)
    currency = (await account(session, subscription.account_id)).currency
    for version in ahead:
        fixed = fixed_minor([charges_of(version, subscription, currency)], currency)
        if fixed > cap_minor:
            what = f"Plan {version.plan.code} costs {_text(fixed, currency)} a billing period before any use"
            raise CapBelowFixedChargesError(what=what, cap=_text(cap_minor, currency))
    await _check_periods(session, subscription, versions, Money(cap_minor, currency), now)


async def require_caps_kept(session: AsyncSession, *, product_code: str, now: datetime) -> None:
    """Refuse a change of an API product, just made, under which a customer's spend cap could not be kept.

    Raises:
        MaximumMissingError, MeterUncappedError: for the first of them.
    """
    product = await api_product(session, product_code)
    statement = (
        select(Subscription)
        .where(
            Subscription.api_product_id == product.id,
            Subscription.spend_cap_minor.is_not(None),
            Subscription.status.not_in(sorted(OVER)),
        )
        .options(selectinload(Subscription.phases))
    )
    capped = (await session.scalars(statement)).all()
    ahead = {row.id: _versions_ahead(row, now) for row in capped}
    versions = await plan_versions(session, set().union(*ahead.values()))
    for row in capped:
        await _check_bounds(session, row, [versions[key] for key in ahead[row.id]])


def _versions_ahead(subscription: Subscription, now: datetime) -> set[str]:
    return {phase.plan_version_id for phase in subscription.phases if phase.ends_at is None or phase.ends_at > now}


def _amount_minor(amount: str, currency: str) -> int:
    text = canonical_amount(amount, currency=currency, field=FIELD)
    digits = minor_units(currency)
    if len(text.partition(".")[2]) > digits:
        raise ValidationFailedError(FIELD, f"{currency} has {digits} digits after the point")
    amount_minor = int(Decimal(text).scaleb(digits))
    if amount_minor > MAX_CAP_MINOR:
        raise ValidationFailedError(FIELD, f"must be at most {_text(MAX_CAP_MINOR, currency)}")
    return amount_minor


def _check_fixed_charges(
    subscription: Subscription,
    versions: dict[str, PlanVersion],
    amount_minor: int,
    currency: str,
    now: datetime,
) -> None:
    """This period's fixed charges may be of several plans; the next one's are those of the plan in force then."""
    for period in current_and_next_period(subscription, now):
        charges: dict[str, VersionCharges] = {}
        if phases_within(subscription, period):
            charges = charges_within(subscription, versions, period, currency=currency)
        fixed = fixed_minor(charges.values(), currency)
        if fixed > amount_minor:
            plans = ", ".join(sorted({versions[key].plan.name for key in charges}))
            message = f"must be at least {_text(fixed, currency)}: what {plans} costs before any use"
            raise ValidationFailedError(FIELD, f"{message} in the period from {period.start:%Y-%m-%d}")


async def _check_periods(
    session: AsyncSession,
    subscription: Subscription,
    versions: Mapping[str, PlanVersion],
    cap: Money,
    now: datetime,
) -> None:
    """Refuse a change that makes a period dearer before any use, and so dearer than the cap with its use so far.

    Each period is judged as it will be rated: amounts of several plans are cut and rounded one by one.
    """
    currency = cap.currency
    unchanged = phases_unchanged(subscription, now)
    for period in current_and_next_period(subscription, now):
        phases = phases_within(subscription, period)
        counted = await units_of_phases(session, {(phase.id, period.start, period.end) for phase in phases})
        charges = charges_within(subscription, versions, period, counted, currency=currency)
        fixed, total = fixed_minor(charges.values(), currency), charged_minor(charges.values(), currency)
        before = charges_within(subscription, versions, period, currency=currency, phases=unchanged)
        if total > cap.amount_minor and fixed > fixed_minor(before.values(), currency):
            plans = ", ".join(versions[key].plan.code for key in charges)
            what = (
                f"The billing period from {period.start:%Y-%m-%d} would cost {_text(total, currency)} "
                f"({plans}; {_text(fixed, currency)} before any use)"
            )
            raise CapBelowFixedChargesError(what=what, cap=_text(cap.amount_minor, currency))


async def _check_bounds(
    session: AsyncSession, subscription: Subscription, versions: Collection[PlanVersion]
) -> None:
    declared = await meters_of_versions(session, [version.id for version in versions])
    for version in versions:
        priced = declared.get(version.id, {})
        charges = charges_of(version, subscription, version.currency)  # in every currency the same is counted
        for code in sorted(reported_dimensions(charges) & priced.keys()):
            raise MeterUncappedError(plan=version.plan.code, meter=priced[code])
        product = version.plan.api_product
        missing = unbounded_dimension(charges, product)
        if missing is not None:
            raise MaximumMissingError(
                plan=version.plan.code, product=product.code, route=missing.route, dimension=missing.dimension
            )


def _text(amount_minor: int, currency: str) -> str:
    return format_amount(Money(amount_minor, currency).as_decimal(), currency)
