"""Subscription items: checking what was asked for, and the objects themselves.

Private fields of an item: `_usage_from` (since when a metered item's usage is unbilled) and `_debits` (what was
charged ahead for it: the full amount, its full period, until when it was charged, its discounts), of which credits
for unused time are taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from devstack.stripe.billing import discounts
from devstack.stripe.billing.lines import is_metered
from devstack.stripe.billing.periods import period_of, step
from devstack.stripe.fields import merged
from devstack.stripe.problems import StripeProblem, no_such
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

MOST_ITEMS = 20


@dataclass
class Wanted:
    """One item after a change: `old` None when it is new, `new` None when it goes."""

    old: Object | None
    new: Object | None
    discounts: list[Any] | None = None
    """Checked discounts to give to the item when the change is made."""

    @property
    def changed(self) -> bool:
        """In what it costs."""
        if self.old is None or self.new is None:
            return True
        return self.old["price"]["id"] != self.new["price"]["id"] or self.old.get("quantity") != self.new.get(
            "quantity"
        )


def recurring_price(sim: Simulator, entry: dict[str, Any], param: str) -> Object:
    """The price of an entry of `items`, which may also be given as price_data."""
    if "price_data" in entry:
        return price_of_data(sim, entry["price_data"])
    identifier = entry.get("price") or entry.get("plan")
    if identifier is None:
        raise StripeProblem(
            f"Missing required param: {param}[price].", code="parameter_missing", param=f"{param}[price]"
        )
    price = sim.state.find("price", identifier)
    if price is None:
        raise no_such("price", identifier, param=f"{param}[price]")
    if not price["active"]:
        raise StripeProblem(
            "The price specified is inactive. This field only accepts active prices.", param=f"{param}[price]"
        )
    if price["type"] != "recurring":
        raise StripeProblem(
            "The price specified is set to `type=one_time` but this field only accepts prices with "
            "`type=recurring`.",
            param=f"{param}[price]",
        )
    return price


def price_of_data(sim: Simulator, data: dict[str, Any]) -> Object:
    """A price made on the spot, not to be used again."""
    sim.state.get("product", data["product"], param="price_data[product]")
    from devstack.stripe.billing.amounts import decimal_of

    exact = decimal_of(data, "unit_amount")
    recurring = data.get("recurring")
    return sim.state.add(
        {
            "id": sim.state.new_id("price", 24),
            "object": "price",
            "active": False,
            "billing_scheme": "per_unit",
            "created": sim.now(),
            "currency": data["currency"],
            "custom_unit_amount": None,
            "livemode": False,
            "lookup_key": None,
            "metadata": {},
            "nickname": None,
            "product": data["product"],
            "recurring": None
            if recurring is None
            else {
                "interval": recurring["interval"],
                "interval_count": recurring.get("interval_count", 1),
                "meter": None,
                "trial_period_days": None,
                "usage_type": "licensed",
            },
            "tax_behavior": data.get("tax_behavior", "unspecified"),
            "tiers_mode": None,
            "transform_quantity": None,
            "type": "recurring" if recurring else "one_time",
            "unit_amount": int(exact) if exact is not None and exact == int(exact) else None,
            "unit_amount_decimal": exact,
        }
    )


def make_item(
    sim: Simulator,
    price: Object,
    *,
    quantity: int | None,
    subscription: str,
    period: tuple[int, int],
    now: int,
    metadata: dict[str, str] | None = None,
    rates: Sequence[Object] = (),
) -> Object:
    return {
        "id": sim.state.new_id("si"),
        "object": "subscription_item",
        "billed_until": None,
        "billing_thresholds": None,
        "created": now,
        "current_period_end": period[1],
        "current_period_start": period[0],
        "discounts": [],
        "metadata": dict(metadata or {}),
        "plan": plan_of(price),
        "price": price,
        **({} if is_metered(price) else {"quantity": quantity}),
        "subscription": subscription,
        "tax_rates": list(rates),
        "_usage_from": now,
        "_debits": [],
    }


def plan_of(price: Object) -> Object:
    """The older form of a price, which items still show."""
    recurring, transform = price["recurring"], price["transform_quantity"]
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "livemode": False,
        "metadata": price["metadata"],
        "meter": recurring["meter"],
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": price["tiers_mode"],
        "transform_usage": transform,
        "trial_period_days": None,
        "usage_type": recurring["usage_type"],
    }


def wanted_items(
    sim: Simulator, sub: Object, given: Sequence[dict[str, Any]], *, now: int, param: str = "items"
) -> list[Wanted]:
    """All items of a subscription after `given` is applied, as copies; nothing is changed yet."""
    kept = {one["id"]: one for one in sub["items"]["data"]}
    result: dict[str, Wanted] = {one: Wanted(item, copied(item)) for one, item in kept.items()}
    for number, entry in enumerate(given):
        where = f"{param}[{number}]"
        identifier = entry.get("id")
        if identifier is None:
            new = _new_item(sim, sub, entry, where, now=now)
            result[new["id"]] = Wanted(None, new, _checked_discounts(sim, sub, entry, where))
            continue
        if identifier not in kept:
            raise no_such("subscription item", identifier, param=f"{where}[id]")
        if entry.get("deleted"):
            result[identifier] = Wanted(kept[identifier], None)
            continue
        _alter(sim, result[identifier].new or {}, entry, where)
        result[identifier].discounts = _checked_discounts(sim, sub, entry, where)
    check_together([one.new for one in result.values() if one.new is not None], param)
    return list(result.values())


def copied(item: Object) -> Object:
    """A copy whose own lists can be changed; prices stay the account's."""
    return {
        **item,
        "metadata": dict(item["metadata"]),
        "discounts": list(item["discounts"]),
        "_debits": list(item["_debits"]),
    }


