"""What a worker does of moves: plan them, note what has begun, take back what was cancelled. Nothing here commits.

Several workers may: what one holds, others pass over. Each step may be repeated.
"""

from collections.abc import Awaitable, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.operations import require_cap_kept
from control_plane.billing.plan_moves import metrics
from control_plane.billing.plan_moves.model import OPEN, ItemStatus, moments_of
from control_plane.billing.plan_moves.tables import PlanMove, PlanMoveItem
from control_plane.billing.plan_moves.undoing import TakenBack, take_back
from control_plane.catalog.currencies import CurrencyDiffersError, currencies_of, is_sold_in
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.errors import ConflictError, KmError
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.offers import require_change
from control_plane.subscriptions.phases import ahead
from control_plane.subscriptions.plan_changes import SubscriptionEndingError, move
from control_plane.subscriptions.records import bumped_subscription
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.subscriptions.timeline import Timeline
from control_plane.subscriptions.timelines import timelines

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 5
# gateways are told of a coming change in a second
LOOK_AGAIN = timedelta(hours=1)


class ChangedSinceError(ConflictError):
    """The subscription is no longer as it was when the move was scheduled."""

    def __init__(self, words: str) -> None:
        super().__init__("changed_since", words)


async def plan_waiting(session: AsyncSession, *, now: datetime, limit: int) -> int:
    """Plan the phases of up to `limit` subscriptions that wait; returns for how many that did not fail.

    One that cannot be moved is skipped with the reason; one that fails otherwise is tried again up to five times.
    """
    # by account: whoever locks several accounts does so in this order
    statement = (
        select(PlanMoveItem, PlanMove.plan_version_id)
        .join(PlanMove, PlanMove.id == PlanMoveItem.move_id)
        .where(PlanMoveItem.status == ItemStatus.WAITING.value, PlanMove.status == "scheduled")
        .order_by(PlanMoveItem.account_id)
        .limit(limit)
        .with_for_update(of=PlanMoveItem, skip_locked=True)
    )
    found = [(item, version_id) for item, version_id in await session.execute(statement)]
    versions = await plan_versions(session, {version_id for _, version_id in found})
    done = 0
    for item, version_id in found:
        step = _plan(session, item, versions[version_id], now=now)
        done += await _tried(session, item, step, name="plan", now=now)
    await session.flush()
    return done


async def _tried(
    session: AsyncSession, item: PlanMoveItem, step: Awaitable[ItemStatus], *, name: str, now: datetime
) -> bool:
    """Settle an item by a step of its own; says whether it did not fail. The others' turn comes all the same."""
    try:
        async with session.begin_nested():
            status = await step
    except KmError as error:
        _settle(item, ItemStatus.SKIPPED, code=error.code, reason=error.message, now=now)
    except Exception as error:  # noqa: BLE001 - tried again in the next round
        metrics.FAILURES.labels(name).inc()
        log.warning(
            "a step of a plan move failed", step=name, subscription=item.subscription_id, error=repr(error)
        )
        item.attempts += 1
        if item.attempts >= MAX_ATTEMPTS:
            _settle(item, ItemStatus.FAILED, code="failed", reason="failed again and again", now=now)
        return False
    else:
        _settle(item, status, now=now)
    return True


async def wait_again(session: AsyncSession, *, now: datetime, limit: int) -> int:
    """Let those wait again whose planned change the customer put something else in place of, and took that back.

    That is, of those who are due within the hour, who would go on as they were. Returns how many.
    """
    other_version = (
        select(SubscriptionPhase.id)
        .where(
            SubscriptionPhase.subscription_id == PlanMoveItem.subscription_id,
            SubscriptionPhase.plan_version_id != PlanMoveItem.from_plan_version_id,
            SubscriptionPhase.ends_at.is_(None) | (SubscriptionPhase.ends_at > now),
        )
        .exists()
    )
    statement = (
        select(PlanMoveItem)
        .join(PlanMove, PlanMove.id == PlanMoveItem.move_id)
        .join(Subscription, Subscription.id == PlanMoveItem.subscription_id)
        .where(
            PlanMove.status == "scheduled",
            PlanMoveItem.status == ItemStatus.PLANNED.value,
            PlanMoveItem.effective_at > now,
            PlanMoveItem.effective_at <= now + LOOK_AGAIN,
            Subscription.status.not_in(sorted(OVER)),
            Subscription.ends_at.is_(None),
            ~other_version,
        )
        .order_by(PlanMoveItem.effective_at, PlanMoveItem.subscription_id)
        .limit(limit)
        .with_for_update(of=PlanMoveItem, skip_locked=True)
    )
    found = (await session.scalars(statement)).all()
    for item in found:
        item.status, item.updated_at = ItemStatus.WAITING.value, now
    await session.flush()
    return len(found)


