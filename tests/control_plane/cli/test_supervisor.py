"""Workers that fail."""

import asyncio

import pytest

from control_plane.entrypoints.supervisor import Supervisor, Worker


async def until(condition, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is polled has no event
            await asyncio.sleep(0.005)


@pytest.fixture
def runs() -> list[str]:
    return []


class TestSupervisor:
    async def test_starts_a_failed_worker_again_and_leaves_the_others_alone(self, runs: list[str]):
        async def flaky(stop: asyncio.Event) -> None:
            runs.append("flaky")
            if len(runs) < 3:
                raise ConnectionError("gone")
            await stop.wait()

        steady_starts: list[int] = []

        async def steady(stop: asyncio.Event) -> None:
            steady_starts.append(1)
            await stop.wait()

        supervisor = Supervisor([Worker("flaky", flaky), Worker("steady", steady)], first_pause_seconds=0.01)
        supervisor.start()
        await until(lambda: len(runs) == 3 and supervisor.problem("flaky") is None)
        assert supervisor.problem("steady") is None
        await supervisor.stop(grace_seconds=10)
        assert steady_starts == [1]

    async def test_says_what_is_wrong_while_it_waits(self):
        async def broken(_stop: asyncio.Event) -> None:
            raise ConnectionError("gone")

        supervisor = Supervisor([Worker("broken", broken)], first_pause_seconds=60)
        assert supervisor.problem("broken") == "not started"
        supervisor.start()
        await until(lambda: supervisor.problem("broken") == "failed 1 times, starts again")
        await supervisor.stop(grace_seconds=10)
        assert supervisor.problem("broken") == "stopped"

    async def test_a_worker_that_just_returns_is_started_again(self, runs: list[str]):
        async def brief(_stop: asyncio.Event) -> None:
            runs.append("brief")

        supervisor = Supervisor([Worker("brief", brief)], first_pause_seconds=0.001)
        supervisor.start()
        await until(lambda: len(runs) >= 3)
        await supervisor.stop(grace_seconds=10)

    async def test_cancels_what_does_not_stop(self):
        async def deaf(_stop: asyncio.Event) -> None:
            await asyncio.sleep(600)

        supervisor = Supervisor([Worker("deaf", deaf)])
        supervisor.start()
        await until(lambda: supervisor.problem("deaf") is None)
        async with asyncio.timeout(20):
            await supervisor.stop(grace_seconds=0.01)
