"""Plans and meters: at Stripe, as they should be."""

from sqlalchemy import select

from control_plane.catalog.tables import Plan, PlanVersion
from control_plane.stripe_sync.catalog.pushing import look_only
from control_plane.stripe_sync.catalog.tables import StripePush
from control_plane.stripe_sync.installation.findings import Finding, ok, problem, warning
from control_plane.stripe_sync.model import StripeContext

PLANS = "plans"
SHOWN = 3


async def check_plans(context: StripeContext) -> list[Finding]:
    """Say which plans Stripe does not have, and what of them differs there."""
    statement = (
        select(Plan.code, PlanVersion.version, StripePush.state, StripePush.problem)
        .join(PlanVersion, PlanVersion.id == StripePush.plan_version_id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .where(PlanVersion.status == "published", StripePush.problem.is_not(None))
        .order_by(Plan.code)
    )
    async with context.sessions() as session:
        troubled = (await session.execute(statement)).all()
    found = [
        problem(PLANS, f"{row.code} v{row.version}: {row.problem}")
        if row.state != "pushed"
        else warning(PLANS, f"{row.code} v{row.version} is at Stripe, but: {row.problem}")
        for row in troubled
    ]
    versions = await look_only(context)
    drifted = [version for version in versions if version.to_do]
    names = ", ".join(version.wanted.name for version in drifted[:SHOWN])
    if drifted:
        more = f" and {len(drifted) - SHOWN} more" if len(drifted) > SHOWN else ""
        found.append(warning(PLANS, f"not as they should be at Stripe: {names}{more} (km stripe drift)"))
    counted = sum(len(version.wanted.meters) for version in versions)
    return found or [ok(PLANS, f"{len(versions)} plan versions and {counted} meters of theirs as they should be")]
