"""Settings of the gateway's side, read from the environment once per process."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway_contract.receipts import WeakSecretError, parse_secrets
from kong_plugins.parts.redis_endpoint import ClusterEndpoint, RedisEndpoint, RedisUrlError, parse_redis_url

DEFAULT_STALE_MAX_SECONDS = 60.0
DEFAULT_COLD_READS_PER_SECOND = 500.0
DEFAULT_CACHED_KEYS = 30_000  # about 6 kB each
MAX_STALE_SECONDS = 86_400.0
DEFAULT_SPOOL_RESERVE_MB = 64
_MEGABYTE = 1024 * 1024


class SettingsError(Exception):
    """An environment variable is missing or wrong. The message names it and never holds its value."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """`stale_max_seconds` is how long a known key goes on while Redis is away.

    `cold_reads_per_second` bounds look-ups of keys that do not exist. `messages_dir` holds the operator's texts.
    `spool_dir` is watched where it is set; `serves_without_spool`: calls go on where it cannot be relied on.
    """

    redis: RedisEndpoint | ClusterEndpoint
    secrets: tuple[bytes, ...] = field(repr=False)
    stale_max_seconds: float = DEFAULT_STALE_MAX_SECONDS
    cached_keys: int = DEFAULT_CACHED_KEYS
    cold_reads_per_second: float = DEFAULT_COLD_READS_PER_SECOND
    messages_dir: Path | None = None
    spool_dir: Path | None = None
    spool_reserve_bytes: int = DEFAULT_SPOOL_RESERVE_MB * _MEGABYTE
    serves_without_spool: bool = False


def read_settings(environment: Mapping[str, str] | None = None) -> GatewaySettings:
    """Read `KM_REDIS_URL`, `KM_GATEWAY_SECRET`, `KM_STALE_MAX_SECONDS`, `KM_CACHED_KEYS`,
    `KM_COLD_READS_PER_SECOND`, `KM_MESSAGES_DIR` and `KM_SPOOL_*`.

    Raises:
        SettingsError: naming the variable that is missing or wrong.
    """
    env = os.environ if environment is None else environment
    try:
        endpoint = parse_redis_url(_required(env, "KM_REDIS_URL"))
    except RedisUrlError as error:
        raise SettingsError(f"KM_REDIS_URL: {error}") from None
    try:
        secrets = parse_secrets(_required(env, "KM_GATEWAY_SECRET"))
    except WeakSecretError as error:
        raise SettingsError(f"KM_GATEWAY_SECRET: {error}") from None
    reserve_mb = _number(env, "KM_SPOOL_RESERVE_MB", default=DEFAULT_SPOOL_RESERVE_MB, at_least=0, at_most=1e9)
    return GatewaySettings(
        redis=endpoint,
        secrets=secrets,
        stale_max_seconds=_number(
            env, "KM_STALE_MAX_SECONDS", default=DEFAULT_STALE_MAX_SECONDS, at_least=0, at_most=MAX_STALE_SECONDS
        ),
        cached_keys=int(_number(env, "KM_CACHED_KEYS", default=DEFAULT_CACHED_KEYS, at_least=100, at_most=1e7)),
        cold_reads_per_second=_number(
            env, "KM_COLD_READS_PER_SECOND", default=DEFAULT_COLD_READS_PER_SECOND, at_least=2, at_most=1e6
        ),
        messages_dir=_directory(env, "KM_MESSAGES_DIR"),
        spool_dir=_directory(env, "KM_SPOOL_DIR"),
        spool_reserve_bytes=int(reserve_mb * _MEGABYTE),
        serves_without_spool=_choice(env, "KM_SPOOL_FULL", ("refuse", "serve")) == "serve",
    )


def _required(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set")
    return value


def _directory(env: Mapping[str, str], name: str) -> Path | None:
    value = env.get(name, "").strip()
    return Path(value) if value else None


def _choice(env: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    """Return the value; the first choice is the default."""
    value = env.get(name, "").strip() or choices[0]
    if value not in choices:
        raise SettingsError(f"{name} must be one of: {', '.join(choices)}")
    return value


def _number(env: Mapping[str, str], name: str, *, default: float, at_least: float, at_most: float) -> float:
    text = env.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not at_least <= value <= at_most:  # also false for not-a-number
        raise SettingsError(f"{name} must be a number from {at_least:g} to {at_most:g}")
    return value
