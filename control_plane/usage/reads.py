"""What usage reads of other features: endpoint names, phases with their plan version's billable statuses."""

from collections import defaultdict
from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.tables import ApiProduct, PlanVersion
from control_plane.subscriptions.queries import phases_for_hours
from control_plane.usage.collect.endpoints import Template
from control_plane.usage.model import HourKey
from control_plane.usage.rollups.rollup import DEFAULT_STATUSES, PhaseTerms, first_ms, hour_span


async def endpoint_templates(session: AsyncSession) -> dict[str, tuple[Template, ...]]:
    """Return the path templates of every API product by its code, archived products too: calls still arrive."""
    rows = await session.execute(select(ApiProduct.code, ApiProduct.endpoints).order_by(ApiProduct.code))
    return {
        code: tuple(Template(found["method"], found["path_template"]) for found in endpoints)
        for code, endpoints in rows
    }


async def phases_of_hours(
    session: AsyncSession, hours: Collection[HourKey]
) -> dict[tuple[str, str], list[PhaseTerms]]:
    """Return the phases that have a moment in common with these hours, by (account, product code)."""
    spans = [(key.account_id, *hour_span(key)) for key in hours if key.account_id]
    found = await phases_for_hours(session, spans)
    statuses = await billable_statuses_of(session, {phase.plan_version_id for phase in found})
    phases: dict[tuple[str, str], list[PhaseTerms]] = defaultdict(list)
    for phase in found:
        phases[phase.account_id, phase.product_code].append(
            PhaseTerms(
                phase_id=phase.phase_id,
                start_ms=first_ms(phase.starts_at),
                end_ms=None if phase.ends_at is None else first_ms(phase.ends_at),
                billable_statuses=statuses.get(phase.plan_version_id, DEFAULT_STATUSES),
            )
        )
    return phases


async def billable_statuses_of(session: AsyncSession, plan_version_ids: Collection[str]) -> dict[str, range]:
    """Return the statuses that these plan versions bill."""
    rows = await session.execute(
        select(PlanVersion.id, PlanVersion.billable_statuses).where(PlanVersion.id.in_(plan_version_ids))
    )
    return {
        version_id: DEFAULT_STATUSES if statuses is None else range(int(statuses["below"]))
        for version_id, statuses in rows
    }
