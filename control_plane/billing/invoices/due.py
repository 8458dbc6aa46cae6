"""What is due for a billing period of a subscription, charge by charge. Pure.

It depends on what ran when and on what was used, not on what was billed, when, or in which steps: so whatever
happens to a subscription, the difference to what was billed is what the next invoice charges or gives back.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from control_plane.billing.invoices.model import IN_ADVANCE, ChargeLine, LineKind
from control_plane.billing.terms import Terms
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.model import Unit
from control_plane.rating.period import RatedPrice, rate_period
from control_plane.rating.phases import PhaseUsage
from control_plane.rating.runs import Run, period_runs
from control_plane.subscriptions.timeline import Timeline, TimelinePhase

TermsById = Mapping[str, Terms]
NO_UNITS: Mapping[str, int] = {}
KEPT = "kept"


def due_lines(
    timeline: Timeline,
    period: BillingPeriod,
    *,
    terms: TermsById,
    units: Mapping[str, Mapping[str, int]],
) -> tuple[ChargeLine, ...]:
    """Return everything that is due for a period: fixed charges, usage (`units` by phase), commitments.

    `terms` of every version of the timeline, in the account's currency.
    """
    return _due(timeline, period, terms=terms, units=units)


def due_in_advance(
    timeline: Timeline, period: BillingPeriod, *, terms: TermsById, begun_by: datetime
) -> tuple[ChargeLine, ...]:
    """Return what is due for a period before any use. What begins after `begun_by` is not charged yet."""
    return _due(timeline, period, terms=terms, units={}, begun_by=begun_by, in_advance=True)


def has_paid_time(timeline: Timeline, period: BillingPeriod) -> bool:
    """Say whether anything in the period costs something."""
    return any(phase.costs for phase in timeline.phases_within(period))


def _due(
    timeline: Timeline,
    period: BillingPeriod,
    *,
    terms: TermsById,
    units: Mapping[str, Mapping[str, int]],
    begun_by: datetime | None = None,
    in_advance: bool = False,
) -> tuple[ChargeLine, ...]:
    phases = [
        phase
        for phase in timeline.phases_within(period)
        if phase.costs and (begun_by is None or phase.starts_at <= begun_by)
    ]
    runs = runs_of(timeline, period, phases, terms=terms, units=units, in_advance=in_advance)
    of_version = {run.version.version_id: run for run in runs}
    return tuple(
        _line(rated, of_version[rated.version_id], terms[rated.version_id], period) for rated in rate_period(runs)
    )


def runs_of(
    timeline: Timeline,
    period: BillingPeriod,
    phases: Collection[TimelinePhase],
    *,
    terms: TermsById,
    units: Mapping[str, Mapping[str, int]],
    in_advance: bool = False,
) -> tuple[Run, ...]:
    """Return what a period is rated by: the runs of phases within it that cost something."""
    if not phases:
        return ()
    ids = {phase.plan_version_id for phase in phases} | {
        add_on.plan_version_id for phase in phases for add_on in phase.add_ons
    }
    return period_runs(
        [_phase_usage(timeline, phase, period, units.get(phase.id, NO_UNITS)) for phase in phases],
        {key: terms[key].in_advance if in_advance else terms[key].rated for key in ids},
        period_start=period.start,
        period_end=period.end,
        own_quota_units=timeline.own_quota_in(period),
        setup_fees_due=_setup_fees_due(timeline, period, terms, ids),
        not_carried=frozenset().union(*(terms[key].not_carried for key in ids)),
    )


def _phase_usage(
    timeline: Timeline, phase: TimelinePhase, period: BillingPeriod, units: Mapping[str, int]
) -> PhaseUsage:
    ends_at = phase.ends_at
    if timeline.unused_time == KEPT and timeline.ends_at is not None and ends_at == timeline.ends_at:
        ends_at = period.end  # who ends within a period pays for the whole of it
    held: Counter[str] = Counter()
    for add_on in phase.add_ons:
        held[add_on.plan_version_id] += add_on.quantity
    return PhaseUsage(
        plan_version_id=phase.plan_version_id,
        starts_at=phase.charged_from,
        ends_at=ends_at,
        # an amendment of a declared meter may have taken more than is left of it since
        units={meter: max(0, count) for meter, count in units.items()},
        add_ons=held,
    )


def _setup_fees_due(timeline: Timeline, period: BillingPeriod, terms: TermsById, ids: Iterable[str]) -> set[str]:
    """Return the versions whose setup fee falls into the period.

    A subscription pays one for its plan, whichever plan first asked for one, and one for each add-on.
    """
    with_fee = {key for key in ids if "setup_fee" in terms[key].rated.models}
    if not with_fee:
        return set()
    asked: dict[str, tuple[str, datetime]] = {}
    for phase in timeline.phases:
        if not phase.costs:
            continue
        for version_id in (phase.plan_version_id, *(add_on.plan_version_id for add_on in phase.add_ons)):
            sold = terms[version_id]
            if "setup_fee" in sold.rated.models:
                what = sold.plan_code if sold.rated.is_add_on else ""
                asked.setdefault(what, (version_id, phase.charged_from))
    return {version_id for version_id, since in asked.values() if since in period}


def _line(rated: RatedPrice, run: Run, terms: Terms, period: BillingPeriod) -> ChargeLine:
    line = rated.line
    return ChargeLine(
        charge_key=f"{rated.version_id}/{rated.position}",
        kind=LineKind(rated.kind),
        period=period,
        plan_version_id=rated.version_id,
        plan_code=terms.plan_code,
        plan_name=terms.plan_name,
        plan_version=terms.version,
        currency=line.currency,
        description=line.description,
        formula=line.formula,
        meter=rated.meter,
        unit=_unit(run, rated),
        used_units=rated.used_units,
        quantity=line.quantity,
        unit_amount=line.unit_amount,
        exact_amount=line.exact_amount,
        amount_minor=line.amount_minor,
        covered_ms=run.share.covered_ms,
        period_ms=run.share.period_ms,
        tiers=line.tiers,
        notes=line.notes,
    )


def _unit(run: Run, rated: RatedPrice) -> Unit | None:
    if rated.meter is None:
        return None
    return next(price.unit for price in run.version.prices if price.position == rated.position)


def charged_in_advance(line: ChargeLine) -> bool:
    """Say whether a charge is due before any use."""
    return line.kind in IN_ADVANCE
