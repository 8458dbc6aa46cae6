"""Invoice previews from the database, by the same steps as invoices. Reads only."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.model import InvoicePreview, TrialPreview, preview_lines
from control_plane.billing.period_facts import (
    NotSubscribedError,
    PeriodFacts,
    period_facts,
    quota_progress,
)
from control_plane.catalog.meter_queries import meters_of_versions
from control_plane.catalog.meters import Aggregation
from control_plane.catalog.model import MEASURED_METERS
from control_plane.foundation.clock import MILLISECOND
from control_plane.rating.versions import REQUESTS
from control_plane.usage.meters.values import declared_codes

__all__ = ["NotSubscribedError", "preview_invoice", "used_units"]


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
    facts = await period_facts(
        session,
        account_id=account_id,
        product_code=product_code,
        now=now,
        period_start=period_start,
        seller_country=seller_country,
    )
    lines = facts.lines()
    amounts = facts.amounts(lines)
    return InvoicePreview(
        account_id=account_id,
        account_name=facts.payer.name,
        product_code=product_code,
        product_name=facts.product.name,
        subscription_id=facts.timeline.subscription_id,
        period=facts.period,
        as_of=now,
        currency=facts.payer.currency,
        lines=preview_lines(lines),
        subtotal_minor=amounts.subtotal_minor,
        total_minor=amounts.total_minor,
        discounts=amounts.discounts,
        taxes=amounts.taxes,
        used_units=await _shown(session, facts),
        quota=quota_progress(facts, at=moment_within(facts, now)),
        spend_cap_minor=facts.spend_cap_minor,
        trial=_trial(facts),
    )


def moment_within(facts: PeriodFacts, now: datetime) -> datetime:
    """Return `now`, or the last moment of a period that is over."""
    return now if now in facts.period else facts.period.end - MILLISECOND


def _trial(facts: PeriodFacts) -> TrialPreview | None:
    """Return what ends a period that lies before all that are billed, None for any other period."""
    timeline = facts.timeline
    if timeline.trial_ends_at is None or facts.period.end > timeline.anchor_at:
        return None
    ends_at = timeline.trial_ends_at if timeline.ends_at is None else min(timeline.trial_ends_at, timeline.ends_at)
    lines = facts.lines_after_trial()
    return TrialPreview(
        ends_at=ends_at,
        goes_on=timeline.ends_at is None or timeline.ends_at > timeline.trial_ends_at,
        lines=preview_lines(lines),
        total_minor=facts.amounts(lines).total_minor,
    )


async def _shown(session: AsyncSession, facts: PeriodFacts) -> dict[str, int]:
    """Return what tells the payer something: bytes, times and declared meters only where they cost something."""
    phases, terms, product_code = facts.phases, facts.terms, facts.product.code
    version_ids = {phase.plan_version_id for phase in phases} | {
        add_on.plan_version_id for phase in phases for add_on in phase.add_ons
    }
    codes = (await declared_codes(session, [product_code])).get(product_code, set())
    only_if_priced = MEASURED_METERS.union(codes)
    priced = {price.meter for version_id in version_ids for price in terms[version_id].rated.prices}
    used = await used_units(session, facts)
    return {meter: count for meter, count in used.items() if meter not in only_if_priced or meter in priced}


async def used_units(session: AsyncSession, facts: PeriodFacts) -> dict[str, int]:
    """Return what was used in the period by meter, `requests` first, whether it costs something or not."""
    declared = await meters_of_versions(session, facts.timeline.version_ids)
    how = {code: meter.aggregation for of_version in declared.values() for code, meter in of_version.items()}
    return _added_up([facts.units.get(phase.id, {}) for phase in facts.phases], how)


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
