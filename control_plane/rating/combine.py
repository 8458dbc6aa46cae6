"""Putting charges of one price together into one, as its line shows it."""

from collections.abc import Sequence
from itertools import chain

from control_plane.rating.model import EXACT, ZERO, Charge


def combine(charges: Sequence[Charge]) -> Charge:
    """Return one charge for at least one; a single one as it is."""
    if len(charges) == 1:
        return charges[0]
    shown = [charge for charge in charges if charge.quantity] or charges[:1]
    amount = ZERO
    for charge in charges:
        amount = EXACT.add(amount, charge.amount)
    prices = {charge.unit_amount for charge in shown}
    return Charge(
        formula=" + ".join(charge.formula for charge in shown),
        quantity=sum(charge.quantity for charge in shown),
        unit_amount=prices.pop() if len(prices) == 1 else None,
        amount=amount,
        tiers=tuple(chain.from_iterable(charge.tiers for charge in shown)),
        notes=tuple(dict.fromkeys(chain.from_iterable(charge.notes for charge in charges))),
    )
