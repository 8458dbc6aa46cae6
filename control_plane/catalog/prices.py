"""The parameters of each price model: rules, and one canonical form.

Amounts are decimal strings of major units with at most 12 decimals: text in, text out, never a float. Canonical
means no needless zeros beyond the currency's digits ("49.00", "0.0015"), so that equal prices are equal values.
"""

import re
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from typing import Any

from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.money import minor_units

MAX_DECIMALS = 12
MAX_TIERS = 100
MAX_UNITS = 2**53 - 1
MAX_PERCENT = 100
_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")


def canonical_amount(value: object, *, currency: str, field: str) -> str:
    """Return an amount's canonical text; takes text, whole numbers and Decimal.

    Raises:
        ValidationFailedError: a float, negative, not a number, or too many digits.
    """
    return _canonical_number(value, decimals=minor_units(currency), field=field, example="0.0015")


def _canonical_number(value: object, *, decimals: int, field: str, example: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValidationFailedError(field, f'must be a decimal number, best written as text: "{example}"')
    text = value.strip() if isinstance(value, str) else f"{Decimal(value):f}"
    if not _AMOUNT.fullmatch(text):
        raise ValidationFailedError(
            field, f"must be a number from 0, with at most 12 digits before and {MAX_DECIMALS} after the point"
        )
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0").ljust(decimals, "0")
    return str(int(whole)) + (f".{fraction}" if fraction else "")


def check_price_params(model: str, params: Mapping[str, Any], *, currency: str, field: str = "") -> dict[str, Any]:
    """Return the canonical parameters of a price model.

    Raises:
        ValidationFailedError: no such model, or a parameter is missing, unknown or wrong; names it below `field`.
    """
    if model not in MODELS:
        raise ValidationFailedError(_below(field, "model"), f"must be one of {', '.join(MODELS)}")
    return MODELS[model](params, currency, field)


def _fixed(params: Mapping[str, Any], currency: str, field: str) -> dict[str, Any]:
    _only(params, ("amount",), field)
    return {"amount": _money(params, "amount", currency, field)}


def _commitment(params: Mapping[str, Any], currency: str, field: str) -> dict[str, Any]:
    _only(params, ("amount", "counts"), field)
    counts = params.get("counts", "usage")
    if counts not in ("usage", "all"):
        raise ValidationFailedError(_below(field, "counts"), "must be usage or all")
    return {"amount": _money(params, "amount", currency, field), "counts": counts}


def _percentage(params: Mapping[str, Any], _currency: str, field: str) -> dict[str, Any]:
    _only(params, ("percent",), field)
    path = _below(field, "percent")
    if "percent" not in params:
        raise ValidationFailedError(path, "is required")
    percent = _canonical_number(params["percent"], decimals=0, field=path, example="2.9")
    if Decimal(percent) > MAX_PERCENT:
        raise ValidationFailedError(path, f"must be at most {MAX_PERCENT}")
    return {"percent": percent}


def _per_unit(params: Mapping[str, Any], currency: str, field: str) -> dict[str, Any]:
    _only(params, ("unit_amount",), field)
    return {"unit_amount": _amount(params, "unit_amount", currency, field)}


def _overage(params: Mapping[str, Any], currency: str, field: str) -> dict[str, Any]:
    _only(params, ("included", "unit_amount"), field)
    return {
        "included": _units(params, "included", field, at_least=0),
        "unit_amount": _amount(params, "unit_amount", currency, field),
    }


def _package(params: Mapping[str, Any], currency: str, field: str) -> dict[str, Any]:
    _only(params, ("size", "amount"), field)
    return {
        "size": _units(params, "size", field, at_least=1),
        "amount": _amount(params, "amount", currency, field),
    }


def _tiered(params: Mapping[str, Any], currency: str, field: str) -> dict[str, Any]:
    _only(params, ("tiers",), field)
    path = _below(field, "tiers")
    tiers = params.get("tiers")
    if not isinstance(tiers, list | tuple) or not 1 <= len(tiers) <= MAX_TIERS:
        raise ValidationFailedError(path, f"must be a list of 1 to {MAX_TIERS} tiers")
    checked: list[dict[str, Any]] = []
    for index, tier in enumerate(tiers):
        at_least = 1 if not checked else checked[-1]["up_to"] + 1
        last = index == len(tiers) - 1
        checked.append(_tier(tier, currency, f"{path}[{index}]", at_least=at_least, last=last))
    return {"tiers": checked}


def _tier(tier: object, currency: str, field: str, *, at_least: int, last: bool) -> dict[str, Any]:
    if not isinstance(tier, Mapping):
        raise ValidationFailedError(field, "must have up_to, and unit_amount or flat_amount")
    _only(tier, ("up_to", "unit_amount", "flat_amount"), field)
    if "up_to" not in tier:
        raise ValidationFailedError(_below(field, "up_to"), "is required; null in the last tier, which has no end")
    if (tier["up_to"] is None) is not last:
        must = "be null: the last tier has no end" if last else "be a number: only the last tier has no end"
        raise ValidationFailedError(_below(field, "up_to"), f"must {must}")
    amounts = [name for name in ("unit_amount", "flat_amount") if name in tier]
    if not amounts:
        raise ValidationFailedError(_below(field, "unit_amount"), "is required, or flat_amount")
    up_to = None if last else _units(tier, "up_to", field, at_least=at_least)
    return {"up_to": up_to, **{name: _amount(tier, name, currency, field) for name in amounts}}


MODELS: Mapping[str, Callable[[Mapping[str, Any], str, str], dict[str, Any]]] = {
    "flat": _fixed,
    "setup_fee": _fixed,
    "commitment": _commitment,
    "per_unit": _per_unit,
    "overage": _overage,
    "graduated": _tiered,
    "volume": _tiered,
    "package": _package,
    "percentage": _percentage,
}


def _only(params: Mapping[str, Any], allowed: Collection[str], field: str) -> None:
    for name in params:
        if name not in allowed:
            raise ValidationFailedError(
                _below(field, str(name)), f"is not a field of this price; it has {', '.join(allowed)}"
            )


def _amount(params: Mapping[str, Any], name: str, currency: str, field: str) -> str:
    if name not in params:
        raise ValidationFailedError(_below(field, name), "is required")
    return canonical_amount(params[name], currency=currency, field=_below(field, name))


def _money(params: Mapping[str, Any], name: str, currency: str, field: str) -> str:
    """Return an amount that is charged as it stands: no finer than the currency's minor unit."""
    amount = _amount(params, name, currency, field)
    if len(amount.partition(".")[2]) > minor_units(currency):
        raise ValidationFailedError(
            _below(field, name), f"{currency} has {minor_units(currency)} digits after the point"
        )
    return amount


def _units(params: Mapping[str, Any], name: str, field: str, *, at_least: int) -> int:
    if name not in params:
        raise ValidationFailedError(_below(field, name), "is required")
    value = params[name]
    if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= MAX_UNITS:
        raise ValidationFailedError(_below(field, name), f"must be a whole number, at least {at_least}")
    return value


def _below(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name
