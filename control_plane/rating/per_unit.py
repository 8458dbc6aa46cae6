"""Per unit: every unit costs the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from control_plane.rating.model import EXACT, ZERO, Allowance, Charge, CostStep, Quantity, Share
from control_plane.rating.params import read_amount, refuse_unknown
from control_plane.rating.words import TIMES, format_amount, format_units


@dataclass(frozen=True, slots=True)
class PerUnit:
    unit_amount: Decimal

    @classmethod
    def read(cls, params: Mapping[str, Any], _currency: str) -> Self:
        """Read {"unit_amount": "0.0015"}."""
        refuse_unknown(params, {"unit_amount"})
        return cls(unit_amount=read_amount(params, "unit_amount"))

    def under(self, _allowance: Allowance) -> Self:
        return self

    def charge(self, used: Quantity) -> Charge:
        price = format_amount(self.unit_amount, used.currency)
        return Charge(
            formula=f"{format_units(used.units, used.unit)} {TIMES} {price}",
            quantity=used.units,
            unit_amount=self.unit_amount,
            amount=EXACT.multiply(Decimal(used.units), self.unit_amount),
        )

    def steps(self, _share: Share) -> tuple[CostStep, ...]:
        return (CostStep(0, ZERO, self.unit_amount),)
