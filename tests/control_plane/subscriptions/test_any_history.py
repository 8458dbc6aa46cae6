"""Whatever is done to subscriptions, and whenever: their phases tell one story without gap, and never another."""

import itertools
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.foundation.outbox import Topic
from control_plane.subscriptions import add_ons, operations, plan_changes, queries, statuses, trials
from control_plane.subscriptions.advance import advance
from control_plane.subscriptions.model import OVER, TRANSITIONS, Advanced, Status
from control_plane.subscriptions.timeline import PhaseKind, Timeline
from control_plane.subscriptions.timelines import timeline
from tests.control_plane.builders import ACTOR, a_published_plan, an_account, audit_of, outbox_of
from tests.control_plane.subscriptions.showing import flat

PLANS = ("starter", "growth", "tried", "brief")
ADD_ONS = ("calls", "support")
KIND_OF = {Status.TRIALING: PhaseKind.TRIAL, Status.PAUSED: PhaseKind.PAUSED}

at = st.sampled_from(["now", "period_end"])
plan, extra = st.sampled_from(PLANS), st.sampled_from(ADD_ONS)
actions = st.one_of(
    st.tuples(st.just("subscribe"), plan),
    st.tuples(st.just("change"), plan, st.sampled_from(["auto", "now", "period_end"])),
    st.tuples(st.just("change later"), plan, st.integers(1, 40)),
    st.tuples(st.just("discard")),
    st.tuples(st.just("cancel"), at),
    st.tuples(st.just("keep")),
    st.tuples(st.just("status"), st.sampled_from(["active", "past_due", "paused"])),
    st.tuples(st.just("pause")),
    st.tuples(st.just("resume")),
    st.tuples(st.just("end trial")),
    st.tuples(st.just("extend trial"), st.integers(1, 20)),
    st.tuples(st.just("add"), extra),
    st.tuples(st.just("quantity"), extra, st.integers(1, 3)),
    st.tuples(st.just("remove"), extra, at),
    st.tuples(st.just("keep add-on"), extra),
)
# what passes before an action, and whether workers ran meanwhile
MS, HOUR, DAY = timedelta(milliseconds=1), timedelta(hours=1), timedelta(days=1)
steps = st.tuples(st.sampled_from([0 * MS, MS, HOUR, 3 * DAY, 9 * DAY, 32 * DAY]), st.booleans(), actions)


