"""Liveness, readiness and metrics."""

import asyncio
from typing import Any

import structlog
from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from control_plane.admin_api.access import authenticated
from control_plane.admin_api.services import Check, Given

CHECK_TIMEOUT_SECONDS = 3.0
router = APIRouter(tags=["health"])
log = structlog.stdlib.get_logger(__name__)


class Health(BaseModel):
    status: str


class Readiness(BaseModel):
    """`status` is `ready` when every check is `ok`."""

    status: str
    checks: dict[str, str]


@router.get("/healthz")
async def health() -> Health:
    """Say that the process answers. Asks no store."""
    return Health(status="ok")


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Something is not usable."}})
async def readiness(services: Given) -> JSONResponse:
    """Say whether the stores and workers that this process needs are usable, each by name."""
    names = list(services.checks)
    results = await asyncio.gather(*(_run(name, services.checks[name]) for name in names))
    checks = dict(zip(names, results, strict=True))
    ready = all(result == "ok" for result in results)
    body: dict[str, Any] = {"status": "ready" if ready else "not_ready", "checks": checks}
    return JSONResponse(body, 200 if ready else 503)


@router.get("/metrics", dependencies=[Depends(authenticated)], response_class=Response, include_in_schema=False)
async def metrics() -> Response:
    """Return the metrics of this process in Prometheus' text format. Needs a token, of any role."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _run(name: str, check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            return await check() or "ok"
    except Exception as error:  # noqa: BLE001 - whatever a check raises, the thing is not usable
        await log.awarning("check_failed", check=name, exc_info=error)
        return "failed"
