"""Corrections of usage: voided events, amended hours, and their withdrawals."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field, StringConstraints

from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import (
    Answer,
    Code,
    Moment,
    PageAnswer,
    PageQuery,
    PrintableText,
    StrictBody,
    page_answer,
)
from control_plane.admin_api.services import Given, Now
from control_plane.usage.corrections.amending import AmendedPlace, amend_hour, withdraw_amendment
from control_plane.usage.corrections.queries import AmendmentRecord, VoidRecord, list_amendments, list_voids
from control_plane.usage.corrections.tables import UsageWithdrawal
from control_plane.usage.corrections.voiding import void_event, withdraw_void
from control_plane.usage.extra_units import EXTRA_UNITS
from control_plane.usage.model import MAX_UNITS

router = APIRouter(prefix="/usage", tags=["usage corrections"])

_ID = r"_[0-9a-hjkmnp-tv-z]{26}$"
VoidId = Annotated[str, Path(pattern="^uvd" + _ID, description="The void's id.")]
AmendmentId = Annotated[str, Path(pattern="^uam" + _ID, description="The amendment's id.")]
OfAccount = Annotated[str, StringConstraints(pattern="^acc" + _ID)]
Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000), PrintableText,
    Field(examples=["The upstream served stale data; ticket 4711."]),
]  # fmt: skip
Word = Annotated[str, StringConstraints(max_length=300), PrintableText]
Units = Annotated[int, Field(strict=True, ge=-MAX_UNITS, le=MAX_UNITS)]
Hour = Annotated[Moment, Field(description="The hour, a full one.", examples=["2026-11-23T09:00:00Z"])]


class CorrectionsQuery(PageQuery):
    """Which corrections; left out is any."""

    account_id: Annotated[OfAccount | None, Field(description="Only one account.")] = None
    hour: Annotated[Moment | None, Field(description="Only one hour.")] = None


class WithdrawCorrection(StrictBody):
    reason: Reason


class VoidEvent(StrictBody):
    account_id: OfAccount
    hour: Hour
    event_id: Annotated[str, StringConstraints(min_length=1, max_length=200), PrintableText]
    reason: Reason


class AmendHour(StrictBody):
    """Amounts to add; below zero they are taken away."""

    account_id: OfAccount
    hour: Hour
    product: Code
    phase_id: Annotated[
        Word | None, Field(description="The subscription's phase; needed where the hour has several.")
    ] = None
    key_id: Word = ""
    endpoint: Word = ""
    calls: Annotated[Units, Field(description="Billable calls. Quota units are `meters.requests`.")] = 0
    meters: Annotated[
        dict[Annotated[str, StringConstraints(min_length=1, max_length=100)], Units],
        Field(max_length=20, description="Units by meter.", examples=[{"requests": -12, "tokens": -5300}]),
    ] = {}  # noqa: RUF012 - pydantic copies defaults
    reference: Annotated[
        str | None,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
        Field(description="Your own name for it, once in an account: sent again, it changes nothing."),
    ] = None
    reason: Reason


class WithdrawalAnswer(Answer):
    reason: str
    author: str
    created_at: Moment


class VoidAnswer(Answer):
    """An event that counts nothing, unless `withdrawal` says that it does again."""

    id: str
    account_id: str
    hour: Moment
    event_id: str
    reason: str
    author: str
    created_at: Moment
    withdrawal: WithdrawalAnswer | None


class AmendmentAnswer(Answer):
    """Amounts added to what is billable of an hour, unless `withdrawal` says that they are not any more."""

    id: str
    account_id: str
    hour: Moment
    phase_id: str
    product: str
    key_id: str
    endpoint: str
    calls: int
    meters: dict[str, int]
    reference: str | None
    reason: str
    author: str
    created_at: Moment
    withdrawal: WithdrawalAnswer | None


@router.get("/voids")
async def list_usage_voids(
    session: Database, query: Annotated[CorrectionsQuery, Query()]
) -> PageAnswer[VoidAnswer]:
    """List voided events, the last one first, withdrawn ones too."""
    page = await list_voids(
        session, account_id=query.account_id, hour=query.hour, cursor=query.cursor, limit=query.limit
    )
    return page_answer(page, _void)


@router.post("/voids", status_code=201)
async def void_usage_event(
    body: VoidEvent, session: Database, services: Given, caller: Authenticated, now: Now
) -> VoidAnswer:
    """Have one event count nothing, from now on and in its hour's next revision. Repeatable.

    It stays in the request history. Events that may have expired cannot be voided: amend their hour.
    """
    async with services.history.store() as store:
        void = await void_event(
            session,
            store,
            account_id=body.account_id,
            hour=body.hour,
            event_id=body.event_id,
            reason=body.reason,
            actor=caller.actor,
            now=now,
        )
    return _void(VoidRecord(void, None))


@router.post("/voids/{void_id}/withdraw")
async def withdraw_usage_void(
    void_id: VoidId, body: WithdrawCorrection, session: Database, caller: Authenticated, now: Now
) -> VoidAnswer:
    """Let a voided event count again. Repeatable."""
    record = await withdraw_void(session, void_id=void_id, reason=body.reason, actor=caller.actor, now=now)
    return _void(record)


@router.get("/amendments")
async def list_usage_amendments(
    session: Database, query: Annotated[CorrectionsQuery, Query()]
) -> PageAnswer[AmendmentAnswer]:
    """List amendments, the last one first, withdrawn ones too."""
    page = await list_amendments(
        session, account_id=query.account_id, hour=query.hour, cursor=query.cursor, limit=query.limit
    )
    return page_answer(page, _amendment)


@router.post("/amendments", status_code=201)
async def amend_usage(body: AmendHour, session: Database, caller: Authenticated, now: Now) -> AmendmentAnswer:
    """Add to what is billable of an hour, or take from it; never below zero. Repeatable with a `reference`."""
    row = await amend_hour(
        session,
        place=AmendedPlace(
            account_id=body.account_id,
            hour=body.hour,
            product=body.product,
            phase_id=body.phase_id,
            key_id=body.key_id,
            endpoint=body.endpoint,
        ),
        calls=body.calls,
        meters=body.meters,
        reason=body.reason,
        reference=body.reference,
        actor=caller.actor,
        now=now,
        extra_units=EXTRA_UNITS,
    )
    return _amendment(AmendmentRecord(row, None))


@router.post("/amendments/{amendment_id}/withdraw")
async def withdraw_usage_amendment(
    amendment_id: AmendmentId, body: WithdrawCorrection, session: Database, caller: Authenticated, now: Now
) -> AmendmentAnswer:
    """Take an amendment back. Repeatable."""
    record = await withdraw_amendment(
        session,
        amendment_id=amendment_id,
        reason=body.reason,
        actor=caller.actor,
        now=now,
        extra_units=EXTRA_UNITS,
    )
    return _amendment(record)


def _withdrawal(row: UsageWithdrawal | None) -> WithdrawalAnswer | None:
    return None if row is None else WithdrawalAnswer.model_validate(row)


def _void(record: VoidRecord) -> VoidAnswer:
    void = record.void
    return VoidAnswer(
        id=void.id,
        account_id=void.account_id,
        hour=void.hour,
        event_id=void.event_id,
        reason=void.reason,
        author=void.author,
        created_at=void.created_at,
        withdrawal=_withdrawal(record.withdrawal),
    )


def _amendment(record: AmendmentRecord) -> AmendmentAnswer:
    row = record.amendment
    return AmendmentAnswer(
        id=row.id,
        account_id=row.account_id,
        hour=row.hour,
        phase_id=row.phase_id,
        product=row.product,
        key_id=row.key_id,
        endpoint=row.endpoint,
        calls=row.calls,
        meters=row.meters,
        reference=row.reference,
        reason=row.reason,
        author=row.author,
        created_at=row.created_at,
        withdrawal=_withdrawal(record.withdrawal),
    )
