"""Ids of reported events that are known already, and events on their way into the event store."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base
from control_plane.usage.tables import FULL_HOUR


class IngestedId(Base):
    """One reported event, by the id that source and id make: where it counts, and a hash of what it said.

    Kept for as long as the event could be sent again and still be taken.
    """

    __tablename__ = "ingested_ids"
    __table_args__ = (
        CheckConstraint(FULL_HOUR, name="hour"),
        # rows come in their order of time: a few pages of index for any number of rows
        Index(None, "first_seen_at", postgresql_using="brin"),
    )

    event_id: Mapped[str] = mapped_column(primary_key=True)
    account_id: Mapped[str]
    hour: Mapped[datetime]
    content_hash: Mapped[bytes] = mapped_column(LargeBinary)
    first_seen_at: Mapped[datetime]


class IngestBatch(Base):
    """Events that were accepted and are not in the event store yet; gone as soon as they are.

    `spoiled_at`: the store cannot hold some of them. The row stays for somebody to look at.
    """

    __tablename__ = "ingest_batches"

    id: Mapped[str] = mapped_column(primary_key=True)
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    events: Mapped[int]
    accepted_at: Mapped[datetime]
    spoiled_at: Mapped[datetime | None]
