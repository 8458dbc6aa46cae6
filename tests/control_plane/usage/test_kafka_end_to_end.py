"""km-shipper as a process, a real Kafka broker and a collector: what the spool held is what is stored."""

# ruff: noqa: PLR0917 - fixtures are arguments

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from control_plane.foundation.clock import utc_now
from control_plane.usage.collect import kafka_source
from control_plane.usage.collect.collector import CollectorConfig
from control_plane.usage.collect.kafka_source import KafkaSource
from control_plane.usage.store import EventStoreConfig
from control_plane.usage.workers import UsageConfig, run_usage_workers
from gateway_contract.kafka import KafkaAddress
from tests.control_plane.usage.kafka_support import KafkaGateway, producing, until
from tests.control_plane.usage.test_collector import shipped_up_to
from tests.control_plane.usage.test_workers import until as rows_until
from tests.shipper.support import ShipperProcess, append, file_log_lines

LINES = 400


class TestFromSpoolToStore:
    async def test_nothing_is_lost_or_doubled_whoever_dies(
        self, own_kafka, redis, redis_url, tmp_path: Path, make_collector, store, sessions, monkeypatch
    ):
        monkeypatch.setitem(kafka_source.CONSUMER_OPTIONS, "session_timeout_ms", 1_000)
        monkeypatch.setitem(kafka_source.CONSUMER_OPTIONS, "heartbeat_interval_ms", 200)
        broker = own_kafka()
        address = KafkaAddress(bootstrap_servers=broker.address)
        spool = tmp_path / "spool"
        spool.mkdir()
        environment = {"KM_USAGE_SINK": "kafka", "KM_KAFKA_BOOTSTRAP_SERVERS": broker.address}
        options = ("--final-after-seconds", "1", "--resend-after-seconds", "5", "--claim-margin-ms", "100")
        written = 0

        def write() -> None:
            nonlocal written
            for number in range(written, written + LINES, 100):
                append(spool / "usage.log", file_log_lines(range(number, number + 100)))
            written += LINES

        async def stored() -> bool:
            return await asyncio.to_thread(store.count_events) == written

        async def everything_shipped() -> bool:
            shown = json.loads(await asyncio.to_thread(shipper.get, "/readyz"))
            return shown["waiting_bytes"] == 0 and shown["uncommitted_entries"] > 0

        def start_shipper() -> ShipperProcess:
            return ShipperProcess(redis_url, spool, *options, **environment)

        def start_collector() -> tuple[KafkaSource, asyncio.Event, asyncio.Task[None]]:
            source, stop = KafkaSource(address=address, redis=redis), asyncio.Event()
            collector = make_collector(source=source, housekeeping_seconds=0.5)
            return source, stop, asyncio.create_task(collector.run(stop))

        shipper = start_shipper()
        source, stop, running = start_collector()
        try:
            write()
            await until(stored, what="the first lines")

            write()
            await asyncio.to_thread(shipper.kill)  # somewhere between reading a line and the brokers' word
            write()
            shipper = start_shipper()
            await until(stored, what="lines of a shipper that was killed")

            write()
            await asyncio.sleep(0.05)
            running.cancel()  # wherever it is
            await asyncio.wait({running})
            await source.aclose()
            write()
            await until(everything_shipped, what="lines in the broker")
            broker.kill()
            write()
            await asyncio.sleep(0.2)
            broker.start()  # empty: lines, offsets and the group are gone
            source, stop, running = start_collector()
            write()
            await until(stored, what="lines that the broker lost")

            reached = await self._claim(sessions, shipper)
            await until(lambda: not list((spool / "segments").iterdir()), what="an empty spool")
            assert store.dead_letters() == []

            async def claims_again() -> bool:
                return await self._claim(sessions, shipper) > reached

            await until(claims_again, what="a claim")
            assert '"sink": "kafka"' in await asyncio.to_thread(shipper.get, "/readyz")
        finally:
            stop.set()
            await asyncio.wait({running})
            await source.aclose()
            await asyncio.to_thread(shipper.kill)

    @staticmethod
    async def _claim(sessions, shipper: ShipperProcess) -> int:
        name = shipper.log().partition('"shipper": "')[2].partition('"')[0]
        return await shipped_up_to(sessions, name)


