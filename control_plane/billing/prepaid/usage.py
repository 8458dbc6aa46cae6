"""What usage of prepaid plans comes to in billing periods, for many at once. Reads only."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.billing.invoices.due import due_lines
from control_plane.billing.invoices.model import LineKind
from control_plane.billing.terms import Terms, read_terms
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.clock import as_utc
from control_plane.foundation.db import is_any_of
from control_plane.foundation.period import BillingPeriod
from control_plane.subscriptions.timeline import Timeline
from control_plane.subscriptions.timelines import timelines
from control_plane.usage.rollups.phase_units import units_of_phases

PeriodKey = tuple[str, datetime]
"""A subscription's id, and the start of a billing period."""
Units = Mapping[PeriodKey, Mapping[str, int]]
"""Units by meter, by phase and start of the billing period."""

_SEALED = text("""
WITH asked AS (
    SELECT * FROM unnest(CAST(:phases AS text[]), CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]))
        AS asked (phase_id, span_start, span_end)
)
SELECT phase_id, span_start, meter, CAST(sum(delta_units) AS bigint)
FROM asked JOIN usage_ledger USING (phase_id)
WHERE hour >= span_start AND hour < span_end AND meter <> ''
GROUP BY phase_id, span_start, meter
""")


@dataclass(frozen=True, slots=True)
class PrepaidUse:
    """Minor units before tax and discounts: of sealed hours, and of all that is known."""

    sealed_minor: int
    known_minor: int


async def prepaid_use(
    session: AsyncSession, periods: Mapping[PeriodKey, BillingPeriod]
) -> dict[PeriodKey, PrepaidUse]:
    """Return what usage under prepaid plan versions, and add-ons beside them, comes to, rated as by invoices.

    Usage under versions that are invoiced, fixed charges and commitments are not in it.
    """
    found = await timelines(session, {subscription_id for subscription_id, _ in periods})
    currencies = await _currencies(session, {timeline.account_id for timeline in found.values()})
    terms = await read_terms(
        session,
        {(key, currencies[timeline.account_id]) for timeline in found.values() for key in timeline.version_ids},
    )
    prepaid = await _prepaid_versions(session, {version_id for version_id, _ in terms})
    spans = {
        (phase.id, period.start, period.end)
        for (subscription_id, _), period in periods.items()
        for phase in found[subscription_id].phases_within(period)
    }
    sealed = await _sealed_units(session, spans)
    known = {place: units.billable for place, units in (await units_of_phases(session, spans)).items()}
    uses = {}
    for key, period in periods.items():
        timeline = found[key[0]]
        own = {
            version_id: terms[version_id, currencies[timeline.account_id]] for version_id in timeline.version_ids
        }
        counted = _versions_counted(timeline, period, prepaid)
        uses[key] = PrepaidUse(
            sealed_minor=_usage_minor(timeline, period, own, sealed, counted),
            known_minor=_usage_minor(timeline, period, own, known, counted),
        )
    return uses


def _versions_counted(timeline: Timeline, period: BillingPeriod, prepaid: Collection[str]) -> set[str]:
    phases = [phase for phase in timeline.phases_within(period) if phase.plan_version_id in prepaid]
    return {
        version_id
        for phase in phases
        for version_id in (phase.plan_version_id, *(add_on.plan_version_id for add_on in phase.add_ons))
    }


def _usage_minor(
    timeline: Timeline,
    period: BillingPeriod,
    terms: Mapping[str, Terms],
    units: Units,
    counted: Collection[str],
) -> int:
    of_phases = {phase.id: units.get((phase.id, period.start), {}) for phase in timeline.phases_within(period)}
    return sum(
        line.amount_minor
        for line in due_lines(timeline, period, terms=terms, units=of_phases)
        if line.kind is LineKind.USAGE and line.plan_version_id in counted
    )


async def _sealed_units(
    session: AsyncSession, spans: Collection[tuple[str, datetime, datetime]]
) -> dict[PeriodKey, dict[str, int]]:
    found: dict[PeriodKey, dict[str, int]] = defaultdict(dict)
    if spans:
        phases, starts, ends = zip(*spans, strict=True)
        rows = await session.execute(_SEALED, {"phases": list(phases), "starts": list(starts), "ends": list(ends)})
        for phase_id, start, meter, units in rows:
            found[phase_id, as_utc(start)][meter] = units
    return found


async def _currencies(session: AsyncSession, account_ids: Collection[str]) -> dict[str, str]:
    statement = select(Account.id, Account.currency).where(is_any_of(Account.id, account_ids))
    return dict((await session.execute(statement)).all())


async def _prepaid_versions(session: AsyncSession, version_ids: Collection[str]) -> set[str]:
    statement = select(PlanVersion.id).where(
        is_any_of(PlanVersion.id, version_ids), PlanVersion.payment == "prepaid"
    )
    return set(await session.scalars(statement))
