"""Invoice previews from the database, by the same steps as invoices. Reads only."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.queries import account
from control_plane.billing.discounts.applying import discounts_in_force
from control_plane.billing.discounts.model import Discount
from control_plane.billing.invoices.amounts import amounts_of
from control_plane.billing.invoices.due import due_lines
from control_plane.billing.model import InvoicePreview, QuotaProgress, preview_lines
from control_plane.billing.taxes.applying import tax_terms
from control_plane.billing.terms import Terms, read_terms
from control_plane.catalog.meter_queries import meters_of_versions
from control_plane.catalog.meters import Aggregation
from control_plane.catalog.model import MEASURED_METERS
from control_plane.catalog.queries import api_product
from control_plane.foundation.clock import MILLISECOND
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.model import Share
from control_plane.rating.versions import CARRY, PRORATED, REQUESTS
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timeline import Timeline, TimelinePhase
from control_plane.subscriptions.timelines import timelines
from control_plane.usage.meters.values import declared_codes
from control_plane.usage.rollups.period_units import PhasePeriod, units_of_periods

TermsById = Mapping[str, Terms]
UnitsByPhase = Mapping[str, Mapping[str, int]]


class NotSubscribedError(NotFoundError):
    """The account never had a subscription to the API product: there is nothing to preview."""

    def __init__(self, account_id: str, product_code: str) -> None:
        super().__init__("subscription", f"of account {account_id} to API product {product_code}")


async def preview_invoice(
    session: AsyncSession,
    *,
    account_id: str,
    product_code: str,
    now: datetime,
    period_start: datetime | None = None,
    seller_country: str = "",
) -> InvoicePreview:
    """Return what a billing period costs: the one that holds `period_start`, by default the running one.

    Of a subscription that is over, the last. Test calls are never in it.

    Raises:
        NotFoundError: no such account or API product. NotSubscribedError: never a subscription.
        ValidationFailedError: `period_start` lies before the subscription, after it, or ahead.
    """
    payer = await account(session, account_id)
    product = await api_product(session, product_code)
    timeline = await _timeline(session, account_id, product.id, product_code, period_start)
    period = _period(timeline, now if period_start is None else period_start, now, asked=period_start is not None)
    terms = {
        version_id: found
        for (version_id, _), found in (
            await read_terms(session, {(version_id, payer.currency) for version_id in timeline.version_ids})
        ).items()
    }
    phases = timeline.phases_within(period)
    units = await _units(session, timeline, phases, period)
    lines = due_lines(timeline, period, terms=terms, units=units)
    amounts = amounts_of(
        lines,
        discounts=_as_if_not_billed(
            await discounts_in_force(session, [timeline.subscription_id]), timeline, period
        ),
        taxes=(await tax_terms(session, [account_id], at=now, seller_country=seller_country)).get(account_id, ()),
        currency=payer.currency,
    )
    at = now if now in period else period.end - MILLISECOND
    return InvoicePreview(
        account_id=account_id,
        account_name=payer.name,
        product_code=product_code,
        product_name=product.name,
        subscription_id=timeline.subscription_id,
        period=period,
        as_of=now,
        currency=payer.currency,
        lines=preview_lines(lines),
        subtotal_minor=amounts.subtotal_minor,
        total_minor=amounts.total_minor,
        discounts=amounts.discounts,
        taxes=amounts.taxes,
        used_units=await _shown(session, product_code, phases, units, terms),
        quota=_quota(timeline, phases, units, terms, period, at=at),
        spend_cap_minor=await _spend_cap(session, timeline.subscription_id),
    )


async def _timeline(
    session: AsyncSession, account_id: str, product_id: str, product_code: str, period_start: datetime | None
) -> Timeline:
    """Return the account's latest subscription to the product, of those that had begun at the moment asked for."""
    statement = (
        select(Subscription.id)
        .where(Subscription.account_id == account_id, Subscription.api_product_id == product_id)
        .order_by(Subscription.started_at.desc(), Subscription.id.desc())
    )
    found = await timelines(session, list(await session.scalars(statement)))
    if not found:
        raise NotSubscribedError(account_id, product_code)
    latest = sorted(found.values(), key=lambda one: (one.started_at, one.subscription_id), reverse=True)
    if period_start is None:
        return latest[0]
    return next((one for one in latest if one.period_at(one.started_at).start <= period_start), latest[-1])


