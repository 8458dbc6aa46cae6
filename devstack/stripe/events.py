"""Events: the log, and their way to webhook endpoints and event destinations."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from devstack.stripe.rendering import render
from devstack.stripe.state import Object

if TYPE_CHECKING:
    from devstack.stripe.simulator import Simulator


METER_EVENT_TYPES = ("v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found")


@dataclass
class Delivery:
    """One body on its way to one URL; it is signed when it is sent."""

    event_id: str
    kind: str
    url: str
    secret: str
    body: bytes
    not_before: float = 0.0
    attempts: int = 0
    last_status: int = 0
    thin: bool = False


@dataclass
class Deliveries:
    """What is to be sent. `queued` is called for each; the process that serves the API sets it."""

    queued: Callable[[Delivery], None] = lambda _: None
    log: list[Delivery] = field(default_factory=list)

    def queue(self, delivery: Delivery) -> None:
        self.log.append(delivery)
        self.queued(delivery)


def make_event(sim: "Simulator", kind: str, one: Object, *, previous: Object | None) -> Object:
    """A snapshot event, and its thin sister for destinations that listen to `v1.<kind>`."""
    request_id, idempotency_key = sim.request
    data: Object = {"object": render(sim.state, one)}
    if previous is not None:
        data["previous_attributes"] = previous
    event = sim.state.add(
        {
            "id": sim.state.new_id("evt", 24),
            "object": "event",
            "api_version": "2026-10-28.endive",
            "created": sim.clock.now(),
            "data": data,
            "livemode": False,
            "pending_webhooks": 0,
            "request": {"id": request_id, "idempotency_key": idempotency_key},
            "type": kind,
        }
    )
    wanting = _endpoints_wanting(sim, kind)
    event["pending_webhooks"] = len(wanting)
    sim.check_event(event)
    body = to_bytes(event) if wanting else b""
    for endpoint in wanting:
        sim.deliveries.queue(Delivery(event["id"], kind, endpoint["url"], endpoint["_secret"], body))
    if any("v1." + kind in one["enabled_events"] for one in sim.state.all("v2.core.event_destination")):
        make_thin_event(sim, "v1." + kind, related=one, data=None)["snapshot_event"] = event["id"]
    return event


def _endpoints_wanting(sim: "Simulator", kind: str) -> list[Object]:
    enabled = sim.state.where("webhook_endpoint", status="enabled")
    return [one for one in enabled if {kind, "*"} & set(one["enabled_events"])]


def redeliver(sim: "Simulator", event_id: str) -> int:
    """Send an event again to all who want it; returns how many deliveries."""
    event = sim.state.get("event", event_id)
    body, wanting = to_bytes(render(sim.state, event)), _endpoints_wanting(sim, event["type"])
    for endpoint in wanting:
        sim.deliveries.queue(Delivery(event_id, event["type"], endpoint["url"], endpoint["_secret"], body))
    return len(wanting)


def make_thin_event(sim: "Simulator", kind: str, *, related: Object | None, data: Object | None) -> Object:
    """An event of the v2 form; the notification that is sent leaves out `data`."""
    request_id, idempotency_key = sim.request
    event: Object = {
        "id": sim.state.new_id("evt_test", 24),
        "object": "v2.core.event",
        "created": to_rfc3339(sim.clock.now()),
        "livemode": False,
        "reason": None
        if request_id is None
        else {"type": "request", "request": {"id": request_id, "idempotency_key": idempotency_key or ""}},
        "type": kind,
        "context": None,
    }
    if related is not None:
        event["related_object"] = {
            "id": related["id"],
            "type": related["object"],
            "url": url_of(related),
        }
    notification = to_bytes(event)
    if data is not None:
        event["data"] = data
    sim.check_event(event)
    event["_created"] = sim.clock.now()
    sim.state.add(event)
    for one in sim.state.where("v2.core.event_destination", status="enabled"):
        if kind in one["enabled_events"] and one["type"] == "webhook_endpoint":
            sim.deliveries.queue(Delivery(event["id"], kind, one["_url"], one["_secret"], notification, thin=True))
    return event


def note_delivered(sim: "Simulator", delivery: Delivery) -> None:
    """One endpoint fewer that still waits for the event."""
    event = sim.state.find("event", delivery.event_id)
    if event is not None and event["pending_webhooks"] > 0:
        event["pending_webhooks"] -= 1


def url_of(one: Object) -> str:
    """Where the API has it."""
    folder, _, name = str(one["object"]).rpartition(".")
    plural = name + ("es" if name.endswith(("s", "ch", "x")) else "s")
    return f"/v1/{folder.replace('.', '/') + '/' if folder else ''}{plural}/{one['id']}"


def to_rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def to_bytes(value: Any) -> bytes:
    """JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False).encode()
