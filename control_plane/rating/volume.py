"""Volume: the tier in which the whole quantity falls prices every unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from control_plane.rating.model import EXACT, Allowance, Charge, CostStep, Quantity, Share
from control_plane.rating.tiers import Tier, cut_tiers, read_tiers, tier_formula, use_tier


@dataclass(frozen=True, slots=True)
class Volume:
    """`units_before`: used in the period before this price ran; they help to reach a tier (`carry`)."""

    tiers: tuple[Tier, ...]
    units_before: int = 0

    @classmethod
    def read(cls, params: Mapping[str, Any], _currency: str) -> Self:
        return cls(tiers=read_tiers(params))

    def under(self, allowance: Allowance) -> Self:
        return type(self)(cut_tiers(self.tiers, allowance.share), allowance.units_before)

    def charge(self, used: Quantity) -> Charge:
        """Charge all units at one tier's price. No units: nothing, not even the first tier's flat amount."""
        reached = self.units_before + used.units
        tier = next(tier for tier in self.tiers if tier.up_to is None or reached <= tier.up_to)
        if used.units == 0:
            tier = Tier(above=0, up_to=tier.up_to, unit_amount=tier.unit_amount, flat_amount=tier.flat_amount * 0)
        use = use_tier(tier, units=used.units, used=used)
        return Charge(
            formula=tier_formula(tier, units=used.units, used=used),
            quantity=used.units,
            unit_amount=tier.unit_amount,
            amount=use.amount,
            tiers=(use,) if used.units else (),
        )

    def steps(self, share: Share) -> tuple[CostStep, ...]:
        steps: list[CostStep] = []
        for tier in self.tiers:
            if tier.up_to is not None and tier.up_to <= max(tier.above, self.units_before):
                continue
            above = max(0, tier.above - self.units_before)
            cost = EXACT.multiply(Decimal(above), tier.unit_amount)
            steps.append(CostStep(above, EXACT.add(cost, share.of(tier.flat_amount)), tier.unit_amount))
        return tuple(steps)
