"""Counting stored events for one meter: hours from before it was declared.

A job goes through the subscriptions of the meter's API product in the order of their ids, and through the hours of
each in time: some hours in one transaction, which holds their locks and notes how far the job is. So it can be
stopped and taken up anywhere, and hours that are done twice come out the same.

A value changes no bill by itself: what was sealed is opened (and sealed again, with what it adds) only where the
phase's plan version has a price on the meter, and no plan version could have one before the meter was there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, exists, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.meter_queries import KnownMeter, facts_of_meter
from control_plane.catalog.meter_queries import meter as meter_by_code
from control_plane.catalog.tables import Meter
from control_plane.foundation.audit import record_change
from control_plane.foundation.clock import floor_hour, from_ms, to_ms
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.pagination import Page, decode_cursor, page_of
from control_plane.foundation.period import period_containing
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.hours import hour_arrays
from control_plane.usage.meters.hourly import count_hours
from control_plane.usage.meters.tables import MeterBackfill
from control_plane.usage.model import HourKey
from control_plane.usage.reads import phases_of_hours
from control_plane.usage.retention import MINIMUM_DAYS, countable_from_ms
from control_plane.usage.rollups.hour_rows import open_hours
from control_plane.usage.store import EventStore

HOUR = timedelta(hours=1)
SUBSCRIPTIONS_PER_STEP = 50
_NEXT_JOB = (
    select(MeterBackfill)
    .where(MeterBackfill.status == "running")
    .order_by(MeterBackfill.updated_at)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_HOURS = text("""
SELECT hour FROM usage_hours
WHERE account_id = :account_id AND hour >= :start AND hour < :end AND aggregated_at IS NOT NULL
ORDER BY hour LIMIT :limit
""")
# in the order in which everybody locks several
_LOCK = text("""
SELECT known.account_id, known.hour, known.revision FROM usage_hours AS known
JOIN unnest(CAST(:accounts AS text[]), CAST(:hours AS timestamptz[])) AS wanted (account_id, hour)
    USING (account_id, hour)
ORDER BY known.account_id, known.hour
FOR UPDATE OF known
""")


class BackfillRunningError(ConflictError):
    """One job at a time counts for a meter."""

    def __init__(self, code: str) -> None:
        super().__init__("meter_backfill_running", f"Stored events are being counted for meter {code} already.")


@dataclass(frozen=True, slots=True)
class BackfillStep:
    """What one step did: hours counted, hours left out since their events may have expired."""

    backfill_id: str
    hours: int
    skipped: int
    is_done: bool


async def start_backfill(
    session: AsyncSession, *, code: str, starts_at: datetime | None = None, actor: str, now: datetime
) -> MeterBackfill:
    """Have stored events counted for a meter, from `starts_at` or each subscription's current billing period on.

    Raises:
        NotFoundError: no such meter. ValidationFailedError: `starts_at` is no full hour, lies ahead, or so
        far back that events may have expired. BackfillRunningError.
    """
    meter = await meter_by_code(session, code)
    if starts_at is not None:
        if floor_hour(starts_at) != starts_at:
            raise ValidationFailedError("starts_at", "must be a full hour (UTC)")
        earliest = from_ms(countable_from_ms(now))
        if not earliest <= starts_at <= now:
            raise ValidationFailedError("starts_at", f"must be between {earliest.isoformat()} and now")
    running = exists().where(MeterBackfill.meter_id == meter.id, MeterBackfill.status == "running")
    if await session.scalar(select(running)):
        raise BackfillRunningError(code)
    job = MeterBackfill(
        id=new_id("mbf", now),
        meter_id=meter.id,
        status="running",
        starts_at=starts_at,
        ends_at=floor_hour(now) + HOUR,
        subscriptions_total=await session.scalar(
            select(func.count()).select_from(Subscription).where(_is_subscribed(meter.id))
        )
        or 0,
        created_by=actor,
        created_at=now,
        updated_at=now,
    )
    session.add(job)
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action="meter.backfill_started",
        entity_type="meter",
        entity_id=meter.id,
        before=None,
        after={"backfill_id": job.id, "code": code, "starts_at": starts_at and starts_at.isoformat()},
        now=now,
    )
    return job


async def backfill(session: AsyncSession, backfill_id: str) -> MeterBackfill:
    """Return a job with its progress.

    Raises:
        NotFoundError: there is none.
    """
    found = await session.get(MeterBackfill, backfill_id)
    if found is None:
        raise NotFoundError("meter_backfill", backfill_id)
    return found


async def backfills(
    session: AsyncSession, *, meter_id: str, cursor: str | None = None, limit: int = 50
) -> Page[MeterBackfill]:
    """Return one page of a meter's jobs, newest first."""
    statement = select(MeterBackfill).where(MeterBackfill.meter_id == meter_id)
    if cursor is not None:
        (last,) = decode_cursor(cursor, str)
        statement = statement.where(MeterBackfill.id < last)
    rows = (await session.scalars(statement.order_by(MeterBackfill.id.desc()).limit(limit + 1))).all()
    return page_of(rows, limit=limit, sort_values=lambda row: (row.id,))


