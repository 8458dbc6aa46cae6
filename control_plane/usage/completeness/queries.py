"""Reading what checks found."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of
from control_plane.usage.completeness.model import INCOMPLETE, State
from control_plane.usage.completeness.tables import CompletenessRun, CountedUsage, HourCheck

WORST_FIRST = (State.MISSING, State.SURPLUS, State.UNKNOWN, State.WAITING, State.COMPLETE)


@dataclass(frozen=True, slots=True)
class Overview:
    """Sums over the hours of a span. `checked_at`: the last round of checks, None before the first."""

    hours_by_state: Mapping[str, int]
    missing_calls: int
    admitted: int
    unnumbered: int
    differing_hours: int
    wrongly_settled_hours: int
    checked_hours: int
    checked_at: datetime | None
    counted_until: datetime | None


@dataclass(frozen=True, slots=True)
class CheckedHour:
    """The last check of an hour, with the name of its account."""

    check: HourCheck
    account_name: str


@dataclass(frozen=True, slots=True)
class AccountHours:
    """The worst state of an account's hours."""

    account_id: str
    account_name: str
    states: Mapping[datetime, State]


@dataclass(frozen=True, slots=True)
class CounterRow:
    """One counter's hour with the name of its account, and what the last check said of the whole hour."""

    counted: CountedUsage
    account_name: str
    check: HourCheck | None


async def overview(
    session: AsyncSession, *, start: datetime, end: datetime, account_id: str | None = None
) -> Overview:
    """Return sums over the hours in [start, end), of one account or of all."""
    counted = select(
        CountedUsage.state,
        func.count(),
        _total(CountedUsage.missing_calls),
        _total(CountedUsage.admitted),
        _total(CountedUsage.unnumbered),
    ).where(CountedUsage.hour >= start, CountedUsage.hour < end)
    checks = select(
        func.count(),
        func.count().filter(HourCheck.differs_since.is_not(None)),
        func.count().filter(HourCheck.settled == "differs"),
    ).where(HourCheck.hour >= start, HourCheck.hour < end)
    if account_id is not None:
        counted = counted.where(CountedUsage.account_id == account_id)
        checks = checks.where(HourCheck.account_id == account_id)
    states: Counter[str] = Counter({state.value: 0 for state in State})
    missing = admitted = unnumbered = 0
    for state, hours, *sums in await session.execute(counted.group_by(CountedUsage.state)):
        states[state] += hours
        missing, admitted, unnumbered = missing + sums[0], admitted + sums[1], unnumbered + sums[2]
    checked, differing, wrongly_settled = (await session.execute(checks)).one()
    run = await session.get(CompletenessRun, 1, populate_existing=True)
    return Overview(
        hours_by_state=dict(states),
        missing_calls=missing,
        admitted=admitted,
        unnumbered=unnumbered,
        differing_hours=differing,
        wrongly_settled_hours=wrongly_settled,
        checked_hours=checked,
        checked_at=run.checked_at if run else None,
        counted_until=run.counted_until if run else None,
    )


@dataclass(frozen=True, slots=True)
class Wrong:
    """How much is wrong since a moment; read from what is not complete alone, so that it can be asked often."""

    hours_by_state: Mapping[str, int]
    missing_calls: int
    differing_hours: int
    wrongly_settled_hours: int


async def what_is_wrong(session: AsyncSession, *, since: datetime) -> Wrong:
    """Return counts of the hours since a moment that are not complete, or whose figures differ."""
    states: Counter[str] = Counter({state.value: 0 for state in State if state is not State.COMPLETE})
    missing = 0
    counted = select(CountedUsage.state, func.count(), _total(CountedUsage.missing_calls)).where(
        CountedUsage.hour >= since, CountedUsage.state != State.COMPLETE.value
    )
    for state, hours, calls in await session.execute(counted.group_by(CountedUsage.state)):
        states[state] += hours
        missing += calls
    checks = select(
        func.count().filter(HourCheck.differs_since.is_not(None)),
        func.count().filter(HourCheck.settled == "differs"),
    ).where(HourCheck.hour >= since, _is_wrong())
    differing, wrongly_settled = (await session.execute(checks)).one()
    return Wrong(dict(states), missing, differing, wrongly_settled)


