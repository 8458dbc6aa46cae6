"""Putting terms on sale. Nothing here commits."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.catalog.locks import lock_catalog, locked_plan
from control_plane.catalog.meter_queries import codes_for_prices
from control_plane.catalog.meters import Aggregation
from control_plane.catalog.model import ADD_ON, PlanTerms
from control_plane.catalog.queries import facts_of_product, plans, published_versions, terms_of_version
from control_plane.catalog.sale_rules import Sale, unbounded_meters
from control_plane.catalog.tables import Plan, PlanVersion
from control_plane.catalog.terms_rules import OF_TERMS, Names, check_terms, names_in_file, reasons_not_to_sell
from control_plane.catalog.version_rows import add_draft, draft_row, remove_version
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import NotFoundError, Problem, refuse
from control_plane.foundation.outbox import Topic, enqueue


class NoDraftError(NotFoundError):
    """No draft is kept of the plan."""

    def __init__(self, plan_code: str) -> None:
        super().__init__("plan_draft", f"of {plan_code}")


async def publish_version(
    session: AsyncSession, *, plan_code: str, terms: PlanTerms, actor: str, now: datetime
) -> PlanVersion:
    """Put new terms of a plan on sale; the version that was on sale is superseded, its subscriptions keep it.

    Terms equal to those on sale make no new version: the one on sale is returned. A draft stays a draft.

    Raises:
        NotFoundError: no such plan. ValidationFailedError: names every wrong field.
    """
    await lock_catalog(session)
    plan = await locked_plan(session, plan_code)
    sale = await sale_of(session, plan)
    terms = check_terms(terms, sale=sale)
    refuse(await _reasons_beside(session, plan, terms, OF_TERMS))
    on_sale = await _version_on_sale(session, plan)
    if on_sale is not None and terms_of_version(on_sale) == terms:
        return on_sale
    kept = await draft_row(session, plan.id)
    kept_terms = None if kept is None else terms_of_version(kept)
    if kept is not None:
        await remove_version(session, kept)  # a plan has one draft at a time, and every version begins as one
    version = await add_draft(session, plan.id, terms, now=now)
    await _put_on_sale(session, plan, version, on_sale, actor=actor, now=now)
    if kept_terms is not None:
        await add_draft(session, plan.id, kept_terms, now=now)
    return version


async def publish_draft(session: AsyncSession, *, plan_code: str, actor: str, now: datetime) -> PlanVersion:
    """Put the draft of a plan on sale, as `publish_version` does. A draft equal to what is on sale is dropped.

    Raises:
        NotFoundError: no such plan. NoDraftError. ValidationFailedError: with everything that keeps the draft from
        being sold, in the words of a plan file.
    """
    await lock_catalog(session)
    plan = await locked_plan(session, plan_code)
    draft = await draft_row(session, plan.id)
    if draft is None:
        raise NoDraftError(plan_code)
    refuse(await draft_problems(session, plan, terms_of_version(draft)))
    on_sale = await _version_on_sale(session, plan)
    if on_sale is not None and terms_of_version(on_sale) == terms_of_version(draft):
        await remove_version(session, draft)
        return on_sale
    await _put_on_sale(session, plan, draft, on_sale, actor=actor, now=now)
    return draft


async def draft_problems(session: AsyncSession, plan: Plan, terms: PlanTerms) -> list[Problem]:
    """Return all that keeps a draft from being sold today, in the words of a plan file."""
    names = names_in_file()
    reasons = reasons_not_to_sell(terms, sale=await sale_of(session, plan), names=names)
    return [*reasons, *await _reasons_beside(session, plan, terms, names)]


async def sale_of(session: AsyncSession, plan: Plan) -> Sale:
    """Return what the plan, loaded with its product, is, and what its prices can count."""
    declared = await codes_for_prices(session, plan.api_product_id)
    monthly = frozenset(code for code, aggregation in declared.items() if aggregation is Aggregation.UNIQUE)
    product = facts_of_product(plan.api_product)
    return Sale(
        kind=plan.kind,
        meters=product.meters.union(declared) - monthly,
        monthly_meters=monthly,
        unbounded=unbounded_meters(product, declared),
    )


async def _reasons_beside(session: AsyncSession, plan: Plan, terms: PlanTerms, names: Names) -> list[Problem]:
    """An add-on's quota is added to a plan's: some plan of the product must have one."""
    if plan.kind != ADD_ON or terms.quota_units is None:
        return []
    beside = await plans(session, product_code=plan.api_product.code, kind="plan")
    on_sale = await published_versions(session, [row.id for row in beside])
    if any(version.quota_units is not None for version in on_sale.values()):
        return []
    return [
        Problem(
            names("quota_units"),
            f"no plan of {plan.api_product.code} on sale has a quota that it could be added to",
        )
    ]


async def _put_on_sale(
    session: AsyncSession,
    plan: Plan,
    version: PlanVersion,
    on_sale: PlanVersion | None,
    *,
    actor: str,
    now: datetime,
) -> None:
    if on_sale is not None:
        on_sale.status = "superseded"
    await session.flush()  # one version of a plan is on sale at a time
    version.status, version.published_at = "published", now
    await session.flush()
    await enqueue(session, topic=Topic.PRODUCT_CHANGED, entity_id=plan.api_product_id, now=now)
    if version.concurrency_limit is not None and (on_sale is None or on_sale.concurrency_limit is None):
        # from now on the gateway must see calls end, which is a matter of Kong's configuration
        await enqueue(session, topic=Topic.CONFIG_CHANGED, entity_id=plan.api_product_id, now=now)
    await record_change(
        session,
        actor=actor,
        action="plan_version.published",
        entity_type="plan_version",
        entity_id=version.id,
        before=None if on_sale is None else {"plan_version_id": on_sale.id, **terms_of_version(on_sale).as_dict()},
        after={"plan": plan.code, "version": version.version, **terms_of_version(version).as_dict()},
        now=now,
    )


async def _version_on_sale(session: AsyncSession, plan: Plan) -> PlanVersion | None:
    statement = (
        select(PlanVersion)
        .where(PlanVersion.plan_id == plan.id, PlanVersion.status == "published")
        .options(selectinload(PlanVersion.prices))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.scalars(statement)).one_or_none()
