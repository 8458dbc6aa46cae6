"""Sinks: each sealed hour arrives whole and at least once, whatever the other side and our processes do."""

# ruff: noqa: PLR0917 - fixtures are arguments

import asyncio
import hashlib
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import delete, func, select, update

from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.foundation.outgoing import OutgoingClient
from control_plane.usage.daily.tables import UsageDay
from control_plane.usage.rollups.sealing import SealingConfig, seal_hours
from control_plane.usage.sinks import operations, queries
from control_plane.usage.sinks.cloud_events import batches
from control_plane.usage.sinks.day_files import DayFiles
from control_plane.usage.sinks.model import (
    MAX_PAUSE,
    DeliveryState,
    SinkContent,
    SinkFacts,
    SinkKind,
    SinksConfig,
    may_be_taken_later,
    pause_after,
)
from control_plane.usage.sinks.sender import Sender
from control_plane.usage.sinks.tables import SinkHour
from control_plane.usage.sinks.worker import SinkServer
from control_plane.usage.store.event_reads import FileFormat
from control_plane.usage.tables import UsageHour, UsageHourly

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LATER = datetime(2026, 3, 18, 1, tzinfo=UTC)
TOKEN = "Bearer a-secret-of-the-other-side"


class Receiver:
    """Another billing system: keeps what it takes, and answers as it is told to first."""

    def __init__(self):
        self.taken: list[dict] = []
        self.requests: list[web.Request] = []
        self.answers: list[int | web.Response | BaseException] = []
        self.before_answer = None

    async def take(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(request)
        if self.before_answer:
            await self.before_answer()
        answer = self.answers.pop(0) if self.answers else 202
        if isinstance(answer, web.Response):
            return answer
        if answer == 0:
            # taken, but the answer never arrives
            self.taken += body
            request.transport.close()
            return web.Response()
        if answer < 300:
            self.taken += body
        return web.Response(status=answer, text="told by the other side")

    def by_id(self) -> Counter:
        return Counter((event["source"], event["id"]) for event in self.taken)


@pytest.fixture
async def receiver():
    found = Receiver()
    app = web.Application()
    app.router.add_post("/usage", found.take)
    async with TestServer(app) as server:
        found.url = str(server.make_url("/usage"))
        yield found


@pytest.fixture
def config(tmp_path) -> SinksConfig:
    return SinksConfig(
        directory=tmp_path / "sinks",
        authorizations={"billing": TOKEN},
        allow_private=True,
        batch_events=4,
        timeout_seconds=10,
    )


@pytest.fixture
def make_sink(sessions, receiver):
    async def make(name="billing", content=SinkContent.EVENTS, since=LATER - 2 * DAY, now=LATER, **more):
        facts = {"kind": SinkKind.HTTP, "url": receiver.url} | more
        facts = SinkFacts(name=name, content=content, since=since.replace(minute=0), **facts)
        async with sessions() as session, session.begin():
            return await operations.create_sink(session, sink=facts, actor="test", now=now)

    return make


@pytest.fixture
def send(config, sessions, store):
    """Fills the queue and sends until nothing waits that is due; returns the sender."""

    async def run(now=LATER, rounds=20, **changes):
        async with OutgoingClient(allow_private=config.allow_private, timeout_seconds=60) as client:
            asked = replace(config, **changes)
            sender = Sender(config=asked, sessions=sessions, store=store, client=client, clock=lambda: now)
            await sender.queue.fill(sealed_after=None)
            for _ in range(rounds):
                if not await sender.work(asyncio.Event()):
                    break
            return sender

    return run


@pytest.fixture
def seal(sessions, aggregate):
    async def run(now=LATER):
        await aggregate(now=now)
        async with sessions() as session, session.begin():
            await seal_hours(session, config=SealingConfig(), now=now)
        await aggregate(now=now)
        async with sessions() as session, session.begin():
            return (await seal_hours(session, config=SealingConfig(), now=now)).sealed

    return run


@pytest.fixture
async def sealed(gateway, collect, seal, noon):
    """Ten calls in two hours of one account, and three of another; all sealed."""
    calls = [*gateway.calls(7), *gateway.calls(3, at=noon + HOUR), *gateway.calls(3, account="acc_2", key="key_2")]
    await gateway.ship(calls, shipped_up_to=LATER)
    await collect()
    await seal()
    return calls


async def states(sessions) -> Counter:
    async with sessions() as session:
        return Counter(await session.scalars(select(SinkHour.state)))


class TestEvents:
    async def test_arrive_whole_as_cloud_events(self, sealed, make_sink, send, receiver, sessions):
        await make_sink()
        await send()
        assert receiver.by_id() == Counter({("/kong-monetize/usage", call.receipt.event_id): 1 for call in sealed})
        event = next(event for event in receiver.taken if event["id"] == sealed[0].receipt.event_id)
        assert {name: event[name] for name in ("specversion", "type", "subject", "time", "hourrevision")} == {
            "specversion": "1.0",
            "type": "io.kong-monetize.usage.event.v1",
            "subject": "acc_1",
            "time": "2026-03-17T12:00:00.000Z",
            "hourrevision": 1,
        }
        assert (event["data"]["key_id"], event["data"]["units"], event["data"]["voided"]) == ("key_1", 1, False)
        assert await states(sessions) == {"sent": 3}

    async def test_come_in_batches_with_the_sinks_own_authorization(self, sealed, make_sink, send, receiver):
        await make_sink()
        await send()
        assert {request.headers["Authorization"] for request in receiver.requests} == {TOKEN}
        assert all(request.content_type == "application/cloudevents-batch+json" for request in receiver.requests)
        assert len(receiver.requests) == 4  # 4 + 3, 3, 3

    async def test_of_hours_before_the_beginning_are_left_out(self, sealed, make_sink, send, receiver, noon):
        await make_sink(since=noon + HOUR)
        await send()
        assert len(receiver.taken) == 3

    async def test_of_nobody_are_left_out(self, gateway, collect, seal, make_sink, send, receiver):
        (call,) = gateway.calls(1)
        await gateway.ship([call.line() | {"ru": "", "ra": ""}], shipped_up_to=LATER)
        await collect()
        await seal()
        await make_sink()
        await send()
        assert receiver.taken == []

    async def test_that_come_late_are_sent_with_their_hour_again(
        self, sealed, gateway, collect, seal, make_sink, send, receiver
    ):
        await make_sink()
        await send()
        (late,) = gateway.calls(1)
        await gateway.ship([late], shipped_up_to=LATER)
        await collect()
        await seal(LATER + HOUR)
        await send(LATER + HOUR)
        found = receiver.by_id()
        assert found["/kong-monetize/usage", late.receipt.event_id] == 1
        assert sorted(found.values()) == [1] * 7 + [2] * 7
        assert {event["hourrevision"] for event in receiver.taken} == {1, 2}


class TestRollups:
    async def test_arrive_an_hour_an_event_and_replace_it_in_a_new_revision(
        self, sealed, gateway, collect, seal, make_sink, send, receiver
    ):
        await make_sink(content=SinkContent.ROLLUPS)
        await send()
        assert {event["id"]: sum(row["calls"] for row in event["data"]["rows"]) for event in receiver.taken} == {
            "acc_1/2026-03-17T12:00:00.000Z/1": 7,
            "acc_1/2026-03-17T13:00:00.000Z/1": 3,
            "acc_2/2026-03-17T12:00:00.000Z/1": 3,
        }
        await gateway.ship(gateway.calls(1), shipped_up_to=LATER)
        await collect()
        await seal(LATER + HOUR)
        await send(LATER + HOUR)
        newest = receiver.taken[-1]
        assert (newest["id"], newest["data"]["rows"][0]["calls"]) == ("acc_1/2026-03-17T12:00:00.000Z/2", 8)

    async def test_are_not_sent_again_once_hours_were_dropped(
        self, sealed, make_sink, send, receiver, sessions, noon
    ):
        """An hour without rows would take the place of the one that the other side has."""
        await make_sink(content=SinkContent.ROLLUPS)
        await send()
        async with sessions() as session, session.begin():
            day = noon.replace(hour=0)
            session.add(UsageDay(account_id="acc_1", day=day, rolled_up_at=LATER, hours_dropped_at=LATER))
            await session.execute(delete(UsageHourly))
            sent = [DeliveryState.SENT]
            await operations.resend_hours(session, name="billing", states=sent, actor="test", now=LATER)
        await send()
        assert set(receiver.by_id().values()) == {1}
        assert await states(sessions) == {"failed": 3}

    async def test_of_an_hour_that_is_open_again_wait_for_its_seal(
        self, sealed, gateway, collect, aggregate, make_sink, send, receiver, sessions
    ):
        await make_sink(content=SinkContent.ROLLUPS)
        await gateway.ship(gateway.calls(1), shipped_up_to=LATER)
        await collect()
        await send(rounds=0)  # waits at the revision that is sealed
        await aggregate(now=LATER)
        await send()
        assert "acc_1/2026-03-17T12:00:00.000Z/1" not in {event["id"] for event in receiver.taken}
        assert len(receiver.taken) == 2


class TestFailures:
    @pytest.mark.parametrize("answer", [500, 503, 429, 401, 404, 302, 0])
    async def test_that_may_pass_put_the_sink_off_and_nothing_is_lost(
        self, sealed, make_sink, send, receiver, sessions, answer
    ):
        await make_sink()
        receiver.answers = [202, answer]
        await send()
        async with sessions() as session:
            (found,) = await queries.sinks_with_progress(session)
        assert (found.sink.attempts, found.sent_hours < 3) == (1, True)
        assert found.sink.last_error
        assert TOKEN not in found.sink.last_error
        await send(LATER + pause_after(1) - timedelta(milliseconds=1))
        assert len(receiver.requests) == 2
        await send(LATER + pause_after(1))
        assert set(receiver.by_id()) == {("/kong-monetize/usage", call.receipt.event_id) for call in sealed}
        # only what the answer was lost of comes twice
        assert sum(receiver.by_id().values()) - len(sealed) == (3 if answer == 0 else 0)
        assert await states(sessions) == {"sent": 3}

    async def test_of_one_hour_for_good_hold_up_no_other(self, sealed, make_sink, send, receiver, sessions):
        await make_sink()
        receiver.answers = [422]
        await send()
        assert await states(sessions) == {"sent": 2, "failed": 1}
        async with sessions() as session:
            (failed,) = await queries.failed_hours(session, name="billing")
            assert failed.error == "answered with 422: told by the other side"
        async with sessions() as session, session.begin():
            resent = await operations.resend_hours(
                session, name="billing", states=[DeliveryState.FAILED], actor="test", now=LATER
            )
        assert resent == 1
        await send()
        assert set(receiver.by_id().values()) == {1}
        assert await states(sessions) == {"sent": 3}

    async def test_of_one_sink_leave_the_others_alone(self, sealed, make_sink, send, receiver, sessions):
        await make_sink("broken", url="http://127.0.0.1:9/usage")
        await make_sink()
        await send()
        assert set(receiver.by_id().values()) == {1}
        assert await states(sessions) == {"sent": 3, "waiting": 3}

    async def test_a_sink_that_takes_long_keeps_none_waiting(self, sealed, make_sink, send, receiver, sessions):
        await make_sink("slow", url=receiver.url + "?slow")
        await make_sink()
        others_are_done = asyncio.Event()

        async def hold():
            if receiver.requests[-1].query_string:
                await others_are_done.wait()

        receiver.before_answer = hold
        working = asyncio.create_task(send())
        async with asyncio.timeout(30):
            while (await states(sessions)).get("sent") != 3:
                assert not working.done()
                await asyncio.sleep(0.02)
            others_are_done.set()
            await working
        assert await states(sessions) == {"sent": 6}

    async def test_an_hour_of_several_turns_goes_on_where_it_was(
        self, sealed, make_sink, send, receiver, sessions, config
    ):
        await make_sink()
        await send(rounds=1, turn_seconds=0)
        assert (len(receiver.taken), await states(sessions)) == (config.batch_events, {"waiting": 3})
        await send(turn_seconds=0)
        assert set(receiver.by_id().values()) == {1}
        assert (len(receiver.taken), await states(sessions)) == (len(sealed), {"sent": 3})

    async def test_a_process_that_dies_leaves_its_hours_to_another(
        self, sealed, make_sink, send, receiver, config
    ):
        await make_sink()
        receiver.answers = [202]
        started = asyncio.Event()

        async def hang():
            if len(receiver.requests) == 2:
                started.set()
                await asyncio.sleep(3600)

        receiver.before_answer = hang
        working = asyncio.create_task(send())
        await started.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        receiver.before_answer = None
        await send()
        assert set(receiver.by_id()) == {("/kong-monetize/usage", call.receipt.event_id) for call in sealed}

    async def test_an_hour_that_is_sealed_anew_meanwhile_is_sent_again(
        self, sealed, gateway, collect, seal, make_sink, send, receiver, sessions
    ):
        await make_sink()

        async def reseal():
            receiver.before_answer = None
            await gateway.ship(gateway.calls(1), shipped_up_to=LATER)
            await collect()
            await seal(LATER + HOUR)
            sender = await send(rounds=0)
            await sender.queue.fill(sealed_after=None)

        receiver.before_answer = reseal
        await send()
        await send(LATER + HOUR)
        assert len(receiver.by_id()) == len(sealed) + 1
        assert await states(sessions) == {"sent": 3}


class TestPaused:
    async def test_sends_nothing_and_goes_on_where_it_was(self, sealed, make_sink, send, receiver, sessions):
        await make_sink()
        async with sessions() as session, session.begin():
            await operations.pause_sink(session, name="billing", actor="test", now=LATER)
        await send()
        assert receiver.requests == []
        async with sessions() as session, session.begin():
            await operations.resume_sink(session, name="billing", actor="test", now=LATER)
        await send()
        assert len(receiver.taken) == len(sealed)

    async def test_one_that_was_removed_sends_nothing_and_leaves_its_name(
        self, sealed, make_sink, send, receiver, sessions
    ):
        await make_sink()
        async with sessions() as session, session.begin():
            await operations.remove_sink(session, name="billing", actor="test", now=LATER)
        await send()
        assert receiver.requests == []
        with pytest.raises(NotFoundError):
            async with sessions() as session:
                await queries.sink_by_name(session, "billing")
        await make_sink()


class TestPrivateNetworks:
    async def test_are_closed_unless_they_are_allowed(self, sealed, make_sink, sessions, store, config, receiver):
        await make_sink()
        async with OutgoingClient(allow_private=False) as client:
            sender = Sender(config=config, sessions=sessions, store=store, client=client, clock=lambda: LATER)
            await sender.queue.fill(sealed_after=None)
            await sender.work(asyncio.Event())
        assert receiver.requests == []
        async with sessions() as session:
            (found,) = await queries.sinks_with_progress(session)
        assert found.sink.last_error == "the name leads into a private network"


class TestCreateSink:
    @pytest.mark.parametrize(
        ("field", "changes"),
        [
            ("name", {"name": "Billing"}),
            ("url", {"url": None}),
            ("url", {"url": "ftp://example.com"}),
            ("url", {"url": "https://user:secret@example.com"}),
            ("file_format", {"file_format": FileFormat.CSV}),
            ("file_format", {"kind": SinkKind.FILES, "url": None}),
            ("since", {"since": LATER + timedelta(minutes=1)}),
        ],
    )
    def test_names_the_wrong_field(self, field, changes):
        right = {
            "name": "billing",
            "kind": SinkKind.HTTP,
            "content": SinkContent.EVENTS,
            "since": LATER,
            "url": "https://example.com/usage",
        }
        SinkFacts(**right)
        with pytest.raises(ValidationFailedError) as error:
            SinkFacts(**right | changes)
        assert error.value.field == field

    async def test_refuses_to_begin_where_events_may_be_gone(self, make_sink):
        with pytest.raises(ValidationFailedError):
            await make_sink(since=LATER - 90 * DAY)

    async def test_refuses_a_name_that_is_taken(self, make_sink, sessions):
        await make_sink()
        with pytest.raises(operations.SinkNameTakenError):
            await make_sink()


class TestPauses:
    def test_double_up_to_ten_minutes(self):
        assert [pause_after(attempts).total_seconds() for attempts in (1, 2, 3, 10, 11, 99)] == [
            1, 2, 4, 512, 600, 600,
        ]  # fmt: skip

    def test_keep_what_the_other_side_asked_for(self):
        assert pause_after(1, asked_seconds=30) == timedelta(seconds=30)
        assert pause_after(1, asked_seconds=86_400) == MAX_PAUSE
        assert pause_after(9, asked_seconds=1) == timedelta(seconds=256)

    @pytest.mark.parametrize("status", [400, 410, 413, 415, 422])
    def test_are_not_made_for_what_is_refused_for_good(self, status):
        assert not may_be_taken_later(status)


class TestBatches:
    def test_end_at_either_bound_and_lose_nothing(self):
        events = [{"id": str(number), "text": "x" * (number % 7) * 10} for number in range(50)]
        found = list(batches(events, most_events=6, most_bytes=200))
        assert [event for _, body in found for event in json.loads(body)] == events
        assert all(count <= 6 and (len(body) <= 202 or count == 1) for count, body in found)


class TestDayFiles:
    @pytest.fixture
    def files(self, config, sessions, store):
        return DayFiles(config=config, sessions=sessions, store=store)

    @pytest.fixture
    def write_due(self, files):
        async def run(now=LATER + HOUR):
            written = []
            while due := await files.due_day(now, look_back=92 * DAY):
                written.append(await files.write(due, now=now))
            return written

        return run

    @pytest.mark.parametrize("file_format", [FileFormat.CSV, FileFormat.PARQUET])
    @pytest.mark.parametrize(("content", "rows"), [(SinkContent.EVENTS, 13), (SinkContent.ROLLUPS, 3)])
    async def test_hold_a_day_and_are_named_in_the_manifest(
        self, sealed, make_sink, write_due, config, store, file_format, content, rows
    ):
        await make_sink("daily", content, kind=SinkKind.FILES, url=None, file_format=file_format)
        (written,) = await write_due()
        directory = config.directory / "daily"
        path = directory / written.file_name
        assert path.name == f"2026-03-17.r1.{file_format.value}"
        (entry,) = json.loads((directory / "manifest.json").read_text())["days"]
        assert entry == {
            "day": "2026-03-17",
            "file": path.name,
            "revision": 1,
            "records": rows,
            "size_bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        kind = "CSVWithNames" if file_format is FileFormat.CSV else "Parquet"
        assert store.query(f"SELECT count() FROM file('{path}', {kind})", {}) == [(rows,)]
        assert await write_due() == []

    async def test_wait_until_the_day_is_over_and_sealed(self, gateway, collect, seal, make_sink, write_due):
        await make_sink("daily", now=LATER - DAY, kind=SinkKind.FILES, url=None, file_format=FileFormat.CSV)
        await gateway.ship(gateway.calls(2), shipped_up_to=LATER)
        await collect()
        assert await write_due() == []
        await seal()
        assert await write_due(LATER.replace(hour=0, minute=14)) == []
        assert len(await write_due(LATER.replace(hour=0, minute=15))) == 1

    async def test_are_written_anew_when_an_hour_of_the_day_was_sealed_again(
        self, sealed, gateway, collect, seal, make_sink, write_due, config
    ):
        await make_sink("daily", kind=SinkKind.FILES, url=None, file_format=FileFormat.CSV)
        await write_due()
        await gateway.ship(gateway.calls(1), shipped_up_to=LATER)
        await collect()
        await seal(LATER + HOUR)
        (written,) = await write_due(LATER + 2 * HOUR)
        assert (written.file_name, written.records) == ("2026-03-17.r2.csv", 14)
        assert sorted(path.name for path in (config.directory / "daily").iterdir()) == [
            "2026-03-17.r2.csv",
            "manifest.json",
        ]

    @pytest.mark.parametrize(("content", "revision"), [(SinkContent.EVENTS, None), (SinkContent.ROLLUPS, 2)])
    async def test_stand_once_events_of_their_day_may_have_expired(
        self, sealed, make_sink, write_due, sessions, content, revision
    ):
        """An amendment gives an hour a new revision long after: rollups show it, events would be fewer."""
        await make_sink("daily", content, kind=SinkKind.FILES, url=None, file_format=FileFormat.CSV)
        await write_due()
        async with sessions() as session, session.begin():
            await session.execute(update(UsageHour).values(revision=UsageHour.revision + 1))
        found = await write_due(LATER + 90 * DAY)
        assert [day.revision for day in found] == ([revision] if revision else [])

    async def test_are_for_their_owner_only(self, sealed, make_sink, write_due, config):
        await make_sink("daily", kind=SinkKind.FILES, url=None, file_format=FileFormat.CSV)
        await write_due()
        for path in (config.directory / "daily").iterdir():
            assert path.stat().st_mode & 0o777 == 0o600


async def test_progress_counts_what_waits(sealed, make_sink, send, sessions, receiver):
    await make_sink()
    receiver.answers = [500]
    await send()
    async with sessions() as session:
        (found,) = await queries.sinks_with_progress(session)
        waiting = await session.scalar(select(func.count()).select_from(SinkHour))
    assert (found.waiting_hours, found.failed_hours, found.sent_hours, waiting) == (3, 0, 0, 3)
    assert found.oldest_waiting == datetime(2026, 3, 17, 12, tzinfo=UTC)


class TestTheWorker:
    async def test_sends_what_was_sealed_before_to_a_new_sink_at_once(
        self, sealed, make_sink, config, sessions, receiver, store
    ):
        asked = replace(config, fill_seconds=0)
        async with OutgoingClient(allow_private=True) as client:
            server = SinkServer(asked, sessions, store, client, lambda: LATER + DAY)
            await server.round(asyncio.Event())
            await make_sink()
            await server.round(asyncio.Event())
        assert len(receiver.taken) == len(sealed)
