"""Moves beside what customers do themselves, and what is left of a move after a change of mind."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.plan_moves import steps
from control_plane.billing.plan_moves.model import NotOpenError
from control_plane.billing.plan_moves.operations import (
    cancel_move,
    discard_planned_move,
    exclude_from_move,
)
from control_plane.billing.plan_moves.queries import move_report
from control_plane.billing.plan_moves.worker import move_once
from control_plane.subscriptions.operations import cancel, change_plan, withdraw_cancellation
from control_plane.subscriptions.plan_changes import discard_change
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.trials import end_trial, extend_trial
from tests.control_plane.billing.plan_moves.moving import (
    AT_DATE,
    DAY,
    DEC_1,
    DEC_10,
    HOUR,
    JAN_1,
    NEW,
    NOV_1,
    NOW,
    OLD,
    TRIAL_END,
    WORKER,
    customers,
    flat,
    old_and_new,
    outcome,
    schedule,
    versions_of,
    work,
)
from tests.control_plane.builders import (
    ACTOR,
    a_new_version,
    a_published_plan,
    audit_of,
)


class TestChangesOfMind:
    @pytest.mark.parametrize("way", ["canceled and kept", "changed and discarded"])
    async def test_who_takes_an_own_change_back_is_moved_all_the_same(self, session, sessions, way: str):
        (one,) = await old_and_new(session)
        await a_published_plan(session, now=NOV_1, code="growth", position=1, prices=(flat("199.00"),))
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        of = {"subscription_id": one.id, "actor": ACTOR}
        if way == "canceled and kept":
            await cancel(session, at="period_end", **of, now=NOW)
            await withdraw_cancellation(session, **of, now=NOW + DAY)
        else:
            await change_plan(session, plan_code="growth", effective_at=DEC_1, **of, now=NOW)
            await discard_change(session, **of, now=NOW + DAY)
        await session.commit()
        assert len(await versions_of(session, one)) == 1
        await work(sessions, now=JAN_1 - HOUR)
        assert [at for _, at in await versions_of(session, one)] == [NOV_1, JAN_1]
        await work(sessions, now=JAN_1)
        assert (await outcome(session, move_id))[one.id] == ("moved", "")

    async def test_who_is_cancelled_or_elsewhere_stays_so(self, session: AsyncSession, sessions):
        leaving, elsewhere = await old_and_new(session, 2)
        await a_published_plan(session, now=NOV_1, code="growth", position=1, prices=(flat("199.00"),))
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        await cancel(session, subscription_id=leaving.id, at="period_end", actor=ACTOR, now=JAN_1 - DAY)
        await change_plan(session, subscription_id=elsewhere.id, plan_code="growth", actor=ACTOR, now=NOW)
        await session.commit()
        await work(sessions, now=JAN_1 - HOUR)
        await work(sessions, now=JAN_1)
        assert set((await outcome(session, move_id)).values()) == {("skipped", "changed_since")}


class TestTrials:
    async def in_trial(self, session: AsyncSession) -> Subscription:
        """A customer whose trial ends on 11 December, and the new version on sale."""
        await a_published_plan(session, now=NOV_1, trial_days=40, **OLD)
        (one,) = await customers(session)
        assert one.trial_ends_at == TRIAL_END
        await a_new_version(session, now=NOV_1, **NEW)
        return one

    async def test_moves_at_the_end_of_a_trial_made_longer(self, session: AsyncSession, sessions):
        one = await self.in_trial(session)
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        later = TRIAL_END + 5 * DAY
        await extend_trial(session, subscription_id=one.id, ends_at=later, actor=ACTOR, now=NOW + DAY)
        await session.commit()
        await work(sessions, now=TRIAL_END)
        assert (await outcome(session, move_id))[one.id] == ("planned", "")
        await work(sessions, now=later)
        assert (await outcome(session, move_id))[one.id] == ("moved", "")

    @pytest.mark.parametrize("noted", [False, True])
    async def test_takes_back_what_moved_with_the_trial(self, session: AsyncSession, sessions, *, noted: bool):
        one = await self.in_trial(session)
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        later = TRIAL_END + 5 * DAY
        await extend_trial(session, subscription_id=one.id, ends_at=later, actor=ACTOR, now=NOW + DAY)
        await session.commit()
        if noted:
            await work(sessions, now=TRIAL_END)
        await cancel_move(session, move_id=move_id, actor=ACTOR, now=TRIAL_END - DAY)
        await session.commit()
        await work(sessions, now=TRIAL_END - DAY)
        assert {version for version, _ in await versions_of(session, one)} == {one.phases[0].plan_version_id}
        assert (await outcome(session, move_id))[one.id] == ("canceled", "")

    async def test_a_trial_ended_early_has_been_moved(self, session: AsyncSession, sessions):
        one = await self.in_trial(session)
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        await end_trial(session, subscription_id=one.id, actor=ACTOR, now=NOW + DAY)
        await session.commit()
        subscription_id = one.id
        objection = {"move_id": move_id, "subscription_id": subscription_id, "reason": "objected", "actor": ACTOR}
        with pytest.raises(NotOpenError, match="moved"):
            await exclude_from_move(session, **objection, now=NOW + 2 * DAY)
        await session.rollback()
        await cancel_move(session, move_id=move_id, actor=ACTOR, now=NOW + 2 * DAY)
        await session.commit()
        await work(sessions, now=NOW + 2 * DAY)
        assert (await outcome(session, move_id))[subscription_id] == ("moved", "")


class TestTakingBack:
    async def test_cancelling_leaves_everybody_as_before(self, session: AsyncSession, sessions):
        found = await old_and_new(session, 3)
        move_id = await schedule(session)
        await move_once(sessions, config=WORKER, now=NOW)  # two of three are planned
        await cancel_move(session, move_id=move_id, actor=ACTOR, now=NOW)
        await session.commit()
        await work(sessions, now=NOW)
        session.expunge_all()
        report = await move_report(session, move_id)
        assert (report.counts, report.move.status) == ({"canceled": 3}, "canceled")
        assert [len(await versions_of(session, one)) for one in found] == [1, 1, 1]
        actions = [row.action for row in await audit_of(session, move_id)]
        assert actions == ["plan_move.scheduled", "plan_move.canceled"]

    async def test_who_objects_stays(self, session: AsyncSession, sessions):
        one, other = await old_and_new(session, 2)
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        objection = {"move_id": move_id, "subscription_id": one.id, "reason": "objected", "actor": ACTOR}
        await exclude_from_move(session, **objection, now=NOW + DAY)
        await session.commit()
        await work(sessions, now=JAN_1)
        assert await outcome(session, move_id) == {one.id: ("excluded", "excluded"), other.id: ("moved", "")}
        assert len(await versions_of(session, one)) == 1
        with pytest.raises(NotOpenError):
            await exclude_from_move(session, **objection, now=JAN_1)

    async def test_so_does_a_change_planned_for_after_the_move(self, session: AsyncSession, sessions):
        (one,) = await old_and_new(session)
        await a_published_plan(session, now=NOV_1, code="growth", position=1, prices=(flat("19.00"),))
        old = one.phases[0].plan_version_id
        move_id = await schedule(session, when=AT_DATE)
        await work(sessions, now=NOW)
        planned = {"plan_code": "growth", "effective_at": JAN_1, "actor": ACTOR, "now": NOW}
        growth = (await change_plan(session, subscription_id=one.id, **planned)).phases[-1].plan_version_id
        assert [at for _, at in await versions_of(session, one)] == [NOV_1, DEC_10, JAN_1]
        await cancel_move(session, move_id=move_id, actor=ACTOR, now=NOW)
        await session.commit()
        await work(sessions, now=NOW)
        assert await versions_of(session, one) == [(old, NOV_1), (growth, JAN_1)]

    async def test_who_discards_the_planned_change_is_excluded(self, session: AsyncSession, sessions):
        (one, other) = await old_and_new(session, 2)
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        for subscription in (one, one):
            await discard_planned_move(session, subscription_id=subscription.id, actor=ACTOR, now=NOW)
        await session.commit()
        await work(sessions, now=JAN_1 - HOUR)
        await work(sessions, now=JAN_1)
        assert await outcome(session, move_id) == {one.id: ("excluded", "excluded"), other.id: ("moved", "")}

    async def test_what_fails_is_given_up_and_holds_nobody_up(self, session: AsyncSession, sessions, monkeypatch):
        (one, other) = await old_and_new(session, 2)
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        await cancel_move(session, move_id=move_id, actor=ACTOR, now=NOW)
        await session.commit()
        whole = steps.take_back

        async def broken(session, item, **options):
            if item.subscription_id == one.id:
                raise RuntimeError("broken")
            return await whole(session, item, **options)

        monkeypatch.setattr(steps, "take_back", broken)
        done = [await move_once(sessions, config=WORKER, now=NOW) for _ in range(steps.MAX_ATTEMPTS)]
        # where nothing but failures is left the worker pauses
        assert done == [1, 0, 0, 0, 0]
        assert await outcome(session, move_id) == {one.id: ("failed", "failed"), other.id: ("canceled", "")}

    async def test_a_change_the_customer_planned_outlives_the_move(self, session: AsyncSession, sessions):
        (one,) = await old_and_new(session)
        await a_published_plan(session, now=NOV_1, code="growth", position=1, prices=(flat("199.00"),))
        move_id = await schedule(session)
        await work(sessions, now=NOW)
        planned = {"plan_code": "growth", "effective_at": DEC_1, "actor": ACTOR, "now": NOW}
        await change_plan(session, subscription_id=one.id, **planned)
        await cancel_move(session, move_id=move_id, actor=ACTOR, now=NOW)
        await session.commit()
        await work(sessions, now=NOW)
        assert (await versions_of(session, one))[-1][1] == DEC_1
