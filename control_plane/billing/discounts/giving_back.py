"""Discounts of which correcting credit notes took a part back: that part can be given again. Nothing here commits.

A correction lowers what was billed, so what is still due comes with a later invoice, under the same discounts.
What they took off the first invoice counts only as far as the customer still has it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.discounts.model import Charge, Taken
from control_plane.billing.discounts.stacking import spread
from control_plane.billing.discounts.tables import DiscountUse


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedLine:
    """A line of an invoice, what still counts as billed of it, and what of that is taken back."""

    charge: Charge
    billed_minor: int
    taken_back_minor: int


async def give_room_back(
    session: AsyncSession, *, invoice_id: str, lines: Iterable[CorrectedLine], discount_minor: int
) -> None:
    """Note that correcting these lines took back so much of the invoice's discounts; the account is locked."""
    statement = (
        select(DiscountUse)
        .where(DiscountUse.invoice_id == invoice_id)
        .order_by(DiscountUse.discount_id, DiscountUse.period_start, DiscountUse.charge_key)
        .execution_options(populate_existing=True)
    )
    rows = list(await session.scalars(statement))
    uses = [((row.period_start, row.charge_key), Taken(row.base_minor, row.amount_minor)) for row in rows]
    for row, left in zip(rows, left_of_uses(uses, lines, discount_minor=discount_minor), strict=True):
        row.base_minor, row.amount_minor = left.base_minor, left.taken_minor


def left_of_uses(
    uses: Collection[tuple[Charge, Taken]], lines: Iterable[CorrectedLine], *, discount_minor: int
) -> list[Taken]:
    """Return what is left of each use of an invoice's discounts, in their order. Pure.

    The part that comes back is that of the corrected lines, as far as it goes; the rest, that of the others: a
    note takes its share of all discounts of the invoice, whichever lines it names.
    """
    parts = _parts_taken_back(lines)
    amounts = {index: taken.taken_minor for index, (_, taken) in enumerate(uses)}
    named = {index: amounts[index] for index, (charge, _) in enumerate(uses) if charge in parts}
    cuts: dict[int, int] = {}
    for group in (named, {index: amount for index, amount in amounts.items() if index not in named}):
        cuts |= _cuts(group, discount_minor - sum(cuts.values()))
    return [
        Taken(
            taken.base_minor - round(taken.base_minor * parts.get(charge, Fraction(0))),
            taken.taken_minor - cuts.get(index, 0),
        )
        for index, (charge, taken) in enumerate(uses)
    ]


def _parts_taken_back(lines: Iterable[CorrectedLine]) -> Mapping[Charge, Fraction]:
    billed: dict[Charge, int] = {}
    taken_back: dict[Charge, int] = {}
    for line in lines:
        billed[line.charge] = billed.get(line.charge, 0) + line.billed_minor
        taken_back[line.charge] = taken_back.get(line.charge, 0) + line.taken_back_minor
    return {charge: Fraction(taken_back[charge], amount) for charge, amount in billed.items() if amount}


def _cuts(amounts: Mapping[int, int], wanted: int) -> dict[int, int]:
    """Return parts of these amounts, in proportion, that come to what is wanted, or to all that there is."""
    given = {index: amount for index, amount in amounts.items() if amount > 0}
    total = sum(given.values())
    cut = min(max(0, wanted), total)
    return spread(cut, {index: Fraction(cut * amount, total) for index, amount in given.items()})
