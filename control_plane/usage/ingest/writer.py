"""Group commit: events of requests that are under way at once are accepted and stored together.

For each group: accept it in PostgreSQL (`claims`), bring it into the event store and raise its hours' marks
(`delivery`), answer. Once PostgreSQL has it, it is accepted, whatever becomes of this process or the store: the
answer is "accepted" even if the store is away then, new requests are refused until the store is back, and the
events follow. Before that nothing is kept of it, and the answer is "try again".
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import utc_now
from control_plane.foundation.errors import KmError
from control_plane.foundation.rounds import Pauses
from control_plane.usage.collect.endpoints import EndpointNames
from control_plane.usage.ingest import metrics
from control_plane.usage.ingest.claims import Claimed, claim, forget_old_ids
from control_plane.usage.ingest.delivery import deliver, undelivered
from control_plane.usage.ingest.model import IDS_KEPT, ReportedEvent, Verdict
from control_plane.usage.ingest.payload import UnknownPayloadError
from control_plane.usage.retention import MINIMUM_DAYS
from control_plane.usage.store import EventStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """A group ends at `group_events`, `group_bytes` or after `group_seconds`.

    Of more than `waiting_events` or `waiting_bytes` none are taken in.
    A batch of another process is taken over after `take_over_seconds`; too early only costs work. Events are kept
    `event_retention_days` at least.
    """

    # judged in the event loop, which stands still meanwhile: a tenth of a second
    group_events: int = 5_000
    # while a group is on its way it takes several times its size
    group_bytes: int = 16 * 1024 * 1024
    group_seconds: float = 0.05
    waiting_events: int = 100_000
    waiting_bytes: int = 128 * 1024 * 1024
    commit_seconds: float = 20.0
    take_over_seconds: float = 30.0
    housekeeping_seconds: float = 5.0
    forget_seconds: float = 3600.0
    event_retention_days: int = MINIMUM_DAYS


class IngestUnavailableError(KmError):
    """Nothing of the request was kept: it can be sent again later."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, f"{message} Try again.")


