"""Overage: a number of units is included, each unit above it costs the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from control_plane.rating.model import EXACT, ZERO, Charge, CostStep, Quantity, Share, TierUse
from control_plane.rating.params import read_amount, read_units, refuse_unknown
from control_plane.rating.words import TIMES, format_amount, format_units


@dataclass(frozen=True, slots=True)
class Overage:
    included: int
    unit_amount: Decimal

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> Self:
        """Read {"included": 50000, "unit_amount": "0.0015"}."""
        refuse_unknown(params, {"included", "unit_amount"})
        return cls(
            included=read_units(params, "included", at_least=0), unit_amount=read_amount(params, "unit_amount")
        )

    def charge(self, used: Quantity) -> Charge:
        """Charge the units above the included ones. The allowance is never cut (docs/pricing-models.md)."""
        above = max(0, used.units - self.included)
        within = used.units - above
        amount = EXACT.multiply(Decimal(above), self.unit_amount)
        free = TierUse(
            first_unit=1,
            last_unit=self.included,
            quantity=within,
            unit_amount=ZERO,
            flat_amount=ZERO,
            amount=ZERO,
        )
        paid = TierUse(
            first_unit=self.included + 1,
            last_unit=None,
            quantity=above,
            unit_amount=self.unit_amount,
            flat_amount=ZERO,
            amount=amount,
        )
        return Charge(
            formula=self._formula(used, above=above),
            quantity=above,
            unit_amount=self.unit_amount,
            amount=amount,
            tiers=tuple(tier for tier in (free, paid) if tier.quantity),
        )

    def steps(self, _share: Share) -> tuple[CostStep, ...]:
        return (CostStep(self.included, ZERO, self.unit_amount),)

    def _formula(self, used: Quantity, *, above: int) -> str:
        if not above:
            return f"{used.units:,} of {self.included:,} included {used.unit.plural}"
        price = format_amount(self.unit_amount, used.currency)
        return f"{format_units(above, used.unit)} above {self.included:,} {TIMES} {price}"
