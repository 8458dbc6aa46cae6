"""What tests of credits start from and look at."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.credits.operations import NewGrant, grant_credits
from control_plane.billing.credits.tables import CreditEntry, CreditGrant
from control_plane.billing.invoices.tables import Invoice
from control_plane.foundation.ids import new_id
from tests.control_plane.builders import ACTOR


async def a_grant(
    session: AsyncSession, account_id: str, amount_minor: int, *, now: datetime, **options: Any
) -> CreditGrant:
    wanted = NewGrant(amount_minor=amount_minor, **options)
    return await grant_credits(session, account_id=account_id, grant=wanted, actor=ACTOR, now=now)


async def an_invoice(session: AsyncSession, account_id: str, *, now: datetime, total_minor: int = 0) -> Invoice:
    """A draft, which is all that a draw needs of an invoice."""
    row = Invoice(
        id=new_id("inv", now),
        account_id=account_id,
        reason="manual",
        currency="USD",
        period_start=now,
        period_end=now,
        subtotal_minor=total_minor,
        total_minor=total_minor,
        amount_due_minor=total_minor,
        created_at=now,
    )
    session.add(row)
    await session.flush()
    return row


async def left_of(session: AsyncSession, *grants: CreditGrant) -> list[int]:
    """What is left of grants, as the database has it."""
    await session.flush()
    found = dict((await session.execute(select(CreditGrant.id, CreditGrant.remaining_minor))).all())
    return [found[grant.id] for grant in grants]


async def entries_of(session: AsyncSession, account_id: str) -> list[tuple[str, int]]:
    """Kind and amount of the account's entries, in the order of writing."""
    await session.flush()
    statement = select(CreditEntry.kind, CreditEntry.amount_minor).where(CreditEntry.account_id == account_id)
    return [(kind, amount) for kind, amount in await session.execute(statement.order_by(CreditEntry.id))]


async def sums_agree(session: AsyncSession) -> bool:
    """Whether what is left of every grant is the sum of its entries."""
    await session.flush()
    total = func.coalesce(func.sum(CreditEntry.amount_minor), 0)
    statement = (
        select(CreditGrant.id)
        .outerjoin(CreditEntry, CreditEntry.grant_id == CreditGrant.id)
        .group_by(CreditGrant.id)
        .having(total != CreditGrant.remaining_minor)
    )
    return (await session.scalars(statement)).first() is None
