"""Why a line costs what it costs, in sentences that a customer can check by hand."""

from collections.abc import Iterable, Mapping
from decimal import ROUND_DOWN, Decimal
from typing import Any

from control_plane.foundation.money import Money
from control_plane.rating.graduated import Graduated
from control_plane.rating.model import EXACT, Allowance, PriceModel, RatedLine, TierUse, Unit
from control_plane.rating.overage import Overage
from control_plane.rating.package import Package
from control_plane.rating.volume import Volume
from control_plane.rating.words import TIMES, format_amount, format_share, format_units

_SHOWN_DECIMALS = 12
_CUT = Decimal("0.000001")
_UNNAMED = Unit(singular="unit", plural="units")


def explain_line(line: RatedLine, *, used_units: int | None = None, unit: Unit | None = None) -> tuple[str, ...]:
    """Return the sentences for a line as it was rated; `unit` and `used_units` where it has a meter."""
    return explain(
        formula=line.formula,
        exact_amount=line.exact_amount,
        amount_minor=line.amount_minor,
        currency=line.currency,
        used_units=used_units,
        unit=unit,
        tiers=line.tiers,
        notes=line.notes,
    )


def explain(
    *,
    formula: str,
    exact_amount: Decimal,
    amount_minor: int,
    currency: str,
    used_units: int | None = None,
    unit: Unit | None = None,
    tiers: Iterable[TierUse] = (),
    notes: Iterable[str] = (),
    due_minor: int | None = None,
) -> tuple[str, ...]:
    """Return how an amount came about, the sum first: formula, rounding, what was counted, tiers, notes.

    It takes what an invoice keeps of a line, so that one explains itself years later. `due_minor`: of a line that
    corrects earlier ones, what is due in all; its formula says what was billed before. Pure.
    """
    sentences = [_sum(formula, exact_amount, amount_minor, currency, due_minor)]
    if used_units is not None and unit is not None and due_minor is None:
        were = "was" if used_units == 1 else "were"
        sentences.append(f"{format_units(used_units, unit)} {were} counted.")
    tiers = tuple(tiers)
    if len(tiers) > 1:
        sentences += [_tier(tier, unit or _UNNAMED, currency) for tier in tiers]
    return (*sentences, *notes)


def kept_tiers(values: Iterable[Mapping[str, Any]]) -> tuple[TierUse, ...]:
    """Return the tiers that an invoice keeps of a line: the fields of `TierUse`, amounts as decimal strings."""
    return tuple(_kept_tier(value) for value in values)


def _kept_tier(value: Mapping[str, Any]) -> TierUse:
    unit_amount, flat_amount = Decimal(value["unit_amount"]), Decimal(value.get("flat_amount", "0"))
    return TierUse(
        first_unit=value["first_unit"],
        last_unit=value["last_unit"],
        quantity=value["quantity"],
        unit_amount=unit_amount,
        flat_amount=flat_amount,
        amount=EXACT.add(EXACT.multiply(unit_amount, Decimal(value["quantity"])), flat_amount),
    )


def allowance_notes(price: PriceModel, allowance: Allowance, unit: Unit) -> tuple[str, ...]:
    """Say what `price.under(allowance)` changes. `price` is as it was sold."""
    match price:
        case Overage():
            return tuple(_included(price, allowance, unit))
        case Graduated() | Volume():
            return tuple(_bounds(price, allowance, unit))
        case Package():
            left = price.under(allowance).left
            said = f"{format_units(left, unit)} of a package begun earlier in the period came first."
            return (said,) if left else ()
        case _:
            return ()


def _sum(formula: str, exact: Decimal, amount_minor: int, currency: str, due_minor: int | None) -> str:
    amount = _money(amount_minor, currency)
    if due_minor is not None:
        return f"{formula} = {amount}; what is due in all is {_money(due_minor, currency)}."
    if not exact:
        return f"{formula}: nothing to pay."
    if exact == Money(amount_minor, currency).as_decimal():
        return f"{formula} = {amount}."
    return f"{formula} = {_exact(exact, currency)}, rounded to {amount}."


def _tier(tier: TierUse, unit: Unit, currency: str) -> str:
    numbers = (
        f"{tier.first_unit:,} to {tier.last_unit:,}" if tier.last_unit is not None else f"from {tier.first_unit:,}"
    )
    name = f"{unit.plural[:1].upper()}{unit.plural[1:]}"
    if not tier.unit_amount and not tier.flat_amount:
        return f"{name} {numbers}: {tier.quantity:,} included."
    text = f"{name} {numbers}: {tier.quantity:,} {TIMES} {format_amount(tier.unit_amount, currency)}"
    if tier.flat_amount:
        text += f" + {_exact(tier.flat_amount, currency)}"
    return f"{text} = {_exact(tier.amount, currency)}."


def _included(price: Overage, allowance: Allowance, unit: Unit) -> Iterable[str]:
    sold = price.included
    if allowance.own_units is not None:
        yield f"{format_units(allowance.own_units, unit)} included by agreement, in place of {sold:,}."
        sold = allowance.own_units
    if allowance.quantity > 1:
        yield f"{allowance.quantity:,} {TIMES} {format_units(sold, unit)} included."
        sold *= allowance.quantity
    if not allowance.share.is_whole:
        cut = allowance.share.of_units(sold)
        yield f"Included for {format_share(allowance.share)}: {cut:,} of {format_units(sold, unit)}."
    if allowance.extra_units:
        yield f"{format_units(allowance.extra_units, unit)} more included by add-ons."
    if allowance.units_before:
        before = format_units(allowance.units_before, unit)
        yield f"{before} used earlier in the period count against what is included."


def _bounds(price: Graduated | Volume, allowance: Allowance, unit: Unit) -> Iterable[str]:
    if not allowance.share.is_whole and len(price.tiers) > 1:
        sold, cut = (
            ", ".join(f"{tier.up_to:,}" for tier in tiers if tier.up_to is not None)
            for tiers in (price.tiers, price.under(allowance).tiers)
        )
        yield f"Tiers for {format_share(allowance.share)} end at {cut} {unit.plural}, in place of {sold}."
    if allowance.units_before:
        yield f"{format_units(allowance.units_before, unit)} used earlier in the period count towards the tiers."


def _money(amount_minor: int, currency: str) -> str:
    return format_amount(Money(amount_minor, currency).as_decimal(), currency)


def _exact(amount: Decimal, currency: str) -> str:
    """Return every digit, or the first ones of an amount that has no end."""
    exponent = amount.as_tuple().exponent
    if (
        isinstance(exponent, int)
        and -exponent > _SHOWN_DECIMALS
        and amount != EXACT.quantize(amount, Decimal(1).scaleb(-_SHOWN_DECIMALS))
    ):
        return f"{format_amount(amount.quantize(_CUT, ROUND_DOWN, EXACT), currency)}…"
    return format_amount(amount, currency)
