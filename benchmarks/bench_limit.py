"""The limit check: scripts a second with and without coalescing, and what one access event costs a worker.

In this process against a real Valkey beside it; Kong is a stand-in that answers at once. Prints a table, writes
JSON to benchmarks/results/limit.json.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gevent
from gateway_kit import SECRET
from gateway_records import PRODUCT, write_records

from devstack.stores.valkey import EmbeddedValkey
from gateway_contract import api_keys

KEYS = 200


@dataclass
class Result:
    what: str
    per_second: float
    cpu_us: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "limit.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kmb") as directory:
        valkey = EmbeddedValkey(Path(directory))
        valkey.start()
        try:
            results = measure(valkey.url, options.seconds)
        finally:
            valkey.stop()
    for result in results:
        print(f"{result.what:<58}{result.per_second:>10,.0f} /s{result.cpu_us:>9.1f} us CPU")
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))


def measure(url: str, seconds: float) -> list[Result]:
    os.environ["KM_REDIS_URL"], os.environ["KM_GATEWAY_SECRET"] = url, SECRET
    # imported here: the settings are read when the worker is made
    from kong_plugins.parts.worker import current_worker, start_worker, stop_worker
    from kong_plugins.plugins.km_monetize import Plugin

    start_worker()
    worker = current_worker()
    texts = write_records(url, KEYS)
    plugin = Plugin({"api_product": PRODUCT})
    kongs = {text: StandIn(text) for text in texts}
    for text in texts:
        plugin.access(kongs[text])
    commands = [
        next(iter(worker.cache.knows(api_keys.hash_api_key(text)).callers.values())).command for text in texts
    ]
    results = [
        timed(
            "scripts, 1 greenlet (a batch for each)", seconds, 1, lambda n: worker.link.ask_one(commands[n % KEYS])
        ),
        timed("scripts, 32 greenlets (coalesced)", seconds, 32, lambda n: worker.link.ask_one(commands[n % KEYS])),
        timed("access events, 1 greenlet", seconds, 1, lambda n: plugin.access(kongs[texts[n % KEYS]])),
        timed("access events, 32 greenlets", seconds, 32, lambda n: plugin.access(kongs[texts[n % KEYS]])),
    ]
    refused = StandIn("km_live_nonsense")
    results.append(timed("access events refused without look-up", seconds, 1, lambda _: plugin.access(refused)))
    stop_worker()
    return results


def timed(what: str, seconds: float, greenlets: int, step: Callable[[int], Any]) -> Result:
    done = 0
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        nonlocal done
        while time.monotonic() < end:
            for _ in range(10):
                step(number)
                number += greenlets
            done += 10

    began, cpu = time.monotonic(), time.process_time()
    gevent.joinall([gevent.spawn(work, number) for number in range(greenlets)], raise_error=True)
    return Result(what, done / (time.monotonic() - began), (time.process_time() - cpu) / done * 1e6)


class StandIn:
    """Answers the PDK calls of one request at once."""

    def __init__(self, text: str) -> None:
        self._headers = {
            "host": "api.example.com",
            "user-agent": "python-requests/2.32.0",
            "accept": "*/*",
            "accept-encoding": "gzip, deflate",
            "connection": "keep-alive",
            "apikey": text,
            "content-type": "application/json",
            "x-forwarded-for": "203.0.113.9",
        }
        self.request = self.client = self.service = self.response = self

    def get_headers(self, _maximum: int) -> dict[str, str]:
        return self._headers

    def authenticate(self, _consumer: Any, _credential: Any) -> None: ...

    def set_headers(self, _headers: dict[str, str]) -> None: ...

    def exit(self, _status: int, _body: bytes, _headers: dict[str, str]) -> None: ...


if __name__ == "__main__":
    main()
