"""Entitlements: features of products, and what a customer's live subscriptions come to."""

from devstack.stripe.fields import merge_metadata, set_given
from devstack.stripe.paging import listing, page
from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator, listen
from devstack.stripe.state import Object

FEATURE = "entitlements.feature"
ENTITLED = ("active", "trialing", "past_due")


@route("POST", "/v1/entitlements/features")
def create_feature(sim: Simulator, call: Call) -> Object:
    key = call.params["lookup_key"]
    if sim.state.where(FEATURE, lookup_key=key):
        raise StripeProblem(f"A feature with the lookup_key {key} exists.", param="lookup_key")
    return sim.state.add(
        {
            "id": sim.state.new_id("feat", 24),
            "object": FEATURE,
            "active": True,
            "livemode": False,
            "lookup_key": key,
            "metadata": call.params.get("metadata") or {},
            "name": call.params["name"],
        }
    )


@route("GET", "/v1/entitlements/features")
def list_features(sim: Simulator, call: Call) -> Object:
    wanted = call.params
    found = [
        one
        for one in sim.state.all(FEATURE)
        if wanted.get("lookup_key") in (None, one["lookup_key"])
        and wanted.get("archived") in (None, not one["active"])
    ]
    return page(call, found)


@route("GET", "/v1/entitlements/features/{id}")
def retrieve_feature(sim: Simulator, call: Call) -> Object:
    return sim.state.get(FEATURE, call.path["id"])


@route("POST", "/v1/entitlements/features/{id}")
def update_feature(sim: Simulator, call: Call) -> Object:
    feature = sim.state.get(FEATURE, call.path["id"])
    set_given(feature, call.params, ("active", "name"))
    merge_metadata(feature, call.params)
    return feature


@route("POST", "/v1/products/{product}/features")
def attach_feature(sim: Simulator, call: Call) -> Object:
    product = sim.state.get("product", call.path["product"])
    feature = sim.state.get(FEATURE, call.params["entitlement_feature"], param="entitlement_feature")
    made = sim.state.add(
        {
            "id": sim.state.new_id("prodft"),
            "object": "product_feature",
            "entitlement_feature": feature,
            "livemode": False,
            "_product": product["id"],
        }
    )
    for customer in sim.state.all("customer"):
        _summarise(sim, customer["id"])
    return made


@route("GET", "/v1/products/{product}/features")
def list_product_features(sim: Simulator, call: Call) -> Object:
    return page(call, sim.state.where("product_feature", _product=call.path["product"]))


@route("DELETE", "/v1/products/{product}/features/{id}")
def detach_feature(sim: Simulator, call: Call) -> Object:
    found = sim.state.get("product_feature", call.path["id"])
    sim.state.remove("product_feature", found["id"])
    return {"id": found["id"], "object": "product_feature", "deleted": True}


@route("GET", "/v1/entitlements/active_entitlements")
def list_entitlements(sim: Simulator, call: Call) -> Object:
    sim.state.get("customer", call.params["customer"], param="customer")
    return page(call, entitlements_of(sim, call.params["customer"]), newest_first=False)


def entitlements_of(sim: Simulator, customer: str) -> list[Object]:
    products = {
        item["price"]["product"]
        for sub in sim.state.where("subscription", customer=customer)
        if sub["status"] in ENTITLED
        for item in sub["items"]["data"]
    }
    features = {
        one["entitlement_feature"]["id"]: one["entitlement_feature"]
        for one in sim.state.all("product_feature")
        if one["_product"] in products
    }
    return [
        {
            "id": f"ent_{customer[4:12]}{feature['id'][5:17]}",
            "object": "entitlements.active_entitlement",
            "feature": feature["id"],
            "livemode": False,
            "lookup_key": feature["lookup_key"],
        }
        for feature in sorted(features.values(), key=lambda one: one["lookup_key"])
    ]


def _summarise(sim: Simulator, customer: str) -> None:
    """Tell of a customer's entitlements when they are not what they were."""
    now = entitlements_of(sim, customer)
    kept: dict[str, list[Object]] = sim.features.setdefault("entitlements", {})
    if kept.get(customer, []) == now:
        return
    kept[customer] = now
    sim.emit(
        "entitlements.active_entitlement_summary.updated",
        {
            "object": "entitlements.active_entitlement_summary",
            "customer": customer,
            "entitlements": listing(f"/v1/customer/{customer}/entitlements", now),
            "livemode": False,
        },
    )


def _moved(sim: Simulator, sub: Object) -> None:
    _summarise(sim, sub["customer"])


for topic in ("subscription.moved", "subscription.ended", "subscription.renewed"):
    listen(topic, _moved)
