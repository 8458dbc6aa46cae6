"""Workers outlive every failure, and stop when they are told to."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter

from control_plane.foundation import rounds
from control_plane.foundation.rounds import Wake, repeat


@pytest.fixture
def failures() -> Counter:
    return Counter("test_failures", "Failed rounds.", registry=CollectorRegistry())


class TestRepeat:
    async def test_no_failure_ends_it(self, failures):
        stop, rounds = asyncio.Event(), []

        async def fails():
            rounds.append(len(rounds))
            if len(rounds) == 3:
                stop.set()
            raise RuntimeError("again")

        await asyncio.wait_for(repeat("test", fails, stop=stop, failures=failures), 30)
        assert rounds == [0, 1, 2]
        assert [one.value for one in failures.collect()[0].samples if one.name.endswith("_total")] == [3]

    async def test_stop_ends_a_long_pause(self, failures):
        stop = asyncio.Event()

        async def done():
            return 3600.0

        task = asyncio.create_task(repeat("test", done, stop=stop, failures=failures))
        await asyncio.sleep(0.05)
        stop.set()
        await asyncio.wait_for(task, 30)

    async def test_a_wake_between_rounds_is_not_lost(self, failures):
        stop, wake, rounds = asyncio.Event(), Wake(), []

        async def one_round():
            rounds.append(1)
            if len(rounds) == 1:
                wake.set()
            else:
                stop.set()
            return 3600.0

        await asyncio.wait_for(repeat("test", one_round, stop=stop, failures=failures, wake=wake), 30)
        assert len(rounds) == 2

    async def test_goes_on_at_once_while_there_is_more_to_do(self, failures):
        stop, rounds = asyncio.Event(), []

        async def one_round():
            rounds.append(1)
            await asyncio.sleep(0)
            if len(rounds) == 100:
                stop.set()
            return 0

        await asyncio.wait_for(repeat("test", one_round, stop=stop, failures=failures), 30)
        assert len(rounds) == 100

    async def test_stop_ends_the_pause_after_a_failure(self, failures, monkeypatch):
        monkeypatch.setattr(rounds, "FIRST_PAUSE_SECONDS", 3600.0)
        stop = asyncio.Event()

        async def fails():
            raise RuntimeError("away")

        task = asyncio.create_task(repeat("test", fails, stop=stop, failures=failures))
        await asyncio.sleep(0.05)
        stop.set()
        await asyncio.wait_for(task, 30)
