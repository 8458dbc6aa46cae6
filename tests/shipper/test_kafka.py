"""A shipper on a real Kafka broker: what it sends, what it notices, what it never loses."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from devstack.stores.kafka import EmbeddedKafka
from devstack.stores.valkey import EmbeddedValkey
from gateway_contract import redis_names
from gateway_contract.kafka import KafkaAddress, KafkaAddressError
from kong_plugins.shipper import kafka_client
from kong_plugins.shipper.main import open_sink, parse_options, settings_of
from kong_plugins.shipper.settings import ShipperSettings
from tests.shipper.kafka_support import FakeKafkaCollector, KafkaBench, let_the_group_pass, read_messages
from tests.shipper.support import append, file_log_lines, request_id

MakeBench = Callable[..., KafkaBench]
MakeCollector = Callable[[KafkaBench], FakeKafkaCollector]


@pytest.fixture
def make_kafka_bench(redis_url: str, spool_dir: Path, kafka_broker: KafkaAddress) -> Iterator[MakeBench]:
    benches: list[KafkaBench] = []

    def make(*, address: KafkaAddress = kafka_broker, url: str = redis_url, **settings: object) -> KafkaBench:
        benches.append(KafkaBench(url, spool_dir, address, **settings))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture
def collector_of() -> Iterator[MakeCollector]:
    collectors: list[FakeKafkaCollector] = []

    def make(bench: KafkaBench) -> FakeKafkaCollector:
        collectors.append(FakeKafkaCollector(bench.url, bench.spool.shipper_id, bench.address))
        return collectors[-1]

    yield make
    for collector in collectors:
        collector.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on brokers after half a second."""
    monkeypatch.setattr(kafka_client, "REQUEST_TIMEOUT_MS", 500)


def epoch_name(bench: KafkaBench) -> str:
    return redis_names.shipper_epoch(0, bench.spool.shipper_id)


class TestMessages:
    def test_every_line_arrives_once_in_messages_that_follow_on_each_other(
        self, make_kafka_bench: MakeBench, collector_of: MakeCollector
    ) -> None:
        bench = make_kafka_bench()
        collector = collector_of(bench)
        for start in (0, 1200, 1210):
            append(bench.live, file_log_lines(range(start, 1210 if start == 0 else start + 10)))
            bench.step()
        collector.pump()
        assert collector.has_all(range(1220))
        assert set(collector.arrivals.values()) == {1, 2}  # written twice: 1200 to 1209
        assert collector.gaps == []

        shipper_id = bench.spool.shipper_id.encode()
        assert {message.key for message in collector.messages} == {shipper_id}
        assert {message.fields[b"shipper"] for message in collector.messages} == {shipper_id}
        assert len({message.partition for message in collector.messages}) == 1
        assert len({message.epoch for message in collector.messages}) == 1
        numbers = [message.number("number") for message in collector.messages]
        assert numbers == list(range(1, len(numbers) + 1))
        assert [message.number("after") for message in collector.messages] == [number - 1 for number in numbers]

    def test_too_large_for_the_brokers_are_split(
        self, make_kafka_bench: MakeBench, collector_of: MakeCollector, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kafka_client, "MAX_MESSAGE_BYTES", 20_000)
        bench = make_kafka_bench()
        collector = collector_of(bench)
        append(bench.live, file_log_lines(range(300)))
        for _ in range(20):
            bench.step()
        collector.pump()
        assert collector.has_all(range(300))
        assert set(collector.arrivals.values()) == {1}
        assert max(collector.entry_sizes) < 20_000

    def test_a_line_too_large_for_the_brokers_waits_and_is_named(
        self, make_kafka_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kafka_client, "MAX_MESSAGE_BYTES", 450)
        bench = make_kafka_bench()
        append(bench.live, file_log_lines([1, 2]))
        for _ in range(8):
            bench.step()
        assert "kafka: it takes no single line of" in bench.shipper.show(now_ms=bench.now_ms)["last_error"]
        assert len(bench.segment_files()) == 1
        # what is small enough still says that the shipper lives
        assert bench.value("heartbeats_total") > 0


