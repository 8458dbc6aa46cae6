"""Reading moves: previews, lists, reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, case, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from control_plane.accounts.tables import Account
from control_plane.billing.plan_moves.candidates import MoveScope, move_candidates, target_of
from control_plane.billing.plan_moves.model import Candidate, MonthlyCost, MoveTarget, MoveTime, total_difference
from control_plane.billing.plan_moves.tables import PlanMove, PlanMoveItem
from control_plane.catalog.queries import plan
from control_plane.catalog.tables import Plan, PlanVersion
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.pagination import Page, decode_cursor, page_of


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePreview:
    """Whom a move would concern, whoever gains or loses most first, and sums of those who can be moved."""

    target: MoveTarget
    candidates: tuple[Candidate, ...]
    totals: dict[str, MonthlyCost]

    @property
    def movable(self) -> int:
        return sum(one.cannot is None for one in self.candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveReport:
    """A move with what became of its subscriptions; `totals` over those not skipped, excluded or cancelled."""

    move: PlanMove
    from_plan: str
    to_plan: str
    to_version: int
    counts: dict[str, int]
    totals: dict[str, MonthlyCost]
    to_tell: int
    tell_from: datetime | None


async def preview_move(session: AsyncSession, *, scope: MoveScope, when: MoveTime, now: datetime) -> MovePreview:
    """Say who would be moved, from which version, when, what it would cost them, and who cannot be, and why.

    Raises:
        NotFoundError, PlanIsAddOnError, PlanNotOnSaleError.
    """
    await plan(session, scope.from_plan)
    target = await target_of(session, scope.to_plan)
    found = await move_candidates(session, scope, target=target, when=when, now=now)
    found.sort(key=lambda one: (-abs(one.cost.difference_minor) if one.cost else 0, one.subscription_id))
    return MovePreview(target=target, candidates=tuple(found), totals=total_difference(found))


async def moves_page(session: AsyncSession, *, cursor: str | None, limit: int) -> Page[MoveReport]:
    """Return a page of moves, newest first.

    Raises:
        ValidationFailedError: the cursor is not one of this list.
    """
    statement = _moves().order_by(PlanMove.created_at.desc(), PlanMove.id.desc()).limit(limit + 1)
    if cursor is not None:
        after = decode_cursor(cursor, datetime, str)
        statement = statement.where(tuple_(PlanMove.created_at, PlanMove.id) < after)
    rows = (await session.execute(statement)).all()
    page = page_of(rows, limit=limit, sort_values=lambda row: (row.PlanMove.created_at, row.PlanMove.id))
    return Page(tuple(await _reports(session, page.items)), page.next_cursor)


async def move_report(session: AsyncSession, move_id: str) -> MoveReport:
    """Return one move.

    Raises:
        NotFoundError: there is none.
    """
    rows = (await session.execute(_moves().where(PlanMove.id == move_id))).all()
    if not rows:
        raise NotFoundError("plan_move", move_id)
    return (await _reports(session, rows))[0]


async def items_page(
    session: AsyncSession, move_id: str, *, status: str | None, cursor: str | None, limit: int
) -> Page[tuple[PlanMoveItem, str]]:
    """Return a page of (item, account's name) of a move, by subscription.

    Raises:
        NotFoundError: no such move. ValidationFailedError: the cursor is not one of this list.
    """
    await move_report(session, move_id)
    statement = (
        select(PlanMoveItem, Account.name)
        .join(Account, Account.id == PlanMoveItem.account_id)
        .where(PlanMoveItem.move_id == move_id)
        .order_by(PlanMoveItem.subscription_id)
        .limit(limit + 1)
    )
    if status is not None:
        statement = statement.where(PlanMoveItem.status == status)
    if cursor is not None:
        statement = statement.where(PlanMoveItem.subscription_id > decode_cursor(cursor, str)[0])
    rows = [(item, name) for item, name in await session.execute(statement)]
    return page_of(rows, limit=limit, sort_values=lambda row: (row[0].subscription_id,))


def _moves() -> Any:
    from_plan = aliased(Plan)
    return (
        select(PlanMove, from_plan.code.label("from_plan"), Plan.code.label("to_plan"), PlanVersion.version)
        .join(from_plan, from_plan.id == PlanMove.from_plan_id)
        .join(PlanVersion, PlanVersion.id == PlanMove.plan_version_id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
    )


_MOVING = ("waiting", "planned", "moved")


async def _reports(session: AsyncSession, rows: Sequence[Row[Any]]) -> list[MoveReport]:
    ids = [row.PlanMove.id for row in rows]
    is_to_tell = PlanMoveItem.told_at.is_(None) & PlanMoveItem.status.in_(("waiting", "planned"))
    sums = [
        func.coalesce(func.sum(column), 0)
        for column in (
            PlanMoveItem.recurring_before_minor,
            PlanMoveItem.recurring_after_minor,
            PlanMoveItem.month_before_minor,
            PlanMoveItem.month_after_minor,
        )
    ]
    statement = (
        select(
            PlanMoveItem.move_id,
            PlanMoveItem.status,
            PlanMoveItem.currency,
            func.count(),
            func.count().filter(is_to_tell),
            func.min(case((is_to_tell, PlanMoveItem.tell_by))),
            *sums,
        )
        .where(PlanMoveItem.move_id.in_(ids))
        .group_by(PlanMoveItem.move_id, PlanMoveItem.status, PlanMoveItem.currency)
    )
    groups: Sequence[Any] = (await session.execute(statement)).all()
    return [_report(row, [group for group in groups if group[0] == row.PlanMove.id]) for row in rows]


def _report(row: Row[Any], groups: Sequence[Any]) -> MoveReport:
    counts: dict[str, int] = {}
    amounts: dict[str, list[int]] = {}
    for _, status, currency, count, _, _, *sums in groups:
        counts[status] = counts.get(status, 0) + count
        if status in _MOVING:
            so_far = amounts.setdefault(currency, [0, 0, 0, 0])
            amounts[currency] = [one + int(more) for one, more in zip(so_far, sums, strict=True)]
    return MoveReport(
        move=row.PlanMove,
        from_plan=row.from_plan,
        to_plan=row.to_plan,
        to_version=row.version,
        counts=dict(sorted(counts.items())),
        totals={
            currency: MonthlyCost(
                recurring_before_minor=found[0],
                recurring_after_minor=found[1],
                month_before_minor=found[2],
                month_after_minor=found[3],
            )
            for currency, found in sorted(amounts.items())
        },
        to_tell=sum(group[4] for group in groups),
        tell_from=min((group[5] for group in groups if group[5] is not None), default=None),
    )
