"""Coupons and promotion codes."""

from typing import Any

from devstack.stripe.fields import merge_metadata, set_given
from devstack.stripe.paging import page
from devstack.stripe.problems import StripeProblem, no_such
from devstack.stripe.rendering import shown_when_expanded
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

shown_when_expanded("coupon", "applies_to")


@route("POST", "/v1/coupons")
def create_coupon(sim: Simulator, call: Call) -> Object:
    params = call.params
    _check_coupon(params)
    identifier = params.get("id") or sim.state.new_token(8)
    if sim.state.find("coupon", identifier):
        raise StripeProblem("Coupon already exists.", code="resource_already_exists", param="id")
    applies_to = params.get("applies_to")
    coupon = sim.state.add(
        {
            "id": identifier,
            "object": "coupon",
            "amount_off": params.get("amount_off"),
            "created": sim.now(),
            "currency": params.get("currency") if "amount_off" in params else None,
            "duration": params.get("duration", "once"),
            "duration_in_months": params.get("duration_in_months"),
            "livemode": False,
            "max_redemptions": params.get("max_redemptions"),
            "metadata": params.get("metadata") or {},
            "name": params.get("name"),
            "percent_off": params.get("percent_off"),
            "redeem_by": params.get("redeem_by"),
            "times_redeemed": 0,
            "valid": True,
            **({"applies_to": {"products": applies_to["products"]}} if applies_to else {}),
        }
    )
    sim.emit("coupon.created", coupon)
    return coupon


def _check_coupon(params: dict[str, Any]) -> None:
    if ("percent_off" in params) == ("amount_off" in params):
        raise StripeProblem("You must pass either percent_off or amount_off, not both.", param="percent_off")
    if "amount_off" in params and "currency" not in params:
        raise StripeProblem("Must provide currency when passing amount_off.", param="currency")
    if "percent_off" in params and not 0 < params["percent_off"] <= 100:  # noqa: PLR2004 - percent
        raise StripeProblem("percent_off must be above 0 and at most 100.", param="percent_off")
    if (params.get("duration") == "repeating") != ("duration_in_months" in params):
        raise StripeProblem(
            "duration_in_months must be given when duration is repeating, and only then.",
            param="duration_in_months",
        )


@route("GET", "/v1/coupons/{coupon}")
def retrieve_coupon(sim: Simulator, call: Call) -> Object:
    return refreshed(sim, sim.state.get("coupon", call.path["coupon"]))


@route("POST", "/v1/coupons/{coupon}")
def update_coupon(sim: Simulator, call: Call) -> Object:
    coupon = sim.state.get("coupon", call.path["coupon"])
    with sim.changing(coupon, "coupon.updated"):
        set_given(coupon, call.params, ("name",))
        merge_metadata(coupon, call.params)
    return coupon


@route("DELETE", "/v1/coupons/{coupon}")
def delete_coupon(sim: Simulator, call: Call) -> Object:
    """Discounts that were given keep working."""
    coupon = sim.state.get("coupon", call.path["coupon"])
    coupon["valid"] = False
    sim.state.remove("coupon", coupon["id"])
    sim.emit("coupon.deleted", coupon)
    return {"id": coupon["id"], "object": "coupon", "deleted": True}


@route("GET", "/v1/coupons")
def list_coupons(sim: Simulator, call: Call) -> Object:
    return page(call, [refreshed(sim, one) for one in sim.state.all("coupon")])


def refreshed(sim: Simulator, coupon: Object) -> Object:
    """With `valid` as of now."""
    used_up = coupon["max_redemptions"] is not None and coupon["times_redeemed"] >= coupon["max_redemptions"]
    past = coupon["redeem_by"] is not None and coupon["redeem_by"] <= sim.now()
    coupon["valid"] = not (used_up or past)
    return coupon


