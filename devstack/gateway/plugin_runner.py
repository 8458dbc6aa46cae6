"""Instances of plugins in their servers, and the repetition of events that Kong does."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from devstack.gateway.entities import WORKSPACE_ID, Plugin
from devstack.gateway.exchange import to_json
from devstack.gateway.pdk_call import PdkCall
from devstack.gateway.plugin_rpc import (
    PluginProtocolError,
    PluginServerClient,
    PluginServerClosedError,
    PluginServerDownError,
    PluginServerTimeoutError,
)
from devstack.gateway.plugin_servers import PluginInfo

# Kong repeats for ever while the server closes the connection; a plugin that always crashes it would spin
MAX_ATTEMPTS = 3

logger = logging.getLogger("gateway.plugins")

SERVER_ERRORS = (
    PluginServerDownError,
    PluginServerClosedError,
    PluginServerTimeoutError,
    PluginProtocolError,
)


class EventFailedError(Exception):
    """The plugin server could not handle the event; Kong answers 500."""


@dataclass
class _Instance:
    id: int
    sequence: int
    plugin_name: str


class PluginRunner:
    """Runs events in plugin servers. One instance per plugin of the configuration, started when first needed."""

    def __init__(self, catalog: dict[str, PluginInfo], *, timeout_seconds: float) -> None:
        self._catalog = catalog
        self._clients: dict[str, PluginServerClient] = {}
        for info in catalog.values():
            socket = info.server.socket
            self._clients.setdefault(socket, PluginServerClient(socket, timeout_seconds=timeout_seconds))
        self._instances: dict[str, _Instance] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def has_phase(self, plugin: Plugin, phase: str) -> bool:
        info = self._catalog.get(plugin.name)
        return info is not None and phase in info.phases

    async def run(self, plugin: Plugin, phase: str, call: PdkCall) -> None:
        """Run one phase of one plugin.

        Raises EventFailedError, and what `PluginServerClient.handle_event` raises on the plugin's own behalf.
        """
        client = self._client(plugin)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                instance_id = await self._instance_id(plugin, client)
                await client.handle_event(instance_id, phase, call)
            except PluginServerClosedError as error:
                logger.warning("%s: %s (attempt %d)", plugin.name, error, attempt)
                self._forget_instances(plugin.name)
            except (PluginServerDownError, PluginServerTimeoutError, PluginProtocolError) as error:
                raise EventFailedError(f"pluginserver error: {error}") from error
            else:
                return
        raise EventFailedError(f"the plugin server closed the connection {MAX_ATTEMPTS} times in a row")

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _client(self, plugin: Plugin) -> PluginServerClient:
        return self._clients[self._catalog[plugin.name].server.socket]

    async def _instance_id(self, plugin: Plugin, client: PluginServerClient) -> int:
        known = self._instances.get(plugin.id)
        if known is not None and known.sequence >= plugin.sequence:
            # a request that still runs on the configuration before the last push uses the newer instance
            return known.id
        async with self._locks.setdefault(plugin.id, asyncio.Lock()):
            known = self._instances.get(plugin.id)
            if known is not None and known.sequence >= plugin.sequence:
                return known.id
            started = await client.start_instance(plugin.name, to_json(instance_config(plugin)))
            self._instances[plugin.id] = _Instance(started, plugin.sequence, plugin.name)
        if known is not None:
            await self._close_instance(client, known.id)
        return started

    async def _close_instance(self, client: PluginServerClient, instance_id: int) -> None:
        try:
            await client.close_instance(instance_id)
        except SERVER_ERRORS as error:
            # Kong does not mind either: somebody else may have closed it
            logger.info("closing instance %d: %s", instance_id, error)

    def _forget_instances(self, plugin_name: str) -> None:
        for key in [key for key, one in self._instances.items() if one.plugin_name == plugin_name]:
            del self._instances[key]


def instance_config(plugin: Plugin) -> dict[str, Any]:
    """What StartInstance carries: our fields and Kong's own beside them."""
    own = {
        "__key__": plugin.key,
        "__seq__": plugin.sequence,
        "__plugin_id": plugin.id,
        "__ws_id": WORKSPACE_ID,
        "route_id": plugin.route_id,
        "service_id": plugin.service_id,
    }
    return plugin.config | {name: value for name, value in own.items() if value is not None}
