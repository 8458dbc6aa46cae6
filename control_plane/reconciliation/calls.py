"""Calls that the gateway admitted against stored events, and these against rollups, as hours were checked.

The checks themselves run all the time (usage/completeness); a reconciliation reads their last word.
"""

from datetime import timedelta

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.reconciliation.model import Comparison, Difference, Link, Severity, Span
from control_plane.usage.completeness.model import State
from control_plane.usage.completeness.tables import CountedUsage, HourCheck

HOUR = timedelta(hours=1)
_CAUSES = {
    State.WAITING: ("not_judged_yet", "the hour is not over, or a shipper has not shipped past it"),
    State.MISSING: ("never_logged", "calls were admitted and their events never came"),
    State.SURPLUS: ("counter_went_back", "more calls are stored than were counted: Redis went back to older data"),
    State.UNKNOWN: ("counter_lost", "Redis lost what it had counted: nobody can say"),
}


async def compare_events(session: AsyncSession, span: Span) -> Comparison:
    """Compare numbers that the gateway gave to calls with events that carry them."""
    of_span = [CountedUsage.hour >= span.start, CountedUsage.hour < span.end]
    if span.account_id is not None:
        of_span.append(CountedUsage.account_id == span.account_id)
    counters, admitted, stored = (
        await session.execute(
            select(
                func.count(),
                cast(func.coalesce(func.sum(CountedUsage.admitted), 0), BigInteger),
                cast(func.coalesce(func.sum(CountedUsage.stored), 0), BigInteger),
            ).where(*of_span)
        )
    ).one()
    rows = await session.scalars(
        select(CountedUsage)
        .where(*of_span, CountedUsage.state != State.COMPLETE.value)
        .order_by(CountedUsage.hour, CountedUsage.subscription_id, CountedUsage.mode)
    )
    return Comparison(
        link=Link.GATEWAY_EVENTS,
        checked=counters,
        checked_what="hours of counters",
        expected=admitted,
        found=stored,
        differences=[_of_counter(row) for row in rows],
    )


def _of_counter(row: CountedUsage) -> Difference:
    state = State(row.state)
    cause, detail = _CAUSES[state]
    nodes = sorted({node for part in row.missing for node in part.get("nodes", ())})
    if nodes:
        detail += f"; last seen at {', '.join(nodes[:3])}"
    if row.mode != "live":
        detail += f" ({row.mode} calls: never billed)"
    return Difference(
        link=Link.GATEWAY_EVENTS,
        severity=Severity.WAITING if state is State.WAITING else Severity.WRONG,
        account_id=row.account_id,
        subscription_id=row.subscription_id,
        start=row.hour,
        end=row.hour + HOUR,
        unit="calls",
        expected=row.admitted,
        # of missing calls the exact number is known, whatever else is stored
        found=row.admitted - row.missing_calls if state is State.MISSING else row.stored,
        cause=cause,
        detail=detail,
    )


async def compare_rollups(session: AsyncSession, span: Span) -> Comparison:
    """Compare figures computed anew from stored events with hourly rollups, and bills with counters."""
    of_span = [HourCheck.hour >= span.start, HourCheck.hour < span.end]
    if span.account_id is not None:
        of_span.append(HourCheck.account_id == span.account_id)
    checked = (await session.execute(select(func.count()).where(*of_span))).scalar_one()
    rows = await session.scalars(
        select(HourCheck)
        .where(*of_span, HourCheck.differs_since.is_not(None) | HourCheck.settled.in_(("differs", "pending")))
        .order_by(HourCheck.hour, HourCheck.account_id)
    )
    return Comparison(
        link=Link.EVENTS_ROLLUPS,
        checked=checked,
        checked_what="hours of accounts",
        differences=[one for row in rows for one in _of_check(row)],
    )


def _of_check(row: HourCheck) -> list[Difference]:
    found = []
    if row.differs_since is not None:
        found.append(
            _hour(
                row,
                Severity.WRONG,
                "rollup_differs",
                f"figures computed anew from events are others in {len(row.differences) or 'some'} rows, "
                f"since {row.differs_since:%Y-%m-%d %H:%M}",
            )
        )
    if row.settled == "differs":
        found.append(_hour(row, Severity.WRONG, "counter_differs", "the gateway's counter does not hold the bill"))
    if row.settled == "pending":
        found.append(_hour(row, Severity.WAITING, "counter_pending", "the gateway's counter is being set right"))
    return found


def _hour(row: HourCheck, severity: Severity, cause: str, detail: str) -> Difference:
    return Difference(
        link=Link.EVENTS_ROLLUPS,
        severity=severity,
        account_id=row.account_id,
        start=row.hour,
        end=row.hour + HOUR,
        unit="hours",
        expected=1,
        found=0,
        cause=cause,
        detail=detail,
    )
