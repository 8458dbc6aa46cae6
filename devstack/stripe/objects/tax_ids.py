"""Tax ids of customers."""

from devstack.stripe.paging import page
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator, listen
from devstack.stripe.state import Object


def _make(sim: Simulator, customer: Object, given: Object) -> Object:
    value = given["value"]
    made = sim.state.add(
        {
            "id": sim.state.new_id("txi"),
            "object": "tax_id",
            "country": value[:2].upper() if given["type"] == "eu_vat" else given["type"][:2].upper(),
            "created": sim.now(customer["id"]),
            "customer": customer["id"],
            "customer_account": None,
            "livemode": False,
            "owner": {"type": "customer", "customer": customer["id"], "customer_account": None},
            "type": given["type"],
            "value": value,
            "verification": {"status": "pending", "verified_address": None, "verified_name": None},
        }
    )
    sim.emit("customer.tax_id.created", made)
    return made


@route("POST", "/v1/customers/{customer}/tax_ids")
def create_tax_id(sim: Simulator, call: Call) -> Object:
    return _make(sim, sim.state.get("customer", call.path["customer"]), call.params)


@route("GET", "/v1/customers/{customer}/tax_ids")
def list_tax_ids(sim: Simulator, call: Call) -> Object:
    customer = sim.state.get("customer", call.path["customer"])
    return page(call, sim.state.where("tax_id", customer=customer["id"]))


@route("GET", "/v1/customers/{customer}/tax_ids/{id}")
def retrieve_tax_id(sim: Simulator, call: Call) -> Object:
    return sim.state.get("tax_id", call.path["id"])


@route("DELETE", "/v1/customers/{customer}/tax_ids/{id}")
def delete_tax_id(sim: Simulator, call: Call) -> Object:
    gone = sim.state.get("tax_id", call.path["id"])
    sim.state.remove("tax_id", gone["id"])
    sim.emit("customer.tax_id.deleted", gone)
    return {"id": gone["id"], "object": "tax_id", "deleted": True}


def _of_new_customer(sim: Simulator, customer: Object) -> None:
    for given in customer.pop("_given_tax_id_data", ()):
        _make(sim, customer, given)


listen("customer.created", _of_new_customer)
