"""The faults of a Redis cluster: context managers like those of `fault_causes`."""

import contextlib
import random
import signal
from collections.abc import Iterator
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack.soak.fault_causes import cut_connections
from devstack.stack import Stack
from devstack.stores.valkey_cluster import EmbeddedValkeyCluster
from devstack.supervisor import wait_until
from gateway_contract.redis_names import SLOTS

# a replica takes over about twice the nodes' time-out (2 s) after its primary fell silent
TAKEN_OVER_SECONDS = 30.0


@contextlib.contextmanager
def node_killed(stack: Stack) -> Iterator[None]:
    """A primary dies, its replica takes over; it comes back as a replica."""
    cluster, slot = _cluster_of(stack), _any_slot()
    name = _primary(stack, slot)
    stack.hold(name)
    try:
        wait_until(
            lambda: f"valkey-{cluster.nodes.index(cluster.primary_of(slot))}" != name,
            timeout_seconds=TAKEN_OVER_SECONDS,
            what="that a replica takes over",
        )
        yield
    finally:
        stack.release(name)
        stack.wait_ready(name)
        cluster.wait_whole()


@contextlib.contextmanager
def node_emptied(stack: Stack) -> Iterator[None]:
    """A primary dies and is back, empty, before anybody missed it: what it held is lost, on its replica too."""
    name = _primary(stack, _any_slot())
    stack.kill(name)
    yield
    stack.wait_ready(name)
    _cluster_of(stack).wait_whole()


@contextlib.contextmanager
def node_stopped(stack: Stack) -> Iterator[None]:
    """To last less than the time after which its replica would take over."""
    name = _primary(stack, _any_slot())
    stack.send_signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        stack.send_signal(name, signal.SIGCONT)


@contextlib.contextmanager
def cluster_connections_cut(stack: Stack) -> Iterator[None]:
    for client in primaries(stack):
        cut_connections(client)
    yield


@contextlib.contextmanager
def cluster_scripts_flushed(stack: Stack) -> Iterator[None]:
    for client in primaries(stack):
        client.script_flush()
    yield


def primaries(stack: Stack) -> Iterator[redis.Redis]:
    """Yield a client of each server that holds data of its own: of the only one, or of a cluster's primaries."""
    urls = [node.url for node in stack.redis_cluster.nodes] if stack.redis_cluster else [stack.redis_url]
    for url in urls:
        with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=5) as client:
            role: Any = client.execute_command("ROLE")
            if role[0] == b"master":
                yield client


def _cluster_of(stack: Stack) -> EmbeddedValkeyCluster:
    if stack.redis_cluster is None:
        raise ValueError("this stack has no cluster")
    return stack.redis_cluster


def _any_slot() -> int:
    return random.randrange(SLOTS)  # noqa: S311 - any of them will do


def _primary(stack: Stack, slot: int) -> str:
    cluster = _cluster_of(stack)
    return f"valkey-{cluster.nodes.index(cluster.primary_of(slot))}"
