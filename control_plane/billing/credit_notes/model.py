"""What a credit note takes back, reckoned from an invoice and the notes before. Pure.

Each line comes back with its part of its own discount, and all lines with their share of the taxes. Shares are
those of all notes together, rounded once, less what the notes before have taken: so notes over the whole of an
invoice take back exactly its discount and its tax, in however many parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Any

from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.foundation.money import Money

MAX_NOTE = 1_000


class Reason(StrEnum):
    """Why something is taken back."""

    CORRECTION = "correction"
    DISPUTE = "dispute"
    GOODWILL = "goodwill"


class CreditExceedsInvoiceError(ConflictError):
    """More would be taken back than the invoice came to, less the notes before."""

    def __init__(self, left_minor: int, currency: str) -> None:
        left = f"{Money(max(0, left_minor), currency)}"
        super().__init__(
            "credit_exceeds_invoice", f"At most {left} of the invoice, tax included, can still be taken back."
        )


class NothingToCreditError(ConflictError):
    """What was named came to nothing."""

    def __init__(self) -> None:
        super().__init__("nothing_to_credit", "What would be taken back comes to nothing.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditedLine:
    """An amount to be taken back of the line at `position` of the invoice; None: what is left of it."""

    position: int
    amount_minor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledLine:
    """A line of an invoice, what discounts took off it, and what notes have taken back of it."""

    position: int
    description: str
    amount_minor: int
    discount_minor: int = 0
    credited_minor: int = 0

    @property
    def left_minor(self) -> int:
        return self.amount_minor - self.credited_minor

    def discount_in(self, amount_minor: int) -> int:
        """Return the part of the line's discount that comes back with its next `amount_minor`."""
        before = _share(self.discount_minor, self.credited_minor, self.amount_minor)
        return _share(self.discount_minor, self.credited_minor + amount_minor, self.amount_minor) - before


@dataclass(frozen=True, slots=True, kw_only=True)
class Credited:
    """What all credit notes of an invoice came to so far. `of_lines_minor`: the part that named lines."""

    of_lines_minor: int = 0
    taxes_minor: tuple[int, ...] = ()
    net_minor: int = 0
    total_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """What an invoice says. `taxes`: as it wrote them down."""

    number: str
    currency: str
    lines: tuple[BilledLine, ...]
    subtotal_minor: int
    discount_minor: int
    taxes: Sequence[Mapping[str, Any]]
    total_minor: int
    credited: Credited = field(default_factory=Credited)

    @property
    def net_minor(self) -> int:
        """Return what is left of the lines after discounts, before tax."""
        return self.subtotal_minor - self.discount_minor

    @property
    def left_minor(self) -> int:
        """Return what notes can still take back."""
        return self.total_minor - self.credited.total_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteLine:
    """A line of a note; `position` is that of the invoice's line, None where it speaks of none."""

    position: int | None
    description: str
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteAmounts:
    """What a note comes to: total = subtotal - discount + taxes."""

    lines: tuple[NoteLine, ...]
    discount_minor: int
    taxes: tuple[dict[str, Any], ...]

    @property
    def subtotal_minor(self) -> int:
        return sum(line.amount_minor for line in self.lines)

    @property
    def tax_minor(self) -> int:
        return sum(tax["amount_minor"] for tax in self.taxes)

    @property
    def total_minor(self) -> int:
        return self.subtotal_minor - self.discount_minor + self.tax_minor


