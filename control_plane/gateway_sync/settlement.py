"""Settles sealed hours: what the gateway counted of a past hour is replaced by what was billed."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.outbox import OutboxRow, Topic, claim, finish
from control_plane.foundation.redis import RedisClient
from control_plane.gateway_sync import metrics
from control_plane.gateway_sync.counters import SettledHour, settle_hour
from control_plane.gateway_sync.dimension_reads import capped_dimensions, dimension_hours
from control_plane.gateway_sync.snapshots import consistent_reads
from control_plane.gateway_sync.usage_reads import (
    CounterSubscription,
    HourUsage,
    KeyShare,
    hour_usage,
    key_shares,
    sealed_revisions,
    subscriptions_during_hour,
)

log = structlog.get_logger(__name__)

BATCH = 100

Row = TypeVar("Row", CounterSubscription, KeyShare)


async def settle_sealed_hours(
    sessions: async_sessionmaker[AsyncSession], client: RedisClient, *, now: datetime, limit: int = BATCH
) -> int:
    """Settle up to `limit` hours that the outbox names; returns how many outbox rows were worked off.

    Rows are done only after Redis has acknowledged; settling an hour again changes nothing.
    """
    async with sessions() as session, session.begin():
        rows = await claim(session, topics=(Topic.HOUR_SEALED,), limit=limit)
        for hour, account_ids in sorted(_named_hours(rows).items()):
            async with consistent_reads(sessions) as reads:
                settled = await _read(reads, sorted(account_ids), hour=hour)
            for found in settled:
                await settle_hour(client, found)
                metrics.SETTLED.inc()
        await finish(session, [row.id for row in rows], now)
    return len(rows)


def _named_hours(rows: Iterable[OutboxRow]) -> dict[datetime, set[str]]:
    """Return accounts by hour: most of what is sealed at once is of one. Calls of nobody ('') have no counters."""
    named: dict[datetime, set[str]] = defaultdict(set)
    for row in rows:
        payload = row.payload or {}
        if payload["account_id"]:
            named[datetime.fromisoformat(payload["hour"])].add(payload["account_id"])
    return named


async def _read(session: AsyncSession, account_ids: Sequence[str], *, hour: datetime) -> list[SettledHour]:
    """Return the hour as it stands now: a revision may be past the one that was announced, never before it."""
    revisions = await sealed_revisions(session, account_ids, hour)
    for account_id in set(account_ids).difference(revisions):
        # opened again by late events; it is announced anew when it is sealed
        log.info("an hour to settle is open again", account_id=account_id, hour=hour.isoformat())
    end = hour + timedelta(hours=1)
    subscriptions = _by_account(await subscriptions_during_hour(session, revisions, hour))
    running = {one.id for found in subscriptions.values() for one in found}
    capped = await capped_dimensions(session, running)
    billed = {
        (line.subscription_id, line.dimension): line.billed
        for line in await dimension_hours(session, capped, start=hour, end=end)
    }
    shares = _by_account(await key_shares(session, revisions))
    usage: dict[str, list[HourUsage]] = defaultdict(list)
    for line in await hour_usage(session, revisions, start=hour, end=end):
        usage[line.subscription_id].append(line)
    return [
        SettledHour(
            account_id=account_id,
            hour=hour,
            revision=revision,
            subscriptions=tuple(subscriptions[account_id]),
            dimensions={
                one.id: {name: billed.get((one.id, name), 0) for name in sorted(capped[one.id])}
                for one in subscriptions[account_id]
                if one.id in capped
            },
            shares=tuple(shares[account_id]),
            usage=tuple(line for one in subscriptions[account_id] for line in usage[one.id]),
        )
        for account_id, revision in revisions.items()
    ]


def _by_account(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.account_id].append(row)
    return found
