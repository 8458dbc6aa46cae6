"""What is due for the use of a billing period when Stripe bills: by our rating, told apart as Stripe does. Pure.

Stripe counts a metered price anew each time that it is put on a subscription: what is included is whole again
after a change of plan, and what an earlier price counted stays with it. So each stretch of time in which a price
ran without a break is rated for itself, whole, with nothing cut by time. Only a commitment, which Stripe does not
know, is cut by the time that its plan ran.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import groupby

from control_plane.billing.invoices.due import NO_UNITS, runs_of
from control_plane.billing.invoices.model import ChargeLine, LineKind
from control_plane.billing.terms import Terms
from control_plane.foundation.money import minor_units
from control_plane.foundation.period import BillingPeriod
from control_plane.rating.charging import price_in_run
from control_plane.rating.combine import combine
from control_plane.rating.commitment import USAGE, Commitment
from control_plane.rating.model import EXACT, Charge, Quantity, Share
from control_plane.rating.rate import rated_line
from control_plane.rating.runs import Run
from control_plane.rating.versions import VersionPrice
from control_plane.subscriptions.timeline import Timeline, TimelinePhase

TermsById = Mapping[str, Terms]
UnitsByPhase = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Time in which a metered price ran without a break, and what was used in it.

    `charge`: what is due, under the subscription's own allowances; `as_sold`: under those of the price alone.
    """

    starts_at: datetime
    ends_at: datetime
    phase_ids: tuple[str, ...]
    units: int
    charge: Charge
    as_sold: Charge


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageDue:
    """What is due for one charge of a billing period, rounded once, and the stretches that it comes from."""

    line: ChargeLine
    stretches: tuple[Stretch, ...] = ()

    @property
    def has_own_allowance(self) -> bool:
        """Say whether an own quota or an add-on's makes it come to something else than the price as it is sold."""
        return any(one.charge.amount != one.as_sold.amount for one in self.stretches)


def usage_due(
    timeline: Timeline,
    period: BillingPeriod,
    *,
    terms: TermsById,
    units: UnitsByPhase,
    fixed_minor: Mapping[str, int] | None = None,
    until: datetime | None = None,
) -> tuple[UsageDue, ...]:
    """Return what is due for the use of a period, charge by charge, commitments last.

    `units` by phase. `fixed_minor`: what Stripe charged for fixed prices of the period, by charge, which some
    commitments count. `until`: nothing that begins later is in it, as when a subscription ends there.
    """
    phases = [phase for phase in timeline.phases_within(period) if phase.costs]
    if until is not None:
        phases = [phase for phase in phases if phase.starts_at < until]
    found: dict[str, _Found] = {}

    def add(version_id: str, group: Sequence[TimelinePhase]) -> None:
        runs = runs_of(timeline, period, group, terms=terms, units=units)
        run = next(run for run in runs if run.version.version_id == version_id)
        for price in run.version.prices:
            if price.meter is not None:
                one = found.setdefault(f"{version_id}/{price.position}", _Found(run, price, []))
                one.parts.append(_stretch(run, price, group, units, period))

    for group in _without_break(phases, lambda phase: phase.plan_version_id):
        add(group[0].plan_version_id, group)
    for version_id in dict.fromkeys(one.plan_version_id for phase in phases for one in phase.add_ons):
        for group in _without_break(phases, partial(_held, version_id)):
            add(version_id, group)
    due = [_due(one, terms, period) for one in found.values()]
    return (*due, *_minimums(timeline, period, phases, terms=terms, due=due, fixed_minor=fixed_minor or {}))


@dataclass(slots=True)
class _Found:
    """A price and its stretches so far."""

    run: Run
    price: VersionPrice
    parts: list[Stretch]


def _held(version_id: str, phase: TimelinePhase) -> str | None:
    return version_id if any(one.plan_version_id == version_id for one in phase.add_ons) else None


