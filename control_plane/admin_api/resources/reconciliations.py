"""Comparing what every store holds of the same usage and money."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from control_plane.accounts.model import Role
from control_plane.accounts.queries import account
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Moment, PageAnswer, PageQuery, StrictBody, page_answer
from control_plane.admin_api.resources.completeness import AccountIdField
from control_plane.admin_api.services import Now
from control_plane.reconciliation import queries
from control_plane.reconciliation.model import SENTENCES, Link, LinkState, Severity
from control_plane.reconciliation.operations import start_reconciliation
from control_plane.reconciliation.tables import FoundDifference, Reconciliation

router = APIRouter(prefix="/reconciliations", tags=["reconciliation"])
ReconciliationId = Annotated[
    str, Path(pattern=r"^rcn_[0-9a-hjkmnp-tv-z]{26}$", description="The reconciliation's id.")
]


class StartReconciliation(StrictBody):
    """What to compare: [start, end) in full hours, the last 35 days by default."""

    account_id: Annotated[AccountIdField | None, Field(description="Only one account.")] = None
    start: Moment | None = None
    end: Moment | None = None
    with_stripe: Annotated[
        bool, Field(strict=True, description="Ask Stripe for what it has added up; costs requests.")
    ] = True


class LinkAnswer(BaseModel):
    """Two neighbours on the way from a call to an invoice."""

    link: Link
    compared: str = Field(description="The two, in words.")
    state: LinkState
    checked: int = Field(description="How many figures were compared.")
    checked_what: str
    expected: int | None = Field(description="The sum that should be there; null where units differ.")
    found: int | None
    wrong: int = Field(description="Differences that somebody must look at.")
    waiting: int = Field(description="Differences that are known to be on their way.")
    note: str


class ReconciliationAnswer(BaseModel):
    """A comparison, and what came out of it."""

    id: str
    account_id: str | None
    start: Moment
    end: Moment
    with_stripe: bool
    status: str = Field(description="`queued`, `done` or `failed`.")
    state: str = Field(
        description="The worst link: `equal`, `waiting`, `differs`, `not_checked`; empty until done."
    )
    links: list[LinkAnswer]
    error: str
    created_by: str
    created_at: Moment
    finished_at: Moment | None


class DifferenceAnswer(BaseModel):
    """One figure that two neighbours hold differently."""

    number: int
    link: Link
    severity: Severity
    account_id: str
    subscription_id: str | None
    meter: str | None
    start: Moment
    end: Moment
    unit: str = Field(description="`calls`, `units`, `hours`, or the currency whose minor units the figures are.")
    expected: int
    found: int
    cause: str
    detail: str


class DifferencesQuery(PageQuery):
    """Which differences."""

    account_id: Annotated[AccountIdField | None, Field(description="Only one account.")] = None
    link: Annotated[Link | None, Field(description="Only one link.")] = None


@router.post("", status_code=201)
@allows(Role.FINANCE, Role.SUPPORT)
async def create_reconciliation(
    form: StartReconciliation, session: Database, caller: Authenticated, now: Now
) -> ReconciliationAnswer:
    """Have everything compared; it takes seconds to minutes."""
    if form.account_id is not None:
        await account(session, form.account_id)
    row = await start_reconciliation(
        session,
        account_id=form.account_id,
        start=form.start,
        end=form.end,
        with_stripe=form.with_stripe,
        actor=caller.actor,
        now=now,
    )
    return _answer(row)


@router.get("")
async def list_reconciliations(
    session: Database, query: Annotated[PageQuery, Query()]
) -> PageAnswer[ReconciliationAnswer]:
    """List reconciliations, newest first."""
    return page_answer(await queries.reconciliations(session, cursor=query.cursor, limit=query.limit), _answer)


@router.get("/{reconciliation_id}")
async def get_reconciliation(reconciliation_id: ReconciliationId, session: Database) -> ReconciliationAnswer:
    """Return a reconciliation, link by link."""
    return _answer(await queries.reconciliation(session, reconciliation_id))


@router.get("/{reconciliation_id}/differences")
async def list_differences(
    reconciliation_id: ReconciliationId, session: Database, query: Annotated[DifferencesQuery, Query()]
) -> PageAnswer[DifferenceAnswer]:
    """List what differs, the wrong ones first. At most 10,000 are kept of one reconciliation."""
    page = await queries.differences(
        session,
        reconciliation_id,
        account_id=query.account_id,
        link=query.link.value if query.link else None,
        cursor=query.cursor,
        limit=query.limit,
    )
    return page_answer(page, _difference)


def _answer(row: Reconciliation) -> ReconciliationAnswer:
    return ReconciliationAnswer(
        id=row.id,
        account_id=row.account_id,
        start=row.span_start,
        end=row.span_end,
        with_stripe=row.with_stripe,
        status=row.status or "queued",
        state=row.state or "",
        links=[LinkAnswer(compared=SENTENCES[Link(link["link"])], **link) for link in row.links or ()],
        error=row.error or "",
        created_by=row.created_by,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def _difference(row: FoundDifference) -> DifferenceAnswer:
    return DifferenceAnswer(
        number=row.number,
        link=Link(row.link),
        severity=Severity(row.severity),
        account_id=row.account_id,
        subscription_id=row.subscription_id,
        meter=row.meter,
        start=row.starts_at,
        end=row.ends_at,
        unit=row.unit,
        expected=row.expected,
        found=row.found,
        cause=row.cause,
        detail=row.detail,
    )
