"""Usage figures, and the shippers that bring what they are made of."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, StringConstraints

from control_plane.accounts.queries import account
from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import (
    AccountId,
    Answer,
    Moment,
    PrintableText,
    StrictBody,
    SubscriptionId,
)
from control_plane.admin_api.services import Now
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage import operations, queries
from control_plane.usage.periods import period_usage
from control_plane.usage.summary import MAX_GROUPS, GroupBy, usage_as_of, usage_summary
from control_plane.usage.tables import Shipper
from gateway_contract.modes import Mode

router = APIRouter(tags=["usage"])
DEFAULT_SPAN = timedelta(days=30)
MAX_SPAN = timedelta(days=400)
HOUR = timedelta(hours=1)

Word = Annotated[str, StringConstraints(max_length=300), PrintableText]


class SpanQuery(StrictBody):
    """[start, end), the last 30 days by default."""

    start: Annotated[Moment | None, Field(description="From this moment.")] = None
    end: Annotated[Moment | None, Field(description="Up to, but not including, this moment.")] = None

    def span(self, now: datetime) -> tuple[datetime, datetime]:
        """Return start and end.

        Raises:
            ValidationFailedError: the end is not after the start, or more than 400 days after it.
        """
        end = self.end or floor_hour(now) + HOUR
        start = self.start or floor_hour(end - DEFAULT_SPAN)
        if start >= end:
            raise ValidationFailedError("end", "must be after start")
        if end - start > MAX_SPAN:
            raise ValidationFailedError("start", f"must be at most {MAX_SPAN.days} days before end")
        return start, end


class UsageQuery(SpanQuery):
    """Which calls; start and end are full hours."""

    group_by: Annotated[
        list[GroupBy],
        Field(
            min_length=1,
            max_length=MAX_GROUPS,
            description="What figures are split by; repeat it for several.",
        ),
    ] = [GroupBy.ENDPOINT]  # noqa: RUF012 - pydantic copies defaults
    product: Annotated[Word | None, Field(description="Only one API product, by code.")] = None
    key_id: Annotated[Word | None, Field(description="Only one API key.")] = None
    mode: Annotated[Mode | None, Field(description="Only live or only test calls.")] = None
    as_of: Annotated[
        Moment | None, Field(description="Figures as they were sealed at this past moment; now, open ones too.")
    ] = None


class FiguresAnswer(Answer):
    """Sums of one group. Refused calls are counted in `calls`, never in what is billable.

    Amendments are in every sum; grouped by `amendment` they stand apart, and may be below zero.
    """

    by: dict[str, str] = Field(examples=[{"endpoint": "GET /weather/v1/current/{city}", "status": "200"}])
    key_name: str = Field(description="The key's name where grouped by key, else empty.")
    calls: int
    units: int
    billable_calls: int
    billable_units: int
    bytes_in: int
    bytes_out: int
    latency_ms_sum: int
    gateway_ms_sum: int
    upstream_ms_sum: int
    replayed_calls: int = Field(
        description="Answers that the upstream repeated for calls billed before; not billed again."
    )
    replayed_units: int
    reported_events: int = Field(description="Events that applications reported: no calls.")
    dimensions: dict[str, int] = Field(description="Units that upstreams and applications report, by dimension.")
    billable_dimensions: dict[str, int]


class UsageAnswer(BaseModel):
    start: Moment
    end: Moment
    as_of: Moment | None = Field(description="The moment that was asked for; null for figures as they stand.")
    group_by: list[GroupBy]
    items: list[FiguresAnswer]
    open_hours: int = Field(
        description="Hours with usage in the span whose figures can still change, or were not sealed at `as_of`."
    )


class PeriodAnswer(Answer):
    start: Moment
    end: Moment
    figures: dict[str, FiguresAnswer] = Field(description="By mode: `live` and `test`, where there are any.")
    open_hours: int = Field(description="Hours with usage in the period whose figures can still change.")


class PeriodsAnswer(BaseModel):
    items: list[PeriodAnswer]


class ShipperAnswer(Answer):
    shipper_id: str
    shipped_up_to_ms: int
    last_seen_at: Moment
    retired_at: Moment | None


class ShippersAnswer(BaseModel):
    items: list[ShipperAnswer]


@router.get("/accounts/{account_id}/usage")
async def get_usage(
    account_id: AccountId, session: Database, now: Now, query: Annotated[UsageQuery, Query()]
) -> UsageAnswer:
    """Return an account's figures by endpoint, status, key, outcome, mode, product, amendment or unit of time."""
    await account(session, account_id)
    return await _usage(session, query, now, account_id=account_id)


@router.get("/usage")
async def get_all_usage(session: Database, now: Now, query: Annotated[UsageQuery, Query()]) -> UsageAnswer:
    """Return figures of all accounts, with the calls of nobody (no key, unknown key)."""
    return await _usage(session, query, now, account_id=None)


@router.get("/subscriptions/{subscription_id}/usage")
async def get_period_usage(
    subscription_id: SubscriptionId,
    session: Database,
    now: Now,
    limit: Annotated[int, Query(ge=1, le=60, description="How many billing periods.")] = 12,
) -> PeriodsAnswer:
    """Return figures of a subscription's billing periods, the running (or last) one first."""
    periods = await period_usage(session, subscription_id=subscription_id, now=now, limit=limit)
    return PeriodsAnswer(items=[PeriodAnswer.model_validate(one) for one in periods])


async def _usage(session: Database, query: UsageQuery, now: datetime, *, account_id: str | None) -> UsageAnswer:
    start, end = query.span(now)
    wanted: dict[str, Any] = {
        "account_id": account_id,
        "product": query.product,
        "key_id": query.key_id,
        "mode": query.mode,
        "start": start,
        "end": end,
        "group_by": query.group_by,
    }
    open_hours = 0
    if query.as_of is not None:
        if query.as_of > now:
            raise ValidationFailedError("as_of", "must not be in the future")
        sealed = await usage_as_of(session, at=query.as_of, **wanted)
        figures, open_hours = sealed.figures, sealed.open_hours
    else:
        figures = await usage_summary(session, **wanted)
        if account_id:
            state = await queries.seal_state(session, account_id=account_id, start=start, end=end)
            open_hours = state.open_hours
    return UsageAnswer(
        start=start,
        end=end,
        as_of=query.as_of,
        group_by=query.group_by,
        items=[FiguresAnswer.model_validate(row) for row in figures],
        open_hours=open_hours,
    )


@router.get("/shippers", tags=["gateway"])
async def list_shippers(session: Database) -> ShippersAnswer:
    """List the shippers of all gateway nodes: a live one that is silent holds back the sealing of hours."""
    return ShippersAnswer(items=[_shipper(row) for row in await queries.shippers(session)])


@router.post("/shippers/{shipper_id}/retire", tags=["gateway"])
async def retire_shipper(
    shipper_id: Annotated[str, StringConstraints(min_length=1, max_length=200), PrintableText],
    session: Database,
    caller: Authenticated,
    now: Now,
) -> ShipperAnswer:
    """Take a gateway node's shipper out of service, so that it no longer holds back hours. Repeatable."""
    return _shipper(await operations.retire_shipper(session, shipper_id=shipper_id, actor=caller.actor, now=now))


def _shipper(row: Shipper) -> ShipperAnswer:
    return ShipperAnswer.model_validate(row)
