"""The control API under `/_sim`: what tests order and ask."""

import secrets
from dataclasses import asdict, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from devstack.stripe.delivery import Courier, Disorder
from devstack.stripe.events import METER_EVENT_TYPES, Delivery, redeliver
from devstack.stripe.faults import Fault
from devstack.stripe.front import Front
from devstack.stripe.objects.webhooks import DESTINATION, ENDPOINT, make_destination, make_endpoint
from devstack.stripe.rendering import plain_values
from devstack.stripe.routes import ORDERS
from devstack.stripe.simulator import Simulator, SimulatorConfig

Given = dict[str, Any]
SETTINGS = {one.name for one in fields(SimulatorConfig)}


def control_router(front: Front, courier: Courier) -> APIRouter:
    """Routes that change and show one simulator."""
    router = APIRouter(prefix="/_sim")
    _add_time(router, front)
    _add_settings(router, front, courier)
    _add_faults(router, front)
    _add_webhooks(router, front, courier)
    _add_evidence(router, front)
    return router


async def _given(request: Request) -> Given:
    body = await request.body()
    return dict(await request.json()) if body else {}


def _add_time(router: APIRouter, front: Front) -> None:
    sim = front.sim

    @router.get("/health")
    async def health() -> Given:
        return {"ok": True}

    @router.get("/now")
    async def now() -> Given:
        return {"now": sim.now()}

    @router.post("/freeze")
    async def freeze(request: Request) -> Given:
        with sim.recording("freezing the clock"):
            sim.clock.freeze((await _given(request)).get("at"))
        return {"now": sim.now()}

    @router.post("/thaw")
    async def thaw() -> Given:
        sim.clock.thaw()
        return {"now": sim.now()}

    @router.post("/advance", response_model=None)
    async def advance(request: Request) -> Given | JSONResponse:
        given = await _given(request)
        target = given.get("to") if given.get("to") is not None else sim.now() + int(given.get("seconds") or 0)
        if target is None or target < sim.now():
            return _refused(f"the clock stands at {sim.now()} and cannot go back")
        with sim.recording("advancing the clock"):
            sim.clock.advance_to(int(target))
        sim.run_soon()
        return {"now": sim.now()}


def _add_settings(router: APIRouter, front: Front, courier: Courier) -> None:
    sim = front.sim

    @router.post("/reset", response_model=None)
    async def reset(request: Request) -> Given | JSONResponse:
        given = await _given(request)
        at = given.pop("at", None)
        if unknown := given.keys() - SETTINGS:
            return _refused(f"no settings {', '.join(sorted(unknown))}; there are {', '.join(sorted(SETTINGS))}")
        courier.forget()
        sim.reset()
        front.begin()
        sim.config = replace(sim.config, **given)
        courier.most_attempts = sim.config.webhook_attempts
        if at is not None:
            sim.clock = type(sim.clock)(at)
        return {"now": sim.now()}

    @router.post("/config", response_model=None)
    async def config(request: Request) -> Given | JSONResponse:
        given = await _given(request)
        if unknown := given.keys() - SETTINGS:
            return _refused(f"no settings {', '.join(sorted(unknown))}; there are {', '.join(sorted(SETTINGS))}")
        sim.config = replace(sim.config, **given)
        courier.most_attempts = sim.config.webhook_attempts
        return asdict(sim.config)


def _add_faults(router: APIRouter, front: Front) -> None:
    @router.post("/faults", response_model=None)
    async def add_fault(request: Request) -> Given | JSONResponse:
        try:
            front.faults.add(Fault(**await _given(request)))
        except (ValueError, TypeError) as error:
            return _refused(str(error))
        return {}

    @router.post("/random_faults", response_model=None)
    async def random_faults(request: Request) -> Given | JSONResponse:
        given = await _given(request)
        try:
            front.faults.set_rates(given["rates"], seed=given.get("seed", 0), path=given.get("path", "/v*"))
        except (ValueError, KeyError) as error:
            return _refused(str(error))
        return {}

    @router.get("/faults")
    async def faults() -> Given:
        return {
            "ordered": [asdict(one) for one in front.faults.ordered],
            "rates": front.faults.rates,
            "happened": dict(front.faults.happened),
        }

    @router.delete("/faults")
    async def clear_faults() -> Given:
        front.faults.clear()
        return {}


