"""Changing the catalogue. Nothing here commits; writers of the catalogue take turns on one lock.

A change that shows in the gateway's records is told as `product.changed`; the subscriptions feature carries it to
the accounts concerned. A change of services, routes or unit headers is told as `config.changed` too.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.catalog.locks import lock_catalog, locked_plan, locked_product
from control_plane.catalog.model import ADD_ON, PlanFacts, ProductFacts
from control_plane.catalog.queries import facts_of_plan, facts_of_product
from control_plane.catalog.rules import check_code, check_description, check_product
from control_plane.catalog.tables import ApiProduct, Meter, Plan
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import ConflictError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.outbox import Topic, enqueue
from control_plane.foundation.text import clean_name

_KONG_FIELDS = ("service", "routes", "unit_headers", "replay_header")
_RECORD_FIELDS = ("routes", "route_units", "unit_maximums")
_FIELDS = (
    "name",
    "description",
    "service",
    "routes",
    "endpoints",
    "route_units",
    "unit_headers",
    "unit_maximums",
    "replay_header",
)


class CodeTakenError(ConflictError):
    """Another API product or plan has this code, perhaps an archived one: codes are never used again."""

    def __init__(self, kind: str, code: str) -> None:
        super().__init__(f"{kind}_code_taken", f"There is already a {kind.replace('_', ' ')} {code}.")


class RouteTakenError(ConflictError):
    """A Kong route can belong to one API product only."""

    def __init__(self, route: str, product_code: str) -> None:
        super().__init__("route_taken", f"Route {route} belongs to API product {product_code}.")


async def create_api_product(
    session: AsyncSession, *, product: ProductFacts, actor: str, now: datetime
) -> ApiProduct:
    """Make an API product.

    Raises:
        ValidationFailedError, CodeTakenError, RouteTakenError.
    """
    product = check_product(product)
    await lock_catalog(session)
    if await session.scalar(select(ApiProduct.id).where(ApiProduct.code == product.code)):
        raise CodeTakenError("api_product", product.code)
    await require_free_routes(session, product)
    row = ApiProduct(id=new_id("prod", now), code=product.code, created_at=now)
    _write_product(row, product)
    session.add(row)
    await session.flush()
    await enqueue(session, topic=Topic.CONFIG_CHANGED, entity_id=row.id, now=now)
    await record_change(
        session,
        actor=actor,
        action="api_product.created",
        entity_type="api_product",
        entity_id=row.id,
        before=None,
        after=product.as_dict(),
        now=now,
    )
    return row


async def update_api_product(
    session: AsyncSession, *, product: ProductFacts, unarchive: bool = False, actor: str, now: datetime
) -> ApiProduct:
    """Give the API product of this code these facts, and bring it back from the archive where that is asked for.

    Giving what is there changes nothing.

    Raises:
        NotFoundError, RouteTakenError. ValidationFailedError: names the first wrong field.
    """
    product = check_product(product)
    await lock_catalog(session)
    row = await locked_product(session, product.code)
    before = facts_of_product(row)
    comes_back = unarchive and row.archived_at is not None
    if before == product and not comes_back:
        return row
    await require_free_routes(session, product)
    await _require_free_dimensions(session, row.id, product)
    _write_product(row, product)
    if comes_back:
        row.archived_at = None
    await session.flush()
    if comes_back or any(getattr(before, name) != getattr(product, name) for name in _KONG_FIELDS):
        await enqueue(session, topic=Topic.CONFIG_CHANGED, entity_id=row.id, now=now)
    if comes_back or any(getattr(before, name) != getattr(product, name) for name in _RECORD_FIELDS):
        await enqueue(session, topic=Topic.PRODUCT_CHANGED, entity_id=row.id, now=now)
    await record_change(
        session,
        actor=actor,
        action="api_product.updated",
        entity_type="api_product",
        entity_id=row.id,
        before={**before.as_dict(), **({"archived": True} if comes_back else {})},
        after={**product.as_dict(), **({"archived": False} if comes_back else {})},
        now=now,
    )
    return row


async def create_plan(session: AsyncSession, *, plan: PlanFacts, actor: str, now: datetime) -> Plan:
    """Make a plan without terms: nobody can subscribe before `publishing.publish_version`.

    A recommended plan takes the recommendation from the one that had it.

    Raises:
        NotFoundError: no such API product. ValidationFailedError, CodeTakenError.
    """
    await lock_catalog(session)
    product = await locked_product(session, plan.api_product)
    check_code(plan.code)
    if await session.scalar(select(Plan.id).where(Plan.code == plan.code)):
        raise CodeTakenError("plan", plan.code)
    row = Plan(id=new_id("plan", now), code=plan.code, api_product=product, kind=plan.kind, created_at=now)
    await _write_plan(session, row, plan, actor=actor, now=now)
    session.add(row)
    await session.flush()
    await plan_changed(session, row, action="plan.created", before=None, actor=actor, now=now)
    return row


async def update_plan(
    session: AsyncSession, *, plan: PlanFacts, unarchive: bool = True, actor: str, now: datetime
) -> Plan:
    """Change what a plan shows (name, position, visibility, recommendation), and bring it back from the archive.

    Giving what is there changes nothing.

    Raises:
        NotFoundError: no such plan. ValidationFailedError: another API product, or a name not usable.
    """
    await lock_catalog(session)
    row = await locked_plan(session, plan.code)
    before = facts_of_plan(row)
    archived_at = None if unarchive else row.archived_at
    if before == plan and row.archived_at == archived_at:
        return row
    if before.api_product != plan.api_product:
        raise ValidationFailedError("api_product", f"plan {plan.code} belongs to {before.api_product} for good")
    if before.kind != plan.kind:
        raise ValidationFailedError("code", f"{plan.code} is {_a_kind(before.kind)} for good: take another code")
    await _write_plan(session, row, plan, actor=actor, now=now)
    row.archived_at = archived_at
    await session.flush()
    await plan_changed(session, row, action="plan.updated", before=before, actor=actor, now=now)
    return row


async def archive_plan(session: AsyncSession, *, code: str, actor: str, now: datetime) -> Plan:
    """Take a plan off sale; subscriptions on it go on. Archiving an archived plan changes nothing.

    Raises:
        NotFoundError: no such plan.
    """
    await lock_catalog(session)
    row = await locked_plan(session, code)
    if row.archived_at is None:
        row.archived_at = now
        await plan_changed(session, row, action="plan.archived", before=facts_of_plan(row), actor=actor, now=now)
    return row


async def require_free_routes(session: AsyncSession, product: ProductFacts) -> None:
    """Raises RouteTakenError where another API product that is not archived has one of the routes."""
    statement = select(ApiProduct).where(
        ApiProduct.code != product.code,
        ApiProduct.archived_at.is_(None),
        ApiProduct.routes.overlap(list(product.routes)),
    )
    for other in await session.scalars(statement):
        raise RouteTakenError(next(route for route in product.routes if route in other.routes), other.code)


async def _require_free_dimensions(session: AsyncSession, product_id: str, product: ProductFacts) -> None:
    """A price names what it counts by one word, so a dimension cannot have the code of a declared meter."""
    declared = await session.scalars(select(Meter.code).where(Meter.api_product_id == product_id))
    for name in sorted(set(declared).intersection(product.unit_headers)):
        raise ValidationFailedError(f"unit_headers.{name}", "is the code of a declared meter: take another name")


def _write_product(row: ApiProduct, product: ProductFacts) -> None:
    values = product.as_dict()
    for name in _FIELDS:
        setattr(row, name, values[name])
    row.openapi_document = product.openapi_document


async def _write_plan(session: AsyncSession, row: Plan, plan: PlanFacts, *, actor: str, now: datetime) -> None:
    if plan.kind == ADD_ON and plan.recommended:
        raise ValidationFailedError("recommended", "only a plan can be recommended")
    if plan.visibility not in {"public", "hidden"}:
        raise ValidationFailedError("visibility", "must be one of public, hidden")
    row.name = clean_name(plan.name)
    row.position = plan.position
    row.visibility = plan.visibility
    row.description = check_description(plan.description)
    row.recommended = False
    if plan.recommended:
        await _take_recommendation(session, row, actor=actor, now=now)
        row.recommended = True


async def _take_recommendation(session: AsyncSession, taker: Plan, *, actor: str, now: datetime) -> None:
    statement = select(Plan).where(
        Plan.api_product_id == taker.api_product.id, Plan.code != taker.code, Plan.recommended
    )
    for giver in await session.scalars(statement.options(selectinload(Plan.api_product))):
        before = facts_of_plan(giver)
        giver.recommended = False
        # flushed first: the database allows one recommended plan for each product at any moment
        await session.flush()
        await plan_changed(session, giver, action="plan.updated", before=before, actor=actor, now=now)


def _a_kind(kind: str) -> str:
    return "an add-on" if kind == ADD_ON else "a plan"


async def plan_changed(
    session: AsyncSession, row: Plan, *, action: str, before: PlanFacts | None, actor: str, now: datetime
) -> None:
    """Write down and tell what changed about a plan, loaded with its product."""
    await enqueue(session, topic=Topic.PRODUCT_CHANGED, entity_id=row.api_product.id, now=now)
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="plan",
        entity_id=row.id,
        before=before.as_dict() if before else None,
        after={**facts_of_plan(row).as_dict(), "archived": row.archived_at is not None},
        now=now,
    )
