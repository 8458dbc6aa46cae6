"""What people ask for: events to be acted on once more, an object to be read again.

Acting on an event twice changes nothing that reading its object once would not have: so nothing is refused, and
what nothing was done about is told.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.stripe_sync.events.allowlist import OBJECT_PREFIXES, Kind, kind_of_object
from control_plane.stripe_sync.events.listing import LISTED_FOR, LISTS
from control_plane.stripe_sync.events.model import Source, State
from control_plane.stripe_sync.events.tables import StripeEvent, StripeEventReads
from control_plane.stripe_sync.subscriptions.tables import StripeSubscription

MAX_REPLAYED: Final = 10_000
RESYNC: Final = "resync"
UNKNOWN: Final = "unknown"


class Outcome(StrEnum):
    """What a replay does with an event.

    `queued`: it will be acted on within seconds. `brought_forward`: it waited for its next attempt, which comes
    now. `to_be_read`: we do not have it, so Stripe is asked for it. `not_acted_on`: nothing depends on its type.
    """

    QUEUED = "queued"
    BROUGHT_FORWARD = "brought_forward"
    TO_BE_READ = "to_be_read"
    NOT_ACTED_ON = "not_acted_on"


@dataclass(frozen=True, slots=True)
class Replayed:
    """One event of a replay."""

    id: str
    type: str
    object_id: str | None
    created_at: datetime | None
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Which events: exactly one of ids, an object, or a range of the time at which Stripe made them.

    `until` is not in the range. Of a range and an object, `states` may narrow them down.
    """

    event_ids: tuple[str, ...] = ()
    object_id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    states: tuple[State, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Every event that was asked for, oldest first; the moment from which Stripe's lists are read again, if so."""

    events: tuple[Replayed, ...]
    listed_since: datetime | None


async def replay(
    session: AsyncSession, wanted: Replay, *, dry_run: bool, actor: str, now: datetime
) -> ReplayResult:
    """Have events acted on once more; atomic. With `dry_run` nothing changes and the answer is the same.

    Of a range, Stripe's own lists are read again as well, as far back as Stripe keeps them (30 days): so events of
    which we have never heard are found.

    Raises:
        ValidationFailedError: not exactly one way to choose, more than 10,000 events, or ids of no events.
    """
    _check(wanted)
    rows = (await session.scalars(_chosen(wanted))).all()
    if len(rows) > MAX_REPLAYED:
        raise ValidationFailedError("end", f"the range holds more than {MAX_REPLAYED:,} events; take it in parts")
    known = {row.id for row in rows}
    missing = tuple(dict.fromkeys(one for one in wanted.event_ids if one not in known))
    for one in missing:
        if kind_of_object(one) is not Kind.EVENT:
            raise ValidationFailedError("event_ids", f"{one} is not the id of an event")
    events = [_replayed(row) for row in rows]
    events += [Replayed(one, UNKNOWN, None, None, Outcome.TO_BE_READ) for one in missing]
    listed_since = None
    if wanted.since is not None:
        listed_since = max(wanted.since, now - LISTED_FOR)
        if wanted.until is not None and wanted.until <= listed_since:
            listed_since = None
    if not dry_run:
        await _queue(session, {row.id for row in rows if row.kind is not None}, now=now)
        await _ask_for(session, missing, now=now)
        if listed_since is not None:
            await _read_lists_again(session, listed_since)
        await record_change(
            session,
            actor=actor,
            action="stripe_events.replay",
            entity_type="stripe_events",
            entity_id=wanted.object_id or (wanted.event_ids[0] if wanted.event_ids else "range"),
            before=None,
            after=_as_json(wanted) | {"events": len(events)},
            now=now,
        )
    return ReplayResult(tuple(events), listed_since)


async def resync(session: AsyncSession, *, object_id: str, actor: str, now: datetime) -> str:
    """Have an object read again, whatever events say; returns the id of the row that tells what came of it.

    A subscription may be named by our id as well.

    Raises:
        ValidationFailedError: the id is of no kind that is read.
    """
    named_here = select(StripeSubscription.stripe_id).where(StripeSubscription.subscription_id == object_id)
    object_id = await session.scalar(named_here) or object_id
    kind = kind_of_object(object_id)
    if kind is None or kind is Kind.EVENT:
        known = ", ".join(f"{prefix}…" for prefix, one in OBJECT_PREFIXES.items() if one is not Kind.EVENT)
        raise ValidationFailedError("object_id", f"must be the id of something that is read again: {known}")
    row_id = new_id(RESYNC, now)
    await session.execute(insert(StripeEvent).values(_asked(row_id, kind, object_id, Source.RESYNC, now)))
    await record_change(
        session,
        actor=actor,
        action="stripe_object.resync",
        entity_type="stripe_object",
        entity_id=object_id,
        before=None,
        after={"row": row_id},
        now=now,
    )
    return row_id


def _check(wanted: Replay) -> None:
    ways = [bool(wanted.event_ids), bool(wanted.object_id), wanted.since is not None]
    if sum(ways) != 1:
        raise ValidationFailedError("event_ids", "name events, or an object, or a range of time: one of the three")
    if wanted.until is not None and (wanted.since is None or wanted.until <= wanted.since):
        raise ValidationFailedError("end", "must come after `start`")
    if wanted.states and wanted.event_ids:
        raise ValidationFailedError("states", "goes with an object or a range")


def _chosen(wanted: Replay) -> Select[StripeEvent]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.event_ids:
        conditions.append(is_any_of(StripeEvent.id, wanted.event_ids))
    else:
        conditions.append(StripeEvent.source != Source.RESYNC)
    if wanted.object_id:
        conditions.append(StripeEvent.object_id == wanted.object_id)
    if wanted.since is not None:
        conditions.append(StripeEvent.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(StripeEvent.created_at < wanted.until)
    if wanted.states:
        conditions.append(is_any_of(StripeEvent.state, wanted.states))
    return (
        select(StripeEvent)
        .where(*conditions)
        .order_by(StripeEvent.created_at, StripeEvent.id)
        .limit(MAX_REPLAYED + 1)
    )


def _replayed(row: StripeEvent) -> Replayed:
    outcome = Outcome.QUEUED
    if row.kind is None:
        outcome = Outcome.NOT_ACTED_ON
    elif row.state == State.WAITING:
        outcome = Outcome.BROUGHT_FORWARD
    return Replayed(row.id, row.type, row.object_id, row.created_at, outcome)


async def _queue(session: AsyncSession, event_ids: Collection[str], *, now: datetime) -> None:
    if event_ids:
        await session.execute(
            update(StripeEvent)
            .where(is_any_of(StripeEvent.id, event_ids))
            .values(state=State.WAITING, attempts=0, next_attempt_at=now, reason="", handled_at=None)
            .execution_options(synchronize_session=False)
        )


async def _ask_for(session: AsyncSession, event_ids: Sequence[str], *, now: datetime) -> None:
    """Write rows of events that we have not: Stripe says what they are about."""
    if event_ids:
        rows = [_asked(one, Kind.EVENT, one, Source.REPLAY, now) for one in event_ids]
        await session.execute(insert(StripeEvent).values(rows).on_conflict_do_nothing())


async def _read_lists_again(session: AsyncSession, since: datetime) -> None:
    await session.execute(
        update(StripeEventReads)
        .where(is_any_of(StripeEventReads.name, LISTS))
        .values(read_until=func.least(StripeEventReads.read_until, since), finished_at=None)
        .execution_options(synchronize_session=False)
    )


def _asked(row_id: str, kind: Kind, object_id: str, source: Source, now: datetime) -> dict[str, Any]:
    return {
        "id": row_id,
        "type": RESYNC if source is Source.RESYNC else UNKNOWN,
        "kind": kind,
        "object_id": object_id,
        "created_at": now,
        "source": source,
        "received_at": now,
        "deliveries": 0,
        "state": State.WAITING,
        "reason": "",
        "attempts": 0,
        "next_attempt_at": now,
    }


def _as_json(wanted: Replay) -> dict[str, Any]:
    return {
        "event_ids": list(wanted.event_ids[:100]),
        "object_id": wanted.object_id,
        "since": None if wanted.since is None else wanted.since.isoformat(),
        "until": None if wanted.until is None else wanted.until.isoformat(),
        "states": [str(state) for state in wanted.states],
    }
