"""The values of rating: what goes in, what a price model answers, what comes out."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Protocol, Self

# Enough digits for any bigint quantity times any amount we accept: no multiplication here ever rounds.
# A share of a period is the one division; 80 digits leave it far from any cent boundary it does not lie on.
EXACT = Context(prec=80, rounding=ROUND_HALF_UP)
ZERO = Decimal(0)


class RatingError(ValueError):
    """A price or a quantity cannot be rated. `field` is the name of the part at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a billing period for which a price ran, in ms: 0 <= covered_ms <= period_ms."""

    covered_ms: int
    period_ms: int

    def __post_init__(self) -> None:
        if not 0 <= self.covered_ms <= self.period_ms or self.period_ms == 0:
            raise RatingError("share", f"{self.covered_ms} of {self.period_ms} ms is not a part of a period")

    @property
    def is_whole(self) -> bool:
        return self.covered_ms == self.period_ms

    def of(self, amount: Decimal) -> Decimal:
        """Return that part of an amount, not rounded to any currency."""
        if self.is_whole:
            return amount
        return EXACT.divide(EXACT.multiply(amount, Decimal(self.covered_ms)), Decimal(self.period_ms))

    def of_units(self, units: int) -> int:
        """Return that part of an allowance or tier bound; a part of a unit counts whole."""
        return -(-units * self.covered_ms // self.period_ms)


WHOLE_PERIOD = Share(covered_ms=1, period_ms=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How included units and tier bounds of a price stand in one billing period (docs/pricing-models.md).

    `share` of them counts (`prorated`); `units_before`, used in the period before, count against them (`carry`).
    `own_units` take the place of the included ones, `quantity` multiplies these, `extra_units` come on top, uncut.
    """

    share: Share = WHOLE_PERIOD
    units_before: int = 0
    own_units: int | None = None
    extra_units: int = 0
    quantity: int = 1


AS_SOLD = Allowance()


@dataclass(frozen=True, slots=True)
class Unit:
    """What a meter counts, in words."""

    singular: str
    plural: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What is to be rated: `units` used (never negative) while the price ran, and how to speak of it.

    `share`: the part of the period for which the price ran. `held`: of how many add-ons an amount is due.
    `charged`: what the lines that a commitment counts come to, in the major unit.
    """

    units: int
    unit: Unit
    currency: str
    share: Share = WHOLE_PERIOD
    held: int = 1
    charged: Decimal = ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class TierUse:
    """The units that fell into one tier: those numbered `first_unit` to `last_unit` (None: no upper end)."""

    first_unit: int
    last_unit: int | None
    quantity: int
    unit_amount: Decimal
    flat_amount: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A price model's answer: an exact amount in the currency's major unit and how it came about.

    `notes`: sentences that say why allowances or tiers are not as they were sold.
    """

    formula: str
    quantity: int
    unit_amount: Decimal | None
    amount: Decimal
    tiers: tuple[TierUse, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CostStep:
    """What units cost from unit `above` + 1 on, all of them together: `base` + `unit_amount` for each `per_units`
    begun above `above`. Exact, in the currency's major unit.
    """

    above: int
    base: Decimal
    unit_amount: Decimal
    per_units: int = 1

    def cost(self, units: int) -> Decimal:
        begun = -(-(units - self.above) // self.per_units)
        return EXACT.add(self.base, EXACT.multiply(self.unit_amount, Decimal(begun)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedLine:
    """One line of an invoice. `exact_amount` (major unit) was rounded once, half up, to `amount_minor`.

    `explain.explain_line` says in sentences how it came about.
    """

    description: str
    formula: str
    quantity: int
    unit_amount: Decimal | None
    tiers: tuple[TierUse, ...]
    exact_amount: Decimal
    amount_minor: int
    currency: str
    notes: tuple[str, ...] = ()


class PriceModel(Protocol):
    """What each price model is: an immutable value read from a price's parameters."""

    @classmethod
    def read(cls, params: Mapping[str, Any], currency: str) -> Self:
        """Return the price.

        Raises:
            RatingError: a parameter is missing, unknown or out of range; names it.
        """
        ...

    def under(self, allowance: Allowance) -> Self:
        """Return the price with its included units and tier bounds as they stand; itself where it has none."""
        ...

    def charge(self, used: Quantity) -> Charge:
        """Return what the quantity costs. Pure; the same quantity always gives the same charge."""
        ...

    def steps(self, share: Share) -> tuple[CostStep, ...]:
        """Return the same amounts as a table: the last step whose `above` is less than the units gives them all.

        No units cost nothing. A price that is not due by use (flat, setup fee, commitment) has no steps.
        """
        ...
