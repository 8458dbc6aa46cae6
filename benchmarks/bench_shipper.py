"""km-shipper: lines a second from a spool directory into a Redis stream, one process, Valkey on the other core.

Lines are those of Kong's file-log with receipts of the real length. Prints a table and writes JSON to
`benchmarks/results/shipper.json`.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from devstack.stores.valkey import EmbeddedValkey
from kong_plugins.parts.usage_lines import encode_usage_line, read_usage_line
from kong_plugins.shipper.metrics import ShipperMetrics
from kong_plugins.shipper.settings import ShipperSettings
from kong_plugins.shipper.shipper import Shipper
from kong_plugins.shipper.spool import Spool
from kong_plugins.shipper.stream import UsageStream

LINES = 100_000
TARGET = 40_000
RECEIPT = "1.{emitter}.{n}.{n}.1795397500893.acc_{id}.key_{id}.weather.live.served.1.{mac}".format(
    emitter="k3v9x2mq7w1z", n=123456, id="01jd3kz8r5c9w2x7h4m6n0p1q8", mac="Zm9vYmFyYmF6cXV4MTIzNA"
).encode()
RECORDED = Path(__file__).parents[1] / "tests" / "shipper" / "data" / "file-log-lines.jsonl"


def main() -> None:
    line = RECORDED.read_bytes().splitlines()[0].replace(b'"r-1"', b'"' + RECEIPT + b'"')
    results = {
        "line_bytes": len(line),
        "build_and_encode": build(line),
        "build_with_units": build(line.replace(b'{"km_receipt"', b'{"km_unit_tokens":"731","km_receipt"', 1)),
        "ship": ship(line),
    }
    print(f"{'':24}{'lines/s':>12}{'CPU us/line':>14}")
    for name in ("build_and_encode", "build_with_units", "ship"):
        print(f"{name:24}{results[name]['lines_per_second']:>12,.0f}{results[name]['cpu_us_per_line']:>14.2f}")
    rate = results["ship"]["lines_per_second"]
    print(f"target {TARGET:,} lines/s on one core: {rate / TARGET:.2f} x")
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "shipper.json").write_text(json.dumps(results, indent=2) + "\n")


def build(line: bytes) -> dict[str, float]:
    started, cpu_started = time.perf_counter(), time.process_time()
    for _ in range(LINES):
        encode_usage_line(read_usage_line(line))
    return measured(started, cpu_started)


def ship(line: bytes) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedValkey(Path(directory) / "valkey")
        server.start()
        try:
            spool_dir = Path(directory) / "spool"
            spool_dir.mkdir()
            with (spool_dir / "usage.log").open("wb") as file:
                file.writelines([line + b"\n"] * LINES)
            return drain(ShipperSettings(spool_dir=spool_dir, redis_url=server.url))
        finally:
            server.stop()


def drain(settings: ShipperSettings) -> dict[str, float]:
    spool, metrics = Spool(settings.spool_dir), ShipperMetrics()
    stream = UsageStream(url=settings.redis_url, shipper_id=spool.shipper_id, shards=1)
    shipper = Shipper(settings=settings, spool=spool, sink=stream, metrics=metrics)
    started, cpu_started = time.perf_counter(), time.process_time()
    while metrics.registry.get_sample_value("km_shipper_lines_shipped_total") != LINES:
        shipper.step(now=time.monotonic(), now_ms=time.time_ns() // 1_000_000)
    result = measured(started, cpu_started)
    stream.close()
    spool.close()
    return result


def measured(started: float, cpu_started: float) -> dict[str, float]:
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return {
        "lines_per_second": LINES / seconds,
        "cpu_us_per_line": cpu_seconds / LINES * 1e6,
    }


if __name__ == "__main__":
    main()
