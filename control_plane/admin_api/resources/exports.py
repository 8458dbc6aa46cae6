"""Exports: asked for, watched, fetched. The worker writes them (`usage.requests.exports`)."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import FileResponse
from pydantic import Field

from control_plane.accounts.model import Role
from control_plane.accounts.queries import account
from control_plane.admin_api.access import READERS_OF_REQUESTS, Authenticated, Caller, RoleNotAllowedError, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Answer, Moment, PageAnswer, PageQuery, page_answer
from control_plane.admin_api.request_forms import STATUS_TEXT, AccountIdText
from control_plane.admin_api.resources.usage import SpanQuery, Word
from control_plane.admin_api.services import Given, Now
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.requests.exports import operations, queries
from control_plane.usage.requests.exports.model import MEDIA_TYPES, ExportKind, ExportStatus, ExportWish
from control_plane.usage.requests.exports.tables import ExportJob
from control_plane.usage.requests.model import EventFilters, EventSpan
from control_plane.usage.store.event_reads import FileFormat
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

router = APIRouter(tags=["exports"])
ExportId = Annotated[str, Path(pattern=r"^exp_[0-9a-hjkmnp-tv-z]{26}$", description="The export's id.")]
_MEDIA_TYPES = [media_type.partition(";")[0] for media_type in MEDIA_TYPES.values()]
_FILE: dict[str, Any] = {
    media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in _MEDIA_TYPES
}


class ExportBody(SpanQuery):
    """What to export: [start, end), the last 30 days by default; full hours of rollups. Filters: empty is any."""

    kind: ExportKind
    file_format: FileFormat = FileFormat.CSV
    account_id: Annotated[AccountIdText | None, Field(description="Only one account; null is all.")] = None
    unattributed: Annotated[bool, Field(strict=True, description="Only the calls of nobody.")] = False
    product: Word = ""
    key_id: Word = ""
    endpoint: Word = ""
    mode: Mode | None = None
    outcome: Outcome | None = None
    status: Annotated[str, Field(pattern=f"{STATUS_TEXT}|^$", description="`404`, `4xx` or `400-428`.")] = ""
    request_id: Word = ""

    def wish(self, now: datetime) -> ExportWish:
        """Raises ValidationFailedError where it makes no sense."""
        if self.unattributed and self.account_id is not None:
            raise ValidationFailedError("unattributed", "cannot be combined with account_id")
        start, end = self.span(now)
        filters = EventFilters(
            mode=self.mode or "",
            product=self.product,
            key_id=self.key_id,
            endpoint=self.endpoint,
            outcome=self.outcome or "",
            request_id=self.request_id,
        )
        return ExportWish(
            kind=self.kind,
            file_format=self.file_format,
            span=EventSpan(account_id="" if self.unattributed else self.account_id, start=start, end=end),
            filters=filters.with_statuses(self.status),
        )


class ExportsQuery(PageQuery):
    account_id: AccountIdText | None = None
    status: ExportStatus | None = None


class ExportAnswer(Answer):
    """One export. Its file is there while it is `done`."""

    id: str
    kind: ExportKind
    file_format: FileFormat
    account_id: str | None = Field(description="null: all accounts; empty: the calls of nobody.")
    start_at: Moment
    end_at: Moment
    filters: dict[str, Any]
    status: ExportStatus
    requested_by: str
    requested_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    expires_at: Moment | None
    total_rows: int | None = Field(description="Rows that were counted before writing; null until then.")
    done_rows: int
    size_bytes: int
    sha256: str
    error: str


@router.post("/exports", status_code=201)
@allows(Role.SUPPORT, Role.FINANCE)
async def create_export(
    body: ExportBody, session: Database, services: Given, caller: Authenticated, now: Now
) -> ExportAnswer:
    """Have events or hourly rollups written into a file, in the background. Finance may ask for rollups."""
    _check_role(caller, body.kind)
    wish = body.wish(now)
    if body.account_id is not None:
        await account(session, body.account_id)
    job = await operations.request_export(session, wish=wish, config=services.exports, actor=caller.actor, now=now)
    return _answer(job)


@router.get("/exports")
async def list_exports(
    session: Database, caller: Authenticated, query: Annotated[ExportsQuery, Query()]
) -> PageAnswer[ExportAnswer]:
    """List exports, newest first; those of events only to roles that may read requests."""
    page = await queries.list_exports(
        session,
        account_id=query.account_id,
        kinds=tuple(ExportKind) if caller.role in READERS_OF_REQUESTS else (ExportKind.ROLLUPS,),
        status=query.status,
        cursor=query.cursor,
        limit=query.limit,
    )
    return page_answer(page, _answer)


@router.get("/exports/{export_id}")
async def get_export(export_id: ExportId, session: Database, caller: Authenticated) -> ExportAnswer:
    """Return an export with its progress."""
    job = await queries.export_job(session, export_id)
    _check_role(caller, ExportKind(job.kind))
    return _answer(job)


@router.post("/exports/{export_id}/cancel")
@allows(Role.SUPPORT, Role.FINANCE)
async def cancel_export(export_id: ExportId, session: Database, caller: Authenticated, now: Now) -> ExportAnswer:
    """Call off an export that is not finished. Repeatable."""
    _check_role(caller, ExportKind((await queries.export_job(session, export_id)).kind))
    return _answer(await operations.cancel_export(session, export_id=export_id, actor=caller.actor, now=now))


@router.get(
    "/exports/{export_id}/file",
    response_class=FileResponse,
    responses={
        200: {"description": "The file.", "content": _FILE},
        206: {"description": "The part of it that `Range` asks for.", "content": _FILE},
    },
)
async def get_export_file(
    export_id: ExportId, session: Database, services: Given, caller: Authenticated, now: Now
) -> FileResponse:
    """Fetch the file of an export that is done; `Range` works. Every fetch stands in the audit log."""
    _check_role(caller, ExportKind((await queries.export_job(session, export_id)).kind))
    job, path = await operations.take_file(
        session, export_id=export_id, config=services.exports, actor=caller.actor, now=now
    )
    name = f"{job.kind}-{job.start_at:%Y%m%dT%H%M}-{job.end_at:%Y%m%dT%H%M}-{job.id}.{job.file_format}"
    return FileResponse(path, media_type=MEDIA_TYPES[FileFormat(job.file_format)], filename=name)


def _check_role(caller: Caller, kind: ExportKind) -> None:
    if kind is ExportKind.EVENTS and caller.role not in READERS_OF_REQUESTS:
        raise RoleNotAllowedError(caller.role)


def _answer(job: ExportJob) -> ExportAnswer:
    return ExportAnswer.model_validate(job)
