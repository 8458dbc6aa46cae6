"""Updates of subscriptions worked out, billed and made."""

from dataclasses import dataclass
from typing import Any

from devstack.stripe.billing import discounts
from devstack.stripe.billing.billing_run import bill
from devstack.stripe.billing.changes import Change, work_out
from devstack.stripe.billing.items import Wanted, wanted_items
from devstack.stripe.billing.lifecycle import collect
from devstack.stripe.billing.shapes import apply_settings
from devstack.stripe.billing.starting import extra_line
from devstack.stripe.problems import StripeProblem
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


@dataclass
class Plan:
    """An update worked out; nothing of it has happened."""

    change: Change
    trial_end: int | None
    """When the trial ends after the update; None: no trial."""
    ends_trial: bool
    at_once: bool
    """Whether it makes an invoice now."""
    extra: list[Object]
    params: dict[str, Any]
    discounts: list[Any]
    """Checked, to be given when the update is made."""

    @property
    def changes(self) -> list[Object]:
        return [*self.change.lines, *self.extra]


def plan_update(sim: Simulator, sub: Object, params: dict[str, Any], *, now: int) -> Plan:
    """What `params` (of an update or of a preview) come to. Refuses what Stripe refuses."""
    wanted = wanted_items(sim, sub, params.get("items") or [], now=now)
    behavior = params.get("proration_behavior", "create_prorations")
    at = _moment(sub, params, now)
    new_trial: Any = params.get("trial_end")
    ends_trial = new_trial == "now" and sub["status"] == "trialing"
    starts_trial = isinstance(new_trial, int) and not isinstance(new_trial, bool)
    if starts_trial and new_trial <= now:
        raise StripeProblem("trial_end must be in the future, or `now`.", param="trial_end")
    resets = params.get("billing_cycle_anchor", {}).get("type") == "now" or _interval_changes(wanted) or ends_trial
    if resets or starts_trial:
        at = now
    change = work_out(
        sim,
        sub,
        wanted,
        at=at,
        prorate=behavior != "none",
        new_anchor=new_trial if starts_trial else (now if resets else None),
        until=new_trial if starts_trial else None,
        free=starts_trial or (sub["status"] == "trialing" and not ends_trial),
    )
    extra = [
        extra_line(sim, sub, entry, f"add_invoice_items[{number}]", now=now)
        for number, entry in enumerate(params.get("add_invoice_items") or [])
    ]
    costs = bool(change.costs or extra)
    at_once = costs and (behavior == "always_invoice" or bool(change.advance))
    trial_end = new_trial if starts_trial else (None if ends_trial else sub["trial_end"])
    checked = discounts.check(
        sim, params.get("discounts") or [], customer=sub["customer"], currency=sub["currency"], param="discounts"
    )
    return Plan(change, trial_end, ends_trial, at_once, extra, params, checked)


def _moment(sub: Object, params: dict[str, Any], now: int) -> int:
    at = params.get("proration_date")
    if at is None:
        return now
    start = min(item["current_period_start"] for item in sub["items"]["data"])
    end = max(item["current_period_end"] for item in sub["items"]["data"])
    if not start <= at <= end:
        raise StripeProblem(
            "Invalid `proration_date`: it must be within the current billing period.", param="proration_date"
        )
    return int(at)


def _interval_changes(wanted: list[Wanted]) -> bool:
    def intervals(items: list[Object]) -> set[tuple[str, int]]:
        return {
            (one["price"]["recurring"]["interval"], one["price"]["recurring"]["interval_count"]) for one in items
        }

    before = intervals([one.old for one in wanted if one.old is not None])
    after = intervals([one.new for one in wanted if one.new is not None])
    return not before & after


def collect_of(sim: Simulator, sub: Object, invoice: Object) -> None:
    if sub["collection_method"] == "charge_automatically":
        collect(sim, invoice)


