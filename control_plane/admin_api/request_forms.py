"""Forms of requests: what is searched by, and what the API shows of a call."""

from dataclasses import asdict
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Path
from pydantic import Field, StringConstraints

from control_plane.admin_api.forms import Answer, Moment, PageQuery, PrintableText
from control_plane.admin_api.resources.usage import MAX_SPAN, SpanQuery, Word
from control_plane.foundation.clock import from_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.requests.detail import IN_WORDS, BillingReason, HourState, RequestDetail
from control_plane.usage.requests.model import EventFilters
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.usage_events import UsageEvent

HOUR = timedelta(hours=1)
STATUS_TEXT = r"^([1-9]xx|[0-9]{1,3}(-[0-9]{1,3})?)$"
EventId = Annotated[
    str,
    Path(min_length=1, max_length=200, description="The event's id, or the `X-Kong-Request-Id`."),
    PrintableText,
]
AccountIdText = Annotated[str, StringConstraints(pattern=r"^acc_[0-9a-hjkmnp-tv-z]{26}$")]


class Order(StrEnum):
    """Which come first."""

    NEWEST = "newest"
    OLDEST = "oldest"


class EventsQuery(SpanQuery, PageQuery):
    """Which calls; empty is any."""

    product: Word = ""
    key_id: Word = ""
    endpoint: Word = ""
    mode: Mode | None = None
    outcome: Outcome | None = None
    request_id: Annotated[Word, Field(description="What the caller quotes: `X-Kong-Request-Id`.")] = ""
    event_id: Annotated[Word, Field(description="The event's own id: the receipt's.")] = ""
    status: Annotated[
        str | None, Field(pattern=STATUS_TEXT, description="`404`, `4xx` or `400-428`.", examples=["5xx"])
    ] = None
    lowest_status: Annotated[int, Field(ge=0, le=999)] = 0
    highest_status: Annotated[int, Field(ge=0, le=999)] = 999
    order: Order = Order.NEWEST

    def span(self, now: datetime) -> tuple[datetime, datetime]:
        """Return start and end; for a named request or event alone, all that is kept."""
        if (self.request_id or self.event_id) and self.start is None and self.end is None:
            return now + HOUR - MAX_SPAN, now + HOUR
        return super().span(now)

    def filters(self) -> EventFilters:
        """Raises ValidationFailedError where the statuses make no sense."""
        found = EventFilters(
            mode=self.mode or "",
            product=self.product,
            key_id=self.key_id,
            endpoint=self.endpoint,
            outcome=self.outcome or "",
            request_id=self.request_id,
            event_id=self.event_id,
            lowest_status=self.lowest_status,
            highest_status=self.highest_status,
        )
        if self.status is None:
            return found
        if {"lowest_status", "highest_status"} & self.model_fields_set:
            raise ValidationFailedError("status", "cannot be combined with lowest_status or highest_status")
        return found.with_statuses(self.status)


class RequestsQuery(EventsQuery):
    """Which calls of which account; empty is any, of all accounts and of nobody."""

    account_id: Annotated[AccountIdText | None, Field(description="Only one account.")] = None
    unattributed: Annotated[bool, Field(description="Only the calls of nobody.")] = False

    def owner(self) -> str | None:
        """Return the account, None for all, '' for nobody's calls."""
        if self.unattributed and self.account_id is not None:
            raise ValidationFailedError("unattributed", "cannot be combined with account_id")
        return "" if self.unattributed else self.account_id


class EventAnswer(Answer):
    """One call, or one reported event. Never a header, a query string or a key."""

    event_id: str
    request_id: str
    occurred_at: Moment
    account_id: str
    key_id: str
    mode: Mode
    product: str
    service: str
    route: str
    endpoint: str
    method: str
    path: str
    status: int
    outcome: Outcome
    units: int
    dimensions: dict[str, int]
    bytes_in: int
    bytes_out: int
    latency_ms: int
    gateway_ms: int
    upstream_ms: int = Field(description="-1 when the upstream was not called.")
    client_ip: str
    flags: list[str]
    emitter: str
    call_number: int
    shipper: str
    subscription_id: str = Field(description="As the collector knew it; no ground for billing.")
    plan: str
    source: str = Field(description="Of a reported event, else empty.")
    event_type: str
    properties: dict[str, str]


class BillingAnswer(Answer):
    """Whether the request is billed, and why."""

    billed: bool
    reason: BillingReason
    text: str
    plan: str = Field(description="The plan in force at that moment; empty without a subscription.")
    plan_version: int
    subscription_id: str
    phase_id: str
    billed_below_status: int = Field(description="The plan bills served answers with a status below this.")


class HourAnswer(Answer):
    """The hour that the request is counted in."""

    hour: Moment
    state: HourState
    revision: int
    aggregated_at: Moment | None
    sealed_at: Moment | None


class RollupRowAnswer(Answer):
    """The row of the rollup that the request is part of."""

    phase_id: str
    product: str
    mode: str
    key_id: str
    endpoint: str
    status: int
    outcome: str
    replayed: bool
    calls: int
    units: int
    billable_calls: int
    billable_units: int
    revision: int


class RequestAnswer(Answer):
    """Everything that is known of one request."""

    event: EventAnswer
    receipt_id: str = Field(description="Empty for a call that came without a receipt of ours.")
    key_name: str
    billing: BillingAnswer
    hour: HourAnswer
    rollup: RollupRowAnswer | None = Field(description="null while the request is not counted yet.")


def event_answer(event: UsageEvent) -> EventAnswer:
    """Return a stored event as the API shows it."""
    values: dict[str, Any] = event.as_dict()
    values["occurred_at"] = from_ms(event.occurred_at_ms)
    return EventAnswer.model_validate(values)


def request_answer(detail: RequestDetail) -> RequestAnswer:
    """Return what is known of a request as the API shows it."""
    phase = detail.phase
    return RequestAnswer(
        event=event_answer(detail.event),
        receipt_id=detail.receipt_id,
        key_name=detail.key_name,
        billing=BillingAnswer(
            billed=detail.billed,
            reason=detail.reason,
            text=IN_WORDS[detail.reason],
            plan=phase.plan if phase else "",
            plan_version=phase.plan_version if phase else 0,
            subscription_id=phase.subscription_id if phase else "",
            phase_id=phase.phase_id if phase else "",
            billed_below_status=phase.billed_below_status if phase else 500,
        ),
        hour=HourAnswer(
            hour=detail.hour,
            state=detail.hour_state,
            revision=detail.hour_revision,
            aggregated_at=detail.aggregated_at,
            sealed_at=detail.sealed_at,
        ),
        rollup=RollupRowAnswer(**asdict(detail.rollup)) if detail.rollup else None,
    )
