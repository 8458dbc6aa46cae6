"""Previews of invoices: what would be billed, kept nowhere."""

import copy
from typing import Any

from devstack.stripe.billing import discounts
from devstack.stripe.billing.billing_run import preview_invoice
from devstack.stripe.billing.changes import work_out
from devstack.stripe.billing.invoicing import make_draft
from devstack.stripe.billing.items import Wanted, copied
from devstack.stripe.billing.lines import is_metered
from devstack.stripe.billing.pending import gather, line_of_item_params
from devstack.stripe.billing.periods_ahead import Turn, upcoming
from devstack.stripe.billing.planning import Plan, plan_update, whole_period
from devstack.stripe.billing.starting import assemble, discounted, first_lines
from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

NOT_SIMULATED = ("schedule_details", "on_behalf_of", "customer_account")
OF_UPDATE = ("items", "proration_behavior", "proration_date", "trial_end", "default_tax_rates")


@route("POST", "/v1/invoices/create_preview")
def create_preview(sim: Simulator, call: Call) -> Object:
    params = dict(call.params)
    for name in NOT_SIMULATED:
        if name in params:
            raise StripeProblem(f"The simulator does not play {name} of previews.", param=name)
    if "schedule" in params:
        schedule = sim.state.get("subscription_schedule", params["schedule"], param="schedule")
        params.setdefault("subscription", schedule["subscription"])
    details = params.get("subscription_details", {})
    if "subscription" in params:
        sub = sim.state.get("subscription", params["subscription"], param="subscription")
        if params.get("customer") not in (None, sub["customer"]):
            raise StripeProblem("The subscription belongs to another customer.", param="customer")
        return _of_subscription(sim, sub, params, details)
    if "customer" not in params:
        raise StripeProblem("Give customer, subscription or schedule.", code="parameter_missing", param="customer")
    customer = sim.state.get("customer", params["customer"], param="customer")
    if details.get("items"):
        return _of_new(sim, customer, params, details)
    return _of_waiting_items(sim, customer, params)


def _tried(sub: Object) -> Object:
    """A subscription to try changes on, with its items as copies."""
    clone = copy.copy(sub)
    clone["items"] = {**sub["items"], "data": [copied(one) for one in sub["items"]["data"]]}
    clone["discounts"] = list(sub["discounts"])
    return clone


def _of_subscription(sim: Simulator, sub: Object, params: dict[str, Any], details: dict[str, Any]) -> Object:
    if sub["status"] in ("canceled", "incomplete_expired"):
        raise StripeProblem("No upcoming invoices for customer", status=404, code="invoice_upcoming_none")
    now = sim.now(sub["customer"])
    tried = _tried(sub)
    if "automatic_tax" in params:
        tried["automatic_tax"] = {**tried["automatic_tax"], "enabled": params["automatic_tax"]["enabled"]}
    with discounted(sim, tried, params, now=now):
        if details.get("cancel_now"):
            return _of_cancelling(sim, tried, details, now=now)
        _plan_cancellation(tried, details)
        given = {name: details[name] for name in OF_UPDATE if name in details}
        if details.get("billing_cycle_anchor", {}).get("type") == "now":
            given["billing_cycle_anchor"] = {"type": "now"}
        if not given:
            return _next(sim, tried, None, params)
        plan = plan_update(sim, tried, given, now=now)
        if plan.at_once:
            lines = [*plan.changes, *plan.change.advance, *_items_of(sim, sub, params)]
            return _shown(
                preview_invoice(
                    sim, tried, lines, reason="subscription_update", now=now, period=whole_period(tried)
                ),
                plan,
            )
        return _next(sim, tried, plan, params)


def _shown(invoice: Object, plan: Plan | None) -> Object:
    if plan is not None and invoice["parent"]:
        invoice["parent"]["subscription_details"]["subscription_proration_date"] = plan.change.at
    return invoice


def _next(sim: Simulator, sub: Object, plan: Plan | None, params: dict[str, Any]) -> Object:
    """The next period's invoice, with what waits for it and what the change adds."""
    if plan is not None:
        sub["items"]["data"] = plan.change.items
        if plan.change.new_anchor is not None:
            sub["billing_cycle_anchor"] = plan.change.new_anchor
    turn, at = upcoming(sim, sub, sub["items"]["data"])
    started = min(item["current_period_start"] for item in sub["items"]["data"])
    _swap_for_schedule(sim, sub, turn, at)
    lines = [*(plan.changes if plan else ()), *turn.lines, *_items_of(sim, sub, params)]
    if not lines and not gather(sim, sub["customer"], sub["id"], sub["currency"]):
        raise StripeProblem("No upcoming invoices for customer", status=404, code="invoice_upcoming_none")
    invoice = preview_invoice(sim, sub, lines, reason="upcoming", now=at, period=(started, at))
    invoice["next_payment_attempt"] = at + 3600
    return _shown(invoice, plan)


