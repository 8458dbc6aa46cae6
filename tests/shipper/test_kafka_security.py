"""Brokers that want TLS or a password: who is trusted, and that no password is told to anybody."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.ports import free_port
from gateway_contract.kafka import KafkaAddress, KafkaAddressError
from kong_plugins.shipper import kafka_client
from kong_plugins.shipper.kafka_client import KafkaClient, KafkaFailedError
from tests.certificates import make_certificate
from tests.shipper.support import wait_until

PASSWORD = "correct-horse-battery"


@contextlib.contextmanager
def tls_in_front_of(port: int, *, listen: int, context: ssl.SSLContext) -> Iterator[None]:
    """Take TLS connections and pass what they carry to a plain port."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, inner_writer), carry(inner_reader, writer))

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", listen, ssl=context)
        ready.set()
        while not stop.is_set():  # noqa: ASYNC110 - stopped from another thread
            await asyncio.sleep(0.02)
        server.close()

    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_client, "REQUEST_TIMEOUT_MS", 1_000)


class TestTls:
    def test_brokers_are_believed_by_their_certificate(self, own_kafka, tmp_path: Path) -> None:
        listen = free_port()
        broker = own_kafka(advertised_port=listen)
        context, certificate = make_certificate(tmp_path, "broker")
        _, of_others = make_certificate(tmp_path, "others")
        address = f"127.0.0.1:{listen}"
        with tls_in_front_of(broker.port, listen=listen, context=context):
            trusting = KafkaClient(
                KafkaAddress(bootstrap_servers=address, protocol="SSL", ca_file=str(certificate))
            )
            assert trusting.send(key=b"k", value=b"v", headers=[]).offset == 0
            trusting.close()
            for options in ({"ca_file": str(of_others)}, {"ca_file": ""}):
                doubting = KafkaClient(KafkaAddress(bootstrap_servers=address, protocol="SSL", **options))
                with pytest.raises(KafkaFailedError):
                    doubting.send(key=b"k", value=b"v", headers=[])
                doubting.close()

    def test_a_file_that_is_no_certificate_is_named(self, tmp_path: Path) -> None:
        nonsense = tmp_path / "nonsense.pem"
        nonsense.write_text("nonsense")
        address = KafkaAddress(bootstrap_servers="a:1", protocol="SSL", ca_file=str(nonsense))
        with pytest.raises(KafkaAddressError, match="KM_KAFKA_CA_FILE"):
            address.client_options()

    def test_a_certificate_of_our_own_is_shown(self, tmp_path: Path) -> None:
        _, certificate = make_certificate(tmp_path, "own")
        address = KafkaAddress(
            bootstrap_servers="a:1",
            protocol="SSL",
            cert_file=str(certificate),
            key_file=str(certificate.with_suffix(".key")),
        )
        assert isinstance(address.client_options()["ssl_context"], ssl.SSLContext)
        with pytest.raises(KafkaAddressError, match="KM_KAFKA_CERT_FILE"):
            KafkaAddress(bootstrap_servers="a:1", protocol="SSL", key_file="x").client_options()


class TestPasswords:
    def test_options_name_the_user_and_the_mechanism(self) -> None:
        address = KafkaAddress(
            bootstrap_servers=" a:1, b:2 ", protocol="SASL_PLAINTEXT", username="km", password=PASSWORD
        )
        assert address.client_options() == {
            "bootstrap_servers": ["a:1", "b:2"],
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": "km",
            "sasl_plain_password": PASSWORD,
        }
        assert PASSWORD not in repr(address)

    def test_a_refused_password_is_told_to_nobody(self, own_kafka, start_process, redis_url: str) -> None:
        broker = own_kafka("--authentication")  # it knows no users
        running = start_process(
            redis_url,
            "--log-level",
            "debug",
            KM_USAGE_SINK="kafka",
            KM_KAFKA_BOOTSTRAP_SERVERS=broker.address,
            KM_KAFKA_PROTOCOL="SASL_PLAINTEXT",
            KM_KAFKA_SASL_MECHANISM="PLAIN",
            KM_KAFKA_USERNAME="km",
            KM_KAFKA_PASSWORD=PASSWORD,
        )
        wait_until(lambda: '"kafka: ' in running.log(), what="a refusal")
        shown = running.log() + running.get("/metrics")
        assert PASSWORD not in shown
        assert PASSWORD.encode() not in Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
