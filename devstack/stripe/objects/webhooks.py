"""Webhook endpoints (snapshot events) and event destinations (thin events)."""

import secrets
from collections.abc import Sequence

from devstack.stripe.events import to_rfc3339
from devstack.stripe.fields import merge_metadata, merged, set_given
from devstack.stripe.paging import page
from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import API_VERSION, Simulator
from devstack.stripe.state import Object

ENDPOINT = "webhook_endpoint"
DESTINATION = "v2.core.event_destination"
MOST_ENDPOINTS = 16


def make_endpoint(sim: Simulator, url: str, events: Sequence[str], *, secret: str) -> Object:
    """One that is delivered to from now on; the secret is shown only once."""
    return sim.state.add(
        {
            "id": sim.state.new_id("we", 24),
            "object": ENDPOINT,
            "api_version": API_VERSION,
            "application": None,
            "created": sim.now(),
            "description": None,
            "enabled_events": list(events),
            "livemode": False,
            "metadata": {},
            "status": "enabled",
            "url": url,
            "_secret": secret,
        }
    )


@route("POST", "/v1/webhook_endpoints")
def create_endpoint(sim: Simulator, call: Call) -> Object:
    given = call.params
    if len(sim.state.all(ENDPOINT)) >= MOST_ENDPOINTS:
        raise StripeProblem(f"You have reached the maximum of {MOST_ENDPOINTS} test webhook endpoints.")
    if given.get("api_version", API_VERSION) != API_VERSION:
        raise StripeProblem(f"The simulator sends API version {API_VERSION} only.", param="api_version")
    _check_url(given["url"], "url")
    made = make_endpoint(sim, given["url"], given["enabled_events"], secret="whsec_" + secrets.token_hex(16))
    made["metadata"] = merged({}, given.get("metadata", {}))
    set_given(made, given, ("description",))
    return {**made, "secret": made["_secret"]}


@route("GET", "/v1/webhook_endpoints/{webhook_endpoint}")
def retrieve_endpoint(sim: Simulator, call: Call) -> Object:
    return sim.state.get(ENDPOINT, call.path["webhook_endpoint"])


@route("GET", "/v1/webhook_endpoints")
def list_endpoints(sim: Simulator, call: Call) -> Object:
    return page(call, sim.state.all(ENDPOINT))


@route("POST", "/v1/webhook_endpoints/{webhook_endpoint}")
def update_endpoint(sim: Simulator, call: Call) -> Object:
    endpoint = sim.state.get(ENDPOINT, call.path["webhook_endpoint"])
    if "url" in call.params:
        _check_url(call.params["url"], "url")
    set_given(endpoint, call.params, ("url", "enabled_events", "description"))
    if "disabled" in call.params:
        endpoint["status"] = "disabled" if call.params["disabled"] else "enabled"
    merge_metadata(endpoint, call.params)
    return endpoint


@route("DELETE", "/v1/webhook_endpoints/{webhook_endpoint}")
def delete_endpoint(sim: Simulator, call: Call) -> Object:
    endpoint = sim.state.get(ENDPOINT, call.path["webhook_endpoint"])
    sim.state.remove(ENDPOINT, endpoint["id"])
    return {"id": endpoint["id"], "object": ENDPOINT, "deleted": True}


def make_destination(
    sim: Simulator, url: str, events: Sequence[str], *, secret: str, name: str = "thin"
) -> Object:
    """A destination for thin events."""
    now = to_rfc3339(sim.now())
    return sim.state.add(
        {
            "id": sim.state.new_id("ed_test", 24),
            "object": DESTINATION,
            "created": now,
            "description": "",
            "enabled_events": list(events),
            "event_payload": "thin",
            "livemode": False,
            "metadata": {},
            "name": name,
            "status": "enabled",
            "type": "webhook_endpoint",
            "updated": now,
            "webhook_endpoint": {},
            "_url": url,
            "_secret": secret,
        }
    )


@route("POST", "/v2/core/event_destinations")
def create_destination(sim: Simulator, call: Call) -> Object:
    given = call.params
    if given["type"] != "webhook_endpoint" or given["event_payload"] != "thin":
        raise StripeProblem("The simulator has thin destinations of the type webhook_endpoint only.", param="type")
    url = given.get("webhook_endpoint", {}).get("url", "")
    _check_url(url, "webhook_endpoint[url]")
    secret = "whsec_" + secrets.token_hex(16)
    made = make_destination(sim, url, given["enabled_events"], secret=secret, name=given["name"])
    made["metadata"] = merged({}, given.get("metadata") or {})
    made["description"] = given.get("description", "")
    shown = {"signing_secret": secret, "url": url}
    return {**made, "webhook_endpoint": {name: shown[name] for name in _included(given)}}


@route("GET", "/v2/core/event_destinations/{id}")
def retrieve_destination(sim: Simulator, call: Call) -> Object:
    made = sim.state.get(DESTINATION, call.path["id"])
    shown = {"url": made["_url"], "signing_secret": made["_secret"]}
    # the secret is shown once, when it is made
    names = [name for name in _included(call.params) if name == "url"]
    return {**made, "webhook_endpoint": {name: shown[name] for name in names}}


@route("GET", "/v2/core/event_destinations")
def list_destinations(sim: Simulator, call: Call) -> Object:
    found = []
    for made in reversed(sim.state.all(DESTINATION)):
        urls = {"url": made["_url"]} if "url" in _included(call.params) else {}
        found.append({**made, "webhook_endpoint": urls})
    return {"data": found, "next_page_url": None, "previous_page_url": None}


@route("POST", "/v2/core/event_destinations/{id}")
def update_destination(sim: Simulator, call: Call) -> Object:
    made = sim.state.get(DESTINATION, call.path["id"])
    set_given(made, call.params, ("enabled_events", "description", "name"))
    if "metadata" in call.params:
        made["metadata"] = merged(made["metadata"], call.params["metadata"])
    if url := call.params.get("webhook_endpoint", {}).get("url"):
        _check_url(url, "webhook_endpoint[url]")
        made["_url"] = url
    made["updated"] = to_rfc3339(sim.now())
    return made


@route("DELETE", "/v2/core/event_destinations/{id}")
def delete_destination(sim: Simulator, call: Call) -> Object:
    made = sim.state.get(DESTINATION, call.path["id"])
    sim.state.remove(DESTINATION, made["id"])
    return {"id": made["id"], "object": DESTINATION, "deleted": True}


@route("POST", "/v2/core/event_destinations/{id}/disable")
def disable_destination(sim: Simulator, call: Call) -> Object:
    made = sim.state.get(DESTINATION, call.path["id"])
    made["status"] = "disabled"
    return made


@route("POST", "/v2/core/event_destinations/{id}/enable")
def enable_destination(sim: Simulator, call: Call) -> Object:
    made = sim.state.get(DESTINATION, call.path["id"])
    made["status"] = "enabled"
    return made


def _included(params: Object) -> list[str]:
    return [name.removeprefix("webhook_endpoint.") for name in params.get("include", ())]


def _check_url(url: str, param: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise StripeProblem("Invalid URL: An explicit scheme (such as https) must be provided.", param=param)