def _add_webhooks(router: APIRouter, front: Front, courier: Courier) -> None:
    sim = front.sim

    @router.post("/webhooks")
    async def add_webhook(request: Request) -> Given:
        given = await _given(request)
        secret = given.get("secret") or "whsec_" + secrets.token_hex(16)
        thin, metadata = bool(given.get("thin")), dict(given.get("metadata") or {})
        if _moved(sim, given["url"], secret, thin=thin, metadata=metadata):
            return {"secret": secret}
        if thin:
            made = make_destination(sim, given["url"], given.get("events") or METER_EVENT_TYPES, secret=secret)
        else:
            made = make_endpoint(sim, given["url"], given.get("events") or ["*"], secret=secret)
        made["metadata"] = metadata
        return {"secret": secret}

    @router.post("/disorder", response_model=None)
    async def disorder(request: Request) -> Given | JSONResponse:
        given = await _given(request)
        given["types"] = tuple(given.get("types") or ())
        try:
            courier.set_disorder(Disorder(**given))
        except TypeError as error:
            return _refused(str(error))
        return {}

    @router.post("/deliver")
    async def deliver(request: Request) -> Given:
        given = await _given(request)
        types = tuple(given.get("types") or ())
        sent = courier.release(order=given.get("order", "made"), times=given.get("times", 1), types=types)
        return {"sent": len(sent)}

    @router.post("/resend")
    async def resend(request: Request) -> Given:
        return {"sent": redeliver(sim, str((await _given(request))["event"]))}

    @router.get("/pending")
    async def pending() -> Given:
        return {"pending": courier.pending}

    @router.get("/deliveries")
    async def deliveries() -> Given:
        return {
            "pending": courier.pending,
            "held": len(courier.held),
            "dropped": len(courier.dropped),
            "failed": len(courier.failed),
            "all": [_shown(one) for one in sim.deliveries.log],
        }


def _add_evidence(router: APIRouter, front: Front) -> None:
    sim = front.sim

    @router.get("/violations")
    async def violations() -> Given:
        return {"violations": sim.violations}

    @router.get("/requests")
    async def requests(path: str = "*") -> Given:
        return {"requests": [asdict(one) for one in front.seen if fnmatchcase(one.path, path)]}

    @router.get("/dump")
    async def dump(kind: str | None = None) -> JSONResponse:
        objects = {name: kept for name, kept in sim.state.kinds() if kind in {None, name}}
        return JSONResponse({"objects": plain_values(objects)})

    @router.post("/do/{name}", response_model=None)
    async def do(name: str, request: Request) -> Given | JSONResponse:
        if name not in ORDERS:
            return _refused(f"there is no order {name}; there are {', '.join(sorted(ORDERS))}")
        try:
            answer = ORDERS[name](sim, await _given(request))
        except Exception as error:  # noqa: BLE001 - told to the test that ordered it
            return _refused(repr(error))
        sim.run_soon()
        return answer


def _shown(delivery: Delivery) -> Given:
    shown = asdict(delivery)
    del shown["body"], shown["secret"]
    return shown


def _refused(problem: str) -> JSONResponse:
    return JSONResponse({"problem": problem}, status_code=400)


def _moved(sim: Simulator, url: str, secret: str, *, thin: bool, metadata: dict[str, str]) -> bool:
    """Give whoever bears this metadata already the new address and secret; False where nobody does."""
    found = sim.state.where(DESTINATION if thin else ENDPOINT, metadata=metadata) if metadata else []
    for one in found:
        one["_url" if thin else "url"], one["_secret"], one["status"] = url, secret, "enabled"
    return bool(found)
