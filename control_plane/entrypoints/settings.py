"""The one place where the environment is read: `KM_` variables, checked, with their defaults.

Each component gets a small frozen value of its own, made from these by whoever wires it.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, HttpUrl, SecretStr, TypeAdapter, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from control_plane.usage.ingest.model import MAX_EVENTS
from gateway_contract.cluster_urls import is_cluster_url, parse_cluster_url
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
    `ingest_events_per_second`, `ingest_burst_events`: what one token may report; 0 a second is no limit.
    """

    model_config = SettingsConfigDict(env_prefix="KM_", extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: str = Field(pattern=r"^postgresql\+psycopg://")
    redis_url: str = Field(pattern=r"^((redis|rediss)(\+cluster)?|unix)://")
    clickhouse_dsn: str = Field(pattern=r"^(chdb|clickhouse|clickhouses|http|https)://")
    gateway_secret: SecretStr
    gateway_nodes: Annotated[tuple[str, ...], NoDecode] = ()
    kong_config: Path = Path("kong.yml")
    usage_spool_path: Path = Path("/var/spool/kong-monetize/usage.log")
    host: str = "127.0.0.1"
    port: int = Field(default=8090, ge=0, le=65535)
    public_url: str = "http://127.0.0.1:8090"
    hour_lateness_seconds: int = Field(default=120, ge=0, le=86_400)
    shipper_silence_seconds: int = Field(default=120, ge=1, le=86_400)
    hourly_retention_days: int = Field(default=400, ge=91, le=36_600)
    stream_shards: int = Field(default=1, ge=1, le=256)
    ingest_events_per_second: int = Field(default=10_000, ge=0, le=1_000_000)
    ingest_burst_events: int = Field(default=60_000, ge=MAX_EVENTS, le=100_000_000)

    @field_validator("redis_url")
    @classmethod
    def _server_or_cluster(cls, value: str) -> str:
        if is_cluster_url(value):
            parse_cluster_url(value)
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
        lines = [f"KM_{str(found['loc'][0]).upper()}: {found['msg']}" for found in error.errors(include_url=False)]
        raise SettingsError("\n".join(lines)) from error


def _checked_url(text: str) -> str:
    _URL.validate_python(text)
    return text.rstrip("/")
