"""Hours that hold replays: judged by the 24 hours before them, and done again when one of these changes.

What an hour comes to follows from its events, those of the 24 hours before it, and the unmatched replays of these.
So a change in an hour touches later hours only, at most 24 hours ahead, and only where they hold replays: once no
new events come, the earliest hour still touched comes out for good, then the next, and this ends.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import to_ms
from control_plane.usage.hours import hour_arrays, is_one_of
from control_plane.usage.model import HourKey
from control_plane.usage.rollups.replays import (
    CallGroup,
    CallKey,
    JudgedReplays,
    Original,
    Unmatched,
    hours_before,
    judge_replays,
)
from control_plane.usage.rollups.rollup import DEFAULT_STATUSES, Phases, phase_of, would_be_billed
from control_plane.usage.store import EventStore
from control_plane.usage.store.events import Voids
from control_plane.usage.store.replay_calls import replay_calls, replays_after
from control_plane.usage.tables import ReplayHour, TouchedHour, UnmatchedReplay

# Sorted, as the collectors touch: whoever touches the same hours waits for the other instead of dying.
_TOUCH_LATER = text("""
INSERT INTO touched_hours (account_id, hour, generation, touched_at)
SELECT DISTINCT later.account_id, later.hour, 1, CAST(:now AS timestamptz)
FROM unnest(CAST(:accounts AS text[]), CAST(:hours AS timestamptz[])) AS changed (account_id, hour)
JOIN replay_hours AS later ON later.account_id = changed.account_id
    AND later.hour > changed.hour AND later.hour <= changed.hour + interval '24 hours'
WHERE NOT EXISTS (
    SELECT 1
    FROM unnest(CAST(:done_accounts AS text[]), CAST(:done_hours AS timestamptz[])) AS done (account_id, hour)
    WHERE done.account_id = later.account_id AND done.hour = later.hour)
ORDER BY later.account_id, later.hour
ON CONFLICT (account_id, hour) DO UPDATE SET generation = touched_hours.generation + 1
""")

_DELETE_UNMATCHED = text("""
DELETE FROM unmatched_replays WHERE (account_id, hour, call_hash) IN (
    SELECT * FROM unnest(CAST(:accounts AS text[]), CAST(:hours AS timestamptz[]), CAST(:calls AS text[])))
""")
# one statement for any number: an upstream that always claims a replay makes one for each path
_INSERT_UNMATCHED = text("""
INSERT INTO unmatched_replays (account_id, hour, call_hash, event_id, occurred_at_ms)
SELECT * FROM unnest(
    CAST(:accounts AS text[]), CAST(:hours AS timestamptz[]), CAST(:calls AS text[]), CAST(:events AS text[]),
    CAST(:times_ms AS bigint[]))
