"""How long raw events are kept, and which hours can no longer be counted from them. Pure.

An event is kept for the `retention_days` that were stored with it: what its account's plan promises, at least what
the installation does, and never under `MINIMUM_DAYS`. What is stored keeps its figure when plan or setting change.
"""

from datetime import datetime, timedelta

from control_plane.catalog.rules import MAX_EVENT_RETENTION_DAYS, MIN_EVENT_RETENTION_DAYS
from control_plane.foundation.clock import to_ms
from gateway_contract.counters import HOUR_MS

MINIMUM_DAYS = MIN_EVENT_RETENTION_DAYS
MAXIMUM_DAYS = MAX_EVENT_RETENTION_DAYS
DAY_MS = 24 * HOUR_MS
# A retry that the upstream answered from memory is judged by the calls of the day before it (see
# `rollups.replay_hours`), so an hour is countable only while the events of that day are there, too.
LOOK_BACK_DAYS = 1
DEAD_LETTER_DAYS = 365


def retention_days(*, default_days: int, plan_days: int | None) -> int:
    """Return how long an event is kept: the longer of what the installation and its account's plan say."""
    return min(MAXIMUM_DAYS, max(MINIMUM_DAYS, default_days, plan_days or 0))


def countable_from_ms(now: datetime, *, kept_days: int = MINIMUM_DAYS) -> int:
    """Return the start of the first hour that can be counted from its events.

    `kept_days` is the shortest time that any event of it may have been stored for.
    """
    oldest_ms = to_ms(now - timedelta(days=kept_days - LOOK_BACK_DAYS))
    return -(-oldest_ms // HOUR_MS) * HOUR_MS


def may_have_expired(hour_ms: int, now: datetime, *, kept_days: int = MINIMUM_DAYS) -> bool:
    """Say whether events that decide this hour (or the one of this moment) may be gone.

    Then it must not be recomputed, its figures stand, and events that come for it are not stored.
    """
    return hour_ms < countable_from_ms(now, kept_days=kept_days)
