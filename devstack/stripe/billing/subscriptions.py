"""Operations on subscriptions."""

from typing import Any

from devstack.stripe.billing import discounts, moving, standing  # noqa: F401 - they listen
from devstack.stripe.billing.ending import end_subscription
from devstack.stripe.billing.starting import start
from devstack.stripe.billing.updating import update
from devstack.stripe.paging import in_range, page
from devstack.stripe.problems import StripeProblem, no_such
from devstack.stripe.routes import Call, route
from devstack.stripe.search import search
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


@route("POST", "/v1/subscriptions")
def create_subscription(sim: Simulator, call: Call) -> Object:
    params = call.params
    if "customer" not in params:
        raise StripeProblem("Missing required param: customer.", code="parameter_missing", param="customer")
    customer = sim.state.get("customer", params["customer"], param="customer")
    return start(sim, customer, params, behavior=params.get("payment_behavior", "allow_incomplete"))


@route("GET", "/v1/subscriptions/{subscription_exposed_id}")
def retrieve_subscription(sim: Simulator, call: Call) -> Object:
    return of_path(sim, call)


def of_path(sim: Simulator, call: Call) -> Object:
    return sim.state.get("subscription", next(iter(call.path.values())))


@route("POST", "/v1/subscriptions/{subscription_exposed_id}")
def update_subscription(sim: Simulator, call: Call) -> Object:
    sub = of_path(sim, call)
    update(sim, sub, call.params)
    return sub


@route("DELETE", "/v1/subscriptions/{subscription_exposed_id}")
def cancel_subscription(sim: Simulator, call: Call) -> Object:
    sub = of_path(sim, call)
    if sub["status"] in ("canceled", "incomplete_expired"):
        raise no_such("subscription", sub["id"])
    params = call.params
    if "cancellation_details" in params:
        given = {name: value or None for name, value in params["cancellation_details"].items()}
        sub["cancellation_details"] = {**sub["cancellation_details"], **given}
    end_subscription(
        sim,
        sub,
        reason="cancellation_requested",
        invoice_now=params.get("invoice_now", False),
        prorate=params.get("prorate", False),
    )
    return sub


@route("GET", "/v1/subscriptions")
def list_subscriptions(sim: Simulator, call: Call) -> Object:
    return page(call, [one for one in sim.state.all("subscription") if _listed(one, call.params)])


def _listed(sub: Object, wanted: dict[str, Any]) -> bool:
    status = wanted.get("status")
    if status is None:
        fits = sub["status"] != "canceled"
    elif status == "ended":
        fits = sub["status"] in ("canceled", "incomplete_expired")
    else:
        fits = status in ("all", sub["status"])
    prices = [item["price"]["id"] for item in sub["items"]["data"]]
    if "customer" not in wanted and "test_clock" not in wanted and sub["test_clock"] is not None:
        fits = False
    return (
        fits
        and wanted.get("customer") in (None, sub["customer"])
        and wanted.get("test_clock") in (None, sub["test_clock"])
        and wanted.get("collection_method") in (None, sub["collection_method"])
        and (wanted.get("price") is None or wanted["price"] in prices)
        and all(
            _in(bounds, item[name])
            for name, bounds in wanted.items()
            if name in ("current_period_start", "current_period_end")
            for item in sub["items"]["data"]
        )
    )


def _in(bounds: Any, moment: int) -> bool:
    return in_range(moment, bounds)


@route("GET", "/v1/subscriptions/search")
def search_subscriptions(sim: Simulator, call: Call) -> Object:
    return search(call, sim.state.all("subscription"))


@route("DELETE", "/v1/subscriptions/{subscription_exposed_id}/discount")
def delete_discount(sim: Simulator, call: Call) -> Object:
    sub = of_path(sim, call)
    if not sub["discounts"]:
        raise StripeProblem("The subscription has no discount.", status=404, code="resource_missing")
    gone = sim.state.get("discount", sub["discounts"][-1])
    with sim.changing(sub, "customer.subscription.updated"):
        discounts.end(sim, gone["id"])
    return {**{name: value for name, value in gone.items() if not name.startswith("_")}, "deleted": True}


@route("POST", "/v1/subscriptions/{subscription}/migrate")
def migrate_subscription(sim: Simulator, call: Call) -> Object:
    sub = of_path(sim, call)
    mode = call.params["billing_mode"]
    if mode["type"] != "flexible":
        raise StripeProblem("A subscription can only be migrated to flexible.", param="billing_mode[type]")
    with sim.changing(sub, "customer.subscription.updated"):
        sub["billing_mode"] = {
            "type": "flexible",
            "flexible": {"proration_discounts": "included", **mode.get("flexible", {})},
            "updated_at": sim.now(sub["customer"]),
        }
    return sub
