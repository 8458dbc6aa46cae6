"""Values of declared meters as they are shown: by hour, and by billing period and phase."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.catalog.tables import Meter
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import Page, decode_cursor, page_of
from control_plane.foundation.period import next_period, period_containing
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.usage.meters.tables import MeterHourly, MeterPeriodState
from control_plane.usage.meters.values import PhaseValue, Span, phase_values
from control_plane.usage.queries import check_hours


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterFilter:
    """Which values; None is any."""

    account_id: str | None = None
    subscription_id: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HourValue:
    """What a meter came to in an hour of a phase. Hours of unique meters do not add up to a period."""

    account_id: str
    subscription_id: str
    phase_id: str
    meter_id: str
    code: str
    aggregation: str
    hour: datetime
    value: int
    events: int

    @property
    def end(self) -> datetime:
        return self.hour + timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodValue:
    """What a meter came to in a billing period, [start, end), while a phase ran.

    Of unique meters, what the phase's plan version came to in all its phases of the period. `is_pending`: it is
    being counted again.
    """

    account_id: str
    subscription_id: str
    phase_id: str
    plan_version_id: str
    code: str
    aggregation: str
    start: datetime
    end: datetime
    value: int
    is_pending: bool


async def hour_values(
    session: AsyncSession,
    *,
    wanted: MeterFilter,
    start: datetime,
    end: datetime,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[HourValue]:
    """Return one page of hourly values of [start, end), in the order of accounts, then of time.

    Raises:
        ValidationFailedError: `start` or `end` is not a full hour, or the cursor is not one of this list.
    """
    check_hours(start, end)
    place = (MeterHourly.account_id, MeterHourly.hour, MeterHourly.phase_id, MeterHourly.meter_id)
    statement = (
        select(
            *place,
            SubscriptionPhase.subscription_id,
            Meter.code,
            Meter.aggregation,
            MeterHourly.value,
            MeterHourly.events,
        )
        .join(Meter, Meter.id == MeterHourly.meter_id)
        .join(SubscriptionPhase, SubscriptionPhase.id == MeterHourly.phase_id)
        .where(MeterHourly.hour >= start, MeterHourly.hour < end)
        .order_by(*place)
        .limit(limit + 1)
    )
    if wanted.account_id is not None:
        statement = statement.where(MeterHourly.account_id == wanted.account_id)
    if wanted.subscription_id is not None:
        statement = statement.where(SubscriptionPhase.subscription_id == wanted.subscription_id)
    if wanted.code is not None:
        statement = statement.where(Meter.code == wanted.code)
    if cursor is not None:
        statement = statement.where(tuple_(*place) > decode_cursor(cursor, str, datetime, str, str))
    rows = [HourValue(**row._mapping) for row in await session.execute(statement)]  # noqa: SLF001 - SQLAlchemy's public name
    return page_of(
        rows, limit=limit, sort_values=lambda row: (row.account_id, row.hour, row.phase_id, row.meter_id)
    )


async def period_values(
    session: AsyncSession, *, wanted: MeterFilter, start: datetime, end: datetime
) -> list[PeriodValue]:
    """Return values of each billing period that has a moment in common with [start, end), in the order of time.

    Of one account or one subscription; `wanted` must name either.

    Raises:
        NotFoundError: no such subscription.
    """
    found: list[PeriodValue] = []
    for subscription in await _subscriptions(session, wanted):
        ends, spans = _spans(subscription, start, end)
        pending = await _pending(session, subscription.id)
        found += [
            _period_value(subscription, value, ends[value.span_start], pending)
            for value in await phase_values(session, spans)
            if wanted.code in {None, value.code}
        ]
    return sorted(found, key=lambda one: (one.start, one.subscription_id, one.code))


async def _subscriptions(session: AsyncSession, wanted: MeterFilter) -> Sequence[Subscription]:
    statement = select(Subscription).options(selectinload(Subscription.phases))
    if wanted.account_id is not None:
        statement = statement.where(Subscription.account_id == wanted.account_id)
    if wanted.subscription_id is not None:
        statement = statement.where(Subscription.id == wanted.subscription_id)
    found = (await session.scalars(statement.order_by(Subscription.id))).all()
    if wanted.subscription_id is not None and not found:
        raise NotFoundError("subscription", wanted.subscription_id)
    return found


def _spans(
    subscription: Subscription, start: datetime, end: datetime
) -> tuple[dict[datetime, datetime], list[Span]]:
    """Return the ends of periods by their starts, and the spans of the phases in each."""
    ends: dict[datetime, datetime] = {}
    spans: list[Span] = []
    period = period_containing(start, subscription.anchor_at, subscription.interval, subscription.time_zone)
    while period.start < end:
        ends[period.start] = period.end
        spans += [
            (phase.id, period.start, period.end)
            for phase in subscription.phases
            if phase.starts_at < period.end and (phase.ends_at is None or phase.ends_at > period.start)
        ]
        period = next_period(period, subscription.anchor_at, subscription.interval, subscription.time_zone)
    return ends, spans


async def _pending(session: AsyncSession, subscription_id: str) -> set[datetime]:
    statement = select(MeterPeriodState.period_start).where(
        MeterPeriodState.subscription_id == subscription_id,
        MeterPeriodState.counted_generation < MeterPeriodState.generation,
    )
    return set(await session.scalars(statement))


def _period_value(
    subscription: Subscription, value: PhaseValue, end: datetime, pending: set[datetime]
) -> PeriodValue:
    return PeriodValue(
        account_id=subscription.account_id,
        subscription_id=subscription.id,
        phase_id=value.phase_id,
        plan_version_id=value.plan_version_id,
        code=value.code,
        aggregation=value.aggregation.value,
        start=value.span_start,
        end=end,
        value=value.value,
        is_pending=value.aggregation == "unique" and value.span_start in pending,
    )