""")
_Entry = tuple[HourKey, CallKey, Original]


async def hours_with_replays(session: AsyncSession, hours: Collection[HourKey]) -> list[HourKey]:
    """Return those of the hours that hold replays; most of the time none do."""
    rows = await session.execute(
        select(ReplayHour.account_id, ReplayHour.hour).where(is_one_of(ReplayHour, hours))
    )
    return sorted(HourKey(account_id, to_ms(hour)) for account_id, hour in rows)


async def hours_to_wait(
    session: AsyncSession, replay_hours: Collection[HourKey], *, in_hand: Collection[HourKey]
) -> set[HourKey]:
    """Return the hours whose mark must stay: an hour that they are judged by is touched, and not among `in_hand`.

    To be asked before anything else is read. Somebody may be recomputing that hour now, unseen: his change would
    touch the later ones as they were known when he looked.
    """
    if not replay_hours:
        return set()
    before = hours_before(replay_hours).difference(in_hand)
    rows = await session.execute(
        select(TouchedHour.account_id, TouchedHour.hour).where(is_one_of(TouchedHour, before))
    )
    touched = {HourKey(account_id, to_ms(hour)) for account_id, hour in rows}
    return {key for key in replay_hours if touched and not touched.isdisjoint(hours_before([key]))}


async def judge_hours(
    session: AsyncSession,
    store: EventStore,
    replay_hours: Sequence[HourKey],
    *,
    phases: Phases,
    moments: Mapping[str, Sequence[int]],
    voids: Voids,
) -> JudgedReplays:
    """Say which replays of these hours are billed after all.

    `phases` and `moments` (at which hours are cut) are those of these hours and the 24 before each; `voids` those
    of these hours.
    """
    hours = sorted(hours_before(replay_hours).union(replay_hours))
    known = await _unmatched(session, set(hours).difference(replay_hours))

    def billable(groups: Iterable[CallGroup]) -> list[CallGroup]:
        return [group for group in groups if _is_billable(group, phases, moments)]

    def again(some: Sequence[HourKey], after_ms: Mapping[CallKey, int]) -> list[CallGroup]:
        return billable(replays_after(store, hours=some, after_ms=after_ms, boundaries=moments))

    def judge() -> JudgedReplays:
        groups = replay_calls(store, hours=hours, replay_hours=replay_hours, boundaries=moments)
        return judge_replays(replay_hours, billable(groups), known=known, replays_after=again, voids=voids)

    return await asyncio.to_thread(judge)


async def write_unmatched(session: AsyncSession, unmatched: Unmatched) -> list[HourKey]:
    """Bring the unmatched replays of hours up to date, and return the hours where they changed."""
    if not unmatched:
        return []
    standing = await _unmatched(session, unmatched.keys())
    gone = _differences(standing, unmatched)
    new = _differences(unmatched, standing)
    if gone:
        await session.execute(_DELETE_UNMATCHED, _arrays(gone))
    if new:
        await session.execute(_INSERT_UNMATCHED, _arrays(new))
    return sorted({key for key, _, _ in (*gone, *new)})


async def touch_later_hours(
    session: AsyncSession, changed: Collection[HourKey], *, in_hand: Collection[HourKey], now: datetime
) -> None:
    """Touch the hours with replays up to 24 hours after the changed ones, but for those `in_hand`."""
    if not changed:
        return
    done = hour_arrays(in_hand)
    await session.execute(
        _TOUCH_LATER,
        {**hour_arrays(changed), "done_accounts": done["accounts"], "done_hours": done["hours"], "now": now},
    )


async def _unmatched(session: AsyncSession, hours: Collection[HourKey]) -> Unmatched:
    rows = await session.execute(
        select(
            UnmatchedReplay.account_id,
            UnmatchedReplay.hour,
            UnmatchedReplay.call_hash,
            UnmatchedReplay.occurred_at_ms,
            UnmatchedReplay.event_id,
        ).where(is_one_of(UnmatchedReplay, hours))
    )
    found: Unmatched = defaultdict(dict)
    for account_id, hour, call_hash, at_ms, event_id in rows:
        found[HourKey(account_id, to_ms(hour))][CallKey(account_id, call_hash)] = Original(at_ms, event_id)
    return dict(found)


def _differences(these: Unmatched, those: Unmatched) -> list[_Entry]:
    """Return what is in these and not, or otherwise, in those."""
    return [
        (hour, call, original)
        for hour, originals in these.items()
        for call, original in originals.items()
        if those.get(hour, {}).get(call) != original
    ]


def _arrays(entries: Sequence[_Entry]) -> dict[str, list[Any]]:
    return {
        **hour_arrays([hour for hour, _, _ in entries]),
        "calls": [call.call_hash for _, call, _ in entries],
        "events": [original.event_id for _, _, original in entries],
        "times_ms": [original.at_ms for _, _, original in entries],
    }


def _is_billable(group: CallGroup, phases: Phases, moments: Mapping[str, Sequence[int]]) -> bool:
    phase = phase_of(group.first, phases, moments)
    return would_be_billed(group.first, phase.billable_statuses if phase else DEFAULT_STATUSES)
