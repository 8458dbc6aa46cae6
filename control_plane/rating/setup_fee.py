"""Setup fee: a fixed amount, once in a subscription's life. Whether it is due, the caller knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from control_plane.rating.model import EXACT, Allowance, Charge, CostStep, Quantity, Share
from control_plane.rating.params import read_money, refuse_unknown
from control_plane.rating.words import format_held


@dataclass(frozen=True, slots=True)
class SetupFee:
    amount: Decimal

    @classmethod
    def read(cls, params: Mapping[str, Any], currency: str) -> Self:
        """Read {"amount": "500.00"}."""
        refuse_unknown(params, {"amount"})
        return cls(amount=read_money(params, "amount", currency))

    def under(self, _allowance: Allowance) -> Self:
        return self

    def charge(self, used: Quantity) -> Charge:
        """Charge the amount whole, however much of the period is left."""
        return Charge(
            formula=f"{format_held(self.amount, used)}, once",
            quantity=used.held,
            unit_amount=self.amount,
            amount=EXACT.multiply(self.amount, Decimal(used.held)),
        )

    def steps(self, _share: Share) -> tuple[CostStep, ...]:
        return ()