async def take_backfill_step(
    session: AsyncSession, store: EventStore, *, now: datetime, hours: int = 200, kept_days: int = MINIMUM_DAYS
) -> BackfillStep | None:
    """Count up to `hours` hours for the job that waits longest; None where none is running.

    Meant for one transaction. Jobs that others work on are passed over. Idempotent but for the progress it notes.
    """
    job = await session.scalar(_NEXT_JOB)
    if job is None:
        return None
    job.updated_at = now
    meter = await _known(session, job.meter_id)
    if meter is None:
        job.status, job.finished_at = "stopped", now
        return BackfillStep(job.id, 0, 0, is_done=True)
    before = job.hours_skipped
    first = from_ms(countable_from_ms(now, kept_days=kept_days))
    keys: list[HourKey] = []
    for _ in range(SUBSCRIPTIONS_PER_STEP):
        subscription = await _next_subscription(session, job, meter)
        if subscription is None:
            job.status, job.finished_at = "done", now
            break
        keys += await _next_hours(session, job, subscription, first=first, limit=hours - len(keys))
        if len(keys) >= hours:
            break
    await _count(session, store, keys, meter, now=now)
    job.hours_done += len(keys)
    return BackfillStep(job.id, len(keys), job.hours_skipped - before, is_done=job.status == "done")


async def _next_hours(
    session: AsyncSession, job: MeterBackfill, subscription: Subscription, *, first: datetime, limit: int
) -> list[HourKey]:
    """Return hours with usage of a subscription from where the job stands, and move the job past them."""
    start = _start(job, subscription)
    job.hours_skipped += max(0, (first - start) // HOUR)
    names = {"account_id": subscription.account_id, "start": max(start, first), "end": job.ends_at, "limit": limit}
    found = [HourKey(subscription.account_id, to_ms(hour)) for (hour,) in await session.execute(_HOURS, names)]
    is_done = len(found) < limit
    job.last_subscription_id = subscription.id
    job.next_hour = None if is_done else from_ms(found[-1].hour_ms) + HOUR
    job.subscriptions_done += is_done
    return found


async def _count(
    session: AsyncSession, store: EventStore, keys: Sequence[HourKey], meter: KnownMeter, *, now: datetime
) -> None:
    if not keys:
        return
    await session.execute(_LOCK, hour_arrays(keys))
    phases = await phases_of_hours(session, keys)
    meters = {meter.facts.api_product: [meter]}
    changed = await count_hours(session, store, hours=keys, phases=phases, meters=meters, now=now)
    await open_hours(session, changed, now=now)


async def _known(session: AsyncSession, meter_id: str) -> KnownMeter | None:
    """Return the job's meter, None where another has taken its place."""
    row = await session.get(Meter, meter_id)
    if row is None:
        return None
    await session.refresh(row, ["api_product"])
    return KnownMeter(row.id, facts_of_meter(row))


async def _next_subscription(session: AsyncSession, job: MeterBackfill, meter: KnownMeter) -> Subscription | None:
    place = Subscription.id >= job.last_subscription_id
    if job.next_hour is None:
        place = Subscription.id > job.last_subscription_id
    statement = select(Subscription).where(_is_subscribed(meter.id), place).order_by(Subscription.id).limit(1)
    return (await session.scalars(statement)).one_or_none()


def _is_subscribed(meter_id: str) -> ColumnElement[bool]:
    product = select(Meter.api_product_id).where(Meter.id == meter_id).scalar_subquery()
    return Subscription.api_product_id == product


def _start(job: MeterBackfill, subscription: Subscription) -> datetime:
    if job.next_hour is not None:
        return job.next_hour
    if job.starts_at is not None:
        return job.starts_at
    anchor_at, interval, zone = subscription.anchor_at, subscription.interval, subscription.time_zone
    return period_containing(job.created_at, anchor_at, interval, zone).start
