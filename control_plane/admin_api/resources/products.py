"""API products: routes of a Kong service that are sold together."""

import asyncio
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Answer, Code, CodePath, Line, Moment, Name, StrictBody
from control_plane.admin_api.kong_names import require_kong_names
from control_plane.admin_api.services import Given, Now
from control_plane.billing.charged_dimensions import require_dimensions_kept
from control_plane.billing.operations import require_caps_kept
from control_plane.catalog import operations, queries
from control_plane.catalog.locks import lock_catalog
from control_plane.catalog.model import MAX_ENDPOINTS, Endpoint, ProductFacts
from control_plane.catalog.openapi import read_endpoints
from control_plane.catalog.rules import MAX_PATH_LENGTH, MAX_REPORTED_UNITS, MAX_ROUTE_UNITS
from control_plane.catalog.tables import ApiProduct
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.subscriptions import plan_removal
from gateway_contract.headers import DEFAULT_REPLAY_HEADERS

router = APIRouter(prefix="/products", tags=["API products"])
MAX_ROUTES = 500


class EndpointForm(StrictBody):
    method: Annotated[str, Field(max_length=16, examples=["GET"])]
    path_template: Annotated[str, Field(max_length=MAX_PATH_LENGTH, examples=["/v1/cities/{city}"])]


KongName = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9._~-]+$")]
Dimension = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Service = Annotated[KongName, Field(description="Name of the Kong service.")]
Routes = Annotated[
    list[KongName], Field(min_length=1, max_length=MAX_ROUTES, description="Names of its Kong routes.")
]
Endpoints = Annotated[
    list[EndpointForm],
    Field(max_length=MAX_ENDPOINTS, description="How calls are told apart in usage figures; else by route."),
]
RouteUnits = Annotated[
    dict[KongName, Annotated[int, Field(strict=True, ge=1, le=MAX_ROUTE_UNITS)]],
    Field(max_length=MAX_ROUTES, description="Quota units of one call by route; 1 where a route is not named."),
]
UnitHeaders = Annotated[
    dict[Dimension, Header],
    Field(max_length=16, description="The upstream's answer header by named unit: {`tokens`: `x-tokens`}."),
]
UnitMaximums = Annotated[
    dict[
        Annotated[str, Field(max_length=128, pattern=r"^([A-Za-z0-9._~-]+|\*)$")],
        Annotated[
            dict[Dimension, Annotated[int, Field(strict=True, ge=0, le=MAX_REPORTED_UNITS)]], Field(max_length=16)
        ],
    ],
    Field(
        max_length=MAX_ROUTES + 1,
        description="The most units that one call can report, by route (`*`: all others) and unit; a call that"
        " reports more counts 0 of them.",
    ),
]
ReplayHeader = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9-]{0,64}$",
        description="The answer header by which the upstream says that it repeats an earlier answer; empty: none.",
    ),
]


class CreateProduct(StrictBody):
    code: Annotated[Code, Field(examples=["weather"])]
    name: Name
    description: Line = ""
    service: Service
    routes: Routes
    endpoints: Endpoints = Field(default_factory=list)
    route_units: RouteUnits = Field(default_factory=dict)
    unit_headers: UnitHeaders = Field(default_factory=dict)
    unit_maximums: UnitMaximums = Field(default_factory=dict)
    replay_header: ReplayHeader = DEFAULT_REPLAY_HEADERS[0]

    def facts(self) -> ProductFacts:
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return ProductFacts(**_plain(values))


class UpdateProduct(StrictBody):
    """What is left out stays as it is."""

    name: Name = ""
    description: Line = ""
    service: Service = ""
    routes: Routes = Field(default_factory=list)
    endpoints: Endpoints = Field(default_factory=list)
    route_units: RouteUnits = Field(default_factory=dict)
    unit_headers: UnitHeaders = Field(default_factory=dict)
    unit_maximums: UnitMaximums = Field(default_factory=dict)
    replay_header: ReplayHeader = ""

    def changes(self) -> dict[str, Any]:
        """Return what the caller gave, and only that."""
        return _plain({name: getattr(self, name) for name in self.model_fields_set})


class ProductAnswer(Answer):
    id: str
    code: str
    name: str
    description: str
    service: str
    routes: list[str]
    endpoints: list[EndpointForm]
    route_units: dict[str, int]
    unit_headers: dict[str, str]
    unit_maximums: dict[str, dict[str, int]]
    replay_header: str
    has_openapi_document: bool = Field(description="Whether its endpoints come from a stored OpenAPI document.")
    created_at: Moment
    archived_at: Moment | None


class OpenApiForm(StrictBody):
    document: str = Field(description="An OpenAPI 3 document, JSON or YAML.")


class OpenApiAnswer(BaseModel):
    api_product: str = Field(description="Its code.")
    document: str


class NoDocumentError(NotFoundError):
    """No OpenAPI document is kept with the API product."""

    def __init__(self, code: str) -> None:
        super().__init__("openapi_document", f"of API product {code}")


