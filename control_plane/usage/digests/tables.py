"""Digests of sealed hours. Append-only: a trigger refuses anything else."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base
from control_plane.usage.tables import FULL_HOUR


class UsageDigest(Base):
    """The Merkle root over an account's events of one hour at one revision, chained to the digest before.

    `sequence` counts an account's digests from 1, in the order in which they were made. Texts are lower-case hex.
    """

    __tablename__ = "usage_digests"
    __table_args__ = (
        UniqueConstraint("account_id", "hour", "revision"),
        CheckConstraint(FULL_HOUR, name="hour"),
        CheckConstraint("sequence > 0", name="sequence"),
        CheckConstraint("events >= 0", name="events"),
        CheckConstraint(
            "root ~ '^[0-9a-f]{64}$' AND previous ~ '^[0-9a-f]{64}$' AND digest ~ '^[0-9a-f]{64}$'", name="hex"
        ),
    )

    account_id: Mapped[str] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    hour: Mapped[datetime]
    revision: Mapped[int] = mapped_column(BigInteger)
    events: Mapped[int] = mapped_column(BigInteger)
    root: Mapped[str]
    previous: Mapped[str]
    digest: Mapped[str]
    created_at: Mapped[datetime]
