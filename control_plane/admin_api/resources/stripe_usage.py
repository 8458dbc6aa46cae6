"""Usage on its way to Stripe: how far it is, what Stripe would not count, and sending it once more."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field, StringConstraints, model_validator

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
from control_plane.admin_api.resources.completeness import AccountIdField
from control_plane.admin_api.services import Now
from control_plane.admin_api.stripe_access import StripeGiven
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import ValidationFailedError
from control_plane.stripe_sync.usage.comparing import SummaryDifference, compare_summaries, differing_hours
from control_plane.stripe_sync.usage.listing import RowFilter, list_errors, list_rows
from control_plane.stripe_sync.usage.measuring import progress_by_meter
from control_plane.stripe_sync.usage.model import RowState
from control_plane.stripe_sync.usage.operations import Assume, Outcome, Retried, retry_rows
from control_plane.stripe_sync.usage.refusals import alarm_for
from control_plane.stripe_sync.usage.replaying import replay_missing
from control_plane.stripe_sync.usage.tables import StripeUsageError

router = APIRouter(prefix="/stripe", tags=["stripe"])
SubscriptionIdField = Annotated[str, StringConstraints(pattern=r"^sub_[0-9a-hjkmnp-tv-z]{26}$")]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000), PrintableText]


class WhichRows(StrictBody):
    """Which rows; what is left out is not asked for."""

    state: Annotated[RowState | None, Field(description="What became of them.")] = None
    account_id: AccountIdField | None = None
    subscription_id: SubscriptionIdField | None = None
    meter: Annotated[Code | None, Field(description="A meter's code.")] = None
    start: Annotated[Moment | None, Field(description="Hours from here on.")] = None
    end: Annotated[Moment | None, Field(description="Hours before.")] = None

    def as_filter(self) -> RowFilter:
        return RowFilter(**{name: getattr(self, name) for name in WhichRows.model_fields})


class UsageRowsQuery(WhichRows, PageQuery):
    """Which rows."""


class UsageRowAnswer(Answer):
    """A row of sealed usage: what a seal changed of an hour's units of a phase and meter."""

    account_id: str
    subscription_id: str
    phase_id: str
    meter: str
    hour: Moment
    revision: int
    delta_units: int = Field(description="Below zero where usage was taken back.")
    state: RowState = Field(description="`sent`: nobody knows whether Stripe has it.")
    reason: str = Field(description="Why it is there; empty where there is nothing to say.")
    error: str = Field(description="What Stripe said.")
    identifier: str | None = Field(description="The event's identifier at Stripe.")
    customer_id: str | None
    stripe_at: Moment | None = Field(description="The moment that the event bears.")
    attempts: int
    sealed_at: Moment
    sent_at: Moment | None
    delivered_at: Moment | None


class MeterProgressAnswer(Answer):
    """Rows of a meter that are not all delivered."""

    meter: str
    waiting_rows: int
    unknown_rows: int = Field(description="Stripe was asked, and nobody knows whether it has them.")
    refused_rows: int
    oldest_sealed_at: Moment | None = Field(description="Of those that are still to go.")


class UsageProgressAnswer(Answer):
    """How far usage is on its way to Stripe; no meters: Stripe has all of it."""

    meters: list[MeterProgressAnswer]


class UsageErrorAnswer(Answer):
    """What Stripe reported of events that it took and does not count."""

    event_id: str
    code: str
    meter_id: str
    error_count: int
    rows_found: int = Field(description="Rows that the report named.")
    rows_doubted: int = Field(description="Rows that were looked up since the report did not name all.")
    sentence: str
    reported_at: Moment
    to_do: str

    @classmethod
    def of(cls, row: StripeUsageError) -> "UsageErrorAnswer":
        fields = {name: getattr(row, name) for name in cls.model_fields if name != "to_do"}
        return cls.model_validate({**fields, "to_do": alarm_for(row.code)})


class RetryBody(WhichRows):
    """Which rows, and why."""

    assume: Annotated[
        Assume | None, Field(description="Take rows of unknown outcome for this: somebody has looked.")
    ] = None
    dry_run: Annotated[bool, Field(strict=True, description="Only say what would be done.")] = False
    reason: Reason


class RetriedAnswer(Answer):
    """A row as it stood, and what becomes of it."""

    account_id: str
    meter: str
    hour: Moment
    revision: int
    delta_units: int
    state: RowState
    reason: str
    outcome: Outcome

    @classmethod
    def of(cls, one: Retried) -> "RetriedAnswer":
        place = {name: getattr(one.key, name) for name in ("account_id", "meter", "hour", "revision")}
        told = {name: getattr(one, name) for name in ("delta_units", "state", "reason", "outcome")}
        return cls.model_validate({**place, **told})


