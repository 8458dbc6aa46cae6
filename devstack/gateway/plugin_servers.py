"""The plugin servers of a configuration file: asked for their plugin, started, watched, stopped."""

import asyncio
import json
import logging
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import Any

from devstack.children import Child, start_child
from devstack.gateway.schema import Fields, SchemaError, check_rules, field_rules

PROTOCOL = "ProtoBuf:1"
PHASES = frozenset({"access", "log"})
RESTART_SECONDS = 1.0
STOP_SECONDS = 10.0
QUERY_SECONDS = 60.0

logger = logging.getLogger("gateway.plugin_servers")


class PluginServerError(Exception):
    """A plugin server's query command failed, or described something this gateway cannot run."""


@dataclass(frozen=True)
class PluginServer:
    """One name of `pluginserver_names`. Without a start command it is taken to run already."""

    name: str
    socket: str
    start_command: str | None
    query_command: str


@dataclass(frozen=True)
class PluginInfo:
    """What a query command says of its plugin."""

    name: str
    priority: int
    version: str
    phases: frozenset[str]
    config_fields: Fields
    server: PluginServer


def query_plugin(server: PluginServer) -> PluginInfo:
    """Run the query command, as Kong does at its start; only the first plugin it names counts.

    Raises PluginServerError.
    """
    try:
        result = subprocess.run(
            ["/bin/sh", "-c", server.query_command],
            capture_output=True,
            check=False,
            timeout=QUERY_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        dump = json.loads(result.stdout)
    except (json.JSONDecodeError, UnicodeDecodeError, subprocess.TimeoutExpired) as error:
        raise PluginServerError(f"failed decoding plugin info of {server.name!r}: {error}") from error
    if not isinstance(dump, dict) or dump.get("Protocol") != PROTOCOL:
        raise PluginServerError(
            f"plugin server {server.name!r} does not say Protocol {PROTOCOL}: Kong would speak MsgPack:1,"
            " which lets requests through when the server is down; the local gateway does not speak it"
        )
    plugins = dump.get("Plugins")
    if not isinstance(plugins, list) or not plugins:
        raise PluginServerError(f"plugin server {server.name!r} names no plugin")
    return _plugin_info(plugins[0], server)


def _plugin_info(info: dict[str, Any], server: PluginServer) -> PluginInfo:
    name = str(info["Name"])
    phases = frozenset(info["Phases"])
    if not phases <= PHASES:
        unsupported = ", ".join(sorted(phases - PHASES))
        raise PluginServerError(f"plugin {name!r}: phase {unsupported} is not supported by the local gateway")
    fields = field_rules(info["Schema"]["fields"])
    config = fields.get("config", {"type": "record", "fields": []})
    try:
        _check_fields(config["fields"])
    except SchemaError as error:
        raise PluginServerError(f"schema of plugin {name!r}: {error}") from error
    return PluginInfo(
        name=name,
        priority=int(info["Priority"]),
        version=str(info["Version"]),
        phases=phases,
        config_fields=config["fields"],
        server=server,
    )


def _check_fields(fields: Fields) -> None:
    for rules in field_rules(fields).values():
        check_rules(rules)
        for inner in ("elements", "keys", "values"):
            if inner in rules:
                _check_fields([{inner: rules[inner]}])
        if "fields" in rules:
            _check_fields(rules["fields"])


class PluginServerProcess:
    """Keeps one start command running until `stop`."""

    def __init__(self, server: PluginServer) -> None:
        self.server = server
        self._child: Child | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process as it was started last; None before that."""
        return self._child.pid if self._child is not None and self._child.exit_code() is None else None

    def start(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """SIGTERM as Kong sends it; killed when it does not end."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._child is not None and self._child.exit_code() is None:
            child = self._child
            await asyncio.to_thread(child.stop, number=signal.SIGTERM, timeout_seconds=STOP_SECONDS)

    async def _watch(self) -> None:
        while True:
            self._child = self._spawn()
            logger.info("[pluginserver] started %s, pid %d", self.server.name, self._child.pid)
            while (code := self._child.exit_code()) is None:  # noqa: ASYNC110 - the kernel sets no asyncio.Event
                await asyncio.sleep(0.05)
            logger.warning("[pluginserver] %s ended with %d; starting it again", self.server.name, code)
            await asyncio.sleep(RESTART_SECONDS)

    def _spawn(self) -> Child:
        return start_child(
            ["/bin/sh", "-c", f"exec {self.server.start_command}"],
            # as under nginx: nothing of our environment reaches it but what the command itself sets
            env={"PATH": os.defpath},
            inherit_output=True,
        )
