"""Sinks: where usage goes besides this product's own invoices."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, StringConstraints

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Answer, Moment, PrintableText, StrictBody
from control_plane.admin_api.services import Now
from control_plane.foundation.clock import floor_hour
from control_plane.usage.sinks import operations, queries
from control_plane.usage.sinks.model import DeliveryState, SinkContent, SinkFacts, SinkKind
from control_plane.usage.sinks.queries import SinkProgress
from control_plane.usage.store.event_reads import FileFormat

router = APIRouter(prefix="/sinks", tags=["sinks"])

SinkName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,47}$"),
    Field(description="The sink's name.", examples=["warehouse"]),
]
Url = Annotated[str, StringConstraints(max_length=2000), PrintableText]
SinkPath = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_-]{0,47}$", alias="sink", description="The sink's name.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]


class CreateSink(StrictBody):
    """`http` needs `url`, `files` needs `file_format`. The Authorization header of an http sink is not told here:
    it stands in the server's environment, under the sink's name (KM_SINK_AUTHORIZATIONS).
    """

    name: SinkName
    kind: SinkKind
    content: SinkContent
    url: Annotated[
        Url | None,
        Field(description="Where CloudEvents are posted to.", examples=["https://billing.example.com/usage"]),
    ] = None
    file_format: FileFormat | None = None
    since: Annotated[
        Moment | None, Field(description="Hours from here on are sent: a full hour. The current one if left out.")
    ] = None


class ResendHours(StrictBody):
    """Which hours are sent again, whole; all in these states without a span."""

    states: Annotated[
        list[Literal["failed", "sent"]], Field(min_length=1, max_length=2, description="Hours that stand so.")
    ] = ["failed"]  # noqa: RUF012 - pydantic copies defaults
    start: Moment | None = None
    end: Moment | None = None


class SinkAnswer(Answer):
    name: str
    kind: SinkKind
    content: SinkContent
    url: str | None
    file_format: FileFormat | None
    since: Moment
    created_at: Moment
    paused_at: Moment | None
    attempts: int = Field(description="Failures in a row.")
    due_at: Moment = Field(description="Not tried again before.")
    last_sent_at: Moment | None
    last_error: str | None
    last_error_at: Moment | None


class SinkProgressAnswer(SinkAnswer):
    waiting_hours: int
    failed_hours: int = Field(description="Hours that the other side will not take as they are.")
    sent_hours: int
    records: int = Field(description="Events (or hours of rollups) that were taken; rows in files.")
    oldest_waiting: Moment | None
    days_written: int


class SinksAnswer(BaseModel):
    items: list[SinkProgressAnswer]


class FailedHourAnswer(Answer):
    account_id: str
    hour: Moment
    revision: int
    records: int
    error: str | None


class DayAnswer(Answer):
    day: Moment
    revision: int
    file_name: str
    records: int
    size_bytes: int
    sha256: str
    written_at: Moment


class FailedHoursAnswer(BaseModel):
    items: list[FailedHourAnswer]


class DaysAnswer(BaseModel):
    items: list[DayAnswer]


class ResentAnswer(BaseModel):
    hours: int


@router.post("", status_code=201)
async def create_sink(body: CreateSink, session: Database, caller: Authenticated, now: Now) -> SinkAnswer:
    """Make a sink. Hours are sent once they are sealed; those that are sealed already, at once."""
    facts = SinkFacts(
        name=body.name,
        kind=body.kind,
        content=body.content,
        since=body.since or floor_hour(now),
        url=body.url,
        file_format=body.file_format,
    )
    return _answer(await operations.create_sink(session, sink=facts, actor=caller.actor, now=now))


@router.get("")
async def list_sinks(session: Database) -> SinksAnswer:
    """List sinks by name, with how far each is."""
    return SinksAnswer(items=[_progress(found) for found in await queries.sinks_with_progress(session)])


@router.post("/{sink}/pause")
async def pause_sink(sink: SinkPath, session: Database, caller: Authenticated, now: Now) -> SinkAnswer:
    """Send nothing more until it is resumed; what is sealed meanwhile waits. Repeating changes nothing."""
    return _answer(await operations.pause_sink(session, name=sink, actor=caller.actor, now=now))


@router.post("/{sink}/resume")
async def resume_sink(sink: SinkPath, session: Database, caller: Authenticated, now: Now) -> SinkAnswer:
    """Go on at once, also where the sink was put off after failures."""
    return _answer(await operations.resume_sink(session, name=sink, actor=caller.actor, now=now))


@router.post("/{sink}/resend")
async def resend_hours(
    sink: SinkPath, body: ResendHours, session: Database, caller: Authenticated, now: Now
) -> ResentAnswer:
    """Send hours again, whole, under the same ids. Only for http sinks."""
    hours = await operations.resend_hours(
        session,
        name=sink,
        states=[DeliveryState(state) for state in body.states],
        start=body.start,
        end=body.end,
        actor=caller.actor,
        now=now,
    )
    return ResentAnswer(hours=hours)


@router.delete("/{sink}")
async def remove_sink(sink: SinkPath, session: Database, caller: Authenticated, now: Now) -> SinkAnswer:
    """End a sink for good. Files that it wrote stay."""
    return _answer(await operations.remove_sink(session, name=sink, actor=caller.actor, now=now))


@router.get("/{sink}/failed-hours")
async def list_failed_hours(sink: SinkPath, session: Database, limit: Limit = 100) -> FailedHoursAnswer:
    """List hours that the other side will not take as they are, oldest first."""
    found = await queries.failed_hours(session, name=sink, limit=limit)
    return FailedHoursAnswer(items=[FailedHourAnswer.model_validate(row) for row in found])


@router.get("/{sink}/days")
async def list_days(sink: SinkPath, session: Database, limit: Limit = 100) -> DaysAnswer:
    """List the newest files of a sink, the latest day first."""
    found = await queries.days_of(session, name=sink, limit=limit)
    return DaysAnswer(items=[DayAnswer.model_validate(row) for row in found])


def _answer(row: object) -> SinkAnswer:
    return SinkAnswer.model_validate(row)


def _progress(found: SinkProgress) -> SinkProgressAnswer:
    return SinkProgressAnswer(
        **_answer(found.sink).model_dump(),
        waiting_hours=found.waiting_hours,
        failed_hours=found.failed_hours,
        sent_hours=found.sent_hours,
        records=found.records,
        oldest_waiting=found.oldest_waiting,
        days_written=found.days_written,
    )
