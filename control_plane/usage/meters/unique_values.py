"""What unique meters come to in one billing period, under each plan version that ran in it."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.meter_queries import KnownMeter, counting_meters
from control_plane.catalog.meters import Aggregation
from control_plane.foundation.clock import to_ms
from control_plane.subscriptions.queries import phases_for_hours
from control_plane.usage.corrections.queries import in_force
from control_plane.usage.corrections.tables import UsageVoid
from control_plane.usage.meters.tables import MeterPeriod, MeterPeriodState
from control_plane.usage.reads import billable_statuses_of
from control_plane.usage.rollups.rollup import DEFAULT_STATUSES, first_ms
from control_plane.usage.store import EventStore
from control_plane.usage.store.metered_values import MeteredSpan, MeteredValue, metered_values
from control_plane.usage.tables import UnmatchedReplay


@dataclass(frozen=True, slots=True)
class DuePeriod:
    """A billing period of a subscription whose unique values are not up to date."""

    subscription_id: str
    account_id: str
    start: datetime
    end: datetime


async def write_unique_values(session: AsyncSession, store: EventStore, period: DuePeriod) -> None:
    """Count the period from stored events and replace what stands of it; the caller holds the period's lock."""
    product, spans = await _spans(session, period)
    meters = [
        meter
        for meter in (await counting_meters(session)).get(product, ())
        if meter.facts.aggregation is Aggregation.UNIQUE
    ]
    versions = list(spans)
    replays = await _event_ids(session, UnmatchedReplay, period)
    voided = await _event_ids(session, UsageVoid, period, in_force(UsageVoid))

    def read() -> list[tuple[int, int, MeteredValue]]:
        values = metered_values(
            store,
            groups=[spans[version] for version in versions],
            meters=[meter.facts for meter in meters],
            billed_replays=replays,
            left_out=voided,
        )
        return list(values)

    rows = [
        _row(period, versions[group], meters[number], value)
        for group, number, value in await asyncio.to_thread(read)
    ]
    await session.execute(
        delete(MeterPeriod).where(
            is_of(MeterPeriod, period),
            # those of meters that are not counted any more stand
            MeterPeriod.meter_id.in_([meter.id for meter in meters]),
        )
    )
    if rows:
        await session.execute(insert(MeterPeriod), rows)


def is_of(table: type[MeterPeriod | MeterPeriodState], period: DuePeriod) -> ColumnElement[bool]:
    """Return the condition that a row is of this period."""
    return (table.subscription_id == period.subscription_id) & (table.period_start == period.start)


async def _spans(session: AsyncSession, period: DuePeriod) -> tuple[str, dict[str, list[MeteredSpan]]]:
    """Return the API product, and the spans of the period in which each plan version ran."""
    found = await phases_for_hours(session, [(period.account_id, period.start, period.end)])
    phases = [phase for phase in found if phase.subscription_id == period.subscription_id]
    statuses = await billable_statuses_of(session, {phase.plan_version_id for phase in phases})
    spans: dict[str, list[MeteredSpan]] = defaultdict(list)
    for phase in phases:
        start_ms = max(first_ms(phase.starts_at), to_ms(period.start))
        end_ms = to_ms(period.end)
        if phase.ends_at is not None:
            end_ms = min(end_ms, first_ms(phase.ends_at))
        if start_ms < end_ms:
            spans[phase.plan_version_id].append(
                MeteredSpan(
                    account_id=period.account_id,
                    product=phase.product_code,
                    start_ms=start_ms,
                    end_ms=end_ms,
                    below_status=statuses.get(phase.plan_version_id, DEFAULT_STATUSES).stop,
                )
            )
    return (phases[0].product_code if phases else ""), dict(spans)


async def _event_ids(
    session: AsyncSession, table: type[UnmatchedReplay | UsageVoid], period: DuePeriod, *conditions: Any
) -> list[tuple[str, str]]:
    statement = select(table.account_id, table.event_id).where(
        table.account_id == period.account_id, table.hour >= period.start, table.hour < period.end, *conditions
    )
    return [(account_id, event_id) for account_id, event_id in await session.execute(statement)]


def _row(period: DuePeriod, plan_version_id: str, meter: KnownMeter, value: MeteredValue) -> dict[str, Any]:
    return {
        "subscription_id": period.subscription_id,
        "period_start": period.start,
        "meter_id": meter.id,
        "plan_version_id": plan_version_id,
        "value": value.value,
        "events": value.events,
    }
