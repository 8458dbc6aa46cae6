"""Customers."""

from devstack.stripe.events import url_of
from devstack.stripe.fields import merge_metadata, merged, set_given
from devstack.stripe.paging import listing, page
from devstack.stripe.problems import StripeProblem
from devstack.stripe.rendering import field_holds, shown_when_expanded
from devstack.stripe.routes import Call, route
from devstack.stripe.search import search
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object, State, deleted

CUSTOMERS_OF_A_CLOCK = 3
PLAIN = (
    "balance",
    "business_name",
    "description",
    "email",
    "individual_name",
    "invoice_prefix",
    "name",
    "next_invoice_sequence",
    "phone",
    "preferred_locales",
)
ADDRESS = ("city", "country", "line1", "line2", "postal_code", "state")


@route("POST", "/v1/customers")
def create_customer(sim: Simulator, call: Call) -> Object:
    given = call.params
    clock = given.get("test_clock")
    if clock is not None:
        sim.state.get("test_helpers.test_clock", clock, param="test_clock")
        if len(sim.state.where("customer", test_clock=clock)) >= CUSTOMERS_OF_A_CLOCK:
            raise StripeProblem("A test clock can have at most 3 customers.", param="test_clock")
    made = _blank(sim.state.new_id("cus"), sim.now() if clock is None else sim.test_clocks[clock].now(), clock)
    made["metadata"] = merged({}, given.get("metadata", {}))
    _take_over(made, given)
    sim.state.add(made)
    sim.tell("customer.created", made)
    sim.emit("customer.created", made)
    return made


def _blank(identifier: str, now: int, clock: str | None) -> Object:
    return {
        "id": identifier,
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": now,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": identifier[-8:].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": clock,
    }


def _take_over(customer: Object, given: Object) -> None:
    """`_payment_method` and `_tax_ids` are left for those who keep these."""
    set_given(customer, given, PLAIN)
    if "tax_exempt" in given:
        customer["tax_exempt"] = given["tax_exempt"] or "none"
    if "address" in given:
        customer["address"] = _address(given["address"])
    if "shipping" in given:
        shipping = given["shipping"] or None
        customer["shipping"] = shipping and {
            "phone": None,
            **shipping,
            "address": _address(shipping["address"]),
        }
    if "invoice_settings" in given:
        set_given(customer["invoice_settings"], given["invoice_settings"], given["invoice_settings"])
    for name in ("payment_method", "source", "tax_id_data", "tax"):
        if name in given:
            customer[f"_given_{name}"] = given[name]


def _address(given: Object | str) -> Object | None:
    return None if not isinstance(given, dict) else {name: given.get(name) or None for name in ADDRESS}


@route("GET", "/v1/customers/{customer}")
def retrieve_customer(sim: Simulator, call: Call) -> Object:
    found = sim.state.find("customer", call.path["customer"])
    if found is None and sim.state.former("customer", call.path["customer"]):
        return deleted("customer", call.path["customer"])
    return sim.state.get("customer", call.path["customer"])


@route("POST", "/v1/customers/{customer}")
def update_customer(sim: Simulator, call: Call) -> Object:
    customer = sim.state.get("customer", call.path["customer"])
    with sim.changing(customer, "customer.updated"):
        _take_over(customer, call.params)
        merge_metadata(customer, call.params)
        sim.tell("customer.updated", customer)
    return customer


@route("DELETE", "/v1/customers/{customer}")
def delete_customer(sim: Simulator, call: Call) -> Object:
    customer = sim.state.get("customer", call.path["customer"])
    # its subscriptions end at once, by whoever keeps them
    sim.tell("customer.deleted", customer)
    sim.state.remove("customer", customer["id"])
    sim.emit("customer.deleted", customer)
    return deleted("customer", customer["id"])


@route("GET", "/v1/customers")
def list_customers(sim: Simulator, call: Call) -> Object:
    # without a clock named, customers of test clocks are left out, as with Stripe
    clock = call.params.get("test_clock")
    found = [one for one in sim.state.all("customer") if one["test_clock"] == clock]
    if "email" in call.params:
        found = [one for one in found if one["email"] == call.params["email"]]
    return page(call, found)


@route("GET", "/v1/customers/search")
def search_customers(sim: Simulator, call: Call) -> Object:
    return search(call, sim.state.all("customer"))


def _subscriptions(state: State, customer: Object) -> Object:
    live = [one for one in state.where("subscription", customer=customer["id"]) if one["status"] != "canceled"]
    return listing(f"{url_of(customer)}/subscriptions", list(reversed(live)))


def _tax(_: State, customer: Object) -> Object:
    address = customer["address"] or {}
    country = address.get("country")
    return {
        "automatic_tax": "supported" if country else "unrecognized_location",
        "ip_address": None,
        "location": country and {"country": country, "source": "billing_address", "state": address.get("state")},
        "provider": "stripe",
    }


def _tax_ids(state: State, customer: Object) -> Object:
    return listing(f"{url_of(customer)}/tax_ids", state.where("tax_id", customer=customer["id"]))


shown_when_expanded("customer", "subscriptions", _subscriptions)
shown_when_expanded("customer", "tax", _tax)
shown_when_expanded("customer", "tax_ids", _tax_ids)
shown_when_expanded("customer", "sources", lambda _, one: listing(f"{url_of(one)}/sources", []))
field_holds("test_clock", "test_helpers.test_clock")
field_holds("default_payment_method", "payment_method")
