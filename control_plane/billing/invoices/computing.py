"""The lines that each subscription of a round needs, and what they come to."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.discounts.applying import discounts_in_force
from control_plane.billing.invoices.amounts import amounts_of
from control_plane.billing.invoices.billed import billed_charges
from control_plane.billing.invoices.difference import counts, difference
from control_plane.billing.invoices.due import due_in_advance, due_lines
from control_plane.billing.invoices.model import IN_ADVANCE, Billed, ChargeLine, Reason
from control_plane.billing.invoices.steps import StepKind
from control_plane.billing.invoices.work import Work
from control_plane.billing.taxes.applying import tax_terms
from control_plane.billing.terms import Terms, VersionKey, read_terms
from control_plane.foundation.ids import new_id
from control_plane.foundation.period import BillingPeriod
from control_plane.subscriptions.timeline import Timeline, TimelinePhase
from control_plane.usage.rollups.period_units import PhasePeriod, units_of_periods

Units = Mapping[tuple[str, datetime], Mapping[str, int]]
"""Billable units by phase and start of the billing period."""
BilledByPeriod = Mapping[tuple[str, datetime], Mapping[str, Billed]]

_AT_WORK = frozenset({StepKind.ADVANCE, StepKind.DRAFT, StepKind.CLOSE})


async def compute(session: AsyncSession, works: Sequence[Work], *, seller_country: str, now: datetime) -> None:
    """Fill in lines, amounts and ids of the invoices that are to be made or brought up to date at `now`."""
    works = [work for work in works if work.step.kind in _AT_WORK]
    terms = await read_terms(
        session, {(version_id, work.currency) for work in works for version_id in work.timeline.version_ids}
    )
    units = await units_of_periods(session, _phase_periods(works, terms))
    billed = await billed_charges(
        session, {(work.subscription_id, period.start) for work in works for period in _periods(work)}
    )
    known: dict[Any, tuple[ChargeLine, ...]] = {}
    for work in works:
        own = {version_id: terms[version_id, work.currency] for version_id in work.timeline.version_ids}
        work.lines = _lines(work, own, units, billed, now=now, known=known)
        work.is_final = work.step.kind is not StepKind.DRAFT and not work.waits_for_usage
    made = [work for work in works if counts(work.lines)]
    for work in made:
        work.invoice_id = work.draft.invoice_id if work.draft else new_id("inv", now)
        work.reason = _reason(work, billed)
    await _add_up(session, made, seller_country=seller_country, now=now)


async def _add_up(session: AsyncSession, made: Sequence[Work], *, seller_country: str, now: datetime) -> None:
    final = {work.subscription_id for work in made if work.is_final}
    drafts = {work.subscription_id for work in made} - final
    discounts = {
        **(await discounts_in_force(session, drafts) if drafts else {}),
        **(await discounts_in_force(session, final, locked=True) if final else {}),
    }
    accounts = {work.account_id for work in made}
    taxes = await tax_terms(session, accounts, at=now, seller_country=seller_country) if accounts else {}
    for work in made:
        work.amounts = amounts_of(
            work.lines,
            discounts=discounts.get(work.subscription_id, ()),
            taxes=taxes.get(work.account_id, ()),
            currency=work.currency,
        )


def _phase_periods(works: Sequence[Work], terms: Mapping[VersionKey, Terms]) -> list[PhasePeriod]:
    """Return what usage is to be read of."""
    return [
        PhasePeriod(
            phase_id=phase.id,
            account_id=work.account_id,
            start=period.start,
            end=period.end,
            declares=any(terms[version_id, work.currency].declares for version_id in _version_ids(phase)),
        )
        for work in works
        if work.step.kind is not StepKind.ADVANCE
        for period in work.usage_periods
        for phase in work.timeline.phases_within(period)
        if phase.costs
    ]


def _version_ids(phase: TimelinePhase) -> set[str]:
    return {phase.plan_version_id, *(add_on.plan_version_id for add_on in phase.add_ons)}


def _periods(work: Work) -> list[BillingPeriod]:
    """Return every period that the invoice has to do with, in order."""
    if work.step.kind is StepKind.ADVANCE:
        return [work.step.period]
    periods = {*work.usage_periods, *([work.step.next_period] if work.step.next_period else [])}
    return sorted(periods, key=lambda period: period.start)


def _lines(
    work: Work,
    terms: Mapping[str, Terms],
    units: Units,
    billed: BilledByPeriod,
    *,
    now: datetime,
    known: dict[Any, tuple[ChargeLine, ...]],
) -> list[ChargeLine]:
    timeline, lines = work.timeline, []
    for period in _periods(work):
        before = billed.get((work.subscription_id, period.start), {})
        if work.step.kind is StepKind.ADVANCE or period == work.step.next_period:
            due = _in_advance(timeline, period, terms, now, known)
            before = {key: one for key, one in before.items() if one.first.kind in IN_ADVANCE}
        else:
            of_period = {
                phase.id: units.get((phase.id, period.start), {})
                for phase in timeline.phases
                if (phase.id, period.start) in units
            }
            due = due_lines(timeline, period, terms=terms, units=of_period)
        lines += difference(due, before)
    if work.step.kind is StepKind.ADVANCE and sum(line.amount_minor for line in lines) <= 0:
        return []  # what lowers the bill waits for the next invoice
    return lines


def _in_advance(
    timeline: Timeline,
    period: BillingPeriod,
    terms: Mapping[str, Terms],
    now: datetime,
    known: dict[Any, tuple[ChargeLine, ...]],
) -> tuple[ChargeLine, ...]:
    """Return what is due before use; where one plan runs for a whole period, as it does for most, from `known`."""
    last = timeline.phases[-1] if timeline.phases else None
    if (
        last is None
        or last.ends_at is not None
        or not last.costs
        or last.add_ons
        or last.charged_from > period.start
    ):
        return due_in_advance(timeline, period, terms=terms, begun_by=now)
    sold = terms[last.plan_version_id]
    if "setup_fee" in sold.rated.models:
        return due_in_advance(timeline, period, terms=terms, begun_by=now)
    key = last.plan_version_id, sold.rated.currency, period
    if key not in known:
        known[key] = due_in_advance(timeline, period, terms=terms, begun_by=now)
    return known[key]


def _reason(work: Work, billed: BilledByPeriod) -> Reason:
    if work.step.kind is not StepKind.ADVANCE:
        return Reason.FINAL if work.step.final else Reason.PERIOD
    timeline, period = work.timeline, work.step.period
    begun = timeline.anchor_at in period or timeline.started_at in period
    first = begun and not billed.get((work.subscription_id, period.start))
    paid = {phase.plan_version_id for phase in timeline.phases_within(period) if phase.costs}
    return Reason.START if first and len(paid) == 1 else Reason.CHANGE
