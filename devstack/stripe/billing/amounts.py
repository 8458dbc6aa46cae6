"""What a price charges for a quantity: exact numbers, each rounded once to the currency's smallest unit.

Stripe writes one invoice line for each tier of a graduated price that was reached, and another for a tier's flat
amount; each of these lines is rounded by itself. Amounts and unit amounts are in minor units throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

ZERO = Decimal(0)


@dataclass(frozen=True)
class Charge:
    """One line's worth. `tier` counts from 1; `is_flat` marks the flat amount of a tier."""

    exact: Decimal
    quantity: int
    unit_amount: Decimal | None
    tier: int | None = None
    is_flat: bool = False

    @property
    def amount(self) -> int:
        return to_minor(self.exact)


def to_minor(exact: Decimal) -> int:
    """Half a unit goes away from zero, as on every invoice of Stripe's."""
    return int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def charges(price: dict[str, Any], quantity: int) -> tuple[Charge, ...]:
    """The lines of `quantity` units of a price. Negative usage charges nothing."""
    quantity = max(quantity, 0)
    if price["billing_scheme"] == "tiered":
        tiers = price["tiers"]
        return volume(tiers, quantity) if price["tiers_mode"] == "volume" else graduated(tiers, quantity)
    return (per_unit(price, quantity),)


def per_unit(price: dict[str, Any], quantity: int) -> Charge:
    unit = unit_amount_of(price)
    transform = price.get("transform_quantity")
    billed = packages(quantity, transform["divide_by"], transform["round"]) if transform else quantity
    return Charge(unit * billed, quantity, unit)


def packages(quantity: int, divide_by: int, rounding: str) -> int:
    whole, rest = divmod(quantity, divide_by)
    return whole + (1 if rest and rounding == "up" else 0)


def graduated(tiers: Sequence[dict[str, Any]], quantity: int) -> tuple[Charge, ...]:
    """Every unit at the rate of the tier it falls into. Nothing used still falls into the first tier."""
    found: list[Charge] = []
    lower = 0
    for number, tier in enumerate(tiers, start=1):
        upper = tier["up_to"]
        within = (quantity if upper is None else min(quantity, upper)) - lower
        if within <= 0 and number > 1:
            break
        found += _of_tier(tier, number, max(within, 0))
        if upper is None:
            break
        lower = upper
    return tuple(found)


def volume(tiers: Sequence[dict[str, Any]], quantity: int) -> tuple[Charge, ...]:
    """Every unit at the rate of the tier that the whole quantity reaches."""
    for number, tier in enumerate(tiers, start=1):
        if tier["up_to"] is None or quantity <= tier["up_to"]:
            return tuple(_of_tier(tier, number, quantity))
    raise ValueError("the last tier of a price must have no upper bound")


def _of_tier(tier: dict[str, Any], number: int, quantity: int) -> list[Charge]:
    unit = unit_amount_of(tier)
    found = [Charge(unit * quantity, quantity, unit, number)]
    flat = decimal_of(tier, "flat_amount")
    if flat:
        found.append(Charge(flat, 0, None, number, is_flat=True))
    return found


def unit_amount_of(priced: dict[str, Any]) -> Decimal:
    return decimal_of(priced, "unit_amount") or ZERO


def decimal_of(priced: dict[str, Any], name: str) -> Decimal | None:
    """From the whole or the decimal form of an amount, whichever is set."""
    exact = priced.get(f"{name}_decimal")
    if exact is not None:
        return Decimal(str(exact))
    whole = priced.get(name)
    return None if whole is None else Decimal(whole)


def total(price: dict[str, Any], quantity: int) -> Decimal:
    """Exact, without any rounding: what proration takes its share of."""
    return sum((charge.exact for charge in charges(price, quantity)), ZERO)
