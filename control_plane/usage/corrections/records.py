"""What every correction leaves behind: its audit row and the touched hour; and its withdrawal."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.usage.corrections.tables import UsageAmendment, UsageVoid, UsageWithdrawal
from control_plane.usage.operations import touch_hours

HOUR = timedelta(hours=1)


async def add_correction(
    session: AsyncSession, row: UsageVoid | UsageAmendment, *, actor: str, now: datetime
) -> None:
    """Write a correction and its audit row, and touch its hour, which the caller has locked."""
    session.add(row)
    await session.flush()
    await _touch(session, row, now)
    kind = _kind(row)
    await record_change(
        session,
        actor=actor,
        action=f"usage_{kind}.made",
        entity_type=f"usage_{kind}",
        entity_id=row.id,
        before=None,
        after=_facts(row),
        now=now,
    )


async def withdraw(
    session: AsyncSession, row: UsageVoid | UsageAmendment, *, reason: str, actor: str, now: datetime
) -> UsageWithdrawal:
    """Write a correction's withdrawal and its audit row, and touch its hour, which the caller has locked."""
    withdrawal = UsageWithdrawal(correction_id=row.id, reason=reason, author=actor, created_at=now)
    session.add(withdrawal)
    await session.flush()
    await _touch(session, row, now)
    kind = _kind(row)
    await record_change(
        session,
        actor=actor,
        action=f"usage_{kind}.withdrawn",
        entity_type=f"usage_{kind}",
        entity_id=row.id,
        before=_facts(row),
        after={"reason": reason},
        now=now,
    )
    return withdrawal


async def _touch(session: AsyncSession, row: UsageVoid | UsageAmendment, now: datetime) -> None:
    await touch_hours(session, account_id=row.account_id, start=row.hour, end=row.hour + HOUR, now=now)


def _kind(row: UsageVoid | UsageAmendment) -> str:
    return "void" if isinstance(row, UsageVoid) else "amendment"


def _facts(row: UsageVoid | UsageAmendment) -> dict[str, Any]:
    facts: dict[str, Any] = {"account_id": row.account_id, "hour": row.hour.isoformat(), "reason": row.reason}
    if isinstance(row, UsageVoid):
        return {**facts, "event_id": row.event_id}
    names = ("phase_id", "product", "key_id", "endpoint", "calls", "meters", "reference")
    return {**facts, **{name: getattr(row, name) for name in names}}
