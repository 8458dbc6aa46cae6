"""Disputes: cases about requests, step by step, with their trail."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from control_plane.accounts.model import Role
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.dispute_forms import (
    DecisionBody,
    DisputeAnswer,
    DisputeBody,
    DisputedHourAnswer,
    DisputedHoursAnswer,
    DisputedRequestAnswer,
    DisputeId,
    DisputesQuery,
    DisputeStepAnswer,
    NoteBody,
    SelectionBody,
    WordsBody,
)
from control_plane.admin_api.forms import PageAnswer, PageQuery, page_answer
from control_plane.admin_api.request_forms import EventAnswer
from control_plane.admin_api.services import Given, Now, Services
from control_plane.foundation.errors import NotFoundError
from control_plane.usage.requests.disputes import operations, queries
from control_plane.usage.requests.disputes.case_file import case_file
from control_plane.usage.requests.disputes.model import MAX_REQUESTS, DisputeFacts, TooManyDisputedRequestsError
from control_plane.usage.requests.disputes.tables import Dispute, DisputedRequest, DisputeStep
from control_plane.usage.requests.history import find_events
from control_plane.usage.requests.model import EventSpan
from gateway_contract.usage_events import UsageEvent

router = APIRouter(tags=["disputes"])
ZIP = "application/zip"


@router.post("/disputes", status_code=201)
@allows(Role.SUPPORT, Role.FINANCE)
async def open_dispute(
    body: DisputeBody, session: Database, services: Given, caller: Authenticated, now: Now
) -> DisputeAnswer:
    """Open a case. Its requests are copied as they are now, so that the evidence outlives their retention."""
    events: Sequence[UsageEvent] = ()
    if body.requests is not None:
        events = await _select(services, body.requests, account_id=body.account_id, now=now)
    dispute = await operations.open_dispute(
        session,
        account_id=body.account_id,
        facts=DisputeFacts(
            subject=body.subject,
            reason=body.reason,
            period_text=body.period_text,
            amount_text=body.amount_text,
        ),
        events=events,
        selection=_selection(body.requests, now) if body.requests else {},
        actor=caller.actor,
        now=now,
    )
    return _answer(dispute)


@router.get("/disputes")
async def list_disputes(session: Database, query: Annotated[DisputesQuery, Query()]) -> PageAnswer[DisputeAnswer]:
    """List cases, newest first."""
    page = await queries.list_disputes(
        session, account_id=query.account_id, status=query.status, cursor=query.cursor, limit=query.limit
    )
    return page_answer(page, _answer)


@router.get("/disputes/{dispute_id}")
async def get_dispute(dispute_id: DisputeId, session: Database) -> DisputeAnswer:
    """Return a case."""
    return _answer(await queries.dispute_by_id(session, dispute_id))


@router.get("/disputes/{dispute_id}/steps")
async def list_dispute_steps(
    dispute_id: DisputeId, session: Database, query: Annotated[PageQuery, Query()]
) -> PageAnswer[DisputeStepAnswer]:
    """List the trail of a case, oldest first."""
    await queries.dispute_by_id(session, dispute_id)
    page = await queries.dispute_steps(session, dispute_id=dispute_id, cursor=query.cursor, limit=query.limit)
    return page_answer(page, _step)


@router.get("/disputes/{dispute_id}/requests")
async def list_disputed_requests(
    dispute_id: DisputeId, session: Database, query: Annotated[PageQuery, Query()]
) -> PageAnswer[DisputedRequestAnswer]:
    """List the requests of a case, oldest first, as they were when they were added."""
    await queries.dispute_by_id(session, dispute_id)
    page = await queries.disputed_requests(session, dispute_id=dispute_id, cursor=query.cursor, limit=query.limit)
    return page_answer(page, _request)


@router.get("/disputes/{dispute_id}/hours")
async def list_disputed_hours(dispute_id: DisputeId, session: Database) -> DisputedHoursAnswer:
    """List the hours that requests of the case are counted in, with what is known of them now."""
    dispute = await queries.dispute_by_id(session, dispute_id)
    hours = await queries.disputed_hours(session, dispute)
    return DisputedHoursAnswer(items=[DisputedHourAnswer.model_validate(hour) for hour in hours])


@router.get(
    "/disputes/{dispute_id}/case-file",
    response_class=Response,
    responses={200: {"content": {ZIP: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def get_case_file(dispute_id: DisputeId, session: Database) -> Response:
    """Return the case for the customer: a zip of `case.json` and `requests.csv`; no internal notes, no names."""
    dispute = await queries.dispute_by_id(session, dispute_id)
    content = case_file(
        dispute,
        steps=await queries.whole_trail(session, dispute_id),
        requests=await queries.all_disputed_requests(session, dispute_id),
        hours=await queries.disputed_hours(session, dispute),
    )
    return Response(
        content, media_type=ZIP, headers={"Content-Disposition": f'attachment; filename="{dispute.id}.zip"'}
    )


@router.post("/disputes/{dispute_id}/requests")
@allows(Role.SUPPORT, Role.FINANCE)
async def add_disputed_requests(
    dispute_id: DisputeId,
    body: SelectionBody,
    *,
    session: Database,
    services: Given,
    caller: Authenticated,
    now: Now,
) -> DisputeAnswer:
    """Add requests to a case that is not decided."""
    found = await queries.dispute_by_id(session, dispute_id)
    events = await _select(services, body, account_id=found.account_id, now=now)
    dispute = await operations.add_requests(
        session,
        dispute_id=dispute_id,
        events=events,
        selection=_selection(body, now),
        actor=caller.actor,
        now=now,
    )
    return _answer(dispute)


@router.post("/disputes/{dispute_id}/notes")
@allows(Role.SUPPORT, Role.FINANCE)
async def add_dispute_note(
    dispute_id: DisputeId, body: NoteBody, session: Database, caller: Authenticated, now: Now
) -> DisputeAnswer:
    """Add a note to the trail; it can never be changed."""
    dispute = await operations.add_note(
        session, dispute_id=dispute_id, text=body.text, internal=body.internal, actor=caller.actor, now=now
    )
    return _answer(dispute)


@router.post("/disputes/{dispute_id}/review")
@allows(Role.SUPPORT, Role.FINANCE)
async def review_dispute(
    dispute_id: DisputeId, body: WordsBody, session: Database, caller: Authenticated, now: Now
) -> DisputeAnswer:
    """Begin to look into an open case."""
    dispute = await operations.start_review(
        session, dispute_id=dispute_id, text=body.text, actor=caller.actor, now=now
    )
    return _answer(dispute)


@router.post("/disputes/{dispute_id}/decide")
@allows(Role.FINANCE)
async def decide_dispute(
    dispute_id: DisputeId,
    body: DecisionBody,
    *,
    session: Database,
    services: Given,
    caller: Authenticated,
    now: Now,
) -> DisputeAnswer:
    """Decide a case under review; its requests can be taken out of the count at once."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(services.history.store()) if body.void_requests else None
        dispute = await operations.decide(
            session,
            dispute_id=dispute_id,
            decision=body.decision,
            explanation=body.explanation,
            void_in=store,
            void_only=body.void_only,
            actor=caller.actor,
            now=now,
        )
    return _answer(dispute)


