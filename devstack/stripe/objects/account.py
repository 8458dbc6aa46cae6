"""The account itself."""

from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import ACCOUNT_ID, Simulator
from devstack.stripe.state import Object


@route("GET", "/v1/account")
def own_account(sim: Simulator, _: Call) -> Object:
    return {
        "id": ACCOUNT_ID,
        "object": "account",
        "business_profile": {"name": "Simulated account", "url": None, "support_email": None},
        "business_type": "company",
        "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": True,
        "country": "US",
        "created": sim.state.born,
        "default_currency": "usd",
        "details_submitted": True,
        "email": "owner@example.test",
        "metadata": {},
        "payouts_enabled": True,
        "type": "standard",
    }


@route("GET", "/v1/accounts/{account}")
def account_by_id(sim: Simulator, call: Call) -> Object:
    if call.path["account"] != ACCOUNT_ID:
        raise StripeProblem(
            "The provided key does not have access to this account.", status=403, code="account_invalid"
        )
    return own_account(sim, call)
