"""`python -m devstack.gateway`."""

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from devstack.gateway.gateway import Gateway
from devstack.gateway.plugin_servers import PluginServerError
from devstack.gateway.problems import ConfigurationInvalidError
from devstack.gateway.settings import (
    GatewaySettings,
    SettingsError,
    parse_conf,
    server_from_option,
    settings_from_conf,
)

DESCRIPTION = (
    "The local gateway of kong-monetize. It STANDS IN FOR KONG IN DEVELOPMENT AND TESTS ONLY: it loads the same"
    " declarative configuration and speaks Kong's plugin protocol, on loopback, without TLS, in one process."
    " What it does not support it refuses by name. In production run Kong."
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr,
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        gateway = Gateway(_settings(options))
    except (SettingsError, PluginServerError, ConfigurationInvalidError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _run(_serve(gateway))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devstack.gateway", description=DESCRIPTION)
    parser.add_argument("--config", type=Path, help="declarative configuration (kong.yml) to load at the start")
    parser.add_argument("--conf", type=Path, help="settings in the manner of kong.conf (plugins, pluginserver_*)")
    parser.add_argument("--proxy-port", type=int, help="port for requests on 127.0.0.1 (8000)")
    parser.add_argument("--admin-port", type=int, help="port of the Admin API on 127.0.0.1 (8001)")
    parser.add_argument("--plugins", help="enabled plugins, as in kong.conf: bundled,km-monetize")
    parser.add_argument(
        "--pluginserver",
        action="append",
        default=[],
        metavar="name=N,socket=PATH,query_cmd=CMD[,start_cmd=CMD]",
        help="a plugin server; repeat for more",
    )
    parser.add_argument(
        "--plugin-timeout-seconds",
        type=float,
        default=60.0,
        help="longest wait for one frame from a plugin server (60, as in Kong)",
    )
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def _settings(options: argparse.Namespace) -> GatewaySettings:
    values = parse_conf(options.conf.read_text()) if options.conf else {}
    settings = settings_from_conf(values)
    changes: dict[str, Any] = {"plugin_timeout_seconds": options.plugin_timeout_seconds}
    if options.config:
        changes["configuration"] = options.config
    if options.proxy_port is not None:
        changes["proxy_port"] = options.proxy_port
    if options.admin_port is not None:
        changes["admin_port"] = options.admin_port
    if options.plugins:
        changes["plugins"] = tuple(name.strip() for name in options.plugins.split(","))
    added = tuple(server_from_option(text) for text in options.pluginserver)
    return dataclasses.replace(settings, servers=settings.servers + added, **changes)


async def _serve(gateway: Gateway) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await gateway.start()
    logging.getLogger("gateway").info("local gateway (stands in for Kong in development and tests) is ready")
    await stopping.wait()
    await gateway.stop()


def _run(main_task: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.run(main_task)
        return
    asyncio.run(main_task)


if __name__ == "__main__":
    sys.exit(main())
