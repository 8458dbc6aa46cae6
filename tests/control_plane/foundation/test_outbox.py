"""News is handed to exactly one worker, never lost, and never seen before the change is there."""

import asyncio
from collections import Counter
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import select

from control_plane.foundation.outbox import (
    CHANNEL,
    OutboxRow,
    Topic,
    claim,
    enqueue,
    enqueue_many,
    finish,
    forget_done,
)

TOPICS = [Topic.KEY_CHANGED]


async def fill(sessions, now, count, topic=Topic.KEY_CHANGED):
    async with sessions() as session, session.begin():
        await enqueue_many(session, topic=topic, entity_ids=[f"key_{n:03}" for n in range(count)], now=now)


class TestClaim:
    async def test_two_workers_never_get_the_same_row(self, sessions, now):
        await fill(sessions, now, 10)
        async with sessions() as one, sessions() as other:
            first = await claim(one, topics=TOPICS, limit=6)
            second = await claim(other, topics=TOPICS, limit=6)
            assert [row.entity_id for row in first] == [f"key_{n:03}" for n in range(6)]
            assert [row.entity_id for row in second] == [f"key_{n:03}" for n in range(6, 10)]

    async def test_many_workers_do_each_row_once(self, sessions, now):
        await fill(sessions, now, 120)
        done: Counter[str] = Counter()

        async def work():
            while True:
                async with sessions() as session, session.begin():
                    rows = await claim(session, topics=TOPICS, limit=7)
                    await asyncio.sleep(0)
                    await finish(session, [row.id for row in rows], now)
                    done.update(row.entity_id for row in rows)
                if not rows:
                    return

        await asyncio.gather(*(work() for _ in range(4)))
        assert len(done) == 120
        assert set(done.values()) == {1}

    async def test_rows_of_a_worker_that_died_are_free_again(self, sessions, engine, now):
        await fill(sessions, now, 3)
        async with sessions() as dying:
            assert len(await claim(dying, topics=TOPICS, limit=10)) == 3
            connection = await dying.connection()
            raw = (await connection.get_raw_connection()).driver_connection
            await raw.close()  # the socket goes without a word, as when the process is killed
            await connection.invalidate()
        deadline = asyncio.get_running_loop().time() + 20
        rows = []
        while len(rows) < 3 and asyncio.get_running_loop().time() < deadline:
            async with sessions() as session:
                rows = await claim(session, topics=TOPICS, limit=10)
            await asyncio.sleep(0.05)
        assert len(rows) == 3

    async def test_a_row_that_commits_late_is_still_found(self, sessions, now):
        async with sessions() as slow, slow.begin():
            await enqueue(slow, topic=Topic.KEY_CHANGED, entity_id="key_slow", now=now)
            async with sessions() as quick, quick.begin():
                await enqueue(quick, topic=Topic.KEY_CHANGED, entity_id="key_quick", now=now)
            async with sessions() as worker, worker.begin():
                rows = await claim(worker, topics=TOPICS, limit=10)
                assert [row.entity_id for row in rows] == ["key_quick"]
                await finish(worker, [row.id for row in rows], now)
        async with sessions() as worker:
            assert [row.entity_id for row in await claim(worker, topics=TOPICS, limit=10)] == ["key_slow"]

    async def test_gives_only_the_topics_asked_for(self, sessions, now):
        await fill(sessions, now, 1, topic=Topic.ACCOUNT_CHANGED)
        async with sessions() as session:
            assert not await claim(session, topics=TOPICS, limit=10)
            assert len(await claim(session, topics=[Topic.ACCOUNT_CHANGED], limit=10)) == 1

    async def test_a_finished_row_is_not_given_again(self, sessions, now):
        await fill(sessions, now, 1)
        async with sessions() as session, session.begin():
            rows = await claim(session, topics=TOPICS, limit=10)
            await finish(session, [row.id for row in rows], now)
        async with sessions() as session:
            assert not await claim(session, topics=TOPICS, limit=10)
            assert (await session.get(OutboxRow, rows[0].id)).done_at == now


class TestEnqueue:
    async def test_wakes_listeners_when_it_commits_and_not_before(self, sessions, database_url, now):
        dsn = database_url.replace("postgresql+psycopg://", "postgresql://")
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as listener:
            await listener.execute(f"LISTEN {CHANNEL}")
            async with sessions() as session, session.begin():
                await enqueue(session, topic=Topic.KEY_CHANGED, entity_id="key_1", payload={"a": 1}, now=now)
                assert [note async for note in listener.notifies(timeout=0.2)] == []
            notes = [note async for note in listener.notifies(timeout=20, stop_after=1)]
        assert [(note.channel, note.payload) for note in notes] == [(CHANNEL, "key.changed")]

    async def test_a_rolled_back_change_leaves_no_news(self, sessions, now):
        async with sessions() as session:
            await enqueue(session, topic=Topic.KEY_CHANGED, entity_id="key_1", now=now)
            await session.rollback()
            assert not await claim(session, topics=TOPICS, limit=10)

    @pytest.mark.parametrize("count", [0, 1, 70_000])
    async def test_writes_any_number_of_rows_at_once(self, sessions, now, count):
        await fill(sessions, now, count)
        async with sessions() as session:
            rows = await claim(session, topics=TOPICS, limit=100_000)
            assert len({row.entity_id for row in rows}) == count


class TestForgetting:
    async def test_takes_the_oldest_that_are_done_and_none_that_wait(self, sessions, now):
        async with sessions() as session, session.begin():
            await enqueue_many(session, topic="t", entity_ids=[f"e{n}" for n in range(6)], now=now)
            rows = await claim(session, topics=["t"], limit=5)
            for day, row in enumerate(rows):
                await finish(session, [row.id], now + timedelta(days=day))
        forgotten = []
        for _ in range(3):
            async with sessions() as session, session.begin():
                forgotten.append(await forget_done(session, before=now + timedelta(days=3), limit=2))
        async with sessions() as session:
            left = [row.entity_id for row in await session.scalars(select(OutboxRow).order_by(OutboxRow.id))]
        assert forgotten == [2, 1, 0]
        assert left == ["e3", "e4", "e5"]
