"""Limit scripts with coalescing and without it: scripts a second and how long a greenlet waits, by greenlets.

In this process, on one core, against a real Valkey on another. Coalescing is a link's: greenlets that ask at the
same time share a batch. Without it each greenlet has a link, and so a connection, of its own.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gevent
from gateway_kit import SECRET, answer_headers, headers_frame, write_json
from gateway_records import PRODUCT, write_records

from devstack.stores.valkey import EmbeddedValkey
from gateway_contract import api_keys

GREENLETS = (1, 4, 16, 64)
KEYS = 200


@dataclass
class Row:
    greenlets: int
    coalesced: bool
    scripts_per_second: float
    cpu_us_per_script: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one measurement")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kmb") as directory:
        valkey = EmbeddedValkey(Path(directory))
        valkey.start()
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(valkey.pid, {cores[-1]})
        os.sched_setaffinity(0, {cores[0]})
        try:
            rows = measure(valkey.url, options.seconds)
        finally:
            os.sched_setaffinity(0, cores)
            valkey.stop()
    print(f"{'greenlets':>9}{'coalesced':>11}{'scripts/s':>11}{'CPU us':>9}{'p50 ms':>9}{'p99 ms':>9}")
    for row in rows:
        print(
            f"{row.greenlets:>9}{'yes' if row.coalesced else 'no':>11}{row.scripts_per_second:>11,.0f}"
            f"{row.cpu_us_per_script:>9.1f}{row.p50_ms:>9.2f}{row.p99_ms:>9.2f}"
        )
    by = {(row.greenlets, row.coalesced): row for row in rows}
    most = GREENLETS[-1]
    rate_ratio = by[most, True].scripts_per_second / by[most, False].scripts_per_second
    cpu_ratio = by[most, False].cpu_us_per_script / by[most, True].cpu_us_per_script
    print(
        f"{most} greenlets: {rate_ratio:.1f} times the scripts/s, {cpu_ratio:.1f} times the scripts per CPU second"
    )
    values = {"rows": [asdict(row) for row in rows], "rate_ratio": rate_ratio, "cpu_ratio": cpu_ratio}
    write_json("coalescing", values, options.json)


def measure(url: str, seconds: float) -> list[Row]:
    os.environ.update({"KM_REDIS_URL": url, "KM_GATEWAY_SECRET": SECRET})
    # imported here: the settings are read when the worker is made
    from kong_plugins.parts.redis_link import RedisLink
    from kong_plugins.parts.worker import current_worker, start_worker, stop_worker

    start_worker()
    worker = current_worker()
    commands = limit_commands(url)
    rows = []
    for count in GREENLETS:
        apart = [RedisLink(worker.link.endpoint) for _ in range(count)]
        for coalesced, links in ((True, [worker.link] * count), (False, apart)):
            rows.append(run(commands, [link.ask_one for link in links], coalesced=coalesced, seconds=seconds))
        for link in apart:
            link.close()
    stop_worker()
    return rows


def limit_commands(url: str) -> list[bytes]:
    """Return the limit script's command of each of many callers, as their access events send it."""
    from kong_plugins.parts.worker import current_worker
    from kong_plugins.plugins.km_monetize import Plugin
    from kong_plugins.server.pdk import Kong

    texts = write_records(url, KEYS)
    plugin = Plugin({"api_product": PRODUCT})
    for text in texts:
        plugin.access(Kong(Answering(headers_frame({"apikey": text}))))
    known = [current_worker().cache.knows(api_keys.hash_api_key(text)) for text in texts]
    return [next(iter(one.callers.values())).command for one in known]


class Answering:
    """Kong's side of the `kong` object: these headers, nil for the rest."""

    def __init__(self, headers: bytes) -> None:
        self._answer = answer_headers(headers)

    def call(self, method: Any, _argument: bytes) -> bytes:
        return self._answer(method.name.encode())[4:]


def run(commands: list[bytes], askers: list[Callable[[bytes], Any]], *, coalesced: bool, seconds: float) -> Row:
    waits: list[float] = []
    for ask in askers:
        ask(commands[0])  # the connection is there when the clock starts
    end = time.perf_counter() + seconds

    def work(number: int, ask: Callable[[bytes], Any]) -> None:
        asked_at = time.perf_counter()
        while asked_at < end:
            ask(commands[number % len(commands)])
            now = time.perf_counter()
            waits.append((now - asked_at) * 1000)
            number, asked_at = number + len(askers), now

    began, cpu = time.perf_counter(), time.process_time()
    gevent.joinall([gevent.spawn(work, *one) for one in enumerate(askers)], raise_error=True)
    passed, cpu = time.perf_counter() - began, time.process_time() - cpu
    waits.sort()
    return Row(
        greenlets=len(askers),
        coalesced=coalesced,
        scripts_per_second=len(waits) / passed,
        cpu_us_per_script=cpu / len(waits) * 1e6,
        p50_ms=waits[len(waits) // 2],
        p99_ms=waits[len(waits) * 99 // 100],
    )


if __name__ == "__main__":
    main()
