"""Writes down what came out of the check of an hour."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import from_ms
from control_plane.usage.completeness.alerts import Alert
from control_plane.usage.completeness.evidence import CounterHour, Evidence
from control_plane.usage.completeness.missing import MissingFound
from control_plane.usage.completeness.model import INCOMPLETE, NOTHING_COUNTED, MissingCalls, State
from control_plane.usage.completeness.tables import CountedUsage, HourCheck
from control_plane.usage.hours import is_one_of
from control_plane.usage.model import HourKey

# the revision of an hour that was due and could not be checked: no hour has it
UNCHECKED = -1


@dataclass(frozen=True, slots=True)
class CounterResult:
    """What came out of one counter's hour."""

    counter: CounterHour
    state: State
    product: str
    stored: int
    unnumbered: int
    rolled_up: int
    found: MissingFound


@dataclass(frozen=True, slots=True)
class Difference:
    """Since when figures differ, and whether this look confirmed it for the first time."""

    since: datetime | None = None
    differences: tuple[dict[str, Any], ...] = ()
    confirmed: bool = False


NO_DIFFERENCE = Difference()


async def write_results(
    session: AsyncSession,
    hour: HourKey,
    results: Sequence[CounterResult],
    evidence: Evidence,
    alerts: list[Alert],
    *,
    now: datetime,
) -> None:
    rows = await session.scalars(select(CountedUsage).where(is_one_of(CountedUsage, [hour])))
    before = {(row.subscription_id, row.mode): (row.state, row.missing_calls) for row in rows}
    for result in results:
        name = (result.counter.subscription_id, result.counter.mode)
        if result.state in INCOMPLETE and before.get(name) != (result.state.value, result.found.calls):
            alerts.append(Alert.of_counter(hour, result.counter, result.state, result.found))
        await _write_result(session, result, evidence, now=now)


async def _write_result(
    session: AsyncSession, result: CounterResult, evidence: Evidence, *, now: datetime
) -> None:
    counter = result.counter
    counted = evidence.counted.get(counter, NOTHING_COUNTED)
    judged = {
        "state": result.state.value,
        "stored": result.stored,
        "unnumbered": result.unnumbered,
        "rolled_up": result.rolled_up,
        "missing_calls": result.found.calls,
        "missing": [_gap(gap) for gap in result.found.gaps],
        "checked_at": now,
    }
    hour = from_ms(counter.hour.hour_ms)
    statement = insert(CountedUsage).values(
        hour=hour,
        subscription_id=counter.subscription_id,
        mode=counter.mode,
        account_id=counter.hour.account_id,
        product=result.product,
        period_start=_period_start(evidence, counter, hour),
        admitted=counted.admitted,
        not_counted=counted.not_counted,
        numbers=[numbers._asdict() for numbers in counted.numbers],
        counted_at=None,
        **judged,
    )
    await session.execute(
        statement.on_conflict_do_update(index_elements=["hour", "subscription_id", "mode"], set_=judged)
    )


def _period_start(evidence: Evidence, counter: CounterHour, hour: datetime) -> datetime:
    subscription = evidence.subscriptions.get(counter.subscription_id)
    return subscription.period_start(hour) if subscription else hour


def _gap(gap: MissingCalls) -> dict[str, Any]:
    return {
        "first": gap.numbers.first,
        "last": gap.numbers.last,
        "after_ms": gap.after_ms,
        "before_ms": gap.before_ms,
        "nodes": list(gap.nodes),
    }


async def write_check(
    session: AsyncSession,
    key: HourKey,
    *,
    revision: int,
    recheck_at: datetime | None,
    differing: Difference,
    settled: str,
    now: datetime,
) -> None:
    values = {
        "revision": revision,
        "checked_at": now,
        "recheck_at": recheck_at,
        "differs_since": differing.since,
        "differences": list(differing.differences),
        "settled": settled,
    }
    statement = insert(HourCheck).values(account_id=key.account_id, hour=from_ms(key.hour_ms), **values)
    await session.execute(statement.on_conflict_do_update(index_elements=["account_id", "hour"], set_=values))


async def look_again(session: AsyncSession, key: HourKey, *, at: datetime, now: datetime) -> None:
    """Make an hour due at a moment; what the last check of it found stands."""
    statement = insert(HourCheck).values(
        account_id=key.account_id,
        hour=from_ms(key.hour_ms),
        revision=UNCHECKED,
        checked_at=now,
        recheck_at=at,
        settled="pending",
    )
    await session.execute(
        statement.on_conflict_do_update(index_elements=["account_id", "hour"], set_={"recheck_at": at})
    )
