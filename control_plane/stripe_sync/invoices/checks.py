"""Every final invoice of Stripe's against what it should say, line by line. Pure.

What a line should say follows from what it is for: a fixed price from our catalogue, a proration from Stripe's
seconds, use from what we delivered and our rating, an adjustment from our row. So a check needs nothing that has
changed since, and holds for whatever made the invoice.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from control_plane.stripe_sync.invoices.lines import SoldPrice, Span, metered_lines, prorated
from control_plane.stripe_sync.invoices.totals import DiscountTerms, ExpectedLine, LineKind, add_up


class Difference(StrEnum):
    """Why an amount is another than expected."""

    PRICE = "price"
    PRORATION = "proration"
    USAGE = "usage_not_counted"
    RATING = "rating"
    ADJUSTMENT = "adjustment"
    MISSING = "missing_line"
    UNKNOWN = "unknown_line"
    DISCOUNT = "discount"
    NOT_CHECKED = "not_checked"
    ROUNDING = "rounding"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualLine:
    """A line as Stripe wrote it; `delivered`: what we delivered of its meter in its span, of a metered one."""

    kind: LineKind
    charge_key: str
    item_id: str | None
    adjustment_id: str | None
    description: str
    amount_minor: int
    discount_minor: int
    quantity: int | None
    span: Span
    delivered: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A difference in one thing of an invoice. Rounding of a cent on a line is none that counts."""

    what: str
    cause: Difference
    expected_minor: int
    actual_minor: int

    @property
    def matters(self) -> bool:
        return self.cause is not Difference.ROUNDING

    def as_dict(self) -> dict[str, object]:
        return {
            "what": self.what,
            "cause": self.cause.value,
            "expected_minor": self.expected_minor,
            "actual_minor": self.actual_minor,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFacts:
    """What an invoice is checked by. `period`: Stripe's running period that prorations are parts of.

    `adjustments`: what our items on it come to, by their ids; `must_have`: charges that have to be on it.
    `paid_ahead`: what fixed prices were charged for the whole of that period, after discounts.
    """

    currency: str
    sold: Mapping[str, SoldPrice]
    period: Span
    in_trial: bool = False
    adjustments: Mapping[str, int] = field(default_factory=dict)
    paid_ahead: Mapping[str, int] = field(default_factory=dict)
    must_have: frozenset[str] = frozenset()
    discounts: tuple[DiscountTerms, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was expected, and where the invoice says otherwise. Amounts are before tax, after discounts."""

    expected_minor: int
    actual_minor: int
    differences: tuple[Found, ...]

    @property
    def agrees(self) -> bool:
        return not any(found.matters for found in self.differences)


def check(lines: Sequence[ActualLine], facts: CheckFacts) -> Checked:
    """Return where an invoice's lines and discounts differ from what they should be."""
    expected: list[ExpectedLine] = []
    found: list[Found] = []
    for group in _groups(lines):
        wanted = _wanted(group, facts)
        expected += wanted
        found += _compare(group, wanted)
    found += _missing(lines, facts, expected)
    total = add_up(expected, currency=facts.currency, discounts=facts.discounts)
    discount_minor = sum(line.discount_minor for line in lines)
    if not found and total.discount_minor != discount_minor:
        found.append(
            Found(
                what="discounts",
                cause=Difference.DISCOUNT,
                expected_minor=-total.discount_minor,
                actual_minor=-discount_minor,
            )
        )
    return Checked(
        expected_minor=total.subtotal_minor - total.discount_minor,
        actual_minor=sum(line.amount_minor for line in lines) - discount_minor,
        differences=tuple(found),
    )


def _groups(lines: Sequence[ActualLine]) -> Iterable[list[ActualLine]]:
    """Yield lines that are of one thing: the tiers of a metered price's span, else each by itself."""
    metered: dict[tuple[str, datetime], list[ActualLine]] = defaultdict(list)
    for line in lines:
        if line.kind is LineKind.METERED:
            metered[line.charge_key, line.span.starts_at].append(line)
        else:
            yield [line]
    yield from metered.values()


def _wanted(group: Sequence[ActualLine], facts: CheckFacts) -> list[ExpectedLine]:
    first = group[0]
    price = facts.sold.get(first.charge_key)
    if first.kind is LineKind.ADJUSTMENT:
        amount = facts.adjustments.get(first.adjustment_id or "", 0)
        return [_line(first, amount, price, discountable=amount > 0)]
    if price is None:
        # what is not ours is taken as it stands where it comes to nothing: a carrier, a trial
        return [_line(first, 0, None)]
    if first.kind is LineKind.METERED:
        return metered_lines(price, max(0, first.delivered or 0), first.span, item_id=first.item_id)
    quantity = first.quantity or 1
    if first.kind is LineKind.PRORATION:
        return [_line(first, _prorated(first, price, quantity, facts), price, discountable=False)]
    amount = 0 if facts.in_trial and price.kind is LineKind.FLAT else price.amount_minor * quantity
    return [_line(first, amount, price)]


def _prorated(line: ActualLine, price: SoldPrice, quantity: int, facts: CheckFacts) -> int:
    """Return what a proration comes to: discounts are inside it, and a credit is of what was paid."""
    if line.amount_minor < 0 and line.charge_key in facts.paid_ahead:
        return -prorated(facts.paid_ahead[line.charge_key], line.span, facts.period, facts.currency)
    whole = ExpectedLine(
        kind=LineKind.FLAT,
        charge_key=line.charge_key,
        product_id=price.product_id,
        description="",
        amount_minor=price.amount_minor * quantity,
        starts_at=facts.period.starts_at,
        ends_at=facts.period.ends_at,
        item_id=line.item_id,
    )
    left = add_up([whole], currency=facts.currency, discounts=facts.discounts).lines[0].left_minor
    amount = prorated(left, line.span, facts.period, facts.currency)
    return -amount if line.amount_minor < 0 else amount


def _line(
    line: ActualLine, amount_minor: int, price: SoldPrice | None, *, discountable: bool = True
) -> ExpectedLine:
    return ExpectedLine(
        kind=line.kind,
        charge_key=line.charge_key,
        product_id=None if price is None else price.product_id,
        description=line.description,
        amount_minor=amount_minor,
        starts_at=line.span.starts_at,
        ends_at=line.span.ends_at,
        quantity=line.quantity,
        discountable=discountable,
        item_id=line.item_id,
    )


_CAUSES = {
    LineKind.FLAT: Difference.PRICE,
    LineKind.SETUP_FEE: Difference.PRICE,
    LineKind.PRORATION: Difference.PRORATION,
    LineKind.ADJUSTMENT: Difference.ADJUSTMENT,
    LineKind.OTHER: Difference.UNKNOWN,
    LineKind.METERED: Difference.RATING,
}


def _compare(group: Sequence[ActualLine], wanted: Sequence[ExpectedLine]) -> list[Found]:
    expected, actual = sum(line.amount_minor for line in wanted), sum(line.amount_minor for line in group)
    if expected == actual:
        return []
    cause = _CAUSES[group[0].kind]
    if group[0].kind is LineKind.METERED and sum(line.quantity or 0 for line in group) != group[0].delivered:
        cause = Difference.USAGE
    elif abs(expected - actual) <= len(group) and cause in {Difference.RATING, Difference.PRORATION}:
        cause = Difference.ROUNDING
    return [Found(what=group[0].description, cause=cause, expected_minor=expected, actual_minor=actual)]


def _missing(lines: Sequence[ActualLine], facts: CheckFacts, expected: list[ExpectedLine]) -> list[Found]:
    """Return what has to be on the invoice and is not; it is added to what is expected."""
    present = {line.charge_key for line in lines if line.kind in {LineKind.FLAT, LineKind.PRORATION}}
    adjusted = {line.adjustment_id for line in lines}
    found = []
    for key in sorted(facts.must_have - present):
        price = facts.sold[key]
        amount = 0 if facts.in_trial else price.amount_minor
        if amount:
            found.append(
                Found(what=price.description, cause=Difference.MISSING, expected_minor=amount, actual_minor=0)
            )
            line = ExpectedLine(
                kind=LineKind.FLAT,
                charge_key=key,
                product_id=price.product_id,
                description=price.description,
                amount_minor=amount,
                starts_at=facts.period.starts_at,
                ends_at=facts.period.ends_at,
            )
            expected.append(line)
    for adjustment_id, amount in facts.adjustments.items():
        if adjustment_id not in adjusted:
            found.append(
                Found(
                    what=f"adjustment {adjustment_id}",
                    cause=Difference.MISSING,
                    expected_minor=amount,
                    actual_minor=0,
                )
            )
    return found
