"""Pausing a subscription itself (not its collection), and resuming it."""

from devstack.stripe.billing.billing_run import bill
from devstack.stripe.billing.lifecycle import collect
from devstack.stripe.billing.planning import apply_plan, plan_update
from devstack.stripe.billing.subscriptions import of_path
from devstack.stripe.billing.taking_away import bill_taken_away
from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


@route("POST", "/v1/subscriptions/{subscription}/pause")
def pause_subscription(sim: Simulator, call: Call) -> Object:
    """Usage so far and credit for unused time as `bill_for` says; both by default not."""
    sub = of_path(sim, call)
    if sub["status"] not in ("active", "trialing", "past_due"):
        raise StripeProblem(f"A subscription that is {sub['status']} cannot be paused.", param="subscription")
    if sub["schedule"] is not None:
        raise StripeProblem("The subscription is managed by a schedule.", param="subscription")
    now = sim.now(sub["customer"])
    bill_for = call.params.get("bill_for", {})
    usage = bill_for.get("outstanding_usage_through", {}).get("type", "none") == "now"
    credit = bill_for.get("unused_time_from", {}).get("type", "none") == "now"
    at_once = call.params.get("invoicing_behavior", "pending_invoice_item") == "invoice"
    bill_taken_away(sim, sub, usage=usage, unused=credit, at_once=at_once, now=now)
    with sim.changing(sub, "customer.subscription.updated"):
        sub["status"] = "paused"
        sub["status_details"] = {
            "paused": {
                "subscription": {"type": "pause_requested"},
                "transitioned_at": now,
                "type": "subscription",
            }
        }
        for item in sub["items"]["data"]:
            item["_credited"] = credit
            item["_usage_from"] = now if usage else item["_usage_from"]
    sim.emit("customer.subscription.paused", sub)
    sim.tell("subscription.moved", sub)
    return sub


@route("POST", "/v1/subscriptions/{subscription}/resume")
def resume_subscription(sim: Simulator, call: Call) -> Object:
    """By default a new period begins now and is billed."""
    sub = of_path(sim, call)
    if sub["status"] != "paused":
        raise StripeProblem("Only a paused subscription can be resumed.", param="subscription")
    now = sim.now(sub["customer"])
    params = call.params
    resets = params.get("billing_cycle_anchor", {"type": "now"})["type"] == "now"
    if min(item["current_period_end"] for item in sub["items"]["data"]) <= now:
        resets = True
    with sim.changing(sub, "customer.subscription.updated"):
        sub["status"], sub["status_details"] = "active", None
        if sub["trial_end"] is not None and sub["trial_end"] > now:
            sub["trial_end"] = now
        for item in sub["items"]["data"]:
            # a pause is free, and what was credited or has passed is not credited again
            item["_usage_from"] = now
            item["_debits"] = [] if item.pop("_credited", False) else item["_debits"]
        if resets:
            _begin_anew(sim, sub, params.get("proration_behavior", "create_prorations"), now=now)
    sim.emit("customer.subscription.resumed", sub)
    sim.tell("subscription.moved", sub)
    return sub


def _begin_anew(sim: Simulator, sub: Object, behavior: str, *, now: int) -> None:
    asked = {"billing_cycle_anchor": {"type": "now"}, "proration_behavior": behavior}
    plan = plan_update(sim, sub, asked, now=now)
    apply_plan(sim, sub, plan, now=now)
    invoice = bill(
        sim,
        sub,
        plan.change.advance,
        changes=plan.changes,
        reason="subscription_update",
        now=now,
        period=(now, now),
        at_once=True,
    )
    if invoice and invoice["status"] == "open" and sub["collection_method"] == "charge_automatically":
        collect(sim, invoice)
