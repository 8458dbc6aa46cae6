"""Spend caps: from the prices of a billing period and the most to pay for it, to what the gateway can check.

The gateway admits a call only when the period, with that call, stays within the cap. It may learn later that units
were fewer than it thought (calls that failed, a call that used less than it could have). Where fewer units would
cost more, as under a volume price just below a tier's end, the dearest of all smaller quantities counts: so no
quantity on the way costs more than the cap either.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

from control_plane.foundation.money import minor_units, round_minor
from control_plane.rating.model import EXACT, WHOLE_PERIOD, ZERO, CostStep, PriceModel, Share
from control_plane.rating.rate import rate, total_minor
from gateway_contract.records import MeterPrice, PriceStep, SpendCap

REQUESTS = "requests"
MAX_CAP_MINOR = 10**12
MAX_UNITS = 2**53 - 1
_MICRO_DIGITS = 6
_MICRO = 1_000_000
# an amount beyond every cap is as good as any larger one, and stays a number that the gateway can count with
_BEYOND_MICRO = (MAX_CAP_MINOR + 1) * _MICRO


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredPrice:
    """A price and what it counts, None for a flat one."""

    meter: str | None
    price: PriceModel


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionCharges:
    """A plan version within a billing period: its prices, and the part of the period for which it runs.

    `units` by meter are counted for good; `units_at_most` counts calls too of which it is open whether they are
    billed. Both only matter for versions that are over: of the one in force, the gateway counts.
    """

    prices: tuple[MeteredPrice, ...]
    share: Share = WHOLE_PERIOD
    units: Mapping[str, int] = field(default_factory=dict)
    units_at_most: Mapping[str, int] = field(default_factory=dict)


def compile_spend_cap(
    amount_minor: int,
    *,
    currency: str,
    in_force: VersionCharges,
    others: Sequence[VersionCharges] = (),
    reserves: Mapping[str, Mapping[str, int]],
) -> SpendCap | None:
    """Return the cap as the gateway checks it, None where nothing is charged by use. Pure.

    `others` are the plan versions that run in the same billing period before or after the one in force.
    `reserves` gives by route the most units of each dimension that a call can report. A cap that is used up, by
    what is fixed or by earlier versions, leaves calls that cost nothing.
    """
    usage_minor = max(0, amount_minor - fixed_minor([in_force, *others], currency) - _used_minor(others, currency))
    tables = _tables(in_force)
    if not tables:
        return None
    if all(meter == REQUESTS for meter, _ in tables):
        ceiling = _most_units(tuple(steps for _, steps in tables), usage_minor, currency)
        ceiling += _counted(others, REQUESTS)
        return SpendCap(amount_minor, currency, ceiling_units=min(ceiling, MAX_UNITS))
    dimensions = {meter for meter, _ in tables} - {REQUESTS}
    return SpendCap(
        amount_minor,
        currency,
        usage_minor=usage_minor,
        prices=tuple(
            MeterPrice(meter, _price_steps(steps, currency), from_units=_counted(others, meter))
            for meter, steps in tables
        ),
        reserves={
            route: {name: units for name, units in most.items() if name in dimensions}
            for route, most in reserves.items()
        },
    )


def fixed_minor(versions: Iterable[VersionCharges], currency: str) -> int:
    """Return what is due in the period whatever is used."""
    return _rated_minor(versions, currency, lambda line: line.meter is None)


def charged_minor(versions: Iterable[VersionCharges], currency: str) -> int:
    """Return what the period costs with the units that are counted for good."""
    return _rated_minor(versions, currency, lambda _line: True)


def reported_dimensions(version: VersionCharges) -> frozenset[str]:
    """Return the dimensions that cost something and that only the upstream knows: calls must reserve them."""
    return frozenset(meter for meter, _ in _tables(version)) - {REQUESTS}


def charges_by_use(version: VersionCharges) -> bool:
    """Say whether any use of the plan version costs anything."""
    return bool(_tables(version))


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
        prices=tuple(_dearer(a, b) for a, b in zip(one.prices, other.prices, strict=True)),
    )


def table_cost_minor(price: MeterPrice, units: int) -> int:
    """Return what the gateway makes of `units` counted in the period: the contract's rule, word for word."""
    units -= price.from_units
    place = bisect_left(price.steps, units, key=lambda step: step.above)
    if units <= 0 or place == 0:
        return 0
    step = price.steps[place - 1]
    begun = -(-(units - step.above) // step.per_units)
    return (step.base_micro + step.unit_micro * begun + _MICRO // 2) // _MICRO


def _rated_minor(versions: Iterable[VersionCharges], currency: str, counts: Callable[[MeteredPrice], bool]) -> int:
    rated = [
        rate(
            line.price,
            quantity=version.units.get(line.meter or "", 0),
            currency=currency,
            share=version.share,
            description="",
        )
        for version in versions
        for line in version.prices
        if counts(line)
    ]
    return total_minor(line for lines in rated for line in lines)


def _tables(version: VersionCharges) -> list[tuple[str, tuple[CostStep, ...]]]:
    """Return meter and steps of each price that use can make due."""
    tables = [
        (line.meter, rising(line.price.steps(version.share))) for line in version.prices if line.meter is not None
    ]
    return [(meter, steps) for meter, steps in tables if any(step.base or step.unit_amount for step in steps)]


def rising(steps: Sequence[CostStep]) -> tuple[CostStep, ...]:
    """Return steps by which each quantity costs as much as the dearest up to it; most prices are so already."""
    made: list[CostStep] = []
    for index, step in enumerate(steps):
        peak = made[-1].cost(step.above) if made else ZERO
        if step.cost(step.above + 1) >= peak:
            made.append(step)
            continue
        made.append(CostStep(step.above, peak, ZERO))
        end = steps[index + 1].above if index + 1 < len(steps) else None
        if step.unit_amount:
            # the last number of units within the tier that costs no more than the peak
            cheaper = int(EXACT.divide_int(EXACT.subtract(peak, step.base), step.unit_amount)) * step.per_units
            if end is None or step.above + cheaper < end:
                above = step.above + cheaper
                made.append(replace(step, above=above, base=step.cost(above)))
    return tuple(made)


def _cost(steps: Sequence[CostStep], units: int) -> Decimal:
    place = bisect_left(steps, units, key=lambda step: step.above)
    return steps[place - 1].cost(units) if units > 0 and place else ZERO


@lru_cache(maxsize=10_000)  # a sweep meets the same plan and the same round amount again and again
def _most_units(tables: tuple[tuple[CostStep, ...], ...], usage_minor: int, currency: str) -> int:
    """Return the largest number of units that, and below which nothing, costs more than `usage_minor`."""
    low, high = 0, MAX_UNITS
    while low < high:
        middle = (low + high + 1) // 2
        if sum(round_minor(_cost(steps, middle), currency) for steps in tables) <= usage_minor:
            low = middle
        else:
            high = middle - 1
    return low


def _used_minor(others: Iterable[VersionCharges], currency: str) -> int:
    """Return the most that the use of other versions can have cost."""
    return sum(
        round_minor(_cost(steps, max(version.units.get(meter, 0), version.units_at_most.get(meter, 0))), currency)
        for version in others
        for meter, steps in _tables(version)
    )


def _counted(others: Iterable[VersionCharges], meter: str) -> int:
    return sum(version.units.get(meter, 0) for version in others)


def _price_steps(steps: Sequence[CostStep], currency: str) -> tuple[PriceStep, ...]:
    digits = minor_units(currency) + _MICRO_DIGITS
    return tuple(
        PriceStep(
            above=step.above,
            base_micro=_micro(step.base, digits),
            unit_micro=_micro(step.unit_amount, digits),
            per_units=step.per_units,
        )
        for step in steps
    )


def _micro(amount: Decimal, digits: int) -> int:
    whole = EXACT.scaleb(amount, digits).to_integral_value(ROUND_CEILING)
    return min(int(whole), _BEYOND_MICRO)


def _dearer(one: MeterPrice, other: MeterPrice) -> MeterPrice:
    steps = []
    for above in sorted({step.above for price in (one, other) for step in price.steps}):
        a, b = (_from(price.steps, above) for price in (one, other))
        unit_micro = max(a.unit_micro, b.unit_micro)
        steps.append(PriceStep(above, max(a.base_micro, b.base_micro), unit_micro, a.per_units))
    return replace(one, steps=tuple(steps), from_units=min(one.from_units, other.from_units))


def _from(steps: Sequence[PriceStep], above: int) -> PriceStep:
    """Return the part of a table that is in force behind `above`, counted from there."""
    place = bisect_right(steps, above, key=lambda step: step.above)
    if not place:
        return PriceStep(above, 0, 0)
    step = steps[place - 1]
    begun = -(-(above - step.above) // step.per_units)
    return replace(step, above=above, base_micro=step.base_micro + step.unit_micro * begun)
