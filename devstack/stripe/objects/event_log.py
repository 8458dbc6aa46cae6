"""Events as they can be read again: snapshots for 30 days, and those of the thin form."""

from datetime import datetime

from devstack.stripe.paging import limit_of, page
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

KEPT_SECONDS = 30 * 86_400
THIN = "v2.core.event"


@route("GET", "/v1/events/{id}")
def retrieve_event(sim: Simulator, call: Call) -> Object:
    return sim.state.get("event", call.path["id"])


@route("GET", "/v1/events")
def list_events(sim: Simulator, call: Call) -> Object:
    given = call.params
    oldest = sim.now() - KEPT_SECONDS
    types = set(given.get("types", ())) | ({given["type"]} if "type" in given else set())
    found = [one for one in sim.state.all("event") if one["created"] >= oldest and _of_type(one["type"], types)]
    if "delivery_success" in given:
        found = [one for one in found if (one["pending_webhooks"] == 0) == given["delivery_success"]]
    return page(call, found)


def _of_type(name: str, wanted: set[str]) -> bool:
    """`invoice.*` names all that begin so."""
    return not wanted or any(
        name == one or (one.endswith("*") and name.startswith(one.removesuffix("*"))) for one in wanted
    )


@route("GET", "/v2/core/events/{id}")
def retrieve_thin_event(sim: Simulator, call: Call) -> Object:
    return sim.state.get(THIN, call.path["id"])


@route("GET", "/v2/core/events")
def list_thin_events(sim: Simulator, call: Call) -> Object:
    given = call.params
    found = [one for one in reversed(sim.state.all(THIN)) if _matches(one, given)]
    limit, start = limit_of(given), int(given.get("page", "0"))
    rest = len(found) > start + limit
    return {
        "data": found[start : start + limit],
        "next_page_url": f"{call.url_path}?limit={limit}&page={start + limit}" if rest else None,
        "previous_page_url": None,
    }


def _matches(one: Object, given: Object) -> bool:
    if "object_id" in given and one.get("related_object", {}).get("id") != given["object_id"]:
        return False
    if "types" in given and one["type"] not in given["types"]:
        return False
    created = given.get("created", {})
    at = one["_created"]
    return bool(
        at > _seconds(created.get("gt"), -1)
        and at >= _seconds(created.get("gte"), 0)
        and at < _seconds(created.get("lt"), at + 1)
        and at <= _seconds(created.get("lte"), at)
    )


def _seconds(text: str | None, otherwise: int) -> int:
    return otherwise if text is None else int(datetime.fromisoformat(text).timestamp())
