"""A subscription in time: renewals, ends of trials, phases of schedules, planned cancellations."""

from collections.abc import Iterable
from functools import partial

from devstack.stripe.billing import discounts
from devstack.stripe.billing.billing_run import bill
from devstack.stripe.billing.charging import method_for
from devstack.stripe.billing.ending import end_subscription, expire_incomplete
from devstack.stripe.billing.lifecycle import mark_uncollectible, void
from devstack.stripe.billing.periods_ahead import Turn, begin_periods, end_usage
from devstack.stripe.billing.phases import cancels_now, complete, enter_next_phase
from devstack.stripe.billing.settings import DAY, settings_of
from devstack.stripe.simulator import Simulator, listen
from devstack.stripe.state import Object

NOTICE = 3 * DAY
OVER = ("canceled", "incomplete_expired")


def plan_next(sim: Simulator, sub: Object) -> None:
    """Have the subscription move at the next moment that matters to it."""
    if due := sub.pop("_due", None):
        due.cancel()
    if sub["status"] in OVER or sim.state.find("subscription", sub["id"]) is None:
        return
    now = sim.now(sub["customer"])
    moments = [one for one in _moments(sim, sub) if one is not None]
    if moments:
        when = max(min(moments), now)
        sub["_due"] = sim.at(when, partial(move, sim, sub), customer=sub["customer"])


def _moments(sim: Simulator, sub: Object) -> Iterable[int | None]:
    if sub["status"] == "incomplete":
        yield sub["created"] + settings_of(sim).incomplete_seconds
        return
    if sub["pending_update"]:
        yield sub["pending_update"]["expires_at"]
    yield sub["cancel_at"]
    schedule = sim.state.find("subscription_schedule", sub["schedule"] or "")
    if schedule:
        yield schedule["_next"]
    if sub["status"] == "paused":
        return
    if sub["status"] == "trialing":
        yield None if sub.get("_noticed") else sub["trial_end"] - NOTICE
    pause = sub["pause_collection"]
    yield pause["resumes_at"] if pause else None
    yield min(item["current_period_end"] for item in sub["items"]["data"])


def move(sim: Simulator, sub: Object) -> None:
    """Everything that is due for the subscription at this moment."""
    now = sim.now(sub["customer"])
    sub.pop("_due", None)
    if sub["status"] in OVER:
        return
    if sub["status"] == "incomplete":
        if sub["created"] + settings_of(sim).incomplete_seconds <= now:
            expire_incomplete(sim, sub)
    else:
        _move_live(sim, sub, now)
    plan_next(sim, sub)


def _move_live(sim: Simulator, sub: Object, now: int) -> None:
    pending = sub["pending_update"]
    if pending and pending["expires_at"] <= now:
        sim.tell("pending_update.expired", sub)
    pause = sub["pause_collection"]
    if pause and pause["resumes_at"] is not None and pause["resumes_at"] <= now:
        with sim.changing(sub, "customer.subscription.updated"):
            sub["pause_collection"] = None
    if (
        sub["status"] == "trialing"
        and not sub.get("_noticed")
        and sub["trial_end"] - NOTICE <= now < sub["trial_end"]
    ):
        sub["_noticed"] = True
        sim.emit("customer.subscription.trial_will_end", sub)
    if sub["cancel_at"] is not None and sub["cancel_at"] <= now:
        end_subscription(sim, sub, reason="cancellation_requested", at_period_end=True)
        return
    schedule = sim.state.find("subscription_schedule", sub["schedule"] or "")
    switches = schedule is not None and schedule["_next"] is not None and schedule["_next"] <= now
    if schedule is not None and switches and cancels_now(schedule, now):
        complete(sim, schedule, now=now)
        end_subscription(sim, sub, reason="cancellation_requested", at_period_end=True)
        return
    due = [item for item in sub["items"]["data"] if item["current_period_end"] <= now]
    if sub["status"] == "paused":
        due = []
    if due or switches:
        _turn(sim, sub, due, now, schedule if switches else None)


def _turn(sim: Simulator, sub: Object, due: list[Object], now: int, schedule: Object | None) -> None:
    turn = Turn()
    started = min((item["current_period_start"] for item in due), default=now)
    with sim.changing(sub, "customer.subscription.updated"):
        _end_discounts(sim, sub, now)
        end_usage(sim, sub, due, at=now, turn=turn)
        for item in due:
            item["_usage_from"] = now
        if schedule is not None:
            turn.arrears += enter_next_phase(sim, schedule, sub, now=now)
        if sub["status"] == "trialing" and sub["trial_end"] <= now and not _end_trial(sim, sub, now):
            return
        due = [item for item in sub["items"]["data"] if item["current_period_end"] <= now]
        begin_periods(sim, sub, due, at=now, turn=turn, anchor=sub["billing_cycle_anchor"])
        if due or turn.lines:
            _bill(sim, sub, turn, now=now, started=started)
    sim.tell("subscription.renewed", sub)


def _end_discounts(sim: Simulator, sub: Object, now: int) -> None:
    """Take off those whose time is over."""
    for owner in (sub, *sub["items"]["data"]):
        for one in list(owner["discounts"]):
            if one not in discounts.in_force(sim, [one], now=now):
                discounts.end(sim, one)


def _end_trial(sim: Simulator, sub: Object, now: int) -> bool:
    """False when there is nothing to go on with: no card, and the settings say to stop."""
    behavior = sub["trial_settings"]["end_behavior"]["missing_payment_method"]
    probe = {"default_payment_method": None, "customer": sub["customer"]}
    has_card = method_for(sim, probe, sub) is not None or sub["collection_method"] == "send_invoice"
    if not has_card and behavior == "cancel":
        end_subscription(sim, sub, reason="cancellation_requested", at_period_end=True)
        return False
    if not has_card and behavior == "pause":
        sub["status"] = "paused"
        sub["status_details"] = {
            "paused": {
                "subscription": {"type": "trial_end_without_payment_method"},
                "transitioned_at": now,
                "type": "subscription",
            }
        }
        sim.emit("customer.subscription.paused", sub)
        return False
    sub["status"] = "active"
    return True


def _bill(sim: Simulator, sub: Object, turn: Turn, *, now: int, started: int) -> None:
    behavior = (sub["pause_collection"] or {}).get("behavior")
    holds = sub["status"] == "unpaid" or behavior == "keep_as_draft"
    invoice = bill(
        sim,
        sub,
        turn.lines,
        reason="subscription_cycle",
        now=now,
        period=(started, now),
        at_once=False,
        auto_advance=not holds,
    )
    if invoice is not None and behavior in ("void", "mark_uncollectible"):
        invoice["_then"] = behavior


def _paused_collection(sim: Simulator, invoice: Object) -> None:
    """Invoices made while collection is paused are not charged but voided or given up."""
    then = invoice.pop("_then", None)
    if then == "void":
        void(sim, invoice)
    elif then == "mark_uncollectible":
        mark_uncollectible(sim, invoice)


listen("invoice.finalised", _paused_collection)
listen("subscription.moved", plan_next)
