"""The gateway's own settings: a file in the manner of kong.conf, and nothing it would silently ignore."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devstack.gateway.plugin_servers import PluginServer

_PLAIN_KEYS = frozenset(
    {"plugins", "pluginserver_names", "declarative_config", "proxy_listen", "admin_listen", "database"}
)
_SERVER_KEY = re.compile(r"pluginserver_([a-z0-9_]+)_(socket|start_cmd|query_cmd)")
_LISTEN = re.compile(r"(?:(127\.0\.0\.1|localhost):)?(\d{1,5})")


class SettingsError(Exception):
    """The settings cannot be used; the message names the key."""


@dataclass(frozen=True)
class GatewaySettings:
    """Ports are on 127.0.0.1; `configuration` is the declarative file loaded at the start."""

    plugins: tuple[str, ...]
    servers: tuple[PluginServer, ...]
    configuration: Path | None
    proxy_port: int
    admin_port: int
    plugin_timeout_seconds: float = 60.0


def parse_conf(text: str) -> dict[str, str]:
    """`key = value` lines; `#` begins a comment. Raises SettingsError for anything else."""
    out: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if not line:
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise SettingsError(f"line {number}: expected 'key = value', got {line!r}")
        out[key.strip()] = value.strip()
    return out


def settings_from_conf(values: Mapping[str, str]) -> GatewaySettings:
    """Raises SettingsError."""
    for key in values:
        if key not in _PLAIN_KEYS and not _SERVER_KEY.fullmatch(key):
            raise SettingsError(f"{key}: is not supported by the local gateway")
    if values.get("database", "off") != "off":
        raise SettingsError("database: only 'off' is supported by the local gateway")
    names = _listed(values.get("pluginserver_names", ""))
    for key in values:
        match = _SERVER_KEY.fullmatch(key)
        if match and match[1] not in map(_in_keys, names):
            raise SettingsError(f"{key}: {match[1]!r} is not one of pluginserver_names")
    configuration = values.get("declarative_config")
    return GatewaySettings(
        plugins=tuple(_listed(values.get("plugins", "bundled"))),
        servers=tuple(_server(name, values) for name in names),
        configuration=Path(configuration) if configuration else None,
        proxy_port=_port(values, "proxy_listen", 8000),
        admin_port=_port(values, "admin_listen", 8001),
    )


def server_from_option(text: str) -> PluginServer:
    """`name=a,socket=PATH,query_cmd=...,start_cmd=...`, start_cmd last and optional. Raises SettingsError."""
    match = re.fullmatch(r"name=([a-z0-9_-]+),socket=([^,]+),query_cmd=(.+?)(?:,start_cmd=(.+))?", text)
    if match is None:
        raise SettingsError(f"--pluginserver {text!r}: expected name=N,socket=PATH,query_cmd=CMD[,start_cmd=CMD]")
    return PluginServer(name=match[1], socket=match[2], query_command=match[3], start_command=match[4])


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _in_keys(name: str) -> str:
    """Return a plugin server's name as its settings have it: Kong makes a hyphen an underscore."""
    return name.lower().replace("-", "_")


def _server(name: str, values: Mapping[str, str]) -> PluginServer:
    prefix = f"pluginserver_{_in_keys(name)}_"
    for key in ("socket", "query_cmd"):
        if not values.get(prefix + key):
            raise SettingsError(f"{prefix}{key}: required")
    return PluginServer(
        name=name,
        socket=values[f"{prefix}socket"],
        query_command=values[f"{prefix}query_cmd"],
        start_command=values.get(f"{prefix}start_cmd"),
    )


def _port(values: Mapping[str, str], key: str, default: int) -> int:
    if key not in values:
        return default
    match = _LISTEN.fullmatch(values[key])
    if match is None:
        raise SettingsError(f"{key}: expected 127.0.0.1:PORT, the local gateway listens on loopback only")
    return int(match[2])
