"""Which plugins a configuration may use."""

from collections.abc import Iterable, Mapping
from typing import Any

from devstack.gateway import file_log
from devstack.gateway.plugin_servers import PluginInfo
from devstack.gateway.schema import process_record

_BUNDLED_IN_KONG = "bundled"


class PluginCatalog:
    """The plugins of the plugin servers that the `plugins` setting enables, and file-log."""

    def __init__(self, external: Iterable[PluginInfo], *, enabled: Iterable[str]) -> None:
        self.external = {info.name: info for info in external}
        self._enabled = frozenset(enabled)

    def priority(self, name: str) -> int | None:
        if name == file_log.NAME and _BUNDLED_IN_KONG in self._enabled:
            return file_log.PRIORITY
        if name in self.external and name in self._enabled:
            return self.external[name].priority
        return None

    def why_not(self, name: str) -> str:
        if name in self._enabled:
            return f"plugin '{name}' is enabled but no plugin server offers it"
        if name in self.external or name == file_log.NAME:
            return f"plugin '{name}' not enabled; add it to the 'plugins' configuration property"
        return f"plugin '{name}' is not supported by the local gateway (only file-log and external plugins are)"

    def complete_config(self, name: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        if name == file_log.NAME:
            return file_log.complete_config(config)
        return process_record(self.external[name].config_fields, config)
