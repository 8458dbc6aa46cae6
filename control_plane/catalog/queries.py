"""Reading the catalogue."""

from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.catalog.model import (
    Endpoint,
    PlanFacts,
    PlanTerms,
    PriceTerms,
    ProductFacts,
    ProductUsageRules,
)
from control_plane.catalog.tables import ApiProduct, Plan, PlanVersion, Price
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.windows import windows_from_json
from gateway_contract.records import Concurrency


async def api_product(session: AsyncSession, code: str) -> ApiProduct:
    """Return an API product by its code, archived or not.

    Raises:
        NotFoundError: there is none.
    """
    found = (await session.scalars(select(ApiProduct).where(ApiProduct.code == code))).one_or_none()
    if found is None:
        raise NotFoundError("api_product", code)
    return found


async def api_products(session: AsyncSession, *, archived: bool = False) -> Sequence[ApiProduct]:
    """Return all API products by code; archived ones only when asked for."""
    statement = select(ApiProduct).order_by(ApiProduct.code)
    if not archived:
        statement = statement.where(ApiProduct.archived_at.is_(None))
    return (await session.scalars(statement)).all()


async def product_usage_rules(session: AsyncSession) -> dict[str, ProductUsageRules]:
    """Return, by product code, how usage of every API product is read; archived ones too, for late events."""
    statement = select(ApiProduct.code, ApiProduct.unit_maximums, ApiProduct.replay_header)
    return {
        code: ProductUsageRules(unit_maximums=maximums, replay_header=header)
        for code, maximums, header in await session.execute(statement)
    }


async def event_retentions(session: AsyncSession) -> dict[tuple[str, int], int]:
    """Return the days that plan versions keep single requests for, by plan code and version, where one says."""
    statement = (
        select(Plan.code, PlanVersion.version, PlanVersion.event_retention_days)
        .join(Plan, PlanVersion.plan_id == Plan.id)
        .where(PlanVersion.event_retention_days.is_not(None))
    )
    return {(code, version): days for code, version, days in await session.execute(statement) if days is not None}


async def plan(session: AsyncSession, code: str) -> Plan:
    """Return a plan by its code, archived or not, with its API product.

    Raises:
        NotFoundError: there is none.
    """
    statement = select(Plan).where(Plan.code == code).options(selectinload(Plan.api_product))
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFoundError("plan", code)
    return found


async def plans(
    session: AsyncSession,
    *,
    product_code: str | None = None,
    public_only: bool = False,
    archived: bool = False,
    kind: str | None = None,
) -> Sequence[Plan]:
    """Return plans and add-ons with their API products, in the order of the price list.

    `kind`: only plans, or only add-ons. Archived ones only when asked for.
    """
    statement = (
        select(Plan)
        .join(Plan.api_product)
        .order_by(ApiProduct.code, Plan.kind.desc(), Plan.position, Plan.code)
        .options(selectinload(Plan.api_product))
    )
    if kind is not None:
        statement = statement.where(Plan.kind == kind)
    if not archived:
        statement = statement.where(Plan.archived_at.is_(None))
    if product_code is not None:
        statement = statement.where(ApiProduct.code == product_code)
    if public_only:
        statement = statement.where(Plan.visibility == "public", ApiProduct.archived_at.is_(None))
    return (await session.scalars(statement)).all()


async def plan_versions(session: AsyncSession, plan_version_ids: Collection[str]) -> dict[str, PlanVersion]:
    """Return those versions that exist, each with plan, API product and prices."""
    statement = select(PlanVersion).where(PlanVersion.id.in_(plan_version_ids)).options(*_WHOLE)
    return {found.id: found for found in await session.scalars(statement)}


async def published_versions(session: AsyncSession, plan_ids: Collection[str]) -> dict[str, PlanVersion]:
    """Return, by plan id, the version that is for sale, with plan, API product and prices."""
    statement = (
        select(PlanVersion)
        .where(PlanVersion.plan_id.in_(plan_ids), PlanVersion.status == "published")
        .options(*_WHOLE)
    )
    return {found.plan_id: found for found in await session.scalars(statement)}


async def draft_of_plan(session: AsyncSession, plan_id: str) -> PlanVersion | None:
    """Return the draft of a plan, with plan, API product and prices, None where there is none."""
    statement = select(PlanVersion).where(PlanVersion.plan_id == plan_id, PlanVersion.status == "draft")
    return (await session.scalars(statement.options(*_WHOLE))).one_or_none()


async def versions_of_plan(session: AsyncSession, plan_id: str) -> Sequence[PlanVersion]:
    """Return all versions of a plan, newest first, with plan, API product and prices."""
    statement = (
        select(PlanVersion)
        .where(PlanVersion.plan_id == plan_id)
        .order_by(PlanVersion.version.desc())
        .options(*_WHOLE)
    )
    return (await session.scalars(statement)).all()


def facts_of_product(product: ApiProduct) -> ProductFacts:
    """Return a product row as a value."""
    return ProductFacts(
        code=product.code,
        name=product.name,
        description=product.description,
        service=product.service,
        routes=tuple(product.routes),
        endpoints=tuple(Endpoint(**endpoint) for endpoint in product.endpoints),
        route_units=dict(product.route_units),
        unit_headers=dict(product.unit_headers),
        unit_maximums={route: dict(most) for route, most in product.unit_maximums.items()},
        replay_header=product.replay_header,
        openapi_document=product.openapi_document,
    )


def facts_of_plan(plan: Plan) -> PlanFacts:
    """Return a plan row, loaded with its product, as a value."""
    return PlanFacts(
        code=plan.code,
        name=plan.name,
        api_product=plan.api_product.code,
        position=plan.position,
        visibility=plan.visibility,
        recommended=plan.recommended,
        description=plan.description,
        kind=plan.kind,
    )


def terms_of_version(version: PlanVersion) -> PlanTerms:
    """Return a version row, loaded with its prices, as a value."""
    return PlanTerms(
        interval=version.interval,
        currency=version.currency,
        quota_units=version.quota_units,
        quota_hard=version.quota_hard,
        quota_cap_units=version.quota_cap_units,
        windows=windows_from_json(version.windows),
        concurrency=concurrency_of(version.concurrency_limit, version.concurrency_lease_ms),
        entitlements=tuple(version.entitlements),
        redis_down=version.redis_down,
        on_past_due=version.on_past_due,
        billable_below=None if version.billable_statuses is None else int(version.billable_statuses["below"]),
        event_retention_days=version.event_retention_days,
        by_quote=version.by_quote,
        trial_days=version.trial_days,
        after_trial=version.after_trial,
        quota_on_change=version.quota_on_change,
        payment=version.payment,
        billed_by=version.billed_by,
        features=tuple(version.features),
        sla_level=version.sla_level,
        support_level=version.support_level,
        prices=tuple(
            PriceTerms(
                model=price.model,
                meter=price.meter,
                params=dict(price.params),
                description=price.description,
                currency="" if price.currency == version.currency else price.currency,
            )
            for price in sorted(version.prices, key=lambda price: _place(price, version))
        ),
    )


def _place(price: Price, version: PlanVersion) -> tuple[bool, str, int]:
    """Prices stand by currency, the version's own first."""
    return price.currency != version.currency, price.currency, price.position


def concurrency_of(limit: int | None, lease_ms: int | None) -> Concurrency | None:
    """Return the two columns as a value."""
    return None if limit is None or lease_ms is None else Concurrency(limit=limit, lease_ms=lease_ms)


_WHOLE = (
    selectinload(PlanVersion.plan).selectinload(Plan.api_product),
    selectinload(PlanVersion.prices),
)
