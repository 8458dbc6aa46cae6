"""Products."""

from devstack.stripe.fields import merge_metadata, merged, set_given
from devstack.stripe.objects.prices import make_price
from devstack.stripe.paging import page
from devstack.stripe.problems import StripeProblem
from devstack.stripe.rendering import field_holds
from devstack.stripe.routes import Call, route
from devstack.stripe.search import search
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

PLAIN = (
    "active",
    "description",
    "name",
    "package_dimensions",
    "shippable",
    "statement_descriptor",
    "tax_code",
    "tax_details",
    "unit_label",
    "url",
)
MOST_FEATURES = 15


@route("POST", "/v1/products")
def create_product(sim: Simulator, call: Call) -> Object:
    given = call.params
    made = make_product(sim, given)
    if "default_price_data" in given:
        made["default_price"] = make_price(sim, {**given["default_price_data"], "product": made["id"]})["id"]
    return made


def make_product(sim: Simulator, given: Object) -> Object:
    """Raises StripeProblem when its id is taken."""
    identifier = given.get("id") or sim.state.new_id("prod")
    if sim.state.find("product", identifier) is not None:
        raise StripeProblem("Product already exists.", code="resource_already_exists", param="id")
    _check_features(given)
    now = sim.now()
    made: Object = {
        "id": identifier,
        "object": "product",
        "active": True,
        "created": now,
        "default_price": None,
        "description": None,
        "images": given.get("images", []),
        "livemode": False,
        "marketing_features": given.get("marketing_features", []),
        "metadata": merged({}, given.get("metadata", {})),
        "name": "",
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": given.get("type", "service"),
        "unit_label": None,
        "updated": now,
        "url": None,
    }
    set_given(made, given, PLAIN)
    sim.state.add(made)
    sim.emit("product.created", made)
    return made


@route("GET", "/v1/products/{id}")
def retrieve_product(sim: Simulator, call: Call) -> Object:
    return sim.state.get("product", call.path["id"])


@route("POST", "/v1/products/{id}")
def update_product(sim: Simulator, call: Call) -> Object:
    product = sim.state.get("product", call.path["id"])
    given = call.params
    _check_features(given)
    if price_id := given.get("default_price"):
        price = sim.state.get("price", price_id, param="default_price")
        if price["product"] != product["id"]:
            raise StripeProblem(f"The price {price_id} does not belong to this product.", param="default_price")
    with sim.changing(product, "product.updated"):
        set_given(product, given, (*PLAIN, "default_price"))
        for name in ("images", "marketing_features"):
            if name in given:
                product[name] = given[name] or []
        merge_metadata(product, given)
        product["updated"] = sim.now()
    return product


@route("GET", "/v1/products")
def list_products(sim: Simulator, call: Call) -> Object:
    given = call.params
    found = sim.state.all("product")
    for name in ("active", "shippable", "url", "type"):
        if name in given:
            found = [one for one in found if one[name] == given[name]]
    if "ids" in given:
        found = [one for one in found if one["id"] in given["ids"]]
    return page(call, found)


@route("GET", "/v1/products/search")
def search_products(sim: Simulator, call: Call) -> Object:
    return search(call, sim.state.all("product"))


@route("DELETE", "/v1/products/{id}")
def delete_product(sim: Simulator, call: Call) -> Object:
    product = sim.state.get("product", call.path["id"])
    if sim.state.where("price", product=product["id"]):
        raise StripeProblem("This product cannot be deleted because it has one or more user-created prices.")
    sim.state.remove("product", product["id"])
    sim.emit("product.deleted", product)
    return {"id": product["id"], "object": "product", "deleted": True}


def _check_features(given: Object) -> None:
    if len(given.get("marketing_features") or ()) > MOST_FEATURES:
        raise StripeProblem(f"A product has at most {MOST_FEATURES} features.", param="marketing_features")


field_holds("product", "product")
field_holds("default_price", "price")
