"""Invoice previews from the database. Reads only."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.queries import account
from control_plane.billing.model import (
    InvoicePreview,
    PricedVersion,
    PriceOfPlan,
    QuotaProgress,
    invoice_lines,
    lines_total_minor,
)
from control_plane.catalog.currencies import prices_in
from control_plane.catalog.meter_queries import meters_of_versions
from control_plane.catalog.meters import Aggregation
from control_plane.catalog.model import MEASURED_METERS
from control_plane.catalog.queries import api_product, plan_versions
from control_plane.catalog.tables import Meter, PlanVersion
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import NotFoundError
from control_plane.rating.phases import PhaseUsage
from control_plane.rating.versions import REQUESTS
from control_plane.subscriptions.queries import current_and_next_period, live_subscription, phase_at
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.meters.values import declared_codes
from control_plane.usage.queries import PhaseUsage as BillablePhase
from control_plane.usage.queries import billable_units


class NotSubscribedError(NotFoundError):
    """The account has no subscription to the API product that is not over: there is nothing to preview."""

    def __init__(self, account_id: str, product_code: str) -> None:
        super().__init__("subscription", f"of account {account_id} to API product {product_code}")


async def preview_invoice(
    session: AsyncSession, *, account_id: str, product_code: str, now: datetime
) -> InvoicePreview:
    """Return what the running billing period costs so far. Test calls are never in it.

    Raises:
        NotFoundError: no such account or API product. NotSubscribedError: no subscription that is not over.
    """
    payer = await account(session, account_id)
    product = await api_product(session, product_code)
    subscription = await live_subscription(session, account_id, product_code)
    if subscription is None:
        raise NotSubscribedError(account_id, product_code)
    period = current_and_next_period(subscription, now)[0]
    phases = await billable_units(session, subscription_id=subscription.id, start=period.start, end=period.end)
    versions = await plan_versions(session, {phase.plan_version_id for phase in phases})
    declared = await meters_of_versions(session, versions)
    priced = {
        key: priced_version(version, declared.get(key, {}), currency=payer.currency)
        for key, version in versions.items()
    }
    lines = invoice_lines(
        [_phase_usage(phase, subscription) for phase in phases],
        priced,
        period=period,
        quota_override=subscription.overrides.get("quota_units"),
        weighted=bool(product.route_units),
    )
    codes = (await declared_codes(session, [product_code])).get(product_code, set())
    used = _shown(_added_up(phases, declared), priced.values(), MEASURED_METERS.union(codes))
    in_force = phase_at(subscription, now)
    return InvoicePreview(
        account_id=account_id,
        account_name=payer.name,
        product_code=product_code,
        product_name=product.name,
        subscription_id=subscription.id,
        period=period,
        as_of=now,
        currency=payer.currency,
        lines=lines,
        total_minor=lines_total_minor(lines),
        used_units=used,
        quota=_quota(priced[in_force.plan_version_id], subscription, used[REQUESTS]) if in_force else None,
        spend_cap_minor=subscription.spend_cap_minor,
    )


def _phase_usage(phase: BillablePhase, subscription: Subscription) -> PhaseUsage:
    return PhaseUsage(
        plan_version_id=phase.plan_version_id,
        starts_at=billed_from(phase.starts_at, subscription),
        ends_at=phase.ends_at,
        units=phase.units,
    )


def billed_from(starts_at: datetime, subscription: Subscription) -> datetime:
    """Return the moment from which a phase that starts at `starts_at` is charged.

    Periods begin at full hours: whoever subscribed within the first hour of one has the whole of it.
    """
    if starts_at == subscription.started_at and floor_hour(starts_at) == subscription.anchor_at:
        return subscription.anchor_at
    return starts_at


def priced_version(
    version: PlanVersion, declared: Mapping[str, Meter] | None = None, *, currency: str | None = None
) -> PricedVersion:
    """Return a version, loaded with plan and prices, as rating needs it; `declared` meters are called by name.

    `currency` is the account's; None: the version's own.

    Raises:
        CurrencyDiffersError: the version has prices, and none in this currency.
    """
    currency = currency or version.currency
    return PricedVersion(
        plan_version_id=version.id,
        plan_code=version.plan.code,
        plan_name=version.plan.name,
        version=version.version,
        currency=currency,
        quota_units=version.quota_units,
        quota_hard=version.quota_hard,
        prices=[
            PriceOfPlan(model=price.model, meter=price.meter, params=price.params, description=price.description)
            for price in prices_in(version, currency)
        ],
        meter_names={code: meter.name for code, meter in (declared or {}).items()},
        quota_on_change=version.quota_on_change,
    )


def _quota(version: PricedVersion, subscription: Subscription, used_units: int) -> QuotaProgress | None:
    quota_units: Any = subscription.overrides.get("quota_units", version.quota_units)
    if quota_units is None:
        return None
    return QuotaProgress(used_units=used_units, quota_units=int(quota_units), hard=version.quota_hard)


def _shown(
    units: Mapping[str, int], versions: Iterable[PricedVersion], only_if_priced: Collection[str]
) -> dict[str, int]:
    """Return what tells the payer something: bytes, times and declared meters only where they cost something."""
    priced = {price.meter for version in versions for price in version.prices}
    return {meter: count for meter, count in units.items() if meter not in only_if_priced or meter in priced}


def _added_up(phases: Iterable[BillablePhase], declared: Mapping[str, Mapping[str, Meter]]) -> dict[str, int]:
    """Return what was used in all phases; of max the greatest, of latest the last."""
    total: dict[str, int] = {REQUESTS: 0}
    how = {code: meter.aggregation for of_version in declared.values() for code, meter in of_version.items()}
    for phase in phases:
        for meter, count in phase.units.items():
            if how.get(meter) == Aggregation.MAX:
                total[meter] = max(total.get(meter, 0), count)
            elif how.get(meter) == Aggregation.LATEST:
                total[meter] = count
            else:
                total[meter] = total.get(meter, 0) + count
    return total
