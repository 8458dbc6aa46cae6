"""Commitment: a minimum for a billing period; what other lines fall short of it is charged when it ends.

It is due whatever is used, but use pays towards it: a period costs the larger of the minimum and of the lines that
it counts, never both. So a spend cap must not be below the minimum, and use takes nothing from the cap twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from control_plane.rating.model import EXACT, ZERO, Allowance, Charge, CostStep, Quantity, Share
from control_plane.rating.params import read_choice, read_money, refuse_unknown
from control_plane.rating.words import MINUS, TIMES, format_amount, format_share

USAGE = "usage"
ALL = "all"


@dataclass(frozen=True, slots=True)
class Commitment:
    """`counts`: `usage` lines, or `all` other lines of the plan version."""

    amount: Decimal
    counts: str

    @classmethod
    def read(cls, params: Mapping[str, Any], currency: str) -> Self:
        """Read {"amount": "500.00", "counts": "usage"}."""
        refuse_unknown(params, {"amount", "counts"})
        return cls(
            amount=read_money(params, "amount", currency), counts=read_choice(params, "counts", (USAGE, ALL))
        )

    def under(self, _allowance: Allowance) -> Self:
        return self

    def charge(self, used: Quantity) -> Charge:
        """Charge what `used.charged` falls short of the amount, or of its part by time."""
        minimum = format_amount(self.amount, used.currency)
        if not used.share.is_whole:
            minimum += f" {TIMES} {format_share(used.share)}"
        due = max(ZERO, EXACT.subtract(used.share.of(self.amount), used.charged))
        what = "charged for use" if self.counts == USAGE else "charged already"
        return Charge(
            formula=f"{minimum} minimum {MINUS} {format_amount(used.charged, used.currency)} {what}"
            if due
            else f"minimum of {minimum}, reached by {format_amount(used.charged, used.currency)} {what}",
            quantity=1,
            unit_amount=self.amount,
            amount=due,
        )

    def steps(self, _share: Share) -> tuple[CostStep, ...]:
        return ()
