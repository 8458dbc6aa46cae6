"""Setting spend caps, and refusing what would break one. Nothing here commits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.queries import account
from control_plane.accounts.tables import Account
from control_plane.billing.call_bounds import prepaid_on_sale, require_bounds, require_maximums
from control_plane.billing.invoices.due import due_lines, runs_of
from control_plane.billing.invoices.model import ChargeLine
from control_plane.billing.terms import Terms, read_terms
from control_plane.catalog.prices import canonical_amount
from control_plane.catalog.queries import api_product, plan_versions
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.foundation.money import Money, minor_units
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.cost_tables import MAX_CAP_MINOR
from control_plane.rating.period import ChargeKind, rate_period
from control_plane.rating.spend_cap import charges_by_use
from control_plane.rating.words import format_amount
from control_plane.subscriptions import own_terms
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.subscriptions.timeline import Timeline, TimelinePhase
from control_plane.subscriptions.timelines import timeline, timelines
from control_plane.usage.rollups.phase_units import units_of_phases

FIELD = "amount"


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
    found = await timeline(session, subscription_id)
    # nobody changes the plan between the look at what it costs and the cap
    held = select(Account.currency).where(Account.id == found.account_id).with_for_update(key_share=True)
    currency = (await session.scalars(held)).one()
    found = await timeline(session, subscription_id)
    amount_minor = _amount_minor(amount, currency)
    terms = await _terms(session, found, currency)
    _check_fixed_charges(found, terms, Money(amount_minor, currency), now)
    await require_bounds(session, _versions_ahead(found, now))
    current = found.phase_at(now) or found.phases[-1]
    effective = charges_by_use(terms[key].rated for key in _versions_of(current))
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
    """Refuse a change of plan or add-ons, just made, under which the subscription's spend cap could not be kept.

    Or, where credits pay for its use, could not bound it. Without either nothing is refused.
    Of this billing period counts what is known of its use by now: the gateway's calls of the last seconds are not.

    Raises:
        MaximumMissingError, MeterUncappedError, CapBelowFixedChargesError.
    """
    await session.flush()
    found = await timeline(session, subscription.id)
    await require_bounds(session, await _paid_ahead(session, [found], now), prepaid=True)
    if subscription.spend_cap_minor is None:
        return
    await require_bounds(session, _versions_ahead(found, now))
    currency = (await account(session, found.account_id)).currency
    terms = await _terms(session, found, currency)
    cap = Money(subscription.spend_cap_minor, currency)
    for phase in _ahead(found, now):
        fixed = _whole_period_minor(found, phase, found.period_at(max(now, phase.starts_at)), terms)
        if fixed > cap.amount_minor:
            plans = " with ".join(dict.fromkeys(terms[key].plan_code for key in _versions_of(phase)))
            what = f"Plan {plans} costs {_text(fixed, currency)} a billing period before any use"
            raise CapBelowFixedChargesError(what=what, cap=_text(cap.amount_minor, currency))
    await _check_periods(session, found, terms, cap, now)


async def require_cap_kept_by_quota(
    session: AsyncSession, subscription: Subscription, *, quota_before: int | None, now: datetime
) -> None:
    """Refuse another quota of the subscription's own, just given, that makes the use so far dearer than its cap.

    Raises:
        CapBelowFixedChargesError.
    """
    if subscription.spend_cap_minor is None or subscription.overrides.get("quota_units") == quota_before:
        return
    await session.flush()
    found = await timeline(session, subscription.id)
    currency = (await account(session, found.account_id)).currency
    terms, period = await _terms(session, found, currency), found.period_at(now)
    units = await _units(session, found, period)
    before = replace(found, quota_override=quota_before)
    total = _total_minor(due_lines(found, period, terms=terms, units=units))
    if total > max(
        subscription.spend_cap_minor, _total_minor(due_lines(before, period, terms=terms, units=units))
    ):
        what = f"With this quota the use so far would cost {_text(total, currency)}"
        raise CapBelowFixedChargesError(what=what, cap=_text(subscription.spend_cap_minor, currency))


async def require_caps_kept(session: AsyncSession, *, product_code: str, now: datetime) -> None:
    """Refuse a change of an API product, just made, under which a customer's spend cap could not be kept.

    Nor may it leave out what bounds the use that credits pay for: of prepaid plans on sale, and of those in use.

    Raises:
        MaximumMissingError, MeterUncappedError: for the first of them.
    """
    product = await api_product(session, product_code)
    on_sale = await prepaid_on_sale(session, product.id)
    live = Subscription.api_product_id == product.id, Subscription.status.not_in(sorted(OVER))
    prepaid = (
        select(SubscriptionPhase.subscription_id)
        .join(PlanVersion, PlanVersion.id == SubscriptionPhase.plan_version_id)
        .where(PlanVersion.payment == "prepaid")
    )
    concerned = await session.execute(
        select(Subscription.id, Subscription.spend_cap_minor).where(
            *live, Subscription.spend_cap_minor.is_not(None) | Subscription.id.in_(prepaid)
        )
    )
    caps: dict[str, int | None] = dict(concerned.all())
    found = await timelines(session, caps)
    capped = [one for key, one in found.items() if caps[key] is not None]
    await require_bounds(session, set().union(*(_versions_ahead(one, now) for one in capped)))
    await require_maximums(session, on_sale | await _paid_ahead(session, found.values(), now))


async def _paid_ahead(session: AsyncSession, found: Iterable[Timeline], now: datetime) -> set[str]:
    """Return the versions in force now or later whose use credits pay: prepaid plans, and add-ons beside them."""
    phases = [phase for one in found for phase in _ahead(one, now)]
    versions = await plan_versions(session, {phase.plan_version_id for phase in phases})
    return {
        version_id
        for phase in phases
        if versions[phase.plan_version_id].payment == "prepaid"
        for version_id in _versions_of(phase)
    }


async def _terms(session: AsyncSession, found: Timeline, currency: str) -> dict[str, Terms]:
    read = await read_terms(session, {(version_id, currency) for version_id in found.version_ids})
    return {version_id: terms for (version_id, _), terms in read.items()}


def _ahead(found: Timeline, now: datetime) -> list[TimelinePhase]:
    return [phase for phase in found.phases if phase.ends_at is None or phase.ends_at > now]


def _versions_of(phase: TimelinePhase) -> list[str]:
    return [phase.plan_version_id, *(add_on.plan_version_id for add_on in phase.add_ons)]


def _versions_ahead(found: Timeline, now: datetime) -> set[str]:
    return {version_id for phase in _ahead(found, now) for version_id in _versions_of(phase)}


def _amount_minor(amount: str, currency: str) -> int:
    text = canonical_amount(amount, currency=currency, field=FIELD)
    digits = minor_units(currency)
    if len(text.partition(".")[2]) > digits:
        raise ValidationFailedError(FIELD, f"{currency} has {digits} digits after the point")
    amount_minor = int(Decimal(text).scaleb(digits))
    if amount_minor > MAX_CAP_MINOR:
        raise ValidationFailedError(FIELD, f"must be at most {_text(MAX_CAP_MINOR, currency)}")
    return amount_minor


def _check_fixed_charges(found: Timeline, terms: Mapping[str, Terms], cap: Money, now: datetime) -> None:
    """This period's fixed charges may be of several plans; the next one's are those of what is in force then."""
    for period in _periods(found, now):
        lines = due_lines(found, period, terms=terms, units={})
        fixed = _total_minor(lines)
        if fixed > cap.amount_minor:
            plans = ", ".join(sorted({line.plan_name for line in lines}))
            message = f"must be at least {_text(fixed, cap.currency)}: what {plans} costs before any use"
            raise ValidationFailedError(FIELD, f"{message} in the period from {period.start:%Y-%m-%d}")


async def _check_periods(
    session: AsyncSession, found: Timeline, terms: Mapping[str, Terms], cap: Money, now: datetime
) -> None:
    """Refuse a change that makes a period dearer before any use, and so dearer than the cap with its use so far.

    Each period is judged as it will be rated: amounts of several plans are cut and rounded one by one.
    """
    before = unchanged(found, now)
    for period in _periods(found, now):
        units = await _units(session, found, period)
        lines = due_lines(found, period, terms=terms, units=units)
        fixed, total = _total_minor(due_lines(found, period, terms=terms, units={})), _total_minor(lines)
        if total > cap.amount_minor and fixed > _total_minor(due_lines(before, period, terms=terms, units={})):
            plans = ", ".join(dict.fromkeys(line.plan_code for line in lines))
            what = (
                f"The billing period from {period.start:%Y-%m-%d} would cost {_text(total, cap.currency)} "
                f"({plans}; {_text(fixed, cap.currency)} before any use)"
            )
            raise CapBelowFixedChargesError(what=what, cap=_text(cap.amount_minor, cap.currency))


async def _units(session: AsyncSession, found: Timeline, period: BillingPeriod) -> dict[str, Mapping[str, int]]:
    phases = found.phases_within(period)
    counted = await units_of_phases(session, {(phase.id, period.start, period.end) for phase in phases})
    return {phase.id: counted[phase.id, period.start].billable for phase in phases}


def unchanged(found: Timeline, now: datetime) -> Timeline:
    """Return the timeline as if what was in force just before `now` went on; for a change made at `now`."""
    begun = [phase for phase in found.phases if phase.starts_at < floor_ms(now)]
    if begun:
        begun.append(replace(begun.pop(), ends_at=found.ends_at))
    return replace(found, phases=tuple(begun))


def _whole_period_minor(
    found: Timeline, phase: TimelinePhase, period: BillingPeriod, terms: Mapping[str, Terms]
) -> int:
    """Return what a phase would cost for a whole period before any use, setup fees apart."""
    if not phase.costs:
        return 0
    whole = replace(phase, starts_at=period.start, ends_at=period.end, charged_from=period.start)
    runs = runs_of(found, period, [whole], terms=terms, units={})
    return sum(rated.line.amount_minor for rated in rate_period(runs) if rated.kind is not ChargeKind.SETUP_FEE)


def _periods(found: Timeline, now: datetime) -> list[BillingPeriod]:
    """Return the billing periods that hold `now`, or the start of something planned, and those after them, unless
    the subscription ends before.
    """
    periods = {}
    for moment in (now, *(phase.starts_at for phase in _ahead(found, now) if phase.starts_at > now)):
        period = found.period_at(moment)
        periods[period.start] = period
        if found.ends_at is None or period.end < found.ends_at:
            periods[period.end] = found.period_at(period.end)
    return [periods[start] for start in sorted(periods)]


def _total_minor(lines: Iterable[ChargeLine]) -> int:
    return sum(line.amount_minor for line in lines)


def _text(amount_minor: int, currency: str) -> str:
    return format_amount(Money(amount_minor, currency).as_decimal(), currency)
