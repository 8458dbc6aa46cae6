"""The application."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi_offline import FastAPIOffline

from control_plane.admin_api import problems
from control_plane.admin_api.access import authenticated
from control_plane.admin_api.event_reports import router as event_reports
from control_plane.admin_api.forms import refuse_repeated_parameters
from control_plane.admin_api.middleware import RequestScope
from control_plane.admin_api.pages.completeness import router as completeness_page
from control_plane.admin_api.pages.reconciliation import router as reconciliation_page
from control_plane.admin_api.pages.unpaid import router as unpaid_page
from control_plane.admin_api.problems import MEDIA_TYPE, Problem
from control_plane.admin_api.resources import RESOURCES
from control_plane.admin_api.resources.health import router as health
from control_plane.admin_api.services import Services

DESCRIPTION = """
Everything under `/admin/v1` needs `Authorization: Bearer kmt_…`; make the first token with `km db create-token`.
Times are RFC 3339 in UTC, amounts are whole minor units, ids are opaque.
Lists are paged: pass `next_cursor` as `cursor` to get the next page.
Errors are `application/problem+json` with a stable `code`; wrong fields are named in `errors`.
`/ingest/v1` takes events that applications report.
"""
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "model": Problem}
    for status, description in {
        400: "The request cannot be read.",
        401: "No valid token.",
        403: "The token's role may not do this, or a rule forbids it.",
        404: "There is no such thing; `code` says which.",
        409: "What is there already forbids it; `code` says what.",
        413: "The body is too large.",
        415: "The body's media type is not taken.",
        422: "Fields are wrong; `errors` names them.",
        503: "A store cannot be reached. Try again.",
    }.items()
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
    admin = APIRouter(
        prefix="/admin/v1",
        dependencies=[Depends(authenticated), Depends(refuse_repeated_parameters)],
        responses=_ERRORS,
    )
    for resource in RESOURCES:
        admin.include_router(resource)
    app.include_router(health)
    app.include_router(admin)
    app.include_router(event_reports)
    app.include_router(completeness_page)
    app.include_router(reconciliation_page)
    app.include_router(unpaid_page)
    _name_media_type_of_problems(app)
    return app


def _name_media_type_of_problems(app: FastAPI) -> None:
    """FastAPI documents every model as application/json; problems have a media type of their own."""
    for path in app.openapi()["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                content = response.get("content", {})
                if content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("/Problem"):
                    response["content"] = {MEDIA_TYPE: content["application/json"]}


def create_health_app(services: Services) -> FastAPI:
    """Return liveness, readiness and metrics alone: what a process of workers answers."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.services = services
    problems.install(app)
    app.add_middleware(RequestScope)
    app.include_router(health)
    return app
