"""Scheduling moves of many subscriptions, and taking them back. Nothing here commits."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.plan_moves.candidates import MoveScope, move_candidates, target_of
from control_plane.billing.plan_moves.model import (
    DAY,
    OPEN,
    Candidate,
    ItemStatus,
    MoveFinishedError,
    MoveTarget,
    MoveTime,
    NobodyToMoveError,
    NotOpenError,
)
from control_plane.billing.plan_moves.tables import PlanMove, PlanMoveItem
from control_plane.billing.plan_moves.undoing import TakenBack, take_back
from control_plane.catalog.queries import plan
from control_plane.foundation.audit import record_change
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.foundation.ids import new_id

ENTITY = "plan_move"
ROWS_AT_ONCE = 1000


async def schedule_move(
    session: AsyncSession,
    *,
    scope: MoveScope,
    when: MoveTime,
    message: str = "",
    exclude: Mapping[str, str] | None = None,
    actor: str,
    now: datetime,
) -> PlanMove:
    """Schedule a move of all who are on the versions now; a worker plans it, one subscription after another.

    `exclude`: subscriptions that stay, with the reason. Who cannot be moved is noted as skipped with the reason;
    `message` is added to each notice.

    Raises:
        NotFoundError, PlanIsAddOnError, PlanNotOnSaleError, NoticeTooShortError, NobodyToMoveError.
    """
    now = floor_ms(now)
    when.check_notice(now)
    from_plan = await plan(session, scope.from_plan)
    target = await target_of(session, scope.to_plan)
    candidates = await move_candidates(session, scope, target=target, when=when, now=now)
    move = PlanMove(
        id=new_id("mov", now),
        from_plan_id=from_plan.id,
        from_versions=[str(version) for version in sorted(scope.from_versions)],
        plan_version_id=target.plan_version_id,
        timing=when.timing,
        move_at=when.at,
        notice_days=when.notice_days,
        message=message,
        status="scheduled",
        created_by=actor,
        created_at=now,
    )
    excluded = exclude or {}
    if unknown := sorted(set(excluded) - {one.subscription_id for one in candidates}):
        raise ValidationFailedError("exclude", f"{unknown[0]} is not on any of the versions to move from")
    rows = [_row(one, move, target, excluded=excluded.get(one.subscription_id)) for one in candidates]
    if not any(row["status"] == ItemStatus.WAITING for row in rows):
        raise NobodyToMoveError
    session.add(move)
    await session.flush()
    for start in range(0, len(rows), ROWS_AT_ONCE):
        await session.execute(insert(PlanMoveItem), rows[start : start + ROWS_AT_ONCE])
    statuses = Counter(row["status"] for row in rows)
    await _record(session, move, "plan_move.scheduled", after=_facts(move, target, statuses), actor=actor, now=now)
    return move


async def cancel_move(session: AsyncSession, *, move_id: str, actor: str, now: datetime) -> PlanMove:
    """Take back what of a move has not happened yet: a worker does it, one subscription after another. Repeatable.

    Raises:
        NotFoundError. MoveFinishedError: all are moved.
    """
    now = floor_ms(now)
    move = await locked_move(session, move_id)
    if move.status == "done":
        raise MoveFinishedError(move_id, move.status)
    if move.status == "scheduled":
        move.status = "canceling"
        after = {"status": "canceling"}
        await _record(session, move, "plan_move.canceled", after=after, actor=actor, now=now)
    return move


async def exclude_from_move(
    session: AsyncSession, *, move_id: str, subscription_id: str, reason: str, actor: str, now: datetime
) -> PlanMoveItem:
    """Let one subscription stay as it is: who objects is not moved. What was planned for it is taken back.

    Raises:
        NotFoundError: not in the move. NotOpenError: moved, skipped or excluded already.
    """
    now = floor_ms(now)
    statement = select(PlanMoveItem).where(
        PlanMoveItem.move_id == move_id, PlanMoveItem.subscription_id == subscription_id
    )
    item = (await session.scalars(statement.with_for_update())).one_or_none()
    if item is None:
        raise NotFoundError("plan_move_item", f"{move_id}/{subscription_id}")
    if item.status not in OPEN or item.effective_at <= now:
        raise NotOpenError(subscription_id, item.status)
    move = await session.get_one(PlanMove, move_id)
    if item.status == ItemStatus.PLANNED:
        taken = await take_back(session, item, plan_version_id=move.plan_version_id, actor=actor, now=now)
        if taken is TakenBack.BEGUN:
            raise NotOpenError(subscription_id, ItemStatus.MOVED)
    await _exclude(session, move, item, reason=reason, actor=actor, now=now)
    return item


async def discard_planned_move(
    session: AsyncSession, *, subscription_id: str, actor: str, now: datetime
) -> PlanMoveItem | None:
    """Exclude a subscription whose planned change, which somebody discards, is that of a move; else do nothing.

    Raises:
        NotFoundError: no such subscription.
    """
    now = floor_ms(now)
    statement = select(PlanMoveItem).where(
        PlanMoveItem.subscription_id == subscription_id,
        PlanMoveItem.status == ItemStatus.PLANNED.value,
        PlanMoveItem.effective_at > now,
    )
    item = (await session.scalars(statement.with_for_update())).one_or_none()
    if item is None:
        return None
    move = await session.get_one(PlanMove, item.move_id)
    taken = await take_back(session, item, plan_version_id=move.plan_version_id, actor=actor, now=now)
    if taken is not TakenBack.YES:
        return None
    await _exclude(session, move, item, reason="the planned change was discarded", actor=actor, now=now)
    return item


async def _exclude(
    session: AsyncSession, move: PlanMove, item: PlanMoveItem, *, reason: str, actor: str, now: datetime
) -> None:
    item.status, item.reason_code, item.reason = ItemStatus.EXCLUDED.value, "excluded", reason
    item.updated_at = now
    after = {"subscription_id": item.subscription_id, "reason": reason}
    await _record(session, move, "plan_move.excluded", after=after, actor=actor, now=now)


async def locked_move(session: AsyncSession, move_id: str) -> PlanMove:
    """Return a move, locked.

    Raises:
        NotFoundError: there is none.
    """
    statement = select(PlanMove).where(PlanMove.id == move_id).with_for_update()
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFoundError("plan_move", move_id)
    return found


def _row(one: Candidate, move: PlanMove, target: MoveTarget, *, excluded: str | None) -> dict[str, Any]:
    status, code, reason = ItemStatus.WAITING, "", ""
    if excluded is not None:
        status, code, reason = ItemStatus.EXCLUDED, "excluded", excluded or "excluded when the move was scheduled"
    elif one.cannot is not None:
        status, code, reason = ItemStatus.SKIPPED, one.cannot.code, one.cannot.text
    cost = one.cost
    return {
        "move_id": move.id,
        "subscription_id": one.subscription_id,
        "account_id": one.account_id,
        "from_plan_version_id": one.from_plan_version_id,
        "status": status.value,
        "reason_code": code,
        "reason": reason,
        "effective_at": one.effective_at,
        "tell_by": one.effective_at - move.notice_days * DAY,
        "notice": _notice(one, move, target),
        "currency": one.currency,
        "recurring_before_minor": cost and cost.recurring_before_minor,
        "recurring_after_minor": cost and cost.recurring_after_minor,
        "month_before_minor": cost and cost.month_before_minor,
        "month_after_minor": cost and cost.month_after_minor,
        "updated_at": move.created_at,
    }


def _notice(one: Candidate, move: PlanMove, target: MoveTarget) -> dict[str, Any]:
    """Return what the customer is to be told, ready for JSON."""
    return {
        "account_name": one.account_name,
        "from_plan": one.from_plan_code,
        "from_version": one.from_version,
        "to_plan": target.plan_code,
        "to_plan_name": target.plan_name,
        "to_version": target.version,
        "effective_at": one.effective_at.isoformat(),
        "currency": one.currency,
        "recurring_before_minor": one.cost and one.cost.recurring_before_minor,
        "recurring_after_minor": one.cost and one.cost.recurring_after_minor,
        "setup_fee_minor": one.setup_fee_minor,
        "message": move.message,
    }


def _facts(move: PlanMove, target: MoveTarget, statuses: Mapping[str, int]) -> dict[str, Any]:
    return {
        "to_plan": target.plan_code,
        "to_version": target.version,
        "timing": move.timing,
        "move_at": move.move_at.isoformat(),
        "notice_days": move.notice_days,
        "subscriptions": dict(statuses),
    }


async def _record(
    session: AsyncSession, move: PlanMove, action: str, *, after: dict[str, Any], actor: str, now: datetime
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type=ENTITY,
        entity_id=move.id,
        before=None,
        after=after,
        now=now,
    )
