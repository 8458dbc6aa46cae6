"""What km-usage-meter's log event costs a worker: one call to Kong, one line appended to the spool."""

import argparse
import json
import os
import tempfile
from pathlib import Path

from gateway_kit import HEADERS, SECRET, Events, OurServer, drive, print_rows, write_json

from kong_plugins.server import messages, wire

PLUGIN = "km-usage-meter"
RECORD = {
    "request": {
        "id": "530eae6271c91c3492172e39d7ff7171",
        "method": "POST",
        "size": 181,
        "uri": "/v1/items?page=2",
        "url": "http://127.0.0.1:8000/v1/items?page=2",
        "querystring": {"page": "2"},
        "headers": HEADERS | {"x-km-receipt": "1.acc." + "r" * 120},
    },
    "response": {
        "status": 200,
        "size": 341,
        "headers": {"x-km-receipt": "1.back." + "r" * 120, "x-tokens": "42", "content-type": "application/json"},
    },
    "latencies": {"request": 7, "kong": 6, "proxy": 1, "receive": 0},
    "started_at": 1795392600477,
    "source": "upstream",
    "client_ip": "203.0.113.9",
    "route": {"id": "r1", "name": "items", "paths": ["/v1"]},
    "service": {"id": "s1", "name": "up"},
    "upstream_uri": "/items?page=2",
    "upstream_status": "200",
    "tries": [{"ip": "127.0.0.1", "port": 8100}],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kmb") as name:
        directory = Path(name)
        os.environ.update(
            {"KM_REDIS_URL": "redis://127.0.0.1:1/0", "KM_GATEWAY_SECRET": SECRET, "KM_SPOOL_DIR": name}
        )
        record = wire.frame(messages.encode("String", {"v": json.dumps(RECORD)}))
        with OurServer(directory, "--plugins", PLUGIN) as server:
            instance_id = server.start_instance(PLUGIN, {"unit_headers": {"tokens": "x-tokens"}})
            rounds = [
                drive(
                    "log event of km-usage-meter",
                    server,
                    lambda: Events(server.path, instance_id, lambda _: record, phase="log"),
                    options.seconds,
                )
                for _ in range(options.rounds)
            ]
            lines = server.metric("km_gateway_usage_lines_total")
        written = sum(path.read_bytes().count(b"\n") for path in directory.glob("*") if path.is_file())
    if written != lines or written < sum(one.events for one in rounds):
        raise SystemExit(f"{written} lines in the spool, {lines:.0f} counted")
    best = min(rounds, key=lambda one: one.cpu_us_per_event)
    print_rows("best round", [best])
    write_json("meter_event", {"best": best.row(), "rounds": [one.row() for one in rounds]}, options.json)


if __name__ == "__main__":
    main()
