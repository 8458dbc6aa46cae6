"""Package: units are sold in packages of a size; a package begun is charged whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from control_plane.rating.model import EXACT, ZERO, Charge, CostStep, Quantity, Share
from control_plane.rating.params import read_amount, read_units, refuse_unknown
from control_plane.rating.words import TIMES, format_amount, format_units


@dataclass(frozen=True, slots=True)
class Package:
    size: int
    amount: Decimal

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> Self:
        """Read {"size": 1000, "amount": "0.80"}."""
        refuse_unknown(params, {"size", "amount"})
        return cls(size=read_units(params, "size", at_least=1), amount=read_amount(params, "amount"))

    def charge(self, used: Quantity) -> Charge:
        packages = -(-used.units // self.size)
        price = format_amount(self.amount, used.currency)
        units = format_units(used.units, used.unit)
        noun = "package" if packages == 1 else "packages"
        return Charge(
            formula=f"{units} = {packages:,} {noun} of {self.size:,} {TIMES} {price}",
            quantity=packages,
            unit_amount=self.amount,
            amount=EXACT.multiply(Decimal(packages), self.amount),
        )

    def steps(self, _share: Share) -> tuple[CostStep, ...]:
        return (CostStep(0, ZERO, self.amount, self.size),)
