"""Flat: a fixed amount a billing period, whatever was used."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from control_plane.rating.model import EXACT, Allowance, Charge, CostStep, Quantity, Share
from control_plane.rating.params import read_money, refuse_unknown
from control_plane.rating.words import TIMES, format_held, format_share


@dataclass(frozen=True, slots=True)
class Flat:
    amount: Decimal

    @classmethod
    def read(cls, params: Mapping[str, Any], currency: str) -> Self:
        """Read {"amount": "49.00"}."""
        refuse_unknown(params, {"amount"})
        return cls(amount=read_money(params, "amount", currency))

    def under(self, _allowance: Allowance) -> Self:
        return self

    def charge(self, used: Quantity) -> Charge:
        """Charge the amount, or its part by time when the price ran for part of the period."""
        formula = format_held(self.amount, used)
        if not used.share.is_whole:
            formula += f" {TIMES} {format_share(used.share)}"
        amount = self.amount if used.held == 1 else EXACT.multiply(self.amount, Decimal(used.held))
        return Charge(formula=formula, quantity=used.held, unit_amount=self.amount, amount=used.share.of(amount))

    def steps(self, _share: Share) -> tuple[CostStep, ...]:
        return ()
