"""What the lines of an invoice come to: discounts in their order, then taxes, then the customer's balance."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from devstack.stripe.billing.amounts import to_minor
from devstack.stripe.billing.proration import spread

HUNDRED = Decimal(100)

SMALLEST_CHARGE = {"usd": 50, "eur": 50, "gbp": 30, "jpy": 50, "cad": 50, "aud": 50, "chf": 50}
"""Stripe charges no card for less; such an amount waits on the customer's balance. Others: one unit."""


@dataclass(frozen=True)
class Discounting:
    """A discount as arithmetic. `products` None: all of them."""

    id: str
    percent: Decimal | None = None
    amount: int = 0
    products: frozenset[str] | None = None


@dataclass(frozen=True)
class Taxing:
    """One tax on a line; `percent` of what is left after discounts."""

    rate_id: str
    percent: Decimal
    inclusive: bool = False
    reason: str = "standard_rated"


@dataclass
class Counted:
    """A line on its way to a total. `fixed` are discounts that stand already (prorations that itemise them)."""

    amount: int
    product: str | None = None
    discountable: bool = True
    own: tuple[Discounting, ...] = ()
    fixed: tuple[tuple[str, int], ...] = ()
    taxing: tuple[Taxing, ...] = ()
    discounts: dict[str, int] = field(default_factory=dict)
    taxes: list[tuple[Taxing, int, int]] = field(default_factory=list)
    """Tax, its amount, what it was taken of."""

    @property
    def left(self) -> int:
        return self.amount - sum(self.discounts.values())


@dataclass(frozen=True)
class Totals:
    subtotal: int
    discount: int
    exclusive_tax: int
    inclusive_tax: int

    @property
    def total(self) -> int:
        return self.subtotal - self.discount + self.exclusive_tax

    @property
    def total_excluding_tax(self) -> int:
        return self.subtotal - self.discount - self.inclusive_tax


def total_up(lines: Sequence[Counted], discounts: Sequence[Discounting]) -> Totals:
    """Fill in each line's discounts and taxes, and add up. A line's own discounts go before the invoice's."""
    for line in lines:
        line.discounts = dict(line.fixed)
        for own in line.own:
            _discount([line], own)
    for one in discounts:
        _discount([line for line in lines if line.discountable and not line.own], one)
    _tax(lines)
    taxes = [(taxing, amount) for line in lines for taxing, amount, _ in line.taxes]
    return Totals(
        subtotal=sum(line.amount for line in lines),
        discount=sum(sum(line.discounts.values()) for line in lines),
        exclusive_tax=sum(amount for taxing, amount in taxes if not taxing.inclusive),
        inclusive_tax=sum(amount for taxing, amount in taxes if taxing.inclusive),
    )


def _discount(lines: Sequence[Counted], one: Discounting) -> None:
    """Taken once of what the lines it covers have left, then split over them."""
    covered = [line for line in lines if line.left > 0 and (one.products is None or line.product in one.products)]
    base = sum(line.left for line in covered)
    whole = min(one.amount, base) if one.percent is None else to_minor(base * one.percent / HUNDRED)
    for line, share in zip(covered, spread(whole, [line.left for line in covered]), strict=True):
        line.discounts[one.id] = line.discounts.get(one.id, 0) + share


def _tax(lines: Sequence[Counted]) -> None:
    """Each tax once on the sum of its lines, then split; credits lower it."""
    for line in lines:
        line.taxes = []
    rates = {taxing: None for line in lines for taxing in line.taxing}
    for taxing in rates:
        taxed = [line for line in lines if taxing in line.taxing]
        base = sum(line.left for line in taxed)
        divisor = HUNDRED + taxing.percent if taxing.inclusive else HUNDRED
        whole = to_minor(base * taxing.percent / divisor)
        shares = _signed_spread(whole, [line.left for line in taxed])
        for line, share in zip(taxed, shares, strict=True):
            of = line.left - share if taxing.inclusive else line.left
            line.taxes.append((taxing, share, of))


def _signed_spread(whole: int, weights: list[int]) -> list[int]:
    if all(weight >= 0 for weight in weights):
        return spread(whole, weights)
    # credits among the lines: each by itself, and what rounding leaves goes to the largest
    base = sum(weights)
    shares = [to_minor(Decimal(whole * weight) / base) if base else 0 for weight in weights]
    if shares:
        largest = max(range(len(weights)), key=lambda at: abs(weights[at]))
        shares[largest] += whole - sum(shares)
    return shares


@dataclass(frozen=True)
class Settled:
    """What is to be paid once the customer's balance had its part. Negative balances are credits."""

    amount_due: int
    ending_balance: int


def settle(total: int, *, balance: int, currency: str) -> Settled:
    """A negative total and an amount too small to charge go to the balance."""
    due = total + balance
    if due <= 0:
        return Settled(0, due)
    if due < SMALLEST_CHARGE.get(currency, 1):
        return Settled(0, due)
    return Settled(due, 0)