def bill_plan(sim: Simulator, sub: Object, plan: Plan, *, now: int, period: tuple[int, int]) -> Object | None:
    invoice = bill(
        sim,
        sub,
        plan.change.advance,
        changes=plan.changes,
        reason="subscription_update",
        now=now,
        period=period,
        at_once=True,
    )
    if invoice is not None and invoice["parent"]:
        invoice["parent"]["subscription_details"]["subscription_proration_date"] = plan.change.at
    return invoice


def whole_period(sub: Object) -> tuple[int, int]:
    items = sub["items"]["data"]
    return min(one["current_period_start"] for one in items), max(one["current_period_end"] for one in items)


def apply_plan(sim: Simulator, sub: Object, plan: Plan, *, now: int) -> None:
    """Everything the update sets: settings, items, periods, trial."""
    params = plan.params
    apply_settings(sim, sub, params)
    _set_pause(sub, params)
    _set_cancellation(sub, params, now=now)
    if "discounts" in params:
        set_discounts(sim, sub, plan.discounts, now=now)
    items: list[Object] = []
    for one in plan.change.wanted:
        items += [item] if (item := _applied(sim, sub, one, now)) is not None else []
    sub["items"]["data"] = items
    if plan.change.new_anchor is not None:
        sub["billing_cycle_anchor"] = plan.change.new_anchor
    if plan.ends_trial:
        sub["status"], sub["trial_end"] = "active", now
    elif plan.trial_end is not None and plan.trial_end != sub["trial_end"]:
        sub.update(status="trialing", trial_end=plan.trial_end, trial_start=sub["trial_start"] or now)
        sub.pop("_noticed", None)
    if sub["cancel_at_period_end"]:
        sub["cancel_at"] = max(one["current_period_end"] for one in items)


def _applied(sim: Simulator, sub: Object, one: Wanted, now: int) -> Object | None:
    if one.new is None:
        if one.old is not None:
            sim.state.remove("subscription_item", one.old["id"])
        return None
    if one.old is not None:
        if one.changed and "quantity" not in one.new:
            one.old.pop("quantity", None)
        one.old.update(one.new)
        item = one.old
    else:
        item = sim.state.add(one.new)
    if one.discounts is not None:
        item["discounts"] = discounts.give(
            sim,
            one.discounts,
            customer=sub["customer"],
            now=now,
            subscription=sub["id"],
            subscription_item=item["id"],
        )
    return item


def _set_pause(sub: Object, params: dict[str, Any]) -> None:
    if "pause_collection" in params:
        given = params["pause_collection"]
        sub["pause_collection"] = (
            {"behavior": given["behavior"], "resumes_at": given.get("resumes_at")} if given else None
        )


def _set_cancellation(sub: Object, params: dict[str, Any], *, now: int) -> None:
    ends = [item["current_period_end"] for item in sub["items"]["data"]]
    if "cancel_at_period_end" in params:
        planned = params["cancel_at_period_end"]
        sub["cancel_at_period_end"] = planned
        sub["cancel_at"] = max(ends) if planned else None
        _note_cancellation(sub, planned=planned, now=now)
    elif "cancel_at" in params:
        given = params["cancel_at"]
        named = {"min_period_end": min(ends), "max_period_end": max(ends), "max_billed_until": max(ends)}
        sub["cancel_at"] = None if given == "" else named.get(given, given)
        sub["cancel_at_period_end"] = False
        _note_cancellation(sub, planned=sub["cancel_at"] is not None, now=now)


def _note_cancellation(sub: Object, *, planned: bool, now: int) -> None:
    sub["canceled_at"] = now if planned else None
    details = sub["cancellation_details"]
    sub["cancellation_details"] = (
        {**details, "reason": "cancellation_requested"}
        if planned
        else {"comment": None, "feedback": None, "reason": None}
    )


def set_discounts(sim: Simulator, sub: Object, checked: list[Any], *, now: int) -> None:
    """Exactly these from now on; others end."""
    kept = {one["id"] for one in checked if isinstance(one, dict)}
    for one in list(sub["discounts"]):
        if one not in kept:
            discounts.end(sim, one)
    sub["discounts"] = discounts.give(sim, checked, customer=sub["customer"], now=now, subscription=sub["id"])
