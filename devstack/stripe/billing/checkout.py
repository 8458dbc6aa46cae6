"""Checkout sessions of mode `subscription`: made, completed, expired."""

from functools import partial
from typing import Any

from devstack.stripe.billing.checkout_params import (
    check,
    entries,
    expected_invoice,
    is_hosted,
    subscription_params,
)
from devstack.stripe.billing.coupons import redeemable_code, redeemable_coupon
from devstack.stripe.billing.lines import product_name
from devstack.stripe.billing.settings import DAY
from devstack.stripe.fields import merge_metadata, merged
from devstack.stripe.paging import listing, page, window
from devstack.stripe.problems import StripeProblem
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
    check(params)
    customer = sim.state.get("customer", params["customer"], param="customer") if "customer" in params else None
    now = sim.now(customer["id"] if customer else None)
    expires_at = params.get("expires_at", now + DAY)
    if not now + SHORTEST - 60 <= expires_at <= now + DAY + 60:
        raise StripeProblem("expires_at must be 30 minutes to 24 hours from now.", param="expires_at")
    wanted = subscription_params(sim, params)
    expected = expected_invoice(sim, customer, wanted, now=now)
    session = sim.state.add(_session(sim, params, customer, expected, now=now, expires_at=expires_at))
    session["_params"], session["_wanted"] = dict(params), wanted
    session["_line_items"] = [_line_item(sim, session, one) for one in entries(sim, params)]
    session["url"] = f"{call.base_url or sim.base_url}/checkout/{session['id']}" if is_hosted(params) else None
    session["_due"] = sim.at(expires_at, partial(expire, sim, session), customer=session["customer"])
    sim.tell("checkout.created", session)
    return session


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
    expected = expected_invoice(sim, customer, session["_wanted"], now=sim.now(session["customer"]))
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
    return window(call, sim.state.get(KIND, call.path["session"])["_line_items"])


@route("POST", "/v1/checkout/sessions/{session}/expire")
def expire_session(sim: Simulator, call: Call) -> Object:
    session = sim.state.get(KIND, call.path["session"])
    if session["status"] != "open":
        raise StripeProblem(
            f'Only Checkout Sessions with a status in ["open"] can be expired. This one is {session["status"]}.',
            param="session",
        )
    expire(sim, session)
    return session


def expire(sim: Simulator, session: Object) -> None:
    if session["status"] == "open":
        session.pop("_due").cancel()
        session.update(status="expired", url=None)
        sim.emit("checkout.session.expired", session)
