"""What goes together in a price: the rules that no schema holds."""

import re
from decimal import Decimal

from devstack.stripe.problems import StripeProblem
from devstack.stripe.state import Object, State

CURRENCY = re.compile(r"[a-z]{3}")
LONGEST_LOOKUP_KEY = 200
MOST_DECIMALS = 12
LARGEST_AMOUNT = 99_999_999
LONGEST_INTERVAL = {"day": 1095, "week": 156, "month": 36, "year": 3}


def check_price(state: State, given: Object) -> None:
    """Raises StripeProblem for the first rule that is broken."""
    if not CURRENCY.fullmatch(given["currency"].lower()):
        raise StripeProblem(f"Invalid currency: {given['currency']}.", param="currency")
    if len(given.get("lookup_key") or "") > LONGEST_LOOKUP_KEY:
        raise StripeProblem("Lookup keys have at most 200 characters.", param="lookup_key")
    _check_recurring(state, given.get("recurring"))
    if given.get("billing_scheme", "per_unit") == "tiered":
        _check_tiered(given)
    else:
        _check_per_unit(given)


def _check_recurring(state: State, recurring: Object | None) -> None:
    if recurring is None:
        return
    count = recurring.get("interval_count", 1)
    if not 1 <= count <= LONGEST_INTERVAL[recurring["interval"]]:
        raise StripeProblem(
            "The interval may be 3 years at most, and 1 at least.", param="recurring[interval_count]"
        )
    metered = recurring.get("usage_type", "licensed") == "metered"
    if metered and "meter" not in recurring:
        raise StripeProblem(
            "Metered prices must name a meter: usage records and their aggregation were removed.",
            code="parameter_missing",
            param="recurring[meter]",
        )
    if "meter" not in recurring:
        return
    if not metered:
        raise StripeProblem("Only prices of the usage type metered have a meter.", param="recurring[meter]")
    meter = state.get("billing.meter", recurring["meter"], param="recurring[meter]")
    if meter["status"] != "active":
        raise StripeProblem("The meter is inactive.", param="recurring[meter]")


def _check_per_unit(given: Object) -> None:
    for name in ("tiers", "tiers_mode"):
        if name in given:
            raise StripeProblem(f"{name} goes with billing_scheme=tiered only.", param=name)
    kinds = [name for name in ("unit_amount", "unit_amount_decimal", "custom_unit_amount") if name in given]
    if len(kinds) != 1:
        raise StripeProblem(
            "You must specify exactly one of unit_amount, unit_amount_decimal and custom_unit_amount.",
            code="parameter_missing" if not kinds else None,
            param="unit_amount",
        )
    _check_amounts(given, "unit_amount", "")
    transform = given.get("transform_quantity")
    if transform is not None and transform["divide_by"] < 1:
        raise StripeProblem("divide_by must be at least 1.", param="transform_quantity[divide_by]")


def _check_tiered(given: Object) -> None:
    for name in ("unit_amount", "unit_amount_decimal", "custom_unit_amount", "transform_quantity"):
        if name in given:
            raise StripeProblem(f"{name} does not go with billing_scheme=tiered.", param=name)
    for name in ("tiers", "tiers_mode"):
        if not given.get(name):
            raise StripeProblem(f"Missing required param: {name}.", code="parameter_missing", param=name)
    reached = 0
    for position, tier in enumerate(given["tiers"]):
        where = f"tiers[{position}]"
        is_last = position == len(given["tiers"]) - 1
        if (tier["up_to"] == "inf") != is_last:
            raise StripeProblem("The last tier, and only it, must have up_to=inf.", param=f"{where}[up_to]")
        if not is_last:
            if tier["up_to"] <= reached:
                raise StripeProblem("up_to must grow from tier to tier.", param=f"{where}[up_to]")
            reached = tier["up_to"]
        if not any(
            name in tier for name in ("unit_amount", "unit_amount_decimal", "flat_amount", "flat_amount_decimal")
        ):
            raise StripeProblem("A tier needs an amount.", code="parameter_missing", param=f"{where}[unit_amount]")
        _check_amounts(tier, "unit_amount", where)
        _check_amounts(tier, "flat_amount", where)


def _check_amounts(given: Object, name: str, where: str) -> None:
    param = f"{where}[{name}]" if where else name
    if name in given and f"{name}_decimal" in given:
        raise StripeProblem(f"You may only specify one of {name} and {name}_decimal.", param=param)
    amount = given.get(name, given.get(f"{name}_decimal"))
    if amount is None:
        return
    if not 0 <= amount <= LARGEST_AMOUNT:
        raise StripeProblem("Amounts are between 0 and 99999999.", code="parameter_invalid_integer", param=param)
    if isinstance(amount, Decimal) and -int(amount.normalize().as_tuple().exponent) > MOST_DECIMALS:
        raise StripeProblem("Amounts have at most 12 decimal places.", param=f"{param}_decimal")
