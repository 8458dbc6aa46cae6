"""Sends sealed hours to http sinks: at least once, in batches, from where the last one was taken."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.outgoing import OutgoingClient, OutgoingError
from control_plane.usage.corrections.queries import voided_events
from control_plane.usage.daily.rows import hours_kept_from
from control_plane.usage.requests.model import NO_FILTERS, EventSpan
from control_plane.usage.sinks.cloud_events import BATCH_TYPE, batches, cloud_event, cloud_hour
from control_plane.usage.sinks.model import SinkContent, SinksConfig, is_taken, may_be_taken_later, pause_after
from control_plane.usage.sinks.queue import LostHourError, SinkQueue, WaitingHour
from control_plane.usage.store import EventStore
from control_plane.usage.store.event_reads import Place, search_events
from control_plane.usage.tables import UsageHour, UsageHourly

SENT = Counter("km_sink_records_total", "Events and hours that sinks have taken.", ["sink"])
REFUSED = Counter("km_sink_refused_hours_total", "Hours that a sink will not take as they are.", ["sink"])
PUT_OFF = Counter("km_sink_failures_total", "Attempts that are made again later.", ["sink"])
HOUR = timedelta(hours=1)

log = structlog.get_logger(__name__)


class _PutOffError(Exception):
    """Nothing more goes to this sink for now."""

    def __init__(self, told: str, asked_seconds: float | None = None) -> None:
        super().__init__(told)
        self.asked_seconds = asked_seconds


class _RefusedError(Exception):
    """The other side will never take this as it is."""


class _TurnOverError(Exception):
    """Others come first now; the hour goes on later, where it was."""


class _Turn:
    """How long a sink is served before all are looked at again; over at once where the process stops."""

    def __init__(self, stop: asyncio.Event, seconds: float) -> None:
        self._stop = stop
        self._until = time.monotonic() + seconds

    def is_over(self) -> bool:
        return self._stop.is_set() or time.monotonic() >= self._until


class Sender:
    """Sends what waits. `store` is a client of its own."""

    def __init__(
        self,
        *,
        config: SinksConfig,
        sessions: async_sessionmaker[AsyncSession],
        store: EventStore,
        client: OutgoingClient,
        clock: Callable[[], datetime],
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._store = store
        self._client = client
        self._clock = clock
        # a client of the store does one thing at a time
        self._reading = asyncio.Lock()
        self.queue = SinkQueue(sessions, lease=config.lease)

    async def work(self, stop: asyncio.Event) -> int:
        """Send up to a claim's worth of hours to each sink and return how many were claimed.

        Sinks are served side by side, each for one turn: what a failure stops, or is not done by then, goes back.
        """
        hours = await self.queue.claim(self._clock(), limit=self._config.hours_per_claim)
        left = list(hours)
        turn = _Turn(stop, self._config.turn_seconds)
        by_sink = [list(found) for _, found in groupby(hours, key=lambda hour: hour.sink_id)]
        try:
            # all end before the first failure is told: none is left reading in a store that is closed then
            ends = await asyncio.gather(
                *(self._serve(found, left, turn) for found in by_sink), return_exceptions=True
            )
            for end in ends:
                if isinstance(end, BaseException):
                    raise end
        finally:
            await self.queue.give_back(left)
        return len(hours)

    async def _serve(self, hours: Sequence[WaitingHour], left: list[WaitingHour], turn: "_Turn") -> None:
        """Send hours to their sink, and strike those off `left` that are done with."""
        for hour in hours:
            if hour is not hours[0] and turn.is_over():
                return
            try:
                await self._send(hour, turn)
            except LostHourError:
                log.info("an hour was sealed anew while it was sent", sink=hour.sink_name, hour=str(hour.hour))
            except _PutOffError as error:
                await self._put_off(hour, error)
                return
            except _TurnOverError:
                return
            left.remove(hour)

    async def _send(self, hour: WaitingHour, turn: "_Turn") -> None:
        try:
            await self._send_pages(hour, turn)
        except _RefusedError as error:
            REFUSED.labels(hour.sink_name).inc()
            log.warning("a sink refuses an hour", sink=hour.sink_name, hour=str(hour.hour), error=str(error))
            await self.queue.refuse(hour, str(error), now=self._clock())

    async def _send_pages(self, hour: WaitingHour, turn: "_Turn") -> None:
        if hour.content is SinkContent.ROLLUPS:
            await self._post(hour, [await self._rollup(hour)])
            await self.queue.finish(hour, records=1, now=self._clock())
            return
        async for page in self._pages(hour):
            records = await self._post(hour, page.envelopes)
            if page.is_last:
                await self.queue.finish(hour, records=records, now=self._clock())
            else:
                await self.queue.advance(hour, after=page.end, records=records, now=self._clock())
                if turn.is_over():
                    raise _TurnOverError

    async def _post(self, hour: WaitingHour, envelopes: list[dict[str, Any]]) -> int:
        """Post all of it and return how many were taken."""
        for count, body in self._batches(envelopes):
            try:
                answer = await self._client.post(hour.url, content=body, headers=self._headers(hour))
            except OutgoingError as error:
                raise _PutOffError(str(error)) from error
            if may_be_taken_later(answer.status):
                raise _PutOffError(f"answered with {answer.status}", answer.retry_after_seconds)
            if not is_taken(answer.status):
                raise _RefusedError(f"answered with {answer.status}: {answer.text[:200]}")
            SENT.labels(hour.sink_name).inc(count)
        return len(envelopes)

    def _batches(self, envelopes: list[dict[str, Any]]) -> Iterator[tuple[int, bytes]]:
        return batches(envelopes, most_events=self._config.batch_events, most_bytes=self._config.batch_bytes)

    def _headers(self, hour: WaitingHour) -> dict[str, str]:
        headers = {"Content-Type": BATCH_TYPE, "User-Agent": "kong-monetize"}
        authorization = self._config.authorizations.get(hour.sink_name)
        return headers | ({"Authorization": authorization} if authorization else {})

    async def _pages(self, hour: WaitingHour) -> AsyncIterator["_Page"]:
        """Yield an hour's events a batch at a time, the last page also where it is empty."""
        span = EventSpan(account_id=hour.account_id, start=hour.hour, end=hour.hour + HOUR)
        most, after = self._config.batch_events, hour.after
        while True:
            async with self._reading:
                events = await asyncio.to_thread(
                    search_events, self._store, span, NO_FILTERS, newest_first=False, after=after, limit=most
                )
            async with self._sessions() as session:
                voided = await voided_events(
                    session, account_id=hour.account_id, event_ids=[event.event_id for event in events]
                )
            envelopes = [
                cloud_event(event, revision=hour.revision, voided=event.event_id in voided) for event in events
            ]
            if events:
                last = events[-1]
                after = Place(last.occurred_at_ms, last.event_id, last.account_id)
            if len(events) < most or after is None:
                yield _Page(envelopes, None)
                return
            yield _Page(envelopes, after)

    async def _rollup(self, hour: WaitingHour) -> dict[str, Any]:
        async with self._sessions() as session:
            # rows that are of another revision by now are sent once that is sealed
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            stands = await session.scalar(
                select(UsageHour.revision).where(
                    UsageHour.account_id == hour.account_id, UsageHour.hour == hour.hour
                )
            )
            if stands != hour.revision:
                raise LostHourError(f"{hour.account_id} {hour.hour.isoformat()}")
            kept_from = await hours_kept_from(session)
            if kept_from is not None and hour.hour < kept_from:
                # without its rows it would say that nothing was used, and take the place of what did
                raise _RefusedError("not sent: this hour is kept only as part of its day")
            statement = select(UsageHourly.__table__).where(
                UsageHourly.account_id == hour.account_id, UsageHourly.hour == hour.hour
            )
            found = (await session.execute(statement)).mappings().all()
        rows = [
            {name: value for name, value in row.items() if name not in {"account_id", "hour"}} for row in found
        ]
        return cloud_hour(hour.account_id, hour.hour, revision=hour.revision, rows=rows)

    async def _put_off(self, hour: WaitingHour, error: _PutOffError) -> None:
        PUT_OFF.labels(hour.sink_name).inc()
        attempts = await self.queue.attempts(hour.sink_id) + 1
        now = self._clock()
        until = now + pause_after(attempts, asked_seconds=error.asked_seconds)
        log.warning("a sink cannot be reached", sink=hour.sink_name, error=str(error), until=str(until))
        await self.queue.put_off(hour.sink_id, str(error), until=until, now=now)


class _Page:
    def __init__(self, envelopes: list[dict[str, Any]], end: Place | None) -> None:
        self.envelopes = envelopes
        self._end = end

    @property
    def is_last(self) -> bool:
        return self._end is None

    @property
    def end(self) -> Place:
        assert self._end is not None  # noqa: S101 - asked of pages that are not the last
        return self._end
