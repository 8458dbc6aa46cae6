"""Stripe's own list of events, read every night: finds what no webhook brought.

A list is read in windows of days from where the last reading ended; each window's events and the new end are
stored in one transaction, so a reading that is cut off goes on where it was. Stripe lists 30 days.
"""

from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.sole_worker import sole_worker
from control_plane.stripe_sync.client import Stripe
from control_plane.stripe_sync.events import metrics
from control_plane.stripe_sync.events.allowlist import SNAPSHOT_TYPES, THIN_TYPES
from control_plane.stripe_sync.events.inbox import store_found
from control_plane.stripe_sync.events.model import Told, WrongEventError, told_of
from control_plane.stripe_sync.events.tables import StripeEventReads
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.outcomes import StripeRefused, StripeUnavailable

if TYPE_CHECKING:
    from stripe import Event, ListObject, StripeClient
    from stripe.params import EventListParams
    from stripe.params.v2.core import EventListParams as ThinListParams
    from stripe.v2 import ListObject as ThinListObject
    from stripe.v2.core import Event as ThinEvent

LISTED_FOR: Final = timedelta(days=29, hours=23)
WINDOW: Final = timedelta(days=5)
OVERLAP: Final = timedelta(hours=1)
TYPES_AT_ONCE: Final = 20
PAGE: Final = 100
LOCK: Final = 7_305_218_041

log = structlog.stdlib.get_logger(__name__)

E = TypeVar("E")
Read = Callable[[Stripe, datetime, datetime], AsyncIterator[Told]]


@dataclass(frozen=True, slots=True)
class ListRead:
    """What reading a list came to; `found` are the ids of events that were new to us."""

    name: str
    since: datetime
    until: datetime
    found: tuple[str, ...]


async def read_lists(
    context: StripeContext, *, lag: timedelta, names: Collection[str] = ("snapshot", "thin")
) -> list[ListRead]:
    """Read lists up to `lag` before the context's moment: younger events may still be on their way to us.

    Only one process does so at a time; the others return nothing at once. A list that cannot be read keeps no
    other from being read; then the first error of Stripe's is raised. What was read until then is kept.
    """
    errors: list[StripeRefused | StripeUnavailable] = []
    read = []
    async with sole_worker(context.sessions, LOCK) as mine:
        for name in names if mine else ():
            try:
                read.append(await _read_list(context, name, LISTS[name], context.now - lag))
            except (StripeRefused, StripeUnavailable) as error:
                errors.append(error)
    if errors:
        raise errors[0]
    return read


async def _read_list(context: StripeContext, name: str, read: Read, until: datetime) -> ListRead:
    async with context.sessions() as session:
        before = await session.scalar(_read_until(name))
    oldest = context.now - LISTED_FOR
    since = start = max(oldest, before - OVERLAP) if before else oldest
    found: list[str] = []
    known = before
    while start < until:
        end = min(start + WINDOW, until)
        told = [one async for one in read(context.stripe, start, end)]
        async with context.sessions() as session, session.begin():
            new = await store_found(session, told, now=context.now)
            if await session.scalar(_read_until(name).with_for_update()) != known:
                # somebody has asked for an earlier beginning meanwhile: that is the next reading's
                return ListRead(name, since, start, (*found, *sorted(new)))
            await _note(session, name, read_until=end, finished_at=context.now if end == until else None)
        found += sorted(new)
        start = known = end
    metrics.FOUND.inc(len(found))
    if found:
        await log.awarning("stripe_events_found", list=name, events=len(found), first=found[:10])
    return ListRead(name, since, until, tuple(found))


def _read_until(name: str) -> Select[datetime]:
    return select(StripeEventReads.read_until).where(StripeEventReads.name == name)


async def _note(session: AsyncSession, name: str, *, read_until: datetime, finished_at: datetime | None) -> None:
    made = {"name": name, "read_until": read_until, "finished_at": finished_at}
    statement = insert(StripeEventReads).values(made)
    excluded = statement.excluded
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=[StripeEventReads.name],
            set_={
                "read_until": excluded.read_until,
                "finished_at": func.coalesce(excluded.finished_at, StripeEventReads.finished_at),
            },
        )
    )


async def _snapshots(stripe: Stripe, since: datetime, until: datetime) -> AsyncIterator[Told]:
    for first in range(0, len(SNAPSHOT_TYPES), TYPES_AT_ONCE):
        params: EventListParams = {
            "created": {"gte": int(since.timestamp()), "lt": int(until.timestamp())},
            "types": list(SNAPSHOT_TYPES[first : first + TYPES_AT_ONCE]),
            "limit": PAGE,
        }
        async for event in stripe.every(partial(_list_snapshots, params)):
            told = _readable(told_snapshot, event)
            if told is not None:
                yield told


async def _thin(stripe: Stripe, since: datetime, until: datetime) -> AsyncIterator[Told]:
    params: ThinListParams = {
        "created": {"gte": _rfc3339(since), "lt": _rfc3339(until)},
        "types": list(THIN_TYPES),
        "limit": PAGE,
    }
    async for event in stripe.every(partial(_list_thin, params)):
        told = _readable(told_thin, event)
        if told is not None:
            yield told


async def _list_snapshots(params: "EventListParams", client: "StripeClient") -> "ListObject[Event]":
    return await client.v1.events.list_async(params)


async def _list_thin(params: "ThinListParams", client: "StripeClient") -> "ThinListObject[ThinEvent]":
    return await client.v2.core.events.list_async(params)


def _readable(told_by: Callable[[E], Told], event: E) -> Told | None:
    try:
        return told_by(event)
    except WrongEventError as error:
        # it would be as wrong tomorrow, and must not keep the rest of the list from being read
        metrics.FAILURES.labels("listing").inc()
        log.warning("a listed event cannot be read", problem=str(error))
        return None


def told_snapshot(event: "Event") -> Told:
    """Return what we keep of an event that was read at Stripe. Raises WrongEventError."""
    thing = {"id": event.data.object["id"]} if "id" in event.data.object else {}
    return told_of({**_common(event), "object": "event", "data": {"object": thing}})


def told_thin(event: "ThinEvent") -> Told:
    """Return what we keep of a thin event that was read at Stripe. Raises WrongEventError."""
    related = getattr(event, "related_object", None)
    thing = None if related is None else {"id": related.id}
    return told_of({**_common(event), "object": "v2.core.event", "related_object": thing})


def _common(event: "Event | ThinEvent") -> dict[str, Any]:
    return {"id": event.id, "type": event.type, "created": event.created}


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


LISTS: Final[dict[str, Read]] = {"snapshot": _snapshots, "thin": _thin}
