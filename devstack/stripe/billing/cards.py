"""Test cards, and the payment methods made of them."""

from dataclasses import dataclass
from typing import Any

from devstack.stripe.fields import merge_metadata
from devstack.stripe.paging import page
from devstack.stripe.problems import StripeProblem, no_such
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


@dataclass(frozen=True)
class Card:
    """What happens with a test card. `attaches` False: already refused when it is saved."""

    last4: str
    brand: str = "visa"
    declines: str | None = None
    """Decline code of every charge."""
    needs_action: bool = False
    attaches: bool = True
    disputed: bool = False


CARDS = {
    "visa": Card("4242"),
    "visa_debit": Card("5556"),
    "mastercard": Card("4444", "mastercard"),
    "amex": Card("0005", "amex"),
    "jcb": Card("0505", "jcb"),
    "chargeCustomerFail": Card("0341", declines="generic_decline"),
    "authenticationRequired": Card("3184", needs_action=True),
    "threeDSecure2Required": Card("3220", needs_action=True),
    "authenticationRequiredOnSetup": Card("3155"),
    "createDispute": Card("0259", disputed=True),
    "chargeDeclined": Card("0002", declines="generic_decline", attaches=False),
    "visa_chargeDeclined": Card("0002", declines="generic_decline", attaches=False),
    "chargeDeclinedInsufficientFunds": Card("9995", declines="insufficient_funds", attaches=False),
    "visa_chargeDeclinedInsufficientFunds": Card("9995", declines="insufficient_funds", attaches=False),
    "chargeDeclinedExpiredCard": Card("0069", declines="expired_card", attaches=False),
}
EXPIRES = (12, 2034)


def card_named(identifier: str) -> Card | None:
    """`pm_card_visa` and `tok_visa` name the same card."""
    for prefix in ("pm_card_", "tok_"):
        if identifier.startswith(prefix):
            return CARDS.get(identifier.removeprefix(prefix))
    return None


def card_of(method: Object) -> Card:
    return CARDS[method["_card"]]


def make_method(sim: Simulator, identifier: str, *, details: Object | None = None) -> Object:
    """A new payment method of a test card (`pm_card_...` or `tok_...`)."""
    card = card_named(identifier)
    if card is None:
        raise no_such("PaymentMethod", identifier, param="payment_method")
    given = details or {}
    return sim.state.add(
        {
            "id": sim.state.new_id("pm", 24),
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": {
                "address": {
                    **dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state")),
                    **(given.get("address") or {}),
                },
                "email": given.get("email"),
                "name": given.get("name"),
                "phone": given.get("phone"),
                "tax_id": None,
            },
            "card": {
                "brand": card.brand,
                "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
                "country": "US",
                "display_brand": card.brand,
                "exp_month": EXPIRES[0],
                "exp_year": EXPIRES[1],
                "fingerprint": f"print{card.last4}",
                "funding": "credit",
                "generated_from": None,
                "last4": card.last4,
                "networks": {"available": [card.brand], "preferred": None},
                "regulated_status": "unregulated",
                "three_d_secure_usage": {"supported": True},
                "wallet": None,
            },
            "created": sim.now(),
            "customer": None,
            "customer_account": None,
            "livemode": False,
            "metadata": {},
            "type": "card",
            "_card": identifier.removeprefix("pm_card_").removeprefix("tok_"),
        }
    )


def attach(sim: Simulator, identifier: str, customer: str, *, param: str = "payment_method") -> Object:
    """A payment method of this customer: a test card's name makes a new one. Raises for cards that refuse."""
    method = sim.state.find("payment_method", identifier)
    card = card_of(method) if method else card_named(identifier)
    if card is None:
        raise no_such("PaymentMethod", identifier, param=param)
    if not card.attaches:
        raise declined(card.declines or "generic_decline")
    if method is None:
        method = make_method(sim, identifier)
    if method["customer"] not in (None, customer):
        raise StripeProblem("The payment method is attached to another customer.", param=param)
    if method["customer"] is None:
        method["customer"] = customer
        sim.emit("payment_method.attached", method)
    return method


def own_method(sim: Simulator, identifier: str, customer: str, *, param: str) -> Object:
    """A payment method by id that already belongs to the customer, or a test card's name (attached at once)."""
    method = sim.state.find("payment_method", identifier)
    if method is None and card_named(identifier):
        return attach(sim, identifier, customer, param=param)
    if method is None:
        raise no_such("PaymentMethod", identifier, param=param)
    if method["customer"] != customer:
        raise StripeProblem(
            f"The customer does not have a payment method with the ID {identifier}. The payment method must be "
            "attached to the customer.",
            code="resource_missing",
            param=param,
        )
    return method


def declined(code: str, **more: Any) -> StripeProblem:
    """The refusal of a card."""
    sentences = {
        "insufficient_funds": "Your card has insufficient funds.",
        "expired_card": "Your card has expired.",
        "authentication_required": "Your card was declined. This transaction requires authentication.",
    }
    return StripeProblem(
        sentences.get(code, "Your card was declined."),
        status=402,
        kind="card_error",
        code=code if code in ("expired_card", "authentication_required") else "card_declined",
        decline_code=code,
        **more,
    )


@route("POST", "/v1/payment_methods")
def create_method(sim: Simulator, call: Call) -> Object:
    token = call.params.get("card", {}).get("token")
    if call.params.get("type") != "card" or token is None:
        raise StripeProblem(
            "The simulator makes payment methods of card[token]=tok_... only.", param="card[token]"
        )
    method = make_method(sim, token, details=call.params.get("billing_details"))
    merge_metadata(method, call.params)
    return method


@route("GET", "/v1/payment_methods/{payment_method}")
def retrieve_method(sim: Simulator, call: Call) -> Object:
    return sim.state.get("payment_method", call.path["payment_method"])


@route("POST", "/v1/payment_methods/{payment_method}/attach")
def attach_method(sim: Simulator, call: Call) -> Object:
    customer = sim.state.get("customer", call.params["customer"], param="customer")
    return attach(sim, call.path["payment_method"], customer["id"])


@route("POST", "/v1/payment_methods/{payment_method}/detach")
def detach_method(sim: Simulator, call: Call) -> Object:
    method = sim.state.get("payment_method", call.path["payment_method"])
    owner = method["customer"]
    if owner is None:
        raise StripeProblem("The payment method is not attached to a customer.", param="payment_method")
    method["customer"] = None
    customer = sim.state.find("customer", owner)
    if customer and customer["invoice_settings"]["default_payment_method"] == method["id"]:
        with sim.changing(customer, "customer.updated"):
            customer["invoice_settings"]["default_payment_method"] = None
    for sub in sim.state.where("subscription", default_payment_method=method["id"]):
        with sim.changing(sub, "customer.subscription.updated"):
            sub["default_payment_method"] = None
    sim.emit("payment_method.detached", method)
    return method


@route("GET", "/v1/payment_methods")
def list_methods(sim: Simulator, call: Call) -> Object:
    wanted = call.params.get("customer")
    return page(call, [one for one in sim.state.all("payment_method") if wanted in (None, one["customer"])])


@route("GET", "/v1/customers/{customer}/payment_methods")
def list_methods_of_customer(sim: Simulator, call: Call) -> Object:
    sim.state.get("customer", call.path["customer"])
    return page(call, sim.state.where("payment_method", customer=call.path["customer"]))


@route("GET", "/v1/customers/{customer}/payment_methods/{payment_method}")
def retrieve_method_of_customer(sim: Simulator, call: Call) -> Object:
    return own_method(sim, call.path["payment_method"], call.path["customer"], param="payment_method")