@dataclass(slots=True)
class _Submission:
    events: Sequence[ReportedEvent]
    answer: asyncio.Future[list[Verdict]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    size: int = 0

    def __post_init__(self) -> None:
        self.size = sum(event.size for event in self.events)


class EventIngest:
    """One writer of a process. `run` must be running for `submit` to be answered."""

    def __init__(
        self,
        *,
        sessions: async_sessionmaker[AsyncSession],
        open_store: Callable[[asyncio.Event], Awaitable[EventStore | None]],
        config: IngestConfig | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`open_store` waits for the store, and returns None if the event is set before."""
        self._sessions = sessions
        self._open_store = open_store
        self._config = config or IngestConfig()
        self._clock = clock
        self._endpoints = EndpointNames()
        self._queue: deque[_Submission] = deque()
        self._waiting = self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._refusal: tuple[str, str] | None = ("ingest_unavailable", "The server is starting.")
        self._housekeeping_at = 0.0
        self._forget_at = 0.0

    async def submit(self, events: Sequence[ReportedEvent]) -> list[Verdict]:
        """Return the verdict on each event once it will outlive everything but the database.

        Raises:
            IngestUnavailableError: a store is away, or too much is waiting; nothing was kept.
        """
        if not events:
            return []
        if self._refusal is not None:
            raise IngestUnavailableError(*self._refusal)
        submission = _Submission(events)
        too_many = self._waiting + len(events) > self._config.waiting_events
        if self._waiting and (too_many or self._waiting_bytes + submission.size > self._config.waiting_bytes):
            raise IngestUnavailableError("ingest_busy", "Too many events are waiting.")
        self._queue.append(submission)
        self._wait(len(events), submission.size)
        self._arrived.set()
        return await submission.answer

    async def run(self, stop: asyncio.Event) -> None:
        """Write until `stop`, and what waits by then. Failures are counted, logged and tried again."""
        store = await self._open_store(stop)
        if store is None:
            return
        try:
            self._housekeeping_at = 0.0
            self._refusal = None
            await self._write_until(stop, store)
        finally:
            self._refuse_all("ingest_unavailable", "The server is stopping.")
            await asyncio.to_thread(store.close)

    async def _write_until(self, stop: asyncio.Event, store: EventStore) -> None:
        stopping = asyncio.create_task(stop.wait())
        pauses = Pauses(stop)
        try:
            while not stop.is_set():
                try:
                    await self._housekeep(store)
                    group = await self._next_group(stopping)
                    if group:
                        await self._write(group, store)
                    self._refusal = None
                    pauses.reset()
                except Exception as error:  # noqa: BLE001 - a store is away: it will be back
                    # what was accepted is looked for in the database, first of all
                    self._housekeeping_at = 0.0
                    self._refuse_all("ingest_unavailable", "A store cannot be reached.")
                    metrics.FAILURES.labels("deliver").inc()
                    log.warning("ingest failed and tries again", error=repr(error))
                    await pauses.wait()
            while group := self._take():
                await self._write(group, store)
        finally:
            stopping.cancel()

    async def _next_group(self, stopping: "asyncio.Task[bool]") -> list[_Submission]:
        """Wait for a first submission, until housekeeping is due at the longest, then gather more."""
        self._arrived.clear()
        if not self._queue:
            left = max(0.0, self._housekeeping_at - time.monotonic())
            arrived = asyncio.create_task(self._arrived.wait())
            await asyncio.wait({arrived, stopping}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            arrived.cancel()
        if self._queue and self._waiting < self._config.group_events:
            await asyncio.sleep(self._config.group_seconds)
        return self._take()

    def _take(self) -> list[_Submission]:
        group: list[_Submission] = []
        events = size = 0
        while self._queue:
            events += len(self._queue[0].events)
            size += self._queue[0].size
            if group and (events > self._config.group_events or size > self._config.group_bytes):
                break
            group.append(self._queue.popleft())
            self._wait(-len(group[-1].events), -group[-1].size)
        return group

    async def _write(self, group: list[_Submission], store: EventStore) -> None:
        """Write a group and answer its requests. Only the store's failures come out, after the answers."""
        started = time.monotonic()
        events = [event for submission in group for event in submission.events]
        try:
            claimed = await self._claim(events)
        except Exception as error:  # noqa: BLE001 - the callers are told to try again
            metrics.FAILURES.labels("accept").inc()
            log.warning("events could not be accepted", error=repr(error), events=len(events))
            _fail(group, "ingest_unavailable", "The database cannot be reached.")
            return
        try:
            if claimed.batch_id:
                await deliver(self._sessions, store, claimed.batch_id, now=self._clock())
        finally:
            _answer(group, claimed.verdicts)
            metrics.GROUP_SECONDS.observe(time.monotonic() - started)

    async def _claim(self, events: Sequence[ReportedEvent]) -> Claimed:
        async with asyncio.timeout(self._config.commit_seconds), self._sessions() as session, session.begin():
            return await claim(
                session,
                events,
                endpoints=self._endpoints,
                default_days=self._config.event_retention_days,
                now=self._clock(),
            )

    async def _housekeep(self, store: EventStore) -> None:
        """Bring into the store what was accepted and left behind: by us lately, by others a while ago."""
        if time.monotonic() < self._housekeeping_at:
            return
        ours = self._housekeeping_at == 0.0  # at the start, and after a failure
        now = self._clock()
        before = now + timedelta(days=1) if ours else now - timedelta(seconds=self._config.take_over_seconds)
        left = await undelivered(self._sessions, accepted_before=before)
        for batch_id in left:
            log.info("bringing events into the store that were accepted before", batch=batch_id)
            try:
                await deliver(self._sessions, store, batch_id, now=now)
            except UnknownPayloadError as error:
                metrics.FAILURES.labels("read").inc()
                log.warning("a batch waits for a newer version of this program", batch=batch_id, error=str(error))
        await self._forget(now)
        self._housekeeping_at = time.monotonic() + self._config.housekeeping_seconds

    async def _forget(self, now: datetime) -> None:
        if time.monotonic() < self._forget_at:
            return
        # not for long at a time, since events wait meanwhile; what is left then is taken up at the next look
        until = time.monotonic() + self._config.housekeeping_seconds / 10
        while time.monotonic() < until:
            async with self._sessions() as session, session.begin():
                forgotten = await forget_old_ids(session, before=now - IDS_KEPT)
            if not forgotten:
                self._forget_at = time.monotonic() + self._config.forget_seconds
                return

    def _wait(self, events: int, size: int) -> None:
        self._waiting += events
        self._waiting_bytes += size
        metrics.WAITING.set(self._waiting)

    def _refuse_all(self, code: str, message: str) -> None:
        self._refusal = (code, message)
        _fail(self._queue, code, message)
        self._queue.clear()
        self._wait(-self._waiting, -self._waiting_bytes)


def _answer(group: Sequence[_Submission], verdicts: Sequence[Verdict]) -> None:
    start = 0
    for submission in group:
        end = start + len(submission.events)
        if not submission.answer.done():  # else its caller has gone
            submission.answer.set_result(list(verdicts[start:end]))
        start = end


def _fail(group: Iterable[_Submission], code: str, message: str) -> None:
    for submission in group:
        if not submission.answer.done():
            submission.answer.set_exception(IngestUnavailableError(code, message))
