"""Several workers, customers and an operator at once: nobody waits in a circle, and nothing is done by halves."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.billing.plan_moves.operations import cancel_move, discard_planned_move, exclude_from_move
from control_plane.billing.plan_moves.worker import PlanMovesConfig, move_once
from control_plane.foundation.errors import ConflictError
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.plan_changes import discard_change
from tests.control_plane.billing.plan_moves.moving import (
    DEC_1,
    JAN_1,
    NOV_1,
    NOW,
    flat,
    old_and_new,
    outcome,
    schedule,
    versions_of,
    work,
)
from tests.control_plane.builders import ACTOR, a_published_plan

COUNT = 12


async def test_a_move_beside_its_customers(session: AsyncSession, sessions: async_sessionmaker[AsyncSession]):
    found = await old_and_new(session, COUNT)
    growth = await a_published_plan(session, now=NOV_1, code="growth", position=1, prices=(flat("199.00"),))
    move_id = await schedule(session)

    async def worker() -> None:
        for _ in range(6):
            await move_once(sessions, config=PlanMovesConfig(at_once=4), now=NOW)

    async def does(operation, **options) -> None:
        async with sessions() as own, own.begin():
            try:
                await operation(own, actor=ACTOR, now=NOW, **options)
            except ConflictError:
                return

    async def customer(number: int) -> None:
        of = {"subscription_id": found[number].id}
        match number % 4:
            case 0:
                await does(change_plan, plan_code="growth", effective_at=DEC_1, **of)
            case 1:
                await does(cancel, at="period_end", **of)
            case 2:
                await does(discard_planned_move, **of)
                await does(discard_change, **of)
            case 3:
                await does(exclude_from_move, move_id=move_id, reason="objects", **of)

    await asyncio.wait_for(
        asyncio.gather(*(worker() for _ in range(3)), *(customer(number) for number in reversed(range(COUNT)))), 60
    )
    await work(sessions, now=NOW)
    await does(cancel_move, move_id=move_id)
    await asyncio.wait_for(asyncio.gather(*(worker() for _ in range(3))), 60)
    settled = await outcome(session, move_id)
    assert {status for status, _ in settled.values()} <= {"canceled", "excluded", "skipped"}
    for number, subscription in enumerate(found):
        expected = [(subscription.phases[0].plan_version_id, NOV_1)]
        assert await versions_of(session, subscription) == expected + [(growth.id, DEC_1)] * (number % 4 == 0)
    assert not await move_once(sessions, config=PlanMovesConfig(), now=JAN_1)
