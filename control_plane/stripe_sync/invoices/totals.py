"""What lines come to on an invoice of Stripe's: discounts, tax, the customer's balance. Pure.

As Stripe does it, not as our own invoices do (billing.discounts): each discount is reckoned once, in its order, on
what the lines that it covers have left, and split over them without losing a cent; lines below zero have no part
in it. Tax comes after discounts, once for each rate. Then the balance pays, and what is too small to be charged
waits on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from control_plane.billing.discounts.stacking import spread
from control_plane.foundation.money import Money, round_minor
from control_plane.rating.model import EXACT

HUNDRED = Decimal(100)
# https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts
SMALLEST_CHARGE_MINOR = {"USD": 50, "EUR": 50, "GBP": 30, "JPY": 50, "CAD": 50, "AUD": 50, "CHF": 50}


class LineKind(StrEnum):
    """What a line of Stripe's is for; see `tables.StripeInvoiceLine`."""

    FLAT = "flat"
    METERED = "metered"
    SETUP_FEE = "setup_fee"
    PRORATION = "proration"
    ADJUSTMENT = "adjustment"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedLine:
    """A line as Stripe will write it, for [starts_at, ends_at) by Stripe's clock. `exact_minor` was rounded once.

    `charge_key`: the price that it is for. `cause`: of an adjustment of ours. `discount_minor`: its part of what
    discounts take off.
    """

    kind: LineKind
    charge_key: str
    product_id: str | None
    description: str
    amount_minor: int
    starts_at: datetime
    ends_at: datetime
    quantity: int | None = None
    discountable: bool = True
    discount_minor: int = 0
    item_id: str | None = None
    cause: str = ""

    @property
    def left_minor(self) -> int:
        return self.amount_minor - self.discount_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscountTerms:
    """A discount at Stripe. `products` None: it covers all. `item_id`: it is on one item only, and goes first."""

    id: str
    name: str
    percent: Decimal | None = None
    amount_minor: int = 0
    products: frozenset[str] | None = None
    item_id: str | None = None

    def covers(self, line: ExpectedLine) -> bool:
        if not line.discountable or line.left_minor <= 0:
            return False
        if self.item_id is not None and line.item_id != self.item_id:
            return False
        return self.products is None or line.product_id in self.products


@dataclass(frozen=True, slots=True)
class TaxTerms:
    """A tax rate that Stripe puts on every line."""

    name: str
    percent: Decimal
    inclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedInvoice:
    """What an invoice of Stripe's will say. Minor units.

    `tax_minor` is what tax adds, None where it is not known before Stripe reckons it; the total is then without.
    `balance_minor` is what the customer's balance pays of the total (below zero: what is added to it).
    """

    currency: str
    lines: tuple[ExpectedLine, ...]
    discounts: Mapping[str, int] = field(default_factory=dict)
    tax_minor: int | None = 0
    included_tax_minor: int = 0
    balance_minor: int = 0

    @property
    def subtotal_minor(self) -> int:
        return sum(line.amount_minor for line in self.lines)

    @property
    def discount_minor(self) -> int:
        return sum(self.discounts.values())

    @property
    def total_minor(self) -> int:
        return self.subtotal_minor - self.discount_minor + (self.tax_minor or 0)

    @property
    def amount_due_minor(self) -> int:
        return max(0, self.total_minor - self.balance_minor)


def add_up(
    lines: Sequence[ExpectedLine],
    *,
    currency: str,
    discounts: Sequence[DiscountTerms] = (),
    taxes: Sequence[TaxTerms] | None = (),
    balance_minor: int = 0,
) -> ExpectedInvoice:
    """Return what the lines come to.

    `taxes` None: Stripe reckons them, nobody else can. `balance_minor`: the customer's at Stripe, below zero a
    credit.
    """
    taken: dict[str, int] = {}
    found = list(lines)
    for discount in sorted(discounts, key=lambda one: one.item_id is None):
        found, amount = _discounted(found, discount, currency)
        if amount:
            taken[discount.name] = taken.get(discount.name, 0) + amount
    left = sum(line.left_minor for line in found)
    added = sum(_tax(left, tax, currency) for tax in taxes or () if not tax.inclusive)
    total = left + added
    return ExpectedInvoice(
        currency=currency,
        lines=tuple(found),
        discounts=taken,
        tax_minor=None if taxes is None else added,
        included_tax_minor=sum(_tax(left, tax, currency) for tax in taxes or () if tax.inclusive),
        balance_minor=_balance_pays(total, balance_minor, currency),
    )


def after_discounts(amount_minor: int, *, charged_minor: int, discount_minor: int) -> int:
    """Return the part of what is taken back (below zero) that discounts had left of what was charged."""
    if charged_minor <= 0 or not discount_minor:
        return amount_minor
    exact = Fraction(-amount_minor * (charged_minor - discount_minor), charged_minor)
    return -int(exact + Fraction(1, 2))


def percent_of(amount_minor: int, percent: Decimal, currency: str, *, of: Decimal = HUNDRED) -> int:
    """Return a part of an amount, rounded once, half up."""
    part = EXACT.multiply(Money(amount_minor, currency).as_decimal(), percent)
    return round_minor(EXACT.divide(part, of), currency)


def _discounted(
    lines: list[ExpectedLine], discount: DiscountTerms, currency: str
) -> tuple[list[ExpectedLine], int]:
    covered = {index: line.left_minor for index, line in enumerate(lines) if discount.covers(line)}
    base = sum(covered.values())
    if discount.percent is None:
        amount = min(discount.amount_minor, base)
    else:
        amount = percent_of(base, discount.percent, currency)
    shares = spread(amount, {index: Fraction(amount * left, base) for index, left in covered.items()})
    return [
        replace(line, discount_minor=line.discount_minor + shares[index]) if index in shares else line
        for index, line in enumerate(lines)
    ], amount


def _tax(left_minor: int, tax: TaxTerms, currency: str) -> int:
    return percent_of(left_minor, tax.percent, currency, of=HUNDRED + tax.percent if tax.inclusive else HUNDRED)


def _balance_pays(total_minor: int, balance_minor: int, currency: str) -> int:
    due = total_minor + balance_minor
    if due < SMALLEST_CHARGE_MINOR.get(currency, 1):
        return total_minor
    return -balance_minor
