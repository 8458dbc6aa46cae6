"""The prices of a spend cap in the form in which the limit script reads them.

A price that falls while units grow (volume prices do, at each tier) counts as the most that it has been on the
way: units that were reserved may turn out to be fewer, and the period would end dearer than it looked.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway_contract.counters import UNITS, dimension_units
from gateway_contract.records import MeterPrice, PriceStep, SpendCap

REQUESTS = "requests"
MILLION = 1_000_000
# the script reckons in doubles, which hold every whole number up to this one
EXACT_UP_TO = 2**53


class SpendCapError(ValueError):
    """A spend cap that cannot be kept where it applies; the message says why."""


def pack_spend_cap(cap: SpendCap, *, route_name: str, units: int) -> list[Any]:
    """Return the most that use may cost (minor units), and what the script needs to know of each price.

    Raises:
        SpendCapError: a call on this route has no known maximum of a dimension that costs money, or numbers are
            beyond what the script reckons exactly.
    """
    reserves = cap.reserves.get(route_name, {})
    if not 0 <= cap.usage_minor < EXACT_UP_TO:
        raise SpendCapError(f"a spend cap of {cap.usage_minor} minor units is beyond exact reckoning")
    return [cap.usage_minor, [_packed(price, reserves, route_name, units) for price in cap.prices]]


def _packed(price: MeterPrice, reserves: Mapping[str, int], route_name: str, units: int) -> list[Any]:
    steps = [_packed_step(step) for step in rising_steps(price.steps)]
    if price.dimension == REQUESTS:
        return [UNITS, price.from_units, units, steps]
    reserve = reserves.get(price.dimension)
    if reserve is None or not 0 <= reserve < EXACT_UP_TO:
        raise SpendCapError(f"no maximum of {price.dimension} is known for one call on the route {route_name!r}")
    return [dimension_units(price.dimension), price.from_units, reserve, steps]


def _packed_step(step: PriceStep) -> list[int]:
    numbers = [step.above, *divmod(step.base_micro, MILLION), *divmod(step.unit_micro, MILLION), step.per_units]
    if min(numbers) < 0 or max(numbers) >= EXACT_UP_TO or step.per_units < 1:
        raise SpendCapError(f"{step} is beyond exact reckoning")
    return numbers


def rising_steps(steps: tuple[PriceStep, ...]) -> list[PriceStep]:
    """Return steps that never fall: where the price does, it stays as it was until it is reached again."""
    rising: list[PriceStep] = []
    highest = 0
    ends = [step.above for step in steps[1:]]
    for step, end in zip(steps, [*ends, None], strict=True):
        rising += _never_below(highest, step, end)
        if end is not None:
            blocks = -(-(end - step.above) // step.per_units)
            highest = max(highest, step.base_micro + blocks * step.unit_micro)
    return rising


def _never_below(highest: int, step: PriceStep, end: int | None) -> Iterator[PriceStep]:
    if step.base_micro + step.unit_micro >= highest:
        yield step
        return
    yield PriceStep(above=step.above, base_micro=highest, unit_micro=0)
    if step.unit_micro == 0:
        return
    # whole blocks that cost no more than what it was already
    blocks = (highest - step.base_micro) // step.unit_micro
    above = step.above + blocks * step.per_units
    if end is None or above < end:
        base = step.base_micro + blocks * step.unit_micro
        yield PriceStep(above=above, base_micro=base, unit_micro=step.unit_micro, per_units=step.per_units)
