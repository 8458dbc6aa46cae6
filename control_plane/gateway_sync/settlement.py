"""Settles sealed hours: what the gateway counted of a past hour is replaced by what was billed."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.outbox import OutboxRow, Topic, claim, finish
from control_plane.foundation.redis import RedisClient
from control_plane.gateway_sync import metrics
from control_plane.gateway_sync.counters import SettledHour, settle_hour
from control_plane.gateway_sync.dimension_reads import capped_dimensions, dimension_hours
from control_plane.gateway_sync.snapshots import consistent_reads
from control_plane.gateway_sync.usage_reads import (
    hour_usage,
    key_shares,
    sealed_revision,
    subscriptions_during_hour,
)

log = structlog.get_logger(__name__)

BATCH = 100


async def settle_sealed_hours(
    sessions: async_sessionmaker[AsyncSession], client: RedisClient, *, now: datetime, limit: int = BATCH
) -> int:
    """Settle up to `limit` hours that the outbox names; returns how many outbox rows were worked off.

    Rows are done only after Redis has acknowledged; settling an hour again changes nothing.
    """
    async with sessions() as session, session.begin():
        rows = await claim(session, topics=(Topic.HOUR_SEALED,), limit=limit)
        for account_id, hour in sorted(_named_hours(rows)):
            async with consistent_reads(sessions) as reads:
                settled = await _read(reads, account_id=account_id, hour=hour)
            if settled is not None:
                await settle_hour(client, settled)
                metrics.SETTLED.inc()
        await finish(session, [row.id for row in rows], now)
    return len(rows)


def _named_hours(rows: Iterable[OutboxRow]) -> set[tuple[str, datetime]]:
    """Calls of nobody (account '') have no counters."""
    named = set()
    for row in rows:
        payload = row.payload or {}
        account_id, hour = payload["account_id"], datetime.fromisoformat(payload["hour"])
        if account_id:
            named.add((account_id, hour))
    return named


async def _read(session: AsyncSession, *, account_id: str, hour: datetime) -> SettledHour | None:
    """Return the hour as it stands now: its revision may be past the one that was announced, never before it."""
    revision = await sealed_revision(session, account_id, hour)
    if revision is None:
        # opened again by late events; it is announced anew when it is sealed
        log.info("an hour to settle is open again", account_id=account_id, hour=hour.isoformat())
        return None
    subscriptions = await subscriptions_during_hour(session, account_id, hour)
    capped = await capped_dimensions(session, {subscription.id for subscription in subscriptions})
    dimensions = {key: dict.fromkeys(sorted(counted), 0) for key, counted in capped.items()}
    for line in await dimension_hours(session, capped, start=hour, end=hour + timedelta(hours=1)):
        if line.dimension in dimensions[line.subscription_id]:
            dimensions[line.subscription_id][line.dimension] = line.billed
    return SettledHour(
        account_id=account_id,
        hour=hour,
        revision=revision,
        subscriptions=tuple(subscriptions),
        dimensions=dimensions,
        shares=tuple(await key_shares(session, [account_id])),
        usage=tuple(await hour_usage(session, [account_id], start=hour, end=hour + timedelta(hours=1))),
    )
