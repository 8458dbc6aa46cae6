"""The page that says whether every admitted call is in usage."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import Field

from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import PageQuery
from control_plane.admin_api.history import HistoryBusyError, HistoryUnavailableError
from control_plane.admin_api.pages.access import Reader
from control_plane.admin_api.pages.rendering import render
from control_plane.admin_api.resources.completeness import AccountIdField, StateFilter
from control_plane.admin_api.services import Given, Now
from control_plane.foundation.clock import floor_hour, from_ms
from control_plane.usage.completeness import queries
from control_plane.usage.completeness.model import State
from control_plane.usage.dead_letters.model import LetterState
from control_plane.usage.dead_letters.queries import list_letters

router = APIRouter(include_in_schema=False)

HOUR = timedelta(hours=1)
GRID_HOURS = 24
GRID_ACCOUNTS = 20
ROWS = 25
MOST_DIFFERENCES = 20
MOST_RANGES = 20
MOST_LETTERS = 100


class CompletenessPageQuery(PageQuery):
    """What the page shows. '' is what an empty field of the form sends."""

    account_id: AccountIdField | Literal[""] = ""
    state: StateFilter | Literal[""] = ""
    days: Annotated[int, Field(ge=1, le=400)] = 7
    limit: int = ROWS


@router.get("/admin/completeness")
async def completeness_page(
    _reader: Reader, session: Database, services: Given, now: Now, query: Annotated[CompletenessPageQuery, Query()]
) -> HTMLResponse:
    """Show whether every admitted call is in usage."""
    end = floor_hour(now) + HOUR
    start = end - timedelta(days=query.days)
    account_id = query.account_id or None
    states = query.state.states if isinstance(query.state, StateFilter) else ()
    page = await queries.counted_hours(
        session,
        start=start,
        end=end,
        account_id=account_id,
        states=states,
        cursor=query.cursor,
        limit=ROWS,
    )
    hours = [end - (number + 1) * HOUR for number in reversed(range(GRID_HOURS))]
    return render(
        "completeness.html",
        now=now,
        days=query.days,
        account_id=query.account_id,
        state=str(query.state),
        states=list(StateFilter),
        overview=await queries.overview(session, start=start, end=end, account_id=account_id),
        grid=await queries.state_grid(
            session, start=hours[0], end=end, account_id=account_id, accounts=GRID_ACCOUNTS
        ),
        hours=hours,
        dead_letters=await _open_dead_letters(session, services),
        rows=[_row(row) for row in page.items],
        missing=await _missing(session, start=start, end=end, account_id=account_id),
        differing=await queries.differing_hours(
            session, start=start, end=end, account_id=account_id, limit=MOST_DIFFERENCES
        ),
        older=_link(query, cursor=page.next_cursor) if page.next_cursor else None,
        newest=_link(query) if query.cursor else None,
    )


async def _open_dead_letters(session: Database, services: Given) -> str | None:
    """Return how many there are, in words; None while the event store is away, or busy with searches."""
    try:
        async with services.history.store() as store:
            page = await list_letters(session, store, state=LetterState.OPEN, limit=MOST_LETTERS)
    except (HistoryUnavailableError, HistoryBusyError):
        return None
    return f"{len(page.items):,}{'+' if page.next_cursor else ''}"


async def _missing(
    session: Database, *, start: datetime, end: datetime, account_id: str | None
) -> list[dict[str, Any]]:
    page = await queries.counted_hours(
        session, start=start, end=end, account_id=account_id, states=(State.MISSING,), limit=MOST_RANGES
    )
    found = [
        {
            "row": row,
            "first": part["first"],
            "last": part["last"],
            "after": None if part["after_ms"] is None else from_ms(part["after_ms"]),
            "before": None if part["before_ms"] is None else from_ms(part["before_ms"]),
            "nodes": part["nodes"],
        }
        for row in page.items
        for part in row.counted.missing
    ]
    return found[:MOST_RANGES]


def _row(row: queries.CounterRow) -> dict[str, Any]:
    return {
        "counted": row.counted,
        "account_name": row.account_name or row.counted.account_id,
        "check": row.check,
    }


def _link(query: CompletenessPageQuery, *, cursor: str | None = None) -> str:
    values = {"account_id": query.account_id, "state": str(query.state), "days": query.days, "cursor": cursor}
    return "?" + urlencode({name: value for name, value in values.items() if value})
