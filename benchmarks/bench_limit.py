"""The limit check: scripts a second with and without coalescing, what caps and calls in flight add to one, and
what one access event costs a worker.

In this process against a real Valkey beside it; Kong is a stand-in that answers at once. Prints a table, writes
JSON to benchmarks/results/limit.json.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import gevent
import redis
from gateway_kit import SECRET
from gateway_records import PRODUCT, account_record, key_record, write_records

from devstack.stores.valkey import EmbeddedValkey
from gateway_contract import api_keys, redis_names
from gateway_contract.records import Concurrency, MeterPrice, PriceStep, Quota, SpendCap

KEYS = 200
ROUNDS = 5
PLAIN = "plain"
# one price by the request and one by the token, each with a free part and two tiers
STEPS = (PriceStep(0, 0, 0), PriceStep(10**6, 0, 1500), PriceStep(10**8, 1500 * 10**8, 1000))
FORMS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "with a quota cap": {"quota": Quota(10**11, hard=False, cap_units=10**12)},
    "with a spend cap of two prices": {
        "quota": None,
        "spend_cap": SpendCap(
            10**12,
            "usd",
            usage_minor=10**12,
            prices=(MeterPrice("requests", STEPS), MeterPrice("tokens", STEPS)),
            reserves={"forecast": {"tokens": 1000}},
        ),
    },
    "with calls in flight": {"concurrency": Concurrency(10**9, 1000)},
}


@dataclass
class Result:
    """`cpu_us` of this process; `valkey_us` of Valkey, `ratio` of that to the plain caller's."""

    what: str
    per_second: float
    cpu_us: float
    valkey_us: float | None = None
    ratio: float | None = None


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
        line = f"{result.what:<58}{result.per_second:>10,.0f} /s{result.cpu_us:>9.1f} us CPU"
        if result.valkey_us is not None:
            line += f"{result.valkey_us:>9.1f} us of Valkey{result.ratio:>7.2f} x plain"
        print(line)
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
        timed("scripts, 1 greenlet (a batch for each)", seconds, 1, asking(worker.link, commands)),
        timed("scripts, 32 greenlets (coalesced)", seconds, 32, asking(worker.link, commands)),
        timed("access events, 1 greenlet", seconds, 1, lambda n: plugin.access(kongs[texts[n % KEYS]])),
        timed("access events, 32 greenlets", seconds, 32, lambda n: plugin.access(kongs[texts[n % KEYS]])),
    ]
    results += measure_forms(url, worker.link, seconds)
    refused = StandIn("km_live_nonsense")
    results.append(timed("access events refused without look-up", seconds, 1, lambda _: plugin.access(refused)))
    stop_worker()
    return results


def asking(link: Any, commands: list[bytes]) -> Callable[[int], Any]:
    return lambda n: link.ask_one(commands[n % KEYS], 0)


def measure_forms(url: str, link: Any, seconds: float) -> list[Result]:
    """Scripts of callers that differ in one limit, in turns, so that noise meets all of them."""
    with redis.Redis.from_url(url) as client:
        commands = {name: form_commands(client, number, form) for number, (name, form) in enumerate(FORMS.items())}
        rounds: dict[str, list[Result]] = {name: [] for name in FORMS}
        for _ in range(ROUNDS):
            for name, calls in commands.items():
                cpu, count = valkey_work(client)
                result = timed(name, seconds / ROUNDS, 32, asking(link, calls))
                cpu_after, count_after = valkey_work(client)
                result.valkey_us = (cpu_after - cpu) / (count_after - count) * 1e6
                rounds[name].append(result)
    best = {name: min(found, key=lambda result: result.valkey_us or 0.0) for name, found in rounds.items()}
    plain_us = best[PLAIN].valkey_us or 1.0
    return [
        replace(result, what=f"scripts, 32 greenlets, {name}", ratio=(result.valkey_us or 0.0) / plain_us)
        for name, result in best.items()
    ]


def form_commands(client: redis.Redis, number: int, form: dict[str, Any]) -> list[bytes]:
    """Encoded scripts of as many callers as there are keys, accounts of their own."""
    # imported here: the settings are read when the worker is made
    from kong_plugins.parts.limit_script import build_question

    commands = []
    for place in range(KEYS):
        account = account_record((number + 1) * 10**6 + place)
        key = key_record(place, account.id)
        client.hset(redis_names.account_versions(account.id), mapping={"account": 1, key.id: 1})
        question = build_question(
            key=key,
            account_version=1,
            grant=replace(account.products[PRODUCT], **form),
            product=PRODUCT,
            units=1,
            route_name="forecast",
        )
        commands.append(question.encode())
    return commands


def valkey_work(client: redis.Redis) -> tuple[float, int]:
    """Return the seconds of CPU that Valkey has used, and how many scripts it has run."""
    used, commands = client.info("cpu"), client.info("commandstats")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"]), commands["cmdstat_evalsha"]["calls"]


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
