"""Volume: the tier in which the whole quantity falls prices every unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from control_plane.rating.model import EXACT, Charge, CostStep, Quantity, Share
from control_plane.rating.tiers import Tier, read_tiers, tier_formula, use_tier


@dataclass(frozen=True, slots=True)
class Volume:
    tiers: tuple[Tier, ...]

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> Self:
        return cls(tiers=read_tiers(params))

    def charge(self, used: Quantity) -> Charge:
        """Charge all units at one tier's price. No units: nothing, not even the first tier's flat amount."""
        tier = next(tier for tier in self.tiers if tier.up_to is None or used.units <= tier.up_to)
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
        return tuple(
            CostStep(
                tier.above,
                EXACT.add(EXACT.multiply(Decimal(tier.above), tier.unit_amount), share.of(tier.flat_amount)),
                tier.unit_amount,
            )
            for tier in self.tiers
        )
