"""Events of Stripe's: what came, what became of it, and asking for it once more."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field, StringConstraints

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import (
    Answer,
    Line,
    Moment,
    PageAnswer,
    PageQuery,
    PrintableText,
    StrictBody,
    page_answer,
)
from control_plane.admin_api.services import Now
from control_plane.admin_api.stripe_access import StripeGiven
from control_plane.stripe_sync.events.model import Source, State
from control_plane.stripe_sync.events.operations import Outcome, Replay, ReplayResult, replay, resync
from control_plane.stripe_sync.events.queries import EventFilter, find_event, inbox_standing, list_events
from control_plane.stripe_sync.events.tables import StripeEvent

router = APIRouter(prefix="/stripe", tags=["stripe"])
MAX_EVENTS = 200
SHOWN = 1000
EventId = Annotated[str, Path(min_length=1, max_length=200, description="The event's id."), PrintableText]
StripeId = Annotated[str, StringConstraints(min_length=1, max_length=200), PrintableText]


class StripeEventsQuery(PageQuery):
    """Which events."""

    state: Annotated[State | None, Field(description="What became of them.")] = None
    type: Annotated[Line, Field(description="Like `invoice.paid`.")] = ""
    object_id: Annotated[Line, Field(description="What they are about, like `sub_…`.")] = ""
    start: Annotated[Moment | None, Field(description="Came to us from here on.")] = None
    end: Annotated[Moment | None, Field(description="Came to us before.")] = None


class StripeEventAnswer(Answer):
    """An event, however it came to us."""

    id: str = Field(description="Stripe's id; `resync_…` for what we asked ourselves to read.")
    type: str
    kind: str | None = Field(description="What is read again; null where nothing depends on the event.")
    object_id: str | None
    state: State
    reason: str = Field(description="Why it is ignored, dead, or not done yet; empty otherwise.")
    attempts: int
    next_attempt_at: Moment | None = Field(description="When it is tried again; null where it is not.")
    handled_at: Moment | None
    created_at: Moment = Field(description="When Stripe made it.")
    received_at: Moment
    source: Source = Field(description="How we came to know of it first; `list`: no webhook had brought it.")
    deliveries: int = Field(description="How often a webhook brought it.")
    last_delivered_at: Moment | None

    @classmethod
    def of(cls, row: StripeEvent) -> "StripeEventAnswer":
        return cls.model_validate(_fields(row))


class StripeEventBodyAnswer(StripeEventAnswer):
    """An event with what the webhook brought."""

    body: str | None = Field(description="As it was signed; null where none came or it is no longer kept.")


class InboxAnswer(Answer):
    """How the inbox stands."""

    waiting: int
    oldest_received_at: Moment | None = Field(description="Of those that wait.")
    dead: int = Field(description="Given up: somebody has to look.")
    lists_read_at: Moment | None = Field(description="When Stripe's own lists were read through last.")


class ReplayBody(StrictBody):
    """Which events: `event_ids`, or `object_id`, or a range of the time at which Stripe made them."""

    event_ids: Annotated[list[StripeId], Field(max_length=MAX_EVENTS, default_factory=list)]
    object_id: Annotated[Line, Field(description="All events of one object.")] = ""
    start: Annotated[Moment | None, Field(description="All that Stripe made from here on.")] = None
    end: Annotated[Moment | None, Field(description="And before; now if left out.")] = None
    states: Annotated[
        list[State],
        Field(max_length=4, default_factory=list, description="Only those, of an object or a range."),
    ]
    dry_run: Annotated[bool, Field(description="Only say what would be done.")] = False


class ReplayedAnswer(Answer):
    id: str
    type: str
    object_id: str | None
    created_at: Moment | None
    outcome: Outcome


class ReplayAnswer(Answer):
    """What a replay does. `outcomes` counts all events; `events` names the first 1,000."""

    dry_run: bool
    outcomes: dict[Outcome, int]
    events: list[ReplayedAnswer]
    listed_from: Moment | None = Field(description="From when on Stripe's own lists are read again, if so.")


class ResyncBody(StrictBody):
    """Which object of Stripe's."""

    object_id: StripeId


class ResyncAnswer(Answer):
    event_id: str = Field(description="The row that tells what came of it.")


def _fields(row: StripeEvent) -> dict[str, object]:
    names = [name for name in StripeEventAnswer.model_fields if name != "next_attempt_at"]
    waits = row.state == State.WAITING
    return {name: getattr(row, name) for name in names} | {
        "next_attempt_at": row.next_attempt_at if waits else None
    }


@router.get("/events")
async def list_stripe_events(
    session: Database, query: Annotated[StripeEventsQuery, Query()]
) -> PageAnswer[StripeEventAnswer]:
    """List events that Stripe has told us of, those that came last first."""
    wanted = EventFilter(
        states=() if query.state is None else (query.state,),
        type=query.type,
        object_id=query.object_id,
        since=query.start,
        until=query.end,
    )
    page = await list_events(session, wanted, cursor=query.cursor, limit=query.limit)
    return page_answer(page, StripeEventAnswer.of)


@router.get("/inbox")
async def get_stripe_inbox(session: Database) -> InboxAnswer:
    """Say how many events wait, since when, and how many were given up."""
    return InboxAnswer.model_validate(await inbox_standing(session))


@router.get("/events/{event_id}")
async def get_stripe_event(session: Database, event_id: EventId) -> StripeEventBodyAnswer:
    """Show an event with what its webhook brought."""
    row = await find_event(session, event_id)
    body = None if row.body is None else row.body.decode(errors="replace")
    return StripeEventBodyAnswer.model_validate({**_fields(row), "body": body})


@router.post("/events/replay")
async def replay_stripe_events(
    session: Database, _stripe: StripeGiven, body: ReplayBody, caller: Authenticated, now: Now
) -> ReplayAnswer:
    """Have events acted on once more: their objects are read again, so nothing can happen twice.

    Events that we do not know are looked up at Stripe, which keeps them for 30 days; for a range, its list is read
    again.
    """
    wanted = Replay(
        event_ids=tuple(dict.fromkeys(body.event_ids)),
        object_id=body.object_id,
        since=body.start,
        until=body.end,
        states=tuple(body.states),
    )
    result = await replay(session, wanted, dry_run=body.dry_run, actor=caller.actor, now=now)
    return _replay_answer(result, dry_run=body.dry_run)


def _replay_answer(result: ReplayResult, *, dry_run: bool) -> ReplayAnswer:
    outcomes = [one.outcome for one in result.events]
    return ReplayAnswer(
        dry_run=dry_run,
        outcomes={outcome: outcomes.count(outcome) for outcome in Outcome if outcome in outcomes},
        events=[ReplayedAnswer.model_validate(one) for one in result.events[:SHOWN]],
        listed_from=result.listed_since,
    )


@router.post("/resync", status_code=202)
async def resync_stripe_object(
    session: Database, _stripe: StripeGiven, body: ResyncBody, caller: Authenticated, now: Now
) -> ResyncAnswer:
    """Read an object at Stripe again, whatever events say: a subscription, invoice, customer, checkout, …"""
    row_id = await resync(session, object_id=body.object_id, actor=caller.actor, now=now)
    return ResyncAnswer(event_id=row_id)
