"""What `km plans show` prints of a version's prices: a row for each price and currency, tier by tier."""

from collections.abc import Iterator
from typing import Any

COLUMNS = ("currency", "model", "meter", "price", "description")


def price_rows(version: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a version's own currency, then those of the others."""
    for currency in version["currencies"]:
        prices = version["prices"] if currency == version["currency"] else version["prices_in"][currency]
        for price in prices:
            yield price | {"currency": currency, "price": _words(price["params"])}


def _words(params: dict[str, Any]) -> str:
    """Return every parameter; of tiers the bounds with what units cost up to there."""
    tiers = params.get("tiers")
    if tiers is not None:
        return "; ".join(_tier(tier) for tier in tiers)
    return ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in params.items())


def _tier(tier: dict[str, Any]) -> str:
    bound = "above" if tier["up_to"] is None else f"up to {tier['up_to']:,}"
    flat = tier.get("flat_amount")
    return f"{bound}: {tier.get('unit_amount', '0')}" + (f" + {flat} once" if flat else "")


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