def of_lines(billed: Billed, wanted: Sequence[CreditedLine]) -> NoteAmounts:
    """Return a note over lines, with their share of discount and tax.

    Raises:
        ValidationFailedError: no such line, one twice, one that charged nothing, or more than is left of one.
        CreditExceedsInvoiceError, NothingToCreditError.
    """
    by_position = {line.position: line for line in billed.lines}
    lines: list[NoteLine] = []
    for number, want in enumerate(wanted):
        line = by_position.pop(want.position, None)
        if line is None:
            raise ValidationFailedError(f"lines[{number}].position", "is no line of the invoice, or named twice")
        amount_minor = line.left_minor if want.amount_minor is None else want.amount_minor
        if not 0 < amount_minor <= line.left_minor:
            left = Money(max(0, line.left_minor), billed.currency)
            raise ValidationFailedError(f"lines[{number}].amount_minor", f"must be above 0 and at most {left}")
        lines.append(NoteLine(position=line.position, description=line.description, amount_minor=amount_minor))
    return _with_shares(billed, lines)


def of_everything(billed: Billed) -> NoteAmounts:
    """Return a note over all that is left of every line, also of those that gave something back.

    Raises:
        CreditExceedsInvoiceError: notes before took back amounts that named no lines. NothingToCreditError.
    """
    lines = [
        NoteLine(position=line.position, description=line.description, amount_minor=line.left_minor)
        for line in billed.lines
        if line.left_minor
    ]
    return _with_shares(billed, lines)


def of_amount(billed: Billed, amount_minor: int, *, description: str) -> NoteAmounts:
    """Return a note over an amount that names no line, tax included.

    Raises:
        CreditExceedsInvoiceError, NothingToCreditError.
    """
    if amount_minor > billed.left_minor:
        raise CreditExceedsInvoiceError(billed.left_minor, billed.currency)
    taxes = _tax_shares(billed, billed.credited.total_minor + amount_minor, billed.total_minor)
    net_minor = amount_minor - sum(tax["amount_minor"] for tax in taxes)
    if net_minor <= 0:
        raise NothingToCreditError
    line = NoteLine(position=None, description=description, amount_minor=net_minor)
    return NoteAmounts(lines=(line,), discount_minor=0, taxes=taxes)


def _with_shares(billed: Billed, lines: Sequence[NoteLine]) -> NoteAmounts:
    subtotal_minor = sum(line.amount_minor for line in lines)
    before = billed.credited
    all_lines_minor = before.of_lines_minor + subtotal_minor
    if subtotal_minor <= 0 or billed.subtotal_minor <= 0:
        raise NothingToCreditError
    if all_lines_minor > billed.subtotal_minor:
        raise CreditExceedsInvoiceError(billed.left_minor, billed.currency)
    by_position = {line.position: line for line in billed.lines}
    discount_minor = sum(
        by_position[line.position].discount_in(line.amount_minor) for line in lines if line.position is not None
    )
    net_minor = subtotal_minor - discount_minor
    if net_minor <= 0:
        raise NothingToCreditError
    taxes = _tax_shares(billed, before.net_minor + net_minor, billed.net_minor)
    amounts = NoteAmounts(lines=tuple(lines), discount_minor=discount_minor, taxes=taxes)
    if before.net_minor + net_minor > billed.net_minor or amounts.total_minor > billed.left_minor:
        raise CreditExceedsInvoiceError(billed.left_minor, billed.currency)
    return amounts


def _tax_shares(billed: Billed, part_minor: int, whole_minor: int) -> tuple[dict[str, Any], ...]:
    """Return each tax's share of the part, less what notes before have taken of it."""
    before = billed.credited.taxes_minor or (0,) * len(billed.taxes)
    shares = []
    for tax, taken_minor in zip(billed.taxes, before, strict=True):
        amount_minor = max(0, _share(tax["amount_minor"], part_minor, whole_minor) - taken_minor)
        facts = {name: value for name, value in tax.items() if name != "taxable_minor"}
        shares.append({**facts, "amount_minor": amount_minor})
    return tuple(shares)


def _share(amount_minor: int, part_minor: int, whole_minor: int) -> int:
    """Return part/whole of an amount, half up."""
    if part_minor == whole_minor:
        return amount_minor
    return int((Decimal(amount_minor) * part_minor / whole_minor).to_integral_value(ROUND_HALF_UP))