def _new_item(sim: Simulator, sub: Object, entry: dict[str, Any], where: str, *, now: int) -> Object:
    price = recurring_price(sim, entry, where)
    period = current_period(sub, price, now=now)
    return make_item(
        sim,
        price,
        quantity=_quantity(price, entry, where, before=1),
        subscription=sub["id"],
        period=period,
        now=now,
        metadata=entry.get("metadata") or {},
        rates=rates_of(sim, entry.get("tax_rates"), where),
    )


def current_period(sub: Object, price: Object, *, now: int) -> tuple[int, int]:
    """The period of an interval that runs in a subscription: that of its items, else by its anchor."""
    recurring = price["recurring"]
    for item in sub["items"]["data"]:
        other = item["price"]["recurring"]
        if (other["interval"], other["interval_count"]) == (recurring["interval"], recurring["interval_count"]):
            return item["current_period_start"], item["current_period_end"]
    if sub["trial_end"] is not None and sub["trial_end"] > now:
        return sub["trial_start"], sub["trial_end"]
    return period_of(sub["billing_cycle_anchor"], recurring["interval"], recurring["interval_count"], now)


def period_from(sub_anchor: int, price: Object, start: int) -> tuple[int, int]:
    """From a moment to the next boundary after it."""
    recurring = price["recurring"]
    if start == sub_anchor:
        return start, step(start, recurring["interval"], recurring["interval_count"], 1)
    return start, period_of(sub_anchor, recurring["interval"], recurring["interval_count"], start)[1]


def _alter(sim: Simulator, item: Object, entry: dict[str, Any], where: str) -> None:
    if "price" in entry or "plan" in entry or "price_data" in entry:
        price = recurring_price(sim, entry, where)
        before = item.get("quantity") or 1
        item["price"], item["plan"] = price, plan_of(price)
        quantity = _quantity(price, entry, where, before=before)
        item.pop("quantity", None)
        if not is_metered(price):
            item["quantity"] = quantity
    elif "quantity" in entry:
        item["quantity"] = _quantity(item["price"], entry, where, before=1)
    if "metadata" in entry:
        item["metadata"] = merged(item["metadata"], entry["metadata"])
    if "tax_rates" in entry:
        item["tax_rates"] = rates_of(sim, entry["tax_rates"], where)
    if entry.get("discounts") == "":
        item["discounts"] = []


def _quantity(price: Object, entry: dict[str, Any], where: str, *, before: int) -> int | None:
    if is_metered(price):
        if "quantity" in entry:
            raise StripeProblem(
                "You cannot set the quantity of an item whose price is metered: its quantity comes from usage.",
                param=f"{where}[quantity]",
            )
        return None
    return int(entry.get("quantity", before))


def _checked_discounts(sim: Simulator, sub: Object, entry: dict[str, Any], where: str) -> list[Any] | None:
    if not entry.get("discounts"):
        return None
    return discounts.check(
        sim, entry["discounts"], customer=sub["customer"], currency=sub["currency"], param=f"{where}[discounts]"
    )


def rates_of(sim: Simulator, identifiers: Any, where: str) -> list[Object]:
    """Tax rates by id; `""` and None are none."""
    return [sim.state.get("tax_rate", one, param=f"{where}[tax_rates]") for one in identifiers or []]


def check_together(items: Sequence[Object], param: str = "items") -> None:
    """The rules about items beside each other."""
    if not items:
        raise StripeProblem("A subscription must have at least one item.", param=param)
    if len(items) > MOST_ITEMS:
        raise StripeProblem(f"A subscription can have at most {MOST_ITEMS} items.", param=param)
    if len({one["price"]["currency"] for one in items}) > 1:
        raise StripeProblem("All prices of a subscription must be in the same currency.", param=param)
    prices = [one["price"]["id"] for one in items]
    if len(set(prices)) < len(prices):
        raise StripeProblem(
            "Cannot add multiple subscription items with the same price. Use the quantity instead.", param=param
        )
    meters = [one["price"]["recurring"]["meter"] for one in items if is_metered(one["price"])]
    if len(set(meters)) < len(meters):
        raise StripeProblem("A subscription can have one item for each meter.", param=param)
