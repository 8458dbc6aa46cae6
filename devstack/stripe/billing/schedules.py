"""Operations on subscription schedules."""

from functools import partial
from typing import Any

from devstack.stripe.billing.ending import end_subscription
from devstack.stripe.billing.phase_params import given_phases, make_phase, phase_item
from devstack.stripe.billing.phases import phase_at, release, set_current
from devstack.stripe.billing.starting import start
from devstack.stripe.fields import merge_metadata
from devstack.stripe.paging import page
from devstack.stripe.problems import StripeProblem
from devstack.stripe.rendering import field_holds
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator, listen
from devstack.stripe.state import Object

KIND = "subscription_schedule"
LIVE = ("active", "not_started")
field_holds("released_subscription", "subscription")


@route("POST", "/v1/subscription_schedules")
def create_schedule(sim: Simulator, call: Call) -> Object:
    params = call.params
    if "from_subscription" in params:
        if others := sorted(params.keys() - {"from_subscription", "billing_mode", "metadata"}):
            raise StripeProblem(f"You cannot set `{others[0]}` if `from_subscription` is set.", param=others[0])
        return _from_subscription(sim, params)
    customer = sim.state.get("customer", params.get("customer", ""), param="customer")
    now = sim.now(customer["id"])
    begins = params.get("start_date", "now")
    begins = now if begins == "now" else begins
    schedule = _schedule(sim, customer["id"], params, now=now)
    schedule["phases"] = given_phases(sim, params.get("phases") or [], customer["id"], first_start=begins)
    sim.state.add(schedule)
    sim.emit("subscription_schedule.created", schedule)
    schedule["status"] = "not_started"
    if begins <= now:
        _begin(sim, schedule)
    else:
        sim.at(begins, partial(_begin, sim, schedule), customer=customer["id"])
    return schedule


def _begin(sim: Simulator, schedule: Object) -> None:
    """Make the subscription of a schedule that was not made from one."""
    if schedule["status"] != "not_started":
        return
    phase = schedule["phases"][0]
    customer = sim.state.get("customer", schedule["customer"])
    items = [
        {"price": one["price"], **({"quantity": one["quantity"]} if one.get("quantity") is not None else {})}
        for one in phase["items"]
    ]
    asked = {"items": items, "metadata": phase["metadata"] or {}}
    if phase["trial_end"]:
        asked["trial_end"] = phase["trial_end"]
    sub = start(sim, customer, asked, behavior="allow_incomplete")
    with sim.changing(schedule, "subscription_schedule.updated"):
        schedule.update(status="active", subscription=sub["id"])
        set_current(schedule, phase)
    with sim.changing(sub, "customer.subscription.updated"):
        sub["schedule"] = schedule["id"]
    sim.tell("subscription.moved", sub)


def _from_subscription(sim: Simulator, params: dict[str, Any]) -> Object:
    sub = sim.state.get("subscription", params["from_subscription"], param="from_subscription")
    if sub["schedule"] is not None:
        raise StripeProblem(
            f"You cannot migrate a subscription that is already attached to a schedule: {sub['schedule']}.",
            param="from_subscription",
        )
    if sub["status"] in ("canceled", "incomplete", "incomplete_expired"):
        raise StripeProblem(
            f"You cannot migrate a subscription that is {sub['status']}.", param="from_subscription"
        )
    now = sim.now(sub["customer"])
    schedule = _schedule(sim, sub["customer"], params, now=now)
    items = sub["items"]["data"]
    phase = make_phase(
        start_date=max(item["current_period_start"] for item in items),
        end_date=min(item["current_period_end"] for item in items),
        currency=sub["currency"],
        items=[
            phase_item(item["price"], item.get("quantity"), item["metadata"], item["tax_rates"]) for item in items
        ],
    )
    phase["metadata"] = dict(sub["metadata"])
    if sub["status"] == "trialing":
        phase["trial_end"] = sub["trial_end"]
    schedule.update(status="active", subscription=sub["id"], phases=[phase])
    schedule["billing_mode"] = dict(sub["billing_mode"])
    if sub["cancel_at_period_end"]:
        schedule["end_behavior"] = "cancel"
    set_current(schedule, phase)
    sim.state.add(schedule)
    with sim.changing(sub, "customer.subscription.updated"):
        sub["schedule"] = schedule["id"]
    sim.emit("subscription_schedule.created", schedule)
    sim.tell("subscription.moved", sub)
    return schedule


def _schedule(sim: Simulator, customer: str, params: dict[str, Any], *, now: int) -> Object:
    clock = sim.state.get("customer", customer).get("test_clock")
    return {
        "id": sim.state.new_id("sub_sched", 24),
        "object": KIND,
        "application": None,
        "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}, "updated_at": now},
        "canceled_at": None,
        "completed_at": None,
        "created": now,
        "current_phase": None,
        "customer": customer,
        "customer_account": None,
        "default_settings": {
            "application_fee_percent": None,
            "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
            "billing_cycle_anchor": "automatic",
            "billing_thresholds": None,
            "collection_method": "charge_automatically",
            "default_payment_method": None,
            "description": None,
            "invoice_settings": {"account_tax_ids": None, "days_until_due": None, "issuer": {"type": "self"}},
            "on_behalf_of": None,
            "transfer_data": None,
        },
        "end_behavior": params.get("end_behavior", "release"),
        "livemode": False,
        "metadata": params.get("metadata") or {},
        "pause_schedules": [],
        "phases": [],
        "released_at": None,
        "released_subscription": None,
        "status": "not_started",
        "subscription": None,
        "test_clock": clock,
        "_next": None,
    }


