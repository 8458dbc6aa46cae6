"""The customer's balance: negative amounts are credit for invoices to come."""

from devstack.stripe.fields import merge_metadata, set_given
from devstack.stripe.paging import page
from devstack.stripe.problems import StripeProblem, no_such
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

KIND = "customer_balance_transaction"


def change_balance(
    sim: Simulator,
    customer: Object,
    amount: int,
    *,
    kind: str,
    currency: str,
    invoice: str | None = None,
    credit_note: str | None = None,
    description: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Object:
    """Add to the balance (negative: credit) and keep the transaction."""
    with sim.changing(customer, "customer.updated"):
        customer["balance"] = (customer.get("balance") or 0) + amount
        customer["currency"] = customer.get("currency") or currency
    return sim.state.add(
        {
            "id": sim.state.new_id("cbtxn", 24),
            "object": KIND,
            "amount": amount,
            "checkout_session": None,
            "created": sim.now(customer["id"]),
            "credit_note": credit_note,
            "currency": currency,
            "customer": customer["id"],
            "customer_account": None,
            "description": description,
            "ending_balance": customer["balance"],
            "invoice": invoice,
            "livemode": False,
            "metadata": metadata or {},
            "type": kind,
        }
    )


@route("POST", "/v1/customers/{customer}/balance_transactions")
def create_transaction(sim: Simulator, call: Call) -> Object:
    customer = sim.state.get("customer", call.path["customer"])
    params = call.params
    if customer.get("currency") not in (None, params["currency"]):
        raise StripeProblem(
            f"The customer's currency is {customer['currency']}; the transaction is in {params['currency']}.",
            param="currency",
        )
    return change_balance(
        sim,
        customer,
        params["amount"],
        kind="adjustment",
        currency=params["currency"],
        description=params.get("description"),
        metadata=params.get("metadata") or {},
    )


@route("GET", "/v1/customers/{customer}/balance_transactions")
def list_transactions(sim: Simulator, call: Call) -> Object:
    sim.state.get("customer", call.path["customer"])
    wanted = call.params.get("invoice")
    found = [
        one for one in sim.state.where(KIND, customer=call.path["customer"]) if wanted in (None, one["invoice"])
    ]
    return page(call, found)


def _transaction(sim: Simulator, call: Call) -> Object:
    found = sim.state.get(KIND, call.path["transaction"])
    if found["customer"] != call.path["customer"]:
        raise no_such(KIND, call.path["transaction"])
    return found


@route("GET", "/v1/customers/{customer}/balance_transactions/{transaction}")
def retrieve_transaction(sim: Simulator, call: Call) -> Object:
    return _transaction(sim, call)


@route("POST", "/v1/customers/{customer}/balance_transactions/{transaction}")
def update_transaction(sim: Simulator, call: Call) -> Object:
    found = _transaction(sim, call)
    set_given(found, call.params, ("description",))
    merge_metadata(found, call.params)
    return found
