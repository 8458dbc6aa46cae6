"""Usage through Kafka: the address both sides read, and the form of a message.

One message is what one entry of a Redis stream is (`gateway_contract.usage_lines`): its value holds the lines, its
headers everything else, its key is the shipper's id, so that one shipper's messages stay in one partition, in
order. Three headers more tell whether any is missing, whatever a broker may have lost:

    epoch    which run of the shipper; it is in Redis too, where the collector deletes it to ask for a new run
    number   grows by one with each attempt to send, from 1 in each epoch
    after    the number of the last message before it that the brokers confirmed, 0 for none

Whoever has collected the message `after` (and so all before it, by induction) and this one, has collected all that
were confirmed up to it. A message that follows on nothing known shows a loss.
"""

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway_contract.usage_lines import FIELD_LINES

DEFAULT_TOPIC = "km-usage"
DEFAULT_GROUP = "km-collector"
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
# What brokers take by default is 1,048,588 bytes; the largest entry has 512 KiB of lines.
MAX_MESSAGE_BYTES = 1_000_000

FIELD_EPOCH = "epoch"
FIELD_NUMBER = "number"
FIELD_AFTER = "after"

EXTRA_MISSING = "Kafka needs the package aiokafka: install kong-monetize[kafka]"


class KafkaAddressError(ValueError):
    """An address that makes no sense; the message names the variable and never holds its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaAddress:
    """`bootstrap_servers`: `host:port[,host:port...]`. Files are PEM, and empty where not used.

    `group` is the collectors' consumer group. `ca_file` empty: the system's authorities.
    """

    bootstrap_servers: str
    topic: str = DEFAULT_TOPIC
    group: str = DEFAULT_GROUP
    protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "SCRAM-SHA-512"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @property
    def uses_tls(self) -> bool:
        return self.protocol.endswith("SSL")

    @property
    def uses_sasl(self) -> bool:
        return self.protocol.startswith("SASL_")

    def check(self) -> None:
        """Say what cannot be, without reading a file.

        Raises:
            KafkaAddressError.
        """
        hosts = [part.strip() for part in self.bootstrap_servers.split(",")]
        if not all(host and port.isdigit() for host, _, port in (part.rpartition(":") for part in hosts)):
            raise KafkaAddressError("KM_KAFKA_BOOTSTRAP_SERVERS: must be host:port[,host:port...]")
        if not self.topic:
            raise KafkaAddressError("KM_KAFKA_TOPIC: empty")
        if self.protocol not in PROTOCOLS:
            raise KafkaAddressError(f"KM_KAFKA_PROTOCOL: must be one of {', '.join(PROTOCOLS)}")
        if self.uses_sasl and self.sasl_mechanism not in SASL_MECHANISMS:
            raise KafkaAddressError(f"KM_KAFKA_SASL_MECHANISM: must be one of {', '.join(SASL_MECHANISMS)}")
        if self.uses_sasl and not (self.username and self.password):
            raise KafkaAddressError(f"KM_KAFKA_USERNAME and KM_KAFKA_PASSWORD: needed with {self.protocol}")
        if self.key_file and not self.cert_file:
            raise KafkaAddressError("KM_KAFKA_CERT_FILE: needed with KM_KAFKA_KEY_FILE")

    def client_options(self) -> dict[str, Any]:
        """Return what aiokafka's clients take; reads the certificate files.

        Raises:
            KafkaAddressError: as `check`, or a file cannot be used.
        """
        self.check()
        options: dict[str, Any] = {
            "bootstrap_servers": [part.strip() for part in self.bootstrap_servers.split(",")],
            "security_protocol": self.protocol,
        }
        if self.uses_tls:
            options["ssl_context"] = self._tls_context()
        if self.uses_sasl:
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password
        return options

    def _tls_context(self) -> ssl.SSLContext:
        for variable, path in (
            ("KM_KAFKA_CA_FILE", self.ca_file),
            ("KM_KAFKA_CERT_FILE", self.cert_file),
            ("KM_KAFKA_KEY_FILE", self.key_file),
        ):
            if path and not Path(path).is_file():
                raise KafkaAddressError(f"{variable}: no such file")
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file or None)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise KafkaAddressError(f"KM_KAFKA_CA_FILE, KM_KAFKA_CERT_FILE: {type(error).__name__}") from error
        return context


def message_of_fields(fields: Mapping[str, str | int | bytes]) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return a message's value and headers."""
    headers = [(name, _raw(value)) for name, value in fields.items() if name != FIELD_LINES]
    return _raw(fields.get(FIELD_LINES, b"")), headers


def fields_of_message(value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> dict[bytes, bytes]:
    """Return the fields of a message, whatever wrote it."""
    fields = {name.encode(): raw or b"" for name, raw in headers}
    fields[FIELD_LINES.encode()] = value or b""
    return fields


def _raw(value: str | int | bytes) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
