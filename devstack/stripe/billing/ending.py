"""Ends of subscriptions."""

from devstack.stripe.billing import discounts
from devstack.stripe.billing.billing_run import bill
from devstack.stripe.billing.invoicing import subscription_of
from devstack.stripe.billing.lifecycle import stop_collecting, void
from devstack.stripe.billing.periods_ahead import Turn, end_usage
from devstack.stripe.billing.taking_away import bill_taken_away
from devstack.stripe.simulator import Simulator, listen
from devstack.stripe.state import Object


def end_subscription(
    sim: Simulator,
    sub: Object,
    *,
    reason: str,
    at_period_end: bool = False,
    invoice_now: bool = False,
    prorate: bool = False,
) -> None:
    """Cancel now. At a period's end its usage is billed on a last draft; in the middle of one only on request."""
    now = sim.now(sub["customer"])
    if due := sub.pop("_due", None):
        due.cancel()
    items = sub["items"]["data"]
    trialing = sub["status"] == "trialing"
    if at_period_end and not trialing and sub["status"] != "paused":
        turn = Turn()
        end_usage(sim, sub, items, at=now, turn=turn)
        start = min(item["current_period_start"] for item in items)
        bill(sim, sub, turn.lines, reason="subscription_cycle", now=now, period=(start, now), at_once=False)
    elif (invoice_now or prorate) and not trialing:
        bill_taken_away(sim, sub, usage=invoice_now, unused=prorate, at_once=invoice_now, now=now)
    stop_collecting(sim, sub["id"])
    sub["status"] = "canceled"
    sub["status_details"] = None
    sub["ended_at"] = now
    sub["canceled_at"] = sub["canceled_at"] or now
    sub["pending_update"] = None
    sub["cancellation_details"] = {
        **sub["cancellation_details"],
        "reason": sub["cancellation_details"]["reason"] or reason,
    }
    for one in list(sub["discounts"]):
        discounts.end(sim, one)
    sim.tell("subscription.ended", sub)
    sim.emit("customer.subscription.deleted", sub)


def expire_incomplete(sim: Simulator, sub: Object) -> None:
    """The first invoice was not paid in time: it is voided, and the subscription never was."""
    with sim.changing(sub, "customer.subscription.updated"):
        sub["status"] = "incomplete_expired"
        sub["ended_at"] = sim.now(sub["customer"])
    for invoice in sim.state.where("invoice", customer=sub["customer"], status="open"):
        if subscription_of(invoice) == sub["id"]:
            void(sim, invoice)


def _customer_gone(sim: Simulator, customer: Object) -> None:
    for sub in sim.state.where("subscription", customer=customer["id"]):
        if sub["status"] not in ("canceled", "incomplete_expired"):
            end_subscription(sim, sub, reason="cancellation_requested")


listen("customer.deleted", _customer_gone)
