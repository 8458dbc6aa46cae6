"""Prices: immutable in what they charge."""

from decimal import Decimal

from devstack.stripe.fields import merge_metadata, merged, set_given
from devstack.stripe.objects.price_rules import check_price
from devstack.stripe.paging import page
from devstack.stripe.problems import StripeProblem
from devstack.stripe.rendering import shown_when_expanded
from devstack.stripe.routes import Call, route
from devstack.stripe.search import search
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

MOST_LOOKUP_KEYS = 10


@route("POST", "/v1/prices")
def create_price(sim: Simulator, call: Call) -> Object:
    given = dict(call.params)
    if ("product" in given) == ("product_data" in given):
        raise StripeProblem(
            "You must provide exactly one of product and product_data.", code="parameter_missing", param="product"
        )
    check_price(sim.state, given)
    _check_lookup_key(sim, given, own=None)
    if "product_data" in given:
        from devstack.stripe.objects.products import make_product

        given["product"] = make_product(sim, given["product_data"])["id"]
    return make_price(sim, given)


def make_price(sim: Simulator, given: Object) -> Object:
    """Raises StripeProblem where the rules are broken; nothing is made then."""
    check_price(sim.state, given)
    sim.state.get("product", given["product"], param="product")
    tiers = [_tier(one) for one in given["tiers"]] if "tiers" in given else None
    amount, exact = _amounts(given, "unit_amount")
    made: Object = {
        "id": sim.state.new_id("price", 24),
        "object": "price",
        "active": given.get("active", True),
        "billing_scheme": given.get("billing_scheme", "per_unit"),
        "created": sim.now(),
        "currency": given["currency"].lower(),
        "custom_unit_amount": _custom(given),
        "livemode": False,
        "lookup_key": None,
        "metadata": merged({}, given.get("metadata", {})),
        "nickname": given.get("nickname"),
        "product": given["product"],
        "recurring": _recurring(given),
        "tax_behavior": given.get("tax_behavior", "unspecified"),
        "tiers_mode": given.get("tiers_mode"),
        "transform_quantity": given.get("transform_quantity"),
        "type": "recurring" if "recurring" in given else "one_time",
        "unit_amount": amount,
        "unit_amount_decimal": exact,
    }
    if tiers is not None:
        made["tiers"] = tiers
    _take_lookup_key(sim, made, given)
    sim.state.add(made)
    sim.emit("price.created", made)
    return made


@route("GET", "/v1/prices/{price}")
def retrieve_price(sim: Simulator, call: Call) -> Object:
    return sim.state.get("price", call.path["price"])


@route("POST", "/v1/prices/{price}")
def update_price(sim: Simulator, call: Call) -> Object:
    price = sim.state.get("price", call.path["price"])
    given = call.params
    behavior = given.get("tax_behavior", price["tax_behavior"])
    if behavior != price["tax_behavior"] and price["tax_behavior"] != "unspecified":
        raise StripeProblem("Once specified as either inclusive or exclusive, tax_behavior cannot be changed.")
    _check_lookup_key(sim, given, own=price["id"])
    with sim.changing(price, "price.updated"):
        set_given(price, given, ("active", "nickname", "tax_behavior"))
        merge_metadata(price, given)
        _take_lookup_key(sim, price, given)
    return price


@route("GET", "/v1/prices")
def list_prices(sim: Simulator, call: Call) -> Object:
    given = call.params
    if len(given.get("lookup_keys", ())) > MOST_LOOKUP_KEYS:
        raise StripeProblem(f"You can pass at most {MOST_LOOKUP_KEYS} lookup keys.", param="lookup_keys")
    found = sim.state.all("price")
    for name in ("active", "currency", "product", "type"):
        if name in given:
            found = [one for one in found if one[name] == given[name]]
    if "lookup_keys" in given:
        found = [one for one in found if one["lookup_key"] in given["lookup_keys"]]
    for name, value in given.get("recurring", {}).items():
        found = [one for one in found if one["recurring"] and one["recurring"][name] == value]
    return page(call, found)


@route("GET", "/v1/prices/search")
def search_prices(sim: Simulator, call: Call) -> Object:
    return search(call, sim.state.all("price"))


def _recurring(given: Object) -> Object | None:
    if "recurring" not in given:
        return None
    blank = {"interval_count": 1, "meter": None, "trial_period_days": None, "usage_type": "licensed"}
    return {**blank, **given["recurring"]}


def _custom(given: Object) -> Object | None:
    if "custom_unit_amount" not in given:
        return None
    return {name: given["custom_unit_amount"].get(name) for name in ("maximum", "minimum", "preset")}


def _tier(given: Object) -> Object:
    tier: Object = {}
    for name in ("flat_amount", "unit_amount"):
        tier[name], tier[f"{name}_decimal"] = _amounts(given, name)
    tier["up_to"] = None if given["up_to"] == "inf" else given["up_to"]
    return tier


def _amounts(given: Object, name: str) -> tuple[int | None, Decimal | None]:
    """Whole minor units where it is whole, and the exact amount."""
    exact = given.get(f"{name}_decimal")
    if exact is None:
        amount = given.get(name)
        return amount, None if amount is None else Decimal(amount)
    return (int(exact), exact) if exact == exact.to_integral_value() else (None, exact)


def _check_lookup_key(sim: Simulator, given: Object, *, own: str | None) -> None:
    key = given.get("lookup_key")
    for other in sim.state.where("price", lookup_key=key) if key else ():
        if other["id"] != own and not given.get("transfer_lookup_key"):
            raise StripeProblem(
                f"A price (`{other['id']}`) already uses that lookup key.",
                code="resource_already_exists",
                param="lookup_key",
            )


def _take_lookup_key(sim: Simulator, price: Object, given: Object) -> None:
    if "lookup_key" not in given:
        return
    key = given["lookup_key"] or None
    for other in sim.state.where("price", lookup_key=key) if key else ():
        if other["id"] != price["id"]:
            with sim.changing(other, "price.updated"):
                other["lookup_key"] = None
    price["lookup_key"] = key


shown_when_expanded("price", "tiers")
shown_when_expanded("price", "currency_options", lambda _, __: {})
