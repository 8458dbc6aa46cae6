"""What people do with exports: ask for one, call it off, fetch its file. Nothing here commits."""

from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.usage.daily.rows import check_hours_are_kept
from control_plane.usage.requests.exports.model import (
    UNFINISHED,
    ExportConfig,
    ExportKind,
    ExportStatus,
    ExportStatusError,
    ExportWish,
    TooManyExportsError,
    check_step,
)
from control_plane.usage.requests.exports.queries import export_job, file_name
from control_plane.usage.requests.exports.tables import ExportJob

# any number, the same for ever: whoever asks for an export counts the others first
_LOCK = text("SELECT pg_advisory_xact_lock(4242012)")


class ExportFileMissingError(ConflictError):
    """The file is not where this process looks for it."""

    def __init__(self) -> None:
        super().__init__(
            "export_file_missing",
            "The file is not on this server: KM_EXPORT_DIR must be one directory for all servers.",
        )


async def request_export(
    session: AsyncSession, *, wish: ExportWish, config: ExportConfig, actor: str, now: datetime
) -> ExportJob:
    """Put an export in the queue.

    Raises:
        ValidationFailedError: the span is empty, or rollups are asked for of days that are kept whole only.
        TooManyExportsError: as many wait or run as may.
    """
    if wish.span.start >= wish.span.end:
        raise ValidationFailedError("end", "must be after start")
    if wish.kind is ExportKind.ROLLUPS:
        await check_hours_are_kept(session, start=wish.span.start, end=wish.span.end, by_hour=True)
    await _check_room(session, config, actor)
    job = ExportJob(
        id=new_id("exp", now),
        kind=wish.kind.value,
        file_format=wish.file_format.value,
        account_id=wish.span.account_id,
        start_at=wish.span.start,
        end_at=wish.span.end,
        filters=wish.filters.as_dict(),
        status=ExportStatus.QUEUED.value,
        requested_by=actor,
        requested_at=now,
        attempt=0,
        done_rows=0,
        size_bytes=0,
        sha256="",
        error="",
    )
    session.add(job)
    await _record(session, job, "export.requested", before=None, after=_facts(job), actor=actor, now=now)
    return job


async def cancel_export(session: AsyncSession, *, export_id: str, actor: str, now: datetime) -> ExportJob:
    """Call off a job that waits or runs; whoever writes it stops at its next piece. Repeatable.

    Raises:
        NotFoundError: there is none.
        ExportStatusError: it is over.
    """
    job = await session.scalar(select(ExportJob).where(ExportJob.id == export_id).with_for_update())
    if job is None:
        raise NotFoundError("export", export_id)
    if job.status == ExportStatus.CANCELLED:
        return job
    check_step(job.status, ExportStatus.CANCELLED, wish="cancelled")
    before = {"status": job.status}
    job.status, job.lease_until, job.finished_at = ExportStatus.CANCELLED.value, None, now
    await _record(
        session, job, "export.cancelled", before=before, after={"status": job.status}, actor=actor, now=now
    )
    return job


async def take_file(
    session: AsyncSession, *, export_id: str, config: ExportConfig, actor: str, now: datetime
) -> tuple[ExportJob, Path]:
    """Return a finished export and its file, and note who fetched it.

    Raises:
        NotFoundError: there is no such export.
        ExportStatusError: it has no file yet, or none any more.
        ExportFileMissingError: the file is on another server.
    """
    job = await export_job(session, export_id)
    if job.status != ExportStatus.DONE:
        raise ExportStatusError(job.status, "fetched")
    if job.expires_at is not None and job.expires_at <= now:
        raise ExportStatusError(ExportStatus.EXPIRED, "fetched")
    path = config.directory / file_name(job)
    if not path.is_file():
        raise ExportFileMissingError
    after = {"size_bytes": job.size_bytes, "sha256": job.sha256}
    await _record(session, job, "export.downloaded", before=None, after=after, actor=actor, now=now)
    return job, path


async def _check_room(session: AsyncSession, config: ExportConfig, actor: str) -> None:
    await session.execute(_LOCK)
    waiting = select(func.count()).where(is_any_of(ExportJob.status, UNFINISHED))
    if (await session.scalar(waiting) or 0) >= config.max_waiting:
        raise TooManyExportsError(config.max_waiting, "All together")
    if (await session.scalar(waiting.where(ExportJob.requested_by == actor)) or 0) >= config.max_waiting_each:
        raise TooManyExportsError(config.max_waiting_each, "Each token")


def _facts(job: ExportJob) -> dict[str, Any]:
    return {
        "kind": job.kind,
        "file_format": job.file_format,
        "account_id": job.account_id,
        "start": job.start_at.isoformat(),
        "end": job.end_at.isoformat(),
        "filters": job.filters,
    }


async def _record(
    session: AsyncSession,
    job: ExportJob,
    action: str,
    *,
    before: dict[str, Any] | None,
    after: dict[str, Any],
    actor: str,
    now: datetime,
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="export",
        entity_id=job.id,
        before=before,
        after=after,
        now=now,
    )
