"""Overage: a number of units is included, each unit above it costs the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from control_plane.rating.model import EXACT, ZERO, Allowance, Charge, CostStep, Quantity, Share, TierUse
from control_plane.rating.params import read_amount, read_units, refuse_unknown
from control_plane.rating.words import TIMES, format_amount, format_units


@dataclass(frozen=True, slots=True)
class Overage:
    """`units_before`: of the included units, those used in the period before this price ran (`carry`)."""

    included: int
    unit_amount: Decimal
    units_before: int = 0

    @classmethod
    def read(cls, params: Mapping[str, Any], _currency: str) -> Self:
        """Read {"included": 50000, "unit_amount": "0.0015"}."""
        refuse_unknown(params, {"included", "unit_amount"})
        return cls(
            included=read_units(params, "included", at_least=0), unit_amount=read_amount(params, "unit_amount")
        )

    def under(self, allowance: Allowance) -> Self:
        """Cut what is included by time, round it up, and add what add-ons bring."""
        sold = self.included if allowance.own_units is None else allowance.own_units
        return type(self)(
            included=allowance.share.of_units(sold * allowance.quantity) + allowance.extra_units,
            unit_amount=self.unit_amount,
            units_before=allowance.units_before,
        )

    @property
    def left(self) -> int:
        """Return how many included units were left when this price began to run."""
        return max(0, self.included - self.units_before)

    def charge(self, used: Quantity) -> Charge:
        """Charge the units above the included ones that are left."""
        above = max(0, used.units - self.left)
        within = used.units - above
        amount = EXACT.multiply(Decimal(above), self.unit_amount)
        tiers = []
        if within:
            tiers.append(self._tier(self.units_before + 1, self.included, within, ZERO, ZERO))
        if above:
            first_unit = self.units_before + self.left + 1
            tiers.append(self._tier(first_unit, None, above, self.unit_amount, amount))
        return Charge(
            formula=self._formula(used, above=above),
            quantity=above,
            unit_amount=self.unit_amount,
            amount=amount,
            tiers=tuple(tiers),
        )

    def steps(self, _share: Share) -> tuple[CostStep, ...]:
        return (CostStep(self.left, ZERO, self.unit_amount),)

    @staticmethod
    def _tier(
        first_unit: int, last_unit: int | None, quantity: int, unit_amount: Decimal, amount: Decimal
    ) -> TierUse:
        return TierUse(
            first_unit=first_unit,
            last_unit=last_unit,
            quantity=quantity,
            unit_amount=unit_amount,
            flat_amount=ZERO,
            amount=amount,
        )

    def _formula(self, used: Quantity, *, above: int) -> str:
        included = f"{self.included:,}"
        if self.units_before and self.left:
            included = f"{self.left:,} left of {self.included:,}"
        if not above:
            return f"{used.units:,} of {included} included {used.unit.plural}"
        price = format_amount(self.unit_amount, used.currency)
        return f"{format_units(above, used.unit)} above {included} {TIMES} {price}"
