"""Raw request history, from the event store: support and disputes."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from control_plane.foundation.clock import MILLISECOND, from_ms
from control_plane.foundation.errors import KmError, ValidationFailedError
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of
from control_plane.usage.model import LATEST_MS
from control_plane.usage.requests.model import NO_FILTERS, EventFilters, EventSpan
from control_plane.usage.store import EventStore
from control_plane.usage.store.event_reads import Place, QueryTooLargeError, search_events
from gateway_contract.usage_events import UsageEvent

FIRST_STRETCH = timedelta(hours=1)
GROWTH = 4


class SearchTooBroadError(KmError):
    """The search took more time or memory than one may."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            "search_too_broad",
            "The search was given up, it takes too long: name an account, a request id or a shorter span.",
            detail=detail,
        )


async def event_search(
    store: EventStore,
    *,
    account_id: str | None,
    start: datetime,
    end: datetime,
    filters: EventFilters = NO_FILTERS,
    newest_first: bool = True,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[UsageEvent]:
    """Return one page of events in [start, end), newest or oldest first, each once.

    Account None is every account, '' holds the calls of nobody. `limit` is cut at 200. Events that arrive between
    two pages are on the later one if they belong there, and change nothing else.

    Raises:
        ValidationFailedError: the cursor is not one that a page has given out.
        SearchTooBroadError: the store gave up.
    """
    page_size = max(1, min(limit, MAX_PAGE_SIZE))
    span = EventSpan(account_id=account_id, start=start, end=end)
    after = _read_cursor(cursor) if cursor else None
    events = await find_events(store, span, filters, newest_first=newest_first, after=after, limit=page_size + 1)
    return page_of(
        events,
        limit=page_size,
        sort_values=lambda event: (event.occurred_at_ms, event.event_id, event.account_id),
    )


async def find_events(
    store: EventStore,
    span: EventSpan,
    filters: EventFilters,
    *,
    newest_first: bool = True,
    after: Place | None = None,
    limit: int,
) -> list[UsageEvent]:
    """Return up to `limit` events of a span.

    Looks through ever longer stretches of it, so that the newest calls of a busy account do not cost reading all.

    Raises:
        SearchTooBroadError: the store gave up.
    """

    def search() -> list[UsageEvent]:
        found: list[UsageEvent] = []
        rest = _rest(span, after, newest_first=newest_first)
        whole = bool(filters.request_id or filters.request_ids)  # the index finds these wherever they are
        for stretch in [span] if whole else stretches(rest, newest_first=newest_first):
            left = limit - len(found)
            found += search_events(store, stretch, filters, newest_first=newest_first, after=after, limit=left)
            if len(found) == limit:
                break
        return found

    try:
        return await asyncio.to_thread(search)
    except QueryTooLargeError as error:
        raise SearchTooBroadError(str(error)) from error


def stretches(span: EventSpan, *, newest_first: bool) -> Iterator[EventSpan]:
    """Yield the parts of a span in the order in which they are read: an hour, then each four times longer."""
    length = FIRST_STRETCH
    start, end = span.start, span.end
    while start < end:
        if newest_first:
            middle = max(start, end - length)
            yield replace(span, start=middle, end=end)
            end = middle
        else:
            middle = min(end, start + length)
            yield replace(span, start=start, end=middle)
            start = middle
        length *= GROWTH


def _read_cursor(cursor: str) -> Place:
    at_ms, event_id, account_id = decode_cursor(cursor, int, str, str)
    if not (
        isinstance(at_ms, int) and isinstance(event_id, str) and isinstance(account_id, str) and at_ms < LATEST_MS
    ):
        raise ValidationFailedError("cursor", "is not a cursor that this list has given out")
    return Place(at_ms, event_id, account_id)


def _rest(span: EventSpan, after: Place | None, *, newest_first: bool) -> EventSpan:
    """Return what is left of a span behind a place in it."""
    if after is None:
        return span
    at = from_ms(after.occurred_at_ms)
    if newest_first:
        return replace(span, end=min(span.end, at + MILLISECOND))
    return replace(span, start=max(span.start, at))
