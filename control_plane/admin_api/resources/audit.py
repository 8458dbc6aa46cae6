"""The audit log: who changed what."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import select, tuple_

from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Answer, Line, Moment, PageAnswer, PageQuery, page_answer
from control_plane.foundation.audit import AuditRow
from control_plane.foundation.pagination import decode_cursor, page_of

router = APIRouter(prefix="/audit", tags=["audit"])


class AuditQuery(PageQuery):
    entity_type: Annotated[Line | None, Field(description="`account`, `api_key`, `subscription`, ...")] = None
    entity_id: Annotated[Line | None, Field(description="The id of one thing.")] = None
    actor: Annotated[Line | None, Field(description="Who, like `token:tok_…`.")] = None


class AuditAnswer(Answer):
    id: str
    at: Moment
    actor: str
    action: str
    entity_type: str
    entity_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None


@router.get("")
async def list_audit(session: Database, query: Annotated[AuditQuery, Query()]) -> PageAnswer[AuditAnswer]:
    """List changes, newest first."""
    statement = select(AuditRow).order_by(AuditRow.at.desc(), AuditRow.id.desc()).limit(query.limit + 1)
    for column in ("entity_type", "entity_id", "actor"):
        if (wanted := getattr(query, column)) is not None:
            statement = statement.where(getattr(AuditRow, column) == wanted)
    if query.cursor:
        after = decode_cursor(query.cursor, datetime, str)
        statement = statement.where(tuple_(AuditRow.at, AuditRow.id) < after)
    rows = (await session.scalars(statement)).all()
    page = page_of(rows, limit=query.limit, sort_values=lambda row: (row.at, row.id))
    return page_answer(page, AuditAnswer.model_validate)
