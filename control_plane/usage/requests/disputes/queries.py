"""Reading disputes: cases, their trail, their requests and the hours that these are counted in."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of
from control_plane.usage.digests.tables import UsageDigest
from control_plane.usage.requests.disputes.model import DisputeStatus
from control_plane.usage.requests.disputes.tables import Dispute, DisputedRequest, DisputeStep
from control_plane.usage.tables import UsageHour


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputedHour:
    """An hour with requests of the case. `revision` is 0 where nothing is counted of it yet.

    `root` is the Merkle root over the hour's events at its newest digest, '' where none was made yet.
    """

    hour: datetime
    requests: int
    revision: int
    sealed_at: datetime | None
    root: str


async def dispute_by_id(session: AsyncSession, dispute_id: str) -> Dispute:
    """Raises NotFoundError where there is none."""
    dispute = await session.get(Dispute, dispute_id)
    if dispute is None:
        raise NotFoundError("dispute", dispute_id)
    return dispute


async def list_disputes(
    session: AsyncSession,
    *,
    account_id: str | None = None,
    status: DisputeStatus | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Dispute]:
    """Return one page of cases, newest first. `limit` is cut at 200."""
    page_size = max(1, min(limit, MAX_PAGE_SIZE))
    statement = select(Dispute).order_by(Dispute.opened_at.desc(), Dispute.id.desc()).limit(page_size + 1)
    for column, value in ((Dispute.account_id, account_id), (Dispute.status, status)):
        if value is not None:
            statement = statement.where(column == value)
    if cursor:
        statement = statement.where(tuple_(Dispute.opened_at, Dispute.id) < decode_cursor(cursor, datetime, str))
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=page_size, sort_values=lambda row: (row.opened_at, row.id))


async def dispute_steps(
    session: AsyncSession, *, dispute_id: str, cursor: str | None = None, limit: int = 50
) -> Page[DisputeStep]:
    """Return one page of a trail, oldest first. `limit` is cut at 200."""
    page_size = max(1, min(limit, MAX_PAGE_SIZE))
    (after,) = decode_cursor(cursor, int) if cursor else (0,)
    rows = (
        await session.scalars(
            select(DisputeStep)
            .where(DisputeStep.dispute_id == dispute_id, DisputeStep.number > after)
            .order_by(DisputeStep.number)
            .limit(page_size + 1)
        )
    ).all()
    return page_of(rows, limit=page_size, sort_values=lambda row: (row.number,))


async def whole_trail(session: AsyncSession, dispute_id: str) -> Sequence[DisputeStep]:
    """Return every entry, oldest first."""
    statement = select(DisputeStep).where(DisputeStep.dispute_id == dispute_id).order_by(DisputeStep.number)
    return (await session.scalars(statement)).all()


async def disputed_requests(
    session: AsyncSession, *, dispute_id: str, cursor: str | None = None, limit: int = 50
) -> Page[DisputedRequest]:
    """Return one page of a case's requests, oldest first. `limit` is cut at 200."""
    page_size = max(1, min(limit, MAX_PAGE_SIZE))
    statement = _requests(dispute_id).limit(page_size + 1)
    if cursor:
        after = decode_cursor(cursor, datetime, str)
        statement = statement.where(tuple_(DisputedRequest.occurred_at, DisputedRequest.event_id) > after)
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=page_size, sort_values=lambda row: (row.occurred_at, row.event_id))


async def all_disputed_requests(session: AsyncSession, dispute_id: str) -> Sequence[DisputedRequest]:
    """Return all requests of a case (at most 10,000), oldest first."""
    return (await session.scalars(_requests(dispute_id))).all()


async def disputed_hours(session: AsyncSession, dispute: Dispute) -> list[DisputedHour]:
    """Return the hours that the case's requests are in, in order."""
    hour = func.date_trunc("hour", DisputedRequest.occurred_at, "UTC").label("hour")
    requests = (
        select(hour, func.count().label("requests"))
        .where(DisputedRequest.dispute_id == dispute.id)
        .group_by(hour)
        .subquery()
    )
    newest = (
        select(UsageDigest.root)
        .where(UsageDigest.account_id == dispute.account_id, UsageDigest.hour == requests.c.hour)
        .order_by(UsageDigest.revision.desc())
        .limit(1)
        .scalar_subquery()
    )
    rows = await session.execute(
        select(requests.c.hour, requests.c.requests, UsageHour.revision, UsageHour.sealed_at, newest.label("root"))
        .outerjoin(UsageHour, (UsageHour.account_id == dispute.account_id) & (UsageHour.hour == requests.c.hour))
        .order_by(requests.c.hour)
    )
    return [
        DisputedHour(
            hour=row.hour,
            requests=row.requests,
            revision=row.revision or 0,
            sealed_at=row.sealed_at,
            root=row.root or "",
        )
        for row in rows
    ]


def _requests(dispute_id: str) -> Select[DisputedRequest]:
    return (
        select(DisputedRequest)
        .where(DisputedRequest.dispute_id == dispute_id)
        .order_by(DisputedRequest.occurred_at, DisputedRequest.event_id)
    )
