"""Customers to be moved, and what tests of moves do again and again."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.billing.plan_moves.candidates import MoveScope
from control_plane.billing.plan_moves.model import MoveTime
from control_plane.billing.plan_moves.operations import (
    schedule_move,
)
from control_plane.billing.plan_moves.tables import PlanMoveItem
from control_plane.billing.plan_moves.worker import PlanMovesConfig, move_once
from control_plane.catalog.model import PriceTerms
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timelines import timelines
from control_plane.usage.tables import UsageHourly
from tests.control_plane.builders import (
    ACTOR,
    a_new_version,
    a_published_plan,
    a_subscription,
    an_account,
    an_hour_of_use,
)

NOV_1 = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 5, 10, 30, tzinfo=UTC)
DEC_1 = datetime(2026, 12, 1, tzinfo=UTC)
DEC_10 = datetime(2026, 12, 10, tzinfo=UTC)
JAN_1 = datetime(2027, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TRIAL_END = NOV_1 + 40 * DAY
SCOPE = MoveScope(from_plan="starter", to_plan="starter")
AT_PERIOD_END = MoveTime(timing="period_end", at=DEC_10, notice_days=30)
AT_DATE = MoveTime(timing="date", at=DEC_10, notice_days=30)
WORKER = PlanMovesConfig(at_once=2)


def flat(amount: str) -> PriceTerms:
    return PriceTerms(model="flat", meter=None, params={"amount": amount})


def per_unit(amount: str) -> PriceTerms:
    return PriceTerms(model="per_unit", meter="requests", params={"unit_amount": amount})


OLD = {"prices": (flat("49.00"), per_unit("0.01"))}
NEW = {"prices": (flat("59.00"), per_unit("0.005"))}


async def customers(session: AsyncSession, count: int = 1, **options) -> list[Subscription]:
    return [
        await a_subscription(session, await an_account(session, now=NOV_1, **options), now=NOV_1)
        for _ in range(count)
    ]


async def old_and_new(session: AsyncSession, count: int = 1) -> list[Subscription]:
    """Customers of the old version, and the new one on sale."""
    await a_published_plan(session, now=NOV_1, **OLD)
    found = await customers(session, count)
    await a_new_version(session, now=NOV_1, **NEW)
    return found


def usage(subscription: Subscription, units: int, *, hour: datetime) -> UsageHourly:
    return an_hour_of_use(subscription, units, hour=hour)


async def schedule(session: AsyncSession, *, when: MoveTime = AT_PERIOD_END, **options) -> str:
    move = await schedule_move(session, **{"scope": SCOPE, "when": when, "actor": ACTOR, "now": NOW, **options})
    await session.commit()
    return move.id


async def work(sessions: async_sessionmaker[AsyncSession], *, now: datetime) -> None:
    for _ in range(20):
        if not await move_once(sessions, config=WORKER, now=now):
            return
    raise AssertionError("the worker never comes to an end")


async def outcome(session: AsyncSession, move_id: str) -> dict[str, tuple[str, str]]:
    rows = await session.execute(
        select(PlanMoveItem.subscription_id, PlanMoveItem.status, PlanMoveItem.reason_code).where(
            PlanMoveItem.move_id == move_id
        )
    )
    return {row[0]: (row[1], row[2]) for row in rows}


async def versions_of(session: AsyncSession, subscription: Subscription) -> list[tuple[str, datetime]]:
    found = (await timelines(session, [subscription.id]))[subscription.id]
    return [(phase.plan_version_id, phase.starts_at) for phase in found.phases]
