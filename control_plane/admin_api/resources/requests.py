"""Requests one by one: search over all accounts or one, and what is known of a single one."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from control_plane.accounts.queries import account
from control_plane.admin_api.access import reader_of_requests
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import AccountId, PageAnswer, page_answer
from control_plane.admin_api.request_forms import (
    HOUR,
    AccountIdText,
    EventAnswer,
    EventId,
    EventsQuery,
    Order,
    RequestAnswer,
    RequestsQuery,
    event_answer,
    request_answer,
)
from control_plane.admin_api.resources.usage import MAX_SPAN
from control_plane.admin_api.services import Given, Now
from control_plane.foundation.errors import NotFoundError
from control_plane.usage.requests.detail import request_detail
from control_plane.usage.requests.history import event_search, find_events
from control_plane.usage.requests.model import EventFilters, EventSpan
from gateway_contract.usage_events import UsageEvent

router = APIRouter(tags=["requests"], dependencies=[Depends(reader_of_requests)])


@router.get("/requests")
async def search_requests(
    services: Given, now: Now, query: Annotated[RequestsQuery, Query()]
) -> PageAnswer[EventAnswer]:
    """Search the request history of all accounts or one.

    With a request id or an event id alone, everything that is kept is searched.
    """
    return await _events(services, query, now, account_id=query.owner())


@router.get("/requests/{event_id}")
async def get_request(
    event_id: EventId,
    session: Database,
    services: Given,
    now: Now,
    account_id: Annotated[
        AccountIdText | None, Query(description="Only of this account; finds event ids much faster.")
    ] = None,
) -> RequestAnswer:
    """Return everything known of one request: is it billed and why, its hour, its row of the rollup."""
    event = await _find(services, event_id, account_id, now)
    return request_answer(await request_detail(session, event))


@router.get("/accounts/{account_id}/events")
async def search_events(
    account_id: AccountId,
    session: Database,
    services: Given,
    now: Now,
    query: Annotated[EventsQuery, Query()],
) -> PageAnswer[EventAnswer]:
    """Search an account's request history, each call once."""
    await account(session, account_id)
    return await _events(services, query, now, account_id=account_id)


@router.get("/unattributed-events")
async def search_unattributed_events(
    services: Given, now: Now, query: Annotated[EventsQuery, Query()]
) -> PageAnswer[EventAnswer]:
    """Search the calls of nobody: without a key, with a mistyped or unknown one, or not seen by our plugins."""
    return await _events(services, query, now, account_id="")


async def _events(
    services: Given, query: EventsQuery, now: datetime, *, account_id: str | None
) -> PageAnswer[EventAnswer]:
    start, end = query.span(now)
    filters = query.filters()
    async with services.history.store() as store:
        page = await event_search(
            store,
            account_id=account_id,
            start=start,
            end=end,
            filters=filters,
            newest_first=query.order is Order.NEWEST,
            cursor=query.cursor,
            limit=query.limit,
        )
    return page_answer(page, event_answer)


async def _find(services: Given, event_id: str, account_id: str | None, now: datetime) -> UsageEvent:
    span = EventSpan(account_id=account_id, start=now + HOUR - MAX_SPAN, end=now + HOUR)
    async with services.history.store() as store:
        for filters in (EventFilters(request_id=event_id), EventFilters(event_id=event_id)):
            found = await find_events(store, span, filters, limit=1)
            if found:
                return found[0]
    raise NotFoundError("request", event_id)
