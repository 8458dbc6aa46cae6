"""The faults: each a context manager that causes one on entering and has undone it when it is left.

All of them block and so run in a thread. None needs root: a disk that is full is played by limits on the size of
files, lost descriptors by limits on their number.
"""

import contextlib
import os
import random
import resource
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.request import urlopen

import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack.children import ChildFailedError
from devstack.stack import PLUGIN_SERVER, Stack
from devstack.supervisor import wait_until

# workers look at the spool every second; then answers that were under way must have ended
SPOOL_NOTICED_SECONDS, LONGEST_ANSWER_SECONDS = 30.0, 1.0
NOWHERE = 1  # a port on which nobody listens


def redis_client(stack: Stack) -> redis.Redis:
    """Return a client that tries nothing twice."""
    return redis.Redis.from_url(stack.redis_url, retry=Retry(NoBackoff(), 0), socket_timeout=5)


def _command(client: redis.Redis, *parts: str | int) -> None:
    send: Callable[..., object] = client.execute_command
    send(*parts)


def killed(name: str) -> Callable[[Stack], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def cause(stack: Stack) -> Iterator[None]:
        stack.kill(name)
        yield
        stack.wait_ready(name)

    return cause


def held_down(name: str) -> Callable[[Stack], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def cause(stack: Stack) -> Iterator[None]:
        stack.hold(name)
        try:
            yield
        finally:
            stack.release(name)
            stack.wait_ready(name)

    return cause


def stopped(name: str) -> Callable[[Stack], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def cause(stack: Stack) -> Iterator[None]:
        stack.send_signal(name, signal.SIGSTOP)
        try:
            yield
        finally:
            stack.send_signal(name, signal.SIGCONT)

    return cause


@contextlib.contextmanager
def redis_slow(stack: Stack) -> Iterator[None]:
    """Most of the time no answer comes for a quarter of a second."""
    done = threading.Event()

    def pause_again_and_again() -> None:
        with contextlib.suppress(redis.RedisError), redis_client(stack) as client:
            while not done.wait(0.3):
                _command(client, "CLIENT", "PAUSE", 250, "ALL")

    thread = threading.Thread(target=pause_again_and_again, name="slow-redis")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def redis_read_only(stack: Stack) -> Iterator[None]:
    """What clients of the old primary see in a failover: it has become a replica."""
    with redis_client(stack) as client:
        _command(client, "REPLICAOF", "127.0.0.1", NOWHERE)
        try:
            yield
        finally:
            _command(client, "REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def redis_out_of_memory(stack: Stack) -> Iterator[None]:
    with redis_client(stack) as client:
        client.config_set("maxmemory", "1")
        try:
            yield
        finally:
            client.config_set("maxmemory", "0")


@contextlib.contextmanager
def redis_password_changed(stack: Stack) -> Iterator[None]:
    password = secrets.token_hex(8)
    with redis_client(stack) as client:
        client.config_set("requirepass", password)
        _command(client, "AUTH", password)
        cut_connections(client)
        try:
            yield
        finally:
            client.config_set("requirepass", "")


@contextlib.contextmanager
def redis_connections_cut(stack: Stack) -> Iterator[None]:
    with redis_client(stack) as client:
        cut_connections(client)
    yield


def cut_connections(client: redis.Redis) -> None:
    for kind in ("normal", "pubsub"):
        _command(client, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


@contextlib.contextmanager
def redis_emptied(stack: Stack) -> Iterator[None]:
    with redis_client(stack) as client:
        client.flushall()
    yield


@contextlib.contextmanager
def redis_scripts_flushed(stack: Stack) -> Iterator[None]:
    with redis_client(stack) as client:
        client.script_flush()
    yield


@contextlib.contextmanager
def worker_killed(stack: Stack) -> Iterator[None]:
    _signal_one_worker(stack, signal.SIGKILL)
    yield
    stack.wait_ready(PLUGIN_SERVER)


@contextlib.contextmanager
def worker_stopped(stack: Stack) -> Iterator[None]:
    """The master takes it for wedged and replaces it."""
    pid = _signal_one_worker(stack, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        stack.wait_ready(PLUGIN_SERVER)


def _signal_one_worker(stack: Stack, number: int) -> int:
    pid = random.choice(stack.plugin_worker_pids())  # noqa: S311 - any of them will do
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return pid


@contextlib.contextmanager
def descriptors_used_up(stack: Stack) -> Iterator[None]:
    """No worker of the plugin server gets one more descriptor than it has."""
    with contextlib.ExitStack() as leaving:
        for pid in stack.plugin_worker_pids():
            leaving.enter_context(_limited(pid, resource.RLIMIT_NOFILE, _descriptors_of(pid)))
        yield


def _descriptors_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 3


@contextlib.contextmanager
def disk_full(stack: Stack) -> Iterator[None]:
    """The reserve of the gateway's disk is reached first, as on a disk that fills up; then no write works."""
    with spool_mistrusted(stack), no_more_bytes(gateway_processes(stack)):
        yield


@contextlib.contextmanager
def spool_missing(stack: Stack) -> Iterator[None]:
    away = stack.spool_dir.with_name("spool-away")
    with spool_mistrusted(stack):
        stack.spool_dir.rename(away)
        try:
            yield
        finally:
            away.rename(stack.spool_dir)


@contextlib.contextmanager
def spool_mistrusted(stack: Stack) -> Iterator[None]:
    """Lines can still be written, but the workers' probes of the spool fail: the reserve is reached."""
    probes = [stack.spool_dir / f"probe-{pid}.tmp" for pid in stack.plugin_worker_pids()]
    for probe in probes:
        probe.unlink(missing_ok=True)
        probe.mkdir()
    try:
        wait_until(
            lambda: read_gauge(stack, "km_gateway_spool_trouble") >= len(probes),
            timeout_seconds=SPOOL_NOTICED_SECONDS,
            what="that all workers see the spool in trouble",
        )
        time.sleep(LONGEST_ANSWER_SECONDS)
        yield
    finally:
        for probe in probes:
            probe.rmdir()


def read_gauge(stack: Stack, name: str) -> float:
    """Return one of the plugin server's metrics, over all its series; 0 while it does not answer."""
    with (
        contextlib.suppress(OSError),
        urlopen(f"http://127.0.0.1:{stack.ports.plugin_server}/metrics", timeout=5) as answer,
    ):
        lines: list[str] = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))
    return 0.0


def gateway_processes(stack: Stack) -> list[int]:
    """Return who writes to the gateway's disk: Kong, the plugin server and its workers."""
    return [stack.pid("gateway"), stack.pid(PLUGIN_SERVER), *stack.plugin_worker_pids()]


@contextlib.contextmanager
def no_more_bytes(pids: list[int]) -> Iterator[None]:
    """No file of these processes may grow: every write beyond its end fails, as on a full disk."""
    with contextlib.ExitStack() as leaving:
        for pid in pids:
            leaving.enter_context(_limited(pid, resource.RLIMIT_FSIZE, 0))
        yield


@contextlib.contextmanager
def _limited(pid: int, what: int, limit: int) -> Iterator[None]:
    """Lower one soft limit of a running process, and raise it again where the process still runs."""
    with contextlib.suppress(ProcessLookupError):
        before = resource.prlimit(pid, what)
        resource.prlimit(pid, what, (limit, before[1]))
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, what, before)
        return
    yield


@contextlib.contextmanager
def event_store_failing(stack: Stack) -> Iterator[None]:
    """The control plane gets no more descriptors, so the embedded event store cannot open a file.

    Not by `no_more_bytes`: the embedded store says "inserted" when a write fails, and spoils its table. A reserve
    of free disk keeps it from coming to that.
    """
    pid = stack.pid("server")
    with _limited(pid, resource.RLIMIT_NOFILE, _descriptors_of(pid)):
        yield


@contextlib.contextmanager
def configuration_pushed(stack: Stack) -> Iterator[None]:
    """The operator's kong.yml changes in a field that harms nobody, and is pushed."""
    path = stack.data_dir / "kong.yml"
    document = yaml.safe_load(path.read_text())
    for service in document["services"]:
        service["read_timeout"] = 60_000 + (service.get("read_timeout", 60_000) + 1) % 1_000
    replacement = path.with_suffix(".new")
    replacement.write_text(yaml.safe_dump(document, sort_keys=False, width=float("inf")))
    replacement.replace(path)
    with contextlib.suppress(ChildFailedError):
        stack.km("gateway", "push")
    yield
