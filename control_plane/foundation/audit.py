"""The audit log: who changed what, written in the change's own transaction. The database refuses to alter it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column
from structlog.contextvars import get_contextvars

from control_plane.foundation.db import Base
from control_plane.foundation.ids import new_id
from control_plane.foundation.json_rows import as_json


class AuditRow(Base):
    __tablename__ = "audit_log"
    __table_args__ = (
        Index(None, "entity_type", "entity_id", "at"),
        Index(None, "at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    entity_type: Mapped[str]
    entity_id: Mapped[str]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any] | None]
    request_id: Mapped[str | None]


async def record_change(
    session: AsyncSession,
    *,
    actor: str,
    action: str,
    entity_type: str,
    entity_id: str,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    now: datetime,
) -> None:
    """Write one audit row; see `add_change`."""
    add_change(
        session,
        actor=actor,
        action=action,
        entity_type=entity_type,
        entity_id=entity_id,
        before=before,
        after=after,
        now=now,
    )
    await session.flush()


def add_change(
    session: AsyncSession,
    *,
    actor: str,
    action: str,
    entity_type: str,
    entity_id: str,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    now: datetime,
) -> None:
    """Put one audit row into the session, to be written with its next flush.

    `before` and `after` are JSON-ready and hold what changed, never a key or a secret. The request's id comes from
    structlog's context (`request_id`), where the edge binds it.
    """
    session.add(
        AuditRow(
            id=new_id("aud", now),
            at=now,
            actor=actor,
            action=action,
            entity_type=entity_type,
            entity_id=entity_id,
            before=before,
            after=after,
            request_id=get_contextvars().get("request_id"),
        )
    )


_INSERT = text("""
INSERT INTO audit_log (id, at, actor, action, entity_type, entity_id, after, request_id)
SELECT id, :at, :actor, :action, :entity_type, entity_id, after, :request_id
FROM json_to_recordset(CAST(:rows AS json)) AS made (id text, entity_id text, after jsonb)
""")


async def record_changes(
    session: AsyncSession,
    changes: Mapping[str, Mapping[str, Any]],
    *,
    actor: str,
    action: str,
    entity_type: str,
    now: datetime,
) -> None:
    """Write a row for each entity, by its id what it is after the change, in one statement; see `add_change`."""
    if not changes:
        return
    rows = [
        {"id": new_id("aud", now), "entity_id": entity_id, "after": after} for entity_id, after in changes.items()
    ]
    same = {"at": now, "actor": actor, "action": action, "entity_type": entity_type}
    request_id = get_contextvars().get("request_id")
    await session.execute(_INSERT, {"rows": as_json(rows), **same, "request_id": request_id})
