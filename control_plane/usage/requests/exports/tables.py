"""Export jobs: the queue, and the list of files."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class ExportJob(Base):
    """One export. `account_id` null: all accounts; '': the calls of nobody.

    `attempt` counts who took it on; the file of an attempt has it in its name. A running job whose `lease_until`
    is over belongs to whoever takes it next. `total_rows` is what was counted before writing.
    """

    __tablename__ = "export_jobs"
    __table_args__ = (
        CheckConstraint("kind IN ('events', 'rollups')", name="kind"),
        CheckConstraint("file_format IN ('csv', 'parquet')", name="file_format"),
        CheckConstraint(
            "status IN ('queued', 'running', 'done', 'failed', 'cancelled', 'expired')", name="status"
        ),
        CheckConstraint("start_at < end_at", name="span"),
        CheckConstraint("(status = 'running') = (lease_until IS NOT NULL)", name="lease"),
        CheckConstraint("status <> 'done' OR (sha256 <> '' AND expires_at IS NOT NULL)", name="done"),
        Index(None, "requested_at", "id"),
        Index(
            "ix_export_jobs_unfinished",
            "requested_at",
            postgresql_where=text("status IN ('queued', 'running', 'done')"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    file_format: Mapped[str]
    account_id: Mapped[str | None]
    start_at: Mapped[datetime]
    end_at: Mapped[datetime]
    filters: Mapped[dict[str, Any]]
    status: Mapped[str]
    requested_by: Mapped[str]
    requested_at: Mapped[datetime]
    attempt: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    lease_until: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    total_rows: Mapped[int | None] = mapped_column(BigInteger)
    done_rows: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    sha256: Mapped[str] = mapped_column(default="", server_default="")
    error: Mapped[str] = mapped_column(default="", server_default="")