def _without_break(
    phases: Sequence[TimelinePhase], which: Callable[[TimelinePhase], str | None]
) -> Iterable[list[TimelinePhase]]:
    """Yield groups of phases that follow each other and have the same of something; None belongs to no group."""
    for key, group in groupby(phases, key=which):
        if key is not None:
            yield list(group)


def _stretch(
    run: Run, price: VersionPrice, group: Sequence[TimelinePhase], units: UnitsByPhase, period: BillingPeriod
) -> Stretch:
    meter = price.meter or ""
    used = Quantity(
        # an amendment of a declared meter may have taken more than is left of it since
        units=sum(max(0, units.get(phase.id, NO_UNITS).get(meter, 0)) for phase in group),
        unit=price.unit,
        currency=run.version.currency,
    )
    return Stretch(
        starts_at=group[0].starts_at,
        ends_at=group[-1].ends_at or period.end,
        phase_ids=tuple(phase.id for phase in group),
        units=used.units,
        charge=price_in_run(run, price).charge(used),
        as_sold=price.price.charge(used),
    )


def _due(found: _Found, terms: TermsById, period: BillingPeriod) -> UsageDue:
    charge = combine([part.charge for part in found.parts])
    used = sum(part.units for part in found.parts)
    line = _line(found.run, found.price, charge, terms=terms, period=period, used_units=used)
    return UsageDue(line=line, stretches=tuple(found.parts))


def _minimums(
    timeline: Timeline,
    period: BillingPeriod,
    phases: Sequence[TimelinePhase],
    *,
    terms: TermsById,
    due: Iterable[UsageDue],
    fixed_minor: Mapping[str, int],
) -> Iterable[UsageDue]:
    """Return what lines of a plan version fall short of its commitments."""
    if not any("commitment" in terms[phase.plan_version_id].rated.models for phase in phases):
        return []
    for_use = [(one.line.plan_version_id, one.line.amount_minor) for one in due]
    for_time = [(key.partition("/")[0], amount) for key, amount in fixed_minor.items()]
    found = []
    for run in runs_of(timeline, period, phases, terms=terms, units={}):
        for price in run.version.prices:
            if not isinstance(price.price, Commitment):
                continue
            counted = for_use if price.price.counts == USAGE else for_use + for_time
            charged_minor = sum(amount for version_id, amount in counted if version_id == run.version.version_id)
            charge = price.price.charge(_counting(charged_minor, run, price))
            found.append(UsageDue(line=_line(run, price, charge, terms=terms, period=period)))
    return found


def _counting(charged_minor: int, run: Run, price: VersionPrice) -> Quantity:
    currency = run.version.currency
    return Quantity(
        units=0,
        unit=price.unit,
        currency=currency,
        share=Share(run.share.covered_ms, run.share.period_ms),
        charged=EXACT.scaleb(Decimal(charged_minor), -minor_units(currency)),
    )


def _line(
    run: Run,
    price: VersionPrice,
    charge: Charge,
    *,
    terms: TermsById,
    period: BillingPeriod,
    used_units: int | None = None,
) -> ChargeLine:
    sold = terms[run.version.version_id]
    name = f"{sold.plan_name}: {price.description}" if price.description else sold.plan_name
    line = rated_line(charge, description=name, currency=run.version.currency)
    return ChargeLine(
        charge_key=f"{run.version.version_id}/{price.position}",
        kind=LineKind.COMMITMENT if price.meter is None else LineKind.USAGE,
        period=period,
        plan_version_id=run.version.version_id,
        plan_code=sold.plan_code,
        plan_name=sold.plan_name,
        plan_version=sold.version,
        currency=line.currency,
        description=line.description,
        formula=line.formula,
        meter=price.meter,
        unit=None if price.meter is None else price.unit,
        used_units=used_units,
        quantity=line.quantity,
        unit_amount=line.unit_amount,
        exact_amount=line.exact_amount,
        amount_minor=line.amount_minor,
        covered_ms=run.share.covered_ms,
        period_ms=run.share.period_ms,
        tiers=line.tiers,
        notes=line.notes,
    )
