"""Values of meters by hour: computed whole with the hour, under its lock, and written where they changed."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import structlog
from sqlalchemy import ColumnElement, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.meter_queries import KnownMeter, counting_meters
from control_plane.catalog.meters import Aggregation
from control_plane.catalog.tables import Price
from control_plane.foundation.clock import from_ms, to_ms
from control_plane.foundation.db import is_any_of
from control_plane.subscriptions.tables import SubscriptionPhase
from control_plane.usage.corrections.queries import voids_of_hours
from control_plane.usage.hours import is_one_of
from control_plane.usage.meters.period_states import touch_periods
from control_plane.usage.meters.tables import MeterHourly
from control_plane.usage.model import HourKey
from control_plane.usage.rollups.derived import RecomputedHours
from control_plane.usage.rollups.rollup import Phases
from control_plane.usage.store import EventStore
from control_plane.usage.store.metered_values import MeteredSpan, MeteredValue, metered_values
from control_plane.usage.tables import UnmatchedReplay
from gateway_contract.counters import HOUR_MS

log = structlog.get_logger(__name__)

Meters = Mapping[str, Sequence[KnownMeter]]
"""Meters by product code."""
# what PostgreSQL's bigint holds; more than ten years of the most that a call can report, a thousand times a second
LARGEST = 2**63 - 1


class Place(NamedTuple):
    """Where a value stands."""

    hour: HourKey
    phase_id: str
    meter_id: str


@dataclass(frozen=True, slots=True)
class _Stand:
    """A value as it stands in a row; `latest_*` of latest meters only, None for others."""

    value: int
    events: int
    latest_at_ms: int | None
    latest_event_id: str | None


async def derive_meters(session: AsyncSession, store: EventStore, done: RecomputedHours) -> Collection[HourKey]:
    """Write what declared meters come to in recomputed hours: see `rollups.derived.Derive`."""
    meters = await counting_meters(session)
    if not meters:
        return ()
    return await count_hours(session, store, hours=done.hours, phases=done.phases, meters=meters, now=done.now)


async def count_hours(
    session: AsyncSession,
    store: EventStore,
    *,
    hours: Sequence[HourKey],
    phases: Phases,
    meters: Meters,
    now: datetime,
) -> set[HourKey]:
    """Bring the values of these meters in these hours up to date; the caller holds the hours' locks.

    Returns the hours in which a value changed that the phase's plan version has a price on. Billing periods of
    unique meters that count in these hours are touched. Idempotent.
    """
    computed = await _computed(session, store, hours, phases, meters)
    known = {meter.id: meter for of_product in meters.values() for meter in of_product}
    standing = await _standing(session, hours, known)
    gone = standing.keys() - computed.keys()
    changed = {place for place, stand in computed.items() if standing.get(place) != stand}
    if gone:
        await session.execute(delete(MeterHourly).where(_is_at(gone)))
    if changed:
        await _write(session, {place: computed[place] for place in changed})
    unique = {
        (place.phase_id, place.hour.hour_ms)
        for place in computed.keys() | gone
        if known[place.meter_id].facts.aggregation is Aggregation.UNIQUE
    }
    await touch_periods(session, unique, now=now)
    return await _priced(session, changed | gone, known)


async def _computed(
    session: AsyncSession, store: EventStore, hours: Sequence[HourKey], phases: Phases, meters: Meters
) -> dict[Place, _Stand]:
    spans = _spans(hours, phases, meters)
    if not spans:
        return {}
    counted_hours = {key for key, _, _ in spans}
    voids = await voids_of_hours(session, counted_hours)
    left_out = [(key.account_id, event_id) for key, event_ids in voids.items() for event_id in event_ids]
    replays = await billed_replays(session, counted_hours)
    asked = [meter for product in sorted(meters) for meter in meters[product]]

    def read() -> list[tuple[int, int, MeteredValue]]:
        values = metered_values(
            store,
            groups=[[span] for _, _, span in spans],
            meters=[meter.facts for meter in asked],
            billed_replays=replays,
            left_out=left_out,
        )
        return list(values)

    found: dict[Place, _Stand] = {}
    for group, number, value in await asyncio.to_thread(read):
        key, phase_id, _ = spans[group]
        found[Place(key, phase_id, asked[number].id)] = _stand(value, asked[number])
    return found


def _spans(hours: Sequence[HourKey], phases: Phases, meters: Meters) -> list[tuple[HourKey, str, MeteredSpan]]:
    """Return hour, phase and span of each part of an hour in which a product with meters was subscribed to."""
    of_accounts: dict[str, list[str]] = defaultdict(list)
    for account_id, product in phases:
        if product in meters:
            of_accounts[account_id].append(product)
    found = []
    for key in hours:
        for product in of_accounts.get(key.account_id, ()):
            for phase in phases[key.account_id, product]:
                start_ms = max(phase.start_ms, key.hour_ms)
                end_ms = key.hour_ms + HOUR_MS
                if phase.end_ms is not None:
                    end_ms = min(phase.end_ms, end_ms)
                if start_ms < end_ms:
                    span = MeteredSpan(
                        account_id=key.account_id,
                        product=product,
                        start_ms=start_ms,
                        end_ms=end_ms,
                        below_status=phase.billable_statuses.stop,
                    )
                    found.append((key, phase.phase_id, span))
    return found


async def billed_replays(session: AsyncSession, hours: Collection[HourKey]) -> list[tuple[str, str]]:
    """Return (account, event id) of the replays in these hours that are billed, no original being known."""
    statement = select(UnmatchedReplay.account_id, UnmatchedReplay.event_id)
    rows = await session.execute(statement.where(is_one_of(UnmatchedReplay, hours)))
    return [(account_id, event_id) for account_id, event_id in rows]


def _stand(value: MeteredValue, meter: KnownMeter) -> _Stand:
    amount = value.value
    if amount > LARGEST:
        log.error("a meter counted more than can be kept", meter=meter.facts.code, value=amount, kept=LARGEST)
        amount = LARGEST
    if meter.facts.aggregation is Aggregation.LATEST:
        return _Stand(amount, value.events, value.latest_at_ms, value.latest_event_id)
    return _Stand(amount, value.events, None, None)


async def _standing(
    session: AsyncSession, hours: Collection[HourKey], meter_ids: Collection[str]
) -> dict[Place, _Stand]:
    statement = select(
        MeterHourly.account_id,
        MeterHourly.hour,
        MeterHourly.phase_id,
        MeterHourly.meter_id,
        MeterHourly.value,
        MeterHourly.events,
        MeterHourly.latest_at_ms,
        MeterHourly.latest_event_id,
    ).where(is_one_of(MeterHourly, hours), is_any_of(MeterHourly.meter_id, meter_ids))
    return {
        Place(HourKey(row.account_id, to_ms(row.hour)), row.phase_id, row.meter_id): _Stand(
            row.value, row.events, row.latest_at_ms, row.latest_event_id
        )
        for row in await session.execute(statement)
    }


def _is_at(places: Collection[Place]) -> ColumnElement[bool]:
    columns = tuple_(MeterHourly.account_id, MeterHourly.hour, MeterHourly.phase_id, MeterHourly.meter_id)
    return columns.in_(
        [(key.account_id, from_ms(key.hour_ms), phase_id, meter_id) for key, phase_id, meter_id in places]
    )


async def _write(session: AsyncSession, stands: Mapping[Place, _Stand]) -> None:
    statement = insert(MeterHourly)
    names = ("value", "events", "latest_at_ms", "latest_event_id")
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["account_id", "hour", "phase_id", "meter_id"],
            set_={name: statement.excluded[name] for name in names},
        ),
        [
            {
                "account_id": key.account_id,
                "hour": from_ms(key.hour_ms),
                "phase_id": phase_id,
                "meter_id": meter_id,
                **{name: getattr(stand, name) for name in names},
            }
            for (key, phase_id, meter_id), stand in sorted(stands.items(), key=lambda item: item[0])
        ],
    )


async def _priced(
    session: AsyncSession, places: Collection[Place], known: Mapping[str, KnownMeter]
) -> set[HourKey]:
    """Return the hours of those places whose phase's plan version has a price on the meter."""
    if not places:
        return set()
    statement = (
        select(SubscriptionPhase.id, Price.meter)
        .join(Price, Price.plan_version_id == SubscriptionPhase.plan_version_id)
        .where(
            is_any_of(SubscriptionPhase.id, {place.phase_id for place in places}),
            Price.meter == func.any(sorted({known[place.meter_id].facts.code for place in places})),
        )
    )
    priced = {(phase_id, code) for phase_id, code in await session.execute(statement)}
    return {place.hour for place in places if (place.phase_id, known[place.meter_id].facts.code) in priced}
