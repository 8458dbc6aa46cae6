"""Checks hours: counters against stored events against the rollup against what was settled."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import from_ms
from control_plane.foundation.redis import RedisClient
from control_plane.usage.collect.positions import touch
from control_plane.usage.completeness import metrics
from control_plane.usage.completeness.alerts import Alert, raise_alerts
from control_plane.usage.completeness.due import DueHour
from control_plane.usage.completeness.evidence import CounterHour, Evidence, gather_evidence
from control_plane.usage.completeness.figures import differences, rolled_up_figures, stored_figures
from control_plane.usage.completeness.missing import MissingFound, find_missing, name_nodes, stored_calls
from control_plane.usage.completeness.model import INCOMPLETE, State, judge
from control_plane.usage.completeness.results import (
    NO_DIFFERENCE,
    CounterResult,
    Difference,
    look_again,
    write_check,
    write_results,
)
from control_plane.usage.completeness.tables import HourCheck
from control_plane.usage.corrections.queries import voids_of_hours
from control_plane.usage.hours import is_one_of
from control_plane.usage.model import HourKey
from control_plane.usage.store import EventStore
from control_plane.usage.tables import TouchedHour, UsageHour
from gateway_contract.counters import HOUR_MS
from gateway_contract.modes import Mode

# a call may take long, and its line is written when it has ended
EARLY = timedelta(minutes=10)
# an event is stored a moment before its hour is marked; what differs for longer does differ
CONFIRM_AFTER = timedelta(seconds=30)
SETTLE_WITHIN = timedelta(minutes=10)
LOOK_AGAIN = timedelta(hours=1)
LOOK_AGAIN_FOR = timedelta(days=3)
AFTER_FAILURE = timedelta(minutes=5)


async def check_hours(
    sessions: async_sessionmaker[AsyncSession],
    store: EventStore,
    client: RedisClient,
    due: Sequence[DueHour],
    *,
    now: datetime,
) -> list[Alert]:
    """Check hours and write down what came out; returns what there is to be said. Idempotent.

    An hour that is opened meanwhile, or has new events, is passed over and due again soon.
    """
    async with sessions() as session, session.begin():
        hours = sorted(hour.key for hour in due)
        evidence = await gather_evidence(session, store, client, hours, now=now)
        compared = await _compare(session, store, hours)
    results = await asyncio.to_thread(_judge_all, store, hours, evidence, now)
    async with sessions() as session, session.begin():
        standing = await _standing(session, due)
        before = {
            (row.account_id, row.hour): row
            for row in await session.scalars(select(HourCheck).where(is_one_of(HourCheck, hours)))
        }
        alerts: list[Alert] = []
        for hour in standing:
            earlier = before.get((hour.key.account_id, from_ms(hour.key.hour_ms)))
            settled = _settled(hour, evidence)
            differing = await _note_difference(session, hour, compared[hour.key], earlier, now=now)
            await write_results(session, hour.key, results[hour.key], evidence, alerts, now=now)
            if differing.confirmed:
                alerts.append(Alert.of_difference(hour.key, differing.differences))
            if settled == "differs" and (earlier is None or earlier.settled != settled):
                alerts.append(Alert.of_settlement(hour.key))
            states = {result.state for result in results[hour.key]}
            recheck_at = _recheck_at(hour, states, settled=settled, differing=differing, now=now)
            await write_check(
                session,
                hour.key,
                revision=hour.revision,
                recheck_at=recheck_at,
                differing=differing,
                settled=settled,
                now=now,
            )
        passed_over = {hour.key for hour in due}.difference(hour.key for hour in standing)
        for key in sorted(passed_over):
            await look_again(session, key, at=now + CONFIRM_AFTER, now=now)
        await raise_alerts(session, alerts, now=now)
    metrics.CHECKED_HOURS.inc(len(standing))
    return alerts


async def note_failure(sessions: async_sessionmaker[AsyncSession], hour: DueHour, *, now: datetime) -> None:
    """Put an hour off that cannot be checked, so that others go on."""
    async with sessions() as session, session.begin():
        await look_again(session, hour.key, at=now + AFTER_FAILURE, now=now)


async def _compare(
    session: AsyncSession, store: EventStore, hours: Sequence[HourKey]
) -> dict[HourKey, list[dict[str, Any]]]:
    rolled_up = await rolled_up_figures(session, hours)
    stored = await stored_figures(store, hours, voids=await voids_of_hours(session, hours))
    return {key: differences(stored.get(key, {}), rolled_up.get(key, {})) for key in hours}


def _judge_all(
    store: EventStore, hours: Sequence[HourKey], evidence: Evidence, now: datetime
) -> dict[HourKey, list[CounterResult]]:
    return {hour: [_judge(store, counter, evidence, now) for counter in evidence.counters(hour)] for hour in hours}


def _judge(store: EventStore, counter: CounterHour, evidence: Evidence, now: datetime) -> CounterResult:
    buckets = evidence.buckets.get(counter, ())
    counted = evidence.counted.get(counter)
    stored = stored_calls(buckets)
    subscription = evidence.subscriptions.get(counter.subscription_id)
    product = subscription.product if subscription else ""
    found = MissingFound()
    if counted is not None:
        found = find_missing(
            store, counter.hour, product=product, mode=counter.mode, counted=counted, buckets=buckets
        )
    state = judge(
        counted,
        stored,
        missing=found.calls,
        is_shared=subscription is not None and evidence.is_shared(counter),
        is_early=now < from_ms(counter.hour.hour_ms + HOUR_MS) + EARLY,
    )
    if state is State.MISSING:
        found = MissingFound(found.calls, tuple(name_nodes(store, counter.hour, found.gaps)))
    rolled_up = evidence.rolled_up.get(counter)
    return CounterResult(
        counter=counter,
        state=state,
        product=product,
        stored=stored.numbered,
        unnumbered=stored.unnumbered,
        rolled_up=rolled_up.served_calls if rolled_up else 0,
        found=found,
    )


async def _standing(session: AsyncSession, due: Sequence[DueHour]) -> list[DueHour]:
    """Return the hours that are still sealed at the revision that was looked at, with nothing new on its way."""
    hours = [hour.key for hour in due]
    rows = await session.execute(
        select(UsageHour.account_id, UsageHour.hour, UsageHour.revision, UsageHour.sealed_at).where(
            is_one_of(UsageHour, hours)
        )
    )
    revisions = {
        (account_id, hour): revision if sealed_at else None for account_id, hour, revision, sealed_at in rows
    }
    marks = await session.execute(
        select(TouchedHour.account_id, TouchedHour.hour).where(is_one_of(TouchedHour, hours))
    )
    marked = {(account_id, hour) for account_id, hour in marks}
    return [
        hour
        for hour in sorted(due, key=lambda one: one.key)
        if (name := (hour.key.account_id, from_ms(hour.key.hour_ms))) not in marked
        and revisions.get(name, 0) == hour.revision
    ]


async def _note_difference(
    session: AsyncSession,
    hour: DueHour,
    found: Sequence[dict[str, Any]],
    earlier: HourCheck | None,
    *,
    now: datetime,
) -> Difference:
    """Take a difference for one once it has stood for a while; then the hour is recomputed."""
    if not found:
        return NO_DIFFERENCE
    stood = earlier is not None and earlier.revision == hour.revision and earlier.differs_since is not None
    since = earlier.differs_since if stood and earlier is not None and earlier.differs_since else now
    is_old = now - since >= CONFIRM_AFTER
    if is_old:
        await touch(session, hours=[hour.key], now=now)
    was_confirmed = stood and earlier is not None and earlier.checked_at - since >= CONFIRM_AFTER
    return Difference(since, tuple(found), confirmed=is_old and not was_confirmed)


def _settled(hour: DueHour, evidence: Evidence) -> str:
    """Say whether the live counters hold what was billed; `pending` while the settlement is on its way."""
    found = []
    for counter, reading in evidence.readings.items():
        if counter.hour == hour.key and counter.mode == Mode.LIVE.value and reading is not None and hour.revision:
            billed = evidence.rolled_up.get(counter)
            if reading.revision is None or reading.revision < hour.revision:
                found.append("pending")
            elif reading.revision == hour.revision and reading.units != (billed.billable_units if billed else 0):
                found.append("differs")
            else:
                found.append("yes")
    return next((word for word in ("differs", "pending", "yes") if word in found), "none")


def _recheck_at(
    hour: DueHour, states: set[State], *, settled: str, differing: Difference, now: datetime
) -> datetime | None:
    end = from_ms(hour.key.hour_ms + HOUR_MS)
    moments = []
    if State.WAITING in states:
        moments.append(max(end + EARLY, now + CONFIRM_AFTER))
    if differing.since is not None and now - differing.since < CONFIRM_AFTER:
        moments.append(differing.since + CONFIRM_AFTER)
    sealed_at = hour.sealed_at or now
    if settled == "pending" and now - sealed_at < SETTLE_WITHIN:
        moments.append(now + CONFIRM_AFTER)
    lasting = states & INCOMPLETE or differing.since is not None or settled in {"pending", "differs"}
    if lasting and now - end < LOOK_AGAIN_FOR:
        moments.append(now + LOOK_AGAIN)
    return min(moments, default=None)
