"""Graduated: each unit costs what its own tier says; later tiers apply only to the units in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from control_plane.rating.model import EXACT, ZERO, Allowance, Charge, CostStep, Quantity, Share
from control_plane.rating.tiers import Tier, cut_tiers, read_tiers, tier_formula, use_tier
from control_plane.rating.words import TIMES, format_amount, format_units


@dataclass(frozen=True, slots=True)
class Graduated:
    """`units_before`: used in the period before this price ran; units are numbered on from there (`carry`)."""

    tiers: tuple[Tier, ...]
    units_before: int = 0

    @classmethod
    def read(cls, params: Mapping[str, Any], _currency: str) -> Self:
        return cls(tiers=read_tiers(params))

    def under(self, allowance: Allowance) -> Self:
        return type(self)(cut_tiers(self.tiers, allowance.share), allowance.units_before)

    def charge(self, used: Quantity) -> Charge:
        """Charge tier by tier. A tier's flat amount is due only when at least one unit falls into the tier."""
        filled = [(tier, units) for tier in self.tiers if (units := self._units_in(tier, used.units)) > 0]
        uses = tuple(use_tier(tier, units=units, used=used) for tier, units in filled)
        amount = ZERO
        for use in uses:
            amount = EXACT.add(amount, use.amount)
        nothing = f"{format_units(0, used.unit)} {TIMES} {format_amount(self.tiers[0].unit_amount, used.currency)}"
        formula = " + ".join(tier_formula(tier, units=units, used=used) for tier, units in filled)
        return Charge(
            formula=formula or nothing,
            quantity=used.units,
            unit_amount=uses[0].unit_amount if len(uses) == 1 else None,
            amount=amount,
            tiers=uses,
        )

    def steps(self, share: Share) -> tuple[CostStep, ...]:
        steps: list[CostStep] = []
        for tier in self.tiers:
            if tier.up_to is not None and tier.up_to <= max(tier.above, self.units_before):
                continue
            above = max(0, tier.above - self.units_before)
            cost = steps[-1].cost(above) if steps else ZERO
            steps.append(CostStep(above, EXACT.add(cost, share.of(tier.flat_amount)), tier.unit_amount))
        return tuple(steps)

    def _units_in(self, tier: Tier, units: int) -> int:
        last = self.units_before + units
        return (last if tier.up_to is None else min(last, tier.up_to)) - max(tier.above, self.units_before)
