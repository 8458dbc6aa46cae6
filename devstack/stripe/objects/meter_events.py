"""Meter events: taken at once, checked and counted later."""

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

from devstack.stripe.events import to_rfc3339
from devstack.stripe.objects.meter_errors import report
from devstack.stripe.objects.meter_store import Counted, series_of
from devstack.stripe.problems import StripeProblem, no_such
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

OLDEST_SECONDS = 35 * 86_400
AHEAD_SECONDS = 5 * 60
UNIQUE_SECONDS = 86_400
LONGEST = 100
MOST_DIGITS = 15
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


@dataclass
class Received:
    """One event as it came."""

    identifier: str
    event_name: str
    payload: dict[str, str]
    timestamp: int
    received_at: int
    number: int
    series: tuple[str, str] | None = None
    """Meter and customer it was counted for."""
    cancelled: bool = False


def _received(sim: Simulator) -> dict[str, Received]:
    kept: dict[str, Received] = sim.features.setdefault("meter_events", {})
    return kept


@route("POST", "/v1/billing/meter_events")
def create_event(sim: Simulator, call: Call) -> Object:
    taken = take(sim, call.params, call.params.get("timestamp"))
    return {
        "object": "billing.meter_event",
        "created": taken.received_at,
        "event_name": taken.event_name,
        "identifier": taken.identifier,
        "livemode": False,
        "payload": taken.payload,
        "timestamp": taken.timestamp,
    }


@route("POST", "/v2/billing/meter_events")
def create_event_v2(sim: Simulator, call: Call) -> Object:
    taken = take(sim, call.params, _seconds(call.params.get("timestamp")))
    return {
        "object": "v2.billing.meter_event",
        "created": to_rfc3339(taken.received_at),
        "event_name": taken.event_name,
        "identifier": taken.identifier,
        "livemode": False,
        "payload": taken.payload,
        "timestamp": to_rfc3339(taken.timestamp),
    }


def take(sim: Simulator, given: Object, timestamp: int | None) -> Received:
    """Check what is checked at once, and have the rest done later. Raises StripeProblem."""
    payload = given["payload"]
    now = sim.now(payload.get("stripe_customer_id"))
    moment = now if timestamp is None else timestamp
    identifier = given.get("identifier") or sim.state.new_token(32)
    _check_now(sim, given, identifier, moment, now)
    kept = _received(sim)
    one = Received(identifier, given["event_name"], dict(payload), moment, sim.now(), len(kept) + 1)
    kept[identifier] = one
    _later(sim, partial(count, sim, one))
    return one


def _later(sim: Simulator, action: Any) -> None:
    """At once when no delay is set: tests that do not ask for it need not wait."""
    if sim.config.aggregation_seconds <= 0:
        action()
    else:
        sim.at(sim.now() + sim.config.aggregation_seconds, action)


def _check_now(sim: Simulator, given: Object, identifier: str, moment: int, now: int) -> None:
    for name in ("event_name", "identifier"):
        if len(given.get(name, "")) > LONGEST:
            raise StripeProblem(f"{name} has at most 100 characters.", param=name)
    if moment < now - OLDEST_SECONDS:
        raise StripeProblem(
            "The timestamp must be within the past 35 calendar days.",
            code="timestamp_too_far_in_past",
            param="timestamp",
        )
    if moment > now + AHEAD_SECONDS:
        raise StripeProblem(
            "The timestamp may be at most 5 minutes in the future.", code="timestamp_in_future", param="timestamp"
        )
    meter = _meter_of(sim, given["event_name"])
    key = meter["value_settings"]["event_payload_key"] if meter else "value"
    if len(re.sub(r"\D", "", given["payload"].get(key, "")).lstrip("0")) > MOST_DIGITS:
        raise StripeProblem(
            "The value of a meter event has at most 15 significant digits.",
            code="meter_event_value_too_many_digits",
            param=f"payload[{key}]",
        )
    former = _received(sim).get(identifier)
    if former is not None and sim.now() - former.received_at < UNIQUE_SECONDS:
        raise StripeProblem(
            f"An event already exists with identifier {identifier}.", param="identifier", should_retry=False
        )


