"""Checkout sessions of mode `subscription`: made, completed, expired."""

from typing import Any

from devstack.stripe.billing.billing_run import preview_invoice
from devstack.stripe.billing.coupons import redeemable_code, redeemable_coupon
from devstack.stripe.billing.items import price_of_data
from devstack.stripe.billing.lines import is_metered, product_name
from devstack.stripe.billing.settings import DAY
from devstack.stripe.billing.starting import assemble, discounted, first_lines
from devstack.stripe.fields import merge_metadata, merged
from devstack.stripe.paging import listing, page
from devstack.stripe.problems import StripeProblem, no_such
from devstack.stripe.rendering import shown_when_expanded
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object, State

KIND = "checkout.session"
SHORTEST = 30 * 60


def items_of(_: State, session: Object) -> Object:
    return listing(f"/v1/checkout/sessions/{session['id']}/line_items", session["_line_items"])


shown_when_expanded(KIND, "line_items", items_of)


@route("POST", "/v1/checkout/sessions")
def create_session(sim: Simulator, call: Call) -> Object:
    params = call.params
    _check(params)
    customer = sim.state.get("customer", params["customer"], param="customer") if "customer" in params else None
    now = sim.now(customer["id"] if customer else None)
    expires_at = params.get("expires_at", now + DAY)
    if not now + SHORTEST - 60 <= expires_at <= now + DAY + 60:
        raise StripeProblem("expires_at must be 30 minutes to 24 hours from now.", param="expires_at")
    wanted = subscription_params(sim, params)
    expected = _expected(sim, customer, wanted, now=now)
    session = sim.state.add(_session(sim, params, customer, expected, now=now, expires_at=expires_at))
    session["_params"], session["_wanted"] = dict(params), wanted
    session["_line_items"] = [_line_item(sim, session, one) for one in _entries(sim, params)]
    session["url"] = f"{call.base_url or sim.base_url}/checkout/{session['id']}" if _is_hosted(params) else None
    session["_due"] = sim.at(expires_at, lambda: expire(sim, session), customer=session["customer"])
    sim.tell("checkout.created", session)
    return session


def _is_hosted(params: dict[str, Any]) -> bool:
    return params.get("ui_mode", "hosted_page") == "hosted_page"


def _check(params: dict[str, Any]) -> None:
    if params.get("mode") != "subscription":
        raise StripeProblem("The simulator plays sessions of mode subscription only.", param="mode")
    if not params.get("line_items"):
        raise StripeProblem("Missing required param: line_items.", code="parameter_missing", param="line_items")
    if _is_hosted(params) and "success_url" not in params:
        raise StripeProblem("Missing required param: success_url.", code="parameter_missing", param="success_url")
    if "customer" in params and "customer_email" in params:
        raise StripeProblem("You may only specify one of these parameters: customer, customer_email.", param="customer")
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
    if params.get("automatic_tax", {}).get("enabled") and "customer" in params and not params.get("customer_update"):
        raise StripeProblem(
            "Automatic tax calculation in Checkout requires a valid address on the Customer, or "
            "customer_update[address]=auto.",
            param="customer_update[address]",
        )


def _entries(sim: Simulator, params: dict[str, Any]) -> list[tuple[Object, Object, str]]:
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
    items, extra = [], []
    for price, entry, where in _entries(sim, params):
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
    behavior = data.get("trial_settings")
    if behavior and params.get("payment_method_collection", "always") == "always":
        data.pop("trial_settings")
        data["trial_settings"] = behavior
    return {
        **data,
        "items": items,
        "add_invoice_items": extra,
        **({"automatic_tax": params["automatic_tax"]} if "automatic_tax" in params else {}),
        "discounts": params.get("discounts", []),
    }


def _rates(entry: dict[str, Any]) -> dict[str, Any]:
    return {"tax_rates": entry["tax_rates"]} if "tax_rates" in entry else {}


def _expected(sim: Simulator, customer: Object | None, wanted: dict[str, Any], *, now: int) -> Object:
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


