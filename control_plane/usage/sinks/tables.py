"""Sinks, and how far each is."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base
from control_plane.usage.tables import FULL_HOUR

STATE_CHECK = "state IN ('waiting', 'sent', 'failed')"


class Sink(Base):
    """Where usage goes; after failures in a row (`attempts`) not before `due_at`."""

    __tablename__ = "sinks"
    __table_args__ = (
        CheckConstraint("kind IN ('http', 'files')", name="kind"),
        CheckConstraint("content IN ('events', 'rollups')", name="content"),
        CheckConstraint("(kind = 'http') = (url IS NOT NULL)", name="url"),
        CheckConstraint("(kind = 'files') = (file_format IS NOT NULL)", name="file_format"),
        CheckConstraint("mod(extract(epoch FROM since), 3600) = 0", name="since"),
        Index("uq_sinks_name", "name", unique=True, postgresql_where=text("removed_at IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    kind: Mapped[str]
    content: Mapped[str]
    url: Mapped[str | None]
    file_format: Mapped[str | None]
    since: Mapped[datetime]
    created_at: Mapped[datetime]
    paused_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    due_at: Mapped[datetime]
    last_sent_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    last_error_at: Mapped[datetime | None]


class SinkHour(Base):
    """One account's sealed hour on its way to an http sink.

    `after_ms`, `after_id`: the last event the other side has taken. A later revision begins anew.
    """

    __tablename__ = "sink_hours"
    __table_args__ = (
        CheckConstraint(FULL_HOUR, name="hour"),
        CheckConstraint(STATE_CHECK, name="state"),
        Index(
            "ix_sink_hours_waiting", "sink_id", "hour", "account_id", postgresql_where=text("state = 'waiting'")
        ),
        Index("ix_sink_hours_failed", "sink_id", "hour", "account_id", postgresql_where=text("state = 'failed'")),
    )

    sink_id: Mapped[str] = mapped_column(ForeignKey("sinks.id"), primary_key=True)
    account_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(default="waiting", server_default="waiting")
    after_ms: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    after_id: Mapped[str] = mapped_column(default="", server_default="")
    records: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    leased_until: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    error: Mapped[str | None]


class SinkDay(Base):
    """A day's file. `fingerprint` is of the sealed hours that are in it; another one makes another revision."""

    __tablename__ = "sink_days"
    __table_args__ = (CheckConstraint("mod(extract(epoch FROM day), 86400) = 0", name="day"),)

    sink_id: Mapped[str] = mapped_column(ForeignKey("sinks.id"), primary_key=True)
    day: Mapped[datetime] = mapped_column(primary_key=True)
    revision: Mapped[int]
    fingerprint: Mapped[str]
    file_name: Mapped[str]
    records: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    written_at: Mapped[datetime]