class TestDelivery:
    def test_a_segment_goes_once_its_position_is_published(
        self, make_kafka_bench: MakeBench, collector_of: MakeCollector
    ) -> None:
        bench = make_kafka_bench(final_after_seconds=1.0)
        collector = collector_of(bench)
        append(bench.live, file_log_lines(range(10)))
        bench.step()
        collector.pump(publish=False)
        bench.step(after_seconds=5)
        assert len(bench.segment_files()) == 1
        collector.publish()
        bench.step(after_seconds=5)
        assert bench.segment_files() == []

    def test_after_a_start_only_what_is_not_committed_goes_again(
        self, make_kafka_bench: MakeBench, collector_of: MakeCollector
    ) -> None:
        bench = make_kafka_bench()
        collector = collector_of(bench)
        append(bench.live, file_log_lines(range(10)))
        bench.step()
        collector.pump()
        append(bench.live, file_log_lines(range(10, 20)))
        bench.step()
        collector.pump(publish=False)
        bench.restart()
        bench.step()
        collector.pump()
        assert {name: count for name, count in collector.arrivals.items() if count > 1} == {
            request_id(number): 2 for number in range(10, 20)
        }
        _, second = dict.fromkeys(message.epoch for message in collector.messages)
        again = [message for message in collector.messages if message.epoch == second]
        assert (again[0].number("number"), again[0].number("after")) == (1, 0)
        assert again[0].number("shipped_up_to_ms") == 0  # what it may say of the past, it has yet to ship

    def test_while_brokers_are_away_lines_wait(
        self, own_kafka, make_kafka_bench: MakeBench, collector_of: MakeCollector, impatient
    ) -> None:
        broker: EmbeddedKafka = own_kafka()
        bench = make_kafka_bench(address=KafkaAddress(bootstrap_servers=broker.address))
        append(bench.live, file_log_lines(range(10)))
        bench.step()
        broker.kill()
        append(bench.live, file_log_lines(range(10, 20)))
        bench.step(after_seconds=10)
        assert bench.value("kafka_errors_total") == 1
        assert bench.value("redis_errors_total") == 0
        state = bench.shipper.show(now_ms=bench.now_ms)
        assert not state["ready"]
        assert (state["sink"], state["stream"]) == ("kafka", "km-usage")
        assert state["last_error"].startswith("kafka: ")

        broker.restart()  # empty
        for _ in range(3):
            bench.step(after_seconds=10)
        assert bench.shipper.show(now_ms=bench.now_ms)["ready"]
        numbers = [message.number("number") for message in read_messages(bench.address)]
        afters = [message.number("after") for message in read_messages(bench.address)]
        # the attempt that failed has a number of its own, and what follows says that it follows on the one before
        assert afters[0] > 0
        assert numbers[0] > afters[0] + 1

    def test_goes_on_without_redis(self, make_kafka_bench: MakeBench, own_valkey) -> None:
        server: EmbeddedValkey = own_valkey()
        bench = make_kafka_bench(url=server.url)
        append(bench.live, file_log_lines(range(10)))
        bench.step()
        server.kill()
        append(bench.live, file_log_lines(range(10, 20)))
        bench.step()
        bench.step()
        assert bench.value("redis_errors_total") >= 1
        assert bench.value("kafka_errors_total") == 0
        found = b"".join(message.fields[b"lines"] for message in read_messages(bench.address))
        assert all(request_id(number).encode() in found for number in range(20))
        assert bench.shipper.show(now_ms=bench.now_ms)["ready"]


class TestShippingAgain:
    def test_when_the_collector_asks_for_it(
        self, make_kafka_bench: MakeBench, collector_of: MakeCollector, redis_url: str
    ) -> None:
        bench = make_kafka_bench()
        collector = collector_of(bench)
        append(bench.live, file_log_lines(range(10)))
        bench.step()
        collector.pump()
        append(bench.live, file_log_lines(range(10, 20)))
        bench.step()
        with redis.Redis.from_url(redis_url) as client:
            client.delete(epoch_name(bench))
        bench.step()
        bench.step()
        collector.pump()
        assert bench.value("resends_total", reason="epoch_lost") == 1
        assert {name for name, count in collector.arrivals.items() if count == 2} == set(
            map(request_id, range(10, 20))
        )
        assert collector.gaps == []
        epochs = list(dict.fromkeys(message.epoch for message in collector.messages))
        with redis.Redis.from_url(redis_url) as client:
            assert client.get(epoch_name(bench)) == epochs[-1]
        assert len(epochs) == 2

    def test_not_while_messages_wait_for_a_collector(self, make_kafka_bench: MakeBench) -> None:
        bench = make_kafka_bench(resend_after_seconds=30.0)
        bench.step()  # a heartbeat
        let_the_group_pass(bench.address, read_messages(bench.address))
        append(bench.live, file_log_lines(range(10)))
        for _ in range(4):
            bench.step(after_seconds=40)
        assert bench.value("entries_shipped_total") == 1
        assert bench.value("resent_bytes_total") == 0

    def test_when_the_group_passed_messages_and_nothing_was_committed(self, make_kafka_bench: MakeBench) -> None:
        bench = make_kafka_bench(resend_after_seconds=30.0)
        append(bench.live, file_log_lines(range(10)))
        bench.step()
        let_the_group_pass(bench.address, read_messages(bench.address))
        bench.step(after_seconds=40)
        assert bench.value("resends_total", reason="stream_lost") == 1
        bench.step()  # ships it
        let_the_group_pass(bench.address, read_messages(bench.address))
        bench.step(after_seconds=40)
        assert bench.value("resends_total", reason="stream_lost") == 1  # twice as patient
        bench.step(after_seconds=40)
        assert bench.value("resends_total", reason="stream_lost") == 2

    def test_two_shippers_of_one_identity_do_not_flood_the_topic(
        self, make_kafka_bench: MakeBench, redis_url: str
    ) -> None:
        bench = make_kafka_bench()
        append(bench.live, file_log_lines(range(10)))
        bench.step()
        with redis.Redis.from_url(redis_url) as client:
            client.set(epoch_name(bench), "somebody-else")
        before = len(read_messages(bench.address))
        for _ in range(10):
            bench.step()
        assert "another shipper uses this identity" in bench.shipper.faults.last
        assert len(read_messages(bench.address)) <= before + 2


