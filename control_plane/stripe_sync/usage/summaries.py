"""What Stripe counts of meter events: its summaries, read as whole units.

Stripe adds events up by the moment they bear, in windows of whole minutes. Its sums are floats, and come a while
after the events.
"""

import math
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import from_ms
from control_plane.foundation.errors import ConflictError
from control_plane.stripe_sync.catalog.tables import StripeMeter
from control_plane.stripe_sync.client import Stripe, StripeRefused

QUIET: Final = timedelta(minutes=30)
"""Stripe has summed up what it took by then."""

PAGE: Final = 100
EXACT: Final = 2.0**53


class NotWholeUnitsError(ConflictError, ValueError):
    """Somebody else has reported parts of units to a meter of ours."""

    def __init__(self, value: object) -> None:
        super().__init__(
            "summary_not_whole",
            f"Stripe counts {value} units, and we report whole units only: see who else reports to the meter.",
        )


def whole_units(value: float | Decimal | str) -> int:
    """Return a sum of whole units that came as a float.

    Raises:
        NotWholeUnitsError: it is not whole, or no number. Above 2^53 floats have no fractions; it is as near as
            can be.
    """
    number = float(value)
    if not math.isfinite(number) or abs(number - round(number)) > 1e-6:  # noqa: PLR2004 - far below a unit
        raise NotWholeUnitsError(value)
    return round(number)


def is_same(stripe_units: int, units: int) -> bool:
    """Say whether a sum of Stripe's is this one, as far as a float can tell."""
    if max(abs(stripe_units), abs(units)) < EXACT:
        return stripe_units == units
    return abs(stripe_units - units) <= 2 * math.ulp(float(max(abs(stripe_units), abs(units))))


def floor_minute(moment: datetime) -> datetime:
    """Return the whole minute that summaries can begin or end at.

    A period that begins within a minute holds nothing of the one before from there on: usage of that bears the
    beginning of its hour.
    """
    return moment.replace(second=0, microsecond=0)


async def units_at_stripe(
    sessions: async_sessionmaker[AsyncSession],
    stripe: Stripe,
    *,
    customer_id: str,
    event_name: str,
    start: datetime,
    end: datetime,
) -> int:
    """Return what Stripe counts in [start, end), whole minutes."""
    meter_id = await _meter_id(sessions, event_name)
    if start >= end or meter_id is None:
        return 0
    try:
        page = await stripe.call(
            lambda client: client.v1.billing.meters.event_summaries.list_async(
                meter_id,
                {
                    "customer": customer_id,
                    "start_time": int(start.timestamp()),
                    "end_time": int(end.timestamp()),
                    "limit": PAGE,
                },
            )
        )
    except StripeRefused as refused:
        if refused.is_missing:
            return 0  # no such customer or meter: nothing is counted for it
        raise
    return whole_units(sum(Decimal(str(one.aggregated_value)) for one in page.data))


async def hours_at_stripe(
    sessions: async_sessionmaker[AsyncSession],
    stripe: Stripe,
    *,
    customer_id: str,
    event_name: str,
    start: datetime,
    end: datetime,
) -> dict[datetime, int]:
    """Return what Stripe counts in each hour of [start, end), full hours; hours without any may be left out."""
    meter_id = await _meter_id(sessions, event_name)
    found: dict[datetime, int] = {}
    if meter_id is None:
        return found
    summaries = stripe.every(
        lambda client: client.v1.billing.meters.event_summaries.list_async(
            meter_id,
            {
                "customer": customer_id,
                "start_time": int(start.timestamp()),
                "end_time": int(end.timestamp()),
                "value_grouping_window": "hour",
                "limit": PAGE,
            },
        )
    )
    async for one in summaries:
        hour = from_ms(one.start_time * 1000)
        found[hour] = found.get(hour, 0) + whole_units(one.aggregated_value)
    return found


async def _meter_id(sessions: async_sessionmaker[AsyncSession], event_name: str) -> str | None:
    async with sessions() as session:
        found: str | None = await session.scalar(
            select(StripeMeter.meter_id).where(StripeMeter.event_name == event_name)
        )
        return found
