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

    `anonymous` is the hash of the key under which calls without one go on. `method_scopes` in the order of the
    methods, each named once.
    `dry_run`: limits refuse nothing, they only say what they would have refused.
    `route_id` is Kong's, where the plugin is attached to one route. `limits_only` is no option: it stands for a
    plugin that leaves scopes, addresses, entitlements and sandboxes to another one.
    """

    api_product: str
    key_headers: tuple[str, ...] = DEFAULT_KEY_HEADERS
    bearer: bool = True
    key_query: tuple[str, ...] = ()
    imported_keys: bool = False
    hide_key: bool = True
    anonymous: str = ""
    consumer: bool = True
    sandbox_upstream: str = ""
    entitlement: str = ""
    scopes: tuple[str, ...] = ()
    method_scopes: tuple[tuple[str, tuple[str, ...]], ...] = ()
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
    return AccessConfig(
        api_product=product,
        key_headers=_lower(_texts(given, "key_headers", default=DEFAULT_KEY_HEADERS)),
        bearer=_flag(given, "bearer"),
        key_query=_texts(given, "key_query"),
        imported_keys=_flag(given, "imported_keys", default=False),
        hide_key=_flag(given, "hide_key"),
        anonymous=_text(given, "anonymous").lower(),
        consumer=_flag(given, "consumer"),
        sandbox_upstream=_text(given, "sandbox_upstream"),
        entitlement=_text(given, "entitlement"),
        scopes=_texts(given, "scopes"),
        method_scopes=_method_scopes(given),
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
    return MeterConfig(
        unit_headers={str(dimension): header for dimension, header in units.items()},
        replay_headers=tuple(sorted(_lower(_texts(given, "replay_headers", default=DEFAULT_REPLAY_HEADERS)))),
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


def _texts(config: Mapping[str, Any], name: str, *, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the texts without repetition, in their order."""
    value = config.get(name)
    if value is None:
        return default
    if value == {}:
        return ()  # what an empty list is in Lua's JSON
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{name}: a list of texts is required")
    return tuple(dict.fromkeys(value))


def _lower(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.lower() for name in names))


def _method_scopes(config: Mapping[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    value = config.get("method_scopes") or {}
    if not isinstance(value, Mapping):
        raise ConfigError("method_scopes: a mapping of methods to scopes is required")
    try:
        scopes = {str(method).upper(): _texts(value, method) for method in value}
    except ConfigError as error:
        raise ConfigError(f"method_scopes.{error}") from None
    return tuple(sorted(scopes.items()))
