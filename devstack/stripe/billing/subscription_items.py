"""Operations on subscription items: each is an update of the subscription."""

from typing import Any

from devstack.stripe.billing.updating import update
from devstack.stripe.paging import page
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

OF_UPDATE = ("proration_behavior", "proration_date", "payment_behavior")
OF_ITEM = ("price", "price_data", "quantity", "metadata", "tax_rates", "discounts")


def _asked(params: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    found = {name: params[name] for name in OF_UPDATE if name in params}
    return {**found, "items": [{**entry, **{name: params[name] for name in OF_ITEM if name in params}}]}


@route("POST", "/v1/subscription_items")
def create_item(sim: Simulator, call: Call) -> Object:
    sub = sim.state.get("subscription", call.params["subscription"], param="subscription")
    before = {item["id"] for item in sub["items"]["data"]}
    update(sim, sub, _asked(call.params, {}))
    return next((item for item in sub["items"]["data"] if item["id"] not in before), sub["items"]["data"][-1])


@route("GET", "/v1/subscription_items/{item}")
def retrieve_item(sim: Simulator, call: Call) -> Object:
    return sim.state.get("subscription_item", call.path["item"])


@route("GET", "/v1/subscription_items")
def list_items(sim: Simulator, call: Call) -> Object:
    sub = sim.state.get("subscription", call.params["subscription"], param="subscription")
    return page(call, sub["items"]["data"], newest_first=False)


@route("POST", "/v1/subscription_items/{item}")
def update_item(sim: Simulator, call: Call) -> Object:
    item = sim.state.get("subscription_item", call.path["item"])
    sub = sim.state.get("subscription", item["subscription"])
    update(sim, sub, _asked(call.params, {"id": item["id"]}))
    return item


@route("DELETE", "/v1/subscription_items/{item}")
def delete_item(sim: Simulator, call: Call) -> Object:
    item = sim.state.get("subscription_item", call.path["item"])
    sub = sim.state.get("subscription", item["subscription"])
    update(sim, sub, _asked(call.params, {"id": item["id"], "deleted": True}))
    return {"id": item["id"], "object": "subscription_item", "deleted": True}
