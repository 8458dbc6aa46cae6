"""Reading export jobs."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of
from control_plane.usage.requests.exports.model import ExportKind, ExportStatus, ExportWish
from control_plane.usage.requests.exports.tables import ExportJob
from control_plane.usage.requests.model import EventFilters, EventSpan
from control_plane.usage.store.event_reads import FileFormat


async def export_job(session: AsyncSession, export_id: str) -> ExportJob:
    """Raises NotFoundError where there is none."""
    job = await session.get(ExportJob, export_id)
    if job is None:
        raise NotFoundError("export", export_id)
    return job


async def list_exports(
    session: AsyncSession,
    *,
    account_id: str | None = None,
    kinds: Collection[ExportKind] = tuple(ExportKind),
    status: ExportStatus | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[ExportJob]:
    """Return one page of jobs, newest first. `limit` is cut at 200."""
    page_size = max(1, min(limit, MAX_PAGE_SIZE))
    statement = (
        select(ExportJob)
        .where(is_any_of(ExportJob.kind, kinds))
        .order_by(ExportJob.requested_at.desc(), ExportJob.id.desc())
        .limit(page_size + 1)
    )
    for column, value in ((ExportJob.account_id, account_id), (ExportJob.status, status)):
        if value is not None:
            statement = statement.where(column == value)
    if cursor:
        before = decode_cursor(cursor, datetime, str)
        statement = statement.where(tuple_(ExportJob.requested_at, ExportJob.id) < before)
    rows = (await session.scalars(statement)).all()
    return page_of(rows, limit=page_size, sort_values=lambda row: (row.requested_at, row.id))


def wish_of(job: ExportJob) -> ExportWish:
    """Return what a job is to export."""
    return ExportWish(
        kind=ExportKind(job.kind),
        file_format=FileFormat(job.file_format),
        span=EventSpan(account_id=job.account_id, start=job.start_at, end=job.end_at),
        filters=EventFilters.from_dict(job.filters),
    )


def file_name(job: ExportJob) -> str:
    """Return the name of the file that the job's attempt writes."""
    return f"{job.id}.{job.attempt}.{job.file_format}"
