"""The server's settings, from the command line or `KM_PLUGINSERVER_*`."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kong_plugins.server.logs import LEVELS
from kong_plugins.server.registry import PluginSources

PREFIX: Final = "KM_PLUGINSERVER_"
DEFAULT_SOCKET: Final = "/usr/local/kong/km-pluginserver.sock"
DEFAULT_MAX_WORKERS: Final = 4
ALL: Final = "all"
LONGEST_SOCKET_PATH: Final = 90  # the system's 107, less what the name it is bound under first takes


@dataclass(frozen=True, slots=True)
class Options:
    socket: Path
    socket_mode: int
    env_file: Path | None
    workers: int
    plugins: tuple[str, ...] | None
    sources: PluginSources
    metrics_host: str
    metrics_port: int | None
    event_timeout_seconds: float
    wedged_after_seconds: float
    stop_seconds: float
    instance_expiry_seconds: float
    replace: bool
    wait_seconds: float
    outlive_parent: bool
    log_level: str
    dump: str | None


def parse_options(arguments: list[str] | None = None) -> Options:
    """Return the settings; ends the process with a usage message where they make no sense."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.workers < 1 or given.workers > 64:  # noqa: PLR2004 - more than any gateway has cores for
        parser.error("--workers is 1 to 64")
    if len(os.fsencode(given.socket.absolute())) > LONGEST_SOCKET_PATH:
        parser.error(f"--socket: the path is longer than {LONGEST_SOCKET_PATH} bytes")
    if given.plugins_dir is not None and not given.plugins_dir.is_dir():
        parser.error(f"--plugins-dir: {given.plugins_dir} is no directory")
    times = (given.event_timeout_seconds, given.wedged_after_seconds, given.instance_expiry_seconds)
    if min(times) <= 0 or given.stop_seconds < 0:
        parser.error("seconds are above 0")
    values = vars(given)
    entries = [entry.partition("=") for entry in _list(values.pop("plugins"))]
    lua_style = values.pop("lua_style")
    sources = PluginSources(
        directory=values.pop("plugins_dir"),
        modules={name.strip(): place.strip() for name, _, place in entries if place.strip()},
        lua_style=None if lua_style == ALL else frozenset(_list(lua_style)),
    )
    names = tuple(name.strip() for name, _, _ in entries) or None
    return Options(**values | {"plugins": names, "sources": sources, "socket": given.socket.absolute()})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="km-pluginserver",
        description="Serves Kong plugins written in Python over Kong's ProtoBuf:1 protocol.",
        epilog=f"Every option can be given as {PREFIX}NAME in the environment, --socket as {PREFIX}SOCKET.",
    )

    def option(flag: str, default: Any, help_text: str, **more: Any) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        parser.add_argument(flag, default=os.environ.get(PREFIX + name.upper(), default), help=help_text, **more)

    def switch(flag: str, help_text: str) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        on = os.environ.get(PREFIX + name.upper(), "") in ("1", "true", "yes", "on")
        parser.add_argument(flag, action="store_true", default=on, help=help_text)

    cores = min(os.cpu_count() or 1, DEFAULT_MAX_WORKERS)
    parser.add_argument("--dump", metavar="NAME", help="print what Kong's query_cmd wants of one plugin, and end")
    option("--socket", DEFAULT_SOCKET, "unix socket Kong connects to (%(default)s)", type=Path)
    option("--socket-mode", "666", "who may connect, in octal; Kong's workers have to (%(default)s)", type=_mode)
    option("--env-file", None, "file of NAME=VALUE lines for the plugins, secrets above all", type=Path)
    option("--workers", cores, "processes (one for each core, at most 4: %(default)s)", type=int)
    option("--plugins", None, "comma-separated plugins: NAME, NAME=MODULE or NAME=FILE.py (all there are)")
    option("--plugins-dir", None, "directory of more plugins, kong-pdk's: each .py file in it", type=Path)
    option(
        "--lua-style",
        None,
        "comma-separated names of plugins that PDK methods return (data, error) to; without names: all but ours",
        nargs="?",
        const=ALL,
    )
    option("--metrics-port", None, "port of /metrics, /healthz and /readyz (none; 0 picks one)", type=int)
    option("--metrics-host", "127.0.0.1", "address of that port (%(default)s)")
    option("--event-timeout-seconds", 5.0, "longest a phase may take (%(default)s)", type=float)
    option("--wedged-after-seconds", 1.0, "a worker silent for so long is killed (%(default)s)", type=float)
    option("--stop-seconds", 10.0, "longest wait for running events at a stop (%(default)s)", type=float)
    option("--instance-expiry-seconds", 3600.0, "idle instances are dropped after (%(default)s)", type=float)
    option("--wait-seconds", 30.0, "wait so long for another server to leave the socket (%(default)s)", type=float)
    option("--log-level", "info", "least level to log (%(default)s)", choices=LEVELS)
    switch("--replace", "take the socket over from another live server at once")
    switch("--outlive-parent", "do not end when the process that started this one ends")
    return parser


def _list(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _mode(text: str) -> int:
    mode = int(text, 8)
    if not 0o600 <= mode <= 0o777:  # noqa: PLR2004 - the server's own user has to connect too
        raise ValueError(text)
    return mode
