"""From prices and quantities to invoice lines: the one place where amounts are rounded."""

from collections.abc import Iterable

from control_plane.foundation.money import round_minor
from control_plane.rating.model import WHOLE_PERIOD, PriceModel, Quantity, RatedLine, RatingError, Share, Unit
from control_plane.rating.words import unit_of


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
    return [
        RatedLine(
            description=description,
            formula=charge.formula,
            quantity=charge.quantity,
            unit_amount=charge.unit_amount,
            tiers=charge.tiers,
            exact_amount=charge.amount,
            amount_minor=round_minor(charge.amount, currency),
            currency=currency,
        )
    ]


def total_minor(lines: Iterable[RatedLine]) -> int:
    """Return the sum of the lines, each already rounded: an invoice's total is what its lines add up to."""
    return sum(line.amount_minor for line in lines)
