"""From items that are there to items that are wanted, in the words of Stripe's calls. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from control_plane.stripe_sync.subscriptions.model import Holding, ItemSeen, PriceAtStripe

MAX_ITEMS = 20  # Stripe's, for one subscription


def wanted_prices(
    holding: Holding, prices: Mapping[str, Sequence[PriceAtStripe]]
) -> list[tuple[PriceAtStripe, int | None]]:
    """Return the prices that recur of what is held, with quantities; `prices` are by version, in their order."""
    counts = {holding.plan_version_id: 1, **holding.quantities}
    return [
        (price, counts[version_id] if price.has_quantity else None)
        for version_id in (holding.plan_version_id, *sorted(holding.quantities))
        for price in prices[version_id]
        if price.recurs
    ]


def item_params(
    present: Sequence[ItemSeen],
    wanted: Sequence[tuple[PriceAtStripe, int | None]],
    known: Mapping[str, PriceAtStripe],
) -> list[dict[str, Any]]:
    """Return the `items` of an update that makes the present items the wanted ones; [] where they are already.

    An item that stays is not named. One of the same plan or add-on, kind and meter takes the new price, so that
    Stripe's lines read as one thing that changed; a plan may take another plan's place.
    """
    left = list(wanted)
    params: list[dict[str, Any]] = []
    open_items: list[ItemSeen] = []
    for item in present:
        match = next((one for one in left if one[0].price_id == item.price_id), None)
        if match is None:
            open_items.append(item)
            continue
        left.remove(match)
        if match[1] is not None and match[1] != item.quantity:
            params.append({"id": item.item_id, "quantity": match[1]})
    for item in open_items:
        before = known.get(item.price_id)
        match = None if before is None else next((one for one in left if _takes_place(one[0], before)), None)
        if match is None:
            params.append({"id": item.item_id, "deleted": True})
            continue
        left.remove(match)
        params.append({"id": item.item_id, **priced(match)})
    return [*params, *(priced(one) for one in left)]


def priced(one: tuple[PriceAtStripe, int | None]) -> dict[str, Any]:
    """Return an item's price and, unless it is metered, quantity."""
    price, quantity = one
    return {"price": price.price_id} if quantity is None else {"price": price.price_id, "quantity": quantity}


def held_params(items: Iterable[tuple[str, int | None]]) -> list[dict[str, Any]]:
    """Return items as they are for a schedule's phase, which repeats them in full."""
    return [
        {"price": price_id} if quantity is None else {"price": price_id, "quantity": quantity}
        for price_id, quantity in items
    ]


def _takes_place(price: PriceAtStripe, before: PriceAtStripe) -> bool:
    same_thing = price.is_add_on == before.is_add_on and (not price.is_add_on or price.plan_id == before.plan_id)
    return same_thing and price.kind == before.kind and price.meter_id == before.meter_id
