"""The page of subscriptions that are not paid: what holds for each, and what comes next."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from control_plane.accounts.tables import Account
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import PageQuery
from control_plane.admin_api.pages.access import Reader
from control_plane.admin_api.pages.rendering import render
from control_plane.admin_api.services import Given, Now
from control_plane.dunning import queries
from control_plane.dunning.notices import case_notice
from control_plane.subscriptions.tables import Subscription

router = APIRouter(include_in_schema=False)
ROWS = 50
STATES = {"grace": "Served", "blocked": "Refused", "fallen_back": "On a free plan's limits"}


@router.get("/admin/unpaid")
async def unpaid_page(
    _reader: Reader, session: Database, services: Given, now: Now, query: Annotated[PageQuery, Query()]
) -> HTMLResponse:
    """Show the open cases, newest first."""
    page = await queries.case_page(session, is_open=True, limit=ROWS, cursor=query.cursor)
    rows = []
    for case in page.items:
        subscription = await session.get_one(Subscription, case.subscription_id)
        rows.append(
            {
                "case": case,
                "account": (await session.get_one(Account, case.account_id)).name,
                "notice": await case_notice(session, case, subscription, now=now),
            }
        )
    return render(
        "unpaid.html",
        rows=rows,
        counts=await queries.open_by_state(session),
        states=STATES,
        sending=services.mail.smtp is not None,
        first="?" if query.cursor else None,
        more=f"?{urlencode({'cursor': page.next_cursor})}" if page.next_cursor else None,
    )
