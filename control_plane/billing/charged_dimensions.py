"""What plans charge for must go on being reported: without its header, its usage would silently be nothing."""

from datetime import datetime

from sqlalchemy import select, union
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.queries import api_product, facts_of_product
from control_plane.catalog.tables import Meter, Plan, PlanVersion, Price
from control_plane.foundation.errors import ConflictError
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.tables import Subscription, SubscriptionAddOn, SubscriptionPhase


class DimensionChargedError(ConflictError):
    """A plan version that is on sale or in use charges for a dimension that the API product would not have."""

    def __init__(self, *, product: str, dimension: str, plan: str, version: int) -> None:
        super().__init__(
            "dimension_charged",
            f"API product {product} must go on naming the header of {dimension} (unit_headers): version {version} "
            f"of plan {plan} charges for it. Publish a version without it and move its subscriptions first.",
        )


async def require_dimensions_kept(session: AsyncSession, *, product_code: str, now: datetime) -> None:
    """Refuse a change of an API product, just made, that leaves out what a plan version charges for.

    Of versions on sale, and of those that a live subscription has or is to have.

    Raises:
        DimensionChargedError: for the first of them.
    """
    product = await api_product(session, product_code)
    declared = await session.scalars(select(Meter.code).where(Meter.api_product_id == product.id))
    known = facts_of_product(product).meters.union(declared)
    on_sale = (PlanVersion.status == "published") & Plan.archived_at.is_(None)
    in_use = union(
        *(
            select(table.plan_version_id)
            .join(Subscription, Subscription.id == table.subscription_id)
            .where(
                Subscription.api_product_id == product.id,
                Subscription.status.not_in(sorted(OVER)),
                table.ends_at.is_(None) | (table.ends_at > now),
            )
            for table in (SubscriptionPhase, SubscriptionAddOn)
        )
    )
    statement = (
        select(Plan.code, PlanVersion.version, Price.meter)
        .join(PlanVersion, PlanVersion.plan_id == Plan.id)
        .join(Price, Price.plan_version_id == PlanVersion.id)
        .where(
            Plan.api_product_id == product.id,
            PlanVersion.status != "draft",
            Price.meter.is_not(None),
            Price.meter.not_in(sorted(known)),
            on_sale | PlanVersion.id.in_(in_use),
        )
        .order_by(Plan.code, PlanVersion.version, Price.meter)
        .limit(1)
    )
    for plan, version, dimension in await session.execute(statement):
        raise DimensionChargedError(product=product_code, dimension=str(dimension), plan=plan, version=version)
