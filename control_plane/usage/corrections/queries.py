"""Reading corrections: those in force by hour, which events are voided, and lists of all."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import ColumnElement, exists, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import to_ms
from control_plane.foundation.db import is_any_of
from control_plane.foundation.pagination import MAX_PAGE_SIZE, Page, decode_cursor, page_of
from control_plane.usage.corrections.model import Amendment
from control_plane.usage.corrections.tables import UsageAmendment, UsageVoid, UsageWithdrawal
from control_plane.usage.hours import is_one_of
from control_plane.usage.model import HourKey

Row = TypeVar("Row", UsageVoid, UsageAmendment)
CorrectionTable = type[UsageVoid] | type[UsageAmendment]


@dataclass(frozen=True, slots=True)
class VoidRecord:
    """A void, and its withdrawal if there is one."""

    void: UsageVoid
    withdrawal: UsageWithdrawal | None


@dataclass(frozen=True, slots=True)
class AmendmentRecord:
    """An amendment, and its withdrawal if there is one."""

    amendment: UsageAmendment
    withdrawal: UsageWithdrawal | None


async def voids_of_hours(session: AsyncSession, hours: Collection[HourKey]) -> dict[HourKey, frozenset[str]]:
    """Return the ids of voided events by hour; hours without any are left out."""
    statement = select(UsageVoid.account_id, UsageVoid.hour, UsageVoid.event_id).where(
        is_one_of(UsageVoid, hours), in_force(UsageVoid)
    )
    found: dict[HourKey, set[str]] = defaultdict(set)
    for account_id, hour, event_id in await session.execute(statement):
        found[HourKey(account_id, to_ms(hour))].add(event_id)
    return {key: frozenset(event_ids) for key, event_ids in found.items()}


async def voided_events(
    session: AsyncSession, *, account_id: str, event_ids: Collection[str]
) -> dict[str, UsageVoid]:
    """Return, of these events, those that are voided, by id: what to show beside them in the request history."""
    statement = select(UsageVoid).where(
        UsageVoid.account_id == account_id, is_any_of(UsageVoid.event_id, event_ids), in_force(UsageVoid)
    )
    return {row.event_id: row for row in await session.scalars(statement)}


async def amendments_of_hours(
    session: AsyncSession, hours: Collection[HourKey]
) -> dict[HourKey, tuple[Amendment, ...]]:
    """Return the amendments in force by hour, oldest first; hours without any are left out."""
    statement = (
        select(UsageAmendment)
        .where(is_one_of(UsageAmendment, hours), in_force(UsageAmendment))
        .order_by(UsageAmendment.id)
    )
    found: dict[HourKey, list[Amendment]] = defaultdict(list)
    for row in await session.scalars(statement):
        found[HourKey(row.account_id, to_ms(row.hour))].append(as_amendment(row))
    return {key: tuple(amendments) for key, amendments in found.items()}


def as_amendment(row: UsageAmendment) -> Amendment:
    """Return a row's amounts."""
    return Amendment(
        id=row.id,
        phase_id=row.phase_id,
        product=row.product,
        key_id=row.key_id,
        endpoint=row.endpoint,
        calls=row.calls,
        meters=row.meters,
        declared=frozenset(row.declared),
    )


async def list_voids(
    session: AsyncSession,
    *,
    account_id: str | None = None,
    hour: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[VoidRecord]:
    """Return one page of voids, newest first, withdrawn ones too. `limit` is cut at 200."""
    wanted = _wanted(UsageVoid, account_id, hour)
    page = await _page(session, UsageVoid, wanted, cursor=cursor, limit=limit)
    withdrawn = await withdrawals(session, page.items)
    return Page(tuple(VoidRecord(row, withdrawn.get(row.id)) for row in page.items), page.next_cursor)


async def list_amendments(
    session: AsyncSession,
    *,
    account_id: str | None = None,
    hour: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[AmendmentRecord]:
    """Return one page of amendments, newest first, withdrawn ones too. `limit` is cut at 200."""
    wanted = _wanted(UsageAmendment, account_id, hour)
    page = await _page(session, UsageAmendment, wanted, cursor=cursor, limit=limit)
    withdrawn = await withdrawals(session, page.items)
    return Page(tuple(AmendmentRecord(row, withdrawn.get(row.id)) for row in page.items), page.next_cursor)


async def withdrawals(session: AsyncSession, rows: Sequence[Row]) -> dict[str, UsageWithdrawal]:
    """Return the withdrawals of these corrections by their ids."""
    statement = select(UsageWithdrawal).where(is_any_of(UsageWithdrawal.correction_id, [row.id for row in rows]))
    return {found.correction_id: found for found in await session.scalars(statement)}


def in_force(table: CorrectionTable) -> ColumnElement[bool]:
    """Return the condition that a correction was not withdrawn."""
    return ~exists().where(UsageWithdrawal.correction_id == table.id)


def _wanted(table: CorrectionTable, account_id: str | None, hour: datetime | None) -> list[ColumnElement[bool]]:
    wanted = ((table.account_id, account_id), (table.hour, hour))
    return [column == value for column, value in wanted if value is not None]


async def _page(
    session: AsyncSession,
    table: type[Row],
    conditions: Sequence[ColumnElement[bool]],
    *,
    cursor: str | None,
    limit: int,
) -> Page[Row]:
    page_size = max(1, min(limit, MAX_PAGE_SIZE))
    statement = select(table).where(*conditions).order_by(table.created_at.desc(), table.id.desc())
    if cursor:
        before = decode_cursor(cursor, datetime, str)
        statement = statement.where(tuple_(table.created_at, table.id) < before)
    rows: Sequence[Row] = (await session.scalars(statement.limit(page_size + 1))).all()
    return page_of(rows, limit=page_size, sort_values=lambda row: (row.created_at, row.id))
