"""What declared meters came to, by hour or by billing period."""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field, StringConstraints

from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import Answer, Code, Moment, PageAnswer, PageQuery
from control_plane.admin_api.resources.usage import SpanQuery
from control_plane.admin_api.services import Now
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.meters.reports import HourValue, MeterFilter, PeriodValue, hour_values, period_values

router = APIRouter(prefix="/usage/meters", tags=["meters"])
_ID = r"_[0-9a-hjkmnp-tv-z]{26}$"


class By(StrEnum):
    """What values are told by."""

    PERIOD = "period"
    HOUR = "hour"


class MeterValuesQuery(SpanQuery, PageQuery):
    """Which values; the last 30 days by default."""

    by: Annotated[By, Field(description="`period` needs an account or a subscription, and has one page.")] = (
        By.PERIOD
    )
    account_id: Annotated[
        Annotated[str, StringConstraints(pattern="^acc" + _ID)] | None, Field(description="Only one account.")
    ] = None
    subscription_id: Annotated[
        Annotated[str, StringConstraints(pattern="^sub" + _ID)] | None, Field(description="Only one subscription.")
    ] = None
    meter: Annotated[Code | None, Field(description="Only one meter, by code.")] = None


class MeterValueAnswer(Answer):
    """What a meter came to in [start, end), an hour or a billing period, while a phase of a subscription ran."""

    meter: str
    aggregation: str
    account_id: str
    subscription_id: str
    phase_id: str
    start: Moment
    end: Moment
    value: int = Field(
        description="Of unique meters, hours do not add up; by period it is that of the phase's plan version."
    )
    events: int | None = Field(description="How many events counted; by hour only.")
    pending: bool = Field(description="Whether it is being counted again.")


@router.get("")
async def get_meter_values(
    session: Database, now: Now, query: Annotated[MeterValuesQuery, Query()]
) -> PageAnswer[MeterValueAnswer]:
    """Return values of declared meters by hour, or by billing period and phase, where anything counted."""
    start, end = query.span(now)
    wanted = MeterFilter(account_id=query.account_id, subscription_id=query.subscription_id, code=query.meter)
    if query.by is By.HOUR:
        page = await hour_values(
            session, wanted=wanted, start=start, end=end, cursor=query.cursor, limit=query.limit
        )
        return PageAnswer(items=[_of_hour(row) for row in page.items], next_cursor=page.next_cursor)
    if wanted.account_id is None and wanted.subscription_id is None:
        raise ValidationFailedError("account_id", "is required by period, or subscription_id")
    if query.cursor is not None:
        raise ValidationFailedError("cursor", "must be left out by period: there is one page")
    values = await period_values(session, wanted=wanted, start=start, end=end)
    return PageAnswer(items=[_of_period(value) for value in values], next_cursor=None)


def _of_hour(row: HourValue) -> MeterValueAnswer:
    return MeterValueAnswer(
        meter=row.code,
        aggregation=row.aggregation,
        account_id=row.account_id,
        subscription_id=row.subscription_id,
        phase_id=row.phase_id,
        start=row.hour,
        end=row.end,
        value=row.value,
        events=row.events,
        pending=False,
    )


def _of_period(value: PeriodValue) -> MeterValueAnswer:
    return MeterValueAnswer(
        meter=value.code,
        aggregation=value.aggregation,
        account_id=value.account_id,
        subscription_id=value.subscription_id,
        phase_id=value.phase_id,
        start=value.start,
        end=value.end,
        value=value.value,
        events=None,
        pending=value.is_pending,
    )
