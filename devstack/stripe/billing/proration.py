"""Shares of an amount by time, to the second, rounded once."""

from decimal import Decimal

from devstack.stripe.billing.amounts import to_minor


def prorated(exact: Decimal, *, start: int, end: int, since: int, until: int | None = None) -> int:
    """What `exact`, charged for [start, end), comes to for the part of it in [since, until)."""
    until = end if until is None else until
    share = max(0, min(until, end) - max(since, start))
    return to_minor(exact * share / (end - start)) if end > start else 0


def spread(amount: int, weights: list[int]) -> list[int]:
    """Split an amount in proportion to weights without losing a unit: the largest remainders get what is left."""
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    shares = [amount * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda at: (-(amount * weights[at] % whole), at))
    for at in order[: amount - sum(shares)]:
        shares[at] += 1
    return shares
