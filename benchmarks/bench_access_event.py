"""What one km-monetize access event costs a real km-pluginserver worker: served, and refused.

The real server process with one worker on a core of its own, a real Valkey and the driver on another. A served
event runs one Redis script; a refusal ends its connection, and Kong opens another one.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

from gateway_kit import (
    HEADERS,
    SECRET,
    Events,
    OurServer,
    Result,
    answer_headers,
    drive,
    headers_frame,
    print_rows,
    write_json,
)
from gateway_records import PRODUCT, write_records

from devstack.stores.valkey import EmbeddedValkey
from gateway_contract.records import Window

TARGET_US = 130.0
PLUGIN = "km-monetize"
CALLERS = 200
TIGHT = (Window(1, 3_600_000),)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kmb") as directory:
        valkey = EmbeddedValkey(Path(directory))
        valkey.start()
        try:
            results = measure(Path(directory), valkey.url, options.seconds, options.rounds)
        finally:
            valkey.stop()
    best = [min(rounds, key=lambda one: one.cpu_us_per_event) for rounds in results.values()]
    print_rows("events of (best round)", best)
    served = best[0].cpu_us_per_event
    print(f"served {served:.1f} us; target {TARGET_US:.0f} us: {'met' if served <= TARGET_US else 'missed'}")
    rounds = [one.row() for rounds in results.values() for one in rounds]
    write_json("access_event", {"target_us": TARGET_US, "best_us": served, "rounds": rounds}, options.json)
    return 0


def measure(directory: Path, url: str, seconds: float, rounds: int) -> dict[str, list[Result]]:
    keys = write_records(url, CALLERS)
    (limited,) = write_records(url, 1, first=CALLERS, windows=TIGHT)
    os.environ.update({"KM_REDIS_URL": url, "KM_GATEWAY_SECRET": SECRET})
    no_key = headers_frame({name: value for name, value in HEADERS.items() if name != "apikey"})
    kinds = {
        f"{CALLERS} callers, served": [headers_frame(HEADERS | {"apikey": key}) for key in keys],
        "one caller, served": [headers_frame(HEADERS | {"apikey": keys[0]})],
        "401 without a key": [no_key],
        "401 with a mistyped key": [headers_frame(HEADERS | {"apikey": keys[0][:-1] + "~"})],
        "429 over the limit": [headers_frame(HEADERS | {"apikey": limited})],
    }
    results: dict[str, list[Result]] = {what: [] for what in kinds}
    with OurServer(directory, "--plugins", PLUGIN) as server:
        instance_id = server.start_instance(PLUGIN, {"api_product": PRODUCT})
        for _ in range(rounds):
            for what, frames in kinds.items():
                answers = cycle([answer_headers(frame) for frame in frames])
                make = events_of(server.path, instance_id, lambda answers=answers: next(answers))
                results[what].append(drive(what, server, make, seconds))
    return results


def events_of(path: Path, instance_id: int, renew: Callable[[], Callable[[bytes], bytes]]) -> Callable[[], Events]:
    return lambda: Events(path, instance_id, renew(), renew=renew)


if __name__ == "__main__":
    sys.exit(main())
