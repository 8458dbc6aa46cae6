"""What a checkout session is asked for: checked, and as parameters of a subscription."""

from typing import Any

from devstack.stripe.billing.billing_run import preview_invoice
from devstack.stripe.billing.items import price_of_data
from devstack.stripe.billing.lines import is_metered
from devstack.stripe.billing.starting import assemble, discounted, first_lines
from devstack.stripe.problems import StripeProblem, no_such
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


def is_hosted(params: dict[str, Any]) -> bool:
    return bool(params.get("ui_mode", "hosted_page") == "hosted_page")


def check(params: dict[str, Any]) -> None:
    if params.get("mode") != "subscription":
        raise StripeProblem("The simulator plays sessions of mode subscription only.", param="mode")
    if not params.get("line_items"):
        raise StripeProblem("Missing required param: line_items.", code="parameter_missing", param="line_items")
    if is_hosted(params) and "success_url" not in params:
        raise StripeProblem("Missing required param: success_url.", code="parameter_missing", param="success_url")
    if "customer" in params and "customer_email" in params:
        raise StripeProblem(
            "You may only specify one of these parameters: customer, customer_email.", param="customer"
        )
    if "customer_creation" in params:
        raise StripeProblem("customer_creation can only be used in payment mode.", param="customer_creation")
    if params.get("discounts") and params.get("allow_promotion_codes"):
        raise StripeProblem(
            "You may only specify one of these parameters: allow_promotion_codes, discounts.",
            param="allow_promotion_codes",
        )
    if len(params.get("discounts") or []) > 1:
        raise StripeProblem("A session takes one discount.", param="discounts")
    if "customer_update" in params and "customer" not in params:
        raise StripeProblem("customer_update can only be used with customer.", param="customer_update")
    if (
        params.get("automatic_tax", {}).get("enabled")
        and "customer" in params
        and not params.get("customer_update")
    ):
        raise StripeProblem(
            "Automatic tax calculation in Checkout requires a valid address on the Customer, or "
            "customer_update[address]=auto.",
            param="customer_update[address]",
        )


def entries(sim: Simulator, params: dict[str, Any]) -> list[tuple[Object, Object, str]]:
    """Price, entry and its place of each line item."""
    found = []
    for number, entry in enumerate(params["line_items"]):
        where = f"line_items[{number}]"
        if "price_data" in entry:
            price = price_of_data(sim, entry["price_data"])
        else:
            price = sim.state.find("price", entry.get("price", "")) or {}
            if not price:
                raise no_such("price", entry.get("price", ""), param=f"{where}[price]")
        if not price["active"] and "price_data" not in entry:
            raise StripeProblem("The price specified is inactive.", param=f"{where}[price]")
        found.append((price, entry, where))
    return found


def subscription_params(sim: Simulator, params: dict[str, Any]) -> dict[str, Any]:
    """What the session's subscription will be made with."""
    items: list[dict[str, Any]] = []
    extra: list[dict[str, Any]] = []
    for price, entry, where in entries(sim, params):
        if price["recurring"] and is_metered(price):
            if "quantity" in entry:
                raise StripeProblem("Quantity should not be specified where usage_type is metered.", param=where)
            items.append({"price": price["id"], **_rates(entry)})
            continue
        if "quantity" not in entry:
            raise StripeProblem("Quantity is required.", code="parameter_missing", param=f"{where}[quantity]")
        into = items if price["recurring"] else extra
        into.append({"price": price["id"], "quantity": entry["quantity"], **_rates(entry)})
    if not items:
        raise StripeProblem(
            "You must provide at least one recurring price in `subscription` mode.", param="line_items"
        )
    data = dict(params.get("subscription_data", {}))
    return {
        **data,
        "items": items,
        "add_invoice_items": extra,
        **({"automatic_tax": params["automatic_tax"]} if "automatic_tax" in params else {}),
        "discounts": params.get("discounts", []),
    }


def _rates(entry: dict[str, Any]) -> dict[str, Any]:
    return {"tax_rates": entry["tax_rates"]} if "tax_rates" in entry else {}


def expected_invoice(sim: Simulator, customer: Object | None, wanted: dict[str, Any], *, now: int) -> Object:
    """The first invoice as it would be now; for nobody in particular where the customer is not known yet."""
    nobody = None
    if customer is None:
        nobody = customer = sim.state.add({"id": sim.state.new_id("cus"), "object": "customer"})
    try:
        sub = assemble(sim, customer, wanted, now=now)
        with discounted(sim, sub, wanted, now=now):
            lines = first_lines(sim, sub, wanted, now=now)
            return preview_invoice(sim, sub, lines, reason="subscription_create", now=now, period=(now, now))
    finally:
        if nobody is not None:
            sim.state.remove("customer", nobody["id"])