class ProductsAnswer(BaseModel):
    items: list[ProductAnswer]


class ProductsQuery(StrictBody):
    archived: Annotated[bool, Field(description="Archived ones too.")] = False


def answer(product: ApiProduct) -> ProductAnswer:
    return ProductAnswer.model_validate(product)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    if "routes" in values:
        values["routes"] = tuple(values["routes"])
    if "endpoints" in values:
        forms: list[EndpointForm] = values["endpoints"]
        values["endpoints"] = tuple(Endpoint(form.method, form.path_template) for form in forms)
    return values


@router.post("", status_code=201)
async def create_product(
    body: CreateProduct, session: Database, services: Given, caller: Authenticated, now: Now
) -> ProductAnswer:
    """Make an API product. Its routes must be in the base `kong.yml`; they are protected at the next push."""
    await require_kong_names(services, [body.facts()])
    product = await operations.create_api_product(session, product=body.facts(), actor=caller.actor, now=now)
    return answer(product)


@router.get("")
async def list_products(session: Database, query: Annotated[ProductsQuery, Query()]) -> ProductsAnswer:
    """List API products by code."""
    products = await queries.api_products(session, archived=query.archived)
    return ProductsAnswer(items=[answer(product) for product in products])


@router.get("/{code}")
async def get_product(code: CodePath, session: Database) -> ProductAnswer:
    """Return one API product."""
    return answer(await queries.api_product(session, code))


@router.patch("/{code}")
async def update_product(  # noqa: PLR0917 - FastAPI gives them by name
    code: CodePath, body: UpdateProduct, session: Database, services: Given, caller: Authenticated, now: Now
) -> ProductAnswer:
    """Change an API product. Changed routes are pushed to the gateway nodes by themselves."""
    await lock_catalog(session)  # before reading, so that nobody's change in between is undone
    facts = queries.facts_of_product(await queries.api_product(session, code))
    changed = replace(facts, **body.changes())
    if facts.openapi_document is not None and changed.endpoints != facts.endpoints:
        raise ValidationFailedError("endpoints", "come from its OpenAPI document: send that anew, or delete it")
    if (changed.service, changed.routes) != (facts.service, facts.routes):
        await require_kong_names(services, [changed])
    product = await operations.update_api_product(session, product=changed, actor=caller.actor, now=now)
    await require_dimensions_kept(session, product_code=code, now=now)
    await require_caps_kept(session, product_code=code, now=now)
    return answer(product)


@router.post("/{code}/archive")
async def archive_product(code: CodePath, session: Database, caller: Authenticated, now: Now) -> ProductAnswer:
    """Take an API product away whose subscriptions are all over. Its routes are no longer protected by us."""
    return answer(await plan_removal.archive_api_product(session, code=code, actor=caller.actor, now=now))


@router.post("/{code}/unarchive")
async def unarchive_product(code: CodePath, session: Database, caller: Authenticated, now: Now) -> ProductAnswer:
    """Bring an API product back from the archive, with its plans."""
    return answer(await plan_removal.unarchive_api_product(session, code=code, actor=caller.actor, now=now))


@router.delete("/{code}")
async def delete_product(code: CodePath, session: Database, caller: Authenticated, now: Now) -> ProductAnswer:
    """Delete an API product without plans that nobody ever subscribed to. Archive any other."""
    deleted = answer(await queries.api_product(session, code))
    await plan_removal.delete_api_product(session, code=code, actor=caller.actor, now=now)
    return deleted


@router.get("/{code}/openapi")
async def get_openapi_document(code: CodePath, session: Database) -> OpenApiAnswer:
    """Return the OpenAPI document that the endpoints of an API product were read from."""
    product = await queries.api_product(session, code)
    if product.openapi_document is None:
        raise NoDocumentError(code)
    return OpenApiAnswer(api_product=code, document=product.openapi_document)


@router.put("/{code}/openapi")
async def put_openapi_document(
    code: CodePath, body: OpenApiForm, session: Database, caller: Authenticated, now: Now
) -> ProductAnswer:
    """Keep an OpenAPI document with an API product: its endpoints are the operations of that from now on."""
    endpoints = await asyncio.to_thread(read_endpoints, body.document, field="document")
    return await _with_document(session, code, caller, now, openapi_document=body.document, endpoints=endpoints)


@router.delete("/{code}/openapi")
async def delete_openapi_document(
    code: CodePath, session: Database, caller: Authenticated, now: Now
) -> ProductAnswer:
    """Take the OpenAPI document away. The endpoints stay, and can be changed one by one."""
    return await _with_document(session, code, caller, now, openapi_document=None)


async def _with_document(
    session: Database, code: str, caller: Authenticated, now: Now, **changes: Any
) -> ProductAnswer:
    await lock_catalog(session)
    facts = queries.facts_of_product(await queries.api_product(session, code))
    product = await operations.update_api_product(
        session, product=replace(facts, **changes), actor=caller.actor, now=now
    )
    return answer(product)
