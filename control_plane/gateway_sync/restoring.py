"""Counters of accounts, brought back from usage to at least what is known."""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import floor_hour
from control_plane.foundation.redis import RedisClient
from control_plane.gateway_sync.counters import HourCount, restore_counters, restored_counters
from control_plane.gateway_sync.dimension_reads import capped_dimensions, dimension_hours
from control_plane.gateway_sync.snapshots import consistent_reads
from control_plane.gateway_sync.usage_reads import HOUR, hour_usage, key_shares, live_subscriptions

LONGEST_PERIODS = {"month": timedelta(days=32), "year": timedelta(days=367)}


async def restore_accounts(
    sessions: async_sessionmaker[AsyncSession], client: RedisClient, account_ids: Collection[str], *, now: datetime
) -> int:
    """Restore the counters of all live subscriptions of the accounts; returns how many. Idempotent.

    Safe while calls go on: an hour that is open is raised, never lowered.
    """
    return await restore_counters(client, await known_counters(sessions, account_ids, now=now))


async def known_counters(
    sessions: async_sessionmaker[AsyncSession], account_ids: Collection[str], *, now: datetime
) -> list[tuple[str, int, list[HourCount]]]:
    """Return what usage says of the accounts' counters, as `restored_counters` does."""
    if not account_ids:
        return []
    async with consistent_reads(sessions) as session:
        subscriptions = await live_subscriptions(session, account_ids)
        if not subscriptions:
            return []
        shares = await key_shares(session, account_ids)
        # enough for every current period; each subscription then takes its own part
        this_hour = floor_hour(now)
        start = this_hour - max(LONGEST_PERIODS[subscription.interval] for subscription in subscriptions)
        usage = await hour_usage(session, account_ids, start=start, end=this_hour + HOUR)
        capped = await capped_dimensions(session, {subscription.id for subscription in subscriptions})
        dimensions = await dimension_hours(session, capped, start=start, end=this_hour + HOUR)
    return list(
        restored_counters(
            subscriptions=subscriptions, shares=shares, usage=usage, capped=capped, dimensions=dimensions, now=now
        )
    )
