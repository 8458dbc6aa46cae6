"""The one place where the environment is read: `KM_` variables, checked, with their defaults.

Each component gets a small frozen value of its own, made from these by whoever wires it.
"""

import importlib.util
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from control_plane.usage.ingest.model import MAX_EVENTS
from control_plane.usage.retention import MAXIMUM_DAYS, MINIMUM_DAYS
from gateway_contract.cluster_urls import is_cluster_url, parse_cluster_url
from gateway_contract.kafka import DEFAULT_GROUP, DEFAULT_TOPIC, EXTRA_MISSING, KafkaAddress
from gateway_contract.receipts import WeakSecretError, parse_secrets

_URL = TypeAdapter(HttpUrl)


class SettingsError(ValueError):
    """The environment does not make sense; one line for each variable at fault, values left out."""


class Settings(BaseSettings):
    """Everything a process of the control plane can be told.

    `gateway_secret`: comma-separated, 32 characters or more each; the first signs, all verify.
    `gateway_nodes`: comma-separated addresses of Kong's Admin API. `kong_config`: path of the base kong.yml.
    `redis_url`: one server, or a cluster (`gateway_contract.cluster_urls`).
    `clickhouse_dsn`: `chdb:///directory` inside one process, or `clickhouse://...` for a server.
    `clickhouse_cluster`: a cluster that this server knows; `clickhouse_insert_quorum`: see EventStoreConfig.
    `export_dir`: where files of exports go; beside the embedded event store if left out. Servers that share the
    queue must share it.
    `sink_dir`: where sinks write files of days; beside the embedded event store if left out.
    `sink_authorizations`: JSON, the Authorization header of http sinks by name. `sink_allow_private`: sinks may be
    in private networks.
    `usage_source`: where usage comes from; `kafka`: from there as well as from Redis.
    `ingest_events_per_second`, `ingest_burst_events`: what one token may report; 0 a second is no limit.
    """

    model_config = SettingsConfigDict(env_prefix="KM_", extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: str = Field(pattern=r"^postgresql\+psycopg://")
    redis_url: str = Field(pattern=r"^((redis|rediss)(\+cluster)?|unix)://")
    clickhouse_dsn: str = Field(pattern=r"^(chdb|clickhouse|clickhouses|http|https)://")
    clickhouse_cluster: str = Field(default="", max_length=100)
    clickhouse_insert_quorum: Literal["all", "majority"] = "all"
    gateway_secret: SecretStr
    gateway_nodes: Annotated[tuple[str, ...], NoDecode] = ()
    kong_config: Path = Path("kong.yml")
    usage_spool_path: Path = Path("/var/spool/kong-monetize/usage.log")
    host: str = "127.0.0.1"
    port: int = Field(default=8090, ge=0, le=65535)
    public_url: str = "http://127.0.0.1:8090"
    hour_lateness_seconds: int = Field(default=120, ge=0, le=86_400)
    shipper_silence_seconds: int = Field(default=120, ge=1, le=86_400)
    event_retention_days: int = Field(default=MINIMUM_DAYS, ge=MINIMUM_DAYS, le=MAXIMUM_DAYS)
    hourly_retention_days: int = Field(default=400, ge=91, le=36_600)
    usage_shards: int = Field(default=1, ge=1, le=256)
    sink_dir: Path | None = None
    sink_authorizations: dict[str, SecretStr] = Field(default_factory=dict)
    sink_allow_private: bool = False
    export_dir: Path | None = None
    export_keep_hours: int = Field(default=24, ge=1, le=24 * 90)
    export_max_rows: int = Field(default=20_000_000, ge=1, le=10**10)
    export_max_mb: int = Field(default=4096, ge=1, le=10**7)
    usage_source: Literal["redis", "kafka"] = "redis"
    kafka_bootstrap_servers: str = ""
    kafka_topic: str = DEFAULT_TOPIC
    kafka_group: str = DEFAULT_GROUP
    kafka_protocol: str = "PLAINTEXT"
    kafka_sasl_mechanism: str = "SCRAM-SHA-512"
    kafka_username: str = ""
    kafka_password: SecretStr = SecretStr("")
    kafka_ca_file: str = ""
    kafka_cert_file: str = ""
    kafka_key_file: str = ""
    ingest_events_per_second: int = Field(default=10_000, ge=0, le=1_000_000)
    ingest_burst_events: int = Field(default=60_000, ge=MAX_EVENTS, le=100_000_000)

    @field_validator("redis_url")
    @classmethod
    def _server_or_cluster(cls, value: str) -> str:
        if is_cluster_url(value):
            parse_cluster_url(value)
        return value

    @field_validator("clickhouse_cluster")
    @classmethod
    def _cluster_of_servers(cls, value: str, info: ValidationInfo) -> str:
        if value and str(info.data.get("clickhouse_dsn", "")).startswith("chdb:"):
            raise ValueError("needs a server: KM_CLICKHOUSE_DSN names the embedded event store")
        return value

    @field_validator("hourly_retention_days")
    @classmethod
    def _longer_than_events(cls, value: int, info: ValidationInfo) -> int:
        # an hour that can still be recomputed from its events must not have been dropped
        if value <= info.data.get("event_retention_days", MINIMUM_DAYS):
            raise ValueError("must be longer than KM_EVENT_RETENTION_DAYS")
        return value

    @field_validator("gateway_secret")
    @classmethod
    def _strong(cls, value: SecretStr) -> SecretStr:
        try:
            parse_secrets(value.get_secret_value())
        except WeakSecretError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("gateway_nodes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
        )

    @field_validator("gateway_nodes")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_checked_url(address) for address in value)

    @field_validator("public_url")
    @classmethod
    def _address(cls, value: str) -> str:
        return _checked_url(value)

    @model_validator(mode="after")
    def _kafka_can_be_used(self) -> Self:
        if self.kafka is not None:
            self.kafka.client_options()
            if importlib.util.find_spec("aiokafka") is None:
                raise ValueError(EXTRA_MISSING)
        return self

    @property
    def kafka(self) -> KafkaAddress | None:
        """The brokers that usage comes from; None where it comes from Redis only."""
        if self.usage_source != "kafka":
            return None
        return KafkaAddress(
            bootstrap_servers=self.kafka_bootstrap_servers,
            topic=self.kafka_topic,
            group=self.kafka_group,
            protocol=self.kafka_protocol,
            sasl_mechanism=self.kafka_sasl_mechanism,
            username=self.kafka_username,
            password=self.kafka_password.get_secret_value(),
            ca_file=self.kafka_ca_file,
            cert_file=self.kafka_cert_file,
            key_file=self.kafka_key_file,
        )

    @property
    def gateway_secrets(self) -> tuple[bytes, ...]:
        """The gateway secrets as the contract's functions take them."""
        return parse_secrets(self.gateway_secret.get_secret_value())


def read_settings() -> Settings:
    """Read the environment.

    Raises:
        SettingsError: a variable is missing or wrong; names each.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [_told(found["loc"], found["msg"]) for found in error.errors(include_url=False)]
        raise SettingsError("\n".join(lines)) from error


def _told(place: tuple[int | str, ...], message: str) -> str:
    # what is wrong with several together has no place of its own, and names them itself
    return f"KM_{str(place[0]).upper()}: {message}" if place else message.removeprefix("Value error, ")


def _checked_url(text: str) -> str:
    _URL.validate_python(text)
    return text.rstrip("/")
