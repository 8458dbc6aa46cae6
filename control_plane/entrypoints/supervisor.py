"""Workers side by side in one event loop: one that fails is logged and started again, and readiness says so."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from prometheus_client import Counter, Gauge

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
# a worker that lasted this long starts with the first pause again
HEALTHY_AFTER_SECONDS = 60.0

RESTARTS = Counter("km_worker_restarts_total", "Workers started again after they failed.", ["worker"])
RUNNING = Gauge("km_worker_running", "1 while the worker runs, 0 while it waits to be started again.", ["worker"])

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """`run` works until the event is set, then returns soon; returning before counts as a failure."""

    name: str
    run: Callable[[asyncio.Event], Awaitable[None]]


class WorkerEndedError(Exception):
    """A worker returned though nobody asked it to stop."""


class Supervisor:
    """Runs workers until `stop`."""

    def __init__(self, workers: list[Worker], *, first_pause_seconds: float = FIRST_PAUSE_SECONDS) -> None:
        self._workers = workers
        self._first_pause_seconds = first_pause_seconds
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._problems: dict[str, str | None] = {worker.name: "not started" for worker in workers}

    @property
    def names(self) -> list[str]:
        return list(self._problems)

    def problem(self, name: str) -> str | None:
        """Return what is wrong with a worker in words, None while it runs."""
        return self._problems[name]

    def start(self) -> None:
        """Start all workers as tasks of the running loop."""
        self._tasks = [
            asyncio.create_task(self._keep_running(worker), name=worker.name) for worker in self._workers
        ]

    async def stop(self, *, grace_seconds: float) -> None:
        """Ask all workers to stop; those that have not returned after the grace are cancelled and named."""
        self._stopping.set()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=grace_seconds)
        for task in late:
            await log.aerror("worker_cancelled", worker=task.get_name(), grace_seconds=grace_seconds)
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_running(self, worker: Worker) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = asyncio.get_running_loop().time()
            self._see(worker, None)
            try:
                await self._run_once(worker)
            except Exception as error:  # noqa: BLE001 - whatever it was, the worker is started again
                lasted = asyncio.get_running_loop().time() - started
                failures = 1 if lasted >= HEALTHY_AFTER_SECONDS else failures + 1
                RESTARTS.labels(worker.name).inc()
                pause_seconds = self._pause_seconds(failures)
                self._see(worker, f"failed {failures} times, starts again")
                await log.aerror("worker_failed", worker=worker.name, exc_info=error, pause_seconds=pause_seconds)
                await self._wait(pause_seconds)
        self._see(worker, "stopped")

    async def _run_once(self, worker: Worker) -> None:
        await worker.run(self._stopping)
        if not self._stopping.is_set():
            raise WorkerEndedError(worker.name)

    def _see(self, worker: Worker, problem: str | None) -> None:
        self._problems[worker.name] = problem
        RUNNING.labels(worker.name).set(problem is None)

    def _pause_seconds(self, failures: int) -> float:
        longest = min(LONGEST_PAUSE_SECONDS, self._first_pause_seconds * 2.0 ** min(failures - 1, 10))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return
