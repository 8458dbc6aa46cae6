"""What happens to shipped lines until they are events, whatever dies or is repeated on the way."""

# ruff: noqa: PLR0917 - fixtures are arguments

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import to_ms
from control_plane.usage import metrics
from control_plane.usage.collect.collector import Collector, Progress
from control_plane.usage.tables import Shipper, TouchedHour
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, refusal_note, sign_receipt
from gateway_contract.redis_names import COLLECTOR_GROUP, shipper_positions, usage_stream

Sessions = async_sessionmaker[AsyncSession]


class CrashError(Exception):
    pass


async def positions(sessions: Sessions) -> dict[str, int]:
    async with sessions() as session:
        rows = await session.execute(text("SELECT segment, end_offset FROM shipper_positions"))
        return {row.segment: row.end_offset for row in rows}


async def shipped_up_to(sessions: Sessions, shipper: str = "node_a") -> int:
    async with sessions() as session:
        found = await session.get(Shipper, shipper)
        return found.shipped_up_to_ms if found else -1


async def waiting(redis: Redis) -> int:
    return await redis.xlen(usage_stream(0))


class TestCollecting:
    async def test_stores_every_call_and_empties_the_stream(self, gateway, collect, store, redis, sessions):
        await gateway.ship(gateway.calls(30))
        await gateway.ship(gateway.calls(20, account="acc_2"))
        await collect()
        assert store.count_events() == 50
        assert store.count_events(account_id="acc_2") == 20
        assert await waiting(redis) == 0
        assert await positions(sessions) == {"seg-1": gateway.position}
        published = await redis.hgetall(shipper_positions(0, "node_a"))
        assert published == {b"seg-1": str(gateway.position).encode()}

    async def test_marks_each_hour_once_for_each_batch(self, gateway, collect, sessions, noon):
        await gateway.ship(gateway.calls(3) + gateway.calls(2, at=noon - timedelta(hours=1)))
        await collect()
        await gateway.ship(gateway.calls(1))
        await collect()
        async with sessions() as session:
            at_noon = await session.get(TouchedHour, ("acc_1", noon))
            before = await session.get(TouchedHour, ("acc_1", noon - timedelta(hours=1)))
        assert at_noon is not None
        assert before is not None
        assert (at_noon.generation, before.generation) == (2, 1)

    async def test_the_same_entry_twice_counts_once(self, gateway, collect, store, sessions):
        calls = gateway.calls(10)
        await gateway.ship(calls)
        gateway.position = 0
        await gateway.ship(calls)
        await collect()
        await gateway.ship(calls)
        await collect()
        assert store.count_events() == 10

    async def test_one_receipt_under_two_request_ids_counts_once_and_is_noticed(
        self, gateway, collect, store, call
    ):
        before = metrics.REPEATED_RECEIPTS._value.get()
        (first,) = gateway.calls(1)
        again = first.line() | {"id": "f" * 32, "st": 500}
        await gateway.ship([first, again])
        await collect()
        assert store.count_events() == 1
        assert metrics.REPEATED_RECEIPTS._value.get() == before + 1

    async def test_which_of_two_request_ids_stays_does_not_depend_on_their_order(
        self, gateway, collect, store, noon, make_gateway
    ):
        from control_plane.usage.requests.history import event_search

        kept = []
        for order in (1, -1):
            (first,) = gateway.calls(1, account=f"acc_order{order}")
            lines = [first.line() | {"id": "a" * 32}, first.line() | {"id": "b" * 32, "st": 404}]
            for line in lines[::order]:
                await gateway.ship([line])
                await collect()
            page = await event_search(store, account_id=first.account, start=noon, end=noon + timedelta(hours=1))
            kept.append([event.request_id for event in page.items])
        assert kept[0] == kept[1]
        assert len(kept[0]) == 1

    async def test_a_call_nobody_signed_for_belongs_to_nobody(self, gateway, collect, store, noon):
        (made,) = gateway.calls(1)
        line = made.line() | {"ru": "", "ra": refusal_note(Outcome.UNKNOWN_KEY), "st": 401}
        forged = made.line() | {"ru": made.line()["ru"][:-2] + "xx", "ra": "", "id": "c" * 32}
        await gateway.ship([line, forged])
        await collect()
        assert store.count_events(account_id="acc_1") == 0
        assert store.count_events(account_id="") == 2

    async def test_a_caller_cannot_use_the_receipt_of_an_earlier_answer(self, gateway, collect, store, secret):
        (made,) = gateway.calls(1)
        answer = sign_receipt(made.receipt, place=Place.ANSWER, secret=secret)
        await gateway.ship([made.line() | {"ru": answer, "ra": ""}])
        await collect()
        assert store.count_events(account_id="acc_1") == 0

    @pytest.mark.parametrize("original_first", [True, False])
    async def test_a_leaked_receipt_on_a_route_without_our_plugins_changes_nothing(
        self, gateway, collect, store, noon, original_first
    ):
        from control_plane.usage.requests.history import event_search

        (made,) = gateway.calls(1)
        again = [made.line() | {"id": f"{n:032x}", "ra": "", "st": 500} for n in range(12)]
        lines = [made.line(), *again] if original_first else [*again, made.line()]
        await gateway.ship(lines)
        await collect()
        page = await event_search(store, account_id=made.account, start=noon, end=noon + timedelta(hours=1))
        assert [(event.status, event.flags) for event in page.items] == [(200, ())]


