"""What discounts take off the lines of an invoice. Pure.

1. Discounts apply one after the other in the order given; each sees what the earlier ones left of every line.
2. A percentage is taken of the sum of the lines that the discount covers, and rounded once, half up.
3. An amount is taken off each billing period once, however many invoices bill it: the part of it that earlier
   invoices used for that period is gone.
4. A line below zero gives back what its charge had been given: it counts as far as the charge was billed under
   this discount, and no further. So a discount that began later than the charge takes nothing back.
5. What a discount comes to is spread over the lines in proportion, in whole minor units that add up to it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import groupby

from control_plane.billing.discounts.model import (
    AppliedDiscount,
    Charge,
    ChargedLine,
    Discount,
    DiscountShare,
    Taken,
)
from control_plane.foundation.money import CurrencyMixError, Money, round_minor

_WORKING_DIGITS = 100
_HUNDRED = 100


def discounts_on(
    lines: Sequence[ChargedLine], discounts: Sequence[Discount], *, currency: str
) -> tuple[AppliedDiscount, ...]:
    """Return what each discount takes off the lines of one invoice; those that have nothing to do are left out.

    Their sum never exceeds what the lines come to, and no share exceeds its line.

    Raises:
        CurrencyMixError: a discount is an amount in another currency.
    """
    left = [line.amount_minor for line in lines]
    applied: list[AppliedDiscount] = []
    for discount in discounts:
        bases = _bases(lines, left, discount)
        if not bases:
            continue
        if discount.percent is not None:
            shares = _percent_shares(bases, discount.percent, currency)
        else:
            shares = _amount_shares(lines, bases, discount, currency)
        for index, share in shares.items():
            left[index] -= share
        applied.append(
            AppliedDiscount(
                discount_id=discount.id,
                description=discount.name,
                amount_minor=sum(shares.values()),
                shares=tuple(_share(lines[index], index, base, shares[index]) for index, base in bases.items()),
            )
        )
    return tuple(applied)


def discounts_after(discounts: Sequence[Discount], applied: Sequence[AppliedDiscount]) -> tuple[Discount, ...]:
    """Return the discounts as the next invoice of the same subscription finds them, before anything is stored."""
    by_id = {one.discount_id: one for one in applied}
    return tuple(
        _after(discount, by_id[discount.id]) if discount.id in by_id else discount for discount in discounts
    )


def amounts_left(lines: Sequence[ChargedLine], applied: Sequence[AppliedDiscount]) -> list[int]:
    """Return what discounts leave of each line."""
    left = [line.amount_minor for line in lines]
    for discount in applied:
        for share in discount.shares:
            left[share.index] -= share.amount_minor
    return left


def _share(line: ChargedLine, index: int, base: int, amount: int) -> DiscountShare:
    return DiscountShare(
        index=index,
        period_start=line.period_start,
        charge_key=line.charge_key,
        base_minor=base,
        amount_minor=amount,
    )


def _after(discount: Discount, applied: AppliedDiscount) -> Discount:
    taken = dict(discount.taken)
    for share in applied.shares:
        charge = (share.period_start, share.charge_key)
        before = taken.get(charge, Taken())
        taken[charge] = Taken(before.base_minor + share.base_minor, before.taken_minor + share.amount_minor)
    periods = discount.periods_taken | {share.period_start for share in applied.shares if share.base_minor > 0}
    return replace(discount, taken=taken, periods_taken=periods)


def _bases(lines: Sequence[ChargedLine], left: Sequence[int], discount: Discount) -> dict[int, int]:
    """Return, by line, the amount that the discount is reckoned on; lines with nothing are left out."""
    covered = sorted(
        (index for index, line in enumerate(lines) if left[index] and discount.covers(line)),
        key=lambda index: (lines[index].period_start, index),
    )
    periods_left = None if discount.periods is None else discount.periods - len(discount.periods_taken)
    bases: dict[int, int] = {}
    for period_start, group in groupby(covered, key=lambda index: lines[index].period_start):
        found = _bases_of_period(lines, left, list(group), discount)
        if period_start not in discount.periods_taken and periods_left is not None:
            if periods_left <= 0:
                continue
            periods_left -= any(base > 0 for base in found.values())
        bases.update(found)
    return dict(sorted(bases.items()))


def _bases_of_period(
    lines: Sequence[ChargedLine], left: Sequence[int], indexes: Sequence[int], discount: Discount
) -> dict[int, int]:
    billed: dict[Charge, int] = defaultdict(int)
    for charge in {(lines[index].period_start, lines[index].charge_key) for index in indexes}:
        billed[charge] = discount.taken.get(charge, Taken()).base_minor
    bases: dict[int, int] = {}
    # what is charged first, so that a charge and its correction on one invoice meet
    for index in sorted(indexes, key=lambda index: (left[index] < 0, index)):
        charge = (lines[index].period_start, lines[index].charge_key)
        base = max(left[index], -billed[charge])
        billed[charge] += base
        if base:
            bases[index] = base
    return bases


def _percent_shares(bases: Mapping[int, int], percent: Decimal, currency: str) -> dict[int, int]:
    with localcontext(prec=_WORKING_DIGITS):
        total = round_minor(Money(sum(bases.values()), currency).as_decimal() * percent / _HUNDRED, currency)
    ratio = Fraction(percent) / _HUNDRED
    return spread(total, {index: base * ratio for index, base in bases.items()})


def _amount_shares(
    lines: Sequence[ChargedLine], bases: Mapping[int, int], discount: Discount, currency: str
) -> dict[int, int]:
    if discount.currency != currency:
        raise CurrencyMixError(discount.currency or "", currency)
    by_period: dict[datetime, dict[int, int]] = defaultdict(dict)
    for index, base in bases.items():
        by_period[lines[index].period_start][index] = base
    shares: dict[int, int] = {}
    for period_start, of_period in by_period.items():
        before = [taken for (start, _), taken in discount.taken.items() if start == period_start]
        due = sum(taken.base_minor for taken in before) + sum(of_period.values())
        wanted = min(discount.amount_minor or 0, due) - sum(taken.taken_minor for taken in before)
        # what is taken falls on what is charged, what is given back on what is credited
        weights = {index: base if (base > 0) is (wanted > 0) else 0 for index, base in of_period.items()}
        weight = sum(weights.values())
        # never more than the lines; what a correction gave back waits for the next ones
        wanted = min(wanted, weight) if wanted > 0 else max(wanted, weight)
        exact = {
            index: Fraction(wanted * part, weight) if weight else Fraction(0) for index, part in weights.items()
        }
        shares |= spread(wanted, exact)
    return shares


def spread(total: int, exact: Mapping[int, Fraction]) -> dict[int, int]:
    """Return whole parts that add up to `total`, each its exact part rounded down or up.

    `total` is the sum of the exact parts, rounded to a whole number in any way. The largest fractions are rounded
    up; of equal ones, the first.
    """
    parts = {index: part.numerator // part.denominator for index, part in exact.items()}
    fractions = sorted(exact, key=lambda index: (parts[index] - exact[index], index))
    for index in fractions[: total - sum(parts.values())]:
        parts[index] += 1
    return parts
