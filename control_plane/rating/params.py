"""Reading a price's parameters: amounts are decimal strings, never floats, with at most 12 decimals."""

import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

from control_plane.foundation.money import minor_units
from control_plane.rating.model import EXACT, RatingError

MAX_DECIMALS = 12
_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
MAX_PERCENT = 100
MAX_TIERS = 100
MAX_UNITS = 2**53 - 1


def refuse_unknown(params: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raise RatingError for the first parameter that the price model does not know."""
    for name in params:
        if name not in allowed:
            raise RatingError(str(name), f"is no parameter of this price; known are {', '.join(sorted(allowed))}")


def read_amount(params: Mapping[str, Any], name: str, *, default: Decimal | None = None) -> Decimal:
    """Return an amount in the currency's major unit: "49.00", "0.0015". Not negative, at most 12 decimals."""
    if name not in params and default is not None:
        return default
    value = params.get(name)
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value):
        raise RatingError(name, f'must be a decimal string with at most {MAX_DECIMALS} decimals, like "0.0015"')
    return Decimal(value)


def read_money(params: Mapping[str, Any], name: str, currency: str) -> Decimal:
    """Return an amount that is charged as it stands: no finer than the currency's minor unit."""
    amount = read_amount(params, name)
    if EXACT.scaleb(amount, minor_units(currency)) % 1:
        raise RatingError(name, f"{currency} has {minor_units(currency)} digits after the point")
    return amount


def read_percent(params: Mapping[str, Any], name: str) -> Decimal:
    """Return a part in per cent: "2.9". At most 100, at most 12 decimals."""
    percent = read_amount(params, name)
    if percent > MAX_PERCENT:
        raise RatingError(name, f"must be at most {MAX_PERCENT}")
    return percent


def read_choice(params: Mapping[str, Any], name: str, known: Collection[str]) -> str:
    """Return one of the known words."""
    value = params.get(name)
    if not isinstance(value, str) or value not in known:
        raise RatingError(name, f"must be one of {', '.join(known)}")
    return value


def read_units(params: Mapping[str, Any], name: str, *, at_least: int) -> int:
    """Return a whole number of units."""
    value = params.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= MAX_UNITS:
        raise RatingError(name, f"must be a whole number, at least {at_least}")
    return value