@route("POST", "/v1/promotion_codes")
def create_promotion_code(sim: Simulator, call: Call) -> Object:
    params = call.params
    coupon = sim.state.get("coupon", params["promotion"]["coupon"], param="promotion[coupon]")
    code = params.get("code") or sim.state.new_token(8).upper()
    for other in sim.state.where("promotion_code", active=True):
        if other["code"].lower() == code.lower() and other["customer"] in (None, params.get("customer")):
            raise StripeProblem(
                "An active promotion code with `code: " + code + "` already exists.",
                code="resource_already_exists",
                param="code",
            )
    if params.get("customer"):
        sim.state.get("customer", params["customer"], param="customer")
    restrictions = params.get("restrictions", {})
    promotion = sim.state.add(
        {
            "id": sim.state.new_id("promo", 24),
            "object": "promotion_code",
            "active": params.get("active", True),
            "code": code,
            "created": sim.now(),
            "customer": params.get("customer"),
            "customer_account": None,
            "expires_at": params.get("expires_at"),
            "livemode": False,
            "max_redemptions": params.get("max_redemptions"),
            "metadata": params.get("metadata") or {},
            "promotion": {"type": "coupon", "coupon": coupon["id"]},
            "restrictions": {
                "first_time_transaction": restrictions.get("first_time_transaction", False),
                "minimum_amount": restrictions.get("minimum_amount"),
                "minimum_amount_currency": restrictions.get("minimum_amount_currency"),
            },
            "times_redeemed": 0,
        }
    )
    sim.emit("promotion_code.created", promotion)
    return promotion


@route("GET", "/v1/promotion_codes/{promotion_code}")
def retrieve_promotion_code(sim: Simulator, call: Call) -> Object:
    return sim.state.get("promotion_code", call.path["promotion_code"])


@route("POST", "/v1/promotion_codes/{promotion_code}")
def update_promotion_code(sim: Simulator, call: Call) -> Object:
    promotion = sim.state.get("promotion_code", call.path["promotion_code"])
    with sim.changing(promotion, "promotion_code.updated"):
        set_given(promotion, call.params, ("active",))
        merge_metadata(promotion, call.params)
    return promotion


@route("GET", "/v1/promotion_codes")
def list_promotion_codes(sim: Simulator, call: Call) -> Object:
    wanted = call.params
    found = [
        one
        for one in sim.state.all("promotion_code")
        if wanted.get("active") in (None, one["active"])
        and (wanted.get("code") or one["code"]).lower() == one["code"].lower()
        and wanted.get("coupon") in (None, one["promotion"]["coupon"])
        and wanted.get("customer") in (None, one["customer"])
    ]
    return page(call, found)


def redeemable_code(sim: Simulator, identifier: str, customer: str | None, param: str) -> Object:
    """A promotion code that this customer may use now. Raises the refusal Stripe gives."""
    promotion = sim.state.find("promotion_code", identifier)
    if promotion is None:
        raise no_such("promotion code", identifier, param=param)
    now = sim.now(customer)
    if not promotion["active"]:
        raise StripeProblem("This promotion code is not active.", code="promotion_code_inactive", param=param)
    if promotion["expires_at"] is not None and promotion["expires_at"] <= now:
        raise StripeProblem("This promotion code has expired.", code="promotion_code_expired", param=param)
    used = promotion["times_redeemed"]
    if promotion["max_redemptions"] is not None and used >= promotion["max_redemptions"]:
        raise StripeProblem(
            "This promotion code has been fully redeemed.", code="promotion_code_max_redemptions", param=param
        )
    if promotion["customer"] not in (None, customer):
        raise StripeProblem(
            "This promotion code cannot be redeemed by this customer.", code="promotion_code_invalid", param=param
        )
    if promotion["restrictions"]["first_time_transaction"] and has_paid(sim, customer):
        raise StripeProblem(
            "This promotion code cannot be redeemed because the associated customer has prior transactions.",
            code="customer_max_redemptions",
            param=param,
        )
    return promotion


def has_paid(sim: Simulator, customer: str | None) -> bool:
    return any(one["amount_paid"] > 0 for one in sim.state.where("invoice", customer=customer, status="paid"))


def redeemable_coupon(sim: Simulator, identifier: str, currency: str | None, param: str) -> Object:
    coupon = sim.state.get("coupon", identifier, param=param)
    if not refreshed(sim, coupon)["valid"]:
        raise StripeProblem(
            f"Coupon expired or fully redeemed: '{identifier}'", code="coupon_expired", param=param
        )
    if coupon["currency"] and currency and coupon["currency"] != currency:
        raise StripeProblem(
            f"The coupon's currency ({coupon['currency']}) differs from the subscription's ({currency}).",
            param=param,
        )
    return coupon
