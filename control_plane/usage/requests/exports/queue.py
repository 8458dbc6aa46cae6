"""The worker's side of the queue: take a job on, keep it, let go of it. Each function is one short transaction."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.db import is_any_of
from control_plane.usage.requests.exports.model import ExportConfig, ExportStatus
from control_plane.usage.requests.exports.queries import file_name
from control_plane.usage.requests.exports.tables import ExportJob

EXPIRED_AT_ONCE = 100


class LostJobError(Exception):
    """The job is somebody else's by now, or was called off."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that is complete."""

    rows: int
    size_bytes: int
    sha256: str


class ExportQueue:
    """Jobs as workers see them. Whoever holds a job names its attempt with every step; an old one is refused."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], config: ExportConfig) -> None:
        self._sessions = sessions
        self._config = config

    async def claim(self, now: datetime) -> ExportJob | None:
        """Take on the job that waits longest, or one whose worker has not been heard of for its lease.

        One that has lost its workers as often as it may be tried is given up: it may be what ended them.
        """
        async with self._sessions() as session, session.begin():
            job = await session.scalar(
                select(ExportJob)
                .where(
                    or_(
                        ExportJob.status == ExportStatus.QUEUED.value,
                        (ExportJob.status == ExportStatus.RUNNING.value) & (ExportJob.lease_until < now),
                    )
                )
                .order_by(ExportJob.requested_at, ExportJob.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            if job is None:
                return None
            if job.status == ExportStatus.RUNNING.value and job.attempt >= self._config.attempts:
                job.status, job.lease_until, job.finished_at = ExportStatus.FAILED.value, None, now
                job.error = f"Given up after {job.attempt} attempts; the last worker was not heard of again."
                return None
            job.status = ExportStatus.RUNNING.value
            job.attempt += 1
            job.lease_until = now + self._config.lease
            job.started_at = now
            job.total_rows, job.done_rows, job.size_bytes = None, 0, 0
            return job

    async def keep(
        self, job: ExportJob, *, done_rows: int, size_bytes: int, total_rows: int | None, now: datetime
    ) -> None:
        """Tell how far it is and renew the lease. Raises LostJobError."""
        await self._change(
            job,
            done_rows=done_rows,
            size_bytes=size_bytes,
            total_rows=total_rows,
            lease_until=now + self._config.lease,
        )

    async def finish(self, job: ExportJob, written: WrittenFile, *, now: datetime) -> None:
        """The file is complete; from here on it is kept for its time. Raises LostJobError."""
        await self._change(
            job,
            status=ExportStatus.DONE.value,
            lease_until=None,
            finished_at=now,
            expires_at=now + self._config.keep,
            done_rows=written.rows,
            size_bytes=written.size_bytes,
            sha256=written.sha256,
        )

    async def fail(self, job: ExportJob, error: str, *, now: datetime) -> None:
        """It cannot be done; `error` is for whoever asked. Raises LostJobError."""
        await self._change(job, status=ExportStatus.FAILED.value, lease_until=None, finished_at=now, error=error)

    async def give_back(self, job: ExportJob, *, now: datetime, pause: timedelta) -> None:
        """Leave it to whoever comes next, not before a pause. Raises LostJobError."""
        if pause:
            await self._change(job, lease_until=now + pause)
        else:
            await self._change(job, status=ExportStatus.QUEUED.value, lease_until=None)

    async def expire(self, now: datetime) -> list[str]:
        """Mark finished exports whose time is over; returns their ids. Their files are then nobody's."""
        async with self._sessions() as session, session.begin():
            due = (
                select(ExportJob.id)
                .where(ExportJob.status == ExportStatus.DONE.value, ExportJob.expires_at <= now)
                .limit(EXPIRED_AT_ONCE)
                .with_for_update(skip_locked=True)
            )
            rows = await session.scalars(
                update(ExportJob)
                .where(ExportJob.id.in_(due))
                .values(status=ExportStatus.EXPIRED.value)
                .returning(ExportJob.id)
            )
            return list(rows)

    async def wanted_files(self, export_ids: list[str]) -> set[str]:
        """Return the names of the files that belong to these jobs: being written, or kept."""
        async with self._sessions() as session:
            statement = select(ExportJob).where(
                is_any_of(ExportJob.id, export_ids),
                is_any_of(ExportJob.status, [ExportStatus.RUNNING.value, ExportStatus.DONE.value]),
            )
            return {file_name(job) for job in await session.scalars(statement)}

    async def _change(self, job: ExportJob, **values: Any) -> None:
        async with self._sessions() as session, session.begin():
            changed = await session.execute(
                update(ExportJob)
                .where(
                    ExportJob.id == job.id,
                    ExportJob.attempt == job.attempt,
                    ExportJob.status == ExportStatus.RUNNING.value,
                )
                .values(**values)
                .returning(ExportJob.id)
            )
            if changed.first() is None:
                raise LostJobError(job.id)
