"""Reading plan versions as the push needs them."""

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.catalog.queries import facts_of_plan, terms_of_version
from control_plane.catalog.tables import Meter, Plan, PlanVersion
from control_plane.foundation.db import is_any_of
from control_plane.stripe_sync.catalog.wanted import VersionFacts


async def version_facts(session: AsyncSession, version_ids: Collection[str]) -> dict[str, VersionFacts]:
    """Return plan versions by id, with what their prices count; unknown ids are left out."""
    versions = (
        await session.scalars(
            select(PlanVersion)
            .where(is_any_of(PlanVersion.id, version_ids))
            .options(
                selectinload(PlanVersion.plan).selectinload(Plan.api_product), selectinload(PlanVersion.prices)
            )
        )
    ).all()
    codes = {price.meter for version in versions for price in version.prices if price.meter}
    meters = (await session.scalars(select(Meter).where(is_any_of(Meter.code, codes)))).all() if codes else ()
    declared = {(meter.api_product_id, meter.code): meter for meter in meters}
    found: dict[str, VersionFacts] = {}
    for version in versions:
        own = {code: row for (owner, code), row in declared.items() if owner == version.plan.api_product_id}
        found[version.id] = VersionFacts(
            version_id=version.id,
            plan_id=version.plan_id,
            version=version.version,
            plan=facts_of_plan(version.plan),
            api_product_id=version.plan.api_product_id,
            product_name=version.plan.api_product.name,
            terms=terms_of_version(version),
            aggregations={code: row.aggregation for code, row in own.items()},
            meter_names={code: row.name for code, row in own.items()},
        )
    return found
