"""Spend caps: from the prices of a billing period and the most to pay for it, to what the gateway can check.

The gateway admits a call only when the period, with that call, stays within the cap. It may learn later that units
were fewer than it thought (calls that failed, a call that used less than it could have). Where fewer units would
cost more, as under a volume price just below a tier's end, the dearest of all smaller quantities counts: so no
quantity on the way costs more than the cap either.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from control_plane.foundation.money import round_minor
from control_plane.rating.charging import price_in_run
from control_plane.rating.commitment import USAGE, Commitment
from control_plane.rating.cost_tables import MAX_UNITS, cost_of, dearer, most_units, price_steps, rising
from control_plane.rating.model import WHOLE_PERIOD, CostStep
from control_plane.rating.period import ChargeKind, rate_period
from control_plane.rating.runs import Run
from control_plane.rating.versions import REQUESTS, RatedVersion, VersionPrice
from gateway_contract.records import MeterPrice, SpendCap

_FIXED = frozenset({ChargeKind.RECURRING, ChargeKind.SETUP_FEE})


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedPhase:
    """A phase that costs something, within one billing period, and the add-ons held in it (versions).

    `units` by meter are counted for good; `units_at_most` counts calls too of which it is open whether they are
    billed. Both only matter for phases that are over: of the one in force, the gateway counts.
    """

    plan_version_id: str
    add_ons: frozenset[str] = frozenset()
    units: Mapping[str, int] = field(default_factory=dict)
    units_at_most: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CappedPeriod:
    """A billing period as a cap bounds it: its runs, as `rate_period` takes them, and its phases.

    `plan_version_id` and `add_ons` are in force, each among the runs.
    """

    runs: Sequence[Run]
    phases: Sequence[CountedPhase]
    plan_version_id: str
    add_ons: frozenset[str] = frozenset()

    @property
    def in_force(self) -> frozenset[str]:
        return self.add_ons | {self.plan_version_id}


@dataclass(frozen=True, slots=True)
class _Table:
    """A price that use can make due, and the units that the gateway counts and that it does not charge."""

    meter: str
    steps: tuple[CostStep, ...]
    from_units: int


def compile_spend_cap(
    amount_minor: int | None,
    *,
    currency: str,
    period: CappedPeriod,
    reserves: Mapping[str, Mapping[str, int]],
    prepaid_minor: int | None = None,
    invoiced: Collection[str] = (),
) -> SpendCap | None:
    """Return the cap as the gateway checks it, None where nothing is charged by use. Pure.

    `amount_minor` bounds all that is due in the period, None for no such cap; `prepaid_minor` what its use may
    cost, but for use of versions that are `invoiced`. The stricter of both holds. `reserves` gives by route the
    most units of each dimension that a call can report. A cap that is used up, by what is fixed or by earlier
    versions, leaves calls that cost nothing. Of a commitment nothing comes off, since use pays towards it; but
    where an add-on in force charges by use, which does not, all of it does.
    """
    # in an order that does not depend on when each began: caps of two periods are compared price by price
    runs = sorted(period.runs, key=lambda run: (run.version.is_add_on, run.version.version_id))
    tables = [table for run in runs for table in _tables_in(period, run)]
    left = _left_for_use(amount_minor, prepaid_minor, period, currency, invoiced)
    if not tables or left is None:
        return None
    amount, usage_minor, prepaid = left
    if all(table.meter == REQUESTS for table in tables):
        ceiling = most_units(tuple((table.steps, table.from_units) for table in tables), usage_minor, currency)
        return SpendCap(amount, currency, ceiling_units=min(ceiling, MAX_UNITS), prepaid=prepaid)
    dimensions = {table.meter for table in tables} - {REQUESTS}
    return SpendCap(
        amount,
        currency,
        usage_minor=usage_minor,
        prices=tuple(
            MeterPrice(table.meter, price_steps(table.steps, currency), from_units=table.from_units)
            for table in tables
        ),
        reserves={
            route: {name: units for name, units in most.items() if name in dimensions}
            for route, most in reserves.items()
        },
        prepaid=prepaid,
    )


def reported_dimensions(versions: Iterable[RatedVersion]) -> frozenset[str]:
    """Return the dimensions that cost something and that only the upstream knows: calls must reserve them."""
    return frozenset(meter for version in versions for meter in _charged_meters(version)) - {REQUESTS}


def charges_by_use(versions: Iterable[RatedVersion]) -> bool:
    """Say whether any use of the versions costs anything."""
    return any(_charged_meters(version) for version in versions)


def stricter_cap(one: SpendCap | None, other: SpendCap | None) -> SpendCap | None:
    """Return a cap that admits nothing that either would refuse; both of one plan version, in two periods.

    In two periods the same prices differ in amounts that are due once a period, and in what was counted before.
    """
    if one is None or other is None:
        return one or other
    if one.ceiling_units is not None and other.ceiling_units is not None:
        return replace(one, ceiling_units=min(one.ceiling_units, other.ceiling_units))
    return replace(
        one,
        usage_minor=min(one.usage_minor, other.usage_minor),
        prices=tuple(dearer(a, b) for a, b in zip(one.prices, other.prices, strict=True)),
    )


def _left_for_use(
    amount_minor: int | None,
    prepaid_minor: int | None,
    period: CappedPeriod,
    currency: str,
    invoiced: Collection[str],
) -> tuple[int, int, bool] | None:
    """Return the amount of the cap that holds, what it leaves for use, and whether credits set it."""
    used, minimums = _closed_minor(period, currency)
    minimums += _beside_add_ons_minor(period, currency)
    left: list[tuple[int, bool, int]] = []
    if amount_minor is not None:
        fixed = sum(rated.line.amount_minor for rated in rate_period(period.runs) if rated.kind in _FIXED)
        left.append((max(0, amount_minor - fixed - used - minimums), False, amount_minor))
    if prepaid_minor is not None:
        paid_ahead, _ = _closed_minor(period, currency, without=invoiced)
        left.append((max(0, prepaid_minor - paid_ahead), True, prepaid_minor))
    if not left:
        return None
    usage_minor, prepaid, amount = min(left)
    return amount, usage_minor, prepaid


def _closed_minor(period: CappedPeriod, currency: str, *, without: Collection[str] = ()) -> tuple[int, int]:
    """Return the most that use of versions which are not in force can have cost, and what minimums add to it."""
    used = minimums = 0
    for run in period.runs:
        if run.version.version_id in period.in_force or run.version.version_id in without:
            continue
        units = _most_used(period, run.version.version_id)
        cost = sum(round_minor(cost_of(steps, units.get(meter, 0)), currency) for meter, steps in _tables_of(run))
        used += cost
        minimums += _minimum_minor(run, cost, currency)
    return used, minimums


def _beside_add_ons_minor(period: CappedPeriod, currency: str) -> int:
    """Return what minimums in force add to the use of add-ons in force, which does not pay towards them.

    The gateway adds up all use, so it comes off whole: use of the plan up to its minimum takes from the cap then.
    """
    in_force = [run for run in period.runs if run.version.version_id in period.in_force]
    if not any(run.version.is_add_on and _tables_of(run) for run in in_force):
        return 0
    return sum(_minimum_minor(run, 0, currency) for run in in_force)


def _minimum_minor(run: Run, cost_minor: int, currency: str) -> int:
    """Return what the minimums of a run add to `cost_minor` of its use."""
    fixed = sum(rated.line.amount_minor for rated in rate_period([run]) if rated.kind in _FIXED)
    return sum(
        max(
            0,
            round_minor(run.share.of(price.price.amount), currency)
            - cost_minor
            - (0 if price.price.counts == USAGE else fixed),
        )
        for price in run.version.prices
        if isinstance(price.price, Commitment)
    )


def _most_used(period: CappedPeriod, version_id: str) -> dict[str, int]:
    used: dict[str, int] = {}
    for phase in period.phases:
        if _is_under(phase, version_id):
            for meter in phase.units.keys() | phase.units_at_most.keys():
                used[meter] = used.get(meter, 0) + _at_most(phase, meter)
    return used


def _tables_in(period: CappedPeriod, run: Run) -> list[_Table]:
    """Return the tables of a version in force; of others nothing is counted any more."""
    version_id = run.version.version_id
    if version_id not in period.in_force:
        return []
    return [_Table(meter, steps, _from_units(period, version_id, meter)) for meter, steps in _tables_of(run)]


def _from_units(period: CappedPeriod, version_id: str, meter: str) -> int:
    """Return units of the period that the version's price does not charge: the gateway counts all of the period.

    As far as they are certain: what calls turn out not to be of an earlier plan counts as of the one in force.
    """
    return sum(phase.units.get(meter, 0) for phase in period.phases if not _is_under(phase, version_id))


def _is_under(phase: CountedPhase, version_id: str) -> bool:
    return version_id == phase.plan_version_id or version_id in phase.add_ons


def _at_most(phase: CountedPhase, meter: str) -> int:
    return max(phase.units.get(meter, 0), phase.units_at_most.get(meter, 0))


def _tables_of(run: Run) -> list[tuple[str, tuple[CostStep, ...]]]:
    """Return meter and steps of each price that use can make due."""
    return [
        (price.meter, rising(price_in_run(run, price).steps(run.share)))
        for price in run.version.prices
        if price.meter is not None and _costs_something(price)
    ]


def _charged_meters(version: RatedVersion) -> set[str]:
    return {price.meter for price in version.prices if price.meter is not None and _costs_something(price)}


def _costs_something(price: VersionPrice) -> bool:
    return any(step.base or step.unit_amount for step in price.price.steps(WHOLE_PERIOD))
