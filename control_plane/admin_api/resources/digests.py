"""Digests of sealed hours, and proofs that events are in them: what `km verify` reads."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, StringConstraints

from control_plane.accounts.queries import account
from control_plane.admin_api.access import reads_only
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import (
    Answer,
    Moment,
    PageAnswer,
    PageQuery,
    PrintableText,
    StrictBody,
    page_answer,
)
from control_plane.admin_api.resources.completeness import AccountIdField
from control_plane.admin_api.resources.usage import SpanQuery
from control_plane.admin_api.services import Given, Now
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.digests import proofs, queries
from control_plane.usage.digests.proofs import MAX_EVENTS, Absence, WantedEvent
from control_plane.usage.model import EARLIEST_MS, LATEST_MS

router = APIRouter(tags=["completeness"])

Text = Annotated[str, StringConstraints(min_length=1, max_length=600), PrintableText]


Sequence = Annotated[int, Field(ge=1, lt=2**63)]


class DigestsQuery(SpanQuery, PageQuery):
    """Whose, and of which hours; or a part of the chain, whatever hours its links are of."""

    account_id: AccountIdField
    first: Annotated[
        Sequence | None, Field(description="From this link of the chain; start and end are left out.")
    ] = None
    last: Annotated[Sequence | None, Field(description="Up to this link, itself included; with `first` only.")] = (
        None
    )


class DigestAnswer(Answer):
    """What one hour of an account was sealed with. Texts of hashes are lower-case hex."""

    account_id: str
    sequence: int = Field(description="Counts the account's digests from 1.")
    hour: Moment
    revision: int
    events: int
    root: str = Field(description="Root of the Merkle tree (RFC 6962) over the hour's events.")
    previous: str = Field(description="The digest before this one; zeros before the first.")
    digest: str = Field(description="SHA-256 over all of the above.")
    created_at: Moment


class EventForm(StrictBody):
    """An event by its id, with the moment of the call, which names its hour."""

    event_id: Text
    decided_at_ms: Annotated[int, Field(strict=True, ge=EARLIEST_MS, lt=LATEST_MS)]


class ProofsForm(StrictBody):
    """Which events are to be proved, by receipts or ids: together at most 500, of at most 48 hours."""

    account_id: AccountIdField
    receipts: Annotated[list[Text], Field(max_length=MAX_EVENTS)] = Field(default_factory=list)
    events: Annotated[list[EventForm], Field(max_length=MAX_EVENTS)] = Field(default_factory=list)


class ProofAnswer(Answer):
    """The leaf of an event, and the hashes beside its way to the root, from the bottom up."""

    event_id: str
    leaf: str
    index: int
    size: int
    path: list[str]
    digest: DigestAnswer


class AbsenceAnswer(Answer):
    event_id: str
    hour: Moment
    reason: Absence


class ProofsAnswer(BaseModel):
    items: list[ProofAnswer]
    absent: list[AbsenceAnswer]


@router.get("/usage/digests")
async def list_digests(
    session: Database, now: Now, query: Annotated[DigestsQuery, Query()]
) -> PageAnswer[DigestAnswer]:
    """List an account's digests of the hours in [start, end), or a part of their chain, in the chain's order."""
    await account(session, query.account_id)
    start, end = query.span(now)
    page = await queries.digests(
        session,
        account_id=query.account_id,
        wanted=queries.Links(query.first, query.last) if query.first else queries.Hours(start, end),
        cursor=query.cursor,
        limit=query.limit,
    )
    return page_answer(page, DigestAnswer.model_validate)


@router.post("/usage/digests/proofs")
@reads_only
async def prove_events(session: Database, services: Given, form: ProofsForm) -> ProofsAnswer:
    """Prove that events are in the digests of their hours. Changes nothing: every role may ask."""
    await account(session, form.account_id)
    wanted = proofs.wanted_events(form.account_id, form.receipts)
    wanted = sorted({*wanted, *(WantedEvent(event.event_id, event.decided_at_ms) for event in form.events)})
    if not wanted:
        raise ValidationFailedError("receipts", "name at least one receipt or event")
    async with services.history.store() as store:
        found = await proofs.prove_events(session, store, account_id=form.account_id, wanted=wanted)
    return ProofsAnswer(
        items=[ProofAnswer.model_validate(proof) for proof in found.found],
        absent=[AbsenceAnswer.model_validate(absence) for absence in found.absent],
    )