async def _plan(session: AsyncSession, item: PlanMoveItem, version: PlanVersion, *, now: datetime) -> ItemStatus:
    account, subscription = await bumped_subscription(session, item.subscription_id, now)
    planned = ahead(subscription, now)
    if {one.plan_version_id for one in planned} != {item.from_plan_version_id}:
        raise ChangedSinceError("The customer has changed the plan since the move was scheduled.")
    if item.effective_at <= now:
        raise ChangedSinceError("The moment of the move was past before it could be planned.")
    if subscription.ends_at is not None and item.effective_at >= subscription.ends_at:
        raise SubscriptionEndingError(subscription.ends_at)
    require_change(subscription, version)
    if not is_sold_in(version, account.currency):
        raise CurrencyDiffersError(version.plan.code, account.currency, currencies_of(version))
    actor = f"plan_move:{item.move_id}"
    await move(session, subscription, version, effective_at=item.effective_at, actor=actor, now=now)
    await require_cap_kept(session, subscription, now=now)
    return ItemStatus.PLANNED


async def note_begun(session: AsyncSession, *, now: datetime, limit: int) -> int:
    """Note which planned moves have begun, and which the customer changed before; returns how many.

    One that was planned for the end of a trial which was made longer since begins when that ends.
    """
    statement = (
        select(PlanMoveItem, PlanMove.plan_version_id)
        .join(PlanMove, PlanMove.id == PlanMoveItem.move_id)
        .where(PlanMoveItem.status == ItemStatus.PLANNED.value, PlanMoveItem.effective_at <= now)
        .order_by(PlanMoveItem.effective_at, PlanMoveItem.subscription_id)
        .limit(limit)
        .with_for_update(of=PlanMoveItem, skip_locked=True)
    )
    found = [(item, version_id) for item, version_id in await session.execute(statement)]
    ran = await timelines(session, [item.subscription_id for item, _ in found])
    for item, version_id in found:
        begins = _begins(ran[item.subscription_id], item, version_id)
        if begins is not None and begins > now:
            item.effective_at, item.updated_at = begins, now
        elif begins is not None:
            _settle(item, ItemStatus.MOVED, now=now)
        else:
            words = "The customer changed the plan, or ended the subscription, before the move began."
            _settle(item, ItemStatus.SKIPPED, code="changed_since", reason=words, now=now)
    await session.flush()
    return len(found)


def _begins(ran: Timeline, item: PlanMoveItem, version_id: str) -> datetime | None:
    for moment in moments_of(item.effective_at, trial_ends_at=ran.trial_ends_at):
        phase = ran.phase_at(moment)
        if phase is not None and phase.plan_version_id == version_id:
            return moment
    return None


async def take_back_canceled(session: AsyncSession, *, now: datetime, limit: int) -> int:
    """Take back what cancelled moves have waiting or planned; returns how many did not fail."""
    statement = (
        select(PlanMoveItem, PlanMove.plan_version_id)
        .join(PlanMove, PlanMove.id == PlanMoveItem.move_id)
        .where(
            PlanMove.status == "canceling",
            (PlanMoveItem.status == ItemStatus.WAITING.value)
            | ((PlanMoveItem.status == ItemStatus.PLANNED.value) & (PlanMoveItem.effective_at > now)),
        )
        .order_by(PlanMoveItem.account_id)
        .limit(limit)
        .with_for_update(of=PlanMoveItem, skip_locked=True)
    )
    found = [(item, version_id) for item, version_id in await session.execute(statement)]
    done = 0
    for item, version_id in found:
        done += await _tried(session, item, _cancel(session, item, version_id, now=now), name="take_back", now=now)
    await session.flush()
    return done


async def _cancel(session: AsyncSession, item: PlanMoveItem, version_id: str, *, now: datetime) -> ItemStatus:
    if item.status == ItemStatus.WAITING:
        return ItemStatus.CANCELED
    actor = f"plan_move:{item.move_id}"
    taken = await take_back(session, item, plan_version_id=version_id, actor=actor, now=now)
    return ItemStatus.MOVED if taken is TakenBack.BEGUN else ItemStatus.CANCELED


async def finish_moves(session: AsyncSession, *, now: datetime) -> Sequence[str]:
    """Close moves of which nothing is left to do; returns their ids."""
    left = (
        select(PlanMoveItem.move_id)
        .where(PlanMoveItem.move_id == PlanMove.id, PlanMoveItem.status.in_(sorted(OPEN)))
        .exists()
    )
    finished: list[str] = []
    for before, after in (("scheduled", "done"), ("canceling", "canceled")):
        closed = await session.scalars(
            update(PlanMove)
            .where(PlanMove.status == before, ~left)
            .values(status=after, finished_at=now)
            .returning(PlanMove.id)
            .execution_options(synchronize_session=False)
        )
        finished += closed
    return finished


def _settle(item: PlanMoveItem, status: ItemStatus, *, code: str = "", reason: str = "", now: datetime) -> None:
    item.status, item.reason_code, item.reason, item.updated_at = status.value, code, reason, now
    metrics.SETTLED.labels(status.value).inc()
