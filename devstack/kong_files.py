"""The two files the stack's gateway reads: a copy of kong.yml for this machine, and its settings."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gateway_contract import plugins

SAMPLE_SERVICE = "weather"
FILE_LOG = "file-log"
LIVE_FILE = "usage.log"
_SERVER_NAMES = {name: name.removeprefix("km-").replace("-", "_") for name in plugins.ALL}


def render_base_config(base: str, *, upstream_port: int, spool_dir: Path) -> str:
    """Return kong.yml with the sample service at `upstream_port` on loopback and file-log writing to `spool_dir`.

    Kong has no variables in its configuration, so the development stack works on a changed copy. All else,
    comments excepted, stays.
    """
    document: dict[str, Any] = yaml.safe_load(base)
    for service in document.get("services") or []:
        if service.get("name") == SAMPLE_SERVICE:
            service.pop("url", None)
            service |= {"host": "127.0.0.1", "port": upstream_port, "protocol": "http"}
    for plugin in document.get("plugins") or []:
        if plugin.get("name") == FILE_LOG:
            plugin["config"]["path"] = str(spool_dir / LIVE_FILE)
    return yaml.safe_dump(document, sort_keys=False, width=float("inf"))


def render_gateway_conf(
    *,
    socket: Path,
    configuration: Path,
    proxy_port: int,
    admin_port: int,
    metrics_port: int,
    workers: int,
    environment: Mapping[str, str],
) -> str:
    """Return settings with the keys of a real kong.conf: one name for each plugin, one shared server.

    `environment` is what the plugin server runs with: Kong gives it none of its own.
    """
    command = f"{shlex.quote(sys.executable)} -m kong_plugins.server.main"
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(environment.items()))
    path = f"PYTHONPATH={shlex.quote(environment['PYTHONPATH'])}"
    start = f"env {variables} {command} --socket {shlex.quote(str(socket))} --workers {workers}"
    lines = [
        f"plugins = bundled,{','.join(plugins.ALL)}",
        f"pluginserver_names = {','.join(_SERVER_NAMES.values())}",
        f"declarative_config = {configuration}",
        f"proxy_listen = 127.0.0.1:{proxy_port}",
        f"admin_listen = 127.0.0.1:{admin_port}",
    ]
    for position, (plugin, name) in enumerate(_SERVER_NAMES.items()):
        lines.append(f"pluginserver_{name}_socket = {socket}")
        lines.append(f"pluginserver_{name}_query_cmd = env {path} {command} --dump {plugin}")
        if position == 0:
            lines.append(f"pluginserver_{name}_start_cmd = {start} --metrics-port {metrics_port}")
    return "\n".join(lines) + "\n"