class TestUsageWorkers:
    async def test_collect_from_kafka_and_from_redis(
        self, kafka_broker, gateway, redis, redis_url, sessions, clickhouse_dsn, secret, monkeypatch, noon
    ):
        monkeypatch.setitem(kafka_source.CONSUMER_OPTIONS, "session_timeout_ms", 1_000)
        monkeypatch.setitem(kafka_source.CONSUMER_OPTIONS, "heartbeat_interval_ms", 200)
        config = UsageConfig(
            redis_url=redis_url,
            event_store=EventStoreConfig(dsn=clickhouse_dsn),
            gateway_secrets=(secret,),
            kafka=kafka_broker,
            collector=CollectorConfig(wait_seconds=0.1, housekeeping_seconds=0.5),
        )
        started, stop = utc_now(), asyncio.Event()

        def clock() -> datetime:
            return noon + timedelta(hours=1) + (utc_now() - started)

        running = asyncio.create_task(run_usage_workers(config=config, sessions=sessions, stop=stop, clock=clock))
        try:
            async with producing(kafka_broker) as producer:
                other = KafkaGateway(redis, shipper="node_b", address=kafka_broker, producer=producer)
                other.segment, other.numbers = "seg-2", iter(range(100, 200))
                await other.begin("epoch-1")
                await gateway.ship(gateway.calls(20))
                await other.ship(other.calls(10))
            counted = "SELECT sum(calls)::int FROM usage_hourly"
            await rows_until(sessions, counted, 30)
        finally:
            stop.set()
            await asyncio.wait_for(running, 30)


class TestSettings:
    def test_kafka_is_collected_beside_redis(self, monkeypatch: pytest.MonkeyPatch, redis, redis_url):
        from control_plane.entrypoints.components import usage_config
        from control_plane.usage.workers import sources

        settings = self._settings(monkeypatch, redis_url)
        assert settings.kafka is None
        assert [open_source(redis).name for open_source in sources(usage_config(settings))] == ["0"]
        settings = self._settings(
            monkeypatch,
            redis_url,
            KM_USAGE_SOURCE="kafka",
            KM_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9092",
            KM_KAFKA_PROTOCOL="SASL_SSL",
            KM_KAFKA_USERNAME="km",
            KM_KAFKA_PASSWORD="correct horse",
        )
        config = usage_config(settings)
        assert [open_source(redis).name for open_source in sources(config)] == ["0", "kafka:km-usage"]
        options = config.kafka.client_options()
        assert options["sasl_plain_password"] == "correct horse"
        assert options["sasl_mechanism"] == "SCRAM-SHA-512"
        assert "correct horse" not in repr((settings, config))

    @pytest.mark.parametrize(
        ("environment", "said"),
        [
            ({}, "KM_KAFKA_BOOTSTRAP_SERVERS: must be host:port"),
            ({"KM_KAFKA_BOOTSTRAP_SERVERS": "a:1", "KM_KAFKA_PROTOCOL": "x"}, "KM_KAFKA_PROTOCOL: must be one of"),
            (
                {
                    "KM_KAFKA_BOOTSTRAP_SERVERS": "a:1",
                    "KM_KAFKA_PROTOCOL": "SASL_SSL",
                    "KM_KAFKA_PASSWORD": "s3cret",
                },
                "KM_KAFKA_USERNAME and KM_KAFKA_PASSWORD: needed",
            ),
        ],
    )
    def test_what_makes_no_sense_is_named_without_its_value(self, monkeypatch, redis_url, environment, said):
        from control_plane.entrypoints.settings import SettingsError

        with pytest.raises(SettingsError, match=said) as caught:
            self._settings(monkeypatch, redis_url, KM_USAGE_SOURCE="kafka", **environment)
        assert "s3cret" not in str(caught.value)

    def test_a_missing_package_is_named(self, monkeypatch, redis_url):
        from control_plane.entrypoints import settings

        monkeypatch.setattr(settings.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(settings.SettingsError, match=r"kong-monetize\[kafka\]"):
            self._settings(
                monkeypatch, redis_url, KM_USAGE_SOURCE="kafka", KM_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9092"
            )

    @staticmethod
    def _settings(monkeypatch: pytest.MonkeyPatch, redis_url: str, **environment: str):
        from control_plane.entrypoints.settings import read_settings

        base = {
            "KM_DATABASE_URL": "postgresql+psycopg://km@127.0.0.1/km",
            "KM_REDIS_URL": redis_url,
            "KM_CLICKHOUSE_DSN": "chdb:///nowhere",
            "KM_GATEWAY_SECRET": "x" * 40,
        }
        for name, value in (base | environment).items():
            monkeypatch.setenv(name, value)
        return read_settings()
