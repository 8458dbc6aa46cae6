"""The names that mails say, and the free plan that unpaid subscriptions fall back to."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.model import PLAN
from control_plane.catalog.tables import ApiProduct, Plan, PlanVersion
from control_plane.dunning.model import After, DunningConfig
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase


@dataclass(frozen=True, slots=True)
class PlanNames:
    """Of the plan that a subscription was on last."""

    code: str
    plan: str
    product: str
    plan_version_id: str
    refuses_at_once: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """What comes after the grace; `at_once`: the plan refuses calls from the first day."""

    after: After
    free_plan_version_id: str | None = None
    at_once: bool = False


async def plan_names(session: AsyncSession, subscription_id: str) -> PlanNames:
    """Return the plan of the phase in force, or of the last that was."""
    statement = (
        select(Plan.code, Plan.name, ApiProduct.name, PlanVersion.id, PlanVersion.on_past_due)
        .join(PlanVersion, PlanVersion.plan_id == Plan.id)
        .join(ApiProduct, ApiProduct.id == Plan.api_product_id)
        .join(SubscriptionPhase, SubscriptionPhase.plan_version_id == PlanVersion.id)
        .where(SubscriptionPhase.subscription_id == subscription_id)
        .order_by(SubscriptionPhase.applied_at.is_(None), SubscriptionPhase.starts_at.desc())
        .limit(1)
    )
    code, plan, product, version_id, on_past_due = (await session.execute(statement)).one()
    return PlanNames(code, plan, product, version_id, on_past_due == "refuse")


async def policy_of(session: AsyncSession, subscription: Subscription, *, config: DunningConfig) -> Policy:
    """Return what holds for a subscription. Without a free plan of its API product, `free` means `block`."""
    names = await plan_names(session, subscription.id)
    if names.refuses_at_once:
        return Policy("block", at_once=True)
    after = config.by_plan.get(names.code, config.after)
    if after != "free":
        return Policy(after)
    free = await free_plan_version(session, subscription.api_product_id, config=config)
    return Policy("block") if free is None else Policy("free", free)


async def free_plan_version(session: AsyncSession, api_product_id: str, *, config: DunningConfig) -> str | None:
    """Return the version on sale of an API product's free plan."""
    statement = (
        select(PlanVersion.id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .where(
            Plan.api_product_id == api_product_id,
            Plan.code.in_(config.free_plans),
            Plan.kind == PLAN,
            Plan.archived_at.is_(None),
            PlanVersion.status == "published",
        )
        .order_by(Plan.position, Plan.code)
        .limit(1)
    )
    return (await session.scalars(statement)).first()


async def plan_name(session: AsyncSession, plan_version_id: str | None) -> str | None:
    """Return a plan's name by its version."""
    if plan_version_id is None:
        return None
    statement = select(Plan.name).join(PlanVersion, PlanVersion.plan_id == Plan.id)
    return await session.scalar(statement.where(PlanVersion.id == plan_version_id))
