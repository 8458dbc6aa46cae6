"""Stripe's own lists of events, replays and resyncs, over the simulated Stripe."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta

import pytest
import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import AuditRow
from control_plane.foundation.errors import ValidationFailedError
from control_plane.stripe_sync.client import StripeUnavailable, options
from control_plane.stripe_sync.effects import Effect
from control_plane.stripe_sync.events.allowlist import Kind
from control_plane.stripe_sync.events.inbox import store_delivered
from control_plane.stripe_sync.events.listing import LISTS, read_lists
from control_plane.stripe_sync.events.lone_events import apply_event
from control_plane.stripe_sync.events.model import State, Told
from control_plane.stripe_sync.events.operations import Outcome, Replay, replay, resync
from control_plane.stripe_sync.events.processing import process_due
from control_plane.stripe_sync.events.queries import EventFilter, inbox_standing, list_events
from control_plane.stripe_sync.events.tables import StripeEvent, StripeEventReads
from control_plane.stripe_sync.events.worker import EventsConfig, keep_house, read_if_due
from control_plane.stripe_sync.model import StripeContext
from devstack.stripe.embedded import EmbeddedStripe

LAG = timedelta(minutes=15)
ACTOR = "token:tok_1"


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    processors = [structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    structlog.configure(processors=processors, logger_factory=structlog.stdlib.LoggerFactory())
    yield
    structlog.reset_defaults()


async def a_customer_that_changes(context: StripeContext, name: str = "Ada") -> str:
    """Make one, and have Stripe tell that it was changed."""
    stripe = context.stripe
    made = await stripe.call(
        lambda c: c.v1.customers.create_async({"name": name}, options(f"km:test:customer:{name}"))
    )
    await stripe.call(
        lambda c: c.v1.customers.update_async(made.id, {"name": f"{name} II"}, options(f"km:test:update:{name}"))
    )
    return made.id


async def inbox(context: StripeContext) -> list[StripeEvent]:
    async with context.sessions() as session:
        return list(await session.scalars(select(StripeEvent).order_by(StripeEvent.created_at, StripeEvent.id)))


class Reader:
    """Stands for what reads customers."""

    def __init__(self) -> None:
        self.read: list[str] = []

    async def __call__(self, _context: StripeContext, object_id: str) -> Effect | None:
        self.read.append(object_id)
        return None

    @property
    def appliers(self) -> dict[Kind, object]:
        return {Kind.CUSTOMER: self, Kind.EVENT: apply_event}


class TestReadingLists:
    async def test_finds_what_no_webhook_brought_and_finds_it_once(
        self, context: StripeContext, sim: EmbeddedStripe, now: datetime
    ) -> None:
        customer_id = await a_customer_that_changes(context)
        later = context.at(now + timedelta(hours=1))
        found = {one.name: one for one in await read_lists(later, lag=LAG)}
        (event,) = await inbox(context)
        assert found["snapshot"].found == (event.id,)
        assert (event.source, event.type, event.object_id) == ("list", "customer.updated", customer_id)
        assert found["snapshot"].since == later.now - timedelta(days=29, hours=23)
        assert found["thin"].found == ()
        again = {one.name: one for one in await read_lists(later.at(later.now + LAG), lag=LAG)}
        assert again["snapshot"].found == ()
        assert again["snapshot"].since == later.now - LAG - timedelta(hours=1)
        reader = Reader()
        await process_due(later, reader.appliers)
        assert reader.read == [customer_id]

    async def test_leaves_young_events_to_their_webhooks(
        self, context: StripeContext, sim: EmbeddedStripe, now: datetime
    ) -> None:
        await a_customer_that_changes(context)
        (snapshot, _) = await read_lists(context.at(now + timedelta(minutes=5)), lag=LAG)
        assert snapshot.found == ()

    async def test_goes_on_where_it_was_cut_off(
        self, context: StripeContext, sim: EmbeddedStripe, now: datetime
    ) -> None:
        await a_customer_that_changes(context, "Ada")
        sim.control.advance(int(timedelta(days=13).total_seconds()))
        await a_customer_that_changes(context, "Bob")
        later = context.at(now + timedelta(days=13, hours=1))
        await read_lists(context.at(now - timedelta(hours=2)), lag=timedelta(0))
        # the first days can be read, then Stripe fails for good
        for _ in range(4):
            sim.control.fault("slow", path="/v1/events", seconds=0.0)
        sim.control.fault("error_before", path="/v1/events", count=100)
        with pytest.raises(StripeUnavailable):
            await read_lists(later, lag=LAG)
        sim.control.clear_faults()
        assert len(await inbox(context)) == 1
        (snapshot, _) = await read_lists(later, lag=LAG)
        assert len(await inbox(context)) == 2
        assert len(snapshot.found) == 1
        assert snapshot.since > now

    async def test_of_one_list_does_not_wait_for_another_that_cannot_be_read(
        self, context: StripeContext, sim: EmbeddedStripe, now: datetime
    ) -> None:
        await a_customer_that_changes(context)
        later, config = context.at(now + timedelta(hours=1)), EventsConfig()
        sim.control.fault("error_before", path="/v2/core/events", count=1)
        with pytest.raises(StripeUnavailable):
            await read_if_due(later, config=config)
        assert len(await inbox(context)) == 1
        asked = len(sim.control.requests("/v1/events"))
        assert await read_if_due(later, config=config)
        assert len(sim.control.requests("/v1/events")) == asked
        assert not await read_if_due(later, config=config)

    async def test_is_done_once_a_day(self, context: StripeContext, sim: EmbeddedStripe, now: datetime) -> None:
        config = EventsConfig()
        assert await read_if_due(context, config=config)
        assert not await read_if_due(context.at(now + timedelta(hours=23)), config=config)
        assert await read_if_due(context.at(now + timedelta(hours=25)), config=config)

    async def test_takes_the_place_of_webhooks_where_there_are_none(
        self, context: StripeContext, sim: EmbeddedStripe, now: datetime
    ) -> None:
        config = EventsConfig().polled()
        await a_customer_that_changes(context)
        soon = context.at(now + timedelta(seconds=2))
        assert await read_if_due(soon, config=config)
        assert len(await inbox(context)) == 1
        assert not await read_if_due(soon.at(now + timedelta(minutes=4)), config=config)
        assert await read_if_due(soon.at(now + timedelta(minutes=6)), config=config)


def an_event(number: int, *, at: datetime, kind: Kind | None = Kind.CUSTOMER) -> Told:
    return Told(f"evt_{number}", "customer.updated", at, kind, f"cus_{number}" if kind else None)


async def arrive(context: StripeContext, *events: Told) -> None:
    async with context.sessions() as session, session.begin():
        for told in events:
            await store_delivered(session, told, body=b"{}", now=context.now)


class TestReplay:
    async def test_has_handled_events_acted_on_again(
        self, context: StripeContext, session: AsyncSession, now: datetime
    ) -> None:
        reader = Reader()
        await arrive(context, an_event(1, at=now), an_event(2, at=now))
        await process_due(context, reader.appliers)
        later = now + timedelta(days=1)
        async with session.begin():
            result = await replay(session, Replay(event_ids=("evt_1",)), dry_run=False, actor=ACTOR, now=later)
            audits = list(await session.scalars(select(AuditRow.action)))
        assert [(one.id, one.outcome) for one in result.events] == [("evt_1", Outcome.QUEUED)]
        assert audits == ["stripe_events.replay"]
        await process_due(context.at(later), reader.appliers)
        assert sorted(reader.read) == ["cus_1", "cus_1", "cus_2"]

    async def test_says_what_it_would_do_and_does_nothing_on_a_dry_run(
        self, context: StripeContext, session: AsyncSession, now: datetime
    ) -> None:
        reader = Reader()
        await arrive(context, an_event(1, at=now), an_event(3, at=now, kind=None))
        await process_due(context, reader.appliers)
        await arrive(context, an_event(2, at=now))
        wanted = Replay(event_ids=("evt_1", "evt_2", "evt_3", "evt_4"))
        async with session.begin():
            dry = await replay(session, wanted, dry_run=True, actor=ACTOR, now=now)
        before = [(one.id, one.state) for one in await inbox(context)]
        async with session.begin():
            real = await replay(session, wanted, dry_run=False, actor=ACTOR, now=now)
        assert dry == real
        assert {one.id: one.outcome for one in dry.events} == {
            "evt_1": Outcome.QUEUED,
            "evt_2": Outcome.BROUGHT_FORWARD,
            "evt_3": Outcome.NOT_ACTED_ON,
            "evt_4": Outcome.TO_BE_READ,
        }
        assert before == [("evt_1", "done"), ("evt_2", "waiting"), ("evt_3", "ignored")]

    async def test_of_a_range_reads_stripes_lists_from_there_again(
        self, context: StripeContext, session: AsyncSession, sim: EmbeddedStripe, now: datetime
    ) -> None:
        later = context.at(now + timedelta(days=2))
        await read_lists(later, lag=LAG)
        await a_customer_that_changes(context)  # made at `now`, as if the list had kept it from us
        wanted = Replay(since=now - timedelta(hours=3), until=now + timedelta(hours=1))
        async with session.begin():
            result = await replay(session, wanted, dry_run=False, actor=ACTOR, now=later.now)
        assert (result.events, result.listed_since) == ((), wanted.since)
        assert await read_if_due(later, config=EventsConfig())
        assert len(await inbox(context)) == 1

    async def test_of_a_range_is_not_forgotten_by_a_reading_that_goes_on_meanwhile(
        self, context: StripeContext, now: datetime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await read_lists(context, lag=LAG, names=["snapshot"])
        wanted = Replay(since=now - timedelta(days=10))

        async def read(_stripe: object, _since: datetime, _until: datetime) -> AsyncIterator[Told]:
            async with context.sessions() as session, session.begin():
                await replay(session, wanted, dry_run=False, actor=ACTOR, now=now)
            for told in ():
                yield told

        monkeypatch.setitem(LISTS, "snapshot", read)
        await read_lists(context.at(now + timedelta(days=1)), lag=LAG, names=["snapshot"])
        async with context.sessions() as session:
            row = await session.get_one(StripeEventReads, "snapshot")
        assert (row.read_until, row.finished_at) == (wanted.since, None)

    async def test_takes_a_range_by_the_time_at_which_stripe_made_events(
        self, context: StripeContext, session: AsyncSession, now: datetime
    ) -> None:
        await arrive(context, *(an_event(number, at=now + timedelta(hours=number)) for number in range(4)))
        wanted = Replay(since=now + timedelta(hours=1), until=now + timedelta(hours=3), states=(State.WAITING,))
        async with session.begin():
            result = await replay(session, wanted, dry_run=True, actor=ACTOR, now=now)
        assert [one.id for one in result.events] == ["evt_1", "evt_2"]

    async def test_of_an_unknown_event_asks_stripe_what_it_is_about(
        self, context: StripeContext, session: AsyncSession, sim: EmbeddedStripe, now: datetime
    ) -> None:
        customer_id = await a_customer_that_changes(context)
        listed = await context.stripe.call(lambda c: c.v1.events.list_async({"type": "customer.updated"}))
        event_id = listed.data[0].id
        reader = Reader()
        async with session.begin():
            await replay(session, Replay(event_ids=(event_id, "evt_none")), dry_run=False, actor=ACTOR, now=now)
        await process_due(context, reader.appliers)
        await process_due(context, reader.appliers)
        assert reader.read == [customer_id]
        found = {one.id: one for one in await inbox(context)}
        assert (found[event_id].type, found[event_id].state) == ("customer.updated", "done")
        assert found["evt_none"].state == "waiting"
        assert "Stripe refused" in found["evt_none"].reason

    @pytest.mark.parametrize(
        "wanted",
        [
            Replay(),
            Replay(event_ids=("evt_1",), object_id="cus_1"),
            Replay(event_ids=("in_1",)),
            Replay(
                since=datetime.fromisoformat("2026-01-02T00:00Z"),
                until=datetime.fromisoformat("2026-01-02T00:00Z"),
            ),
            Replay(event_ids=("evt_1",), states=(State.DEAD,)),
        ],
        ids=range(5),
    )
    async def test_wants_one_clear_choice(self, session: AsyncSession, now: datetime, wanted: Replay) -> None:
        with pytest.raises(ValidationFailedError):
            await replay(session, wanted, dry_run=True, actor=ACTOR, now=now)


class TestResync:
    async def test_reads_an_object_whatever_events_say(
        self, context: StripeContext, session: AsyncSession, now: datetime
    ) -> None:
        reader = Reader()
        async with session.begin():
            row_id = await resync(session, object_id="cus_7", actor=ACTOR, now=now)
        await process_due(context, reader.appliers)
        assert reader.read == ["cus_7"]
        (row,) = await inbox(context)
        assert (row.id, row.type, row.state) == (row_id, "resync", "done")

    async def test_refuses_what_nobody_reads(self, session: AsyncSession, now: datetime) -> None:
        for object_id in ("price_1", "evt_1", ""):
            with pytest.raises(ValidationFailedError, match="sub_"):
                await resync(session, object_id=object_id, actor=ACTOR, now=now)


class TestLooking:
    async def test_lists_page_by_page_and_filtered(
        self, context: StripeContext, session: AsyncSession, now: datetime
    ) -> None:
        for number in range(5):
            await arrive(context.at(now + timedelta(seconds=number)), an_event(number, at=now))
        seen: list[str] = []
        cursor = None
        while True:
            page = await list_events(session, EventFilter(states=(State.WAITING,)), cursor=cursor, limit=2)
            seen += [one.id for one in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == [f"evt_{number}" for number in (4, 3, 2, 1, 0)]
        for wanted, ids in (
            (EventFilter(object_id="cus_3"), ["evt_3"]),
            (EventFilter(type="invoice.paid"), []),
            (EventFilter(states=(State.DEAD,)), []),
            (EventFilter(since=now + timedelta(seconds=4)), ["evt_4"]),
            (EventFilter(until=now + timedelta(seconds=1)), ["evt_0"]),
        ):
            page = await list_events(session, wanted, cursor=None, limit=10)
            assert [one.id for one in page.items] == ids

    async def test_tells_how_the_inbox_stands(
        self, context: StripeContext, session: AsyncSession, now: datetime
    ) -> None:
        await arrive(context, an_event(1, at=now))
        standing = await inbox_standing(session)
        assert (standing.waiting, standing.oldest_received_at, standing.dead) == (1, now, 0)
        assert standing.lists_read_at is None
        assert await keep_house(context.at(now + timedelta(days=31)), config=EventsConfig()) > 0
        assert (await inbox(context))[0].body is None
        assert list(await session.scalars(select(StripeEventReads.name))) == []
