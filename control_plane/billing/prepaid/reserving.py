"""Reserving credits beside usage of prepaid plans that is known and not drawn yet. Nothing here commits."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.credits import ledger, reservations
from control_plane.billing.credits.reservations import NewReservation
from control_plane.billing.credits.tables import CreditReservation, PrepaidPeriod
from control_plane.billing.prepaid.usage import prepaid_use
from control_plane.foundation.period import BillingPeriod
from control_plane.subscriptions.tables import Subscription


async def undrawn_use(session: AsyncSession, account_id: str) -> Mapping[str, int]:
    """Return what usage of the account's prepaid subscriptions will draw, as far as it is known by now.

    Minor units by the id of the API product: hours that are not sealed, and what credits did not suffice for.
    """
    statement = (
        select(PrepaidPeriod, Subscription.api_product_id)
        .join(Subscription, Subscription.id == PrepaidPeriod.subscription_id)
        .where(Subscription.account_id == account_id, PrepaidPeriod.invoice_id.is_(None))
        .execution_options(populate_existing=True)
    )
    rows = list(await session.execute(statement))
    found: dict[str, int] = defaultdict(int)
    if rows:
        uses = await prepaid_use(
            session,
            {
                (row.subscription_id, row.period_start): BillingPeriod(row.period_start, row.period_end)
                for row, _ in rows
            },
        )
        for row, product_id in rows:
            use = uses[row.subscription_id, row.period_start]
            found[product_id] += max(0, use.known_minor - row.drawn_minor, use.sealed_minor - row.drawn_minor)
    return found


async def reserve_credits(
    session: AsyncSession, *, account_id: str, wanted: NewReservation, actor: str, now: datetime
) -> CreditReservation:
    """Hold an amount back of what known usage leaves; see `reservations.reserve_credits`, also for its errors."""
    await ledger.lock_account(session, account_id)
    undrawn = await undrawn_use(session, account_id)
    return await reservations.reserve_credits(
        session, account_id=account_id, wanted=wanted, undrawn=undrawn, actor=actor, now=now
    )


async def settle_reservation(
    session: AsyncSession, *, reservation_id: str, amount_minor: int, actor: str, now: datetime
) -> CreditReservation:
    """Draw what the thing came to; see `reservations.settle_reservation`, also for its errors."""
    account_id = await reservations.lock_account_of(session, reservation_id)
    undrawn = await undrawn_use(session, account_id)
    return await reservations.settle_reservation(
        session, reservation_id=reservation_id, amount_minor=amount_minor, undrawn=undrawn, actor=actor, now=now
    )
