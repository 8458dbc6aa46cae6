"""Reading rollups: what previews and invoices show, and how final it is. Whole UTC hours throughout."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, cast, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import ValidationFailedError
from control_plane.subscriptions.tables import SubscriptionPhase
from control_plane.usage.daily.rows import check_hours_are_kept
from control_plane.usage.meters.values import declared_codes, metered_units
from control_plane.usage.tables import Shipper, UsageHour, UsageHourly, is_billed

REQUESTS_METER = "requests"
# the catalog's MEASURED_METERS, which no dimension that an upstream reports can be named
MEASURED_METERS = {
    "bytes_in": UsageHourly.bytes_in,
    "bytes_out": UsageHourly.bytes_out,
    "upstream_ms": UsageHourly.upstream_ms_sum,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseUsage:
    """Billable units of one subscription phase by meter: `requests` (quota units), what the gateway measures of
    billed calls (`bytes_in`, `bytes_out`, `upstream_ms`), every dimension, and every declared meter.

    A dimension that has the code of a declared meter is not there: the meter is. Added up over the phases of one
    plan version, units are what it charges for (see `meters.values.metered_units`).
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


async def billable_units(
    session: AsyncSession, *, subscription_id: str, start: datetime, end: datetime
) -> list[PhaseUsage]:
    """Return exact billable units of a subscription in [start, end), phase by phase in their order.

    Every phase that has a moment in common with the span is there, also without usage. A billing period is such a
    span: periods begin on full hours. Test calls, refused, failed and replayed calls have no billable units.
    Unique meters have a value only where the span is a whole billing period.

    Raises:
        ValidationFailedError: `start` or `end` is not a full hour, or lies in days that are kept whole only.
    """
    check_hours(start, end)
    await check_hours_are_kept(session, start=start, end=end, by_hour=True)
    phases = await phases_within(session, subscription_id=subscription_id, start=start, end=end)
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
        .where(*in_span, is_billed())
        .group_by(UsageHourly.phase_id)
    )
    calls: dict[str, int] = {}
    meters = (REQUESTS_METER, *MEASURED_METERS)
    units: dict[str, dict[str, int]] = {phase.id: dict.fromkeys(meters, 0) for phase in phases}
    for phase_id, phase_calls, *amounts in totals:
        calls[phase_id] = phase_calls
        units[phase_id] |= dict(zip(meters, amounts, strict=True))
    each = func.jsonb_each_text(UsageHourly.billable_dimensions).table_valued("key", "value")
    is_amended = UsageHourly.amendment_id != ""
    place = (UsageHourly.phase_id, UsageHourly.product, is_amended, each.c.key)
    dimensions = (
        await session.execute(
            select(*place, cast(func.sum(cast(each.c.value, BigInteger)), BigInteger))
            .select_from(UsageHourly)
            .join(each, true())
            .where(*in_span)
            .group_by(*place)
        )
    ).all()
    declared = await declared_codes(session, {product for _, product, *_ in dimensions})
    for phase_id, product, amended, dimension, amount in dimensions:
        # amendments of a declared meter stand in rows, what it counted does not
        if dimension not in meters and (amended or dimension not in declared.get(product, ())):
            units[phase_id][dimension] = units[phase_id].get(dimension, 0) + amount
    for (phase_id, _), values in (await metered_units(session, {(one.id, start, end) for one in phases})).items():
        for code, amount in values.items():
            units[phase_id][code] = units[phase_id].get(code, 0) + amount
    return [
        PhaseUsage(
            phase_id=phase.id,
            plan_version_id=phase.plan_version_id,
            starts_at=phase.starts_at,
            ends_at=phase.ends_at,
            calls=calls.get(phase.id, 0),
            # an amendment of a declared meter may have taken more than is left of it since
            units={meter: max(0, amount) for meter, amount in units[phase.id].items()},
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


async def phases_within(
    session: AsyncSession, *, subscription_id: str, start: datetime, end: datetime
) -> Sequence[SubscriptionPhase]:
    """Return the phases of a subscription that have a moment in common with [start, end), in their order."""
    statement = (
        select(SubscriptionPhase)
        .where(
            SubscriptionPhase.subscription_id == subscription_id,
            SubscriptionPhase.starts_at < end,
            SubscriptionPhase.ends_at.is_(None) | (SubscriptionPhase.ends_at > start),
        )
        .order_by(SubscriptionPhase.starts_at)
    )
    return (await session.scalars(statement)).all()


def check_hours(start: datetime, end: datetime) -> None:
    """Refuse a span that does not begin and end at full hours.

    Raises:
        ValidationFailedError: names `start` or `end`.
    """
    for field_name, moment in (("start", start), ("end", end)):
        if floor_hour(moment) != moment:
            raise ValidationFailedError(field_name, "must be a full hour (UTC)")


def _total(column: Any) -> ColumnElement[int]:
    # PostgreSQL's sum of bigint is numeric
    return cast(func.sum(column), BigInteger)
