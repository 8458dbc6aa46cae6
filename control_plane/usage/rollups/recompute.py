"""Recomputing hours: their rows from stored events and amendments, and all that follows from them."""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import MILLISECOND
from control_plane.usage.corrections.model import Amendment
from control_plane.usage.corrections.queries import amendments_of_hours, voids_of_hours
from control_plane.usage.daily.retention import of_dropped_days
from control_plane.usage.model import HourKey
from control_plane.usage.reads import phases_of_hours
from control_plane.usage.rollups.derived import Derive, RecomputedHours
from control_plane.usage.rollups.hour_rows import open_hours, write_hours
from control_plane.usage.rollups.pace import Pace, note_costs, shared_costs
from control_plane.usage.rollups.past_hours import leave_standing
from control_plane.usage.rollups.replay_hours import (
    hours_to_wait,
    hours_with_replays,
    judge_hours,
    touch_later_hours,
    write_unmatched,
)
from control_plane.usage.rollups.replays import NO_REPLAYS, Unmatched, hours_before
from control_plane.usage.rollups.rollup import Phases, RowKey, RowSums, rollup_rows, split_moments
from control_plane.usage.store import EventStore
from control_plane.usage.store.events import Voids


@dataclass(frozen=True, slots=True)
class HoursInHand:
    """How hours are redone that one transaction has locked."""

    session: AsyncSession
    store: EventStore
    derive: Sequence[Derive]
    revisions: Mapping[HourKey, int]
    pace: Pace
    now: datetime

    async def redo(self, hours: Sequence[HourKey], past: Sequence[HourKey]) -> Collection[HourKey]:
        """Recompute hours and all that follows from them; return those that wait for earlier ones.

        `past` hours are not read again: they get their amendments.
        """
        session, now, started = self.session, self.now, time.monotonic()
        amendments = await amendments_of_hours(session, [*hours, *past])
        changed = await self._amend(past, amendments) if past else []
        replay_hours = await hours_with_replays(session, hours)
        waiting = await hours_to_wait(session, replay_hours, in_hand=hours)
        computed = await _recompute(session, self.store, hours, replay_hours)
        changed += await write_hours(
            session, hours, computed.rows, amendments=amendments, revisions=self.revisions, now=now
        )
        # before anything is derived: meters count only the replays that are billed after all
        rejudged = await write_unmatched(session, computed.unmatched)
        recomputed = RecomputedHours(
            hours=hours,
            changed=tuple(changed),
            phases=computed.phases,
            moments=computed.moments,
            voids=computed.voids,
            now=now,
        )
        derived = [key for one in self.derive for key in await one(session, self.store, recomputed)]
        await open_hours(session, set(derived).difference(changed), now=now)
        await touch_later_hours(session, [*changed, *rejudged], in_hand=hours, now=now)
        took = timedelta(seconds=time.monotonic() - started)
        costs = shared_costs(hours, computed.events, took_ms=took // MILLISECOND)
        await note_costs(session, costs, pace=self.pace, now=now + took)
        return waiting

    async def _amend(
        self, past: Sequence[HourKey], amendments: Mapping[HourKey, Sequence[Amendment]]
    ) -> list[HourKey]:
        # without its rows an hour would come to its amendments alone
        dropped = await of_dropped_days(self.session, past)
        known = [key for key in past if key not in dropped and (self.revisions[key] or key in amendments)]
        changed = await write_hours(
            self.session,
            known,
            {},
            amendments=amendments,
            standing=set(known),
            revisions=self.revisions,
            now=self.now,
        )
        left = sorted(set(past).difference(changed))
        await leave_standing(self.session, left, revisions=self.revisions)
        return changed


@dataclass(frozen=True, slots=True)
class _Computed:
    """Rows of hours, the replays that are billed after all, and what hours were split by and are without."""

    rows: dict[HourKey, dict[RowKey, RowSums]]
    unmatched: Unmatched
    phases: Phases
    moments: Mapping[str, Sequence[int]]
    voids: Voids
    events: Mapping[HourKey, int]
    """How many events each hour has."""


async def _recompute(
    session: AsyncSession, store: EventStore, hours: Sequence[HourKey], replay_hours: Sequence[HourKey]
) -> _Computed:
    # figures and what corrects them must be cut at the same moments
    span = {*hours, *hours_before(replay_hours)}
    phases = await phases_of_hours(session, span)
    moments = split_moments(span, phases)
    voids = await voids_of_hours(session, hours)
    judged = NO_REPLAYS
    if replay_hours:
        judged = await judge_hours(session, store, replay_hours, phases=phases, moments=moments, voids=voids)
    figures = [*judged.corrections]
    for chosen in (set(hours).difference(replay_hours), replay_hours):
        told_apart = chosen is replay_hours
        cuts: dict[str, list[HourKey]] = {"whole": [], "split": []}
        for key in sorted(chosen):
            cuts["split" if key.account_id in moments else "whole"].append(key)
        for cut, some in cuts.items():
            figures += await asyncio.to_thread(
                store.hour_figures,
                some,
                boundaries=moments if cut == "split" else None,
                with_replays=told_apart,
                voids={key: voids[key] for key in some if key in voids},
            )
    rows = rollup_rows(figures, phases=phases, moments=moments)
    events: Counter[HourKey] = Counter()
    for part in figures:
        events[HourKey(part.account_id, part.hour_ms)] += part.calls
    return _Computed(rows, judged.unmatched, phases, moments, voids, events)
