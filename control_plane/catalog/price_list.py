"""The price list: places on it, and coming back to it. Nothing here commits."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.locks import lock_catalog, locked_plan
from control_plane.catalog.model import PlanFacts
from control_plane.catalog.operations import plan_changed
from control_plane.catalog.queries import facts_of_plan
from control_plane.catalog.tables import ApiProduct, Plan
from control_plane.foundation.errors import ConflictError


class PositionTakenError(ConflictError):
    """Two plans cannot stand at the same place of the price list."""

    def __init__(self, position: int, plan_code: str) -> None:
        super().__init__("position_taken", f"Plan {plan_code} stands at position {position}: choose another.")


class ProductArchivedError(ConflictError):
    """Nothing of an archived API product can be sold."""

    def __init__(self, code: str) -> None:
        super().__init__("api_product_archived", f"API product {code} is archived: bring it back first.")


async def unarchive_plan(session: AsyncSession, *, code: str, actor: str, now: datetime) -> Plan:
    """Put an archived plan on sale again as it was, without its recommendation if another plan has it now.

    A plan that is not archived stays as it is.

    Raises:
        NotFoundError: no such plan. ProductArchivedError.
    """
    await lock_catalog(session)
    row = await locked_plan(session, code)
    if row.archived_at is None:
        return row
    if row.api_product.archived_at is not None:
        raise ProductArchivedError(row.api_product.code)
    before = facts_of_plan(row)
    recommended = select(Plan.id).where(
        Plan.api_product_id == row.api_product_id, Plan.recommended, Plan.archived_at.is_(None)
    )
    row.recommended = row.recommended and await session.scalar(recommended) is None
    row.archived_at = None
    await session.flush()
    await plan_changed(session, row, action="plan.unarchived", before=before, actor=actor, now=now)
    return row


async def require_free_position(session: AsyncSession, plan: PlanFacts) -> None:
    """Raises PositionTakenError where another plan (or add-on) of the product stands that is not archived."""
    statement = (
        select(Plan.code)
        .join(Plan.api_product)
        .where(
            ApiProduct.code == plan.api_product,
            Plan.kind == plan.kind,
            Plan.position == plan.position,
            Plan.code != plan.code,
            Plan.archived_at.is_(None),
        )
    )
    taken = (await session.scalars(statement.limit(1))).one_or_none()
    if taken is not None:
        raise PositionTakenError(plan.position, taken)
