"""What is derived from recomputed hours in the aggregator's own transaction: meter values, daily rollups."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.usage.model import HourKey
from control_plane.usage.rollups.rollup import Phases
from control_plane.usage.store import EventStore
from control_plane.usage.store.events import Voids


@dataclass(frozen=True, slots=True, kw_only=True)
class RecomputedHours:
    """Hours that were recomputed in one transaction, which holds the lock of each in `usage_hours`.

    `hours`: all that were counted from their events, sorted; may be empty. `changed`: hours whose rows in
    `usage_hourly` came out differently and were replaced (their revision has grown, their seal is open); among
    them are hours that are not in `hours`, too old to be counted again, where amendments changed.
    `moments` cut the hours as `EventStore.hour_figures` takes them; `phases` say which phase a part belongs to
    (`rollup.phase_of`). `voids`: events that count nothing (see `store.events.void_parameters`).
    """

    hours: Sequence[HourKey]
    changed: Sequence[HourKey]
    phases: Phases
    moments: Mapping[str, Sequence[int]]
    voids: Voids = field(default_factory=dict)
    now: datetime


Derive = Callable[[AsyncSession, EventStore, RecomputedHours], Awaitable[Collection[HourKey]]]
"""Writes what follows from recomputed hours, in their transaction; must not commit.

Called after the rows of `usage_hourly` are written and before the touched marks are cleared; a failure rolls all
of it back and is tried again, so it must come to the same when done twice. The store's methods block: call them
with `asyncio.to_thread`, one at a time. Returns those of `hours` (changed or not) whose own figures came out
differently than they stood, as far as they are billed: these, too, get a new revision and are sealed again.
"""
