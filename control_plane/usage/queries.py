"""Reading rollups: what dashboards, previews and invoices show. Whole UTC hours throughout."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, Text, cast, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import ValidationFailedError
from control_plane.keys.tables import ApiKey
from control_plane.subscriptions.tables import SubscriptionPhase
from control_plane.usage.tables import Shipper, UsageHour, UsageHourly

REQUESTS_METER = "requests"
# the catalog's MEASURED_METERS, which no dimension that an upstream reports can be named
MEASURED_METERS = {
    "bytes_in": UsageHourly.bytes_in,
    "bytes_out": UsageHourly.bytes_out,
    "upstream_ms": UsageHourly.upstream_ms_sum,
}


class GroupBy(StrEnum):
    """What a summary is split by. Weeks begin on Monday; days, weeks and months are UTC."""

    ACCOUNT = "account"
    ENDPOINT = "endpoint"
    STATUS = "status"
    STATUS_CLASS = "status_class"
    KEY = "key"
    OUTCOME = "outcome"
    MODE = "mode"
    PRODUCT = "product"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseUsage:
    """Billable units of one subscription phase by meter: `requests` (quota units), what the gateway measures of
    billed calls (`bytes_in`, `bytes_out`, `upstream_ms`), and every dimension.
    """

    phase_id: str
    plan_version_id: str
    starts_at: datetime
    ends_at: datetime | None
    calls: int
    units: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealState:
    """How much of a span can still change. `open_hours` are hours with usage that are not sealed."""

    open_hours: int
    first_open_hour: datetime | None
    silent_since: datetime | None


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

    Raises:
        ValidationFailedError: `start` or `end` is not a full hour, there are no groups or too many, or they come
            to more than 20,000 figures.
    """
    _check_hours(start, end)
    wanted_groups = list(dict.fromkeys(group_by))
    if not 1 <= len(wanted_groups) <= MAX_GROUPS:
        raise ValidationFailedError("group_by", f"must be one to {MAX_GROUPS} groups")
    groups = [_group_column(group).label(f"by_{group}") for group in wanted_groups]
    times = [column for group, column in zip(wanted_groups, groups, strict=True) if group in TIME_GROUPS]
    statement = _sums(select(*groups), start, end).group_by(*groups)
    statement = statement.order_by(*times, func.sum(UsageHourly.calls).desc(), *groups)
    wanted = {
        UsageHourly.account_id: account_id,
        UsageHourly.product: product,
        UsageHourly.key_id: key_id,
        UsageHourly.mode: mode,
    }
    for column, value in wanted.items():
        if value is not None:
            statement = statement.where(column == value)
    rows = (await session.execute(statement.limit(MAX_FIGURES + 1))).all()
    if len(rows) > MAX_FIGURES:
        raise ValidationFailedError(
            "group_by", f"gives more than {MAX_FIGURES:,} figures: take a shorter span, or fewer or coarser groups"
        )
    names: dict[str, str] = {}
    if GroupBy.KEY in wanted_groups:
        names = await _key_names(session, {row.by_key for row in rows})
    return [_figures(row, wanted_groups, names) for row in rows]


async def billable_units(
    session: AsyncSession, *, subscription_id: str, start: datetime, end: datetime
) -> list[PhaseUsage]:
    """Return exact billable units of a subscription in [start, end), phase by phase in their order.

    Every phase that has a moment in common with the span is there, also without usage. A billing period is such a
    span: periods begin on full hours. Test calls, refused, failed and replayed calls have no billable units.

    Raises:
        ValidationFailedError: `start` or `end` is not a full hour.
    """
    _check_hours(start, end)
    phases = (
        await session.scalars(
            select(SubscriptionPhase)
            .where(
                SubscriptionPhase.subscription_id == subscription_id,
                SubscriptionPhase.starts_at < end,
                SubscriptionPhase.ends_at.is_(None) | (SubscriptionPhase.ends_at > start),
            )
            .order_by(SubscriptionPhase.starts_at)
        )
    ).all()
    in_span = (
        UsageHourly.phase_id.in_([phase.id for phase in phases]),
        UsageHourly.hour >= start,
        UsageHourly.hour < end,
    )
    totals = await session.execute(
        select(
            UsageHourly.phase_id,
            _total(UsageHourly.billable_calls),
            _total(UsageHourly.billable_units),
            *(_total(column) for column in MEASURED_METERS.values()),
        )
        # a row is billed whole or not at all
        .where(*in_span, UsageHourly.billable_calls > 0)
        .group_by(UsageHourly.phase_id)
    )
    calls: dict[str, int] = {}
    meters = (REQUESTS_METER, *MEASURED_METERS)
    units: dict[str, dict[str, int]] = {phase.id: dict.fromkeys(meters, 0) for phase in phases}
    for phase_id, phase_calls, *amounts in totals:
        calls[phase_id] = phase_calls
        units[phase_id] |= dict(zip(meters, amounts, strict=True))
    each = func.jsonb_each_text(UsageHourly.billable_dimensions).table_valued("key", "value")
    dimensions = await session.execute(
        select(UsageHourly.phase_id, each.c.key, cast(func.sum(cast(each.c.value, BigInteger)), BigInteger))
        .select_from(UsageHourly)
        .join(each, true())
        .where(*in_span)
        .group_by(UsageHourly.phase_id, each.c.key)
    )
    for phase_id, dimension, amount in dimensions:
        if dimension not in meters:
            units[phase_id][dimension] = amount
    return [
        PhaseUsage(
            phase_id=phase.id,
            plan_version_id=phase.plan_version_id,
            starts_at=phase.starts_at,
            ends_at=phase.ends_at,
            calls=calls.get(phase.id, 0),
            units=units[phase.id],
        )
        for phase in phases
    ]


