"""A worker's link to a Redis Cluster: one link for each primary, chosen by the slot of the names in a command.

Where the slots are is asked of any node: at first, after a node said MOVED, when one is lost, and every minute. A
command that a node did not execute, because the slot is elsewhere, goes to where it said. Nothing else is ever
sent again.
"""

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gevent
import hiredis
from gevent.event import AsyncResult, Event

from gateway_contract.redis_names import SLOTS
from kong_plugins.parts.redis_connection import (
    RedisAwayError,
    RedisConnection,
    RedisLinkError,
    ReplyLostError,
    encode_command,
)
from kong_plugins.parts.redis_endpoint import ClusterEndpoint, RedisEndpoint
from kong_plugins.parts.redis_link import CONNECT_TIMEOUT_SECONDS, REPLY_TIMEOUT_SECONDS, RedisLink
from kong_plugins.parts.redis_writes import NodeWrites
from kong_plugins.server import metrics

log = logging.getLogger(__name__)

REFRESH_SECONDS = 60.0
# between two looks at the map while a node is away or has just been found elsewhere
PAUSE_SECONDS = 0.25
MOST_REDIRECTIONS = 5
UNKNOWN_HOST = "?"

_SLOTS_COMMAND = encode_command("CLUSTER", "SLOTS")
_ASKING = encode_command("ASKING")

_maps = metrics.counter("km_gateway_cluster_maps_total", help_text="readings of where the cluster's slots are")
_redirected = metrics.counter(
    "km_gateway_cluster_redirections_total", help_text="commands that a node sent to another one"
)


