"""Due minus billed, where Stripe bills: what its rating of a period's use leaves to us, and why. Pure.

What is due is by our rating (`due`); what is billed is what Stripe's final invoices say, what it will say of usage
that it has for a draft, and what we have added or given back before. So whatever happened in between, nothing is
charged twice and nothing is left out. Each difference has a cause; one without is none of ours to mend.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from control_plane.billing.invoices.model import ChargeLine, LineKind
from control_plane.foundation.money import Money
from control_plane.rating.words import MINUS, format_amount, format_units
from control_plane.stripe_sync.invoices.due import Stretch, UsageDue
from control_plane.stripe_sync.invoices.lines import tier_amounts


class Cause(StrEnum):
    """Why we add something to an invoice of Stripe's, or take it off; see `tables.StripeAdjustment`."""

    NOT_NATIVE = "not_native"
    ALLOWANCE = "allowance"
    LATE_USAGE = "late_usage"
    CORRECTION = "correction"
    DISPUTE = "dispute"
    GOODWILL = "goodwill"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtStripe:
    """What Stripe has billed, or will bill, of a charge by itself."""

    units: int = 0
    amount_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjusted:
    """What our adjustments of a charge came to so far, by cause, and the units that they were for."""

    amounts: Mapping[str, int] = field(default_factory=dict)
    units: int = 0

    @property
    def amount_minor(self) -> int:
        return sum(self.amounts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An adjustment that is to be made."""

    line: ChargeLine
    cause: Cause
    amount_minor: int
    units: int
    description: str

    @property
    def details(self) -> dict[str, object]:
        """Return what is kept of how it came about."""
        return {
            "due_minor": self.line.amount_minor,
            "due_units": self.line.used_units,
            "units": self.units,
            "formula": self.line.formula,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Unexplained:
    """An amount that Stripe rates otherwise than we do, for the same units of the same price."""

    line: ChargeLine
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be added to Stripe's rating, and what cannot be told why."""

    wanted: tuple[Wanted, ...] = ()
    unexplained: tuple[Unexplained, ...] = ()


NOTHING_AT_STRIPE = AtStripe()
NOT_ADJUSTED = Adjusted()


def plan_adjustments(
    due: Sequence[UsageDue],
    *,
    native: Collection[str],
    at_stripe: Mapping[str, AtStripe],
    adjusted: Mapping[str, Adjusted],
) -> Plan:
    """Return what is missing to what is due, charge by charge; `native` are the charges that Stripe rates."""
    wanted: list[Wanted] = []
    unexplained: list[Unexplained] = []
    for one in due:
        key = one.line.charge_key
        before = adjusted.get(key, NOT_ADJUSTED)
        if key not in native:
            wanted += _ours(one, before)
            continue
        billed = at_stripe.get(key, NOTHING_AT_STRIPE)
        more, rest = _native(one, billed, before)
        wanted += more
        if rest:
            unexplained.append(Unexplained(line=one.line, amount_minor=rest))
    return Plan(tuple(wanted), tuple(unexplained))


def as_stripe_rates(stretches: Sequence[Stretch], currency: str) -> int:
    """Return what Stripe writes for stretches of a price: each tier is a line, rounded by itself."""
    return sum(amount for one in stretches for _, amount in tier_amounts(one.as_sold, one.units, currency))


def _ours(due: UsageDue, before: Adjusted) -> list[Wanted]:
    """What Stripe does not rate is ours whole; what was known later is late usage, or a correction."""
    missing = due.line.amount_minor - before.amount_minor
    if not missing:
        return []
    units = (due.line.used_units or 0) - before.units
    if not before.amounts:
        cause = Cause.NOT_NATIVE
    else:
        cause = Cause.LATE_USAGE if units > 0 and missing > 0 else Cause.CORRECTION
    return [_wanted(due, cause, missing, units)]


def _native(due: UsageDue, billed: AtStripe, before: Adjusted) -> tuple[list[Wanted], int]:
    as_sold = as_stripe_rates(due.stretches, due.line.currency)
    allowance = due.line.amount_minor - as_sold if due.has_own_allowance else 0
    allowance -= before.amounts.get(Cause.ALLOWANCE, 0)
    other = before.amount_minor - before.amounts.get(Cause.ALLOWANCE, 0)
    rest = as_sold - billed.amount_minor - other
    units = (due.line.used_units or 0) - billed.units - before.units
    wanted = [_wanted(due, Cause.ALLOWANCE, allowance, 0)] if allowance else []
    if rest and not units and not other:
        return wanted, rest
    if rest:
        cause = Cause.LATE_USAGE if units > 0 and rest > 0 else Cause.CORRECTION
        wanted.append(_wanted(due, cause, rest, units))
    return wanted, 0


def _wanted(due: UsageDue, cause: Cause, amount_minor: int, units: int) -> Wanted:
    return Wanted(
        line=due.line,
        cause=cause,
        amount_minor=amount_minor,
        units=units,
        description=_described(due.line, cause, amount_minor, units),
    )


def _described(line: ChargeLine, cause: Cause, amount_minor: int, units: int) -> str:
    """Say on the invoice what it is for: customers read it beside Stripe's own lines."""
    if cause is Cause.NOT_NATIVE:
        return f"{line.description}: {line.formula}" if line.kind is LineKind.USAGE else line.description
    if cause is Cause.ALLOWANCE:
        amount = format_amount(Money(abs(amount_minor), line.currency).as_decimal(), line.currency)
        return f"{line.description}: own allowance, {MINUS if amount_minor < 0 else ''}{amount}"
    if units and line.unit is not None:
        counted = format_units(abs(units), line.unit)
        return f"{line.description}: {counted} {'arrived late' if units > 0 else 'taken back'}"
    return f"{line.description}: corrected"
