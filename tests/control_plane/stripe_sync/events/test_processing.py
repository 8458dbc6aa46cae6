"""From the inbox to effects, with a stand-in for Stripe: what it says now, and what we have read of it."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import structlog
from sqlalchemy import event, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from control_plane.foundation.sole_worker import sole_worker
from control_plane.stripe_sync.client import Stripe, StripeConfig
from control_plane.stripe_sync.effects import Effect, NotYetError, mark_handled
from control_plane.stripe_sync.events.allowlist import Kind
from control_plane.stripe_sync.events.claims import ObjectRef
from control_plane.stripe_sync.events.inbox import forget_bodies, forget_ignored, store_delivered, store_found
from control_plane.stripe_sync.events.model import MAX_ATTEMPTS, REFUSED_ATTEMPTS, Told
from control_plane.stripe_sync.events.processing import (
    ProcessingConfig,
    Processor,
    lock_key,
    process_due,
)
from control_plane.stripe_sync.events.tables import StripeEvent, StripeEventReads
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.outcomes import StripeKeyRefused, StripeRefused, StripeUnavailable

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
SUBSCRIPTION, INVOICE = Kind.SUBSCRIPTION, Kind.INVOICE


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """structlog's own default draws every local variable of a traceback, which takes a second."""
    processors = [structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    structlog.configure(processors=processors, logger_factory=structlog.stdlib.LoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def context(sessions: async_sessionmaker[AsyncSession], now: datetime) -> StripeContext:
    """Nobody answers at Stripe: the tests' own functions stand in for it."""
    transport = httpx.MockTransport(lambda _: httpx.Response(500))
    config = StripeConfig(api_key="sk_test_nobody", transport=transport)
    return StripeContext(sessions=sessions, stripe=Stripe(config), now=now)


@dataclass
class Mirror:
    """Objects as they are at Stripe, read into a table of ours: here the names of lists that were read."""

    stands: dict[str, int] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)
    fails: dict[str, Exception] = field(default_factory=dict)
    before_write: Callable[[str], Awaitable[None]] | None = None
    marks: bool = True

    async def apply(self, context: StripeContext, object_id: str) -> Effect | None:
        self.reads.append(object_id)
        if object_id in self.fails:
            raise self.fails[object_id]
        moment = EPOCH + timedelta(seconds=self.stands.get(object_id, 0))
        if self.before_write is not None:
            await self.before_write(object_id)
        async with context.sessions() as session, session.begin():
            await session.execute(
                text(
                    "INSERT INTO stripe_event_reads (name, read_until) VALUES (:name, :moment)"
                    " ON CONFLICT (name) DO UPDATE SET read_until = excluded.read_until"
                ),
                {"name": object_id, "moment": moment},
            )
            if self.marks:
                await mark_handled(session)
        return None

    async def written(self, context: StripeContext) -> dict[str, int]:
        async with context.sessions() as session:
            rows = await session.execute(select(StripeEventReads.name, StripeEventReads.read_until))
            return {name: int((moment - EPOCH).total_seconds()) for name, moment in rows}

    @property
    def appliers(self) -> dict[Kind, Any]:
        return {SUBSCRIPTION: self.apply, INVOICE: self.apply}


def an_event(number: int, object_id: str, *, at: datetime, kind: Kind = SUBSCRIPTION) -> Told:
    return Told(f"evt_{number}", "customer.subscription.updated", at, kind, object_id)


async def arrive(context: StripeContext, *events: Told) -> None:
    async with context.sessions() as session, session.begin():
        for told in events:
            await store_delivered(session, told, body=b"{}", now=context.now)


async def rows(context: StripeContext) -> dict[str, StripeEvent]:
    async with context.sessions() as session:
        return {row.id: row for row in await session.scalars(select(StripeEvent))}


async def settle(context: StripeContext, mirror: Mirror, *, days: float = 2) -> StripeContext:
    """Let time pass until nothing waits any more; returns the context of that time."""
    end = context.now + timedelta(days=days)
    while True:
        await process_due(context, mirror.appliers)
        async with context.sessions() as session:
            next_at = await session.scalar(
                select(func.min(StripeEvent.next_attempt_at)).where(StripeEvent.state == "waiting")
            )
        if next_at is None or next_at > end:
            return context
        context = context.at(max(next_at, context.now))


class TestAnyOrder:
    async def test_reads_each_object_once_for_all_that_wait(self, context: StripeContext, now: datetime) -> None:
        mirror = Mirror({"sub_1": 7, "sub_2": 3})
        await arrive(context, *(an_event(number, f"sub_{number % 2 + 1}", at=now) for number in range(6)))
        assert await process_due(context, mirror.appliers) == 2
        assert sorted(mirror.reads) == ["sub_1", "sub_2"]
        assert await mirror.written(context) == {"sub_1": 7, "sub_2": 3}
        found = await rows(context)
        assert {(row.state, row.handled_at) for row in found.values()} == {("done", now)}

    async def test_ends_alike_for_any_order_repetition_and_delay(
        self, context: StripeContext, now: datetime
    ) -> None:
        chance = random.Random(4)
        mirror = Mirror()
        deliveries = []
        for number in range(40):
            object_id = f"sub_{number % 5}"
            # two Event objects for one fact, and some twice
            for told in (an_event(number, object_id, at=now), an_event(100 + number, object_id, at=now)):
                deliveries += [told] * chance.randint(1, 2)
        chance.shuffle(deliveries)
        moment = context
        for step, told in enumerate(deliveries):
            mirror.stands[f"sub_{chance.randrange(5)}"] = step
            await arrive(moment, told)
            if chance.random() < 0.3:
                moment = moment.at(moment.now + timedelta(hours=chance.choice([0, 1, 72])))
                await process_due(moment, mirror.appliers)
        # whatever Stripe changed, it tells: the last event of each object comes after its last change
        await arrive(moment, *(an_event(200 + number, f"sub_{number}", at=now) for number in range(5)))
        moment = await settle(moment, mirror)
        assert await mirror.written(moment) == mirror.stands
        assert {row.state for row in (await rows(moment)).values()} == {"done"}

    async def test_reads_again_for_an_event_that_comes_during_the_reading(
        self, context: StripeContext, now: datetime
    ) -> None:
        mirror = Mirror({"sub_1": 1})

        async def meanwhile(_: str) -> None:
            if len(mirror.reads) == 1:
                mirror.stands["sub_1"] = 2
                await arrive(context, an_event(2, "sub_1", at=now))

        mirror.before_write = meanwhile
        await arrive(context, an_event(1, "sub_1", at=now))
        await settle(context, mirror)
        assert mirror.reads == ["sub_1", "sub_1"]
        assert await mirror.written(context) == {"sub_1": 2}


class TestOurOwnCommitComesLater:
    async def test_tries_again_soon(self, context: StripeContext, now: datetime) -> None:
        mirror = Mirror({"sub_1": 1}, fails={"sub_1": NotYetError("its checkout is not known yet")})
        await arrive(context, an_event(1, "sub_1", at=now))
        await process_due(context, mirror.appliers)
        waiting = (await rows(context))["evt_1"]
        assert (waiting.state, waiting.reason) == ("waiting", "its checkout is not known yet")
        assert waiting.next_attempt_at == now + timedelta(seconds=1)
        mirror.fails.clear()
        await settle(context, mirror)
        done = (await rows(context))["evt_1"]
        assert (done.state, done.reason, done.attempts) == ("done", "", 2)

    async def test_gives_up_at_last_and_says_why(self, context: StripeContext, now: datetime) -> None:
        mirror = Mirror(fails={"sub_1": NotYetError("its checkout is not known yet")})
        await arrive(context, an_event(1, "sub_1", at=now))
        await settle(context, mirror)
        dead = (await rows(context))["evt_1"]
        assert (dead.state, dead.reason) == ("dead", "its checkout is not known yet")
        assert len(mirror.reads) == MAX_ATTEMPTS


class TestPoison:
    async def test_stops_nobody_else(self, context: StripeContext, now: datetime) -> None:
        mirror = Mirror({"sub_2": 5}, fails={"sub_1": ZeroDivisionError("secret")})
        await arrive(context, an_event(1, "sub_1", at=now), an_event(2, "sub_2", at=now))
        await settle(context, mirror)
        found = await rows(context)
        assert found["evt_2"].state == "done"
        assert found["evt_1"].state == "dead"
        assert "ZeroDivisionError" in found["evt_1"].reason
        assert "secret" not in found["evt_1"].reason

    async def test_is_given_up_sooner_where_stripe_says_no(self, context: StripeContext, now: datetime) -> None:
        refused = StripeRefused("resource_missing", "id", "No such subscription: 'sub_1'", status=404)
        mirror = Mirror(fails={"sub_1": refused})
        await arrive(context, an_event(1, "sub_1", at=now))
        await settle(context, mirror, days=0.1)
        dead = (await rows(context))["evt_1"]
        assert (dead.state, len(mirror.reads)) == ("dead", REFUSED_ATTEMPTS)
        assert "No such subscription" in dead.reason

    async def test_is_tried_once_more_when_it_is_sent_again(self, context: StripeContext, now: datetime) -> None:
        mirror = Mirror({"sub_1": 4}, fails={"sub_1": ZeroDivisionError()})
        await arrive(context, an_event(1, "sub_1", at=now))
        later = await settle(context, mirror)
        attempts = len(mirror.reads)
        await arrive(later, an_event(1, "sub_1", at=now))
        await settle(later, mirror)
        assert ((await rows(later))["evt_1"].state, len(mirror.reads)) == ("dead", attempts + 1)
        mirror.fails.clear()
        await arrive(later, an_event(1, "sub_1", at=now))
        await settle(later, mirror)
        assert (await rows(later))["evt_1"].state == "done"

    async def test_a_new_event_does_not_share_the_old_ones_death(
        self, context: StripeContext, now: datetime
    ) -> None:
        mirror = Mirror(fails={"sub_1": ZeroDivisionError()})
        await arrive(context, an_event(1, "sub_1", at=now))
        for _ in range(MAX_ATTEMPTS - 1):
            await process_due(context, mirror.appliers)
            context = context.at(context.now + timedelta(hours=9))
        await arrive(context, an_event(2, "sub_1", at=now))
        await process_due(context, mirror.appliers)
        found = await rows(context)
        assert (found["evt_1"].state, found["evt_2"].state) == ("dead", "waiting")
        assert found["evt_2"].next_attempt_at == context.now + timedelta(seconds=1)

    async def test_leaves_alone_what_was_done_before(self, context: StripeContext, now: datetime) -> None:
        mirror = Mirror({"sub_1": 1})
        await arrive(context, an_event(1, "sub_1", at=now))
        await process_due(context, mirror.appliers)
        mirror.fails["sub_1"] = ZeroDivisionError()
        await arrive(context, an_event(2, "sub_1", at=now))
        await settle(context, mirror)
        found = await rows(context)
        assert [(found[name].state, found[name].attempts) for name in ("evt_1", "evt_2")] == [
            ("done", 1),
            ("dead", MAX_ATTEMPTS),
        ]

    @pytest.mark.parametrize("error", [StripeUnavailable("Stripe is away."), StripeKeyRefused("No such key.")])
    async def test_is_none_of_it_when_stripe_is_away(
        self, context: StripeContext, now: datetime, error: Exception
    ) -> None:
        mirror = Mirror({"sub_1": 1}, fails={"sub_1": error})
        await arrive(context, an_event(1, "sub_1", at=now))
        for _ in range(MAX_ATTEMPTS + 5):
            await process_due(context, mirror.appliers)
            context = context.at(context.now + timedelta(hours=1))
        waiting = (await rows(context))["evt_1"]
        assert (waiting.state, waiting.attempts, waiting.reason) == ("waiting", 0, str(error))
        mirror.fails.clear()
        await process_due(context, mirror.appliers)
        assert (await rows(context))["evt_1"].state == "done"

    async def test_that_hangs_takes_one_hand_and_is_put_down(self, context: StripeContext, now: datetime) -> None:
        mirror = Mirror({f"sub_{number}": 1 for number in range(9)})
        hangs = asyncio.Event()

        async def hang(object_id: str) -> None:
            if object_id == "sub_0":
                await hangs.wait()

        mirror.before_write = hang
        await arrive(context, *(an_event(number, f"sub_{number}", at=now) for number in range(9)))
        config = ProcessingConfig(at_once=2, pause_seconds=0.02, attempt_seconds=60)
        processor = Processor(context, mirror.appliers, config=config, clock=lambda: now)
        stop = asyncio.Event()
        running = asyncio.create_task(processor.run(stop))
        async with asyncio.timeout(20):
            while len(await mirror.written(context)) < 8:  # noqa: ASYNC110 - the database is looked at
                await asyncio.sleep(0.02)
        hangs.set()
        stop.set()
        await running
        assert len(await mirror.written(context)) == 9

    async def test_is_cut_off_after_its_time(self, context: StripeContext, now: datetime) -> None:
        async def hang(_: str) -> None:
            await asyncio.Event().wait()

        mirror = Mirror(before_write=hang)
        await arrive(context, an_event(1, "sub_1", at=now))
        await process_due(context, mirror.appliers, config=ProcessingConfig(attempt_seconds=0.05))
        assert (await rows(context))["evt_1"].reason == "it took too long"


class TestOthersObjects:
    async def test_are_ignored(self, context: StripeContext, now: datetime) -> None:
        async def not_ours(_context: StripeContext, _object_id: str) -> Effect:
            return Effect.NOT_OURS

        await arrive(context, an_event(1, "sub_1", at=now))
        await process_due(context, {SUBSCRIPTION: not_ours})
        ignored = (await rows(context))["evt_1"]
        assert (ignored.state, ignored.handled_at) == ("ignored", now)
        assert "installation" in ignored.reason


class TestOneHandAtATime:
    async def test_leaves_what_another_process_has_in_hand(self, context: StripeContext, now: datetime) -> None:
        mirror = Mirror({"sub_1": 1, "sub_2": 1})
        await arrive(context, an_event(1, "sub_1", at=now), an_event(2, "sub_2", at=now))
        async with sole_worker(context.sessions, lock_key(ObjectRef(SUBSCRIPTION, "sub_1"))) as mine:
            assert mine
            await process_due(context, mirror.appliers)
        assert mirror.reads == ["sub_2"]
        await process_due(context, mirror.appliers)
        assert mirror.reads == ["sub_2", "sub_1"]

    async def test_two_processes_never_read_one_object_side_by_side(
        self, context: StripeContext, now: datetime
    ) -> None:
        inside: set[str] = set()
        mirror = Mirror({f"sub_{number}": 1 for number in range(3)})

        async def alone(object_id: str) -> None:
            assert object_id not in inside
            inside.add(object_id)
            await asyncio.sleep(0.01)
            inside.remove(object_id)

        mirror.before_write = alone
        for number in range(12):
            await arrive(context, an_event(number, f"sub_{number % 3}", at=now))
            await asyncio.gather(*(process_due(context, mirror.appliers) for _ in range(3)))
        await settle(context, mirror)
        assert {row.state for row in (await rows(context)).values()} == {"done"}


class Killed(BaseException):
    """The process ends here: nothing after it runs, and whatever was not committed is gone."""


@contextmanager
def killed_at(step: int, *, after: bool) -> Iterator[list[int]]:
    """End the process at the commit of this number, just before it or just after."""
    commits: list[int] = []

    def at_commit(_session: Session) -> None:
        commits.append(len(commits))
        if len(commits) == step:
            raise Killed

    name = "after_commit" if after else "before_commit"
    event.listen(Session, name, at_commit)
    try:
        yield commits
    finally:
        event.remove(Session, name, at_commit)


class TestKilledBetweenTwoSteps:
    @pytest.mark.parametrize("marks", [True, False], ids=["marks", "does not mark"])
    async def test_ends_with_the_effect_and_every_event_done(
        self, context: StripeContext, now: datetime, engine: AsyncEngine, *, marks: bool
    ) -> None:
        kills = 0
        for after in (False, True):
            for step in range(1, 6):
                number = step + 10 * after
                mirror = Mirror({f"sub_{number}": number}, marks=marks)
                await arrive(context, an_event(number, f"sub_{number}", at=now))
                try:
                    with killed_at(step, after=after):
                        await process_due(context, mirror.appliers)
                except Killed:
                    kills += 1
                    await engine.dispose()  # a process that ends takes its connections and their locks with it
                context = context.at(context.now + timedelta(minutes=1))
                await settle(context, mirror)
                done = (await rows(context))[f"evt_{number}"]
                assert (done.state, done.attempts <= 2) == ("done", True)
                assert f"sub_{number}" in await mirror.written(context)
        assert kills >= 5

    async def test_marks_its_events_with_the_effect(self, context: StripeContext, now: datetime) -> None:
        mirror = Mirror({"sub_1": 1})
        await arrive(context, an_event(1, "sub_1", at=now))
        with pytest.raises(Killed), killed_at(2, after=True):
            await process_due(context, mirror.appliers)
        assert await mirror.written(context) == {"sub_1": 1}
        assert (await rows(context))["evt_1"].state == "done"

    async def test_a_failure_after_the_effect_takes_the_mark_back(
        self, context: StripeContext, now: datetime
    ) -> None:
        mirror = Mirror({"sub_1": 1})

        async def fails_late(context: StripeContext, object_id: str) -> None:
            await mirror.apply(context, object_id)
            raise ZeroDivisionError

        await arrive(context, an_event(1, "sub_1", at=now))
        await process_due(context, {SUBSCRIPTION: fails_late})
        waiting = (await rows(context))["evt_1"]
        assert (waiting.state, waiting.handled_at) == ("waiting", None)


class TestForgetting:
    async def test_takes_bodies_and_leaves_what_became_of_events(
        self, context: StripeContext, session: AsyncSession, now: datetime
    ) -> None:
        await arrive(context, an_event(1, "sub_1", at=now))
        await arrive(context.at(now + timedelta(days=1)), an_event(2, "sub_1", at=now))
        await process_due(context.at(now + timedelta(days=2)), Mirror().appliers)
        async with session.begin():
            assert await forget_bodies(session, before=now + timedelta(hours=1), limit=10) == 1
        found = await rows(context)
        assert (found["evt_1"].body, found["evt_1"].state, found["evt_2"].body) == (None, "done", b"{}")

    async def test_forgets_events_that_nobody_acts_on(
        self, context: StripeContext, session: AsyncSession, now: datetime
    ) -> None:
        other = Told("evt_9", "charge.succeeded", now, None, None)
        await arrive(context, an_event(1, "sub_1", at=now), other)
        async with session.begin():
            assert await forget_ignored(session, before=now, limit=10) == 0
            assert await forget_ignored(session, before=now + timedelta(hours=1), limit=10) == 1
        assert list(await rows(context)) == ["evt_1"]


class TestFinding:
    async def test_stores_only_what_no_webhook_brought(
        self, context: StripeContext, session: AsyncSession, now: datetime
    ) -> None:
        await arrive(context, an_event(1, "sub_1", at=now))
        found = [an_event(number, "sub_1", at=now) for number in (1, 2)]
        async with session.begin():
            assert await store_found(session, found, now=now) == {"evt_2"}
            assert await store_found(session, found, now=now) == frozenset()
            assert await store_found(session, [], now=now) == frozenset()
        stored = await rows(context)
        assert [(one.source, one.deliveries) for one in stored.values()] == [("webhook", 1), ("list", 0)]

    async def test_a_webhook_that_comes_later_is_counted_and_brings_the_body(
        self, context: StripeContext, session: AsyncSession, now: datetime
    ) -> None:
        async with session.begin():
            await store_found(session, [an_event(1, "sub_1", at=now)], now=now)
        await process_due(context, Mirror().appliers)
        await arrive(context, an_event(1, "sub_1", at=now))
        row = (await rows(context))["evt_1"]
        assert (row.state, row.source, row.deliveries, row.body) == ("done", "list", 1, b"{}")


async def test_a_row_that_waits_must_name_its_object(session: AsyncSession, now: datetime) -> None:
    row = {
        "id": "evt_1",
        "type": "t",
        "created_at": now,
        "source": "webhook",
        "received_at": now,
        "deliveries": 1,
        "state": "waiting",
        "reason": "",
        "attempts": 0,
        "next_attempt_at": now,
    }
    with pytest.raises(Exception, match="read_or_ignored"):
        await session.execute(insert(StripeEvent).values(row))
