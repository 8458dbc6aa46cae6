"""Raw request history, from the event store: support and disputes."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from control_plane.foundation.clock import to_ms
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of
from control_plane.usage.model import LATEST_MS, MAX_STATUS
from control_plane.usage.store import EventStore
from gateway_contract.usage_events import UsageEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilters:
    """Which events are wanted; '' is any. Statuses are inclusive: 500 to 599 are the failures."""

    mode: str = ""
    product: str = ""
    key_id: str = ""
    endpoint: str = ""
    outcome: str = ""
    request_id: str = ""
    lowest_status: int = 0
    highest_status: int = MAX_STATUS


NO_FILTERS = EventFilters()


async def event_search(
    store: EventStore,
    *,
    account_id: str,
    start: datetime,
    end: datetime,
    filters: EventFilters = NO_FILTERS,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[UsageEvent]:
    """Return one page of an account's events in [start, end), newest first, each once.

    Account '' holds the calls of nobody. `limit` is cut at 200.

    Raises:
        ValidationFailedError: the cursor is not one that a page has given out.
    """
    page_size = max(1, min(limit, MAX_PAGE_SIZE))
    before_ms, before_id = decode_cursor(cursor, int, str) if cursor else (LATEST_MS, "")
    parameters = {
        "account_id": account_id,
        "start_ms": to_ms(start),
        "end_ms": to_ms(end),
        "before_ms": before_ms,
        "before_id": before_id,
        "page_size": page_size + 1,
        "mode": filters.mode,
        "product": filters.product,
        "key_id": filters.key_id,
        "endpoint": filters.endpoint,
        "outcome": filters.outcome,
        "request_id": filters.request_id,
        "lowest_status": filters.lowest_status,
        "highest_status": filters.highest_status,
    }
    events = await asyncio.to_thread(store.search, parameters)
    return page_of(events, limit=page_size, sort_values=lambda event: (event.occurred_at_ms, event.event_id))
