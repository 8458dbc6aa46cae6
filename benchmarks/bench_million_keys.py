"""One worker and a million keys of 100,000 accounts: events a second, cache hits, memory, commands to Redis.

Measured once the cache of the worker is full. Keys are drawn evenly, so that hardly one is in it, and by rank
with a long tail (the chance of rank r is about 1/r), as real callers come. The records are written straight
into a real Valkey.
"""

import argparse
import hashlib
import os
import random
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway_kit import HEADERS, NIL, SECRET, Events, OurServer, drive, headers_frame, print_rows, write_json
from gateway_records import PRODUCT, account_record, key_record

from devstack.stores.valkey import EmbeddedValkey
from gateway_contract import api_keys, redis_names
from gateway_contract.modes import Mode
from gateway_contract.records import encode_record
from kong_plugins.parts.settings import DEFAULT_CACHED_KEYS

TARGET_MB = 400
KEYS_OF_AN_ACCOUNT = 10
PLUGIN = "km-monetize"
PLACEHOLDER = "k" * api_keys.KEY_LENGTH
COMMANDS = "km_gateway_redis_commands_total"
EVENTS = "km_pluginserver_events_total"
READS = "km_gateway_record_reads_total"
FILL_SECONDS = 90.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each of the two rounds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kmb") as directory:
        valkey = EmbeddedValkey(Path(directory))
        valkey.start()
        try:
            values = measure(Path(directory), valkey, options.keys, options.seconds)
        finally:
            valkey.stop()
    write_json("million_keys", values, options.json)


def measure(directory: Path, valkey: EmbeddedValkey, count: int, seconds: float) -> dict[str, Any]:
    began = time.perf_counter()
    keys = write_keys(valkey.port, count)
    written = time.perf_counter() - began
    print(f"{count:,} keys written in {written:.0f} s")
    os.environ.update({"KM_REDIS_URL": valkey.url, "KM_GATEWAY_SECRET": SECRET})
    chance = random.Random(1)
    ways: dict[str, Callable[[], int]] = {
        "drawn by rank, 1/r": lambda: int(count ** chance.random()) - 1,
        "drawn evenly": lambda: chance.randrange(count),
    }
    rows: dict[str, Any] = {}
    results = []
    for what, draw in ways.items():
        with OurServer(directory, "--plugins", PLUGIN) as server:
            instance_id = server.start_instance(PLUGIN, {"api_product": PRODUCT})
            at_rest = worker_megabytes(server)
            make = events_of(server, instance_id, callers(keys, draw))
            fill_cache(server, make)
            before = counts(server)
            result = drive(what, server, make, seconds)
            results.append(result)
            rows[what] = result.row() | about(server, before, at_rest)
    print_rows("one worker, keys", results)
    for what, row in rows.items():
        met = "met" if row["worker_mb"] <= TARGET_MB else "missed"
        print(
            f"{what}: {row['hit_rate']:.1%} found in the worker, {row['commands_per_event']:.2f} Redis commands "
            f"an event, worker {row['worker_mb']:.0f} MB (at rest {row['worker_mb_at_rest']:.0f}; "
            f"target {TARGET_MB}: {met})"
        )
    return {"keys": count, "target_mb": TARGET_MB, "rounds": rows}


def events_of(
    server: OurServer, instance_id: int, renew: Callable[[], Callable[[bytes], bytes]]
) -> Callable[[], Events]:
    return lambda: Events(server.path, instance_id, renew(), renew=renew)


def fill_cache(server: OurServer, make: Callable[[], Events]) -> None:
    """Drive until more keys were read than the worker keeps, or for as long as that should take."""
    until = time.monotonic() + FILL_SECONDS
    while server.metric(READS) < 1.1 * DEFAULT_CACHED_KEYS and time.monotonic() < until:
        drive("warm-up", server, make, 4.0)


def counts(server: OurServer) -> list[float]:
    return [server.metric(name) for name in (EVENTS, READS, COMMANDS)]


def about(server: OurServer, before: list[float], at_rest: float) -> dict[str, float]:
    events, reads, commands = (now - then for now, then in zip(counts(server), before, strict=True))
    return {
        "hit_rate": 1 - reads / events,
        "commands_per_event": commands / events,
        "worker_mb_at_rest": at_rest,
        "worker_mb": worker_megabytes(server),
    }


def worker_megabytes(server: OurServer) -> float:
    (worker,) = server.workers()
    return float(worker.memory_info().rss / 1e6)


def callers(keys: list[str], draw: Callable[[], int]) -> Callable[[], Callable[[bytes], bytes]]:
    """Return what makes the answers of an event by the next caller."""
    head, _, tail = headers_frame(HEADERS | {"apikey": PLACEHOLDER}).partition(PLACEHOLDER.encode())

    def renew() -> Callable[[bytes], bytes]:
        headers = head + keys[draw()].encode() + tail
        return lambda name: headers if name.endswith(b"get_headers") else NIL

    return renew


def write_keys(port: int, count: int) -> list[str]:
    """Write the records of that many keys and return the keys; unanswered, so that nothing waits."""
    texts = [api_keys.generate_api_key(Mode.LIVE) for _ in range(count)]
    account = account_record(0)
    key = key_record(0, account.id)
    account_json, key_json = encode_record(account), encode_record(key)  # all alike but for the ids
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(command("CLIENT", "REPLY", "OFF"))
        for bucket in redis_names.KEY_BUCKETS:
            connection.sendall(command("SET", redis_names.projection_marker(bucket), "1"))
        for first in range(0, count, KEYS_OF_AN_ACCOUNT):
            digits = f"{first // KEYS_OF_AN_ACCOUNT:026}"
            account_id, versions = f"acc_{digits}", ["account", "1"]
            record = account_json.replace("0" * 26, digits)
            out = [command("SET", redis_names.account_record(account_id), record)]
            for number in range(first, min(first + KEYS_OF_AN_ACCOUNT, count)):
                key_id = f"key_{number:026}"
                record = key_json.replace(key.id, key_id).replace(account.id, account_id)
                key_hash = hashlib.sha256(texts[number].encode()).hexdigest()
                out.append(command("SET", redis_names.key_record(key_hash), record))
                versions += [key_id, "1"]
            out.append(command("HSET", redis_names.account_versions(account_id), *versions))
            connection.sendall(b"".join(out))
        connection.sendall(command("CLIENT", "REPLY", "ON"))
        assert connection.recv(100) == b"+OK\r\n"
    return texts


def command(*words: str) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


if __name__ == "__main__":
    main()
