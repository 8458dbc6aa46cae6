"""Reported events on their way into the store: each once, whatever dies, and wherever it is sent again."""

# ruff: noqa: PLR0917 - fixtures are arguments

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.accounts.tables import Account
from control_plane.keys.tables import ApiKey
from control_plane.usage.collect.endpoints import EndpointNames
from control_plane.usage.ingest import delivery, payload, writer
from control_plane.usage.ingest.claims import claim, forget_old_ids
from control_plane.usage.ingest.cloud_events import read_event
from control_plane.usage.ingest.delivery import deliver
from control_plane.usage.ingest.model import IDS_KEPT, MAX_AGE, Code, Outcome, ReportedEvent, Verdict
from control_plane.usage.ingest.tables import IngestBatch, IngestedId
from control_plane.usage.ingest.writer import EventIngest, IngestConfig, IngestUnavailableError
from control_plane.usage.rollups.sealing import SealingConfig, seal_hours
from control_plane.usage.store import EventStore, UnstorableRowError
from control_plane.usage.tables import TouchedHour, UsageHour, UsageHourly

Sessions = async_sessionmaker[AsyncSession]
HOUR = timedelta(hours=1)
WITHIN_SECONDS = 30
QUICK = IngestConfig(group_seconds=0.001, take_over_seconds=0.0, housekeeping_seconds=0.05)
FIELDS = (
    "event_id, account_id, key_id, mode, product, plan, endpoint, outcome, units, dimensions, source, event_type"
)


def report(number: int | str = 1, **changes: Any) -> ReportedEvent:
    event = {
        "specversion": "1.0",
        "id": f"order-{number}",
        "source": "/shop",
        "type": "sold",
        "subject": "acc_1",
        "data": {"units": {"transactions": 1}},
        **changes,
    }
    found = read_event(json.dumps(event).encode())
    assert isinstance(found, ReportedEvent), found
    return found


def outcomes(verdicts: Sequence[Verdict]) -> list[str]:
    return [verdict.outcome.value for verdict in verdicts]


@pytest.fixture(autouse=True)
async def customer(catalog, noon) -> None:
    await catalog.product()
    await catalog.account()
    version = await catalog.plan_version()
    await catalog.subscription(("phase_1", version, noon - timedelta(days=60), None))


@pytest.fixture
def running(sessions: Sessions, store: EventStore, noon: datetime) -> Callable[..., Any]:
    """Runs a writer as a process would; it keeps the test's store open when it ends."""

    class Kept(EventStore):
        def close(self) -> None:
            pass

    @asynccontextmanager
    async def run(*, now: datetime = noon, config: IngestConfig = QUICK) -> AsyncIterator[EventIngest]:
        async def open_store(_stop: asyncio.Event) -> EventStore:
            return Kept(store._client)

        ingest = EventIngest(sessions=sessions, open_store=open_store, config=config, clock=lambda: now)
        stop = asyncio.Event()
        task = asyncio.create_task(ingest.run(stop))
        await until(lambda: ingest._refusal is None)
        yield ingest
        stop.set()
        async with asyncio.timeout(WITHIN_SECONDS):
            await task

    return run