def _session(
    sim: Simulator, params: dict[str, Any], customer: Object | None, expected: Object, *, now: int, expires_at: int
) -> Object:
    tax = params.get("automatic_tax", {}).get("enabled", False)
    collection = params.get("payment_method_collection", "always")
    return {
        "id": f"cs_test_{sim.state.new_token(48)}",
        "object": KIND,
        "adaptive_pricing": None,
        "after_expiration": None,
        "allow_promotion_codes": params.get("allow_promotion_codes"),
        "amount_subtotal": expected["subtotal"],
        "amount_total": expected["total"],
        "automatic_tax": {
            "enabled": tax,
            "liability": {"type": "self"} if tax else None,
            "provider": "stripe" if tax else None,
            "status": "requires_location_inputs" if tax else None,
        },
        "billing_address_collection": params.get("billing_address_collection"),
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": now,
        "currency": expected["currency"],
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer": customer["id"] if customer else None,
        "customer_account": None,
        "customer_creation": None if customer else "always",
        "customer_details": None,
        "customer_email": params.get("customer_email"),
        "discounts": [
            {"coupon": one.get("coupon"), "promotion_code": one.get("promotion_code")}
            for one in params.get("discounts", [])
        ],
        "expires_at": expires_at,
        "integration_identifier": params.get("integration_identifier"),
        "invoice": None,
        "invoice_creation": None,
        "livemode": False,
        "locale": params.get("locale"),
        "metadata": merged({}, params.get("metadata") or {}),
        "mode": "subscription",
        "origin_context": None,
        "payment_intent": None,
        "payment_link": None,
        "payment_method_collection": collection,
        "payment_method_configuration_details": None,
        "payment_method_options": None,
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "submit_type": None,
        "subscription": None,
        "success_url": params.get("success_url"),
        "total_details": _total_details(expected),
        "ui_mode": params.get("ui_mode", "hosted_page"),
        "url": None,
    }


def _total_details(invoice: Object) -> Object:
    return {
        "amount_discount": sum(one["amount"] for one in invoice["total_discount_amounts"]),
        "amount_shipping": 0,
        "amount_tax": sum(one["amount"] for one in invoice["total_taxes"]),
    }


def _line_item(sim: Simulator, session: Object, entry: tuple[Object, Object, str]) -> Object:
    price, given, _ = entry
    quantity = given.get("quantity")
    amount = int(price["unit_amount"] or 0) * quantity if quantity else 0
    return {
        "id": sim.state.new_id("li", 24),
        "object": "item",
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": session["currency"],
        "description": product_name(sim, price),
        "price": price,
        "quantity": quantity,
    }


def count_again(sim: Simulator, session: Object) -> Object:
    """The amounts with the discounts chosen so far; returns the expected first invoice."""
    customer = sim.state.find("customer", session["customer"] or "")
    expected = _expected(sim, customer, session["_wanted"], now=sim.now(session["customer"]))
    session["amount_subtotal"], session["amount_total"] = expected["subtotal"], expected["total"]
    session["total_details"] = _total_details(expected)
    return expected


def enter_code(sim: Simulator, session: Object, code: str) -> None:
    """What a customer does who types a promotion code into the page. Raises when it cannot be used."""
    if not session["allow_promotion_codes"]:
        raise StripeProblem("This session takes no promotion codes.", param="promotion_code")
    for one in sim.state.where("promotion_code", active=True):
        if one["code"].lower() == code.lower() and one["customer"] in (None, session["customer"]):
            redeemable_code(sim, one["id"], session["customer"], "promotion_code")
            redeemable_coupon(sim, one["promotion"]["coupon"], session["currency"], "promotion_code")
            session["_wanted"]["discounts"] = [{"promotion_code": one["id"]}]
            session["discounts"] = [{"coupon": None, "promotion_code": one["id"]}]
            count_again(sim, session)
            return
    raise StripeProblem("This code is invalid.", code="promotion_code_invalid", param="promotion_code")


@route("GET", "/v1/checkout/sessions/{session}")
def retrieve_session(sim: Simulator, call: Call) -> Object:
    return sim.state.get(KIND, call.path["session"])


@route("GET", "/v1/checkout/sessions")
def list_sessions(sim: Simulator, call: Call) -> Object:
    wanted = call.params
    found = [
        one
        for one in sim.state.all(KIND)
        if wanted.get("customer") in (None, one["customer"])
        and wanted.get("subscription") in (None, one["subscription"])
        and wanted.get("status") in (None, one["status"])
    ]
    return page(call, found)


@route("POST", "/v1/checkout/sessions/{session}")
def update_session(sim: Simulator, call: Call) -> Object:
    session = sim.state.get(KIND, call.path["session"])
    merge_metadata(session, call.params)
    return session


@route("GET", "/v1/checkout/sessions/{session}/line_items")
def list_session_items(sim: Simulator, call: Call) -> Object:
    from devstack.stripe.paging import window

    return window(call, sim.state.get(KIND, call.path["session"])["_line_items"])


@route("POST", "/v1/checkout/sessions/{session}/expire")
def expire_session(sim: Simulator, call: Call) -> Object:
    session = sim.state.get(KIND, call.path["session"])
    if session["status"] != "open":
        raise StripeProblem(
            f"Only Checkout Sessions with a status in [\"open\"] can be expired. This one is {session['status']}.",
            param="session",
        )
    expire(sim, session)
    return session


def expire(sim: Simulator, session: Object) -> None:
    if session["status"] == "open":
        session.pop("_due").cancel()
        session.update(status="expired", url=None)
        sim.emit("checkout.session.expired", session)