def _meter_of(sim: Simulator, event_name: str) -> Object | None:
    """The active one of that name, else the newest."""
    found = sim.state.where("billing.meter", event_name=event_name)
    active = [one for one in found if one["status"] == "active"]
    return (active or found)[-1] if found else None


def count(sim: Simulator, one: Received) -> None:
    """Put it into its series, or report why not."""
    meter = _meter_of(sim, one.event_name)
    problem = _late_problem(sim, meter, one)
    if problem is not None or meter is None:
        report(sim, meter, one.identifier, *(problem or ("no_meter", "There is no meter of this event name.")))
        return
    customer = one.payload[meter["customer_mapping"]["event_payload_key"]]
    value = _number(one.payload.get(meter["value_settings"]["event_payload_key"], "1"))
    one.series = (meter["id"], customer)
    if not one.cancelled:
        counted = Counted(one.identifier, one.timestamp, value or Decimal(0), one.number)
        # an identifier may come again after a day: then both count
        series_of(sim, *one.series).events[f"{one.identifier} {one.number}"] = counted


def _late_problem(  # noqa: PLR0911 - one check after another
    sim: Simulator, meter: Object | None, one: Received
) -> tuple[str, str] | None:
    if meter is None:
        return None
    if meter["status"] != "active":
        return "archived_meter", "The meter is archived."
    customer = one.payload.get(meter["customer_mapping"]["event_payload_key"])
    if not customer:
        return "meter_event_no_customer_defined", "The payload names no customer."
    if sim.state.find("customer", customer) is None:
        return "meter_event_customer_not_found", f"There is no customer {customer}."
    if meter["default_aggregation"]["formula"] == "count":
        return None
    value = _number(one.payload.get(meter["value_settings"]["event_payload_key"], ""))
    if value is None or (sim.config.whole_positive_values and (value < 0 or value != value.to_integral_value())):
        return "meter_event_invalid_value", "The value is not a number that this meter takes."
    return None


def _number(text: str) -> Decimal | None:
    if not NUMBER.fullmatch(text.strip()):
        return None
    try:
        return Decimal(text.strip())
    except InvalidOperation:
        return None


@route("POST", "/v1/billing/meter_event_adjustments")
def create_adjustment(sim: Simulator, call: Call) -> Object:
    identifier = _cancel(sim, call.params)
    return {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "event_name": call.params["event_name"],
        "livemode": False,
        "status": "pending" if sim.config.aggregation_seconds > 0 else "complete",
        "type": "cancel",
    }


@route("POST", "/v2/billing/meter_event_adjustments")
def create_adjustment_v2(sim: Simulator, call: Call) -> Object:
    identifier = _cancel(sim, call.params)
    return {
        "id": sim.state.new_id("mtr_event_adj_test", 24),
        "object": "v2.billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "created": to_rfc3339(sim.now()),
        "event_name": call.params["event_name"],
        "livemode": False,
        "status": "pending" if sim.config.aggregation_seconds > 0 else "complete",
        "type": "cancel",
    }


def _cancel(sim: Simulator, given: Object) -> str:
    """Take an event back; within a day of its receipt only. Returns its identifier."""
    identifier: str = given.get("cancel", {}).get("identifier", "")
    if not identifier:
        raise StripeProblem(
            "Missing required param: cancel[identifier].", code="parameter_missing", param="cancel[identifier]"
        )
    one = _received(sim).get(identifier)
    if one is None or one.event_name != given["event_name"]:
        raise no_such("meter event", identifier, param="cancel[identifier]")
    if sim.now() - one.received_at > UNIQUE_SECONDS:
        raise StripeProblem(
            "Meter events can be cancelled only within 24 hours of their receipt.", param="cancel[identifier]"
        )
    if one.cancelled:
        raise StripeProblem("This meter event is cancelled already.", param="cancel[identifier]")
    one.cancelled = True
    _later(sim, partial(_uncount, sim, one))
    return identifier


def _uncount(sim: Simulator, one: Received) -> None:
    if one.series is not None:
        series_of(sim, *one.series).events.pop(f"{one.identifier} {one.number}", None)


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        raise StripeProblem(f"Invalid timestamp: {text}", code="invalid_fields", param="timestamp") from None