@router.post("/disputes/{dispute_id}/close")
@allows(Role.SUPPORT, Role.FINANCE)
async def close_dispute(
    dispute_id: DisputeId, body: WordsBody, session: Database, caller: Authenticated, now: Now
) -> DisputeAnswer:
    """Close a decided case."""
    dispute = await operations.close_dispute(
        session, dispute_id=dispute_id, text=body.text, actor=caller.actor, now=now
    )
    return _answer(dispute)


@router.post("/disputes/{dispute_id}/reopen")
@allows(Role.SUPPORT, Role.FINANCE)
async def reopen_dispute(
    dispute_id: DisputeId, body: WordsBody, session: Database, caller: Authenticated, now: Now
) -> DisputeAnswer:
    """Take a decided or closed case up again."""
    dispute = await operations.reopen_dispute(
        session, dispute_id=dispute_id, text=body.text, actor=caller.actor, now=now
    )
    return _answer(dispute)


async def _select(
    services: Services, wanted: SelectionBody, *, account_id: str, now: datetime
) -> Sequence[UsageEvent]:
    start, end = wanted.span(now)
    span = EventSpan(account_id=account_id, start=start, end=end)
    async with services.history.store() as store:
        events = await find_events(store, span, wanted.filters(), newest_first=False, limit=MAX_REQUESTS + 1)
    if len(events) > MAX_REQUESTS:
        raise TooManyDisputedRequestsError
    found = {event.event_id for event in events}, {event.request_id for event in events}
    for ids, known in zip((wanted.event_ids, wanted.request_ids), found, strict=True):
        missing = next((one for one in ids if one not in known), None)
        if missing is not None:
            raise NotFoundError("request", missing)
    return events


def _selection(wanted: SelectionBody, now: datetime) -> dict[str, Any]:
    start, end = wanted.span(now)
    return {"start": start.isoformat(), "end": end.isoformat(), **wanted.filters().as_dict()}


def _answer(dispute: Dispute) -> DisputeAnswer:
    return DisputeAnswer.model_validate(dispute)


def _step(row: DisputeStep) -> DisputeStepAnswer:
    return DisputeStepAnswer.model_validate(row)


def _request(row: DisputedRequest) -> DisputedRequestAnswer:
    event = EventAnswer.model_validate({**row.event, "occurred_at": row.occurred_at})
    return DisputedRequestAnswer(added_in_step=row.added_in_step, event=event)
