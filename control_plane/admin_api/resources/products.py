"""API products: routes of a Kong service that are sold together."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Answer, Code, CodePath, Line, Moment, Name, StrictBody
from control_plane.admin_api.services import Now
from control_plane.billing.operations import require_caps_kept
from control_plane.catalog import operations, queries
from control_plane.catalog.locks import lock_catalog
from control_plane.catalog.model import MAX_ENDPOINTS, Endpoint, ProductFacts
from control_plane.catalog.rules import MAX_PATH_LENGTH, MAX_REPORTED_UNITS, MAX_ROUTE_UNITS
from control_plane.catalog.tables import ApiProduct
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
    created_at: Moment
    archived_at: Moment | None


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
async def create_product(body: CreateProduct, session: Database, caller: Authenticated, now: Now) -> ProductAnswer:
    """Make an API product. Its routes must be in the base `kong.yml`; they are protected at the next push."""
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
async def update_product(
    code: CodePath, body: UpdateProduct, session: Database, caller: Authenticated, now: Now
) -> ProductAnswer:
    """Change an API product. Changed routes are pushed to the gateway nodes by themselves."""
    await lock_catalog(session)  # before reading, so that nobody's change in between is undone
    facts = queries.facts_of_product(await queries.api_product(session, code))
    product = await operations.update_api_product(
        session, product=replace(facts, **body.changes()), actor=caller.actor, now=now
    )
    await require_caps_kept(session, product_code=code, now=now)
    return answer(product)
