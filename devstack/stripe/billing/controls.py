"""Orders of the control API for billing: settings, and what customers and banks do by themselves."""

from dataclasses import asdict, fields
from typing import Any

from devstack.stripe.billing.cards import attach
from devstack.stripe.billing.charging import method_for
from devstack.stripe.billing.invoicing import subscription_of
from devstack.stripe.billing.lifecycle import collect
from devstack.stripe.billing.settings import BillingSettings, settings_of
from devstack.stripe.routes import order
from devstack.stripe.simulator import Simulator

NAMES = {one.name for one in fields(BillingSettings)}


@order("billing_settings")
def change_settings(sim: Simulator, given: dict[str, Any]) -> dict[str, Any]:
    """Change fields of `BillingSettings`; answers all of them."""
    if unknown := given.keys() - NAMES:
        raise ValueError(f"no settings {', '.join(sorted(unknown))}; there are {', '.join(sorted(NAMES))}")
    settings = settings_of(sim)
    for name, value in given.items():
        setattr(settings, name, tuple(value) if name == "retry_days" else value)
    return asdict(settings)


@order("set_card")
def set_card(sim: Simulator, given: dict[str, Any]) -> dict[str, Any]:
    """Make a test card (`card`, such as pm_card_visa) the default of `customer`, as in the portal.

    Subscriptions that name a card of their own get the new one too.
    """
    customer = sim.state.get("customer", given["customer"])
    method = attach(sim, given["card"], customer["id"])
    with sim.changing(customer, "customer.updated"):
        customer["invoice_settings"]["default_payment_method"] = method["id"]
    for sub in sim.state.where("subscription", customer=customer["id"]):
        if sub["default_payment_method"] and sub["status"] != "canceled":
            with sim.changing(sub, "customer.subscription.updated"):
                sub["default_payment_method"] = method["id"]
    return {"payment_method": method["id"]}


@order("pay_hosted_invoice")
def pay_hosted(sim: Simulator, given: dict[str, Any]) -> dict[str, Any]:
    """Pay an open `invoice` on its page, with `card` or the one on file; whoever pays there authenticates."""
    invoice = sim.state.get("invoice", given["invoice"])
    if invoice["status"] not in ("open", "uncollectible"):
        return {"paid": invoice["status"] == "paid"}
    sub = sim.state.find("subscription", subscription_of(invoice) or "")
    method = attach(sim, given["card"], invoice["customer"]) if "card" in given else method_for(sim, invoice, sub)
    if method is None:
        raise ValueError(f"{invoice['customer']} has no card; name one")
    method["_authenticated"] = True
    try:
        return {"paid": collect(sim, invoice, method=method, by_hand=True).paid}
    finally:
        del method["_authenticated"]