class RetriedAnswers(Answer):
    """What was done, or would be."""

    dry_run: bool
    rows: list[RetriedAnswer]


class Window(StrictBody):
    """[start, end) of a subscription; cut to whole minutes."""

    subscription_id: SubscriptionIdField
    start: Moment
    end: Moment

    @model_validator(mode="after")
    def _has_a_length(self) -> "Window":
        if self.start >= self.end:
            raise ValueError("start must be before end")
        return self


class ReplayUsageBody(Window):
    """Where to look, and why."""

    dry_run: Annotated[bool, Field(strict=True, description="Only say what would be sent.")] = False
    reason: Reason


class DifferenceAnswer(Answer):
    """Stripe's summary of [start, end) is not what was delivered."""

    meter: str
    event_name: str
    customer_id: str
    start: Moment
    end: Moment
    delivered_units: int
    stripe_units: int
    units: int = Field(description="How much Stripe has more; below zero: less.")


class DifferencesAnswer(Answer):
    """Differences by meter, and the hours that make them up."""

    differences: list[DifferenceAnswer]
    hours: list[DifferenceAnswer]


@router.get("/usage")
async def get_stripe_usage(session: Database) -> UsageProgressAnswer:
    """Say what usage Stripe does not have yet, or will not count, by meter."""
    return UsageProgressAnswer.model_validate({"meters": await progress_by_meter(session)})


@router.get("/usage/rows")
async def list_stripe_usage_rows(
    session: Database, query: Annotated[UsageRowsQuery, Query()]
) -> PageAnswer[UsageRowAnswer]:
    """List rows of sealed usage and what became of them, account by account in the order of time."""
    page = await list_rows(session, query.as_filter(), cursor=query.cursor, limit=query.limit)
    return page_answer(page, UsageRowAnswer.model_validate)


@router.get("/usage/errors")
async def list_stripe_usage_errors(
    session: Database, query: Annotated[PageQuery, Query()]
) -> PageAnswer[UsageErrorAnswer]:
    """List what Stripe reported of usage that it took and does not count, the newest first."""
    page = await list_errors(session, cursor=query.cursor, limit=query.limit)
    return page_answer(page, UsageErrorAnswer.of)


@router.get("/usage/differences")
async def compare_stripe_usage(stripe: StripeGiven, query: Annotated[Window, Query()]) -> DifferencesAnswer:
    """Compare Stripe's summaries with what was delivered of a subscription's usage; asks Stripe."""
    found = await compare_summaries(
        stripe.sessions,
        stripe.stripe,
        subscription_id=query.subscription_id,
        start=query.start,
        end=query.end,
    )
    hours: list[SummaryDifference] = []
    for one in found:
        hours += await differing_hours(stripe.sessions, stripe.stripe, one)
    return DifferencesAnswer.model_validate({"differences": found, "hours": hours})


@router.post("/usage/retry")
async def retry_stripe_usage(
    session: Database, body: RetryBody, caller: Authenticated, now: Now
) -> RetriedAnswers:
    """Have rows tried once more, up to 1,000: refused ones under another identifier, others as they are.

    What is delivered, or ours to bill, is left. Nothing can be counted twice by this, but by `assume: missing`.
    """
    found = await retry_rows(
        session,
        body.as_filter(),
        assume=body.assume,
        dry_run=body.dry_run,
        reason=body.reason,
        actor=caller.actor,
        now=now,
    )
    return RetriedAnswers(dry_run=body.dry_run, rows=[RetriedAnswer.of(one) for one in found])


@router.post("/usage/replay")
async def replay_stripe_usage(
    stripe: StripeGiven, body: ReplayUsageBody, caller: Authenticated, now: Now
) -> RetriedAnswers:
    """Send delivered rows anew that Stripe's summaries lack; only those that make up exactly what is lacking."""
    if floor_hour(body.start) >= now:
        raise ValidationFailedError("start", "must not lie ahead")
    found = await replay_missing(
        stripe.sessions,
        stripe.stripe,
        subscription_id=body.subscription_id,
        start=body.start,
        end=body.end,
        dry_run=body.dry_run,
        reason=body.reason,
        actor=caller.actor,
        now=now,
    )
    return RetriedAnswers(dry_run=body.dry_run, rows=[RetriedAnswer.of(one) for one in found])
