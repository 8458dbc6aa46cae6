"""Rows of figures of a span: its whole days as they were rolled up, the rest by the hour. Always the same sums."""

from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, and_, exists, func, literal, or_, select, true, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from control_plane.foundation.clock import floor_day
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.daily.tables import TouchedDay, UsageDaily, UsageDay
from control_plane.usage.tables import HourlyFigures, UsageHourly

DAY = timedelta(days=1)


def daily_rows(*, start: datetime, end: datetime, account_id: str | None = None) -> type[HourlyFigures]:
    """Return, like a table to select from, the rows of [start, end); `hour` of a day's row is the day's first.

    A day with a mark is taken by its hours, all in one statement: so figures are as fresh as the hours are.
    """
    first, last = _whole_days(start, end)
    mark = exists().where(TouchedDay.account_id == UsageDaily.account_id, TouchedDay.day == UsageDaily.day)
    days = (
        _rows(UsageDaily, UsageDaily.day)
        .join(UsageDay, and_(UsageDay.account_id == UsageDaily.account_id, UsageDay.day == UsageDaily.day))
        .where(
            *_of(UsageDaily, account_id),
            UsageDaily.day >= first,
            UsageDaily.day < last,
            or_(~mark, UsageDay.hours_dropped_at.is_not(None)),
        )
    )
    # OFFSET 0: hours are read mark by mark. Marks come and go too fast for PostgreSQL to know how many there are;
    # where it believes in many it would read all hours of the span and look for a mark of each.
    hours = (
        _rows(UsageHourly, UsageHourly.hour)
        .where(
            UsageHourly.account_id == TouchedDay.account_id,
            UsageHourly.hour >= TouchedDay.day,
            UsageHourly.hour < TouchedDay.day + func.make_interval(0, 0, 0, 0, 24),
        )
        .correlate(TouchedDay)
        .offset(0)
        .lateral()
    )
    changed = (
        select(*hours.c)
        .select_from(TouchedDay)
        .join(hours, true())
        .where(*_of(TouchedDay, account_id), TouchedDay.day >= first, TouchedDay.day < last)
    )
    edges = _rows(UsageHourly, UsageHourly.hour).where(
        *_of(UsageHourly, account_id),
        UsageHourly.hour >= start,
        UsageHourly.hour < end,
        or_(UsageHourly.hour < first, UsageHourly.hour >= last),
    )
    return cast("type[HourlyFigures]", aliased(UsageHourly, union_all(days, changed, edges).subquery()))


async def check_hours_are_kept(session: AsyncSession, *, start: datetime, end: datetime, by_hour: bool) -> None:
    """Refuse what the hours of days long past would be needed for: those are kept by day only.

    Raises:
        ValidationFailedError: `by_hour`, or the part of a day that the span begins or ends with, is of such a day.
    """
    kept_from = await hours_kept_from(session)
    if kept_from is None or start >= kept_from:
        return
    told = kept_from.isoformat().replace("+00:00", "Z")
    if by_hour:
        raise ValidationFailedError("start", f"hours are kept from {told} on; earlier ones as whole days")
    for field, moment in (("start", start), ("end", end)):
        if floor_day(moment) != moment and moment < kept_from:
            raise ValidationFailedError(field, f"must be a full day (UTC): hours are kept from {told} on")


async def hours_kept_from(session: AsyncSession) -> datetime | None:
    """Return the day from which on every hour is kept; None while none was dropped."""
    latest = await session.scalar(select(func.max(UsageDay.day)).where(UsageDay.hours_dropped_at.is_not(None)))
    return latest and latest + DAY


def _whole_days(start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """Return [first, last) of the whole days in the span; where it has none, nothing between them."""
    first = floor_day(start + DAY - timedelta(microseconds=1))
    return first, max(first, floor_day(end))


def _rows(table: Any, hour: Any) -> Select[Any]:
    names = HourlyFigures.__annotations__
    named = [hour.label("hour") if name == "hour" else getattr(table, name) for name in names]
    # the revision is part of the mapped class; nobody asks for it
    return select(*named, literal(0).label("revision"))


def _of(table: Any, account_id: str | None) -> list[ColumnElement[bool]]:
    return [] if account_id is None else [table.account_id == account_id]