class World:
    """One account and its subscriptions to one product; knows what was in force at every moment it looked."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession], now: datetime) -> None:
        self.sessions, self.now = sessions, now
        self.account_id = self.subscription_id = ""
        self.seen: dict[tuple[str, datetime], Any] = {}

    async def begin(self) -> None:
        async with self.sessions() as session, session.begin():
            self.account_id = (await an_account(session, now=self.now)).id
        await self.act(("subscribe", "tried"))

    async def act(self, action: tuple[Any, ...]) -> None:
        try:
            async with self.sessions() as session, session.begin():
                await self._do(session, *action)
        except (ConflictError, NotFoundError, ValidationFailedError):
            return

    async def _do(self, session: AsyncSession, name: str, *values: Any) -> None:
        of = {"subscription_id": self.subscription_id, "actor": ACTOR, "now": self.now}
        of_add_on = {**of, "add_on_code": values[0] if values else None}
        match name, *values:
            case "subscribe", code:
                options = {"account_id": self.account_id, "plan_code": code, "actor": ACTOR, "now": self.now}
                self.subscription_id = (await operations.subscribe(session, **options)).id
            case "change", code, when:
                await plan_changes.change(session, plan_code=code, at=when, **of)
            case "change later", code, days:
                begins = self.now + days * DAY
                await operations.change_plan(session, plan_code=code, effective_at=begins, **of)
            case "discard", *_:
                await plan_changes.discard_change(session, **of)
            case "cancel", when:
                await operations.cancel(session, at=when, **of)
            case "keep", *_:
                await operations.withdraw_cancellation(session, **of)
            case "status", status:
                await statuses.change_status(session, status=status, **of)
            case "pause", *_:
                await statuses.pause(session, **of)
            case "resume", *_:
                await statuses.resume(session, **of)
            case "end trial", *_:
                await trials.end_trial(session, **of)
            case "extend trial", days:
                found = await queries.subscription(session, self.subscription_id)
                ends_at = (found.trial_ends_at or floor_hour(self.now)) + days * DAY
                await trials.extend_trial(session, ends_at=ends_at, **of)
            case "add", _:
                await add_ons.add_on(session, **of_add_on)
            case "quantity", _, quantity:
                await add_ons.change_quantity(session, quantity=quantity, **of_add_on)
            case "remove", _, when:
                await add_ons.remove_add_on(session, at=when, **of_add_on)
            case "keep add-on", _:
                await add_ons.keep_add_on(session, **of_add_on)

    async def workers_run(self) -> None:
        async with self.sessions() as session, session.begin():
            await advance(session, now=self.now)
        async with self.sessions() as session, session.begin():
            assert await advance(session, now=self.now) == Advanced(0, 0, 0)

    async def told(self) -> int:
        async with self.sessions() as session:
            return len(await outbox_of(session, Topic.SUBSCRIPTION_CHANGED))

    async def timeline(self) -> Timeline:
        async with self.sessions() as session:
            return await timeline(session, self.subscription_id)

    async def look(self) -> None:
        """Check what holds at any time, and remember what is in force now."""
        found = await self.timeline()
        assert found.anchor_at == floor_hour(found.anchor_at)
        if found.phases:  # none is left of one that was cancelled in the millisecond of its start
            assert found.phases[0].starts_at == found.started_at
            assert found.phases[-1].ends_at == found.ends_at
        for one, other in itertools.pairwise(found.phases):
            assert one.ends_at == other.starts_at
            same = (one.plan_version_id, one.kind) == (other.plan_version_id, other.kind)
            assert not same or one.add_ons != other.add_ons or one.starts_at < self.now
        over = found.status in OVER or (found.ends_at is not None and found.ends_at <= self.now)
        running = found.phase_at(self.now)
        assert (running is None) == over
        self.seen[found.subscription_id, self.now] = _in_force(found, self.now)
        noted = found.status != Status.TRIALING or found.trial_ends_at > self.now
        assert over or not noted or running.kind is KIND_OF.get(Status(found.status), PhaseKind.PAID)

    async def check_history(self) -> None:
        """What was in force when we looked is so to this day, and every step of status was in the table."""
        async with self.sessions() as session:
            for (subscription_id, moment), in_force in self.seen.items():
                assert _in_force(await timeline(session, subscription_id), moment) == in_force
            for subscription_id in {key for key, _ in self.seen}:
                for row in await audit_of(session, subscription_id):
                    before, after = (row.before or {}).get("status"), row.after["status"]
                    assert before in {None, after} or after in TRANSITIONS[before]


def _in_force(found: Timeline, moment: datetime) -> tuple[Any, ...] | None:
    phase = found.phase_at(moment)
    if phase is None:
        return None
    return phase.plan_version_id, phase.kind, {(held.plan_version_id, held.quantity) for held in phase.add_ons}


async def catalogue(sessions: async_sessionmaker[AsyncSession], now: datetime) -> None:
    async with sessions() as session, session.begin():
        await a_published_plan(session, now=now, code="starter", prices=(flat("49"),))
        await a_published_plan(session, now=now, code="growth", prices=(flat("199"),), position=1)
        await a_published_plan(session, now=now, code="tried", prices=(flat("9"),), position=2, trial_days=14)
        terms = {"prices": (flat("9"),), "trial_days": 14, "after_trial": "cancel"}
        await a_published_plan(session, now=now, code="brief", position=3, **terms)
        for position, code in enumerate(ADD_ONS, start=4):
            await a_published_plan(session, now=now, code=code, position=position, kind="add_on")
        await advance(session, now=now)


class TestAnyHistory:
    @settings(
        max_examples=5,
        deadline=None,
        # shrinking replays hundreds of histories; the actions of a failing one are short enough to read
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(history=st.lists(steps, min_size=4, max_size=12))
    async def test_leaves_one_story_without_gap(self, sessions, now, history):
        if not hasattr(sessions, "has_catalogue"):  # all examples share the database
            await catalogue(sessions, now)
            sessions.has_catalogue = True
        world = World(sessions, now)
        await world.begin()
        for pause, workers, action in history:
            world.now += pause
            if workers:
                await world.workers_run()
            before, told = await world.timeline(), await world.told()
            await world.act(action)
            if action[0] != "subscribe" and await world.timeline() != before and action[0] != "status":
                assert await world.told() > told
            await world.look()
        await world.check_history()
