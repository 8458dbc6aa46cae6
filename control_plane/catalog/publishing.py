"""Putting terms on sale. Nothing here commits."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.catalog.locks import lock_catalog, locked_plan
from control_plane.catalog.meter_queries import codes_for_prices
from control_plane.catalog.meters import Aggregation
from control_plane.catalog.model import PlanTerms
from control_plane.catalog.queries import facts_of_product, terms_of_version
from control_plane.catalog.rules import check_terms
from control_plane.catalog.tables import Plan, PlanVersion, Price
from control_plane.foundation.audit import record_change
from control_plane.foundation.ids import new_id
from control_plane.foundation.outbox import Topic, enqueue
from control_plane.foundation.windows import windows_to_json


async def publish_version(
    session: AsyncSession, *, plan_code: str, terms: PlanTerms, actor: str, now: datetime
) -> PlanVersion:
    """Put new terms of a plan on sale; the version that was on sale is superseded, its subscriptions keep it.

    Terms equal to those on sale make no new version: the one on sale is returned.

    Raises:
        NotFoundError: no such plan. ValidationFailedError: names the wrong field.
    """
    await lock_catalog(session)
    plan = await locked_plan(session, plan_code)
    declared = await codes_for_prices(session, plan.api_product_id)
    monthly = {code for code, aggregation in declared.items() if aggregation is Aggregation.UNIQUE}
    terms = check_terms(
        terms,
        meters=facts_of_product(plan.api_product).meters.union(declared) - monthly,
        monthly_meters=monthly,
    )
    on_sale = await _version_on_sale(session, plan)
    if on_sale is not None and terms_of_version(on_sale) == terms:
        return on_sale
    number = await session.scalar(select(func.max(PlanVersion.version)).where(PlanVersion.plan_id == plan.id))
    version = _new_version(plan, terms, number=(number or 0) + 1, now=now)
    session.add(version)
    if on_sale is not None:
        on_sale.status = "superseded"
    await session.flush()  # prices can be added to a draft only, and one version of a plan is on sale at a time
    version.status, version.published_at = "published", now
    await session.flush()
    await enqueue(session, topic=Topic.PRODUCT_CHANGED, entity_id=plan.api_product_id, now=now)
    if terms.concurrency is not None and (on_sale is None or on_sale.concurrency_limit is None):
        # from now on the gateway must see calls end, which is a matter of Kong's configuration
        await enqueue(session, topic=Topic.CONFIG_CHANGED, entity_id=plan.api_product_id, now=now)
    await record_change(
        session,
        actor=actor,
        action="plan_version.published",
        entity_type="plan_version",
        entity_id=version.id,
        before=None if on_sale is None else {"plan_version_id": on_sale.id, **terms_of_version(on_sale).as_dict()},
        after={"plan": plan.code, "version": version.version, **terms.as_dict()},
        now=now,
    )
    return version


async def _version_on_sale(session: AsyncSession, plan: Plan) -> PlanVersion | None:
    statement = (
        select(PlanVersion)
        .where(PlanVersion.plan_id == plan.id, PlanVersion.status == "published")
        .options(selectinload(PlanVersion.prices))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.scalars(statement)).one_or_none()


def _new_version(plan: Plan, terms: PlanTerms, *, number: int, now: datetime) -> PlanVersion:
    return PlanVersion(
        id=new_id("pv", now),
        plan_id=plan.id,
        version=number,
        status="draft",
        interval=terms.interval,
        currency=terms.currency,
        quota_units=terms.quota_units,
        quota_hard=terms.quota_hard,
        quota_cap_units=terms.quota_cap_units,
        windows=windows_to_json(terms.windows),
        concurrency_limit=terms.concurrency and terms.concurrency.limit,
        concurrency_lease_ms=terms.concurrency and terms.concurrency.lease_ms,
        entitlements=list(terms.entitlements),
        redis_down=terms.redis_down,
        on_past_due=terms.on_past_due,
        billable_statuses=None if terms.billable_below is None else {"below": terms.billable_below},
        event_retention_days=terms.event_retention_days,
        by_quote=terms.by_quote,
        trial_days=terms.trial_days,
        after_trial=terms.after_trial,
        quota_on_change=terms.quota_on_change,
        payment=terms.payment,
        billed_by=terms.billed_by,
        features=list(terms.features),
        sla_level=terms.sla_level,
        support_level=terms.support_level,
        created_at=now,
        prices=[
            Price(
                id=new_id("price", now),
                position=position,
                currency=price.currency or terms.currency,
                model=price.model,
                meter=price.meter,
                params=price.params,
                description=price.description,
            )
            for position, price in enumerate(terms.prices)
        ],
    )