async def seal_state(session: AsyncSession, *, account_id: str, start: datetime, end: datetime) -> SealState:
    """Say whether an account's figures of [start, end) are final, and since when a live shipper is unheard of."""
    row = (
        await session.execute(
            select(func.count(), func.min(UsageHour.hour)).where(
                UsageHour.account_id == account_id,
                UsageHour.hour >= floor_hour(start),
                UsageHour.hour < end,
                UsageHour.sealed_at.is_(None),
            )
        )
    ).one()
    oldest = await session.scalar(select(func.min(Shipper.last_seen_at)).where(Shipper.retired_at.is_(None)))
    return SealState(open_hours=row[0], first_open_hour=row[1], silent_since=oldest)


async def shippers(session: AsyncSession) -> Sequence[Shipper]:
    """Return every shipper ever heard of, live ones first."""
    statement = select(Shipper).order_by(Shipper.retired_at.is_not(None), Shipper.shipper_id)
    return (await session.scalars(statement)).all()


def _sums(statement: Select[Any], start: datetime, end: datetime) -> Select[Any]:
    sums = (
        _total(column).label(column.key)
        for column in (
            UsageHourly.calls,
            UsageHourly.units,
            UsageHourly.billable_calls,
            UsageHourly.billable_units,
            UsageHourly.bytes_in,
            UsageHourly.bytes_out,
            UsageHourly.latency_ms_sum,
            UsageHourly.gateway_ms_sum,
            UsageHourly.upstream_ms_sum,
        )
    )
    replayed = (
        func.coalesce(_total(column, UsageHourly.replayed), 0).label(f"replayed_{column.key}")
        for column in (UsageHourly.calls, UsageHourly.units)
    )
    return statement.add_columns(*sums, *replayed).where(UsageHourly.hour >= start, UsageHourly.hour < end)


def _total(column: Any, *conditions: Any) -> ColumnElement[int]:
    # PostgreSQL's sum of bigint is numeric
    return cast(func.sum(column).filter(*conditions) if conditions else func.sum(column), BigInteger)


def _group_column(group_by: GroupBy) -> ColumnElement[Any]:
    if group_by in TIME_GROUPS:
        return func.date_trunc(group_by.value, UsageHourly.hour, "UTC")
    columns: dict[GroupBy, ColumnElement[Any]] = {
        GroupBy.ACCOUNT: UsageHourly.account_id.expression,
        GroupBy.ENDPOINT: UsageHourly.endpoint.expression,
        GroupBy.STATUS: cast(UsageHourly.status, Text),
        GroupBy.STATUS_CLASS: cast(UsageHourly.status // 100, Text) + "xx",
        GroupBy.KEY: UsageHourly.key_id.expression,
        GroupBy.OUTCOME: UsageHourly.outcome.expression,
        GroupBy.MODE: UsageHourly.mode.expression,
        GroupBy.PRODUCT: UsageHourly.product.expression,
    }
    return columns[group_by]


async def _key_names(session: AsyncSession, key_ids: Collection[str]) -> dict[str, str]:
    rows = await session.execute(select(ApiKey.id, ApiKey.name).where(ApiKey.id.in_(key_ids)))
    return {row.id: row.name for row in rows}


def _figures(row: Any, groups: Sequence[GroupBy], names: dict[str, str]) -> UsageFigures:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
    by = {group.value: _group_text(values.pop(f"by_{group}")) for group in groups}
    return UsageFigures(by=by, key_name=names.get(by.get(GroupBy.KEY, ""), ""), **values)


def _group_text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


def _check_hours(start: datetime, end: datetime) -> None:
    for field_name, moment in (("start", start), ("end", end)):
        if floor_hour(moment) != moment:
            raise ValidationFailedError(field_name, "must be a full hour (UTC)")
