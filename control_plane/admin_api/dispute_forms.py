"""Forms of disputes: what a case is opened with and decided by, and what the API shows of it."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import Field, StringConstraints

from control_plane.admin_api.forms import Answer, Line, Moment, Name, PageQuery, PrintableText, StrictBody
from control_plane.admin_api.request_forms import STATUS_TEXT, AccountIdText, EventAnswer
from control_plane.admin_api.resources.usage import MAX_SPAN, SpanQuery, Word
from control_plane.usage.requests.disputes.model import MAX_TEXT, Decision, DisputeStatus, Step
from control_plane.usage.requests.model import EventFilters
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome

MAX_IDS = 1_000
DisputeId = Annotated[str, Path(pattern=r"^dsp_[0-9a-hjkmnp-tv-z]{26}$", description="The dispute's id.")]
RequestWord = Annotated[str, StringConstraints(min_length=1, max_length=200), PrintableText]
# as people write: line breaks stay, control characters that no text has do not
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
FullText = Annotated[Text, StringConstraints(strip_whitespace=True, min_length=1)]


class SelectionBody(SpanQuery):
    """Which requests of the account: by id, or all that the filters find. At most 10,000 in a case.

    With ids everything that is kept is searched unless start or end is given.
    """

    event_ids: Annotated[list[RequestWord], Field(max_length=MAX_IDS)] = []  # noqa: RUF012 - pydantic copies defaults
    request_ids: Annotated[list[RequestWord], Field(max_length=MAX_IDS)] = []  # noqa: RUF012 - pydantic copies defaults
    product: Word = ""
    key_id: Word = ""
    endpoint: Word = ""
    mode: Mode | None = None
    outcome: Outcome | None = None
    status: Annotated[str, Field(pattern=f"{STATUS_TEXT}|^$", description="`404`, `4xx` or `400-428`.")] = ""

    def span(self, now: datetime) -> tuple[datetime, datetime]:
        """Return start and end."""
        if (self.event_ids or self.request_ids) and self.start is None and self.end is None:
            return now - MAX_SPAN, now
        return super().span(now)

    def filters(self) -> EventFilters:
        """Return what is looked for."""
        return EventFilters(
            event_ids=tuple(dict.fromkeys(self.event_ids)),
            request_ids=tuple(dict.fromkeys(self.request_ids)),
            product=self.product,
            key_id=self.key_id,
            endpoint=self.endpoint,
            mode=self.mode or "",
            outcome=self.outcome or "",
        ).with_statuses(self.status)


class DisputeBody(StrictBody):
    """What the customer says, and the requests it is about."""

    account_id: AccountIdText
    subject: Name
    reason: Text = ""
    period_text: Annotated[Line, Field(description="The disputed period, as the customer says.")] = ""
    amount_text: Annotated[Line, Field(description="The disputed amount, as the customer says.")] = ""
    requests: SelectionBody | None = None


class NoteBody(StrictBody):
    text: FullText
    internal: Annotated[bool, Field(strict=True, description="Left out of the file for the customer.")] = False


class WordsBody(StrictBody):
    text: Text = ""


class DecisionBody(StrictBody):
    """What came of it. With `void_requests` the case's requests count nothing from then on, or `void_only`."""

    decision: Decision
    explanation: FullText
    void_requests: Annotated[bool, Field(strict=True)] = False
    void_only: Annotated[list[RequestWord], Field(max_length=MAX_IDS, description="Event ids.")] = []  # noqa: RUF012 - pydantic copies defaults


class DisputesQuery(PageQuery):
    account_id: AccountIdText | None = None
    status: DisputeStatus | None = None


class DisputeAnswer(Answer):
    """One case, as it stands."""

    id: str
    account_id: str
    status: DisputeStatus
    subject: str
    reason: str
    period_text: str
    amount_text: str
    opened_by: str
    opened_at: Moment
    decision: Decision | None
    explanation: str
    decided_at: Moment | None
    request_count: int
    steps: int = Field(description="Entries of its trail.")


class DisputedHourAnswer(Answer):
    """An hour that requests of the case are counted in."""

    hour: Moment
    requests: int
    revision: int
    sealed_at: Moment | None
    root: str = Field(description="Merkle root over the hour's events at its newest digest; empty without one.")


class DisputedHoursAnswer(Answer):
    items: list[DisputedHourAnswer]


class DisputeStepAnswer(Answer):
    """One entry of a trail; it is never changed."""

    number: int
    at: Moment
    author: str
    step: Step
    text: str
    internal: bool
    status_before: DisputeStatus | None
    status_after: DisputeStatus
    details: dict[str, Any]


class DisputedRequestAnswer(Answer):
    """A request as it was stored when it was added."""

    added_in_step: int
    event: EventAnswer