class ClusterLink:
    """For the greenlets of one thread. `setup` holds commands that each new connection to a primary runs first."""

    def __init__(
        self,
        endpoint: ClusterEndpoint,
        *,
        setup: tuple[bytes, ...] = (),
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        reply_timeout_seconds: float = REPLY_TIMEOUT_SECONDS,
    ) -> None:
        self._seeds = endpoint.seeds
        self._setup = setup
        self._connect_timeout_seconds = connect_timeout_seconds
        self._reply_timeout_seconds = reply_timeout_seconds
        self._links: dict[RedisEndpoint, RedisLink] = {}
        self._by_slot: list[RedisLink | None] = []
        self._leaving: list[RedisLink] = []
        self._keeper: Any = None
        self._first_map: AsyncResult | None = None
        self._look_again = Event()

    @property
    def is_away(self) -> bool:
        """Nobody has said yet where the slots are, or a primary could not be reached and is being looked for."""
        return not self._by_slot or any(link.is_away for link in self._links.values())

    @property
    def losses(self) -> int:
        """How many connections ended, of the primaries there are."""
        return sum(link.losses for link in self._links.values())

    def some_endpoint(self) -> RedisEndpoint:
        """Return a node that is likely to be there, another one each time."""
        return random.choice([*self._reachable(), *(() if self._links else self._seeds)] or self._seeds)  # noqa: S311 - spreads load, no secret

    def writes(self, slot: int) -> NodeWrites:
        """Return what was seen of the writing of the node that has this slot."""
        link = self._by_slot[slot] if self._by_slot else None
        return NodeWrites() if link is None else link.writes()

    def ask(self, commands: Sequence[bytes], slot: int) -> list[Any]:
        """Send encoded commands, all about names of one slot, and return their replies. None is executed twice.

        Raises:
            RedisAwayError: nobody could be reached who has this slot; at least the last command was not executed.
            ReplyLostError: sent, but no answer came; they may have run.
            RedisRefusedError: one of them was answered with an error (the first such error; others may have run).
        """
        link = self._link_of(slot)
        replies = self._exchange(link, b"".join(commands), len(commands))
        for number, reply in enumerate(replies):
            if isinstance(reply, hiredis.ReplyError):
                replies[number] = self._follow(link, commands[number], slot, reply)
        return replies

    def ask_one(self, command: bytes, slot: int) -> Any:
        """Send one encoded command and return its reply; the same errors as `ask`."""
        link = self._link_of(slot)
        reply = self._exchange(link, command, 1)[0]
        if isinstance(reply, hiredis.ReplyError):
            return self._follow(link, command, slot, reply)
        return reply

    def close(self) -> None:
        """End all connections; the link may be used again."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.kill(block=False)
        links = [*self._links.values(), *self._leaving]
        self._links, self._by_slot, self._leaving = {}, [], []
        for link in links:
            link.close()

    def _link_of(self, slot: int) -> RedisLink:
        if not self._by_slot:
            self._learn_first()
        link = self._by_slot[slot]
        if link is None:
            self._look_again.set()
            raise RedisAwayError("no node of the cluster has this slot")
        return link

    def _exchange(self, link: RedisLink, data: bytes, count: int) -> list[Any]:
        try:
            return link.exchange(data, count)
        except RedisLinkError:
            self._look_again.set()
            raise

    def _follow(self, link: RedisLink, command: bytes, slot: int, reply: hiredis.ReplyError) -> Any:
        """Return what another node answers, where the error says that it has the slot."""
        for _ in range(MOST_REDIRECTIONS):
            word, _, rest = str(reply).partition(" ")
            if word not in {"MOVED", "ASK"}:
                break
            _redirected.inc()
            endpoint = _endpoint_of(rest, asked=link.endpoint)
            if endpoint is None:
                break
            link = self._link_to(endpoint)
            if word == "MOVED":
                self._by_slot[slot] = link
                self._look_again.set()
                answer = self._exchange(link, command, 1)[0]
            else:
                answer = self._exchange(link, _ASKING + command, 2)[1]
            if not isinstance(answer, hiredis.ReplyError):
                return answer
            reply = answer
        if str(reply).startswith(("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")):
            self._look_again.set()
            raise RedisAwayError(str(reply))
        raise link.refusal(reply)

    def _learn_first(self) -> None:
        """Wait for the first attempt to read the map; while there is none, fail at once."""
        if self._keeper is None:
            attempt = self._first_map = AsyncResult()
            self._keeper = gevent.spawn(self._keep_map, attempt)
        if self._first_map is not None:
            self._first_map.get()
        if not self._by_slot:
            raise RedisAwayError("no node of the Redis Cluster could be reached")

    def _keep_map(self, first_attempt: AsyncResult) -> None:
        try:
            while True:
                self._look_again.clear()
                is_known = self._read_map()
                self._first_map = None
                first_attempt.set(None)
                gevent.sleep(PAUSE_SECONDS)
                if is_known and not self.is_away:
                    self._look_again.wait(REFRESH_SECONDS)
        finally:
            self._first_map = None
            first_attempt.set(None)

    def _read_map(self) -> bool:
        """Ask one node after the other until one says where the slots are."""
        reachable = self._reachable()
        others = {*self._links, *self._seeds}.difference(reachable)
        for endpoint in [*_shuffled(reachable), *_shuffled(others)]:
            try:
                found = self._ask_for_map(endpoint)
            except RedisLinkError as error:
                log.info("cannot learn where the cluster's slots are: %s", error)
            else:
                _maps.inc()
                self._use(found)
                return True
        log.warning("no node of the Redis Cluster says where its slots are")
        return False

    def _reachable(self) -> list[RedisEndpoint]:
        return [endpoint for endpoint, link in self._links.items() if not link.is_away]

    def _ask_for_map(self, endpoint: RedisEndpoint) -> list[tuple[int, int, RedisEndpoint]]:
        connection = RedisConnection(
            endpoint,
            connect_timeout_seconds=self._connect_timeout_seconds,
            reply_timeout_seconds=self._reply_timeout_seconds,
        )
        try:
            reply = connection.exchange(_SLOTS_COMMAND, 1)[0]
        finally:
            connection.close()
        if isinstance(reply, hiredis.ReplyError):
            raise RedisAwayError(f"Redis refuses us: {reply}")
        if not reply:
            raise RedisAwayError("the cluster has no slots yet")
        try:
            nodes = [(first, last, _node(primary, asked=endpoint)) for first, last, primary, *_ in reply]
        except (TypeError, ValueError) as error:
            raise ReplyLostError("the answer of CLUSTER SLOTS makes no sense") from error
        found = [(first, last, node) for first, last, node in nodes if node is not None]
        if not found:
            raise RedisAwayError("it does not know where any of the cluster's nodes is")
        return found

    def _use(self, ranges: Sequence[tuple[int, int, RedisEndpoint]]) -> None:
        by_slot: list[RedisLink | None] = [None] * SLOTS
        for first, last, endpoint in ranges:
            by_slot[first : last + 1] = [self._link_to(endpoint)] * (last + 1 - first)
        self._by_slot = by_slot
        current = {endpoint for _, _, endpoint in ranges}
        for endpoint in self._links.keys() - current:
            self._leaving.append(self._links.pop(endpoint))
        # a node that gave its slots away may still owe answers
        for link in [link for link in self._leaving if link.is_idle]:
            self._leaving.remove(link)
            link.close()

    def _link_to(self, endpoint: RedisEndpoint) -> RedisLink:
        link = self._links.get(endpoint)
        if link is None:
            link = self._links[endpoint] = RedisLink(
                endpoint,
                setup=self._setup,
                connect_timeout_seconds=self._connect_timeout_seconds,
                reply_timeout_seconds=self._reply_timeout_seconds,
            )
        return link


def _node(primary: Sequence[Any], *, asked: RedisEndpoint) -> RedisEndpoint | None:
    """Return where a node is."""
    return _endpoint((primary[0] or b"").decode(), int(primary[1]), asked)


def _endpoint_of(redirection: str, *, asked: RedisEndpoint) -> RedisEndpoint | None:
    """Return where `<slot> <host>:<port>` points to."""
    host, _, port = redirection.rpartition(" ")[2].rpartition(":")
    return _endpoint(host, int(port), asked)


def _endpoint(host: str, port: int, asked: RedisEndpoint) -> RedisEndpoint | None:
    """Without a host the node is where we asked; of `?` the one who was asked does not know where it is."""
    return None if host == UNKNOWN_HOST else replace(asked, host=host or asked.host, port=port)


def _shuffled(endpoints: Sequence[RedisEndpoint] | set[RedisEndpoint]) -> list[RedisEndpoint]:
    return random.sample(sorted(endpoints, key=lambda endpoint: (endpoint.host, endpoint.port)), len(endpoints))
