"""Finding plugins: ours by name, others as files in a directory, the way kong-pdk has them."""

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from gateway_contract import plugins as contract
from kong_plugins.server.errors import PluginLoadError

PLUGIN_UP: Final = "km_pluginserver_plugin_up"
PROTOCOL: Final = "ProtoBuf:1"
PHASES: Final = ("certificate", "rewrite", "access", "response", "preread", "log")
BUILT_IN: Final = {name: f"kong_plugins.plugins.{name.replace('-', '_')}" for name in contract.ALL}


@dataclass(frozen=True, slots=True)
class PluginModule:
    """An imported plugin: `Plugin`, and if it has them `Schema`, `version`, `priority`, and more of ours.

    `waits_for_kong = False` says that it need not know at once that a call which returns nothing was carried out.
    `start_worker()` runs once in every worker process before its first event, `stop_worker()` at its
    graceful end.
    """

    name: str
    module: ModuleType

    @property
    def plugin_class(self) -> Callable[[dict[str, Any]], object]:
        plugin: Callable[[dict[str, Any]], object] = self.module.Plugin
        return plugin

    @property
    def phases(self) -> list[str]:
        return [phase for phase in PHASES if hasattr(self.module.Plugin, phase)]

    @property
    def priority(self) -> int:
        return int(getattr(self.module, "priority", 0) or 0)

    @property
    def waits_for_kong(self) -> bool:
        return bool(getattr(self.module, "waits_for_kong", True))

    @property
    def version(self) -> str:
        return str(getattr(self.module, "version", None) or "0.0.0")

    @property
    def schema(self) -> dict[str, Any]:
        """Return the schema in the shape Kong validates plugin configuration with."""
        fields = list(getattr(self.module, "Schema", ()) or ())
        return {"name": self.name, "fields": [{"config": {"type": "record", "fields": fields}}]}

    def info(self) -> dict[str, Any]:
        """Return the protocol's `PluginInfo`."""
        return {
            "name": self.name,
            "phases": self.phases,
            "version": self.version,
            "priority": self.priority,
            "schema": json.dumps(self.schema),
        }

    def hook(self, name: str) -> Callable[[], object] | None:
        hook: Callable[[], object] | None = getattr(self.module, name, None)
        return hook


def plugin_names(plugins_dir: Path | None) -> list[str]:
    """Return the names of all plugins there are; a file whose name starts with `_` or `.` is none."""
    found = sorted(plugins_dir.glob("*.py")) if plugins_dir is not None else []
    return [*BUILT_IN, *(path.stem for path in found if path.name[0] not in "_.")]


def load_plugin(name: str, plugins_dir: Path | None) -> PluginModule:
    """Import a plugin; PluginLoadError, with the reason as its cause, where that fails.

    A file in the directory goes before a built-in plugin of the same name.
    """
    try:
        module = _import(name, plugins_dir)
    except (Exception, SystemExit) as error:
        raise PluginLoadError(f"{name} cannot be imported: {type(error).__name__}") from error
    if not callable(getattr(module, "Plugin", None)):
        raise PluginLoadError(f"{name} has no class Plugin")
    return PluginModule(name, module)


def describe(plugins: Collection[PluginModule]) -> dict[str, Any]:
    """Return what Kong's `query_cmd` reads; it looks at the first plugin only."""
    return {
        "Protocol": PROTOCOL,
        "Plugins": [
            {
                "Name": plugin.name,
                "Phases": plugin.phases,
                "Priority": plugin.priority,
                "Version": plugin.version,
                "Schema": plugin.schema,
            }
            for plugin in plugins
        ],
    }


def _import(name: str, plugins_dir: Path | None) -> ModuleType:
    path = plugins_dir / f"{name}.py" if plugins_dir is not None else None
    if path is not None and path.parent == plugins_dir and path.is_file():
        return _import_file(name, path)
    if name in BUILT_IN:
        return importlib.import_module(BUILT_IN[name])
    raise ModuleNotFoundError(f"there is no plugin {name}")


def _import_file(name: str, path: Path) -> ModuleType:
    module_name = f"kong_plugin_{name}"  # a plugin file called json.py must not become everyone's json
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(module_name, None)
        raise
    return module
