"""Phases of a schedule as the subscription goes through them."""

from devstack.stripe.billing import discounts
from devstack.stripe.billing.changes import work_out
from devstack.stripe.billing.items import Wanted, check_together, copied, make_item
from devstack.stripe.billing.lines import is_metered
from devstack.stripe.billing.pending import keep_pending
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


def cancels_now(schedule: Object, now: int) -> bool:
    """Whether the schedule is at its end, and the end is a cancellation."""
    return phase_at(schedule, now) is None and schedule["end_behavior"] == "cancel"


def phase_at(schedule: Object, moment: int) -> Object | None:
    """The phase that holds a moment; None before the first and after the last."""
    return next(
        (phase for phase in schedule["phases"] if phase["start_date"] <= moment < phase["end_date"]),
        None,
    )


def set_current(schedule: Object, phase: Object | None) -> None:
    """Where the schedule stands, and when it goes on."""
    schedule["current_phase"] = (
        None if phase is None else {"start_date": phase["start_date"], "end_date": phase["end_date"]}
    )
    schedule["_next"] = None if phase is None else phase["end_date"]


def enter_next_phase(sim: Simulator, schedule: Object, sub: Object, *, now: int) -> list[Object]:
    """Put the subscription into the phase that begins now, or release it after the last.

    Returns lines of what goes in the middle of a period; at a period's end there are none. New items have a period
    that ends now, so that the caller begins their first.
    """
    phase = phase_at(schedule, now)
    if phase is None:
        release(sim, schedule, sub, now=now)
        return []
    at_boundary = all(item["current_period_end"] <= now for item in sub["items"]["data"])
    wanted = wanted_of(sim, phase, sub, now=now)
    lines: list[Object] = []
    resets = phase["billing_cycle_anchor"] == "phase_start"
    if not at_boundary:
        change = work_out(
            sim,
            sub,
            wanted,
            at=now,
            prorate=phase["proration_behavior"] != "none",
            new_anchor=now if resets else None,
        )
        lines = change.costs
        if phase["proration_behavior"] == "create_prorations" and not resets:
            customer = sim.state.get("customer", sub["customer"])
            for line in lines:
                keep_pending(sim, customer, line, now=now)
            lines = []
    if resets:
        sub["billing_cycle_anchor"] = now
    _take_items(sim, sub, wanted)
    if phase["metadata"]:
        sub["metadata"] = {**sub["metadata"], **phase["metadata"]}
    _take_discounts(sim, sub, phase, now=now)
    with sim.changing(schedule, "subscription_schedule.updated"):
        set_current(schedule, phase)
    return lines


def wanted_of(sim: Simulator, phase: Object, sub: Object, *, now: int) -> list[Wanted]:
    """The items of a phase beside those of the subscription: an item stays where its price stays."""
    by_price = {item["price"]["id"]: item for item in sub["items"]["data"]}
    at_boundary = all(item["current_period_end"] <= now for item in sub["items"]["data"])
    wanted: list[Wanted] = []
    for entry in phase["items"]:
        price = sim.state.get("price", entry["price"])
        old = by_price.pop(price["id"], None)
        if old is not None:
            new = copied(old)
            if not is_metered(price):
                new["quantity"] = entry["quantity"]
            wanted.append(Wanted(old, new))
            continue
        other = sub["items"]["data"][0]
        period = (now, now) if at_boundary else (other["current_period_start"], other["current_period_end"])
        new = make_item(
            sim,
            price,
            quantity=entry.get("quantity", 1),
            subscription=sub["id"],
            period=period,
            now=now,
            metadata=entry["metadata"],
            rates=entry["tax_rates"],
        )
        wanted.append(Wanted(None, new))
    wanted += [Wanted(old, None) for old in by_price.values()]
    check_together([one.new for one in wanted if one.new is not None], "phases")
    return wanted


def items_of_next_phase(sim: Simulator, schedule: Object, sub: Object, *, now: int) -> list[Object] | None:
    """Copies of the items that the phase beginning at `now` has; None when the items stay as they are."""
    phase = phase_at(schedule, now)
    if phase is None:
        return [] if schedule["end_behavior"] == "cancel" else None
    return [one.new for one in wanted_of(sim, phase, sub, now=now) if one.new is not None]


def _take_items(sim: Simulator, sub: Object, wanted: list[Wanted]) -> None:
    items = []
    for one in wanted:
        if one.new is None:
            sim.state.remove("subscription_item", one.old["id"] if one.old else "")
        elif one.old is None:
            items.append(sim.state.add(one.new))
        else:
            one.old.update(one.new)
            items.append(one.old)
    sub["items"]["data"] = items


def _take_discounts(sim: Simulator, sub: Object, phase: Object, *, now: int) -> None:
    if not phase["_discounts"]:
        return
    for one in list(sub["discounts"]):
        discounts.end(sim, one)
    sub["discounts"] = discounts.give(
        sim, phase["_discounts"], customer=sub["customer"], now=now, subscription=sub["id"]
    )


def release(sim: Simulator, schedule: Object, sub: Object, *, now: int) -> None:
    """Let the subscription go on by itself."""
    set_current(schedule, None)
    schedule.update(status="released", released_at=now, released_subscription=sub["id"], subscription=None)
    with sim.changing(sub, "customer.subscription.updated"):
        sub["schedule"] = None
    sim.emit("subscription_schedule.released", schedule)


def complete(sim: Simulator, schedule: Object, *, now: int) -> None:
    set_current(schedule, None)
    schedule.update(status="completed", completed_at=now)
    sim.emit("subscription_schedule.completed", schedule)
