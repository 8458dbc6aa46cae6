"""What people did about dead letters; the letters themselves are in the event store."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Integer
from sqlalchemy.orm import Mapped, mapped_column

from control_plane.foundation.db import Base


class HandledLetter(Base):
    """The state of a letter that somebody replayed or dismissed; each step is in the audit log."""

    __tablename__ = "handled_dead_letters"
    __table_args__ = (
        CheckConstraint("state IN ('open', 'replayed', 'dismissed')", name="state"),
        CheckConstraint("attempts >= 0", name="attempts"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    attempts: Mapped[int] = mapped_column(Integer)
    result: Mapped[str]
    account_id: Mapped[str]
    event_id: Mapped[str]
    reason: Mapped[str]
    author: Mapped[str]
    handled_at: Mapped[datetime]
