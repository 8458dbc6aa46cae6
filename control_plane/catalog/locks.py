"""Who writes the catalogue, one at a time."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import contains_eager, selectinload

from control_plane.catalog.tables import ApiProduct, Plan
from control_plane.foundation.errors import NotFoundError

_LOCK_KEY = 4_242_002


async def lock_catalog(session: AsyncSession) -> None:
    """Make other writers of the catalogue wait until this transaction ends; readers go on."""
    await session.execute(select(func.pg_advisory_xact_lock(_LOCK_KEY)))


async def locked_product(session: AsyncSession, code: str) -> ApiProduct:
    """Return the product's row, read afresh and locked; raises NotFoundError."""
    statement = select(ApiProduct).where(ApiProduct.code == code).with_for_update()
    row = (await session.scalars(statement.execution_options(populate_existing=True))).one_or_none()
    if row is None:
        raise NotFoundError("api_product", code)
    return row


async def kept_on_sale(session: AsyncSession, code: str) -> Plan:
    """Return the plan's row with its product, read afresh; whoever sells it may, whoever takes it away must wait.

    Raises:
        NotFoundError: there is none, or none any more.
    """
    statement = (
        select(Plan)
        .join(Plan.api_product)
        .where(Plan.code == code)
        .options(contains_eager(Plan.api_product))
        .with_for_update(read=True, key_share=True)
        .execution_options(populate_existing=True)
    )
    row = (await session.scalars(statement)).one_or_none()
    if row is None:
        raise NotFoundError("plan", code)
    return row


async def locked_plan(session: AsyncSession, code: str) -> Plan:
    """Return the plan's row with its product, read afresh and locked; raises NotFoundError."""
    statement = select(Plan).where(Plan.code == code).options(selectinload(Plan.api_product)).with_for_update()
    row = (await session.scalars(statement.execution_options(populate_existing=True))).one_or_none()
    if row is None:
        raise NotFoundError("plan", code)
    return row
