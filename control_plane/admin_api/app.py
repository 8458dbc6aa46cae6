"""The application."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi_offline import FastAPIOffline

from control_plane.admin_api import problems
from control_plane.admin_api.access import authenticated
from control_plane.admin_api.middleware import RequestScope
from control_plane.admin_api.problems import MEDIA_TYPE, Problem
from control_plane.admin_api.resources import RESOURCES
from control_plane.admin_api.resources.health import router as health
from control_plane.admin_api.services import Services

DESCRIPTION = """
Everything under `/admin/v1` needs `Authorization: Bearer kmt_…`; make the first token with `km db create-token`.
Times are RFC 3339 in UTC, amounts are whole minor units, ids are opaque.
Lists are paged: pass `next_cursor` as `cursor` to get the next page.
Errors are `application/problem+json` with a stable `code`; wrong fields are named in `errors`.
"""
_PROBLEM: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request cannot be read.", "model": Problem} | _PROBLEM,
    401: {"description": "No valid token.", "model": Problem} | _PROBLEM,
    403: {"description": "The token's role may not do this.", "model": Problem} | _PROBLEM,
    422: {"description": "Fields are wrong; `errors` names them.", "model": Problem} | _PROBLEM,
    503: {"description": "A store cannot be reached.", "model": Problem} | _PROBLEM,
}


def create_app(services: Services) -> FastAPI:
    """Return the API over these services. Opens nothing itself."""
    app = FastAPIOffline(
        title="kong-monetize admin API",
        version=version("kong-monetize"),
        description=DESCRIPTION,
        openapi_url="/openapi.json",
        redoc_url=None,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.services = services
    problems.install(app)
    app.add_middleware(RequestScope)
    admin = APIRouter(prefix="/admin/v1", dependencies=[Depends(authenticated)], responses=_ERRORS)
    for resource in RESOURCES:
        admin.include_router(resource)
    app.include_router(health)
    app.include_router(admin)
    return app


def create_health_app(services: Services) -> FastAPI:
    """Return liveness, readiness and metrics alone: what a process of workers answers."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.services = services
    problems.install(app)
    app.add_middleware(RequestScope)
    app.include_router(health)
    return app
