"""Package: units are sold in packages of a size; a package begun is charged whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from control_plane.rating.model import EXACT, ZERO, Allowance, Charge, CostStep, Quantity, Share
from control_plane.rating.params import read_amount, read_units, refuse_unknown
from control_plane.rating.words import MINUS, TIMES, format_amount, format_units


@dataclass(frozen=True, slots=True)
class Package:
    """`left`: units that are left of a package begun in the period before this price ran (`carry`)."""

    size: int
    amount: Decimal
    left: int = 0

    @classmethod
    def read(cls, params: Mapping[str, Any], _currency: str) -> Self:
        """Read {"size": 1000, "amount": "0.80"}."""
        refuse_unknown(params, {"size", "amount"})
        return cls(size=read_units(params, "size", at_least=1), amount=read_amount(params, "amount"))

    def under(self, allowance: Allowance) -> Self:
        """Use a package begun before up first. A package is bought, not included: time cuts nothing off it."""
        return type(self)(size=self.size, amount=self.amount, left=-allowance.units_before % self.size)

    def charge(self, used: Quantity) -> Charge:
        begun = max(0, used.units - self.left)
        packages = -(-begun // self.size)
        price = format_amount(self.amount, used.currency)
        units = format_units(used.units, used.unit)
        if self.left:
            units = f"({units} {MINUS} {used.units - begun:,} left of a package)"
        noun = "package" if packages == 1 else "packages"
        return Charge(
            formula=f"{units} = {packages:,} {noun} of {self.size:,} {TIMES} {price}",
            quantity=packages,
            unit_amount=self.amount,
            amount=EXACT.multiply(Decimal(packages), self.amount),
        )

    def steps(self, _share: Share) -> tuple[CostStep, ...]:
        return (CostStep(self.left, ZERO, self.amount, self.size),)
