"""Cards given with a customer: `payment_method`, `source`, and the default of `invoice_settings`."""

from devstack.stripe.billing.cards import attach, own_method
from devstack.stripe.problems import StripeProblem
from devstack.stripe.simulator import Simulator, listen
from devstack.stripe.state import Object


def _take_cards(sim: Simulator, customer: Object) -> None:
    settings = customer["invoice_settings"]
    method = customer.pop("_given_payment_method", None)
    source = customer.pop("_given_source", None)
    if method:
        method = attach(sim, method, customer["id"])["id"]
    if source:
        # an old-style source becomes the card that invoices are charged to
        settings["default_payment_method"] = attach(sim, source, customer["id"], param="source")["id"]
    default = settings["default_payment_method"]
    if default:
        settings["default_payment_method"] = own_method(
            sim, default, customer["id"], param="invoice_settings[default_payment_method]"
        )["id"]


def _take_cards_of_new(sim: Simulator, customer: Object) -> None:
    try:
        _take_cards(sim, customer)
    except StripeProblem:
        # a card that is refused makes no customer
        sim.state.remove("customer", customer["id"])
        raise


listen("customer.created", _take_cards_of_new)
listen("customer.updated", _take_cards)
