"""The page that says whether gateway, events, rollups, ledger, Stripe and invoices hold the same."""

from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from pydantic import StringConstraints
from sqlalchemy import select

from control_plane.accounts.tables import Account
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import PageQuery
from control_plane.admin_api.pages.access import Reader
from control_plane.admin_api.pages.rendering import render
from control_plane.foundation.db import is_any_of
from control_plane.foundation.money import Money
from control_plane.reconciliation import queries
from control_plane.reconciliation.model import SENTENCES

router = APIRouter(include_in_schema=False)

ROWS = 50
RUNS = 10


class ReconciliationPageQuery(PageQuery):
    """Which reconciliation; the last one of all accounts by default. '' is what an empty field sends."""

    id: Annotated[str, StringConstraints(pattern=r"^rcn_[0-9a-hjkmnp-tv-z]{26}$")] | Literal[""] = ""


@router.get("/admin/reconciliation")
async def reconciliation_page(
    _reader: Reader, session: Database, query: Annotated[ReconciliationPageQuery, Query()]
) -> HTMLResponse:
    """Show a reconciliation: each link of the way, what differs, and why."""
    run = await queries.reconciliation(session, query.id) if query.id else await queries.last_of_all(session)
    page = await queries.differences(session, run.id, cursor=query.cursor, limit=ROWS) if run else None
    runs = (await queries.reconciliations(session, cursor=None, limit=RUNS)).items
    rows = page.items if page else []
    ids = {row.account_id for row in rows} | {one.account_id for one in runs if one.account_id}
    names = await session.execute(select(Account.id, Account.name).where(is_any_of(Account.id, ids)))
    return render(
        "reconciliation.html",
        run=run,
        wrong=sum(link["wrong"] for link in run.links) if run else 0,
        rows=rows,
        runs=runs,
        names={row.id: row.name for row in names},
        sentences={link.value: words for link, words in SENTENCES.items()},
        figure=figure,
        first=f"?{urlencode({'id': run.id})}" if run and query.cursor else None,
        more=f"?{urlencode({'id': run.id, 'cursor': page.next_cursor})}"
        if run and page and page.next_cursor
        else None,
    )


def figure(value: int, unit: str) -> str:
    """Return a figure of a difference in words: an amount of money, or a number of calls or units."""
    return str(Money(value, unit)) if unit.isupper() else f"{value:,}"
