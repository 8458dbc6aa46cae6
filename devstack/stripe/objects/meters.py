"""Meters, and summaries of what was reported to them."""

from devstack.stripe.fields import set_given
from devstack.stripe.objects.meter_store import series_of
from devstack.stripe.paging import page, window
from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

KIND = "billing.meter"
LONGEST_NAME = 100
MINUTE, HOUR, DAY = 60, 3_600, 86_400


@route("POST", "/v1/billing/meters")
def create_meter(sim: Simulator, call: Call) -> Object:
    given = call.params
    name = given["event_name"]
    if len(name) > LONGEST_NAME:
        raise StripeProblem("event_name has at most 100 characters.", param="event_name")
    if sim.state.where(KIND, event_name=name, status="active"):
        raise StripeProblem(
            f"An active meter with the event name {name} exists already.",
            code="resource_already_exists",
            param="event_name",
        )
    now = sim.now()
    made = sim.state.add(
        {
            "id": sim.state.new_id("mtr_test", 28),
            "object": KIND,
            "created": now,
            "customer_mapping": given.get(
                "customer_mapping", {"event_payload_key": "stripe_customer_id", "type": "by_id"}
            ),
            "default_aggregation": given["default_aggregation"],
            "display_name": given["display_name"],
            "event_name": name,
            "event_time_window": given.get("event_time_window"),
            "livemode": False,
            "status": "active",
            "status_transitions": {"deactivated_at": None},
            "updated": now,
            "value_settings": given.get("value_settings", {"event_payload_key": "value"}),
        }
    )
    sim.emit("billing.meter.created", made)
    return made


@route("GET", "/v1/billing/meters/{id}")
def retrieve_meter(sim: Simulator, call: Call) -> Object:
    return sim.state.get(KIND, call.path["id"])


@route("GET", "/v1/billing/meters")
def list_meters(sim: Simulator, call: Call) -> Object:
    wanted = {"status": call.params["status"]} if "status" in call.params else {}
    return page(call, sim.state.where(KIND, **wanted))


@route("POST", "/v1/billing/meters/{id}")
def update_meter(sim: Simulator, call: Call) -> Object:
    meter = sim.state.get(KIND, call.path["id"])
    with sim.changing(meter, "billing.meter.updated"):
        set_given(meter, call.params, ("display_name",))
        meter["updated"] = sim.now()
    return meter


@route("POST", "/v1/billing/meters/{id}/deactivate")
def deactivate_meter(sim: Simulator, call: Call) -> Object:
    meter = sim.state.get(KIND, call.path["id"])
    if meter["status"] != "active":
        raise StripeProblem("The meter is inactive already.")
    meter.update(status="inactive", status_transitions={"deactivated_at": sim.now()}, updated=sim.now())
    sim.emit("billing.meter.deactivated", meter)
    return meter


@route("POST", "/v1/billing/meters/{id}/reactivate")
def reactivate_meter(sim: Simulator, call: Call) -> Object:
    meter = sim.state.get(KIND, call.path["id"])
    if sim.state.where(KIND, event_name=meter["event_name"], status="active"):
        raise StripeProblem("An active meter with this event name exists already.")
    meter.update(status="active", status_transitions={"deactivated_at": None}, updated=sim.now())
    sim.emit("billing.meter.reactivated", meter)
    return meter


@route("GET", "/v1/billing/meters/{id}/event_summaries")
def list_summaries(sim: Simulator, call: Call) -> Object:
    """Only windows with events in them; newest first."""
    meter = sim.state.get(KIND, call.path["id"])
    given = call.params
    sim.state.get("customer", given["customer"], param="customer")
    step = _step(given)
    series = series_of(sim, meter["id"], given["customer"])
    start, end = given["start_time"], given["end_time"]
    found = []
    for opened, closed in _windows(start, end, step, series.moments(start, end)):
        value = series.aggregated(meter, opened, closed)
        found.append(
            {
                "id": f"mtrusg_test_{meter['id'][-12:]}{given['customer'][-6:]}{opened}{closed - opened}",
                "object": "billing.meter_event_summary",
                "aggregated_value": float(value),
                "end_time": closed,
                "livemode": False,
                "meter": meter["id"],
                "start_time": opened,
            }
        )
    found.reverse()
    return window(call, found)


def _step(given: Object) -> int | None:
    """The length of a window; None for one over the whole. Raises StripeProblem for bounds that do not fit."""
    grouping = given.get("value_grouping_window")
    step = {"hour": HOUR, "day": DAY}.get(grouping) if grouping else None
    bound = step or MINUTE
    for name in ("start_time", "end_time"):
        if given[name] % bound:
            boundary = f"{grouping} boundaries (UTC)" if grouping else "minute boundaries"
            raise StripeProblem(f"{name} must be aligned with {boundary}.", param=name)
    if given["end_time"] <= given["start_time"]:
        raise StripeProblem("end_time must be after start_time.", param="end_time")
    return step


def _windows(start: int, end: int, step: int | None, moments: list[int]) -> list[tuple[int, int]]:
    if not moments:
        return []
    if step is None:
        return [(start, end)]
    return [(opened, opened + step) for opened in sorted({moment - moment % step for moment in moments})]
