"""The faults that a soak draws from, and what each may do to its ledger."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Flag, auto

from devstack.soak.cluster_causes import (
    cluster_connections_cut,
    cluster_scripts_flushed,
    node_emptied,
    node_killed,
    node_stopped,
)
from devstack.soak.fault_causes import (
    configuration_pushed,
    descriptors_used_up,
    disk_full,
    event_store_failing,
    held_down,
    killed,
    redis_connections_cut,
    redis_emptied,
    redis_out_of_memory,
    redis_password_changed,
    redis_read_only,
    redis_scripts_flushed,
    redis_slow,
    spool_missing,
    stopped,
    worker_killed,
    worker_stopped,
)
from devstack.stack import PLUGIN_SERVER, Stack
from devstack.stack_layout import RedisKind


class Effect(Flag):
    """What a fault may do to a ledger; everything else it must leave alone."""

    NONE = 0
    REDIS_AWAY = auto()  # decisions without Redis are due
    REDIS_EMPTIED = auto()  # windows begin anew, quotas from the rollups
    NO_LINES = auto()  # refusals leave no line
    LOG_PHASE_LOST = auto()  # km-usage-meter may miss calls that end now
    PROJECTION_LATE = auto()  # changes of keys reach Redis later


@dataclass(frozen=True, slots=True)
class Fault:
    """`seconds` is between which lengths it lasts."""

    name: str
    cause: Callable[[Stack], AbstractContextManager[None]]
    effect: Effect
    seconds: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """One fault that was caused: from just before to just after it was undone, wall-clock ms."""

    name: str
    effect: Effect
    began_ms: int
    ended_ms: int


AWAY, EMPTIED = Effect.REDIS_AWAY, Effect.REDIS_EMPTIED
LATE = Effect.PROJECTION_LATE
LOST = Effect.LOG_PHASE_LOST

ONE_SERVER: tuple[Fault, ...] = (
    Fault("redis killed", killed("valkey"), AWAY | EMPTIED | LATE),
    Fault("redis stopped", stopped("valkey"), AWAY | LATE, (0.5, 6)),
    Fault("redis slow", redis_slow, AWAY | LATE, (2, 6)),
    Fault("redis read-only", redis_read_only, AWAY | LATE, (1, 5)),
    Fault("redis out of memory", redis_out_of_memory, AWAY | LATE, (1, 5)),
    Fault("redis password changed", redis_password_changed, AWAY | LATE, (1, 5)),
    Fault("redis connections cut", redis_connections_cut, AWAY | LATE),
    Fault("redis emptied", redis_emptied, EMPTIED | LATE),
    Fault("redis scripts flushed", redis_scripts_flushed, Effect.NONE),
)
CLUSTER: tuple[Fault, ...] = (
    Fault("cluster node killed", node_killed, AWAY | LATE, (0, 3)),
    Fault("cluster node emptied", node_emptied, AWAY | EMPTIED | LATE),
    Fault("cluster node stopped", node_stopped, AWAY | LATE, (0.3, 1)),
    Fault("cluster connections cut", cluster_connections_cut, AWAY | LATE),
    Fault("cluster scripts flushed", cluster_scripts_flushed, Effect.NONE),
)
OTHERS: tuple[Fault, ...] = (
    Fault("plugin server killed", killed(PLUGIN_SERVER), LOST),
    Fault("plugin worker killed", worker_killed, LOST),
    Fault("plugin worker stopped", worker_stopped, LOST, (0.5, 3)),
    Fault("plugin server out of descriptors", descriptors_used_up, LOST, (1, 4)),
    Fault("disk full", disk_full, Effect.NO_LINES | LOST, (1, 4)),
    Fault("spool missing", spool_missing, Effect.NO_LINES | LOST, (1, 3)),
    Fault("shipper killed", killed("shipper"), Effect.NONE),
    Fault("shipper stopped", stopped("shipper"), Effect.NONE, (1, 8)),
    Fault("control plane killed", killed("server"), LATE),
    Fault("control plane stopped", stopped("server"), LATE, (1, 6)),
    Fault("control plane down for long", held_down("server"), LATE, (6, 15)),
    Fault("PostgreSQL killed", killed("postgres"), LATE),
    Fault("event store failing", event_store_failing, LATE, (1, 5)),
    Fault("gateway killed", killed("gateway"), LOST),
    Fault("gateway stopped", stopped("gateway"), Effect.NONE, (0.5, 3)),
    Fault("upstream killed", killed("upstream"), Effect.NONE),
    Fault("configuration pushed", configuration_pushed, Effect.NONE),
)
FAULTS = ONE_SERVER + OTHERS
CLUSTER_FAULTS = CLUSTER + OTHERS


def faults_of(redis: RedisKind) -> tuple[Fault, ...]:
    """Return what a soak draws from: on one server of Redis, or on a cluster."""
    return CLUSTER_FAULTS if redis == "cluster" else FAULTS
