"""Updates that wait for their payment (`payment_behavior=pending_if_incomplete`)."""

from devstack.stripe.billing.lifecycle import void
from devstack.stripe.billing.planning import Plan, apply_plan, bill_plan, collect_of, whole_period
from devstack.stripe.billing.settings import settings_of
from devstack.stripe.simulator import Simulator, listen
from devstack.stripe.state import Object


def try_then_apply(sim: Simulator, sub: Object, plan: Plan, *, now: int) -> None:
    """The change happens when its invoice is paid; until then it is the subscription's `pending_update`."""
    drop_pending(sim, sub)
    sub["_plan"] = plan
    invoice = bill_plan(sim, sub, plan, now=now, period=whole_period(sub))
    if invoice is None or invoice["status"] == "paid":
        sub.pop("_plan", None)
        apply_plan(sim, sub, plan, now=now)
        return
    invoice["_waits_for_update"] = True
    sub["_waiting_invoice"] = invoice["id"]
    collect_of(sim, sub, invoice)
    if invoice["status"] == "paid":
        return
    sub["pending_update"] = {
        "billing_cycle_anchor": plan.change.new_anchor,
        "expires_at": now + settings_of(sim).incomplete_seconds,
        "subscription_items": [_shown(one) for one in plan.change.items],
        "trial_end": plan.trial_end,
        "trial_from_plan": None,
    }


def _shown(item: Object) -> Object:
    return {name: value for name, value in item.items() if not name.startswith("_")}


def _pending_paid(sim: Simulator, sub: Object) -> None:
    plan = sub.pop("_plan", None)
    if plan is None:
        return
    sub.pop("_waiting_invoice", None)
    was_shown = sub["pending_update"] is not None
    sub["pending_update"] = None
    with sim.changing(sub, "customer.subscription.updated"):
        apply_plan(sim, sub, plan, now=sim.now(sub["customer"]))
    if was_shown:
        sim.emit("customer.subscription.pending_update_applied", sub)
    sim.tell("subscription.moved", sub)


def drop_pending(sim: Simulator, sub: Object) -> None:
    """A change that waited is given up; its invoice is voided."""
    if sub.pop("_plan", None) is None:
        return
    sub["pending_update"] = None
    invoice = sim.state.find("invoice", sub.pop("_waiting_invoice", None) or "")
    if invoice and invoice["status"] == "open":
        void(sim, invoice)


def _pending_expired(sim: Simulator, sub: Object) -> None:
    with sim.changing(sub, "customer.subscription.updated"):
        drop_pending(sim, sub)
    sim.emit("customer.subscription.pending_update_expired", sub)


def _given_up(sim: Simulator, sub: Object) -> None:
    with sim.changing(sub, "customer.subscription.updated"):
        drop_pending(sim, sub)


listen("pending_update.paid", _pending_paid)
listen("pending_update.expired", _pending_expired)
listen("pending_update.given_up", _given_up)
