"""Whether every admitted call is in usage: what checks found, hour by hour."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, StringConstraints

from control_plane.accounts.queries import account
from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import AccountId, Answer, Moment, PageAnswer, PageQuery, StrictBody, page_answer
from control_plane.admin_api.resources.usage import SpanQuery
from control_plane.admin_api.services import Now
from control_plane.foundation.audit import record_change
from control_plane.foundation.clock import floor_hour, from_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.completeness import queries
from control_plane.usage.completeness.due import check_again
from control_plane.usage.completeness.model import INCOMPLETE, State
from control_plane.usage.completeness.tables import HourCheck

router = APIRouter(tags=["completeness"])

AccountIdField = Annotated[str, StringConstraints(pattern=r"^acc_[0-9a-hjkmnp-tv-z]{26}$")]
INCOMPLETE_STATES = tuple(sorted(INCOMPLETE))


class StateFilter(StrEnum):
    """A state, or `incomplete`: missing, surplus or unknown."""

    WAITING = "waiting"
    COMPLETE = "complete"
    MISSING = "missing"
    SURPLUS = "surplus"
    UNKNOWN = "unknown"
    INCOMPLETE = "incomplete"

    @property
    def states(self) -> tuple[State, ...]:
        return INCOMPLETE_STATES if self is StateFilter.INCOMPLETE else (State(self.value),)


class Settled(StrEnum):
    """Whether the gateway's counter holds what was billed; `none` where no counter has the hour."""

    YES = "yes"
    DIFFERS = "differs"
    PENDING = "pending"
    NONE = "none"


class AccountQuery(SpanQuery):
    """Which account, and [start, end), the last 30 days by default."""

    account_id: Annotated[AccountIdField | None, Field(description="Only one account.")] = None


class HoursQuery(AccountQuery, PageQuery):
    """Which hours of which counters."""

    state: Annotated[StateFilter | None, Field(description="Only hours in this state.")] = None


class MissingAnswer(BaseModel):
    """Neighbouring call numbers that were issued and have no event."""

    first: int
    last: int
    after: Moment | None = Field(description="When the call before them was decided.")
    before: Moment | None = Field(description="When the call after them was decided.")
    nodes: list[str] = Field(
        description="`node/process` that fell silent then, or lacks decisions; likeliest first."
    )


class CountedHourAnswer(BaseModel):
    """One subscription's hour in one mode."""

    account_id: str
    account_name: str
    subscription_id: str
    product: str
    mode: str
    period_start: Moment
    hour: Moment
    state: State
    admitted: int = Field(description="Calls to which the gateway gave a number.")
    stored: int = Field(description="Events with such a number.")
    unnumbered: int = Field(description="Events of calls that were made while Redis was away.")
    rolled_up: int = Field(description="Served calls in the rollup.")
    missing_calls: int
    missing: list[MissingAnswer] = Field(description="The first 200 ranges.")
    checked_at: Moment | None
    settled: Settled | None
    rollup_differs_since: Moment | None


class HourAnswer(BaseModel):
    """An account's hour: its counters, and where rollup and stored events differ."""

    account_id: str
    hour: Moment
    revision: int | None = Field(description="The revision that was checked last; -1 if that failed.")
    checked_at: Moment | None
    recheck_at: Moment | None
    settled: Settled | None
    rollup_differs_since: Moment | None
    differences: list[dict[str, Any]]
    counters: list[CountedHourAnswer]


class OverviewAnswer(Answer):
    """Sums over the span."""

    start: Moment
    end: Moment
    hours_by_state: dict[State, int]
    admitted: int
    missing_calls: int
    unnumbered: int
    checked_hours: int
    differing_hours: int
    wrongly_settled_hours: int
    checked_at: Moment | None = Field(description="The last round of checks.")
    counted_until: Moment | None = Field(description="Counters of hours before this moment are kept.")


class CheckForm(StrictBody):
    """Which hours to look at again: [start, end), at most 400 days."""

    account_id: AccountIdField | None = None
    start: Moment
    end: Moment


