"""News of changed records: a subscription to the projector's invalidations.

Only a speed-up: a message that is lost delays nothing but the moment at which a changed record is read, since
the limit script compares versions. While Redis is away, a subscription that was alive until then also says that
records read before have not changed.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
import hiredis

from gateway_contract.invalidations import KEY_KIND, parse_invalidation
from gateway_contract.redis_names import INVALIDATIONS_CHANNEL
from kong_plugins.parts.record_cache import RecordCache
from kong_plugins.parts.redis_connection import RedisConnection, RedisLinkError, encode_command
from kong_plugins.parts.redis_endpoint import RedisEndpoint
from kong_plugins.server import metrics

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 0.5
PING_EVERY_SECONDS = 1.0
REPLY_TIMEOUT_SECONDS = 0.5
RETRY_SECONDS = 0.5

_SUBSCRIBE = encode_command("SUBSCRIBE", INVALIDATIONS_CHANNEL)
_PING = encode_command("PING")
_messages = metrics.counter("km_gateway_invalidations_total", help_text="changed records heard of")
_subscriptions = metrics.counter("km_gateway_subscriptions_total", help_text="subscriptions to invalidations")


class News:
    """Listens in a greenlet of its own from `start` to `stop`."""

    def __init__(
        self,
        some_endpoint: Callable[[], RedisEndpoint],
        cache: RecordCache,
        *,
        losses: Callable[[], int] = int,
    ) -> None:
        """`some_endpoint` is asked at each attempt; any node of a cluster hears what is published at another.

        When `losses` grows, somebody else lost the server at that address: then listening begins anew, since
        another server may be there, and the old one is told nothing any more.
        """
        self._some_endpoint = some_endpoint
        self._losses = losses
        self._cache = cache
        self._listener: Any = None
        self._since: float | None = None
        self._alive_at = 0.0

    def start(self) -> None:
        if self._listener is None:
            self._listener = gevent.spawn(self._listen)

    def stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.kill(block=False)

    def confirm(self, confirmed_at: float) -> float:
        """Return the last moment at which a record confirmed then is known to have been the newest one.

        Both in monotonic seconds.
        """
        if self._since is not None and confirmed_at >= self._since:
            return max(confirmed_at, self._alive_at)
        return confirmed_at

    def _listen(self) -> None:
        while True:
            try:
                self._hear(
                    RedisConnection(
                        self._some_endpoint(),
                        connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS,
                        reply_timeout_seconds=REPLY_TIMEOUT_SECONDS,
                    )
                )
            except RedisLinkError as error:
                log.debug("no news from Redis: %s", error)
            gevent.sleep(RETRY_SECONDS)

    def _hear(self, connection: RedisConnection) -> None:
        """Listen until the connection breaks or falls silent."""
        try:
            answer = connection.exchange(_SUBSCRIBE, 1)[0]
            if isinstance(answer, hiredis.ReplyError):
                log.warning("no news from Redis: %s", answer)
                return
            _subscriptions.inc()
            self._since = self._alive_at = time.monotonic()
            self._cache.forget_unknown()
            losses = self._losses()
            pinged_at: float | None = None
            while losses == self._losses():
                if time.monotonic() - (pinged_at or self._alive_at) >= PING_EVERY_SECONDS:
                    if pinged_at is not None:
                        return  # a ping stayed without an answer
                    pinged_at = time.monotonic()
                    connection.send(_PING)
                reply = connection.next_reply()
                if not isinstance(reply, list) or len(reply) < 2:  # noqa: PLR2004 - silence
                    continue
                if reply[0] == b"message":
                    self._note(reply[2])
                elif pinged_at is not None:
                    # all that was published before this ping has been heard by now
                    self._alive_at, pinged_at = pinged_at, None
        finally:
            connection.close()

    def _note(self, payload: bytes) -> None:
        message = parse_invalidation(payload.decode(errors="replace"))
        if message is None:
            return
        _messages.inc()
        kind, name = message
        if kind == KEY_KIND:
            self._cache.forget_key(name)
        else:
            self._cache.forget_account(name)
