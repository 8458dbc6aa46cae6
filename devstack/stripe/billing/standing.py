"""What payments do to a subscription: incomplete, active, past due, unpaid, cancelled, active again."""

from devstack.stripe.billing.ending import end_subscription
from devstack.stripe.billing.invoicing import subscription_of
from devstack.stripe.billing.settings import settings_of
from devstack.stripe.simulator import Simulator, listen
from devstack.stripe.state import Object


def _owner(sim: Simulator, invoice: Object) -> Object | None:
    return sim.state.find("subscription", subscription_of(invoice) or "")


def _paid(sim: Simulator, invoice: Object) -> None:
    sub = _owner(sim, invoice)
    if sub is None:
        return
    if invoice.get("_waits_for_update"):
        sim.tell("pending_update.paid", sub)
        return
    if sub["status"] == "incomplete" or (sub["status"] in ("past_due", "unpaid") and not _owes(sim, sub)):
        with sim.changing(sub, "customer.subscription.updated"):
            sub["status"] = "active"
        sim.tell("subscription.moved", sub)


def _owes(sim: Simulator, sub: Object) -> bool:
    """Whether the newest invoice that was tried is still open: only it decides."""
    tried = [
        one
        for one in sim.state.where("invoice", customer=sub["customer"])
        if subscription_of(one) == sub["id"] and one["attempted"] and one["status"] in ("open", "paid")
    ]
    return bool(tried) and tried[-1]["status"] == "open"


def _failed(sim: Simulator, invoice: Object) -> None:
    sub = _owner(sim, invoice)
    if sub is None or invoice.get("_waits_for_update"):
        return
    if sub["status"] in ("active", "trialing") and invoice["billing_reason"] != "subscription_create":
        with sim.changing(sub, "customer.subscription.updated"):
            sub["status"] = "past_due"


def _exhausted(sim: Simulator, invoice: Object) -> None:
    sub = _owner(sim, invoice)
    if sub is None or sub["status"] != "past_due":
        return
    match settings_of(sim).after_retries:
        case "cancel":
            end_subscription(sim, sub, reason="payment_failed")
        case "unpaid":
            with sim.changing(sub, "customer.subscription.updated"):
                sub["status"] = "unpaid"
        case _:
            pass


def _voided(sim: Simulator, invoice: Object) -> None:
    sub = _owner(sim, invoice)
    if sub is None:
        return
    if invoice.get("_waits_for_update"):
        sim.tell("pending_update.given_up", sub)
        return
    if sub["status"] == "incomplete" and sub["latest_invoice"] == invoice["id"]:
        with sim.changing(sub, "customer.subscription.updated"):
            sub["status"] = "incomplete_expired"
            sub["ended_at"] = sim.now(sub["customer"])
    elif sub["status"] in ("past_due", "unpaid") and not _owes(sim, sub):
        with sim.changing(sub, "customer.subscription.updated"):
            sub["status"] = "active"


listen("invoice.settled", _paid)
listen("invoice.unpaid", _failed)
listen("invoice.exhausted", _exhausted)
listen("invoice.voided", _voided)
