"""`km-shipper`: options, signals and the loop around `Shipper.step`."""

import argparse
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from gateway_contract.kafka import EXTRA_MISSING, PROTOCOLS, SASL_MECHANISMS, KafkaAddress
from kong_plugins.shipper.health import HealthServer, Pulse
from kong_plugins.shipper.logs import configure_logs
from kong_plugins.shipper.metrics import ShipperMetrics
from kong_plugins.shipper.settings import ShipperSettings
from kong_plugins.shipper.shipper import Shipper
from kong_plugins.shipper.sink import UsageSink
from kong_plugins.shipper.spool import Spool, SpoolBusyError, SpoolError
from kong_plugins.shipper.stream import UsageStream

EXIT_CANNOT_START = 2
EXIT_BUSY = 3
TICK_SECONDS = 0.05
SINKS = ("redis", "kafka")

log = structlog.get_logger()


def main() -> None:
    """Run until SIGTERM or SIGINT. Exit code 3: another shipper works on the directory; 2: it cannot start."""
    options = parse_options(sys.argv[1:], environment=os.environ)
    configure_logs(level=options.log_level)
    sys.exit(run(settings_of(options)))


def run(settings: ShipperSettings) -> int:
    """Ship until a signal says stop; the batch under way is finished first. Returns the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        spool = Spool(settings.spool_dir)
    except SpoolBusyError as error:
        print(f"km-shipper: {error}", file=sys.stderr)  # noqa: T201 - said to the person who started it
        return EXIT_BUSY
    except (SpoolError, OSError) as error:
        print(f"km-shipper: {error}", file=sys.stderr)  # noqa: T201 - said to the person who started it
        return EXIT_CANNOT_START
    metrics, pulse = ShipperMetrics(), Pulse()
    try:
        health = HealthServer(port=settings.port, registry=metrics.registry, pulse=pulse)
        sink = open_sink(settings, shipper_id=spool.shipper_id)
    except (OSError, ValueError) as error:
        print(f"km-shipper: {error}", file=sys.stderr)  # noqa: T201 - said to the person who started it
        return EXIT_CANNOT_START
    shipper = Shipper(settings=settings, spool=spool, sink=sink, metrics=metrics)
    log.info(
        "started",
        shipper=spool.shipper_id,
        sink=sink.kind,
        stream=sink.name,
        spool=str(settings.spool_dir),
        port=health.port,
    )
    while not stop.is_set():
        now_ms = time.time_ns() // 1_000_000
        more = shipper.step(now=time.monotonic(), now_ms=now_ms)
        pulse.beat(**shipper.show(now_ms=now_ms))
        if not more:
            stop.wait(TICK_SECONDS)
    health.close()
    sink.close()
    spool.close()
    log.info("stopped")
    return 0


def open_sink(settings: ShipperSettings, *, shipper_id: str) -> UsageSink:
    """Open the sink that the settings name; it connects later, and again and again.

    Raises:
        ValueError: an address makes no sense, or what the sink needs is not installed.
    """
    shards = settings.stream_shards
    if settings.kafka is None:
        return UsageStream(url=settings.redis_url, shipper_id=shipper_id, shards=shards)
    try:
        kafka_topic = importlib.import_module("kong_plugins.shipper.kafka_topic")
    except ModuleNotFoundError as error:
        raise ValueError(EXTRA_MISSING) from error
    sink: UsageSink = kafka_topic.KafkaTopic(
        address=settings.kafka, redis_url=settings.redis_url, shipper_id=shipper_id, shards=shards
    )
    return sink


def settings_of(options: argparse.Namespace) -> ShipperSettings:
    values = dict(vars(options))
    del values["log_level"]
    kafka = {name.removeprefix("kafka_"): values.pop(name) for name in list(values) if name.startswith("kafka_")}
    address = KafkaAddress(**kafka) if values.pop("sink") == "kafka" else None
    return ShipperSettings(**values, kafka=address)


def parse_options(arguments: list[str], *, environment: Mapping[str, str]) -> argparse.Namespace:
    """Read options; each can be given as a variable instead, and an option wins over its variable."""
    defaults = ShipperSettings(spool_dir=Path(), redis_url="")
    parser = argparse.ArgumentParser(
        prog="km-shipper", description="Ships usage lines from the spool directory to Redis Streams, or to Kafka."
    )

    def add(option: str, variable: str, default: Any, text: str, choices: Sequence[str] | None = None) -> None:
        given = environment.get(variable)
        kind = str if default is None else type(default)
        parser.add_argument(
            option,
            type=kind,
            choices=choices,
            default=default if given is None else given,
            required=default is None and given is None,
            help=f"{text} ({variable}" + (f", default {default}" if default else "") + ")",
        )

    add("--spool-dir", "KM_SPOOL_DIR", None, "directory that Kong and the plugins append usage lines to")
    add("--redis-url", "KM_REDIS_URL", None, "Redis or Valkey, e.g. redis://127.0.0.1:6379/0")
    add("--sink", "KM_USAGE_SINK", "redis", "where lines go: redis or kafka", SINKS)
    add(
        "--stream-shards",
        "KM_USAGE_SHARDS",
        defaults.stream_shards,
        "number of usage streams; the same everywhere",
    )
    add("--port", "KM_SHIPPER_PORT", defaults.port, "loopback port of /metrics, /healthz and /readyz; 0: any")
    add(
        "--max-stream-entries",
        "KM_SHIPPER_MAX_STREAM_ENTRIES",
        defaults.max_stream_entries,
        "lines stay in the spool while the stream holds so many entries",
    )
    add(
        "--final-after-seconds",
        "KM_SHIPPER_FINAL_AFTER_SECONDS",
        defaults.final_after_seconds,
        "a segment that has not grown for so long has no writer",
    )
    add(
        "--resend-after-seconds",
        "KM_SHIPPER_RESEND_AFTER_SECONDS",
        defaults.resend_after_seconds,
        "look for lost entries after so long without a commit",
    )
    add(
        "--claim-margin-ms",
        "KM_SHIPPER_CLAIM_MARGIN_MS",
        defaults.claim_margin_ms,
        "how long after its last byte a request's line may take into the spool",
    )
    add("--log-level", "KM_LOG_LEVEL", "info", "debug, info, warning or error")
    _add_kafka(add)
    options = parser.parse_args(arguments)
    # never an option: everybody on the machine can read those
    options.kafka_password = environment.get("KM_KAFKA_PASSWORD", "")
    for name, value in vars(options).items():
        if isinstance(value, int | float) and value <= 0 and name != "port":
            parser.error(f"--{name.replace('_', '-')} must be more than 0")
    if options.sink not in SINKS:  # argparse does not look at what a variable gave
        parser.error("KM_USAGE_SINK must be redis or kafka")
    options.spool_dir = Path(options.spool_dir)
    return options


def _add_kafka(add: Callable[..., None]) -> None:
    empty = KafkaAddress(bootstrap_servers="")
    for name, default, text, choices in (
        ("bootstrap_servers", "", "host:port[,host:port...] of Kafka brokers", None),
        ("topic", empty.topic, "topic of usage", None),
        ("group", empty.group, "consumer group of the collectors", None),
        ("protocol", empty.protocol, "how to talk to the brokers: " + ", ".join(PROTOCOLS), PROTOCOLS),
        ("sasl_mechanism", empty.sasl_mechanism, ", ".join(SASL_MECHANISMS), SASL_MECHANISMS),
        ("username", "", "SASL user; the password comes from KM_KAFKA_PASSWORD only", None),
        ("ca_file", "", "PEM file of the authorities of the brokers' certificates", None),
        ("cert_file", "", "PEM file of our own certificate, where brokers want one", None),
        ("key_file", "", "PEM file of its key, where it is not in the same file", None),
    ):
        add(f"--kafka-{name.replace('_', '-')}", f"KM_KAFKA_{name.upper()}", default, text, choices)


if __name__ == "__main__":
    main()
