"""The lines of Stripe's next invoice of a subscription, at whatever makes it. Pure; `totals.add_up` adds them up.

Stripe charges fixed prices ahead and use behind. A change within a period gives back what is unused of each fixed
price that goes, charges what is left of each that comes, both by the second, and bills at once what a metered
price that goes has counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from control_plane.stripe_sync.invoices.lines import (
    Debit,
    Item,
    Span,
    credit_line,
    debit_line,
    fixed_line,
    metered_lines,
)
from control_plane.stripe_sync.invoices.totals import DiscountTerms, ExpectedLine, LineKind, add_up


class InvoiceEvent(StrEnum):
    """What makes an invoice: a period's end, a change at once, an end at once, a first purchase."""

    PERIOD_END = "period_end"
    CHANGE = "change"
    CANCEL_NOW = "cancel_now"
    START = "start"


@dataclass(frozen=True, slots=True)
class Use:
    """What a metered price has counted since Stripe billed it last, or since it came."""

    units: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A subscription at Stripe, and what it has been charged so far, by charge.

    `span`: its running period. `debits`: what its fixed prices were charged ahead. `uses`: of metered ones.
    `in_trial`: nothing has been charged, and use in it costs nothing.
    """

    currency: str
    span: Span
    items: tuple[Item, ...]
    debits: Mapping[str, Debit] = field(default_factory=dict)
    uses: Mapping[str, Use] = field(default_factory=dict)
    discounts: tuple[DiscountTerms, ...] = ()
    in_trial: bool = False


def period_end_lines(
    standing: Standing,
    *,
    next_items: Sequence[Item],
    next_span: Span,
    others: Iterable[ExpectedLine] = (),
) -> list[ExpectedLine]:
    """Return the lines at the period's end: what was used of it, and fixed prices of the next.

    `next_items` are those of the next period, none where the subscription ends. `others`: adjustments of ours, and
    what else waits for an invoice.
    """
    return [
        *_usage(standing, standing.items, until=standing.span.ends_at, also_unused=True),
        *(fixed_line(item, next_span) for item in next_items if item.price.kind is LineKind.FLAT),
        *others,
    ]


def change_lines(
    standing: Standing, items: Sequence[Item], *, at: datetime, others: Iterable[ExpectedLine] = ()
) -> list[ExpectedLine]:
    """Return the lines of a change to other items within the period, made at a moment of Stripe's clock."""
    gone = [item for item in standing.items if not _stays(item, items)]
    come = [item for item in items if not _stays(item, standing.items)]
    if standing.in_trial:
        return list(others)
    unused = [
        credit_line(item, standing.debits[item.price.charge_key], since=at)
        for item in gone
        if item.price.charge_key in standing.debits
    ]
    shares = discount_shares(items, standing)
    debits = [
        debit_line(item, standing.span, since=at, discount_minor=shares.get(item.price.charge_key, 0))
        for item in come
        if item.price.kind is LineKind.FLAT
    ]
    return [*_usage(standing, gone, until=at, also_unused=False), *unused, *debits, *others]


def cancel_now_lines(standing: Standing, *, at: datetime) -> list[ExpectedLine]:
    """Return the lines of an end at once: what was used. Nothing paid ahead is given back."""
    return _usage(standing, standing.items, until=at, also_unused=False)


def start_lines(
    items: Sequence[Item], *, span: Span, fees: Sequence[Item] = (), in_trial: bool = False
) -> list[ExpectedLine]:
    """Return the lines of a first purchase: fixed prices ahead, nothing of them in a trial, and fees once."""
    fixed = [item for item in items if item.price.kind is LineKind.FLAT]
    once = Span(span.starts_at, span.starts_at)
    return [
        *(fixed_line(item, span, in_trial=in_trial) for item in fixed),
        *(fixed_line(item, once) for item in fees),
    ]


def discount_shares(items: Sequence[Item], standing: Standing) -> dict[str, int]:
    """Return what discounts take off each fixed price in a whole period: prorations have it inside."""
    whole = [fixed_line(item, standing.span) for item in items if item.price.kind is LineKind.FLAT]
    added = add_up(whole, currency=standing.currency, discounts=standing.discounts)
    return {line.charge_key: line.discount_minor for line in added.lines}


def _usage(standing: Standing, items: Iterable[Item], *, until: datetime, also_unused: bool) -> list[ExpectedLine]:
    """Return the lines of metered items; of nothing used there is none, but at a period's end."""
    if standing.in_trial:
        return []
    found: list[ExpectedLine] = []
    for item in items:
        if item.price.kind is not LineKind.METERED:
            continue
        use = standing.uses.get(item.price.charge_key, Use(0, standing.span.starts_at))
        lines = metered_lines(item.price, use.units, Span(use.since, until), item_id=item.item_id)
        found += lines if also_unused else [line for line in lines if line.quantity or line.amount_minor]
    return found


def _stays(item: Item, among: Iterable[Item]) -> bool:
    return any(one.price.price_id == item.price.price_id and one.quantity == item.quantity for one in among)
