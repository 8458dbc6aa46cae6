"""Plans and API products as the gateway needs them: few rows, read once for a page of accounts."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.model import PLAN
from control_plane.catalog.queries import concurrency_of
from control_plane.catalog.tables import ApiProduct, Plan, PlanVersion, Price
from control_plane.foundation.db import is_any_of
from control_plane.foundation.windows import windows_from_json
from control_plane.gateway_sync.records import PlanTerms

PLAN_COLUMNS = (
    Plan.code.label("plan_code"),
    Plan.name.label("plan_name"),
    Plan.position,
    PlanVersion.version,
    PlanVersion.windows,
    PlanVersion.quota_units,
    PlanVersion.quota_hard,
    PlanVersion.quota_cap_units,
    PlanVersion.concurrency_limit,
    PlanVersion.concurrency_lease_ms,
    PlanVersion.entitlements,
    PlanVersion.redis_down,
    PlanVersion.on_past_due,
    PlanVersion.by_quote,
    PlanVersion.interval,
    PlanVersion.quota_on_change,
    PlanVersion.payment,
)
CURRENCIES = (
    select(func.array_agg(Price.currency.distinct()))
    .where(Price.plan_version_id == PlanVersion.id)
    .scalar_subquery()
    .label("currencies")
)


@dataclass(frozen=True, slots=True)
class ProductSnapshot:
    """An API product with the plans that anybody may take today."""

    code: str
    route_units: dict[str, int]
    offers: tuple[PlanTerms, ...]

    def offers_in(self, currency: str) -> tuple[PlanTerms, ...]:
        """Return the plans that an account which pays in the currency may take."""
        return tuple(offer for offer in self.offers if not offer.currencies or currency in offer.currencies)


async def plans_by_version(session: AsyncSession, version_ids: Collection[str]) -> dict[str, PlanTerms]:
    """Return plan versions by their ids."""
    statement = (
        select(PlanVersion.id, *PLAN_COLUMNS)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .where(is_any_of(PlanVersion.id, version_ids))
    )
    return {row.id: _plan(row) for row in await session.execute(statement)}


async def products_with_offers(session: AsyncSession, product_ids: Collection[str]) -> dict[str, ProductSnapshot]:
    """Return API products by their ids."""
    offered = (
        select(Plan.api_product_id, *PLAN_COLUMNS, CURRENCIES)
        .join(PlanVersion, PlanVersion.plan_id == Plan.id)
        .where(
            is_any_of(Plan.api_product_id, product_ids),
            Plan.kind == PLAN,
            Plan.visibility == "public",
            Plan.archived_at.is_(None),
            PlanVersion.status == "published",
        )
        .order_by(Plan.position, Plan.code)
    )
    offers: dict[str, list[PlanTerms]] = defaultdict(list)
    for row in await session.execute(offered):
        offers[row.api_product_id].append(replace(_plan(row), currencies=tuple(row.currencies or ())))
    products = select(ApiProduct.id, ApiProduct.code, ApiProduct.route_units).where(
        is_any_of(ApiProduct.id, product_ids)
    )
    return {
        product_id: ProductSnapshot(
            code=code,
            route_units={name: int(units) for name, units in route_units.items()},
            offers=tuple(offers[product_id]),
        )
        for product_id, code, route_units in await session.execute(products)
    }


def _plan(row: Row[Any]) -> PlanTerms:
    return PlanTerms(
        code=row.plan_code,
        name=row.plan_name,
        version=row.version,
        position=row.position,
        windows=windows_from_json(row.windows),
        quota_units=row.quota_units,
        quota_hard=row.quota_hard,
        quota_cap_units=row.quota_cap_units,
        concurrency=concurrency_of(row.concurrency_limit, row.concurrency_lease_ms),
        entitlements=tuple(row.entitlements),
        redis_down=row.redis_down,
        on_past_due=row.on_past_due,
        by_quote=row.by_quote,
        interval=row.interval,
        quota_on_change=row.quota_on_change,
        prepaid=row.payment == "prepaid",
    )
