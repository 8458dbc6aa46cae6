"""One step of the projector: what the outbox says has changed is read, written to Redis, and marked done."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.outbox import OutboxRow, Topic, claim, enqueue_many, finish
from control_plane.gateway_sync import metrics
from control_plane.gateway_sync.cap_beginnings import write_accounts
from control_plane.gateway_sync.key_snapshots import keys_by_id
from control_plane.gateway_sync.record_writer import RecordWriter
from control_plane.gateway_sync.records import AccountSnapshot, SubscriptionSnapshot
from control_plane.gateway_sync.snapshots import accounts_by_id, consistent_reads
from control_plane.gateway_sync.unlogged_calls import UnloggedCalls

log = structlog.get_logger(__name__)

BATCH = 500
TOPICS = (Topic.KEY_CHANGED, Topic.ACCOUNT_CHANGED)


async def project_changes(
    sessions: async_sessionmaker[AsyncSession],
    writer: RecordWriter,
    *,
    public_url: str,
    now: datetime,
    limit: int = BATCH,
) -> int:
    """Project up to `limit` waiting changes; returns how many outbox rows were worked off.

    The rows stay locked, and waiting, until Redis has acknowledged: whoever dies in between leaves them to the
    next. They are claimed first and the snapshot is opened after that, so it holds every change they tell of.
    """
    async with sessions() as session, session.begin():
        rows = await claim(session, topics=TOPICS, limit=limit)
        if not rows:
            return 0
        accounts = await _write(
            sessions, writer, [(row.topic, row.entity_id) for row in rows], public_url=public_url, now=now
        )
        void = [held.id for account in accounts for held in account.subscriptions if _is_void(held)]
        await enqueue_many(session, topic=Topic.UPGRADE_HINT_VOID, entity_ids=void, now=now)
        await finish(session, [row.id for row in rows], now)
    return len(rows)


async def project_again(
    sessions: async_sessionmaker[AsyncSession],
    writer: RecordWriter,
    *,
    public_url: str,
    since: datetime,
    now: datetime,
    limit: int = BATCH,
) -> int:
    """Project once more what was marked done since then; returns how many keys and accounts that were.

    For a server that has taken over and may lack what the one before it had acknowledged. Idempotent.
    """
    done = select(OutboxRow.topic, OutboxRow.entity_id).where(
        OutboxRow.done_at >= since, OutboxRow.topic.in_(TOPICS)
    )
    async with sessions() as session:
        changed = [(row.topic, row.entity_id) for row in await session.execute(done.distinct())]
    for start in range(0, len(changed), limit):
        await _write(sessions, writer, changed[start : start + limit], public_url=public_url, now=now)
    return len(changed)


async def _write(
    sessions: async_sessionmaker[AsyncSession],
    writer: RecordWriter,
    changed: Collection[tuple[str, str]],
    *,
    public_url: str,
    now: datetime,
) -> Sequence[AccountSnapshot]:
    """Write the records of what has changed, given as (topic, id); returns the accounts among it."""
    account_ids = {entity_id for topic, entity_id in changed if topic == Topic.ACCOUNT_CHANGED}
    key_ids = {entity_id for topic, entity_id in changed if topic == Topic.KEY_CHANGED}
    unlogged = UnloggedCalls(writer.client)
    async with consistent_reads(sessions) as reads:
        accounts = await accounts_by_id(reads, account_ids, now=now, read_unlogged=unlogged)
        keys = await keys_by_id(reads, key_ids)
    _report_missing("account", account_ids, (account.id for account in accounts))
    _report_missing("key", key_ids, (key.record.id for key in keys))
    # accounts first: a new key must not be known before the account it belongs to
    try:
        await write_accounts(sessions, writer, accounts, now=now, public_url=public_url)
        # No call is admitted under the old plan from here on. Those since its counters were read are counted now.
        if changed_plans := [one.id for one in accounts if any(held.plan_changed for held in one.subscriptions)]:
            async with consistent_reads(sessions) as reads:
                again = await accounts_by_id(reads, changed_plans, now=now, read_unlogged=unlogged)
            await write_accounts(sessions, writer, again, now=now, public_url=public_url)
    finally:
        # counters of a spend cap that begins need memory: a Redis without any must be told of revoked keys still
        await writer.write_keys(keys)
    metrics.PROJECTED.labels("account").inc(len(accounts))
    metrics.PROJECTED.labels("key").inc(len(keys))
    return accounts


def _is_void(subscription: SubscriptionSnapshot) -> bool:
    return subscription.fitting is not None and not subscription.fitting.valid


def _report_missing(kind: str, wanted: set[str], found: Iterable[str]) -> None:
    for entity_id in sorted(wanted.difference(found)):
        metrics.MISSING.labels(kind).inc()
        log.error("an outbox row names something that is not there, or of no use", kind=kind, entity_id=entity_id)
