"""The lines that Stripe writes for what we sell there. Pure; minor units, and Stripe's own seconds."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from control_plane.foundation.money import Money, round_minor
from control_plane.rating.model import EXACT, Charge, Quantity
from control_plane.rating.versions import VersionPrice
from control_plane.rating.words import TIMES
from control_plane.stripe_sync.invoices.totals import ExpectedLine, LineKind

SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Span:
    """[starts_at, ends_at) at Stripe: whole seconds."""

    starts_at: datetime
    ends_at: datetime

    @property
    def seconds(self) -> int:
        return (self.ends_at - self.starts_at) // SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class SoldPrice:
    """A price of ours at Stripe. `amount_minor`: each of a fixed one; `rated`: how a metered one is charged."""

    kind: LineKind
    charge_key: str
    price_id: str
    product_id: str
    currency: str
    description: str
    amount_minor: int = 0
    rated: VersionPrice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A price on a subscription. `item_id` None: it is not there yet."""

    price: SoldPrice
    quantity: int = 1
    item_id: str | None = None


@dataclass(frozen=True, slots=True)
class Debit:
    """What was charged ahead of a fixed price: `amount_minor`, after discounts, is for the whole of `span`."""

    amount_minor: int
    span: Span


def fixed_line(item: Item, span: Span, *, in_trial: bool = False) -> ExpectedLine:
    """Return what is charged in advance for a whole period, or once for a setup fee; nothing in a trial."""
    price = item.price
    return ExpectedLine(
        kind=price.kind,
        charge_key=price.charge_key,
        product_id=price.product_id,
        description=price.description,
        amount_minor=0 if in_trial else price.amount_minor * item.quantity,
        starts_at=span.starts_at,
        ends_at=span.ends_at,
        quantity=item.quantity,
        item_id=item.item_id,
    )


def credit_line(item: Item, debit: Debit, *, since: datetime) -> ExpectedLine:
    """Return what is given back of what was charged in advance when its price goes at a moment.

    It is of what was paid, after discounts; so no discount has a part in it.
    """
    left = Span(max(since, debit.span.starts_at), debit.span.ends_at)
    amount = -prorated(debit.amount_minor, left, debit.span, item.price.currency)
    return _proration(item, left, amount, f"Unused time on {_of(item)}")


def debit_line(item: Item, span: Span, *, since: datetime, discount_minor: int = 0) -> ExpectedLine:
    """Return what a fixed price costs that comes within a period, for what is left of it.

    `discount_minor`: what discounts take off it in a whole period; they are inside the line.
    """
    left = Span(since, span.ends_at)
    whole = item.price.amount_minor * item.quantity - discount_minor
    return _proration(
        item, left, prorated(whole, left, span, item.price.currency), f"Remaining time on {_of(item)}"
    )


def prorated(amount_minor: int, part: Span, whole: Span, currency: str) -> int:
    """Return the part of an amount by Stripe's seconds, rounded once, half up."""
    major = Money(amount_minor, currency).as_decimal()
    share = EXACT.multiply(major, Decimal(part.seconds))
    return round_minor(EXACT.divide(share, Decimal(whole.seconds)), currency)


def metered_lines(price: SoldPrice, units: int, span: Span, *, item_id: str | None = None) -> list[ExpectedLine]:
    """Return what Stripe writes for units of a metered price: a line for each tier reached, each rounded once.

    Nothing used is a line of nothing.
    """
    if price.rated is None:
        raise ValueError(f"{price.price_id} is not metered")
    used = Quantity(units=units, unit=price.rated.unit, currency=price.currency)
    charge = price.rated.price.charge(used)
    return [
        ExpectedLine(
            kind=LineKind.METERED,
            charge_key=price.charge_key,
            product_id=price.product_id,
            description=price.description,
            amount_minor=amount_minor,
            starts_at=span.starts_at,
            ends_at=span.ends_at,
            quantity=quantity,
            item_id=item_id,
        )
        for quantity, amount_minor in tier_amounts(charge, units, price.currency)
    ]


def tier_amounts(charge: Charge, units: int, currency: str) -> Iterable[tuple[int, int]]:
    """Yield units and amount of each of Stripe's lines for what our rating charges."""
    if not charge.tiers:
        yield units, round_minor(charge.amount, currency)
    for tier in charge.tiers:
        yield tier.quantity, round_minor(tier.amount, currency)


def _proration(item: Item, span: Span, amount_minor: int, description: str) -> ExpectedLine:
    return ExpectedLine(
        kind=LineKind.PRORATION,
        charge_key=item.price.charge_key,
        product_id=item.price.product_id,
        description=description,
        amount_minor=amount_minor,
        starts_at=span.starts_at,
        ends_at=span.ends_at,
        quantity=item.quantity,
        discountable=False,
        item_id=item.item_id,
    )


def _of(item: Item) -> str:
    return f"{item.quantity} {TIMES} {item.price.description}"
