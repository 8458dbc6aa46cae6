"""Percentage: a part of a value, which a meter counts in minor units of the currency (cents)."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from control_plane.foundation.money import minor_units
from control_plane.rating.model import EXACT, ZERO, Allowance, Charge, CostStep, Quantity, Share
from control_plane.rating.params import read_percent, refuse_unknown
from control_plane.rating.words import TIMES, format_amount


@dataclass(frozen=True, slots=True)
class Percentage:
    """`unit_amount`: what one minor unit of value costs, in the major unit (2.9 % of a cent: 0.00029 dollars)."""

    percent: Decimal
    unit_amount: Decimal

    @classmethod
    def read(cls, params: Mapping[str, Any], currency: str) -> Self:
        """Read {"percent": "2.9"}."""
        refuse_unknown(params, {"percent"})
        percent = read_percent(params, "percent")
        return cls(percent=percent, unit_amount=EXACT.scaleb(percent, -2 - minor_units(currency)))

    def under(self, _allowance: Allowance) -> Self:
        return self

    def charge(self, used: Quantity) -> Charge:
        """Charge the part of the value that was counted."""
        value = EXACT.scaleb(Decimal(used.units), -minor_units(used.currency))
        return Charge(
            formula=f"{format_amount(value, used.currency)} {TIMES} {self.percent.normalize():f} %",
            quantity=used.units,
            unit_amount=self.unit_amount,
            amount=EXACT.multiply(Decimal(used.units), self.unit_amount),
        )

    def steps(self, _share: Share) -> tuple[CostStep, ...]:
        return (CostStep(0, ZERO, self.unit_amount),)