class TestRunning:
    def test_says_which_sink_it_uses(self, start_process, redis_url: str, kafka_broker: KafkaAddress) -> None:
        running = start_process(
            redis_url,
            KM_USAGE_SINK="kafka",
            KM_KAFKA_BOOTSTRAP_SERVERS=kafka_broker.bootstrap_servers,
            KM_KAFKA_TOPIC=kafka_broker.topic,
        )
        running.wait_started()
        started = next(line for line in running.log().splitlines() if '"started"' in line)
        assert '"sink": "kafka"' in started
        assert kafka_broker.topic in started
        assert "km_shipper_kafka_errors_total" in running.get("/metrics")
        assert running.terminate() == 0

    def test_names_what_is_wrong_and_ends(self, start_process, redis_url: str) -> None:
        running = start_process(redis_url, KM_USAGE_SINK="kafka", KM_KAFKA_BOOTSTRAP_SERVERS="nowhere")
        assert running.process.wait(30) == 2
        assert "KM_KAFKA_BOOTSTRAP_SERVERS: must be host:port" in running.log()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"bootstrap_servers": ""}, "KM_KAFKA_BOOTSTRAP_SERVERS"),
            ({"bootstrap_servers": "a:1,b"}, "KM_KAFKA_BOOTSTRAP_SERVERS"),
            ({"topic": ""}, "KM_KAFKA_TOPIC"),
            ({"protocol": "HTTP"}, "KM_KAFKA_PROTOCOL"),
            ({"protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI"}, "KM_KAFKA_SASL_MECHANISM"),
            ({"protocol": "SASL_SSL", "username": "km"}, "KM_KAFKA_PASSWORD"),
            ({"protocol": "SSL", "ca_file": "/nowhere.pem"}, "KM_KAFKA_CA_FILE"),
        ],
    )
    def test_an_address_that_makes_no_sense_names_its_variable(self, options: dict[str, str], said: str) -> None:
        with pytest.raises(KafkaAddressError, match=said):
            KafkaAddress(**({"bootstrap_servers": "a:1"} | options)).client_options()

    def test_options_and_variables_say_the_same(self, spool_dir: Path, redis_url: str) -> None:
        environment = {
            "KM_SPOOL_DIR": str(spool_dir),
            "KM_REDIS_URL": redis_url,
            "KM_USAGE_SINK": "kafka",
            "KM_KAFKA_BOOTSTRAP_SERVERS": "a:1",
            "KM_KAFKA_PASSWORD": "secret",
        }
        settings = settings_of(parse_options(["--kafka-topic", "calls"], environment=environment))
        assert settings.kafka == KafkaAddress(bootstrap_servers="a:1", topic="calls", password="secret")
        assert settings_of(parse_options(["--sink", "redis"], environment=environment)).kafka is None
        with pytest.raises(SystemExit):
            parse_options([], environment=environment | {"KM_USAGE_SINK": "carrier-pigeon"})

    def test_names_the_extra_that_is_missing(self, spool_dir: Path, redis_url: str, monkeypatch) -> None:
        for name in ("kong_plugins.shipper.kafka_topic", "kong_plugins.shipper.kafka_client"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(sys.modules, "aiokafka", None)
        settings = ShipperSettings(
            spool_dir=spool_dir, redis_url=redis_url, kafka=KafkaAddress(bootstrap_servers="127.0.0.1:1")
        )
        with pytest.raises(ValueError, match=r"kong-monetize\[kafka\]"):
            open_sink(settings, shipper_id="shp_1")