def _period(timeline: Timeline, moment: datetime, now: datetime, *, asked: bool) -> BillingPeriod:
    last = now if timeline.ends_at is None else min(now, timeline.ends_at - MILLISECOND)
    last = max(last, timeline.started_at)
    if not asked:
        return timeline.period_at(last)
    if not timeline.period_at(timeline.started_at).start <= moment < timeline.period_at(last).end:
        raise ValidationFailedError(
            "period_start", "lies in no billing period of the subscription up to now: see its usage by period"
        )
    return timeline.period_at(moment)


async def _units(
    session: AsyncSession, timeline: Timeline, phases: Sequence[TimelinePhase], period: BillingPeriod
) -> UnitsByPhase:
    asked = [PhasePeriod(phase.id, timeline.account_id, period.start, period.end) for phase in phases]
    return {phase_id: units for (phase_id, _), units in (await units_of_periods(session, asked)).items()}


def _as_if_not_billed(
    discounts: Mapping[str, Sequence[Discount]], timeline: Timeline, period: BillingPeriod
) -> list[Discount]:
    """Return the discounts as they were before anything of the period was billed."""
    return [
        replace(
            discount,
            taken={charge: taken for charge, taken in discount.taken.items() if charge[0] != period.start},
            periods_taken=discount.periods_taken - {period.start},
        )
        for discount in discounts.get(timeline.subscription_id, ())
    ]


def _quota(
    timeline: Timeline,
    phases: Sequence[TimelinePhase],
    units: UnitsByPhase,
    terms: TermsById,
    period: BillingPeriod,
    *,
    at: datetime,
) -> QuotaProgress | None:
    """Return how far the quota in force is used: by what counts against it (`quota_on_change`)."""
    in_force = timeline.phase_at(at)
    if in_force is None:
        return None
    rated = terms[in_force.plan_version_id].rated
    own = [phase for phase in phases if phase.plan_version_id == in_force.plan_version_id]
    quota_units = rated.quota_units if timeline.quota_override is None else timeline.quota_override
    if quota_units is None or not own:
        return None
    if rated.quota_on_change == PRORATED:
        quota_units = Share((period.end - own[0].charged_from) // MILLISECOND, _ms(period)).of_units(quota_units)
    for add_on in in_force.add_ons:
        quota_units += (terms[add_on.plan_version_id].rated.quota_units or 0) * add_on.quantity
    counted = phases if rated.quota_on_change == CARRY else own
    used = sum(units.get(phase.id, {}).get(REQUESTS, 0) for phase in counted)
    return QuotaProgress(used_units=used, quota_units=quota_units, hard=rated.quota_hard)


def _ms(period: BillingPeriod) -> int:
    return (period.end - period.start) // MILLISECOND


async def _shown(
    session: AsyncSession,
    product_code: str,
    phases: Sequence[TimelinePhase],
    units: UnitsByPhase,
    terms: TermsById,
) -> dict[str, int]:
    """Return what tells the payer something: bytes, times and declared meters only where they cost something."""
    version_ids = {phase.plan_version_id for phase in phases} | {
        add_on.plan_version_id for phase in phases for add_on in phase.add_ons
    }
    declared = await meters_of_versions(session, version_ids)
    codes = (await declared_codes(session, [product_code])).get(product_code, set())
    only_if_priced = MEASURED_METERS.union(codes)
    priced = {price.meter for version_id in version_ids for price in terms[version_id].rated.prices}
    how = {code: meter.aggregation for of_version in declared.values() for code, meter in of_version.items()}
    added = _added_up([units.get(phase.id, {}) for phase in phases], how)
    return {meter: count for meter, count in added.items() if meter not in only_if_priced or meter in priced}


def _added_up(of_phases: Collection[Mapping[str, int]], how: Mapping[str, str]) -> dict[str, int]:
    """Return what was used in all phases; of max the greatest, of latest the last."""
    total: dict[str, int] = {REQUESTS: 0}
    for units in of_phases:
        for meter, count in units.items():
            # an amendment of a declared meter may have taken more than is left of it since
            used = max(0, count)
            if how.get(meter) == Aggregation.MAX:
                total[meter] = max(total.get(meter, 0), used)
            elif how.get(meter) == Aggregation.LATEST:
                total[meter] = used
            else:
                total[meter] = total.get(meter, 0) + used
    return total


async def _spend_cap(session: AsyncSession, subscription_id: str) -> int | None:
    return await session.scalar(select(Subscription.spend_cap_minor).where(Subscription.id == subscription_id))
