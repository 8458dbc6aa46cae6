"""Plans as they are sold. They are written by plan file: see `plan_files`."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Code, CodePath, Moment, StrictBody, WindowForm
from control_plane.catalog import queries
from control_plane.catalog.tables import Plan, PlanVersion, Price

router = APIRouter(prefix="/plans", tags=["plans"])


class PriceAnswer(BaseModel):
    model: str = Field(description="`flat`, `per_unit`, `overage`, `graduated`, `volume` or `package`.")
    meter: str | None = Field(description="What it counts: `requests` or a named unit; null for a flat price.")
    params: dict[str, Any] = Field(description="Amounts are decimal strings.")
    description: str


class ConcurrencyAnswer(BaseModel):
    """At most `limit` calls at a time; one whose end nobody saw is given up after `lease_ms`."""

    limit: int
    lease_ms: int


class VersionAnswer(BaseModel):
    """Terms; they never change once published."""

    id: str
    version: int
    status: str = Field(description="`draft`, `published` or `superseded`.")
    interval: str
    currency: str
    quota_units: int | None
    quota_hard: bool = Field(description="Whether calls above the quota are refused (else they are charged).")
    quota_cap_units: int | None = Field(description="Where a quota that charges refuses after all.")
    windows: list[WindowForm]
    concurrency: ConcurrencyAnswer | None
    entitlements: list[str]
    redis_down: str
    on_past_due: str = Field(description="`serve` or `refuse` calls while a bill is unpaid.")
    billable_statuses: dict[str, int] | None
    event_retention_days: int | None = Field(
        description="How long single requests are kept at least; null: as long as the installation keeps them."
    )
    by_quote: bool
    prices: list[PriceAnswer]
    published_at: Moment | None


class PlanAnswer(BaseModel):
    id: str
    code: str
    name: str
    api_product: str = Field(description="Its code.")
    position: int
    visibility: str
    recommended: bool
    archived_at: Moment | None
    published: VersionAnswer | None = Field(description="The version on sale.")


class PlanWithVersionsAnswer(PlanAnswer):
    versions: list[VersionAnswer] = Field(description="All versions, newest first.")


class PlansAnswer(BaseModel):
    items: list[PlanAnswer]


class PlansQuery(StrictBody):
    product: Annotated[Code | None, Field(description="Only plans of this API product.")] = None


def version_answer(version: PlanVersion) -> VersionAnswer:
    return VersionAnswer(
        id=version.id,
        version=version.version,
        status=version.status,
        interval=version.interval,
        currency=version.currency,
        quota_units=version.quota_units,
        quota_hard=version.quota_hard,
        quota_cap_units=version.quota_cap_units,
        windows=[WindowForm(**window) for window in version.windows],
        concurrency=_concurrency_answer(version),
        entitlements=version.entitlements,
        redis_down=version.redis_down,
        on_past_due=version.on_past_due,
        billable_statuses=version.billable_statuses,
        event_retention_days=version.event_retention_days,
        by_quote=version.by_quote,
        prices=[_price_answer(price) for price in version.prices],
        published_at=version.published_at,
    )


def _concurrency_answer(version: PlanVersion) -> ConcurrencyAnswer | None:
    found = queries.concurrency_of(version.concurrency_limit, version.concurrency_lease_ms)
    return None if found is None else ConcurrencyAnswer(limit=found.limit, lease_ms=found.lease_ms)


def _price_answer(price: Price) -> PriceAnswer:
    return PriceAnswer(model=price.model, meter=price.meter, params=price.params, description=price.description)


def _fields(plan: Plan, published: PlanVersion | None) -> dict[str, Any]:
    return {
        "id": plan.id,
        "code": plan.code,
        "name": plan.name,
        "api_product": plan.api_product.code,
        "position": plan.position,
        "visibility": plan.visibility,
        "recommended": plan.recommended,
        "archived_at": plan.archived_at,
        "published": version_answer(published) if published else None,
    }


@router.get("")
async def list_plans(session: Database, query: Annotated[PlansQuery, Query()]) -> PlansAnswer:
    """List plans in the order of the price list, with the terms on sale."""
    plans = await queries.plans(session, product_code=query.product)
    published = await queries.published_versions(session, [plan.id for plan in plans])
    return PlansAnswer(items=[PlanAnswer(**_fields(plan, published.get(plan.id))) for plan in plans])


@router.get("/{code}")
async def get_plan(code: CodePath, session: Database) -> PlanWithVersionsAnswer:
    """Return a plan with all its versions and their prices."""
    plan = await queries.plan(session, code)
    versions = await queries.versions_of_plan(session, plan.id)
    published = next((version for version in versions if version.status == "published"), None)
    return PlanWithVersionsAnswer(
        **_fields(plan, published), versions=[version_answer(version) for version in versions]
    )
