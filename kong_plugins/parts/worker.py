"""What one worker process of the plugin server holds for all its plugins: settings, link, cache, gate, signer.

Made after fork, by the server's `start_worker` hook or at the first call, and one for each thread where a server
runs events in threads: gevent's sockets and locks belong to a thread.
"""

import os
from typing import Any

from gevent.monkey import get_original

from kong_plugins.parts.answers import Answers
from kong_plugins.parts.gate import Gate
from kong_plugins.parts.key_flood import KeyFlood
from kong_plugins.parts.languages import load_messages
from kong_plugins.parts.limit_script import LOAD_COMMAND
from kong_plugins.parts.limiter import Limiter
from kong_plugins.parts.news import News
from kong_plugins.parts.receipt_signer import ReceiptSigner
from kong_plugins.parts.record_cache import RecordCache
from kong_plugins.parts.redis_clock import RedisClock
from kong_plugins.parts.redis_link import RedisLink
from kong_plugins.parts.redis_links import open_link
from kong_plugins.parts.settings import GatewaySettings, read_settings
from kong_plugins.parts.spool_guard import SpoolGuard


class Worker:
    """Everything the phases need. `start` listens for news and watches the spool; it works without too."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.link = open_link(settings.redis, setup=(LOAD_COMMAND,))
        self.cache = RecordCache(self.link, capacity=settings.cached_keys)
        self.news = News(self.link.some_endpoint, self.cache, losses=lambda: self.link.losses)
        self.clock = RedisClock()
        self.signer = ReceiptSigner(settings.secrets[0])
        self.spool = SpoolGuard(
            settings.spool_dir,
            reserve_bytes=settings.spool_reserve_bytes,
            serves_all_the_same=settings.serves_without_spool,
        )
        self.limiter = Limiter(
            link=self.link,
            clock=self.clock,
            stale_max_seconds=settings.stale_max_seconds,
            # that one node of a cluster is there says nothing of records on another that is not
            news_confirm=self.news.confirm if isinstance(self.link, RedisLink) else float,
            spool=self.spool,
        )
        self.gate = Gate(
            cache=self.cache,
            clock=self.clock,
            limiter=self.limiter,
            flood=KeyFlood(settings.cold_reads_per_second),
        )
        self.answers = Answers(load_messages(settings.messages_dir))

    def start(self) -> None:
        """Harmless when started already."""
        self.news.start()
        self.spool.start()

    def stop(self) -> None:
        """End greenlets and connections; harmless when stopped already."""
        self.spool.stop()
        self.news.stop()
        self.link.close()


# never gevent's: under monkey patching each greenlet would have a worker of its own
_new_slot = get_original("threading", "local")
_slot: Any = _new_slot()


def current_worker() -> Worker:
    """Return this process's and thread's worker, made at the first call.

    Raises:
        SettingsError: the environment lacks what a gateway needs.
    """
    try:
        worker: Worker = _slot.worker
    except AttributeError:
        worker = _slot.worker = Worker(read_settings())
    return worker


def start_worker() -> None:
    """Make the worker and start listening: the plugin server's hook after fork.

    Raises:
        SettingsError: the environment lacks what a gateway needs.
    """
    current_worker().start()


def stop_worker() -> None:
    """The plugin server's hook at a graceful end."""
    worker = _slot.__dict__.pop("worker", None)
    if worker is not None:
        worker.stop()


def _forget_parent() -> None:
    global _slot  # noqa: PLW0603 - a child must not sign with its parent's emitter, nor share its sockets
    _slot = _new_slot()


os.register_at_fork(after_in_child=_forget_parent)