async def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not (await true() if asyncio.iscoroutinefunction(true) else true()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def accept(sessions: Sessions, *events: ReportedEvent, now: datetime) -> tuple[list[str], str]:
    """Take the first of the two steps only: what a process has done that dies before the second."""
    async with sessions() as session, session.begin():
        claimed = await claim(session, events, endpoints=EndpointNames(), now=now)
    return outcomes(claimed.verdicts), claimed.batch_id


def rows(store: EventStore, fields: str = "account_id, toUnixTimestamp(hour), event_id") -> list[Sequence[Any]]:
    return sorted(store.query(f"SELECT {fields} FROM usage_events FINAL", {}))


async def count(sessions: Sessions, table: type) -> int:
    async with sessions() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


class TestAccepting:
    async def test_an_event_is_stored_with_all_that_was_said_before_it_is_answered(
        self, running, store, sessions, noon
    ):
        async with running() as ingest:
            event = report(
                time="2026-03-17T11:59:59.999Z",
                data={"units": {"transactions": 2}, "properties": {"country": "NO"}, "endpoint": "checkout"},
            )
            assert outcomes(await ingest.submit([event])) == ["accepted"]
            assert rows(store, FIELDS) == [
                (
                    event.event_id, "acc_1", "", "live", "weather", "plan1", "checkout", "reported", 0,
                    {"transactions": 2}, "/shop", "sold",
                )
            ]  # fmt: skip
            assert rows(store, "request_id, status, upstream_ms, call_number, properties") == [
                ("order-1", 0, -1, 0, {"country": "NO"})
            ]
        async with sessions() as session:
            (mark,) = (await session.scalars(select(TouchedHour))).all()
        assert (mark.account_id, mark.hour) == ("acc_1", noon - HOUR)
        assert await count(sessions, IngestBatch) == 0

    async def test_without_a_time_it_happens_now_and_without_an_endpoint_it_stands_under_its_type(
        self, running, store, noon
    ):
        async with running(now=noon + timedelta(minutes=7)) as ingest:
            await ingest.submit([report()])
        assert rows(store, "toUnixTimestamp64Milli(occurred_at), endpoint") == [
            (int((noon + timedelta(minutes=7)).timestamp() * 1000), "sold")
        ]

    async def test_the_subject_is_an_account_a_key_or_an_external_id_in_this_order(
        self, running, store, sessions, noon
    ):
        async with sessions() as session, session.begin():
            # names that are somebody else's id: the id wins
            session.add(Account(id="acc_2", name="b", external_id="acc_1", created_at=noon))
            session.add(Account(id="acc_3", name="c", external_id="key_t", created_at=noon))
            session.add(Account(id="acc_4", name="d", external_id="ada", status="deleted", created_at=noon))
            await session.flush()
            (await session.get(Account, "acc_1")).external_id = "customer 42"
            for key_id, mode in (("key_l", "live"), ("key_t", "test")):
                session.add(
                    ApiKey(
                        id=key_id,
                        account_id="acc_1",
                        name=key_id,
                        mode=mode,
                        key_hash=key_id.encode().hex().ljust(64, "0"),
                        origin="imported",
                        scopes=["full"],
                        created_at=noon,
                        status="revoked",
                        revoked_at=noon,
                    )
                )
        async with running() as ingest:
            verdicts = await ingest.submit(
                [
                    report(1, subject="acc_1"),
                    report(2, subject="customer 42"),
                    report(3, subject="key_l"),
                    report(4, subject="key_t"),
                    report(5, subject="key_t", data={"mode": "live"}),
                    report(6, subject="acc_1", data={"mode": "test"}),
                    report(7, subject="ada"),
                    report(8, subject="nobody"),
                ]
            )
        assert [verdict.code for verdict in verdicts] == [
            None, None, None, None, Code.MODE_MISMATCH, None, Code.ACCOUNT_DELETED, Code.UNKNOWN_SUBJECT,
        ]  # fmt: skip
        assert rows(store, "request_id, account_id, key_id, mode") == [
            ("order-1", "acc_1", "", "live"),
            ("order-2", "acc_1", "", "live"),
            ("order-3", "acc_1", "key_l", "live"),
            ("order-4", "acc_1", "key_t", "test"),
            ("order-6", "acc_1", "", "test"),
        ]

    async def test_the_product_is_the_one_the_account_was_subscribed_to_then(self, running, store, catalog, noon):
        await catalog.product("maps")
        version = await catalog.plan_version("maps")
        await catalog.subscription(("phase_2", version, noon - HOUR, noon), product="maps")
        at = {
            "before": noon - 2 * HOUR,
            "within": noon - HOUR,
            "after": noon,
            "too_early": noon - timedelta(days=61),
        }
        times = {name: {"time": moment.isoformat()} for name, moment in at.items()}
        async with running() as ingest:
            verdicts = await ingest.submit(
                [
                    report(1, **times["before"]),
                    report(2, **times["within"]),
                    report(3, **times["within"], data={"product": "maps"}),
                    report(4, **times["after"]),
                    report(5, **times["after"], data={"product": "maps"}),
                    report(6, **times["too_early"]),
                ]
            )
        assert [verdict.code for verdict in verdicts] == [
            None, Code.PRODUCT_REQUIRED, None, None, Code.NOT_SUBSCRIBED, Code.NOT_SUBSCRIBED,
        ]  # fmt: skip
        assert rows(store, "request_id, product, plan") == [
            ("order-1", "weather", "plan1"),
            ("order-3", "maps", "plan3"),
            ("order-4", "weather", "plan1"),
        ]

    async def test_times_are_bounded(self, running, catalog, noon):
        await catalog.account("acc_2")
        await catalog.subscription(
            ("phase_old", await catalog.plan_version(), noon - timedelta(days=365), None), account="acc_2"
        )
        millisecond = timedelta(milliseconds=1)
        moments = [
            noon - MAX_AGE, noon - MAX_AGE - millisecond, noon + 5 * HOUR / 60, noon + 5 * HOUR / 60 + millisecond
        ]  # fmt: skip
        async with running() as ingest:
            verdicts = await ingest.submit(
                [report(number, subject="acc_2", time=moment.isoformat()) for number, moment in enumerate(moments)]
            )
        assert [verdict.code for verdict in verdicts] == [None, Code.TOO_OLD, None, Code.IN_FUTURE]

    async def test_an_event_is_kept_as_long_as_the_installation_or_its_plan_says(
        self, running, store, catalog, noon
    ):
        await catalog.account("acc_2")
        version = await catalog.plan_version(event_retention_days=400)
        await catalog.subscription(("phase_2", version, noon - HOUR, None), account="acc_2")
        events = [report(1), report(2, subject="acc_2")]
        async with running(config=replace(QUICK, event_retention_days=120)) as ingest:
            await ingest.submit(events)
        assert rows(store, "request_id, retention_days") == [("order-1", 120), ("order-2", 400)]

    async def test_requests_at_once_share_one_insert(self, running, store, monkeypatch):
        inserted = []
        real = delivery.deliver

        async def counting(*arguments: Any, **more: Any) -> None:
            inserted.append(arguments)
            await real(*arguments, **more)

        monkeypatch.setattr(writer, "deliver", counting)
        async with running(config=IngestConfig(group_seconds=0.1)) as ingest:
            verdicts = await asyncio.gather(*(ingest.submit([report(number)]) for number in range(30)))
        assert [outcomes(found) for found in verdicts] == [["accepted"]] * 30
        assert len(rows(store)) == 30
        assert len(inserted) < 5


class TestKnownIds:
    async def test_sending_again_changes_nothing(self, running, store, sessions, aggregate):
        async with running() as ingest:
            assert outcomes(await ingest.submit([report(1), report(2), report(1)])) == [
                "accepted", "accepted", "duplicate",
            ]  # fmt: skip
            before = rows(store)
            await aggregate()
            assert outcomes(await ingest.submit([report(1), report(2)])) == ["duplicate", "duplicate"]
        assert rows(store) == before
        assert await count(sessions, TouchedHour) == 0

    async def test_other_content_under_a_known_id_is_named_and_the_first_stays(
        self, running, store, catalog, noon
    ):
        await catalog.account("acc_2")
        await catalog.subscription(
            ("phase_2", await catalog.plan_version(), noon - timedelta(days=9), None), account="acc_2"
        )
        others = [
            report(**changes)
            for changes in (
                {"time": "2026-03-17T09:00:00Z"},
                {"subject": "acc_2"},
                {"data": {"units": {"transactions": 9}}},
                {"type": "returned"},
            )
        ]
        async with running() as ingest:
            (accepted, *at_once) = await ingest.submit([report(), *others])
            before = rows(store, FIELDS)
            later = await ingest.submit(others)
        assert accepted.outcome is Outcome.ACCEPTED
        for conflict in (*at_once, *later):
            assert (conflict.outcome, conflict.code) == (Outcome.CONFLICT, Code.CONFLICT)
            assert "acc_1" in conflict.message
            assert "2026-03-17T12:00Z" in conflict.message
        assert rows(store, FIELDS) == before

    async def test_a_refused_event_leaves_its_id_to_whoever_sends_it_right_at_the_same_moment(
        self, running, store
    ):
        wrong, right = report(subject="nobody"), report()
        async with running(config=replace(QUICK, group_seconds=0.3)) as ingest:
            answers = await asyncio.gather(*[ingest.submit([event]) for event in (wrong, right, wrong, right)])
        assert [outcomes(answer) for answer in answers] == [
            ["rejected"], ["accepted"], ["conflict"], ["duplicate"],
        ]  # fmt: skip
        assert len(rows(store)) == 1

    async def test_an_event_without_a_time_that_is_sent_again_hours_later_counts_once(self, running, store, noon):
        async with running() as ingest:
            await ingest.submit([report()])
        async with running(now=noon + 3 * HOUR) as ingest:
            assert outcomes(await ingest.submit([report()])) == ["duplicate"]
        assert len(rows(store)) == 1

    async def test_an_event_that_its_client_timed_anew_is_a_duplicate_in_the_hour_of_the_first(
        self, running, store, noon
    ):
        first, again = (report(time=(noon - hours * HOUR).isoformat(), timedby="client") for hours in (3, 1))
        async with running() as ingest:
            assert outcomes(await ingest.submit([first])) == ["accepted"]
            assert outcomes(await ingest.submit([again])) == ["duplicate"]
        assert rows(store, "toUnixTimestamp(occurred_at)") == [((noon - 3 * HOUR).timestamp(),)]

    async def test_a_known_event_is_a_duplicate_even_when_it_would_be_refused_now(self, running, sessions, noon):
        event = report(time=noon.isoformat())
        async with running() as ingest:
            await ingest.submit([event])
        async with sessions() as session, session.begin():
            (await session.get(Account, "acc_1")).status = "deleted"
        async with running(now=noon + MAX_AGE + HOUR) as ingest:
            assert outcomes(await ingest.submit([event])) == ["duplicate"]

    async def test_two_processes_that_are_sent_the_same_events_accept_each_once(self, running, store):
        numbers = range(400)
        async with running() as one, running() as other:
            sent = [
                ingest.submit([report(number) for number in numbers[start : start + 40]])
                for start in range(0, 400, 40)
                for ingest in (one, other)
            ]
            # the same ids in another order: they must not wait for each other in a circle
            sent += [ingest.submit([report(number) for number in reversed(numbers)]) for ingest in (one, other)]
            answers = await asyncio.gather(*sent)
        found = [outcome for verdicts in answers for outcome in outcomes(verdicts)]
        assert found.count("accepted") == 400
        assert found.count("duplicate") == len(found) - 400
        assert len(rows(store)) == 400

    async def test_ids_are_forgotten_when_nothing_under_them_could_come_again(self, sessions, noon):
        await accept(sessions, report(1), now=noon)
        await accept(sessions, report(2), now=noon + HOUR)
        now = noon + IDS_KEPT + timedelta(minutes=1)
        async with sessions() as session, session.begin():
            assert await forget_old_ids(session, before=now - IDS_KEPT) == 1
        assert await count(sessions, IngestedId) == 1
        # its own time would be too old by then, if it had one
        assert noon + timedelta(minutes=5) < now - MAX_AGE


class TestCrashes:
    async def test_before_the_commit_nothing_is_kept(self, sessions, store, running, noon):
        async with sessions() as session:
            await claim(session, [report()], endpoints=EndpointNames(), now=noon)
            await session.rollback()
        async with running(now=noon + HOUR) as ingest:
            assert outcomes(await ingest.submit([report()])) == ["accepted"]
        assert rows(store, "toUnixTimestamp(hour)") == [(int((noon + HOUR).timestamp()),)]

    @pytest.mark.parametrize("stored", [False, True])
    async def test_after_the_commit_the_next_process_goes_on(
        self, sessions, store, running, aggregate, noon, stored
    ):
        """Dead before the store had it, or when the store had it and nobody knew."""
        _, batch_id = await accept(sessions, report(1), report(2), now=noon)
        if stored:
            async with sessions() as session:
                kept = await session.get(IngestBatch, batch_id)
            store.insert(payload.decode(kept.payload))
        async with running(now=noon + HOUR) as ingest:
            assert outcomes(await ingest.submit([report(1), report(2), report(3)])) == [
                "duplicate", "duplicate", "accepted",
            ]  # fmt: skip

            async def delivered() -> bool:
                return not await count(sessions, IngestBatch)

            await until(delivered)
        await aggregate(now=noon + HOUR)
        async with sessions() as session:
            hours = (await session.execute(select(UsageHourly.hour, UsageHourly.calls))).all()
        assert sorted(hours) == [(noon, 2), (noon + HOUR, 1)]
        assert len(rows(store)) == 3

    async def test_a_batch_brought_in_by_two_counts_once(self, sessions, store, noon):
        _, batch_id = await accept(sessions, report(1), report(2), now=noon)
        await asyncio.gather(*(deliver(sessions, store, batch_id, now=noon) for _ in range(2)))
        await deliver(sessions, store, batch_id, now=noon)
        assert len(rows(store)) == 2

    @pytest.mark.parametrize("seed", range(3))
    async def test_any_history_of_deaths_and_repeats_ends_in_one_of_each(self, sessions, store, noon, seed):
        """Each attempt goes as far as a choice says; unanswered events are sent again, hours later, by anybody."""
        choices = itertools.cycle([(seed * 7 + step * step * 3) % 4 for step in range(11)])
        unanswered = {number: report(number) for number in range(12)}
        accepted = 0
        for attempt in range(60):
            now = noon + attempt * HOUR / 3
            # the last ones get through: whoever is sent again for ever is answered in the end
            reach = 3 if attempt > 50 else next(choices)
            chosen = [unanswered[number] for number in list(unanswered)[: 1 + attempt % 5]]
            if reach == 0:
                async with sessions() as session:
                    await claim(session, chosen, endpoints=EndpointNames(), now=now)
                    await session.rollback()
                continue
            found, batch_id = await accept(sessions, *chosen, now=now)
            accepted += found.count("accepted")
            if reach >= 2 and batch_id:
                async with sessions() as session:
                    kept = await session.get(IngestBatch, batch_id)
                store.insert(payload.decode(kept.payload))
            if reach == 3:
                if batch_id:
                    await deliver(sessions, store, batch_id, now=now)
                unanswered = {number: event for number, event in unanswered.items() if event not in chosen}
        for batch_id in await delivery.undelivered(sessions, accepted_before=noon + timedelta(days=9)):
            await deliver(sessions, store, batch_id, now=noon)
        assert accepted == 12
        assert not unanswered
        assert rows(store, "count(), uniqExact(event_id)") == [(12, 12)]


class TestStoresAway:
    async def test_without_the_event_store_what_was_accepted_is_answered_and_what_comes_is_refused(
        self, running, store, monkeypatch, sessions
    ):
        real = delivery._store
        away = True

        def insert(*arguments: Any) -> list[str]:
            if away:
                raise ConnectionError("the store is away")
            return real(*arguments)

        monkeypatch.setattr(delivery, "_store", insert)
        async with running() as ingest:
            assert outcomes(await ingest.submit([report(1)])) == ["accepted"]
            await until(lambda: ingest._refusal is not None)
            with pytest.raises(IngestUnavailableError):
                await ingest.submit([report(2)])
            assert await count(sessions, IngestedId) == 1
            away = False
            await until(lambda: ingest._refusal is None)
            assert outcomes(await ingest.submit([report(1), report(2)])) == ["duplicate", "accepted"]
        assert len(rows(store)) == 2

    async def test_without_the_database_nothing_is_kept(self, running, monkeypatch, store):
        real = writer.claim

        async def broken(*_arguments: Any, **_more: Any) -> None:
            raise ConnectionError("the database is away")

        async with running() as ingest:
            monkeypatch.setattr(writer, "claim", broken)
            with pytest.raises(IngestUnavailableError):
                await ingest.submit([report()])
            monkeypatch.setattr(writer, "claim", real)
            assert rows(store) == []
            assert outcomes(await ingest.submit([report()])) == ["accepted"]

    @pytest.mark.parametrize("bound", [{"waiting_events": 4}, {"waiting_bytes": 5 * report().size - 1}])
    async def test_more_than_may_wait_is_refused(self, running, monkeypatch, bound):
        started, hold = asyncio.Event(), asyncio.Event()
        real = writer.claim

        async def slow(*arguments: Any, **more: Any) -> Any:
            started.set()
            await hold.wait()
            return await real(*arguments, **more)

        monkeypatch.setattr(writer, "claim", slow)
        async with running(config=IngestConfig(group_seconds=0.0, **bound)) as ingest:
            first = asyncio.create_task(ingest.submit([report(1)]))
            await until(started.is_set)
            waiting = [asyncio.create_task(ingest.submit([report(n), report(n + 2)])) for n in (2, 3)]
            await until(lambda: ingest._waiting == 4)
            with pytest.raises(IngestUnavailableError) as refused:
                await ingest.submit([report(6)])
            assert refused.value.code == "ingest_busy"
            hold.set()
            assert [outcomes(await task) for task in (first, *waiting)] == [["accepted"]] + [["accepted"] * 2] * 2

    async def test_a_group_is_bounded_by_bytes_too(self, running, store, monkeypatch):
        sizes: list[int] = []
        real = writer.claim

        async def counted(session: Any, events: Any, **more: Any) -> Any:
            sizes.append(len(events))
            return await real(session, events, **more)

        monkeypatch.setattr(writer, "claim", counted)
        config = IngestConfig(group_seconds=0.2, group_bytes=2 * report().size)
        async with running(config=config) as ingest:
            await asyncio.gather(*[ingest.submit([report(number)]) for number in range(5)])
            await ingest.submit([report(number) for number in range(5, 9)])
            assert ingest._waiting_bytes == 0
        assert sizes == [2, 2, 1, 4]
        assert len(rows(store)) == 9

    async def test_stopping_answers_all_that_waits(self, running, store):
        async with running(config=IngestConfig(group_seconds=0.2)) as ingest:
            waiting = [asyncio.create_task(ingest.submit([report(number)])) for number in range(5)]
            await until(lambda: ingest._waiting == 5)
        assert [outcomes(await task) for task in waiting] == [["accepted"]] * 5
        with pytest.raises(IngestUnavailableError):
            await ingest.submit([report(9)])
        assert len(rows(store)) == 5

    async def test_an_event_that_fits_no_column_holds_up_no_other_and_is_kept(
        self, sessions, store, monkeypatch, noon
    ):
        _, batch_id = await accept(sessions, *(report(number) for number in range(5)), now=noon)
        real = store.insert

        def picky(events: Any) -> None:
            if "order-3" in events.columns["request_id"]:
                raise UnstorableRowError("does not fit")
            real(events)

        monkeypatch.setattr(store, "insert", picky)
        await deliver(sessions, store, batch_id, now=noon)
        assert len(rows(store)) == 4
        async with sessions() as session:
            assert (await session.get(IngestBatch, batch_id)).spoiled_at == noon
        assert await delivery.undelivered(sessions, accepted_before=noon + HOUR) == []


class TestRollups:
    async def test_reported_events_count_in_their_hour_on_their_phase_without_quota_units(
        self, running, sessions, aggregate, noon
    ):
        async with running() as ingest:
            await ingest.submit([report(number, data={"units": {"transactions": 3}}) for number in range(4)])
        await aggregate()
        async with sessions() as session:
            (row,) = (await session.scalars(select(UsageHourly))).all()
        assert (row.phase_id, row.product, row.outcome, row.endpoint) == ("phase_1", "weather", "reported", "sold")
        assert (row.units, row.billable_units, row.dimensions) == (0, 0, {"transactions": 12})
        assert row.billable_dimensions == {"transactions": 12}

    async def test_a_late_event_gives_a_sealed_hour_a_new_revision(self, running, sessions, aggregate, noon):
        seal = SealingConfig()

        async def sealed(now: datetime) -> UsageHour:
            for _ in range(2):
                async with sessions() as session, session.begin():
                    await seal_hours(session, config=seal, now=now)
                await aggregate(now=now)
            async with sessions() as session, session.begin():
                await seal_hours(session, config=seal, now=now)
                return (await session.scalars(select(UsageHour))).one()

        async with running() as ingest:
            await ingest.submit([report(1)])
        await aggregate()
        first = await sealed(noon + 2 * HOUR)
        assert first.sealed_at is not None
        async with running(now=noon + 30 * HOUR) as ingest:
            assert outcomes(await ingest.submit([report(2, time=noon.isoformat())])) == ["accepted"]
        await aggregate(now=noon + 30 * HOUR)
        second = await sealed(noon + 31 * HOUR)
        assert second.sealed_at is not None
        assert (second.hour, second.revision) == (first.hour, first.revision + 1)
