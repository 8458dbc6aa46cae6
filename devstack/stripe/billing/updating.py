"""Changing a live subscription, with its payment behaviour."""

from typing import Any

from devstack.stripe.billing.billing_run import preview_invoice
from devstack.stripe.billing.cards import declined
from devstack.stripe.billing.charging import method_for, will_pay
from devstack.stripe.billing.pending import keep_pending
from devstack.stripe.billing.pending_updates import try_then_apply
from devstack.stripe.billing.planning import (
    Plan,
    apply_plan,
    bill_plan,
    collect_of,
    plan_update,
    set_discounts,
    whole_period,
)
from devstack.stripe.billing.shapes import refuse_not_simulated
from devstack.stripe.problems import StripeProblem
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

WITH_PENDING_UPDATE = frozenset(
    (
        "items",
        "proration_behavior",
        "payment_behavior",
        "proration_date",
        "billing_cycle_anchor",
        "trial_end",
        "trial_from_plan",
        "off_session",
        "add_invoice_items",
        "discounts",
        "cancel_at_period_end",
        "metadata",
    )
)
NOT_UNDER_A_SCHEDULE = (
    "items",
    "trial_end",
    "cancel_at_period_end",
    "cancel_at",
    "billing_cycle_anchor",
    "discounts",
)


def check_update(sim: Simulator, sub: Object, params: dict[str, Any]) -> None:
    """The rules of an update that need no arithmetic."""
    refuse_not_simulated(params)
    _check_schedule(sim, sub, params)
    if sub["status"] in ("canceled", "incomplete_expired"):
        allowed = {"metadata", "cancellation_details"}
        if params.keys() - allowed:
            raise StripeProblem(
                "A canceled subscription can only update its cancellation_details and metadata.",
                param="subscription",
            )
    if params.get("payment_behavior") == "pending_if_incomplete":
        for name in sorted(params.keys() - WITH_PENDING_UPDATE):
            raise StripeProblem(
                f"{name} cannot be updated with payment_behavior=pending_if_incomplete.", param=name
            )
    if sub["status"] == "incomplete" and {"items", "trial_end", "billing_cycle_anchor"} & params.keys():
        raise StripeProblem("The first invoice of the subscription is not paid yet.", param="subscription")
    cancel_at = params.get("cancel_at")
    if isinstance(cancel_at, int) and cancel_at <= sim.now(sub["customer"]):
        raise StripeProblem("cancel_at must be in the future.", param="cancel_at")
    if "cancel_at_period_end" in params and cancel_at not in (None, ""):
        raise StripeProblem("Give cancel_at or cancel_at_period_end, not both.", param="cancel_at")


def _check_schedule(sim: Simulator, sub: Object, params: dict[str, Any]) -> None:
    schedule = sim.state.find("subscription_schedule", sub["schedule"] or "")
    if schedule:
        for name in NOT_UNDER_A_SCHEDULE:
            if name in params:
                raise StripeProblem(
                    f"The subscription is managed by the subscription schedule `{schedule['id']}`, and updating "
                    f"{name} directly is not allowed. Please update the schedule instead, or release it.",
                    param=name,
                )


def update(sim: Simulator, sub: Object, params: dict[str, Any]) -> None:
    """Carry out an update as its payment behaviour says."""
    check_update(sim, sub, params)
    now = sim.now(sub["customer"])
    plan = plan_update(sim, sub, params, now=now)
    behavior = params.get("payment_behavior", "allow_incomplete")
    if plan.at_once and behavior == "error_if_incomplete":
        _refuse_if_unpaid(sim, sub, plan, now=now)
    with sim.changing(sub, "customer.subscription.updated"):
        if plan.at_once and behavior == "pending_if_incomplete":
            try_then_apply(sim, sub, plan, now=now)
        else:
            if "discounts" in params:
                # what begins with the change is charged with the new discounts
                set_discounts(sim, sub, plan.discounts, now=now)
                rest = {name: value for name, value in params.items() if name != "discounts"}
                plan = plan_update(sim, sub, rest, now=now)
            _apply_then_bill(sim, sub, plan, now=now, behavior=behavior)
    sim.tell("subscription.moved", sub)


def _apply_then_bill(sim: Simulator, sub: Object, plan: Plan, *, now: int, behavior: str) -> None:
    before = whole_period(sub)
    apply_plan(sim, sub, plan, now=now)
    if not plan.at_once:
        customer = sim.state.get("customer", sub["customer"])
        for line in plan.changes:
            keep_pending(sim, customer, line, now=now)
        return
    invoice = bill_plan(sim, sub, plan, now=now, period=before)
    if invoice is None or invoice["status"] != "open":
        return
    if behavior != "default_incomplete":
        collect_of(sim, sub, invoice)
    elif sub["status"] == "active":
        # the customer is to confirm the payment
        sub["status"] = "past_due"


def _refuse_if_unpaid(sim: Simulator, sub: Object, plan: Plan, *, now: int) -> None:
    lines = [*plan.changes, *plan.change.advance]
    expected = preview_invoice(sim, sub, lines, reason="subscription_update", now=now, period=whole_period(sub))
    outcome = will_pay(method_for(sim, expected, sub))
    if expected["amount_due"] > 0 and not outcome.paid:
        raise declined(outcome.code or "generic_decline")
