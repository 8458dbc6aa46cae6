"""What operators do to rows of usage: have them sent once more, or say what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import ValidationFailedError
from control_plane.stripe_sync.usage.asking import begin_anew
from control_plane.stripe_sync.usage.listing import RowFilter
from control_plane.stripe_sync.usage.model import RowKey, RowState, Way
from control_plane.stripe_sync.usage.reasons import Reason
from control_plane.stripe_sync.usage.rows import key_of, lock_queue, rows_of_hours, settle
from control_plane.stripe_sync.usage.tables import StripeUsageRow

MOST_ROWS: Final = 1_000


class Assume(StrEnum):
    """What somebody knows of rows whose outcome is unknown: Stripe counts them, or it does not."""

    DELIVERED = "delivered"
    MISSING = "missing"


class Outcome(StrEnum):
    """What becomes of a row that was asked for once more.

    `sent_anew`: under another identifier, since Stripe does not count the one before. `tried_now`: what it waits
    for, or whether Stripe has it, is looked at now. `settled`: as somebody said. `left`: nothing can be done.
    """

    SENT_ANEW = "sent_anew"
    TRIED_NOW = "tried_now"
    SETTLED = "settled"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Retried:
    """A row, as it stood before, and what becomes of it."""

    key: RowKey
    delta_units: int
    state: RowState
    reason: str
    outcome: Outcome


async def retry_rows(
    session: AsyncSession,
    wanted: RowFilter,
    *,
    assume: Assume | None = None,
    dry_run: bool,
    reason: str,
    actor: str,
    now: datetime,
) -> list[Retried]:
    """Have rows tried once more: refused ones are sent anew, waiting and unknown ones are looked at now.

    With `assume`, rows of unknown outcome are taken for what is said of them. Rows that are ours, too old,
    delivered or cancelled are left. Atomic; with `dry_run` nothing changes and the answer is the same.

    Raises:
        ValidationFailedError: nothing says which rows, or there are more than can be done at once.
    """
    conditions = wanted.conditions()
    if not conditions:
        raise ValidationFailedError("state", "is required where nothing else says which rows")
    await lock_queue(session)
    rows = (
        await session.scalars(
            select(StripeUsageRow)
            .where(*conditions)
            .order_by(StripeUsageRow.account_id, StripeUsageRow.hour, StripeUsageRow.revision)
            .limit(MOST_ROWS + 1)
            .with_for_update()
        )
    ).all()
    if len(rows) > MOST_ROWS:
        raise ValidationFailedError(
            "state", f"these are more than {MOST_ROWS:,} rows: name a subscription or a range of hours"
        )
    found = []
    for row in rows:
        told = Retried(
            key_of(row), row.delta_units, RowState(row.state), row.reason, _outcome(row, assume, now=now)
        )
        found.append(told)
        if not dry_run:
            await _carry_out(session, row, told.outcome, assume, now)
    if not dry_run and found:
        await record_rows(
            session, "stripe_usage.retried", found, reason=reason, assume=assume, actor=actor, now=now
        )
    return found


def _outcome(row: StripeUsageRow, assume: Assume | None, *, now: datetime) -> Outcome:
    if row.leased_until is not None and row.leased_until > now:
        return Outcome.LEFT  # somebody is asking Stripe at this moment
    match RowState(row.state):
        case RowState.REFUSED:
            return Outcome.SENT_ANEW
        case RowState.WAITING:
            return Outcome.TRIED_NOW
        case RowState.SENT:
            if assume is Assume.DELIVERED:
                return Outcome.SETTLED
            return Outcome.SENT_ANEW if assume is Assume.MISSING else Outcome.TRIED_NOW
        case _:
            return Outcome.LEFT


async def _carry_out(
    session: AsyncSession, row: StripeUsageRow, outcome: Outcome, assume: Assume | None, now: datetime
) -> None:
    match outcome:
        case Outcome.SENT_ANEW:
            begin_anew(row, now=now)
        case Outcome.TRIED_NOW:
            row.due_at = now
        case Outcome.SETTLED if assume is Assume.DELIVERED:
            await _taken(session, row, now)
        case _:
            return


async def _taken(session: AsyncSession, row: StripeUsageRow, now: datetime) -> None:
    if row.way != Way.CANCEL:
        row.delivered_at = now
        settle(row, RowState.DELIVERED, Reason.BY_HAND)
        return
    of_hour = (await rows_of_hours(session, [key_of(row)]))[key_of(row).total]
    target = of_hour.get(row.cancels_revision or 0)
    if target is not None and target.state == RowState.DELIVERED:
        settle(target, RowState.CANCELLED, Reason.TAKEN_BACK)
    settle(row, RowState.CANCELLED, Reason.BY_HAND)


async def record_rows(
    session: AsyncSession,
    action: str,
    found: Sequence[Retried],
    *,
    reason: str,
    assume: Assume | None,
    actor: str,
    now: datetime,
) -> None:
    """Write one audit row for each account that rows are of, but for those that are left."""
    for account_id in sorted({one.key.account_id for one in found}):
        rows = [one for one in found if one.key.account_id == account_id and one.outcome is not Outcome.LEFT]
        if not rows:
            continue
        await record_change(
            session,
            actor=actor,
            action=action,
            entity_type="account",
            entity_id=account_id,
            before=None,
            after={
                "rows": len(rows),
                "units": sum(one.delta_units for one in rows),
                "hours": [
                    min(one.key.hour for one in rows).isoformat(),
                    max(one.key.hour for one in rows).isoformat(),
                ],
                "assume": assume and assume.value,
                "reason": reason,
            },
            now=now,
        )
