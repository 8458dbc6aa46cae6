"""Rows of figures as they were sealed at a past moment."""

from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from control_plane.usage.rollups.tables import SupersededHour, SupersededHourly
from control_plane.usage.tables import HourlyFigures, UsageHour, UsageHourly

_COLUMNS = tuple(HourlyFigures.__annotations__)


def rows_sealed_at(
    at: datetime, *, start: datetime, end: datetime, account_id: str | None = None
) -> type[HourlyFigures]:
    """Return, like a table to select from, each hour's rows at the last revision that was sealed by a moment."""
    standing = (
        _rows(UsageHourly)
        .join(UsageHour, _same_hour(UsageHourly, UsageHour))
        .where(*_within(UsageHourly, start, end, account_id), UsageHour.sealed_at <= at)
    )
    seal = SupersededHour
    latest = (
        select(seal.account_id, seal.hour, func.max(seal.revision).label("revision"))
        .where(
            *_within(seal, start, end, account_id),
            seal.sealed_at <= at,
            # what was sealed again by then is in the rows that stand
            ~exists().where(_same_hour(UsageHour, seal), UsageHour.sealed_at <= at),
        )
        .group_by(seal.account_id, seal.hour)
        .subquery()
    )
    superseded = _rows(SupersededHourly).join(
        latest,
        and_(_same_hour(SupersededHourly, latest.c), SupersededHourly.revision == latest.c.revision),
    )
    return cast("type[HourlyFigures]", aliased(UsageHourly, union_all(standing, superseded).subquery()))


async def hours_open_at(
    session: AsyncSession, at: datetime, *, start: datetime, end: datetime, account_id: str | None = None
) -> int:
    """Return how many hours that had begun at a moment, with usage known now, were not sealed at that moment."""
    seal = SupersededHour
    was_sealed = exists().where(_same_hour(seal, UsageHour), seal.sealed_at <= at, seal.superseded_at > at)
    statement = (
        select(func.count())
        .select_from(UsageHour)
        .where(
            *_within(UsageHour, start, end, account_id),
            UsageHour.hour <= at,
            or_(UsageHour.sealed_at.is_(None), UsageHour.sealed_at > at),
            ~was_sealed,
        )
    )
    return await session.scalar(statement) or 0


def _rows(table: Any) -> Select[Any]:
    # the revision is part of the mapped class; nobody asks for it
    return select(*(getattr(table, name) for name in _COLUMNS), table.revision)


def _within(table: Any, start: datetime, end: datetime, account_id: str | None) -> list[ColumnElement[bool]]:
    conditions = [table.hour >= start, table.hour < end]
    return conditions if account_id is None else [*conditions, table.account_id == account_id]


def _same_hour(one: Any, other: Any) -> ColumnElement[bool]:
    return and_(one.account_id == other.account_id, one.hour == other.hour)
