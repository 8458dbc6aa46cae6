"""What an operator writes under `config:` of a plugin, as a value. Its fields: `plugin_schema`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway_contract.headers import DEFAULT_KEY_HEADERS, DEFAULT_REPLAY_HEADERS
from gateway_contract.plugins import API_PRODUCT_FIELD


class ConfigError(ValueError):
    """A plugin's configuration is wrong; the message names the field."""


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """Of the plugins that decide. `key_headers` in lower case; "" where an option is not set.

    `dry_run`: limits refuse nothing, they only say what they would have refused.
    `route_id` is Kong's, where the plugin is attached to one route. `limits_only` is no option: it stands for a
    plugin that leaves scopes, addresses, entitlements and sandboxes to another one.
    """

    api_product: str
    key_headers: tuple[str, ...] = DEFAULT_KEY_HEADERS
    bearer: bool = True
    hide_key: bool = True
    consumer: bool = True
    sandbox_upstream: str = ""
    entitlement: str = ""
    dry_run: bool = False
    route_id: str = ""
    limits_only: bool = False


@dataclass(frozen=True, slots=True)
class MeterConfig:
    """Of km-usage-meter: answer header by dimension, and those by which the upstream tells of a replay.

    `replay_headers` in lower case and in the order in which they are looked for; the first one found counts.
    `concurrency`: calls that end here are released from the account's calls in flight.
    """

    unit_headers: dict[str, str] = field(default_factory=dict)
    replay_headers: tuple[str, ...] = DEFAULT_REPLAY_HEADERS
    concurrency: bool = False


def read_access_config(config: Mapping[str, Any] | None, *, limits_only: bool = False) -> AccessConfig:
    """Read what Kong sends when it starts an instance; unset optional fields may be missing or None.

    Raises:
        ConfigError: `api_product` is missing, or a field is of the wrong kind.
    """
    given = config or {}
    product = given.get(API_PRODUCT_FIELD)
    if not isinstance(product, str) or not product:
        raise ConfigError(f"{API_PRODUCT_FIELD}: the code of an API product is required")
    names = given.get("key_headers")
    if names is None:
        names = DEFAULT_KEY_HEADERS
    elif names == {}:
        names = ()  # what an empty list is in Lua's JSON
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError("key_headers: a list of header names is required")
    return AccessConfig(
        api_product=product,
        key_headers=tuple(dict.fromkeys(name.lower() for name in names)),
        bearer=_flag(given, "bearer"),
        hide_key=_flag(given, "hide_key"),
        consumer=_flag(given, "consumer"),
        sandbox_upstream=_text(given, "sandbox_upstream"),
        entitlement=_text(given, "entitlement"),
        dry_run=_flag(given, "dry_run", default=False),
        route_id=_text(given, "route_id"),
        limits_only=limits_only,
    )


def read_meter_config(config: Mapping[str, Any] | None) -> MeterConfig:
    """Raises ConfigError where `unit_headers` is no mapping of texts, or `replay_headers` no list of them."""
    given = config or {}
    units = given.get("unit_headers") or {}
    if not isinstance(units, Mapping) or not all(isinstance(header, str) for header in units.values()):
        raise ConfigError("unit_headers: a mapping of dimensions to header names is required")
    replay = given.get("replay_headers")
    if replay is None:
        replay = DEFAULT_REPLAY_HEADERS
    elif replay == {}:
        replay = ()  # what an empty list is in Lua's JSON
    if not isinstance(replay, list | tuple) or not all(isinstance(header, str) for header in replay):
        raise ConfigError("replay_headers: a list of header names is required")
    return MeterConfig(
        unit_headers={str(dimension): header for dimension, header in units.items()},
        replay_headers=tuple(sorted({header.lower() for header in replay})),
        concurrency=_flag(given, "concurrency", default=False),
    )


def _flag(config: Mapping[str, Any], name: str, *, default: bool = True) -> bool:
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: true or false is required")
    return value


def _text(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigError(f"{name}: a text is required")
    return value
