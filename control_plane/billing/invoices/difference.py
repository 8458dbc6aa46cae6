"""Due minus billed: the lines that an invoice needs so that everything due is charged, once. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal

from control_plane.billing.invoices.model import Billed, ChargeLine, LineKind
from control_plane.foundation.money import Money
from control_plane.rating.model import EXACT, Share
from control_plane.rating.words import MINUS, format_amount, format_share, format_units

ZERO = Decimal(0)


def difference(due: Iterable[ChargeLine], billed: Mapping[str, Billed]) -> list[ChargeLine]:
    """Return the lines of one billing period: what is due less what was billed, by charge key.

    What was never billed comes as it is due, also when it comes to nothing; of the rest only what differs, in
    words that say what was billed before and why that has changed. What was billed and is not due any more is
    given back.
    """
    lines: list[ChargeLine] = []
    seen: set[str] = set()
    for line in due:
        seen.add(line.charge_key)
        before = billed.get(line.charge_key)
        if before is None:
            lines.append(line)
        elif line.amount_minor != before.amount_minor:
            lines.append(_correction(line, before))
    for key, before in billed.items():
        if key not in seen and before.amount_minor:
            lines.append(_correction(_nothing_due(before), before))
    return lines


def counts(lines: Iterable[ChargeLine]) -> bool:
    """Say whether any line comes to something: an invoice without such a line is not made."""
    return any(line.amount_minor for line in lines)


def _nothing_due(before: Billed) -> ChargeLine:
    return replace(
        before.first,
        formula="nothing is due",
        used_units=None if before.first.used_units is None else 0,
        quantity=0,
        exact_amount=ZERO,
        amount_minor=0,
        covered_ms=0,
        tiers=(),
    )


def _correction(due: ChargeLine, before: Billed) -> ChargeLine:
    currency = due.currency
    billed = format_amount(Money(before.amount_minor, currency).as_decimal(), currency)
    units = None if due.used_units is None else due.used_units - before.used_units
    quantity = due.quantity - before.quantity
    exact = EXACT.subtract(due.exact_amount, before.exact_amount)
    by_unit = due.unit_amount is not None and EXACT.multiply(due.unit_amount, Decimal(quantity)) == exact
    return replace(
        due,
        description=_described(due, before, units),
        formula=f"{due.formula} {MINUS} {billed} billed before",
        used_units=units,
        quantity=quantity if by_unit else 1,
        unit_amount=due.unit_amount if by_unit else None,
        exact_amount=exact,
        amount_minor=due.amount_minor - before.amount_minor,
        covered_ms=due.covered_ms - before.covered_ms,
        tiers=(),
        corrects={
            "amount_minor": before.amount_minor,
            "used_units": before.used_units,
            "due_minor": due.amount_minor,
            "due_used_units": due.used_units,
            "quantity": quantity,
        },
    )


def _described(due: ChargeLine, before: Billed, units: int | None) -> str:
    """Say why the charge is another than it was."""
    time_ms = due.covered_ms - before.covered_ms
    if due.kind is LineKind.RECURRING and time_ms:
        words = "Unused time on" if time_ms < 0 else "More time on"
        return f"{words} {due.plan_name}, {format_share(Share(abs(time_ms), due.period_ms))}"
    if due.kind is LineKind.USAGE and units and due.unit is not None:
        counted = format_units(abs(units), due.unit)
        return f"{due.description}: {counted} {'arrived late' if units > 0 else 'taken back'}"
    return f"{due.description}: corrected"
