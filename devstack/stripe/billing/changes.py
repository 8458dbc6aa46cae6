"""What a change of a subscription costs: credits for unused time, charges for the rest, usage of what goes.

Working it out changes nothing, so a preview and the change itself are the same computation.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from devstack.stripe.billing import discounts
from devstack.stripe.billing.amounts import ZERO, to_minor, total
from devstack.stripe.billing.items import Wanted, period_from
from devstack.stripe.billing.lines import advance_lines, is_metered, make_line, product_name, usage_lines
from devstack.stripe.billing.proration import prorated
from devstack.stripe.billing.totals import Counted, total_up
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


@dataclass
class Change:
    """A change worked out. `lines` become invoice items; `advance` are lines of periods that begin with it."""

    at: int
    wanted: list[Wanted]
    lines: list[Object] = field(default_factory=list)
    advance: list[Object] = field(default_factory=list)
    new_anchor: int | None = None
    invoice_now: bool = False

    @property
    def items(self) -> list[Object]:
        return [one.new for one in self.wanted if one.new is not None]

    @property
    def costs(self) -> list[Object]:
        return self.lines + self.advance


def work_out(
    sim: Simulator,
    sub: Object,
    wanted: Sequence[Wanted],
    *,
    at: int,
    prorate: bool,
    new_anchor: int | None = None,
    until: int | None = None,
    free: bool = False,
) -> Change:
    """`new_anchor`: every period ends at `at` and new ones begin; `until` cuts them there (a trial).

    `free`: nothing is charged ahead (a trial begins or goes on). A period already over at `at` gives no credit.
    """
    change = Change(at, list(wanted), new_anchor=new_anchor)
    was_free = sub["status"] == "trialing"
    shares = _discount_shares(sim, sub, change.items, now=at)
    for one in change.wanted:
        reset = new_anchor is not None
        if one.old is not None and (one.changed or reset):
            _close(
                sim, sub, change, one.old, prorate=prorate and not was_free, bill_usage=not was_free, reset=reset
            )
        if one.new is not None and (one.changed or reset):
            _open(sim, sub, change, one, shares, prorate=prorate, new_anchor=new_anchor, until=until, free=free)
    return change


def _close(
    sim: Simulator, sub: Object, change: Change, old: Object, *, prorate: bool, bill_usage: bool, reset: bool
) -> None:
    if is_metered(old["price"]):
        flexible = sub["billing_mode"]["type"] == "flexible"
        if bill_usage and (flexible or reset) and old["_usage_from"] < change.at:
            used = usage_lines(sim, sub, old, start=old["_usage_from"], end=change.at)
            # what is billed with a change is counted at that moment and stays
            change.lines += [{**line, "_usage": None} for line in used if line["quantity"] or line["amount"]]
        return
    if prorate:
        for debit in old["_debits"]:
            if debit["until"] > change.at:
                change.lines.append(_credit(sim, sub, old, debit, change.at))


def _credit(sim: Simulator, sub: Object, item: Object, debit: Object, at: int) -> Object:
    given = _discounts_of(debit)
    exact: Decimal = debit["exact"]
    return _proration_line(
        sim,
        sub,
        item,
        exact=-exact,
        given=[(one, -amount) for one, amount in given],
        full=(debit["start"], debit["end"]),
        since=at,
        until=debit["until"],
        words="Unused time on",
        credited=_credited(debit),
    )


def _credited(debit: Object) -> Object | None:
    line = debit.get("line")
    if line is None or line["invoice"] is None:
        return None
    return {"invoice": line["invoice"], "invoice_line_items": [line["id"]]}


def _discounts_of(debit: Object) -> list[tuple[str, Decimal]]:
    """What each discount took of the full amount: as the invoice has it, where the debit is a line of one."""
    line = debit.get("line")
    if line is None:
        return list(debit["discounts"])
    if not line["amount"]:
        return []
    exact: Decimal = debit["exact"]
    return [(one["discount"], exact * one["amount"] / line["amount"]) for one in line["discount_amounts"]]


def _open(
    sim: Simulator,
    sub: Object,
    change: Change,
    one: Wanted,
    shares: dict[str, dict[str, int]],
    *,
    prorate: bool,
    new_anchor: int | None,
    until: int | None,
    free: bool,
) -> None:
    item = one.new
    assert item is not None  # noqa: S101 - the caller looked
    at = change.at
    item["_usage_from"] = at if one.old is None or one.changed or new_anchor is not None else item["_usage_from"]
    if new_anchor is not None:
        start, end = (at, until) if until is not None else period_from(new_anchor, item["price"], at)
        item["current_period_start"], item["current_period_end"] = start, end
        item["_debits"] = []
        if not is_metered(item["price"]) and not free:
            begin_period(sim, sub, item, (start, end), change.advance)
        return
    before = item["_debits"]
    item["_debits"] = [{**debit, "until": min(debit["until"], at)} for debit in before] if prorate else before
    if is_metered(item["price"]) or sub["status"] == "trialing" or free or not prorate:
        return
    start, end = item["current_period_start"], item["current_period_end"]
    if end <= at:
        return
    exact = total(item["price"], item["quantity"])
    given = [(name, Decimal(amount)) for name, amount in shares.get(item["id"], {}).items()]
    change.lines.append(
        _proration_line(
            sim,
            sub,
            item,
            exact=exact,
            given=given,
            full=(start, end),
            since=at,
            until=end,
            words="Remaining time on",
            credited=None,
        )
    )
    item["_debits"].append({"exact": exact, "start": start, "end": end, "until": end, "discounts": given})


def begin_period(sim: Simulator, sub: Object, item: Object, period: tuple[int, int], into: list[Object]) -> None:
    """Charge a licensed item for a whole period ahead, and remember it for credits."""
    start, end = period
    made = advance_lines(sim, sub, item, start=start, end=end)
    into += made
    item["_debits"] = [
        {"exact": Decimal(line["amount"]), "start": start, "end": end, "until": end, "discounts": (), "line": line}
        for line in made
    ]
    item["billed_until"] = end


def _proration_line(
    sim: Simulator,
    sub: Object,
    item: Object,
    *,
    exact: Decimal,
    given: Sequence[tuple[str, Decimal]],
    full: tuple[int, int],
    since: int,
    until: int,
    words: str,
    credited: Object | None,
) -> Object:
    """Discounts are inside the amount, or beside it where the billing mode itemises them."""
    start, end = full
    itemised = ((sub["billing_mode"].get("flexible") or {}).get("proration_discounts")) == "itemized"
    fixed = [(one, prorated(amount, start=start, end=end, since=since, until=until)) for one, amount in given]
    if itemised:
        amount = prorated(exact, start=start, end=end, since=since, until=until)
    else:
        net = exact - sum((amount for _, amount in given), ZERO)
        amount = prorated(net, start=start, end=end, since=since, until=until)
    quantity = item["quantity"]
    name = product_name(sim, item["price"])
    many = f"{quantity} × " if quantity != 1 else ""  # noqa: RUF001 - Stripe's sign
    day = f"{datetime.fromtimestamp(since, UTC):%d %b %Y}"
    return make_line(
        sim,
        amount=amount,
        currency=sub["currency"],
        description=f"{words} {many}{name} after {day}",
        period=(since, until),
        quantity=quantity,
        price=item["price"],
        unit_amount=None,
        subscription=sub["id"],
        item=item["id"],
        proration=True,
        credited=credited,
        discountable=False,
        fixed=fixed if itemised else (),
        metadata=sub["metadata"],
        rates=item["tax_rates"] or (),
    )


def _discount_shares(
    sim: Simulator, sub: Object, items: Sequence[Object], *, now: int
) -> dict[str, dict[str, int]]:
    """What the subscription's discounts take of each licensed item over a whole period."""
    licensed = [one for one in items if not is_metered(one["price"])]
    counted = [
        Counted(
            to_minor(total(one["price"], one["quantity"])),
            product=one["price"]["product"],
            own=tuple(
                discounts.arithmetic(sim, name) for name in discounts.in_force(sim, one["discounts"], now=now)
            ),
        )
        for one in licensed
    ]
    on_all = [discounts.arithmetic(sim, one) for one in discounts.in_force(sim, sub["discounts"], now=now)]
    total_up(counted, on_all)
    return {one["id"]: found.discounts for one, found in zip(licensed, counted, strict=True)}
