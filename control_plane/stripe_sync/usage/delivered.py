"""What Stripe has of our usage, and what it will not get: sums of rows, for invoices and reconciliation."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.stripe_sync.usage.model import NOT_AT_STRIPE, RowState
from control_plane.stripe_sync.usage.tables import StripeUsageRow

ON_THE_WAY: Final = (RowState.WAITING, RowState.SENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageAtStripe:
    """Units of a phase and meter, by where they are. Their sum is the ledger's.

    `on_the_way`: waiting, or nobody knows; `withheld`: refused, too old or ours to bill; what was cancelled is in
    none of them, and comes to nothing together with what took it back.
    """

    phase_id: str
    meter: str
    delivered: int
    on_the_way: int
    withheld: int


async def usage_at_stripe(
    session: AsyncSession, *, subscription_id: str, start: datetime, end: datetime
) -> list[UsageAtStripe]:
    """Return a subscription's units of hours in [start, end) by phase and meter."""

    def units(states: Collection[RowState]) -> Any:
        found = func.sum(StripeUsageRow.delta_units).filter(StripeUsageRow.state.in_(states))
        return cast(func.coalesce(found, 0), BigInteger)  # PostgreSQL's sum of bigint is numeric

    rows = await session.execute(
        select(
            StripeUsageRow.phase_id,
            StripeUsageRow.meter,
            units([RowState.DELIVERED]),
            units(ON_THE_WAY),
            units(NOT_AT_STRIPE),
        )
        .where(
            StripeUsageRow.subscription_id == subscription_id,
            StripeUsageRow.hour >= start,
            StripeUsageRow.hour < end,
        )
        .group_by(StripeUsageRow.phase_id, StripeUsageRow.meter)
        .order_by(StripeUsageRow.phase_id, StripeUsageRow.meter)
    )
    return [
        UsageAtStripe(phase_id=phase_id, meter=meter, delivered=delivered, on_the_way=waiting, withheld=withheld)
        for phase_id, meter, delivered, waiting, withheld in rows
    ]


async def delivered_units(
    session: AsyncSession, *, subscription_id: str, start: datetime, end: datetime
) -> dict[tuple[str, str], int]:
    """Return the units of hours in [start, end) that Stripe has, by (phase, meter)."""
    found = await usage_at_stripe(session, subscription_id=subscription_id, start=start, end=end)
    return {(one.phase_id, one.meter): one.delivered for one in found}
