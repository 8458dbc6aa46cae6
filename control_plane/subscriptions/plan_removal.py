"""Taking plans and API products away: what nobody ever had can be deleted, the rest is archived.

Nothing here commits. Archiving a plan alone is the catalogue's (`catalog.operations.archive_plan`): who has it
keeps it.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.locks import lock_catalog, locked_plan, locked_product
from control_plane.catalog.model import ADD_ON
from control_plane.catalog.operations import require_free_routes
from control_plane.catalog.queries import facts_of_plan, facts_of_product
from control_plane.catalog.tables import ApiProduct, Meter, Plan, PlanVersion, Price
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import ConflictError
from control_plane.foundation.outbox import Topic, enqueue
from control_plane.subscriptions.plan_use import PlanUse, use_of_plan, use_of_product


class PlanInUseError(ConflictError):
    """Subscriptions have or had the plan, and invoices may name it."""

    def __init__(self, code: str, kind: str, use: PlanUse) -> None:
        what = "Add-on" if kind == ADD_ON else "Plan"
        have = f"{_count(use.live)} on it now, {use.ever} ever" if use.ever else "it stands on invoices or offers"
        super().__init__(
            "plan_in_use",
            f"{what} {code} cannot be deleted: {have}. Archive it: nobody new gets it, who has it keeps it.",
        )


class ProductInUseError(ConflictError):
    """Subscriptions to the API product stand in the way."""

    def __init__(self, code: str, use: PlanUse, *, deleting: bool) -> None:
        if not deleting:
            message = (
                f"API product {code} has {_count(use.live, 'live subscription')}, and its routes would be open to"
                " everybody: archive its plans, so that nobody new subscribes, and archive it when the last"
                " subscription is over."
            )
        else:
            message = f"API product {code} cannot be deleted: it had {_count(use.ever)}. Archive it."
        super().__init__("api_product_in_use", message)


class ProductHasPlansError(ConflictError):
    """Plans have to be deleted one by one, so that nobody deletes one by mistake."""

    def __init__(self, code: str, plans: list[str]) -> None:
        listed = ", ".join(plans[:5]) + (", ..." if len(plans) > 5 else "")  # noqa: PLR2004 - enough to go on with
        super().__init__("api_product_has_plans", f"API product {code} has plans ({listed}): delete them first.")


async def delete_plan(session: AsyncSession, *, code: str, actor: str, now: datetime) -> None:
    """Delete a plan or an add-on that no subscription ever had, with all its versions.

    Raises:
        NotFoundError. PlanInUseError: a subscription had it, even if that is over.
    """
    await lock_catalog(session)
    row = await locked_plan(session, code)
    use = await use_of_plan(session, row.id, now=now)
    if use.ever:
        raise PlanInUseError(code, row.kind, use)
    before = facts_of_plan(row).as_dict()
    versions = select(PlanVersion.id).where(PlanVersion.plan_id == row.id)
    try:
        async with session.begin_nested():
            # the guards of published terms let through what is deleted with its plan (see v0017)
            await session.execute(text("SELECT set_config('km.deleted_plan', :id, true)"), {"id": row.id})
            for statement in (
                delete(Price).where(Price.plan_version_id.in_(versions)),
                delete(PlanVersion).where(PlanVersion.plan_id == row.id),
                delete(Plan).where(Plan.id == row.id),
            ):
                await session.execute(statement.execution_options(synchronize_session=False))
            await session.execute(text("SELECT set_config('km.deleted_plan', '', true)"))
    except IntegrityError as error:
        # somebody subscribed at this moment, or something else names it
        raise PlanInUseError(code, row.kind, await use_of_plan(session, row.id, now=now)) from error
    await enqueue(session, topic=Topic.PRODUCT_CHANGED, entity_id=row.api_product_id, now=now)
    await record_change(
        session,
        actor=actor,
        action="plan.deleted",
        entity_type="plan",
        entity_id=row.id,
        before=before,
        after=None,
        now=now,
    )


async def delete_api_product(session: AsyncSession, *, code: str, actor: str, now: datetime) -> None:
    """Delete an API product without plans that nobody ever subscribed to, with its declared meters.

    Raises:
        NotFoundError, ProductHasPlansError. ProductInUseError: there was a subscription.
    """
    await lock_catalog(session)
    row = await locked_product(session, code)
    use = await use_of_product(session, code)
    if use.ever:
        raise ProductInUseError(code, use, deleting=True)
    plans = list(await session.scalars(select(Plan.code).where(Plan.api_product_id == row.id).order_by(Plan.code)))
    if plans:
        raise ProductHasPlansError(code, plans)
    before = facts_of_product(row).as_dict()
    try:
        async with session.begin_nested():
            await session.execute(delete(Meter).where(Meter.api_product_id == row.id))
            await session.execute(delete(ApiProduct).where(ApiProduct.id == row.id))
    except IntegrityError as error:
        raise ProductInUseError(code, await use_of_product(session, code), deleting=True) from error
    await enqueue(session, topic=Topic.CONFIG_CHANGED, entity_id=row.id, now=now)
    await _product_changed(session, row.id, "api_product.deleted", before, None, actor=actor, now=now)


async def archive_api_product(session: AsyncSession, *, code: str, actor: str, now: datetime) -> ApiProduct:
    """Take an API product away: its plans are off sale and its routes are no longer protected.

    Archiving an archived one changes nothing.

    Raises:
        NotFoundError. ProductInUseError: a subscription is not over.
    """
    await lock_catalog(session)
    row = await locked_product(session, code)
    if row.archived_at is not None:
        return row
    use = await use_of_product(session, code)
    if use.live:
        raise ProductInUseError(code, use, deleting=False)
    row.archived_at = now
    await session.flush()
    return await _archive_changed(session, row, "api_product.archived", actor=actor, now=now)


async def unarchive_api_product(session: AsyncSession, *, code: str, actor: str, now: datetime) -> ApiProduct:
    """Bring an API product back from the archive with its plans. One that is not archived stays as it is.

    Raises:
        NotFoundError. RouteTakenError: another API product has one of its routes by now.
    """
    await lock_catalog(session)
    row = await locked_product(session, code)
    if row.archived_at is None:
        return row
    await require_free_routes(session, facts_of_product(row))
    row.archived_at = None
    await session.flush()
    return await _archive_changed(session, row, "api_product.unarchived", actor=actor, now=now)


async def _archive_changed(
    session: AsyncSession, row: ApiProduct, action: str, *, actor: str, now: datetime
) -> ApiProduct:
    for topic in (Topic.CONFIG_CHANGED, Topic.PRODUCT_CHANGED):
        await enqueue(session, topic=topic, entity_id=row.id, now=now)
    archived = {"archived": row.archived_at is not None}
    before = {"archived": row.archived_at is None}
    await _product_changed(session, row.id, action, before, archived, actor=actor, now=now)
    return row


async def _product_changed(
    session: AsyncSession,
    product_id: str,
    action: str,
    before: dict[str, Any],
    after: dict[str, Any] | None,
    *,
    actor: str,
    now: datetime,
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="api_product",
        entity_id=product_id,
        before=before,
        after=after,
        now=now,
    )


def _count(number: int, what: str = "subscription") -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
