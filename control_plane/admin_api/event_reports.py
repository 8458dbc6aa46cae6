"""`POST /ingest/v1/events`: application events as CloudEvents, one or many."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from control_plane.admin_api.access import Reporter
from control_plane.admin_api.event_report_form import BODIES
from control_plane.admin_api.problems import Problem, problem_response
from control_plane.admin_api.services import Given, Ingest
from control_plane.usage.ingest import metrics
from control_plane.usage.ingest.envelope import (
    BATCH,
    SINGLE,
    EnvelopeError,
    Form,
    Sent,
    Unreadable,
    form_of,
    read_body,
)
from control_plane.usage.ingest.model import MAX_SENT_BYTES, Outcome, ReportedEvent, Verdict
from control_plane.usage.ingest.rate_limit import RateLimit, Taken
from control_plane.usage.ingest.writer import IngestUnavailableError
from gateway_contract.headers import RATE_LIMIT, RATE_LIMIT_POLICY, RETRY_AFTER

router = APIRouter(prefix="/ingest/v1", tags=["ingest"])
# what is inflated and decoded beside the event loop: less is quicker done than handed over
LARGE_BYTES = 16 * 1024
_LIMIT_NAME = "events"
_STATUS = {
    Unreadable.BROKEN: (400, "body_unreadable"),
    Unreadable.TOO_LARGE: (413, "body_too_large"),
    Unreadable.TYPE: (415, "unsupported_media_type"),
    Unreadable.ENCODING: (415, "unsupported_encoding"),
}
_ACCEPTED = {"Accept-Post": f"{SINGLE}, {BATCH}", "Accept-Encoding": "gzip, identity"}


class EventResult(BaseModel):
    """What became of one event."""

    index: int = Field(description="Its place in the request, from 0.")
    id: str | None = Field(description="Its id, where it can be told.")
    result: Literal["accepted", "duplicate", "conflict", "rejected"]
    code: str = Field(description="Why it was not taken; empty where it was, or was before.")
    message: str = Field(description="The same for people.")


class EventsAnswer(BaseModel):
    """`duplicates` were taken before and count once; `conflicts` are known with other content, which stays."""

    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    results: list[EventResult] = Field(description="One for each event, in the order in which they were sent.")


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": EventsAnswer, "description": "Every event was taken, now or before."},
    207: {"model": EventsAnswer, "description": "Of a batch, some events were not taken: `results` says why."},
    **{
        status: {"model": Problem, "description": description}
        for status, description in {
            400: "The body cannot be read.",
            401: "No valid token.",
            403: "The token's role may not report events.",
            409: "The event is known with other content, which stays.",
            413: "Too many bytes or events, as sent or inflated.",
            415: "The body's media type or encoding is not taken.",
            422: "The event was not taken; `code` says why.",
            429: "The token has sent too many events. Send again after `Retry-After` seconds.",
            503: "Nothing was kept. Send again after `Retry-After` seconds.",
        }.items()
    },
}


@router.post("/events", response_class=Response, responses=_RESPONSES, openapi_extra=BODIES)
async def report_events(request: Request, services: Given, caller: Reporter) -> Response:
    """Take in events that an application reports: something was sold that is no call.

    Repeatable: an event is known by its `source` and `id`, and counts once however often it is sent. Of a batch
    each event is judged by itself. Once this answers 200 or 207, what is `accepted` will not be lost.
    """
    if services.ingest is None:
        return _unavailable("ingest_unavailable", "This process takes no events.")
    try:
        sent = await _read(request)
    except EnvelopeError as error:
        status, code = _STATUS[error.kind]
        return problem_response(status, code, error.message, headers=_ACCEPTED if status == 415 else None)  # noqa: PLR2004 - named beside it
    taken = await services.ingest.limiter.take(caller.token_id, max(1, len(sent.events)))
    headers = _limit_headers(services.ingest.limiter.limit, taken)
    if taken is not None and not taken.allowed:
        metrics.REFUSED.labels("rate_limited").inc()
        headers[RETRY_AFTER] = str(max(1, math.ceil(taken.wait_seconds)))
        message = "The token has sent too many events. Send these again later."
        return problem_response(429, "too_many_events", message, headers=headers)
    try:
        verdicts = await _submit(services.ingest, sent)
    except IngestUnavailableError as error:
        return _unavailable(error.code, error.message)
    return _answer(sent, verdicts, headers)


async def _read(request: Request) -> Sent:
    headers = request.headers
    form = form_of(headers.get("content-type", ""), has_attributes="ce-specversion" in headers)
    encoding = ",".join(headers.getlist("content-encoding"))
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_SENT_BYTES:
            raise EnvelopeError(
                Unreadable.TOO_LARGE, f"A body may have at most {MAX_SENT_BYTES:,} bytes, as sent."
            )
        parts.append(part)
    body, fields = b"".join(parts), headers.items()
    if size > LARGE_BYTES:
        return await asyncio.to_thread(read_body, body, encoding=encoding, form=form, headers=fields)
    return read_body(body, encoding=encoding, form=form, headers=fields)


async def _submit(ingest: Ingest, sent: Sent) -> list[Verdict]:
    """Return a verdict for each event, in order."""
    judged = iter(await ingest.writer.submit([event for event in sent.events if isinstance(event, ReportedEvent)]))
    verdicts = [next(judged) if isinstance(event, ReportedEvent) else event for event in sent.events]
    for verdict in verdicts:
        metrics.EVENTS.labels(verdict.outcome.value).inc()
    return verdicts


def _answer(sent: Sent, verdicts: Sequence[Verdict], headers: Mapping[str, str]) -> Response:
    counts = {outcome: sum(verdict.outcome is outcome for verdict in verdicts) for outcome in Outcome}
    all_taken = not counts[Outcome.CONFLICT] and not counts[Outcome.REJECTED]
    if sent.form is not Form.BATCH and not all_taken:
        # who sends single events looks at the status alone
        verdict = verdicts[0]
        status = 409 if verdict.outcome is Outcome.CONFLICT else 422
        return problem_response(status, verdict.code or "", verdict.message, headers=headers)
    results = [
        {
            "index": index,
            "id": event_id,
            "result": verdict.outcome.value,
            "code": verdict.code or "",
            "message": verdict.message,
        }
        for index, (event_id, verdict) in enumerate(zip(sent.ids, verdicts, strict=True))
    ]
    body = {
        "accepted": counts[Outcome.ACCEPTED],
        "duplicates": counts[Outcome.DUPLICATE],
        "conflicts": counts[Outcome.CONFLICT],
        "rejected": counts[Outcome.REJECTED],
        "results": results,
    }
    status = 200 if all_taken else 207
    return Response(msgspec.json.encode(body), status, dict(headers), "application/json")


def _unavailable(code: str, message: str) -> Response:
    metrics.REFUSED.labels(code).inc()
    return problem_response(503, code, message, headers={RETRY_AFTER: "1"})


def _limit_headers(limit: RateLimit, taken: Taken | None) -> dict[str, str]:
    """Return the IETF RateLimit fields; `t` says in how many seconds the allowance is full again."""
    if taken is None:
        return {}
    full_in = math.ceil((limit.burst_events - taken.left) / limit.events_per_second)
    return {
        RATE_LIMIT_POLICY: f'"{_LIMIT_NAME}";q={limit.burst_events};qu="events";w={limit.window_seconds}',
        RATE_LIMIT: f'"{_LIMIT_NAME}";r={taken.left};t={full_in}',
    }
