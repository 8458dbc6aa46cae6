"""Putting charges of one price together into one, as its line shows it."""

from collections.abc import Iterable
from itertools import chain

from control_plane.rating.model import EXACT, Charge


def combine(charges: Iterable[Charge]) -> Charge:
    """Return one charge for at least one; a single one as it is."""
    first, *others = charges
    if not others:
        return first
    every = [charge for charge in (first, *others) if charge.quantity] or [first]
    amount = first.amount
    for charge in others:
        amount = EXACT.add(amount, charge.amount)
    prices = {charge.unit_amount for charge in every}
    return Charge(
        formula=" + ".join(charge.formula for charge in every),
        quantity=sum(charge.quantity for charge in every),
        unit_amount=prices.pop() if len(prices) == 1 else None,
        amount=amount,
        tiers=tuple(chain.from_iterable(charge.tiers for charge in every)),
    )
