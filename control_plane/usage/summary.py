"""Sums of hourly rollups by groups: what dashboards and history show, as it stands or as it was once sealed."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, Text, cast, func, select, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.errors import ValidationFailedError
from control_plane.keys.tables import ApiKey
from control_plane.usage.daily.rows import check_hours_are_kept, daily_rows
from control_plane.usage.queries import check_hours
from control_plane.usage.rollups.sealed_rows import hours_open_at, rows_sealed_at
from control_plane.usage.tables import HourlyFigures, UsageHourly
from gateway_contract.outcomes import Outcome

Rows = type[HourlyFigures]


class GroupBy(StrEnum):
    """What a summary is split by. Weeks begin on Monday; days, weeks and months are UTC.

    `amendment` is '' for what was counted, else the id of the amendment that added or took it.
    """

    ACCOUNT = "account"
    ENDPOINT = "endpoint"
    STATUS = "status"
    STATUS_CLASS = "status_class"
    KEY = "key"
    OUTCOME = "outcome"
    MODE = "mode"
    PRODUCT = "product"
    AMENDMENT = "amendment"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


TIME_GROUPS = frozenset({GroupBy.HOUR, GroupBy.DAY, GroupBy.WEEK, GroupBy.MONTH})
MAX_GROUPS = 4
MAX_FIGURES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFigures:
    """Sums of one group. `by` says which, as text: the start of the bucket in ISO 8601 for groups of time.

    `key_name` is the key's name when grouped by key, else ''. Latencies are sums over `calls`, in ms.
    `replayed_*`: answers that the upstream repeated for calls billed before; not among what is billable.
    `reported_events` are told by applications, and not among `calls`. What amendments add or take is in every sum,
    so that those of a group of amendments may be below zero.
    """

    by: dict[str, str]
    key_name: str
    calls: int
    units: int
    billable_calls: int
    billable_units: int
    bytes_in: int
    bytes_out: int
    latency_ms_sum: int
    gateway_ms_sum: int
    upstream_ms_sum: int
    replayed_calls: int
    replayed_units: int
    reported_events: int
    dimensions: dict[str, int]
    billable_dimensions: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilters:
    """Whose figures are wanted; None is any. Account '' holds the calls of nobody."""

    account_id: str | None = None
    product: str | None = None
    key_id: str | None = None
    mode: str | None = None

    def conditions(self, rows: Rows) -> list[ColumnElement[bool]]:
        wanted = {
            rows.account_id: self.account_id,
            rows.product: self.product,
            rows.key_id: self.key_id,
            rows.mode: self.mode,
        }
        return [column == value for column, value in wanted.items() if value is not None]


@dataclass(frozen=True, slots=True)
class SealedUsage:
    """Figures as they were sealed at a moment. `open_hours`: hours of then, with usage that is known now, whose
    figures were not final at that moment; of those that had been sealed before, the sealed figures count.
    """

    figures: list[UsageFigures]
    open_hours: int


async def usage_summary(
    session: AsyncSession,
    *,
    account_id: str | None = None,
    product: str | None = None,
    key_id: str | None = None,
    mode: str | None = None,
    start: datetime,
    end: datetime,
    group_by: Sequence[GroupBy],
) -> list[UsageFigures]:
    """Return figures of the hours in [start, end) by one to four groups together.

    Groups of time come in order, then those with the most calls first. Account '' holds the calls of nobody.
    Whole days are read as they were rolled up, where they are not asked for by the hour.

    Raises:
        ValidationFailedError: `start` or `end` is not a full hour, there are no groups or too many, they come
            to more than 20,000 figures, or hours are wanted of days that are kept whole only.
    """
    filters = UsageFilters(account_id=account_id, product=product, key_id=key_id, mode=mode)
    by_hour = GroupBy.HOUR in group_by
    await check_hours_are_kept(session, start=start, end=end, by_hour=by_hour)
    rows = UsageHourly if by_hour else daily_rows(start=start, end=end, account_id=account_id)
    return await _summary(session, rows, filters, span=(start, end), group_by=group_by)


async def usage_as_of(
    session: AsyncSession,
    *,
    at: datetime,
    account_id: str | None = None,
    product: str | None = None,
    key_id: str | None = None,
    mode: str | None = None,
    start: datetime,
    end: datetime,
    group_by: Sequence[GroupBy],
) -> SealedUsage:
    """Return what `usage_summary` would have told at a past moment, of hours that were sealed by then.

    Raises:
        ValidationFailedError: as `usage_summary`.
    """
    filters = UsageFilters(account_id=account_id, product=product, key_id=key_id, mode=mode)
    await check_hours_are_kept(session, start=start, end=end, by_hour=True)
    rows = rows_sealed_at(at, start=start, end=end, account_id=account_id)
    figures = await _summary(session, rows, filters, span=(start, end), group_by=group_by)
    open_hours = await hours_open_at(session, at, start=start, end=end, account_id=account_id)
    return SealedUsage(figures, open_hours)


async def _summary(
    session: AsyncSession,
    rows: Rows,
    filters: UsageFilters,
    *,
    span: tuple[datetime, datetime],
    group_by: Sequence[GroupBy],
) -> list[UsageFigures]:
    start, end = span
    check_hours(start, end)
    wanted = list(dict.fromkeys(group_by))
    if not 1 <= len(wanted) <= MAX_GROUPS:
        raise ValidationFailedError("group_by", f"must be one to {MAX_GROUPS} groups")
    groups = [_group_column(rows, group).label(f"by_{group}") for group in wanted]
    times = [column for group, column in zip(wanted, groups, strict=True) if group in TIME_GROUPS]
    in_span = [rows.hour >= start, rows.hour < end, *filters.conditions(rows)]
    calls = _total(rows.calls, rows.outcome != Outcome.REPORTED.value)
    statement = (
        select(*groups, *_sums(rows))
        .where(*in_span)
        .group_by(*groups)
        .order_by(*times, calls.desc(), *groups)
        .limit(MAX_FIGURES + 1)
    )
    found = (await session.execute(statement)).all()
    if len(found) > MAX_FIGURES:
        raise ValidationFailedError(
            "group_by", f"gives more than {MAX_FIGURES:,} figures: take a shorter span, or fewer or coarser groups"
        )
    dimensions = await _dimensions(session, rows, groups, in_span)
    names: dict[str, str] = {}
    if GroupBy.KEY in wanted:
        names = await _key_names(session, {row.by_key for row in found})
    return [_figures(row, wanted, names, dimensions) for row in found]


def _sums(rows: Rows) -> list[ColumnElement[int]]:
    is_call = rows.outcome != Outcome.REPORTED.value
    sums = [_total(rows.calls, is_call).label("calls")]
    sums += [
        _total(getattr(rows, name)).label(name)
        for name in (
            "units",
            "billable_calls",
            "billable_units",
            "bytes_in",
            "bytes_out",
            "latency_ms_sum",
            "gateway_ms_sum",
            "upstream_ms_sum",
        )
    ]
    sums += [_total(getattr(rows, name), rows.replayed).label(f"replayed_{name}") for name in ("calls", "units")]
    return [*sums, _total(rows.calls, ~is_call).label("reported_events")]


def _total(column: Any, *conditions: Any) -> ColumnElement[int]:
    # PostgreSQL's sum of bigint is numeric, and of nothing NULL
    total = func.sum(column).filter(*conditions) if conditions else func.sum(column)
    return cast(func.coalesce(total, 0), BigInteger)


_Dimensions = Mapping[tuple[Any, ...], Mapping[str, tuple[int, int]]]


async def _dimensions(
    session: AsyncSession, rows: Rows, groups: Sequence[Any], in_span: Sequence[ColumnElement[bool]]
) -> _Dimensions:
    """Return all and billable units of dimensions by group."""
    each = func.jsonb_each_text(rows.dimensions).table_valued("key", "value").lateral()
    billable = cast(rows.billable_dimensions.op("->>")(each.c.key), BigInteger)
    statement: Select[Any] = (
        select(*groups, each.c.key, _total(cast(each.c.value, BigInteger)), _total(billable))
        .select_from(rows)
        .join(each, true())
        # said beside the join, which leaves them out anyway: most rows have none, and taking one apart costs more
        .where(*in_span, rows.dimensions != cast({}, JSONB))
        .group_by(*groups, each.c.key)
        .order_by(each.c.key)
    )
    found: dict[tuple[Any, ...], dict[str, tuple[int, int]]] = defaultdict(dict)
    for *group, dimension, units, billable_units in await session.execute(statement):
        found[tuple(group)][dimension] = units, billable_units
    return found


def _group_column(rows: Rows, group_by: GroupBy) -> ColumnElement[Any]:
    if group_by in TIME_GROUPS:
        return func.date_trunc(group_by.value, rows.hour, "UTC")
    columns: dict[GroupBy, Any] = {
        GroupBy.ACCOUNT: rows.account_id,
        GroupBy.ENDPOINT: rows.endpoint,
        GroupBy.STATUS: cast(rows.status, Text),
        GroupBy.STATUS_CLASS: cast(rows.status // 100, Text) + "xx",
        GroupBy.KEY: rows.key_id,
        GroupBy.OUTCOME: rows.outcome,
        GroupBy.MODE: rows.mode,
        GroupBy.PRODUCT: rows.product,
        GroupBy.AMENDMENT: rows.amendment_id,
    }
    column: ColumnElement[Any] = columns[group_by]
    return column


async def _key_names(session: AsyncSession, key_ids: Collection[str]) -> dict[str, str]:
    rows = await session.execute(select(ApiKey.id, ApiKey.name).where(ApiKey.id.in_(key_ids)))
    return {row.id: row.name for row in rows}


def _figures(
    row: Any, groups: Sequence[GroupBy], names: Mapping[str, str], dimensions: _Dimensions
) -> UsageFigures:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
    group = [values.pop(f"by_{name}") for name in groups]
    by = {name.value: _group_text(value) for name, value in zip(groups, group, strict=True)}
    units = dimensions.get(tuple(group), {})
    return UsageFigures(
        by=by,
        key_name=names.get(by.get(GroupBy.KEY, ""), ""),
        dimensions={name: whole for name, (whole, _) in units.items()},
        billable_dimensions={name: billable for name, (_, billable) in units.items() if billable},
        **values,
    )


def _group_text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)
