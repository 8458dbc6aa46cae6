"""Lines that could not become events of anybody: to be looked at, replayed and dismissed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field, StringConstraints

from control_plane.admin_api.access import Authenticated, reader_of_requests
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
from control_plane.admin_api.services import Given, Now
from control_plane.foundation.errors import ConflictError
from control_plane.usage.dead_letters.model import Letter, LetterState
from control_plane.usage.dead_letters.operations import dismiss_letters, replay_letters
from control_plane.usage.dead_letters.queries import find_letter, list_letters
from control_plane.usage.store.dead_letters import MAX_REASON_LENGTH

router = APIRouter(tags=["dead letters"], dependencies=[Depends(reader_of_requests)])
MAX_LETTERS = 200
LETTER_ID = r"^dl_[0-9a-f]{32}$"
LetterId = Annotated[str, Path(pattern=LETTER_ID, description="The dead letter's id.")]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000), PrintableText]


class ReplayUnavailableError(ConflictError):
    """This process was not given the gateway's secrets."""

    def __init__(self) -> None:
        super().__init__("replay_unavailable", "This server cannot replay lines.")


class LettersQuery(PageQuery):
    """Which letters."""

    state: LetterState | None = None
    reason: Annotated[
        str,
        StringConstraints(max_length=MAX_REASON_LENGTH),
        Field(description="A part of the reason."),
        PrintableText,
    ] = ""
    shipper_id: Annotated[
        str, StringConstraints(max_length=200), Field(description="Only of one shipper."), PrintableText
    ] = ""


class HandleBody(StrictBody):
    """Which letters, and why."""

    letter_ids: Annotated[
        list[Annotated[str, StringConstraints(pattern=LETTER_ID)]], Field(min_length=1, max_length=MAX_LETTERS)
    ]
    reason: Reason


class LetterAnswer(Answer):
    """A line that could not become an event of anybody."""

    id: str
    received_at: Moment
    shipper_id: str = Field(description="Who shipped it; `-` where that is not known.")
    segment: str = Field(description="Its place: the spool segment, the stream entry or the request.")
    start_offset: int
    number: int
    first_reason: str = Field(description="Why it was set aside.")
    state: LetterState
    attempts: int = Field(description="How often it was replayed.")
    result: str = Field(description="Why the last replay failed; empty where it did not.")
    account_id: str = Field(description="Whose event it became.")
    event_id: str = Field(description="Which event it became.")
    reason: str = Field(description="Why it was replayed or dismissed last.")
    author: str
    handled_at: Moment | None

    @classmethod
    def of(cls, letter: Letter) -> "LetterAnswer":
        """Return the letter without its text."""
        return cls.model_validate(_fields(letter))


class LetterTextAnswer(LetterAnswer):
    """A dead letter with its line."""

    text: str = Field(description="The line, without API keys; cut at 16,384 characters.")


class LettersAnswer(Answer):
    items: list[LetterAnswer]


def _fields(letter: Letter) -> dict[str, object]:
    stored, handling = letter.stored, letter.handling
    place = ("id", "received_at", "shipper_id", "segment", "start_offset", "number")
    done = ("state", "attempts", "result", "account_id", "event_id", "reason", "author", "handled_at")
    return {
        **{name: getattr(stored, name) for name in place},
        "first_reason": stored.reason,
        **{name: getattr(handling, name) for name in done},
    }


@router.get("/dead-letters")
async def get_dead_letters(
    session: Database, services: Given, query: Annotated[LettersQuery, Query()]
) -> PageAnswer[LetterAnswer]:
    """List lines that were set aside, newest first.

    A page of one state may hold fewer than `limit` and have a cursor all the same.
    """
    async with services.history.store() as store:
        page = await list_letters(
            session,
            store,
            state=query.state,
            reason=query.reason,
            shipper_id=query.shipper_id,
            cursor=query.cursor,
            limit=query.limit,
        )
    return page_answer(page, LetterAnswer.of)


@router.get("/dead-letters/{letter_id}")
async def get_dead_letter(session: Database, services: Given, letter_id: LetterId) -> LetterTextAnswer:
    """Show a line that was set aside."""
    async with services.history.store() as store:
        letter = await find_letter(session, store, letter_id=letter_id)
    return LetterTextAnswer.model_validate({**_fields(letter), "text": letter.stored.text})


@router.post("/dead-letters/replay")
async def replay_dead_letters(
    session: Database, services: Given, body: HandleBody, caller: Authenticated, now: Now
) -> LettersAnswer:
    """Put lines through the collector's path again, up to 200 at once.

    What is an event by now (its gateway's secret is known now, say) is stored and counted, however often it is
    replayed; what is not stays open, with the new reason in `result`.
    """
    catalog = services.usage_catalog
    if catalog is None:
        raise ReplayUnavailableError
    await catalog.refresh()
    async with services.history.store() as store:
        letters = await replay_letters(
            session,
            store,
            letter_ids=body.letter_ids,
            attribution=catalog.attribution(),
            kept=catalog.kept(),
            reason=body.reason,
            actor=caller.actor,
            now=now,
        )
    return LettersAnswer(items=[LetterAnswer.of(letter) for letter in letters])


@router.post("/dead-letters/dismiss")
async def dismiss_dead_letters(
    session: Database, services: Given, body: HandleBody, caller: Authenticated, now: Now
) -> LettersAnswer:
    """Say that nothing is to be done about lines, up to 200 at once. They can be replayed all the same."""
    async with services.history.store() as store:
        letters = await dismiss_letters(
            session, store, letter_ids=body.letter_ids, reason=body.reason, actor=caller.actor, now=now
        )
    return LettersAnswer(items=[LetterAnswer.of(letter) for letter in letters])
