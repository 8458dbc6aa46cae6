"""Flat: a fixed amount a billing period, whatever was used."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from control_plane.rating.model import Charge, CostStep, Quantity, Share
from control_plane.rating.params import read_amount, refuse_unknown
from control_plane.rating.words import TIMES, format_amount, format_share


@dataclass(frozen=True, slots=True)
class Flat:
    amount: Decimal

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> Self:
        """Read {"amount": "49.00"}."""
        refuse_unknown(params, {"amount"})
        return cls(amount=read_amount(params, "amount"))

    def charge(self, used: Quantity) -> Charge:
        """Charge the amount, or its part by time when the price ran for part of the period."""
        formula = format_amount(self.amount, used.currency)
        if not used.share.is_whole:
            formula += f" {TIMES} {format_share(used.share)}"
        return Charge(formula=formula, quantity=1, unit_amount=self.amount, amount=used.share.of(self.amount))

    def steps(self, _share: Share) -> tuple[CostStep, ...]:
        return ()