async def counted_hours(
    session: AsyncSession,
    *,
    start: datetime,
    end: datetime,
    account_id: str | None = None,
    states: Sequence[State] = (),
    cursor: str | None = None,
    limit: int = 50,
) -> Page[CounterRow]:
    """Return one page of counters' hours in [start, end), newest first. `limit` is cut at 200.

    Raises:
        ValidationFailedError: the cursor is not one that a page has given out.
    """
    page_size = max(1, min(limit, MAX_PAGE_SIZE))
    statement = _rows().where(CountedUsage.hour >= start, CountedUsage.hour < end)
    if account_id is not None:
        statement = statement.where(CountedUsage.account_id == account_id)
    if states:
        statement = statement.where(CountedUsage.state.in_([state.value for state in states]))
    if cursor is not None:
        position = decode_cursor(cursor, datetime, str, str)
        statement = statement.where(_position() < tuple_(*position))
    order = (CountedUsage.hour.desc(), CountedUsage.subscription_id.desc(), CountedUsage.mode.desc())
    rows = [CounterRow(*row) for row in await session.execute(statement.order_by(*order).limit(page_size + 1))]
    return page_of(
        rows,
        limit=page_size,
        sort_values=lambda row: (row.counted.hour, row.counted.subscription_id, row.counted.mode),
    )


async def hour_detail(
    session: AsyncSession, *, account_id: str, hour: datetime
) -> tuple[list[CounterRow], HourCheck | None]:
    """Return all counters of an account's hour, and the last check of it, None before the first."""
    statement = _rows().where(CountedUsage.account_id == account_id, CountedUsage.hour == hour)
    rows = await session.execute(statement.order_by(CountedUsage.subscription_id, CountedUsage.mode))
    return [CounterRow(*row) for row in rows], await session.get(HourCheck, (account_id, hour))


async def differing_hours(
    session: AsyncSession, *, start: datetime, end: datetime, account_id: str | None = None, limit: int
) -> Sequence[CheckedHour]:
    """Return checks of hours whose rollup or settlement was found wrong, newest first."""
    statement = (
        select(HourCheck, func.coalesce(Account.name, ""))
        .outerjoin(Account, Account.id == HourCheck.account_id)
        .where(
            HourCheck.hour >= start,
            HourCheck.hour < end,
            _is_wrong(),
        )
        .order_by(HourCheck.hour.desc(), HourCheck.account_id)
        .limit(limit)
    )
    if account_id is not None:
        statement = statement.where(HourCheck.account_id == account_id)
    return [CheckedHour(check, name) for check, name in await session.execute(statement)]


async def state_grid(
    session: AsyncSession, *, start: datetime, end: datetime, account_id: str | None = None, accounts: int
) -> list[AccountHours]:
    """Return the worst state of each hour in [start, end), of the accounts with the most to look at."""
    in_span = [CountedUsage.hour >= start, CountedUsage.hour < end]
    if account_id is not None:
        in_span.append(CountedUsage.account_id == account_id)
    wrong = func.count().filter(CountedUsage.state.in_([state.value for state in INCOMPLETE]))
    chosen = (
        select(CountedUsage.account_id)
        .where(*in_span)
        .group_by(CountedUsage.account_id)
        .order_by(wrong.desc(), func.sum(CountedUsage.admitted).desc(), CountedUsage.account_id)
        .limit(accounts)
    )
    ids = (await session.scalars(chosen)).all()
    rows = await session.execute(
        select(CountedUsage.account_id, func.coalesce(Account.name, ""), CountedUsage.hour, CountedUsage.state)
        .outerjoin(Account, Account.id == CountedUsage.account_id)
        .where(*in_span, CountedUsage.account_id.in_(ids))
    )
    found = {account: AccountHours(account, "", {}) for account in ids}
    for account, name, hour, state in rows:
        hours = found[account]
        worst = min(State(state), hours.states.get(hour, State(state)), key=WORST_FIRST.index)
        found[account] = AccountHours(account, name, {**hours.states, hour: worst})
    return list(found.values())


def _rows() -> Select[CountedUsage, str, HourCheck]:
    return (
        select(CountedUsage, func.coalesce(Account.name, ""), HourCheck)
        .outerjoin(Account, Account.id == CountedUsage.account_id)
        .outerjoin(
            HourCheck,
            (HourCheck.account_id == CountedUsage.account_id) & (HourCheck.hour == CountedUsage.hour),
        )
    )


def _is_wrong() -> ColumnElement[bool]:
    # as the partial index has it
    return HourCheck.differs_since.is_not(None) | (HourCheck.settled == text("'differs'"))


def _position() -> ColumnElement[Any]:
    return tuple_(CountedUsage.hour, CountedUsage.subscription_id, CountedUsage.mode)


def _total(column: Any) -> ColumnElement[int]:
    # PostgreSQL's sum of bigint is numeric
    return cast(func.coalesce(func.sum(column), 0), BigInteger)
