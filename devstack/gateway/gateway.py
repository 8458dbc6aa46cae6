"""The gateway as a whole: listeners, plugin servers, configuration."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from devstack.gateway.admin import AdminApi
from devstack.gateway.declarative import load_configuration
from devstack.gateway.entities import EMPTY, Configuration
from devstack.gateway.http_server import Handler, ServerConnection
from devstack.gateway.plugin_catalog import PluginCatalog
from devstack.gateway.plugin_runner import PluginRunner
from devstack.gateway.plugin_servers import PluginServerProcess, query_plugin
from devstack.gateway.proxy import Proxy
from devstack.gateway.settings import GatewaySettings

LOOPBACK = "127.0.0.1"
DRAIN_SECONDS = 5.0
BACKLOG = 2048

logger = logging.getLogger("gateway")


class Gateway:
    """Built from settings (runs the query commands), then started on a running event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Raises PluginServerError, ConfigurationInvalidError, OSError (no such configuration file)."""
        self._settings = settings
        with ThreadPoolExecutor() as pool:
            plugins = list(pool.map(query_plugin, settings.servers))
        self._catalog = PluginCatalog(plugins, enabled=settings.plugins)
        self._next_sequence = 1
        configuration = EMPTY
        if settings.configuration is not None:
            configuration = self._load(settings.configuration.read_text())
        runner = PluginRunner(self._catalog.external, timeout_seconds=settings.plugin_timeout_seconds)
        self._proxy = Proxy(configuration, runner)
        self._processes = [PluginServerProcess(server) for server in settings.servers if server.start_command]
        self._listeners: list[asyncio.Server] = []
        self._connections: set[ServerConnection] = set()

    @property
    def configuration(self) -> Configuration:
        return self._proxy.configuration

    def push(self, text: str) -> Configuration:
        """Load and apply a configuration whole; raises ConfigurationInvalidError and then changes nothing."""
        configuration = self._load(text)
        self._proxy.apply(configuration)
        return configuration

    def description(self) -> dict[str, Any]:
        return {
            "plugins": {"available_on_server": dict.fromkeys(sorted(self._catalog.external), True)},
            "pluginservers": {process.server.name: process.pid for process in self._processes},
        }

    async def start(self) -> None:
        """Start plugin servers and listen. Until the plugin servers listen, too, their routes answer 500."""
        for process in self._processes:
            process.start()
        await self._listen(self._settings.proxy_port, self._proxy.handle)
        await self._listen(self._settings.admin_port, AdminApi(self).handle)

    async def stop(self) -> None:
        """Finish running requests (for a few seconds), then stop the plugin servers."""
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        tasks = [one.task for one in self._connections if one.task is not None and not one.task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
        await self._proxy.close()
        for process in self._processes:
            await process.stop()

    def _load(self, text: str) -> Configuration:
        configuration = load_configuration(text, catalog=self._catalog, first_sequence=self._next_sequence)
        self._next_sequence += len(configuration.entities.get("plugins", {}))
        return configuration

    async def _listen(self, port: int, handler: Handler) -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: ServerConnection(handler, self._connections), LOOPBACK, port, backlog=BACKLOG
        )
        self._listeners.append(server)