class TestCrashes:
    @pytest.mark.parametrize("crash_after", range(5))
    async def test_a_crash_between_any_two_steps_loses_and_doubles_nothing(
        self, crash_after: int, gateway, make_collector, collect, aggregate, store, sessions, redis
    ):
        await gateway.ship(gateway.calls(25))
        dying: Collector = make_collector()
        await dying.collect()  # makes the group

        async def die(_progress: Any) -> None:
            raise CrashError

        dying.steps = (*dying.steps[:crash_after], ("die", die), *dying.steps[crash_after:])
        with pytest.raises(CrashError):
            await dying.collect()
        await collect()
        await aggregate()
        assert store.count_events() == 25
        assert await waiting(redis) == 0
        assert (await redis.xpending(usage_stream(0), COLLECTOR_GROUP))["pending"] == 0
        assert await positions(sessions) == {"seg-1": gateway.position}
        assert int(await redis.hget(shipper_positions(0, "node_a"), "seg-1")) == gateway.position
        async with sessions() as session:
            assert await session.scalar(text("SELECT sum(calls) FROM usage_hourly")) == 25
            assert await session.scalar(text("SELECT count(*) FROM touched_hours")) == 0

    async def test_a_failing_store_is_tried_again_from_where_it_failed(
        self, gateway, make_collector, store, redis
    ):
        import asyncio

        await gateway.ship(gateway.calls(5))
        collector: Collector = make_collector()
        taken: list[str] = []
        failures = iter([True, True, False])

        def wrap(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
            async def wrapped(progress: Any) -> None:
                taken.append(name)
                if name == "commit" and next(failures, False):
                    raise OSError("the database is away")
                await step(progress)
                if name == "acknowledge":
                    stop.set()

            return wrapped

        stop = asyncio.Event()
        collector.steps = tuple((name, wrap(name, step)) for name, step in collector.steps)
        await asyncio.wait_for(collector.run(stop), 30)
        assert taken == ["store", "commit", "commit", "commit", "publish", "acknowledge"]
        assert store.count_events() == 5
        assert await waiting(redis) == 0

    async def test_what_redis_lost_is_shipped_again(self, gateway, collect, store, redis, sessions):
        await gateway.ship(gateway.calls(10))
        collector = await collect()
        committed = gateway.position
        await gateway.ship(gateway.calls(7))  # never collected
        await redis.flushall()
        await collector.collect()  # finds no group, publishes what is committed, makes the group
        assert int(await redis.hget(shipper_positions(0, "node_a"), "seg-1")) == committed
        gateway.position = committed
        await gateway.ship(gateway.calls(7))
        await collect()
        assert store.count_events() == 17
        assert await positions(sessions) == {"seg-1": gateway.position}

    async def test_a_batch_in_hand_when_redis_loses_everything_is_committed(
        self, gateway, make_collector, store, redis, sessions
    ):
        await gateway.ship(gateway.calls(6))
        collector: Collector = make_collector()
        await collector.read_batch(wait_seconds=0)  # makes the group
        batch = await collector.read_batch(wait_seconds=0)
        await redis.flushall()
        progress = Progress(batch, 0.0)
        for _, step in collector.steps:
            await step(progress)
        assert store.count_events() == 6
        assert await positions(sessions) == {"seg-1": gateway.position}
        assert await shipped_up_to(sessions) == 0  # what it claimed may not be collected

    async def test_redis_emptied_between_reading_and_committing_holds_nothing_up(
        self, gateway, make_collector, collect, store, redis, sessions, noon
    ):
        await gateway.ship(gateway.calls(4), shipped_up_to=noon)
        collector: Collector = make_collector()
        await collector.collect()
        batch = await collector.read_batch(wait_seconds=0)
        await redis.flushall()
        await collector._take_steps(Progress(batch, 0.0))
        assert store.count_events() == 4
        assert await positions(sessions) == {"seg-1": gateway.position}
        # entries before it may have been lost: what it says of the past is not believed
        assert await shipped_up_to(sessions) == 0
        await collect()
        assert store.count_events() == 4

    async def test_entries_of_a_dead_collector_are_taken_over(
        self, gateway, make_collector, collect, store, redis
    ):
        await gateway.ship(gateway.calls(4))
        dead: Collector = make_collector()
        await dead.read_batch(wait_seconds=0)
        batch = await dead.read_batch(wait_seconds=0)
        assert batch.line_count == 4
        await collect()
        assert store.count_events() == 4
        assert await waiting(redis) == 0

    async def test_entries_of_a_collector_that_works_are_left_to_it(self, gateway, make_collector, redis):
        await gateway.ship(gateway.calls(4))
        busy: Collector = make_collector()
        await busy.read_batch(wait_seconds=0)
        assert await busy.read_batch(wait_seconds=0)
        other: Collector = make_collector(claim_after_seconds=60.0)
        assert not await other.claim_batch()


class TestPositions:
    async def test_never_pass_a_gap(self, gateway, collect, sessions, redis):
        calls = gateway.calls(3)
        gateway.position = 1000  # [0, 1000) was shipped, but is lost
        await gateway.ship(calls)
        await collect()
        assert await positions(sessions) == {"seg-1": 0}
        async with sessions() as session:
            kept = (await session.execute(text("SELECT start_offset, end_offset FROM shipper_ranges"))).all()
        assert kept == [(1000, gateway.position)]
        await gateway.add(start=0, end=1000)
        await collect()
        assert await positions(sessions) == {"seg-1": gateway.position}
        async with sessions() as session:
            assert await session.scalar(text("SELECT count(*) FROM shipper_ranges")) == 0

    async def test_come_out_right_whichever_collector_reads_which_entry(
        self, gateway, make_collector, collect, sessions
    ):
        one: Collector = make_collector(entries_per_read=1, max_lines=1)
        two: Collector = make_collector(entries_per_read=1, max_lines=1)
        await one.collect()
        for _ in range(6):
            await gateway.ship(gateway.calls(2))
        batches = [await collector.read_batch(wait_seconds=0) for collector in (one, two, one, two, one, two)]
        for collector, batch in reversed(list(zip((one, two, one, two, one, two), batches, strict=True))):
            await collector._take_steps(Progress(batch, 0.0))
        assert await positions(sessions) == {"seg-1": gateway.position}
        async with sessions() as session:
            assert await session.scalar(text("SELECT count(*) FROM shipper_ranges")) == 0

    async def test_never_go_back(self, gateway, collect, sessions):
        await gateway.ship(gateway.calls(3))
        await collect()
        reached = gateway.position
        gateway.position = 0
        await gateway.ship(gateway.calls(1))
        await collect()
        assert await positions(sessions) == {"seg-1": reached}

    async def test_are_forgotten_long_after_the_segment_is_gone(self, gateway, collect, sessions, redis, noon):
        await gateway.ship(gateway.calls(3))
        await collect(now=noon)
        gateway.segment, gateway.position = "seg-2", 0
        await gateway.ship(gateway.calls(3))
        await collect(now=noon + timedelta(hours=25))
        assert await positions(sessions) == {"seg-2": gateway.position}
        assert set(await redis.hkeys(shipper_positions(0, "node_a"))) == {b"seg-2"}


class TestHeartbeats:
    async def test_tell_how_far_a_shipper_is(self, gateway, collect, sessions, noon):
        await gateway.ship(gateway.calls(1), shipped_up_to=noon)
        await gateway.heartbeat(noon + timedelta(seconds=5))
        await collect()
        assert await shipped_up_to(sessions) == to_ms(noon + timedelta(seconds=5))
        assert await positions(sessions) == {"seg-1": gateway.position}

    async def test_count_for_nothing_while_earlier_entries_are_not_committed(
        self, gateway, make_collector, collect, sessions, noon
    ):
        slow: Collector = make_collector(entries_per_read=1, max_lines=1)
        quick: Collector = make_collector()
        await slow.collect()
        await gateway.ship(gateway.calls(1))
        batch = await slow.read_batch(wait_seconds=0)
        assert batch.line_count == 1
        await gateway.heartbeat(noon)
        await quick.collect()
        assert await shipped_up_to(sessions) == 0
        await collect()
        await gateway.heartbeat(noon)
        await collect()
        assert await shipped_up_to(sessions) == to_ms(noon)

    async def test_count_for_nothing_while_a_segment_has_a_gap(self, gateway, collect, sessions, noon):
        gateway.position = 50
        await gateway.ship(gateway.calls(1))
        await gateway.heartbeat(noon)
        await collect()
        assert await shipped_up_to(sessions) == 0

    async def test_make_a_retired_shipper_live_again(self, gateway, collect, sessions, noon):
        async with sessions() as session, session.begin():
            session.add(Shipper(shipper_id="node_a", shipped_up_to_ms=0, last_seen_at=noon, retired_at=noon))
        await gateway.heartbeat(noon)
        await collect()
        async with sessions() as session:
            found = await session.get(Shipper, "node_a")
        assert found is not None
        assert found.retired_at is None


class TestPoison:
    async def test_unreadable_lines_are_kept_with_their_reason_and_stop_nothing(
        self, gateway, collect, store, sessions, redis
    ):
        good = [json.dumps(call.line()).encode() for call in gateway.calls(3)]
        bad = [
            b"{",
            b"\xff\xfe",
            b"[]",
            b'{"v":2,"id":"x","at":1}',
            b'{"v":1,"id":"","at":1}',
            b'{"v":1,"id":"x"}',
        ]
        await gateway.ship_bytes(b"\n".join([good[0], *bad, good[1], good[2]]))
        await collect()
        letters = store.dead_letters()
        assert store.count_events() == 3
        assert sorted(letter.number for letter in letters) == [1, 2, 3, 4, 5, 6]
        assert all(letter.reason and letter.segment == "seg-1" for letter in letters)
        assert await positions(sessions) == {"seg-1": gateway.position}
        assert await waiting(redis) == 0

    async def test_a_dead_letter_delivered_twice_is_one(self, gateway, collect, store):
        await gateway.ship_bytes(b"{nonsense")
        gateway.position = 0
        await gateway.ship_bytes(b"{nonsense")
        await collect()
        assert len(store.dead_letters()) == 1

    async def test_dead_letters_hold_no_keys(self, gateway, collect, store):
        from gateway_contract.api_keys import generate_api_key
        from gateway_contract.modes import Mode

        key = generate_api_key(Mode.LIVE)
        await gateway.ship_bytes(b'{"p": "/x?apikey=' + key.encode())
        await collect()
        (letter,) = store.dead_letters()
        assert key not in letter.text
        assert "/x?apikey=" in letter.text

    async def test_entries_nobody_can_read_are_kept_and_stop_nothing(self, gateway, collect, store, redis):
        await redis.xadd(usage_stream(0), {"shipper": "node_a"})
        await redis.xadd(usage_stream(0), {"shipper": b"\xff", "segment": "s"})
        await redis.xadd(usage_stream(0), {"shipper": "node_a", "segment": "s", "start": "1" * 5000})
        await gateway.ship(gateway.calls(2))
        await collect()
        assert store.count_events() == 2
        assert len(store.dead_letters()) == 3
        assert await waiting(redis) == 0

    async def test_a_time_that_cannot_be_is_set_aside(self, gateway, collect, store):
        (made,) = gateway.calls(1)
        await gateway.ship([made.line() | {"ru": "", "ra": "", "at": 12}, *gateway.calls(2)])
        await collect()
        assert store.count_events() == 2
        assert len(store.dead_letters()) == 1

    async def test_a_row_that_fits_no_column_does_not_hold_up_the_others(
        self, gateway, collect, store, attribution, monkeypatch
    ):
        whole = attribution.events

        def spoil(lines, **more):
            events = whole(lines, **more)
            statuses = list(events.columns["status"])
            statuses[3] = 70_000
            events.columns["status"] = statuses
            return events

        monkeypatch.setattr(attribution, "events", spoil)
        calls = gateway.calls(11)
        await gateway.ship(calls)
        await collect()
        assert store.count_events() == 10
        (letter,) = store.dead_letters()
        assert letter.reason.startswith("unstorable: ")
        assert "status" in letter.reason
        assert json.loads(letter.text)["id"] == calls[3].line()["id"]
