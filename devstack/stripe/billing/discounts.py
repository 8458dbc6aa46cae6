"""Discounts: a coupon given to a subscription, one of its items, or an invoice."""

from decimal import Decimal
from typing import Any

from devstack.stripe.billing.coupons import redeemable_code, redeemable_coupon
from devstack.stripe.billing.periods import add_months
from devstack.stripe.billing.totals import Discounting
from devstack.stripe.problems import StripeProblem, no_such
from devstack.stripe.rendering import field_holds
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

field_holds("discounts", "discount")
MOST_DISCOUNTS = 20


def check(
    sim: Simulator, given: list[dict[str, Any]] | str, *, customer: str | None, currency: str | None, param: str
) -> list[tuple[Object, Object | None] | Object]:
    """The coupon and promotion code, or the discount, of each entry; nothing is changed."""
    if not isinstance(given, list):
        return []
    if len(given) > MOST_DISCOUNTS:
        raise StripeProblem(f"At most {MOST_DISCOUNTS} discounts.", param=param)
    found: list[tuple[Object, Object | None] | Object] = []
    for number, one in enumerate(given):
        where = f"{param}[{number}]"
        if len(one) != 1:
            raise StripeProblem("Give one of coupon, promotion_code and discount.", param=where)
        if "discount" in one:
            found.append(sim.state.get("discount", one["discount"], param=f"{where}[discount]"))
        elif "promotion_code" in one:
            promotion = redeemable_code(sim, one["promotion_code"], customer, f"{where}[promotion_code]")
            coupon = redeemable_coupon(sim, promotion["promotion"]["coupon"], currency, f"{where}[promotion_code]")
            found.append((coupon, promotion))
        else:
            found.append((redeemable_coupon(sim, one["coupon"], currency, f"{where}[coupon]"), None))
    return found


def give(
    sim: Simulator,
    checked: list[tuple[Object, Object | None] | Object],
    *,
    customer: str | None,
    now: int,
    emit: bool = True,
    redeem: bool = True,
    **on: str,
) -> list[str]:
    """Make the discounts that `check` allowed, on a subscription=..., invoice=... and so on. Returns their ids."""
    made = []
    for entry in checked:
        if isinstance(entry, dict):
            made.append(entry["id"])
            continue
        coupon, promotion = entry
        discount = sim.state.add(
            {
                "id": sim.state.new_id("di", 24),
                "object": "discount",
                "checkout_session": None,
                "customer": customer,
                "customer_account": None,
                "end": add_months(now, coupon["duration_in_months"])
                if coupon["duration"] == "repeating"
                else None,
                "invoice": None,
                "invoice_item": None,
                "promotion_code": promotion["id"] if promotion else None,
                "source": {"type": "coupon", "coupon": coupon["id"]},
                "start": now,
                "subscription": None,
                "subscription_item": None,
                **on,
                "_coupon": coupon,
            }
        )
        if redeem:
            coupon["times_redeemed"] += 1
            if promotion:
                promotion["times_redeemed"] += 1
        if emit:
            sim.emit("customer.discount.created", discount)
        made.append(discount["id"])
    return made


def end(sim: Simulator, identifier: str, *, emit: bool = True) -> None:
    """Take a discount off what it is on; finished invoices keep its id."""
    discount = sim.state.find("discount", identifier)
    if discount is None:
        return
    for owner in (*sim.state.all("subscription"), *sim.state.all("subscription_item")):
        if identifier in owner["discounts"]:
            owner["discounts"].remove(identifier)
    if emit:
        sim.emit("customer.discount.deleted", discount)


def in_force(sim: Simulator, identifiers: list[str], *, now: int) -> list[str]:
    """Those whose end has not come."""
    kept = []
    for one in identifiers:
        discount = sim.state.find("discount", one)
        if discount is None:
            raise no_such("discount", one)
        if discount["end"] is None or discount["end"] > now:
            kept.append(one)
    return kept


def arithmetic(sim: Simulator, identifier: str) -> Discounting:
    """A discount as the totals need it."""
    coupon: Object = sim.state.get("discount", identifier)["_coupon"]
    percent = coupon["percent_off"]
    products = coupon.get("applies_to")
    return Discounting(
        identifier,
        percent=None if percent is None else Decimal(str(percent)),
        amount=coupon["amount_off"] or 0,
        products=frozenset(products["products"]) if products else None,
    )


def is_once(sim: Simulator, identifier: str) -> bool:
    return bool(sim.state.get("discount", identifier)["_coupon"]["duration"] == "once")
