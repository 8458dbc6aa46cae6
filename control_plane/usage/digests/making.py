"""Makes the digests of sealed hours: after the seal, since a busy hour holds millions of events."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import from_ms, to_ms
from control_plane.usage.corrections.queries import voids_of_hours
from control_plane.usage.digests import metrics
from control_plane.usage.digests.chain import NO_DIGEST, Digest, hash_digest
from control_plane.usage.digests.merkle import root_of
from control_plane.usage.digests.tables import UsageDigest
from control_plane.usage.metrics import FAILURES
from control_plane.usage.model import HourKey
from control_plane.usage.retention import countable_from_ms
from control_plane.usage.store import EventStore
from control_plane.usage.store.digest_leaves import leaf_pages

log = structlog.get_logger(__name__)

# leaves that are read at once; a power of two, so that their roots are subtrees
PAGE_SIZE = 262_144
HOURS_AT_ONCE = 200
# a seal is known by the moment it was made; the transaction that made it may commit a little later
COMMIT_SPAN = timedelta(minutes=5)

_WAITING = text("""
SELECT hours.account_id, hours.hour, hours.revision, hours.sealed_at
FROM usage_hours AS hours
WHERE hours.sealed_at >= :since AND hours.hour >= :oldest AND hours.account_id <> ''
    AND NOT EXISTS (
        SELECT 1 FROM usage_digests AS made
        WHERE made.account_id = hours.account_id AND made.hour = hours.hour AND made.revision = hours.revision)
ORDER BY hours.sealed_at, hours.account_id, hours.hour
LIMIT :limit
""")
_STANDS = text("""
SELECT 1 FROM usage_hours AS hours
WHERE account_id = :account_id AND hour = :hour AND revision = :revision AND sealed_at IS NOT NULL
    AND NOT EXISTS (
        SELECT 1 FROM touched_hours AS mark
        WHERE mark.account_id = hours.account_id AND mark.hour = hours.hour)
FOR SHARE OF hours
""")


@dataclass(frozen=True, slots=True)
class MadeDigests:
    """How many were made, and up to which seal none is left to be made."""

    made: int
    sealed_until: datetime


async def make_digests(
    sessions: async_sessionmaker[AsyncSession],
    store: EventStore,
    *,
    since: datetime | None,
    now: datetime,
    limit: int = HOURS_AT_ONCE,
) -> MadeDigests:
    """Make the digests of up to `limit` hours, sealed at or after `since`, that have none at their revision.

    One caller at a time. An hour that is opened meanwhile is passed over, and named by the next round. Hours whose
    events may have expired get no new digest: the one that they have stands.
    """
    oldest = from_ms(countable_from_ms(now))
    since = since or oldest
    async with sessions() as session:
        limits = {"since": since - COMMIT_SPAN, "oldest": oldest, "limit": limit}
        rows = (await session.execute(_WAITING, limits)).all()
    made = 0
    done: list[datetime] = [since]
    left: list[datetime] = []
    for account_id, hour, revision, sealed_at in rows:
        key = HourKey(account_id, to_ms(hour))
        try:
            is_made = await make_digest(sessions, store, key, revision=revision, now=now)
        except Exception as error:  # noqa: BLE001 - an hour that is too large, or spoiled, must not hold up others
            FAILURES.labels("digests", "make").inc()
            log.warning("a digest cannot be made now", account_id=account_id, hour=str(hour), error=repr(error))
            is_made = False
        made += is_made
        (done if is_made else left).append(sealed_at)
    return MadeDigests(made, min(left) if left else max(done))


async def make_digest(
    sessions: async_sessionmaker[AsyncSession], store: EventStore, hour: HourKey, *, revision: int, now: datetime
) -> bool:
    """Make the digest of one hour, and say whether the hour still stood at this revision when it was done."""
    async with sessions() as session:
        voids = await voids_of_hours(session, [hour])
    events, root = await asyncio.to_thread(tree_of_hour, store, hour, voided=voids.get(hour, ()))
    async with sessions() as session, session.begin():
        names = {"account_id": hour.account_id, "hour": from_ms(hour.hour_ms), "revision": revision}
        if await session.scalar(_STANDS, names) is None:
            return False
        last = await session.scalar(
            select(UsageDigest)
            .where(UsageDigest.account_id == hour.account_id)
            .order_by(UsageDigest.sequence.desc())
            .limit(1)
        )
        digest = Digest(
            account_id=hour.account_id,
            sequence=last.sequence + 1 if last else 1,
            hour=from_ms(hour.hour_ms),
            revision=revision,
            events=events,
            root=root.hex(),
            previous=last.digest if last else NO_DIGEST,
        )
        session.add(
            UsageDigest(
                account_id=digest.account_id,
                sequence=digest.sequence,
                hour=digest.hour,
                revision=digest.revision,
                events=digest.events,
                root=digest.root,
                previous=digest.previous,
                digest=hash_digest(digest),
                created_at=now,
            )
        )
    metrics.DIGESTS.inc()
    metrics.DIGESTED_EVENTS.inc(events)
    return True


def tree_of_hour(
    store: EventStore, hour: HourKey, *, voided: Collection[str], page_size: int = PAGE_SIZE
) -> tuple[int, bytes]:
    """Return how many events the hour has, and the root over them. Blocking; holds one page of leaves.

    `page_size` is a power of two.
    """
    events, runs = 0, []
    for page in leaf_pages(store, hour, voided=voided, page_size=page_size):
        events += len(page)
        runs.append(root_of([leaf.leaf_hash for leaf in page]))
    return events, root_of(runs)