class CheckAnswer(BaseModel):
    hours: int = Field(description="How many hours will be looked at within seconds or minutes.")


@router.get("/completeness")
async def list_completeness(
    session: Database, now: Now, query: Annotated[HoursQuery, Query()]
) -> PageAnswer[CountedHourAnswer]:
    """List hours of counters with what checks found, newest first."""
    start, end = query.span(now)
    page = await queries.counted_hours(
        session,
        start=start,
        end=end,
        account_id=query.account_id,
        states=query.state.states if query.state else (),
        cursor=query.cursor,
        limit=query.limit,
    )
    return page_answer(page, _counted)


@router.get("/completeness/overview")
async def get_completeness_overview(
    session: Database, now: Now, query: Annotated[AccountQuery, Query()]
) -> OverviewAnswer:
    """Return how many hours are complete and how many calls are missing."""
    start, end = query.span(now)
    found = await queries.overview(session, start=start, end=end, account_id=query.account_id)
    return OverviewAnswer.model_validate({"start": start, "end": end, **_fields(found)})


@router.get("/accounts/{account_id}/completeness")
async def get_hour_completeness(
    account_id: AccountId,
    session: Database,
    hour: Annotated[Moment, Query(description="The hour's start.")],
) -> HourAnswer:
    """Return all that is known of one hour of an account."""
    await account(session, account_id)
    if floor_hour(hour) != hour:
        raise ValidationFailedError("hour", "must be a full hour (UTC)")
    rows, check = await queries.hour_detail(session, account_id=account_id, hour=hour)
    return HourAnswer(
        account_id=account_id,
        hour=hour,
        revision=check.revision if check else None,
        checked_at=check.checked_at if check else None,
        recheck_at=check.recheck_at if check else None,
        settled=Settled(check.settled) if check else None,
        rollup_differs_since=check.differs_since if check else None,
        differences=check.differences if check else [],
        counters=[_counted(row) for row in rows],
    )


@router.post("/completeness/checks")
async def check_completeness(session: Database, caller: Authenticated, now: Now, form: CheckForm) -> CheckAnswer:
    """Have hours that were checked before looked at again. Hours that are sealed anew are checked without it."""
    start, end = SpanQuery(start=form.start, end=form.end).span(now)
    hours = await check_again(session, account_id=form.account_id, start=start, end=end, now=now)
    await record_change(
        session,
        actor=caller.actor,
        action="completeness.check_requested",
        entity_type="account" if form.account_id else "installation",
        entity_id=form.account_id or "usage",
        before=None,
        after={"start": start.isoformat(), "end": end.isoformat(), "hours": hours},
        now=now,
    )
    return CheckAnswer(hours=hours)


def _counted(row: queries.CounterRow) -> CountedHourAnswer:
    counted, check = row.counted, row.check
    return CountedHourAnswer(
        account_id=counted.account_id,
        account_name=row.account_name,
        subscription_id=counted.subscription_id,
        product=counted.product,
        mode=counted.mode,
        period_start=counted.period_start,
        hour=counted.hour,
        state=State(counted.state),
        admitted=counted.admitted,
        stored=counted.stored,
        unnumbered=counted.unnumbered,
        rolled_up=counted.rolled_up,
        missing_calls=counted.missing_calls,
        missing=[_missing(part) for part in counted.missing],
        checked_at=counted.checked_at,
        settled=Settled(check.settled) if check else None,
        rollup_differs_since=_differs_since(check),
    )


def _missing(part: dict[str, Any]) -> MissingAnswer:
    return MissingAnswer(
        first=part["first"],
        last=part["last"],
        after=_moment(part["after_ms"]),
        before=_moment(part["before_ms"]),
        nodes=part["nodes"],
    )


def _moment(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else from_ms(at_ms)


def _differs_since(check: HourCheck | None) -> datetime | None:
    return check.differs_since if check else None


def _fields(found: queries.Overview) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__slots__}