@route("GET", "/v1/subscription_schedules/{schedule}")
def retrieve_schedule(sim: Simulator, call: Call) -> Object:
    return sim.state.get(KIND, call.path["schedule"])


@route("GET", "/v1/subscription_schedules")
def list_schedules(sim: Simulator, call: Call) -> Object:
    wanted = call.params.get("customer")
    return page(call, [one for one in sim.state.all(KIND) if wanted in (None, one["customer"])])


@route("POST", "/v1/subscription_schedules/{schedule}")
def update_schedule(sim: Simulator, call: Call) -> Object:
    schedule, params = sim.state.get(KIND, call.path["schedule"]), call.params
    _must_live(schedule, "updated")
    phases = None
    now = sim.now(schedule["customer"])
    if "phases" in params:
        phases = _replacing(sim, schedule, params, now=now)
    with sim.changing(schedule, "subscription_schedule.updated"):
        if phases is not None:
            schedule["phases"] = phases
            set_current(schedule, phase_at(schedule, now) if schedule["status"] == "active" else None)
        schedule["end_behavior"] = params.get("end_behavior", schedule["end_behavior"])
        merge_metadata(schedule, params)
    if schedule["subscription"]:
        sim.tell("subscription.moved", sim.state.get("subscription", schedule["subscription"]))
    return schedule


def _replacing(sim: Simulator, schedule: Object, params: dict[str, Any], *, now: int) -> list[Object]:
    """New phases of a running schedule. What has begun must be repeated as it is."""
    given = params["phases"]
    current = phase_at(schedule, now) if schedule["status"] == "active" else None
    start_date = current["start_date"] if current else schedule["phases"][0]["start_date"]
    if current and given[0].get("start_date") not in (None, start_date):
        raise StripeProblem(
            f"You can not modify the start date of the current phase: it began at {start_date}.",
            param="phases[0][start_date]",
        )
    phases = given_phases(
        sim,
        given,
        schedule["customer"],
        first_start=start_date,
        proration=params.get("proration_behavior", "create_prorations"),
    )
    if current and phases[0]["end_date"] <= now:
        raise StripeProblem("The current phase must end in the future.", param="phases[0][end_date]")
    if current and _priced(phases[0]) != _priced(current):
        raise StripeProblem(
            "The simulator does not change the items of the current phase: repeat them as they are.",
            param="phases[0][items]",
        )
    return phases


def _priced(phase: Object) -> list[tuple[str, int | None]]:
    return sorted((one["price"], one.get("quantity") or 0) for one in phase["items"])


def _must_live(schedule: Object, doing: str) -> None:
    if schedule["status"] not in LIVE:
        raise StripeProblem(
            f"You cannot change a subscription schedule that is {schedule['status']}: it cannot be {doing}.",
            param="schedule",
        )


@route("POST", "/v1/subscription_schedules/{schedule}/release")
def release_schedule(sim: Simulator, call: Call) -> Object:
    schedule = sim.state.get(KIND, call.path["schedule"])
    _must_live(schedule, "released")
    now = sim.now(schedule["customer"])
    if schedule["subscription"] is None:
        schedule.update(status="released", released_at=now)
        sim.emit("subscription_schedule.released", schedule)
        return schedule
    sub = sim.state.get("subscription", schedule["subscription"])
    release(sim, schedule, sub, now=now)
    sim.tell("subscription.moved", sub)
    return schedule


@route("POST", "/v1/subscription_schedules/{schedule}/cancel")
def cancel_schedule(sim: Simulator, call: Call) -> Object:
    """The subscription is cancelled with it, at once."""
    schedule, params = sim.state.get(KIND, call.path["schedule"]), call.params
    _must_live(schedule, "canceled")
    now = sim.now(schedule["customer"])
    set_current(schedule, None)
    schedule.update(status="canceled", canceled_at=now)
    sub = sim.state.find("subscription", schedule["subscription"] or "")
    if sub:
        end_subscription(
            sim,
            sub,
            reason="cancellation_requested",
            invoice_now=params.get("invoice_now", True),
            prorate=params.get("prorate", True),
        )
    sim.emit("subscription_schedule.canceled", schedule)
    return schedule


def _subscription_ended(sim: Simulator, sub: Object) -> None:
    schedule = sim.state.find(KIND, sub["schedule"] or "")
    if schedule and schedule["status"] in LIVE:
        set_current(schedule, None)
        schedule.update(status="canceled", canceled_at=sim.now(sub["customer"]))
        sim.emit("subscription_schedule.aborted", schedule)


listen("subscription.ended", _subscription_ended)
