"""Lines of invoices in Stripe's form, with what the engine needs to know of them in private fields.

Private: `_product` and `_discountable` (what discounts may do), `_fixed` (discounts that stand already), `_usage`
(for a metered line: item, price, start, end, so that a draft can be counted anew), `_rates` (its own tax rates).
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from devstack.stripe.billing.amounts import Charge, charges, to_minor
from devstack.stripe.billing.usage import units_used
from devstack.stripe.state import Object

if TYPE_CHECKING:
    from devstack.stripe.simulator import Simulator

ZERO_DECIMAL = frozenset(
    (
        "bif",
        "clp",
        "djf",
        "gnf",
        "jpy",
        "kmf",
        "krw",
        "mga",
        "pyg",
        "rwf",
        "ugx",
        "vnd",
        "vuv",
        "xaf",
        "xof",
        "xpf",
    )
)
SIGNS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}


def make_line(
    sim: "Simulator",
    *,
    amount: int,
    currency: str,
    description: str,
    period: tuple[int, int],
    quantity: int | None = 1,
    price: Object | None = None,
    unit_amount: Decimal | None = None,
    subscription: str | None = None,
    item: str | None = None,
    invoice_item: str | None = None,
    proration: bool = False,
    credited: Object | None = None,
    discountable: bool = True,
    discounts: Sequence[str] = (),
    fixed: Sequence[tuple[str, int]] = (),
    metadata: dict[str, str] | None = None,
    rates: Sequence[Object] = (),
    usage: Object | None = None,
) -> Object:
    """A line that is on no invoice yet. `item` makes it one of a subscription item."""
    details: Object = {
        "invoice_item": invoice_item,
        "proration": proration,
        "proration_details": {"credited_items": credited} if proration else None,
        "subscription": subscription,
    }
    of_item = item is not None
    return {
        "id": sim.state.new_id("il", 24),
        "object": "line_item",
        "amount": amount,
        "currency": currency,
        "description": description,
        "discount_amounts": [],
        "discountable": discountable,
        "discounts": list(discounts),
        "invoice": None,
        "livemode": False,
        "metadata": dict(metadata or {}),
        "parent": {
            "invoice_item_details": None if of_item else details,
            "subscription_item_details": {**details, "subscription_item": item} if of_item else None,
            "type": "subscription_item_details" if of_item else "invoice_item_details",
        },
        "period": {"start": period[0], "end": period[1]},
        "pretax_credit_amounts": [],
        "pricing": None
        if price is None
        else {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": unit_amount,
        },
        "quantity": quantity,
        "quantity_decimal": None if quantity is None else Decimal(quantity),
        "subscription": subscription,
        "subtotal": amount,
        "taxes": [],
        "_product": None if price is None else price["product"],
        "_price": price,
        "_fixed": list(fixed),
        "_rates": list(rates),
        "_usage": usage,
    }


def priced_lines(
    sim: "Simulator",
    price: Object,
    quantity: int,
    *,
    period: tuple[int, int],
    share: tuple[int, int] = (1, 1),
    **more: Any,
) -> list[Object]:
    """The lines of a quantity of a price; `share` (part, whole) takes a part of each."""
    name = product_name(sim, price)
    return [
        make_line(
            sim,
            amount=to_minor(one.exact * share[0] / share[1]),
            currency=price["currency"],
            description=describe(name, price, one),
            period=period,
            quantity=one.quantity,
            price=price,
            unit_amount=one.unit_amount,
            **more,
        )
        for one in charges(price, quantity)
    ]


def usage_lines(
    sim: "Simulator", sub: Object, item: Object, *, start: int, end: int, price: Object | None = None
) -> list[Object]:
    """What a metered item used in [start, end), as far as it was reported by now."""
    price = price or item["price"]
    used = units_used(sim, price["recurring"]["meter"], sub["customer"], start, end)
    return priced_lines(
        sim,
        price,
        used,
        period=(start, end),
        subscription=sub["id"],
        item=item["id"],
        metadata=sub["metadata"],
        discounts=item["discounts"],
        rates=item["tax_rates"] or [],
        usage={"item": item["id"], "price": price["id"], "start": start, "end": end},
    )


def advance_lines(
    sim: "Simulator", sub: Object, item: Object, *, start: int, end: int, share: tuple[int, int] = (1, 1)
) -> list[Object]:
    """What a licensed item costs for the period ahead."""
    return priced_lines(
        sim,
        item["price"],
        item["quantity"],
        period=(start, end),
        share=share,
        subscription=sub["id"],
        item=item["id"],
        metadata=sub["metadata"],
        discounts=item["discounts"],
        rates=item["tax_rates"] or [],
        proration=share[0] != share[1],
    )


def is_metered(price: Object) -> bool:
    return bool(price["recurring"]) and price["recurring"]["usage_type"] == "metered"


def product_name(sim: "Simulator", price: Object) -> str:
    product = sim.state.find("product", price["product"])
    return str(product["name"]) if product else str(price["product"])


def describe(name: str, price: Object, one: Charge) -> str:
    every = ""
    if price["recurring"]:
        count, interval = price["recurring"]["interval_count"], price["recurring"]["interval"]
        every = f" / {interval}" if count == 1 else f" every {count} {interval}s"
    tier = "" if one.tier is None else f"Tier {one.tier} "
    if one.is_flat:
        return f"{name} ({tier}at {in_words(one.exact, price['currency'])}{every} flat fee)"
    per = one.unit_amount or Decimal(0)
    transform = price.get("transform_quantity")
    of = f" per {transform['divide_by']} units" if transform else ""
    return f"{one.quantity:,} × {name} ({tier}at {in_words(per, price['currency'])}{of}{every})"  # noqa: RUF001


def in_words(amount: Decimal | int, currency: str) -> str:
    """`$0.0004`: at least the currency's digits, more where the amount has more."""
    digits = 0 if currency in ZERO_DECIMAL else 2
    exact = Decimal(amount).scaleb(-digits).normalize()
    shown = max(digits, -int(exact.as_tuple().exponent))
    sign = SIGNS.get(currency)
    text = f"{abs(exact):,.{shown}f}"
    return ("-" if exact < 0 else "") + (f"{sign}{text}" if sign else f"{text} {currency.upper()}")


def counted_anew(sim: "Simulator", lines: Iterable[Object]) -> list[Object]:
    """The same lines with usage read again; a line keeps its id where it is still there."""
    fresh: list[Object] = []
    seen: set[tuple[str, str, int]] = set()
    lines = list(lines)
    for line in lines:
        usage = line["_usage"]
        if usage is None:
            fresh.append(line)
            continue
        group = (usage["item"], usage["price"], usage["start"])
        if group in seen:
            continue
        seen.add(group)
        fresh += _again(sim, [one for one in lines if one["_usage"] == usage])
    return fresh


def _again(sim: "Simulator", old: list[Object]) -> list[Object]:
    first = old[0]
    usage, details = first["_usage"], first["parent"]["subscription_item_details"]
    price = first["_price"]
    customer = sim.state.get("subscription", first["subscription"])["customer"]
    used = units_used(sim, price["recurring"]["meter"], customer, usage["start"], usage["end"])
    made = priced_lines(
        sim,
        price,
        used,
        period=(usage["start"], usage["end"]),
        subscription=first["subscription"],
        item=usage["item"],
        invoice_item=details["invoice_item"],
        metadata=first["metadata"],
        discounts=first["discounts"],
        rates=first["_rates"],
        usage=usage,
    )
    for before, after in zip(old, made, strict=False):
        after["id"], after["invoice"] = before["id"], before["invoice"]
    return made