def _swap_for_schedule(sim: Simulator, sub: Object, turn: Turn, at: int) -> None:
    """Where a schedule switches at that moment, the charges ahead are those of its next phase."""
    schedule = sim.state.find("subscription_schedule", sub["schedule"] or "")
    if schedule is None or schedule["_next"] is None or schedule["_next"] > at:
        return
    from devstack.stripe.billing.periods_ahead import begin_periods
    from devstack.stripe.billing.phases import items_of_next_phase

    items = items_of_next_phase(sim, schedule, sub, now=at)
    if items is not None:
        turn.advance.clear()
        begin_periods(sim, sub, items, at=at, turn=turn, anchor=sub["billing_cycle_anchor"])


def _plan_cancellation(sub: Object, details: dict[str, Any]) -> None:
    ends = [item["current_period_end"] for item in sub["items"]["data"]]
    if details.get("cancel_at_period_end"):
        sub["cancel_at"] = max(ends)
    elif details.get("cancel_at_period_end") is False or details.get("cancel_at") == "":
        sub["cancel_at"] = None
    elif "cancel_at" in details:
        named = {"min_period_end": min(ends), "max_period_end": max(ends), "max_billed_until": max(ends)}
        sub["cancel_at"] = named.get(details["cancel_at"], details["cancel_at"])


def _of_cancelling(sim: Simulator, sub: Object, details: dict[str, Any], *, now: int) -> Object:
    prorate = details.get("proration_behavior", "create_prorations") != "none"
    wanted = [Wanted(item, None) for item in sub["items"]["data"] if prorate or is_metered(item["price"])]
    change = work_out(sim, sub, wanted, at=details.get("proration_date", now), prorate=prorate)
    return preview_invoice(sim, sub, change.lines, reason="subscription_update", now=now, period=whole_period(sub))


def _of_new(sim: Simulator, customer: Object, params: dict[str, Any], details: dict[str, Any]) -> Object:
    now = sim.now(customer["id"])
    asked = {
        name: value
        for name, value in details.items()
        if name in ("items", "trial_end", "billing_mode", "metadata")
    }
    if (anchor := details.get("billing_cycle_anchor", {})).get("type") == "timestamp":
        asked["billing_cycle_anchor"] = anchor["timestamp"]
    if "automatic_tax" in params:
        asked["automatic_tax"] = params["automatic_tax"]
    if "default_tax_rates" in details:
        asked["default_tax_rates"] = details["default_tax_rates"]
    sub = assemble(sim, customer, asked, now=now)
    with discounted(sim, sub, params, now=now):
        lines = first_lines(sim, sub, details, now=now)
        return preview_invoice(sim, sub, lines, reason="subscription_create", now=now, period=(now, now))


def _items_of(sim: Simulator, sub: Object, params: dict[str, Any]) -> list[Object]:
    customer = sim.state.get("customer", sub["customer"])
    return [line_of_item_params(sim, one, customer, sub["id"]) for one in params.get("invoice_items") or []]


def _of_waiting_items(sim: Simulator, customer: Object, params: dict[str, Any]) -> Object:
    currency = params.get("currency") or customer.get("currency") or "usd"
    waiting = [{**one["_line"]} for one in gather(sim, customer["id"], None, currency)]
    added = [line_of_item_params(sim, one, customer, None) for one in params.get("invoice_items") or []]
    if not waiting and not added:
        raise StripeProblem("No upcoming invoices for customer", status=404, code="invoice_upcoming_none")
    checked = discounts.check(
        sim, params.get("discounts") or [], customer=customer["id"], currency=currency, param="discounts"
    )
    now = sim.now(customer["id"])
    made = discounts.give(sim, checked, customer=customer["id"], now=now, emit=False, redeem=False)
    try:
        return make_draft(
            sim,
            customer=customer,
            lines=[*waiting, *added],
            reason="upcoming",
            now=now,
            currency=currency,
            preview=True,
            discounts=made,
        )
    finally:
        for one in made:
            sim.state.remove("discount", one)
