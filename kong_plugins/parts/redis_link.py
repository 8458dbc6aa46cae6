"""A worker's link to Redis: what greenlets ask at the same time travels in one batch, on one connection.

Whoever asks puts its commands into a queue and waits. Once all greenlets that could run have run, gevent's loop
sends the queue in one piece; replies are handed out in the order in which they come. Sending and receiving are
the loop's own callbacks: no greenlet leads, so none can be ended in the middle, and nothing in here ever waits.
A command that may have run is never sent again.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import gevent
import hiredis
from gevent.event import AsyncResult
from gevent.hub import Waiter

from kong_plugins.parts.redis_connection import (
    RedisAwayError,
    RedisConnection,
    RedisLinkError,
    RedisRefusedError,
    ReplyLostError,
)
from kong_plugins.parts.redis_endpoint import RedisEndpoint
from kong_plugins.parts.redis_writes import NodeWrites
from kong_plugins.server import metrics

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 0.5
REPLY_TIMEOUT_SECONDS = 1.0
LOOK_AT_CLOCK_SECONDS = 0.1
FIRST_RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 1.0
# Redis is there, but this node of it cannot serve us (any more): connect anew, perhaps to another one
UNFIT_PREFIXES = ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "UNBLOCKED")
READ, WRITE = 1, 2  # libev's words

_batches = metrics.counter("km_gateway_redis_batches_total", help_text="batches of commands sent to Redis")
_commands = metrics.counter("km_gateway_redis_commands_total", help_text="commands sent to Redis")
_lost = metrics.counter("km_gateway_redis_replies_lost_total", help_text="commands sent whose answer never came")
_away = metrics.counter("km_gateway_redis_away_total", help_text="requests to Redis refused since it was away")


class _Asking:
    """What one greenlet has asked: `missing` replies are still to come."""

    __slots__ = ("data", "missing", "replies", "sent_at", "waiter")

    def __init__(self, data: bytes, count: int) -> None:
        self.data = data
        self.missing = count
        self.replies: list[Any] = []
        self.sent_at = 0.0
        self.waiter = Waiter()


class RedisLink:
    """For the greenlets of one thread. `setup` holds commands that each new connection runs first.

    `losses` counts connections that ended, whoever ended them.
    """

    def __init__(
        self,
        endpoint: RedisEndpoint,
        *,
        setup: tuple[bytes, ...] = (),
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        reply_timeout_seconds: float = REPLY_TIMEOUT_SECONDS,
    ) -> None:
        self.endpoint = endpoint
        self.losses = 0
        self._writes = NodeWrites()
        self._setup = setup
        self._connect_timeout_seconds = connect_timeout_seconds
        self._reply_timeout_seconds = reply_timeout_seconds
        self._connection: RedisConnection | None = None
        self._watchers: tuple[Any, ...] = ()
        self._queue: list[_Asking] = []
        self._waiting: deque[_Asking] = deque()
        self._unsent = b""
        self._flush_planned = False
        self._loop: Any = None
        self._finder: Any = None
        self._first_attempt: AsyncResult | None = None

    @property
    def is_away(self) -> bool:
        """Redis could not be reached and is being looked for."""
        return self._finder is not None

    @property
    def is_idle(self) -> bool:
        """Nobody waits for an answer."""
        return not (self._queue or self._waiting)

    def some_endpoint(self) -> RedisEndpoint:
        """Return where Redis is."""
        return self.endpoint

    def writes(self, _slot: int = 0) -> NodeWrites:
        """Return what was seen of its writing."""
        return self._writes

    def ask(self, commands: Sequence[bytes], _slot: int = 0) -> list[Any]:
        """Send encoded commands and return their replies. Never sent twice. Slots are a cluster's concern.

        Raises:
            RedisAwayError: Redis cannot be reached; nothing was sent.
            ReplyLostError: sent, but no answer came; they may have run.
            RedisRefusedError: one of them was answered with an error (the first such error; others may have run).
        """
        replies = self._exchange(_Asking(b"".join(commands), len(commands)))
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise self.refusal(reply)
        return replies

    def ask_one(self, command: bytes, _slot: int = 0) -> Any:
        """Send one encoded command and return its reply; the same errors as `ask`."""
        reply = self._exchange(_Asking(command, 1))[0]
        if isinstance(reply, hiredis.ReplyError):
            raise self.refusal(reply)
        return reply

    def exchange(self, data: bytes, count: int) -> list[Any]:
        """Send `count` encoded commands and return their replies, errors among them as values.

        Raises RedisAwayError and ReplyLostError as `ask` does.
        """
        return self._exchange(_Asking(data, count))

    def refusal(self, reply: hiredis.ReplyError) -> RedisLinkError:
        """Return what to raise for an error reply; a node that cannot serve us any more is left."""
        text = str(reply)
        if text.startswith(UNFIT_PREFIXES):
            self._drop(RedisAwayError(text))
        return RedisRefusedError(text)

    def close(self) -> None:
        """End the connection and the search for Redis; the link may be used again."""
        finder, self._finder = self._finder, None
        if finder is not None:
            finder.kill(block=False)
        self._drop(RedisAwayError("the link to Redis was closed"))

    def _exchange(self, asking: _Asking) -> list[Any]:
        if self._connection is None:
            self._connect_now()
        self._queue.append(asking)
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.run_callback(self._flush)
        # a greenlet that is ended while it waits leaves its commands to run; their replies go nowhere
        result = asking.waiter.get()
        if isinstance(result, RedisLinkError):
            raise result.with_traceback(None)
        replies: list[Any] = result
        return replies

    def _connect_now(self) -> None:
        """Wait for the first attempt to reach Redis; while it is away, fail at once."""
        if self._finder is None:
            self._search(awaited=True)
        attempt = self._first_attempt
        if attempt is not None:
            attempt.get()
        if self._connection is None:
            _away.inc()
            raise RedisAwayError("Redis is away")

    def _search(self, *, awaited: bool) -> None:
        """Look for Redis in the background; with `awaited` whoever asks waits for the first attempt."""
        attempt = AsyncResult()
        self._first_attempt = attempt if awaited else None
        self._finder = gevent.spawn(self._find_redis, attempt)

    def _find_redis(self, first_attempt: AsyncResult) -> None:
        """Look for Redis until it is found; every request is refused at once from the first failure on."""
        pause = FIRST_RETRY_SECONDS
        try:
            while True:
                try:
                    self._use(self._connect())
                    break
                except RedisLinkError as error:
                    if not first_attempt.ready():
                        log.warning("Redis is away: %s", error)
                    self._first_attempt = None
                    first_attempt.set(None)
                    gevent.sleep(pause)
                    pause = min(pause * 2, LONGEST_RETRY_SECONDS)
            if first_attempt.ready():
                log.warning("Redis is back")
        finally:
            self._first_attempt = self._finder = None
            first_attempt.set(None)

    def _connect(self) -> RedisConnection:
        return RedisConnection(
            self.endpoint,
            connect_timeout_seconds=self._connect_timeout_seconds,
            reply_timeout_seconds=self._reply_timeout_seconds,
            setup=self._setup,
        )

    def _use(self, connection: RedisConnection) -> None:
        descriptor = connection.stop_waiting()
        self._loop = loop = gevent.get_hub().loop
        readable, writable = loop.io(descriptor, READ), loop.io(descriptor, WRITE)
        clock = loop.timer(LOOK_AT_CLOCK_SECONDS, LOOK_AT_CLOCK_SECONDS, ref=False)
        self._watchers = (readable, writable, clock)
        self._connection = connection
        readable.start(self._receive)
        clock.start(self._look_at_clock)

    # What follows runs in gevent's loop and must not wait.

    def _flush(self) -> None:
        self._flush_planned = False
        connection = self._connection
        if connection is None:
            return
        batch, self._queue = self._queue, []
        if batch:
            now = time.monotonic()
            for asking in batch:
                asking.sent_at = now
                _commands.inc(asking.missing)
            _batches.inc()
            self._waiting.extend(batch)
            self._unsent += batch[0].data if len(batch) == 1 else b"".join([asking.data for asking in batch])
        try:
            sent = connection.send_some(self._unsent)
        except ReplyLostError as error:
            self._lose(error)
            return
        self._unsent = self._unsent[sent:]
        writable = self._watchers[1]
        if not self._unsent:
            writable.stop()
        elif not writable.active:
            writable.start(self._flush)

    def _receive(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            replies = connection.receive_some()
        except ReplyLostError as error:
            self._lose(error)
            return
        waiting = self._waiting
        for reply in replies:
            if not waiting:
                self._lose(ReplyLostError("Redis answered what nobody asked"))
                return
            asking = waiting[0]
            asking.replies.append(reply)
            asking.missing -= 1
            if not asking.missing:
                waiting.popleft()
                asking.waiter.switch(asking.replies)

    def _look_at_clock(self) -> None:
        if self._waiting and time.monotonic() - self._waiting[0].sent_at > self._reply_timeout_seconds:
            self._lose(ReplyLostError("Redis does not answer"), hangs=True)

    def _lose(self, error: ReplyLostError, *, hangs: bool = False) -> None:
        """The connection is of no use any more: nobody knows what ran. Nobody waits for a Redis that hangs."""
        _lost.inc(sum(asking.missing for asking in self._waiting))
        log.warning("lost the connection to Redis: %s", error)
        self._drop(error)
        if self._finder is None:
            self._search(awaited=not hangs)

    def _drop(self, error: RedisLinkError) -> None:
        """Close the connection; what was sent fails with `error`, what was not with RedisAwayError."""
        connection, self._connection = self._connection, None
        watchers, self._watchers = self._watchers, ()
        for watcher in watchers:
            watcher.stop()
            watcher.close()
        if connection is not None:
            self.losses += 1
            connection.close()
        sent, self._waiting = self._waiting, deque()
        queued, self._queue = self._queue, []
        self._unsent = b""
        for asking in sent:
            self._loop.run_callback(asking.waiter.switch, error)
        for asking in queued:
            self._loop.run_callback(asking.waiter.switch, RedisAwayError("Redis is away"))
