"""A second way to a bill: call by call, in fractions. Shares no code with what it checks; slow, and meant to be.

Every unit has a number: within its version, or within the billing period where the version carries. What it costs
follows from its number alone; only volume prices, and what is due for time, are reckoned when the period is over.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

DIGITS = {"USD": 2, "JPY": 0, "KWD": 3}


@dataclass(kw_only=True)
class Plan:
    """`prices`: (model, meter, params) in order."""

    prices: list[tuple[str, str | None, dict]]
    on_change: str = "full"
    add_on: bool = False
    quota_units: int | None = None
    quota_hard: bool = False


@dataclass(kw_only=True)
class Phase:
    plan: str
    start: int
    end: int
    units: dict[str, int] = field(default_factory=dict)
    add_ons: dict[str, int] = field(default_factory=dict)


def rounded(amount: Fraction, currency: str) -> int:
    return floor(amount * 10 ** DIGITS[currency] + Fraction(1, 2))


def bill(
    sold: dict[str, Plan],
    phases: list[Phase],
    *,
    period: int,
    currency: str = "USD",
    own_quota: int | None = None,
    fees_due: tuple[str, ...] = (),
) -> dict[tuple[str, int], Fraction]:
    """Return what each price of each version comes to, exactly; setup fees only where due."""
    phases = sorted(phases, key=lambda phase: phase.start)
    found: dict[tuple[str, int], Fraction] = {}
    for code, plan in sold.items():
        held = [phase for phase in phases if code in (phase.plan, *phase.add_ons)]
        if not held:
            continue
        left = Fraction(period - held[0].start, period) if plan.on_change == "prorated" else Fraction(1)
        usage: list[int] = []
        every: list[int] = []
        for position, (model, meter, params) in enumerate(plan.prices):
            if model == "setup_fee":
                if code in fees_due:
                    amount = Fraction(params["amount"]) * held[0].add_ons.get(code, 1)
                    found[code, position] = amount
                    every.append(rounded(amount, currency))
            elif model == "flat":
                time = sum(Fraction(p.end - p.start, period) * p.add_ons.get(code, 1) for p in held)
                found[code, position] = Fraction(params["amount"]) * time
                every.append(rounded(found[code, position], currency))
            elif model != "commitment":
                included = None
                if model == "overage":
                    included = params["included"] * max(phase.add_ons.get(code, 1) for phase in held)
                    ours = meter == "requests" and not plan.add_on and not plan.quota_hard
                    if ours and own_quota is not None:
                        included = own_quota
                    included = ceil(included * left)
                    if ours:
                        included += most_from_add_ons(sold, phases, code, period)
                parts = numbered(code, meter, phases, period, carry=plan.on_change == "carry")
                amount = sum(
                    (
                        part_cost(
                            model, params, numbers, time=time, included=included, left=left, currency=currency
                        )
                        for numbers, time in parts
                    ),
                    Fraction(0),
                )
                found[code, position] = amount
                usage.append(rounded(amount, currency))
        for position, (model, _, params) in enumerate(plan.prices):
            if model == "commitment":
                counted = sum(usage) + (sum(every) if params["counts"] == "all" else 0)
                time = sum(Fraction(phase.end - phase.start, period) for phase in held)
                short = Fraction(params["amount"]) * time - Fraction(counted, 10 ** DIGITS[currency])
                found[code, position] = max(Fraction(0), short)
    return found


def most_from_add_ons(plans: dict[str, Plan], phases: list[Phase], code: str, period: int) -> int:
    most = 0
    for phase in phases:
        if phase.plan == code:
            brought = 0
            for name, quantity in phase.add_ons.items():
                first = min(other.start for other in phases if name in other.add_ons)
                part = Fraction(period - first, period) if plans[name].on_change == "prorated" else Fraction(1)
                brought += ceil((plans[name].quota_units or 0) * quantity * part)
            most = max(most, brought)
    return most


def numbered(code, meter, phases, period, *, carry) -> list[tuple[list[int], Fraction]]:
    """Number the calls; under `carry` a part of a version's time ends where another's use comes between."""
    number_in_period = number_in_version = 0
    parts: list[tuple[list[int], Fraction]] = []
    interrupted = True
    for phase in phases:
        units = phase.units.get(meter, 0)
        if code in (phase.plan, *phase.add_ons):
            if not parts or (interrupted and carry):
                parts.append(([], Fraction(0)))
            interrupted = False
            numbers, time = parts.pop()
            for _ in range(units):
                number_in_period += 1
                number_in_version += 1
                numbers.append(number_in_period if carry else number_in_version)
            parts.append((numbers, time + Fraction(phase.end - phase.start, period)))
        else:
            number_in_period += units
            interrupted = interrupted or units > 0
    return parts


def part_cost(model, params, numbers, *, time, included, left, currency) -> Fraction:
    if not numbers:
        return Fraction(0)
    if model == "per_unit":
        return sum(Fraction(params["unit_amount"]) for _ in numbers)
    if model == "percentage":
        return sum(Fraction(params["percent"]) / 100 / 10 ** DIGITS[currency] for _ in numbers)
    if model == "overage":
        return sum((Fraction(params["unit_amount"]) for number in numbers if number > included), Fraction(0))
    if model == "package":
        begun = [number for number in numbers if (number - 1) % params["size"] == 0]
        return len(begun) * Fraction(params["amount"])
    tiers = [tier_of(params["tiers"], number, left) for number in numbers]
    if model == "volume":
        tiers = [tiers[-1]] * len(tiers)
    unit_amounts = sum(Fraction(params["tiers"][tier].get("unit_amount", "0")) for tier in tiers)
    return unit_amounts + time * sum(
        Fraction(params["tiers"][tier].get("flat_amount", "0")) for tier in set(tiers)
    )


def tier_of(tiers: list[dict], number: int, left: Fraction) -> int:
    for place, tier in enumerate(tiers):
        if tier["up_to"] is None or number <= ceil(tier["up_to"] * left):
            return place
    raise AssertionError


def cost_of(model: str, params: dict, units: int, *, currency: str, time: Fraction = Fraction(1)) -> Fraction:
    """Return what any number of units cost, in closed form: for numbers that cannot be counted one by one."""
    if model == "percentage":
        return Fraction(params["percent"]) * units / 100 / 10 ** DIGITS[currency]
    if model == "per_unit":
        return Fraction(params["unit_amount"]) * units
    if model == "overage":
        return Fraction(params["unit_amount"]) * (max(units, params["included"]) - params["included"])
    if model == "package":
        return Fraction(params["amount"]) * ceil(Fraction(units, params["size"]))
    return tiered(model, params, units, time=time) if units else Fraction(0)


def tiered(model: str, params: dict, units: int, *, time: Fraction) -> Fraction:
    ends = [tier["up_to"] for tier in params["tiers"]]
    reached = next(place for place, end in enumerate(ends) if end is None or end >= units)
    amounts = [(Fraction(tier["unit_amount"]), time * Fraction(tier["flat_amount"])) for tier in params["tiers"]]
    if model == "volume":
        return units * amounts[reached][0] + amounts[reached][1]
    edges = [0, *ends[:reached], units]
    return sum(
        ((high - low) * unit + flat for low, high, (unit, flat) in zip(edges, edges[1:], amounts, strict=False)),
        Fraction(0),
    )
