"""The one place where the environment is read: `KM_` variables, checked, with their defaults.

Each component gets a small frozen value of its own, made from these by whoever wires it.
"""

import importlib.util
import re
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
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from control_plane.foundation.errors import ValidationFailedError
from control_plane.notifications.model import parse_address
from control_plane.usage.ingest.model import MAX_EVENTS
from control_plane.usage.retention import MAXIMUM_DAYS, MINIMUM_DAYS
from gateway_contract.cluster_urls import is_cluster_url, parse_cluster_url
from gateway_contract.kafka import DEFAULT_GROUP, DEFAULT_TOPIC, EXTRA_MISSING, KafkaAddress
from gateway_contract.receipts import WeakSecretError, parse_secrets

_URL = TypeAdapter(HttpUrl)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_STRIPE_KEY = re.compile(r"(sk|rk)_(test|live)_[A-Za-z0-9_]{8,}")
_STRIPE_SECRETS = re.compile(r" *whsec_[A-Za-z0-9+/=_-]{8,} *(, *whsec_[A-Za-z0-9+/=_-]{8,} *)*")


class SettingsError(ValueError):
    """The environment does not make sense; one line for each variable at fault, values left out."""


class Settings(BaseSettings):
    """Everything a process of the control plane can be told. docs/settings.md is made from this (`make docs`)."""

    model_config = SettingsConfigDict(env_prefix="KM_", extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: str = Field(
        pattern=r"^postgresql\+psycopg://",
        description="PostgreSQL: `postgresql+psycopg://user:password@host/name`.",
    )
    redis_url: str = Field(
        pattern=r"^((redis|rediss)(\+cluster)?|unix)://",
        description="Redis or Valkey that the gateway uses: one server, or a cluster (`redis+cluster://`).",
    )
    clickhouse_dsn: str = Field(
        pattern=r"^(chdb|clickhouse|clickhouses|http|https)://",
        description="The event store: `chdb:///directory` inside one process, `clickhouse://...` for a server.",
    )
    clickhouse_cluster: str = Field(
        default="", max_length=100, description="A cluster that this ClickHouse server knows; none if empty."
    )
    clickhouse_insert_quorum: Literal["all", "majority"] = Field(
        default="all", description="How many replicas must have events before they count as stored."
    )
    gateway_secret: SecretStr = Field(
        description="32 characters or more, as on the gateways; several with commas: the first signs, all verify."
    )
    gateway_nodes: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Addresses of Kong's Admin API, with commas: where configuration is pushed to."
    )
    kong_config: Path = Field(default=Path("kong.yml"), description="The base kong.yml that plugins are added to.")
    usage_spool_path: Path = Field(
        default=Path("/var/spool/kong-monetize/usage.log"), description="Where file-log writes on the gateways."
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=8090, ge=0, le=65535, description="The port to listen on; 0 takes a free one.")
    public_url: str = Field(
        default="http://127.0.0.1:8090",
        description="How callers reach the portal: links in 429 answers lead there.",
    )
    hour_lateness_seconds: int = Field(
        default=120, ge=0, le=86_400, description="How long after its end an hour is sealed at the earliest."
    )
    shipper_silence_seconds: int = Field(
        default=120, ge=1, le=86_400, description="After how long without news a shipper is called silent."
    )
    event_retention_days: int = Field(
        default=MINIMUM_DAYS,
        ge=MINIMUM_DAYS,
        le=MAXIMUM_DAYS,
        description="How long events are kept at least; a plan may promise more.",
    )
    hourly_retention_days: int = Field(
        default=400,
        ge=91,
        le=36_600,
        description="How long figures are kept by the hour; daily ones stay. Longer than KM_EVENT_RETENTION_DAYS.",
    )
    usage_shards: int = Field(
        default=1, ge=1, le=256, description="Streams of usage in Redis; the same on every shipper."
    )
    usage_source: Literal["redis", "kafka"] = Field(
        default="redis", description="Where usage comes from; `kafka`: from there as well as from Redis."
    )
    kafka_bootstrap_servers: str = Field(default="", description="Brokers, with commas: `host:9092,...`.")
    kafka_topic: str = Field(default=DEFAULT_TOPIC, description="The topic of usage.")
    kafka_group: str = Field(default=DEFAULT_GROUP, description="The collectors' consumer group.")
    kafka_protocol: str = Field(
        default="PLAINTEXT", description="`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`."
    )
    kafka_sasl_mechanism: str = Field(
        default="SCRAM-SHA-512", description="`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`."
    )
    kafka_username: str = Field(default="", description="For SASL.")
    kafka_password: SecretStr = Field(default=SecretStr(""), description="For SASL.")
    kafka_ca_file: str = Field(default="", description="Who signs the brokers' certificates.")
    kafka_cert_file: str = Field(default="", description="Our own certificate, where brokers ask for one.")
    kafka_key_file: str = Field(default="", description="The key of our own certificate.")
    ingest_events_per_second: int = Field(
        default=10_000, ge=0, le=1_000_000, description="What one token may report; 0 is no limit."
    )
    ingest_burst_events: int = Field(
        default=60_000, ge=MAX_EVENTS, le=100_000_000, description="What one token may report at once."
    )
    export_dir: Path | None = Field(
        default=None,
        description="Where exports write, shared by all servers; beside the embedded event store if left out.",
    )
    export_keep_hours: int = Field(default=24, ge=1, le=24 * 90, description="How long a file of an export stays.")
    export_max_rows: int = Field(default=20_000_000, ge=1, le=10**10, description="Rows of one export at most.")
    export_max_mb: int = Field(default=4096, ge=1, le=10**7, description="The size of one export at most.")
    invoice_grace_hours: int = Field(
        default=1, ge=0, le=24 * 14, description="How long after its period an invoice stays a draft at least."
    )
    invoice_max_wait_hours: int = Field(
        default=72,
        ge=1,
        le=24 * 21,
        description="After how long an invoice is made final though usage of its period is not sealed.",
    )
    invoice_due_days: int = Field(default=14, ge=0, le=365, description="How long there is to pay an invoice.")
    credit_write_off_hours: int = Field(
        default=72,
        ge=1,
        le=24 * 90,
        description="How long after it expired a credit grant still pays for what was used before.",
    )
    overdue_grace_days: int = Field(
        default=7, ge=0, le=365, description="How long after its due date an unpaid invoice makes it `past_due`."
    )
    seller_name: str = Field(default="", max_length=200, description="Who sells: stands on invoices.")
    seller_address: str = Field(default="", max_length=1000, description="The seller's address, lines with `;`.")
    seller_country: str = Field(
        default="", pattern="^([A-Z]{2})?$", description="The seller's country, ISO 3166; taxes depend on it."
    )
    seller_tax_id: str = Field(default="", max_length=100, description="The seller's tax id.")
    seller_email: str = Field(default="", max_length=200, description="Where to ask about invoices.")
    payment_note: str = Field(default="", max_length=2000, description="How to pay: stands on open invoices.")
    brand_name: str = Field(
        default="", max_length=200, description="Who writes: stands on mails. KM_SELLER_NAME if left out."
    )
    support_email: str = Field(
        default="", max_length=200, description="Where mails say to ask; KM_SELLER_EMAIL if left out."
    )
    smtp_host: str = Field(
        default="", max_length=255, description="The mail server; if empty, mails are queued and not sent."
    )
    smtp_port: int = Field(
        default=587, ge=1, le=65535, description="The mail server's port: 587, or 465 for `tls`."
    )
    smtp_tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="`starttls`: required after connecting; `tls`: from the start; or `none`."
    )
    smtp_username: str = Field(
        default="", max_length=200, description="Who logs in at the mail server, if anybody."
    )
    smtp_password: SecretStr = Field(default=SecretStr(""), description="The password of KM_SMTP_USERNAME.")
    smtp_ca_file: str = Field(
        default="", description="Who signs the mail server's certificate; those that the system trusts if empty."
    )
    smtp_timeout_seconds: float = Field(
        default=30.0, ge=1, le=60, description="How long each answer of the mail server is waited for."
    )
    mail_from: str = Field(
        default="",
        max_length=400,
        validate_default=True,
        description="From whom mails are: `Weather API <billing@example.com>`.",
    )
    dunning_grace_days: int = Field(
        default=14,
        ge=0,
        le=365,
        description="How long a `past_due` subscription is served before it is held back.",
    )
    dunning_after: Literal["block", "free", "serve"] = Field(
        default="block",
        description="What holds then: calls are refused (`block`), the limits of KM_DUNNING_FREE_PLAN (`free`), or"
        " nothing changes (`serve`).",
    )
    dunning_free_plan: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("free",), description="Codes of free plans, with commas: one for each API product."
    )
    dunning_by_plan: dict[str, Literal["block", "free", "serve"]] = Field(
        default_factory=dict, description='JSON: another KM_DUNNING_AFTER for plans by code: `{"growth": "free"}`.'
    )
    trial_notice_days: int = Field(
        default=3, ge=0, le=60, description="How long before its end customers are told of a trial; 0: not at all."
    )
    pdf_fonts: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="Fonts, with commas, for letters that PDFs lack: TrueType or OpenType files."
    )
    sink_dir: Path | None = Field(
        default=None, description="Where sinks write files of days; beside the embedded event store if left out."
    )
    sink_authorizations: dict[str, SecretStr] = Field(
        default_factory=dict, description="JSON: the Authorization header of http sinks, by the sink's name."
    )
    sink_allow_private: bool = Field(default=False, description="Whether sinks may be in private networks.")

    stripe_key: SecretStr = Field(
        default=SecretStr(""),
        description="Stripe's secret or, better, restricted key; Stripe is off if empty.",
    )
    stripe_api_base: str = Field(default="", description="Where Stripe is asked, if not at Stripe: a simulator.")
    stripe_webhook_secret: SecretStr = Field(
        default=SecretStr(""),
        description="Signs Stripe's webhooks (`whsec_...`; `km stripe setup` tells it), several with commas while"
        " one replaces another; none are taken if empty.",
    )
    stripe_thin_secret: SecretStr = Field(
        default=SecretStr(""), description="The same for thin events, which tell of errors in reported usage."
    )
    stripe_tax: bool = Field(
        default=False,
        description="Whether Stripe computes taxes; it needs registrations there (`km stripe doctor`).",
    )
    stripe_installation: str = Field(
        default="main",
        pattern=r"^[a-z][a-z0-9-]{0,15}$",
        description="Names what is ours at Stripe; another for each installation that shares a Stripe account.",
    )

    stripe_event_body_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="How long the bodies of Stripe's webhooks are kept; what became of each event stays known.",
    )

    @field_validator("stripe_key")
    @classmethod
    def _stripe_key(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not _STRIPE_KEY.fullmatch(value.get_secret_value()):
            raise ValueError(
                "must be a secret or restricted key of Stripe's: sk_test_, rk_test_, sk_live_ or rk_live_"
            )
        return value

    @field_validator("stripe_webhook_secret", "stripe_thin_secret")
    @classmethod
    def _stripe_secret(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value() and not _STRIPE_SECRETS.fullmatch(value.get_secret_value()):
            raise ValueError("must be a signing secret of Stripe's: whsec_..., or several with commas")
        return value

    @field_validator("stripe_api_base")
    @classmethod
    def _stripe_base(cls, value: str) -> str:
        return _checked_url(value) if value else ""

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

    @field_validator("gateway_nodes", "pdf_fonts", "dunning_free_plan", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
        )

    @field_validator("pdf_fonts")
    @classmethod
    def _readable(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for path in value:
            if not path.is_file():
                raise ValueError(f"there is no file {path}")
        return value

    @field_validator("gateway_nodes")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_checked_url(address) for address in value)

    @field_validator("public_url")
    @classmethod
    def _address(cls, value: str) -> str:
        return _checked_url(value)

    @field_validator("mail_from")
    @classmethod
    def _sender(cls, value: str, info: ValidationInfo) -> str:
        if not value and not info.data.get("smtp_host"):
            return value
        try:
            parse_address(value)
        except ValidationFailedError as error:
            raise ValueError("must be an email address when KM_SMTP_HOST is set") from error
        return value

    @model_validator(mode="after")
    def _password_stays_secret(self) -> Self:
        if self.smtp_username and self.smtp_tls == "none" and self.smtp_host not in _LOOPBACK:
            raise ValueError("KM_SMTP_TLS: a password would cross the network in the clear: use starttls or tls")
        return self

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
        lines = [_told(found) for found in error.errors(include_url=False)]
        raise SettingsError("\n".join(lines)) from error


def _told(found: ErrorDetails) -> str:
    if not found["loc"]:  # what is wrong with several together has no place of its own, and names them itself
        return found["msg"].removeprefix("Value error, ")
    name, message = str(found["loc"][0]), found["msg"]
    if found["type"] == "string_pattern_mismatch":
        message = f"does not look right. It is: {Settings.model_fields[name].description}"
    return f"KM_{name.upper()}: {message}"


def _checked_url(text: str) -> str:
    _URL.validate_python(text)
    return text.rstrip("/")
