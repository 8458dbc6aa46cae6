"""A worker's link to Redis: what greenlets ask at the same time travels in one batch.

The first to ask leads: it sends whatever is queued, reads all the replies, hands them out, and passes the lead
on to the next in the queue. A command that may have run is never sent again.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import gevent
import hiredis
from gevent.hub import Waiter

from kong_plugins.parts.redis_connection import (
    RedisAwayError,
    RedisConnection,
    RedisLinkError,
    RedisRefusedError,
    ReplyLostError,
)
from kong_plugins.parts.redis_endpoint import RedisEndpoint
from kong_plugins.server import metrics

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 0.5
REPLY_TIMEOUT_SECONDS = 1.0
FIRST_RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 1.0
IDLE_SECONDS = 0.05
# Redis is there, but this node of it cannot serve us (any more): connect anew, perhaps to another one
UNFIT_PREFIXES = ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "UNBLOCKED")

_batches = metrics.counter("km_gateway_redis_batches_total", help_text="batches of commands sent to Redis")
_commands = metrics.counter("km_gateway_redis_commands_total", help_text="commands sent to Redis")
_lost = metrics.counter("km_gateway_redis_replies_lost_total", help_text="commands sent whose answer never came")
_away = metrics.counter("km_gateway_redis_away_total", help_text="requests to Redis refused since it was away")


class _Asking:
    """What one greenlet has asked and is waiting for."""

    __slots__ = ("count", "data", "leads", "result", "waiter")

    def __init__(self, data: bytes, count: int) -> None:
        self.data = data
        self.count = count
        self.leads = False
        self.result: list[Any] | RedisLinkError | None = None
        self.waiter: Any = None


class RedisLink:
    """For the greenlets of one thread."""

    def __init__(
        self,
        endpoint: RedisEndpoint,
        *,
        setup: tuple[bytes, ...] = (),
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        reply_timeout_seconds: float = REPLY_TIMEOUT_SECONDS,
    ) -> None:
        self.endpoint = endpoint
        self._setup = setup
        self._connect_timeout_seconds = connect_timeout_seconds
        self._reply_timeout_seconds = reply_timeout_seconds
        self._connection: RedisConnection | None = None
        self._used_at = 0.0
        self._queue: list[_Asking] = []
        self._led = False
        self._finder: Any = None

    @property
    def is_away(self) -> bool:
        """Redis could not be reached and is being looked for."""
        return self._finder is not None

    def ask(self, commands: Sequence[bytes]) -> list[Any]:
        """Send encoded commands and return their replies. Never sent twice.

        Raises:
            RedisAwayError: Redis cannot be reached; nothing was sent.
            ReplyLostError: sent, but no answer came; they may have run.
            RedisRefusedError: one of them was answered with an error (the first such error; others may have run).
        """
        replies = self._exchange(_Asking(b"".join(commands), len(commands)))
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise self._refusal(reply)
        return replies

    def ask_one(self, command: bytes) -> Any:
        """Send one encoded command and return its reply; the same errors as `ask`."""
        reply = self._exchange(_Asking(command, 1))[0]
        if isinstance(reply, hiredis.ReplyError):
            raise self._refusal(reply)
        return reply

    def close(self) -> None:
        """End the connection and the search for Redis; the link may be used again."""
        finder, self._finder = self._finder, None
        if finder is not None:
            finder.kill(block=False)
        self._drop_connection()

    def _exchange(self, asking: _Asking) -> list[Any]:
        if self._finder is not None:
            _away.inc()
            raise RedisAwayError("Redis is away")
        self._queue.append(asking)
        if self._led:
            self._follow(asking)
        else:
            self._led = asking.leads = True
        if asking.leads:
            self._lead()
        result = asking.result
        if isinstance(result, RedisLinkError):
            raise result.with_traceback(None)
        return result or []

    def _follow(self, asking: _Asking) -> None:
        asking.waiter = Waiter()
        try:
            asking.waiter.get()
        except BaseException:
            # this greenlet is being ended from outside; what it asked may be on its way already
            if asking in self._queue:
                self._queue.remove(asking)
            if asking.leads:
                self._hand_over()
            raise

    def _lead(self) -> None:
        batch, self._queue = self._queue, []
        lost: RedisLinkError = ReplyLostError("interrupted while waiting for Redis")
        done = 0
        try:
            connection = self._ready_connection()
            data, count = _join(batch)
            _batches.inc()
            _commands.inc(count)
            replies = connection.exchange(data, count)
            self._used_at = time.monotonic()
            for asking in batch:
                asking.result = replies[done : done + asking.count]
                done += asking.count
        except RedisAwayError as error:
            lost = error
            self._search()
        except ReplyLostError as error:
            lost = error
            _lost.inc(sum(asking.count for asking in batch))
            self._search()
        finally:
            if not done:
                self._drop_connection()
            self._give_out(batch, lost)
            self._hand_over()

    def _give_out(self, batch: list[_Asking], lost: RedisLinkError) -> None:
        for asking in batch:
            if asking.result is None:
                asking.result = lost
            if asking.waiter is not None and not asking.leads:
                gevent.get_hub().loop.run_callback(asking.waiter.switch, None)

    def _hand_over(self) -> None:
        """Let the next in the queue lead, or fail the queue where Redis turned out to be away."""
        if self._finder is not None:
            failed, self._queue = self._queue, []
            self._led = False
            self._give_out(failed, RedisAwayError("Redis is away"))
        elif self._queue:
            following = self._queue[0]
            following.leads = True
            gevent.get_hub().loop.run_callback(following.waiter.switch, None)
        else:
            self._led = False

    def _ready_connection(self) -> RedisConnection:
        connection = self._connection
        if connection is not None and time.monotonic() - self._used_at > IDLE_SECONDS and connection.is_stale():
            self._drop_connection()
            connection = None
        if connection is None:
            connection = self._connection = self._connect()
        return connection

    def _connect(self) -> RedisConnection:
        return RedisConnection(
            self.endpoint,
            connect_timeout_seconds=self._connect_timeout_seconds,
            reply_timeout_seconds=self._reply_timeout_seconds,
            setup=self._setup,
        )

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _search(self) -> None:
        """Look for Redis in the background; until it is found every request is refused at once."""
        if self._finder is None:
            self._finder = gevent.spawn(self._find_redis)

    def _find_redis(self) -> None:
        pause = FIRST_RETRY_SECONDS
        log.warning("Redis is away; looking for it")
        while True:
            try:
                found = self._connect()
                break
            except RedisLinkError as error:
                log.debug("Redis is still away: %s", error)
                gevent.sleep(pause)
                pause = min(pause * 2, LONGEST_RETRY_SECONDS)
        self._connection, self._used_at, self._finder = found, time.monotonic(), None
        log.warning("Redis is back")

    def _refusal(self, reply: hiredis.ReplyError) -> RedisLinkError:
        text = str(reply)
        if text.startswith(UNFIT_PREFIXES):
            self._drop_connection()
        return RedisRefusedError(text)


def _join(batch: list[_Asking]) -> tuple[bytes, int]:
    if len(batch) == 1:
        return batch[0].data, batch[0].count
    return b"".join([asking.data for asking in batch]), sum([asking.count for asking in batch])
