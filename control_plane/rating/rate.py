"""From prices and quantities to invoice lines: the one place where amounts are rounded."""

from collections.abc import Iterable
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal

from control_plane.foundation.money import round_minor
from control_plane.rating.model import (
    EXACT,
    WHOLE_PERIOD,
    Charge,
    PriceModel,
    Quantity,
    RatedLine,
    RatingError,
    Share,
    TierUse,
    Unit,
)
from control_plane.rating.words import unit_of

_LAST_DECIMAL = Decimal(1).scaleb(-30)


def rate(
    price: PriceModel,
    *,
    quantity: int,
    currency: str,
    meter: str | None = "requests",
    unit: Unit | None = None,
    share: Share = WHOLE_PERIOD,
    description: str,
) -> list[RatedLine]:
    """Return the invoice lines of one price: what `quantity` units cost, rounded half up once per line.

    `share` is the part of the billing period for which the price ran. Amounts that are due per period are
    prorated by it; amounts that are due per unit and allowances are not (docs/pricing-models.md says why).
    `unit` overrides the meter's words.

    Raises:
        RatingError: `quantity` is negative.
    """
    if quantity < 0:
        raise RatingError("quantity", f"must not be negative, is {quantity}")
    words = unit or unit_of(meter or "requests")
    charge = price.charge(Quantity(units=quantity, unit=words, currency=currency, share=share))
    return [rated_line(charge, description=description, currency=currency)]


def rated_line(charge: Charge, *, description: str, currency: str) -> RatedLine:
    """Return the line of a charge: its exact amount, rounded once, half up.

    Thirds of an amount have no end: two of them and another must still be the whole, so what lies behind the 30th
    decimal, far beyond anything that prices and parts of a period can differ by, is rounded away first.
    """
    exact = _cut(charge.amount)
    return RatedLine(
        description=description,
        formula=charge.formula,
        quantity=charge.quantity,
        unit_amount=charge.unit_amount,
        tiers=tuple([_cut_tier(tier) if tier.flat_amount else tier for tier in charge.tiers]),
        exact_amount=exact,
        amount_minor=round_minor(exact, currency),
        currency=currency,
        notes=charge.notes,
    )


def _cut(amount: Decimal) -> Decimal:
    cut = amount.quantize(_LAST_DECIMAL, ROUND_HALF_UP, EXACT)
    return amount if amount == cut else cut


def _cut_tier(tier: TierUse) -> TierUse:
    return replace(tier, flat_amount=_cut(tier.flat_amount), amount=_cut(tier.amount))


def total_minor(lines: Iterable[RatedLine]) -> int:
    """Return the sum of the lines, each already rounded: an invoice's total is what its lines add up to."""
    return sum(line.amount_minor for line in lines)
