"""Delivered usage compared with Stripe's summaries, whatever phases and periods lie in a window."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import floor_hour
from control_plane.stripe_sync.client import Stripe
from control_plane.stripe_sync.usage import metrics
from control_plane.stripe_sync.usage.model import RowState
from control_plane.stripe_sync.usage.summaries import floor_minute, hours_at_stripe, is_same, units_at_stripe
from control_plane.stripe_sync.usage.tables import StripeUsageRow

log = structlog.get_logger(__name__)

HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryDifference:
    """Stripe's summary of [start, end) is not what was delivered. `unknown_units`: of rows nobody knows about."""

    customer_id: str
    meter: str
    event_name: str
    start: datetime
    end: datetime
    delivered_units: int
    unknown_units: int
    stripe_units: int

    @property
    def units(self) -> int:
        """How much Stripe has more; below zero: less."""
        return self.stripe_units - self.delivered_units


async def compare_summaries(
    sessions: async_sessionmaker[AsyncSession],
    stripe: Stripe,
    *,
    subscription_id: str,
    start: datetime,
    end: datetime,
) -> list[SummaryDifference]:
    """Compare what was delivered of each meter of a subscription with Stripe's summary of [start, end).

    The bounds are Stripe's, cut to minutes. None differ: an empty list. What was delivered within the last minutes
    may be missing at Stripe still.

    Raises:
        StripeRefused, StripeUnavailable: the summary could not be read.
    """
    start, end = floor_minute(start), floor_minute(end)
    async with sessions() as session:
        meters = await _meters_of(session, subscription_id)
    differences = []
    for customer_id, event_name, meter in meters:
        found = await compare_window(
            sessions, stripe, customer_id=customer_id, event_name=event_name, start=start, end=end
        )
        metrics.DRIFT.labels(meter).set(found.units if found else 0)
        if found is not None:
            metrics.DIFFERENCES.labels(meter).inc()
            log.error(
                "stripe counts other usage than was delivered",
                subscription_id=subscription_id,
                meter=meter,
                start=start,
                end=end,
                delivered_units=found.delivered_units,
                stripe_units=found.stripe_units,
            )
            differences.append(found)
    return differences


async def compare_window(
    sessions: async_sessionmaker[AsyncSession],
    stripe: Stripe,
    *,
    customer_id: str,
    event_name: str,
    start: datetime,
    end: datetime,
) -> SummaryDifference | None:
    """Compare a customer's summary of a meter in [start, end), whole minutes; None where it is the same."""
    stripe_units = await units_at_stripe(
        sessions, stripe, customer_id=customer_id, event_name=event_name, start=start, end=end
    )
    async with sessions() as session:
        meter, delivered, unknown = await _delivered(session, customer_id, event_name, start, end)
    if is_same(stripe_units, delivered):
        return None
    return SummaryDifference(
        customer_id=customer_id,
        meter=meter,
        event_name=event_name,
        start=start,
        end=end,
        delivered_units=delivered,
        unknown_units=unknown,
        stripe_units=stripe_units,
    )


async def differing_hours(
    sessions: async_sessionmaker[AsyncSession], stripe: Stripe, difference: SummaryDifference
) -> list[SummaryDifference]:
    """Return which hours make a difference up; its ends may lie within an hour."""
    start, end = floor_hour(difference.start), _ceil_hour(difference.end)
    summed = await hours_at_stripe(
        sessions,
        stripe,
        customer_id=difference.customer_id,
        event_name=difference.event_name,
        start=start,
        end=end,
    )
    async with sessions() as session:
        ours = await _delivered_by_hour(session, difference, start, end)
    found = []
    for hour in sorted(summed.keys() | ours.keys()):
        delivered, stripe_units = ours.get(hour, 0), summed.get(hour, 0)
        if not is_same(stripe_units, delivered):
            found.append(
                SummaryDifference(
                    customer_id=difference.customer_id,
                    meter=difference.meter,
                    event_name=difference.event_name,
                    start=hour,
                    end=hour + HOUR,
                    delivered_units=delivered,
                    unknown_units=0,
                    stripe_units=stripe_units,
                )
            )
    return found


async def _meters_of(session: AsyncSession, subscription_id: str) -> list[tuple[str, str, str]]:
    rows = await session.execute(
        select(StripeUsageRow.customer_id, StripeUsageRow.event_name, StripeUsageRow.meter)
        .where(
            StripeUsageRow.subscription_id == subscription_id,
            StripeUsageRow.customer_id.is_not(None),
            StripeUsageRow.event_name.is_not(None),
        )
        .distinct()
    )
    return sorted((customer or "", event_name or "", meter) for customer, event_name, meter in rows)


def _total(states: Collection[RowState]) -> Any:
    units = func.sum(StripeUsageRow.delta_units).filter(StripeUsageRow.state.in_(states))
    return cast(func.coalesce(units, 0), BigInteger)  # PostgreSQL's sum of bigint is numeric


async def _delivered(
    session: AsyncSession, customer_id: str, event_name: str, start: datetime, end: datetime
) -> tuple[str, int, int]:
    row = (
        await session.execute(
            select(
                func.coalesce(func.min(StripeUsageRow.meter), ""),
                _total([RowState.DELIVERED]),
                _total([RowState.SENT]),
            ).where(
                StripeUsageRow.customer_id == customer_id,
                StripeUsageRow.event_name == event_name,
                StripeUsageRow.stripe_at >= start,
                StripeUsageRow.stripe_at < end,
            )
        )
    ).one()
    return row[0], row[1], row[2]


async def _delivered_by_hour(
    session: AsyncSession, wanted: SummaryDifference, start: datetime, end: datetime
) -> dict[datetime, int]:
    hour = func.date_trunc("hour", StripeUsageRow.stripe_at, "UTC", type_=StripeUsageRow.stripe_at.type)
    rows = await session.execute(
        select(hour.label("hour"), _total([RowState.DELIVERED]).label("units"))
        .where(
            StripeUsageRow.customer_id == wanted.customer_id,
            StripeUsageRow.event_name == wanted.event_name,
            StripeUsageRow.stripe_at >= start,
            StripeUsageRow.stripe_at < end,
        )
        .group_by(hour)
    )
    return {row.hour: row.units for row in rows}


def _ceil_hour(moment: datetime) -> datetime:
    return floor_hour(moment + HOUR - timedelta(microseconds=1))
