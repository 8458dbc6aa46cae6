"""Costs of use as tables: made rising, searched, and put into the form in which the gateway reads them. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

from control_plane.foundation.money import minor_units, round_minor
from control_plane.rating.model import EXACT, ZERO, CostStep
from gateway_contract.records import MeterPrice, PriceStep

MAX_CAP_MINOR = 10**12
MAX_UNITS = 2**53 - 1
_MICRO_DIGITS = 6
_MICRO = 1_000_000
# an amount beyond every cap is as good as any larger one, and stays a number that the gateway can count with
_BEYOND_MICRO = (MAX_CAP_MINOR + 1) * _MICRO


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


def cost_of(steps: Sequence[CostStep], units: int) -> Decimal:
    """Return what units cost, exactly, in the major unit."""
    place = bisect_left(steps, units, key=lambda step: step.above)
    return steps[place - 1].cost(units) if units > 0 and place else ZERO


@lru_cache(maxsize=10_000)  # a sweep meets the same plan and the same round amount again and again
def most_units(tables: tuple[tuple[tuple[CostStep, ...], int], ...], usage_minor: int, currency: str) -> int:
    """Return the largest number of units that, and below which nothing, costs more than `usage_minor`."""
    low, high = 0, MAX_UNITS
    while low < high:
        middle = (low + high + 1) // 2
        cost = sum(round_minor(cost_of(steps, middle - from_units), currency) for steps, from_units in tables)
        if cost <= usage_minor:
            low = middle
        else:
            high = middle - 1
    return low


def table_cost_minor(price: MeterPrice, units: int) -> int:
    """Return what the gateway makes of `units` counted in the period: the contract's rule, word for word."""
    units -= price.from_units
    place = bisect_left(price.steps, units, key=lambda step: step.above)
    if units <= 0 or place == 0:
        return 0
    step = price.steps[place - 1]
    begun = -(-(units - step.above) // step.per_units)
    return (step.base_micro + step.unit_micro * begun + _MICRO // 2) // _MICRO


def price_steps(steps: Sequence[CostStep], currency: str) -> tuple[PriceStep, ...]:
    """Return the steps in millionths of a minor unit, rounded up."""
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


def dearer(one: MeterPrice, other: MeterPrice) -> MeterPrice:
    """Return a price that is never below either, both of one price in two billing periods."""
    steps = []
    for above in sorted({step.above for price in (one, other) for step in price.steps}):
        a, b = (_from(price.steps, above) for price in (one, other))
        unit_micro = max(a.unit_micro, b.unit_micro)
        # where one of them charges nothing yet, it names no size of a package either
        per_units = max(a.per_units, b.per_units)
        steps.append(PriceStep(above, max(a.base_micro, b.base_micro), unit_micro, per_units))
    return replace(one, steps=tuple(steps), from_units=min(one.from_units, other.from_units))


def _from(steps: Sequence[PriceStep], above: int) -> PriceStep:
    """Return the part of a table that is in force behind `above`, counted from there."""
    place = bisect_right(steps, above, key=lambda step: step.above)
    if not place:
        return PriceStep(above, 0, 0)
    step = steps[place - 1]
    begun = -(-(above - step.above) // step.per_units)
    return replace(step, above=above, base_micro=step.base_micro + step.unit_micro * begun)
