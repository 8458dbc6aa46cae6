"""Finding plugins: ours by name, others as kong-pdk has them: files in a directory, or modules by name."""

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from gateway_contract import plugins as contract
from kong_plugins.server.errors import NoPluginError, PluginLoadError
from kong_plugins.server.pdk_style import PdkStyle

PLUGIN_UP: Final = "km_pluginserver_plugin_up"
PROTOCOL: Final = "ProtoBuf:1"
PHASES: Final = ("certificate", "rewrite", "access", "response", "preread", "log")
BUILT_IN: Final = {name: f"kong_plugins.plugins.{name.replace('-', '_')}" for name in contract.ALL}


@dataclass(frozen=True, slots=True)
class PluginModule:
    """An imported plugin: `Plugin`, and if it has them `Schema`, `version`, `priority`, and more of ours.

    `pdk_style` ("plain", "python" or "lua") says what PDK methods return to it; see `PdkStyle`.
    `waits_for_kong = False` says that it need not know at once that a call which returns nothing was carried out.
    `start_worker()` runs once in every worker process before its first event, `stop_worker()` at its
    graceful end.
    """

    name: str
    module: ModuleType
    style: PdkStyle

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


@dataclass(frozen=True, slots=True)
class PluginSources:
    """Where plugins come from, besides ours.

    `directory`: each `.py` file in it. `modules`: by plugin name, an importable module, or a file where the text
    ends in `.py`. `lua_style`: names of those that expect kong-pdk's default style and do not say so themselves;
    None for all of them.
    """

    directory: Path | None = None
    modules: Mapping[str, str] = field(default_factory=dict)
    lua_style: frozenset[str] | None = frozenset()

    def names(self) -> list[str]:
        """Return the names of all plugins there may be; a file whose name starts with `_` or `.` is none."""
        found = sorted(self.directory.glob("*.py")) if self.directory is not None else []
        in_directory = (path.stem for path in found if path.name[0] not in "_.")
        return list(dict.fromkeys([*BUILT_IN, *in_directory, *self.modules]))

    def load(self, name: str) -> PluginModule:
        """Import a plugin; one of `modules` or of the directory goes before one of ours of the same name.

        Raises NoPluginError where there is no class `Plugin`, PluginLoadError, with the reason as its cause,
        where the module cannot be imported or says nonsense.
        """
        try:
            module, is_ours = self._import(name)
        except (Exception, SystemExit) as error:
            raise PluginLoadError(f"{name} cannot be imported: {type(error).__name__}") from error
        if not callable(getattr(module, "Plugin", None)):
            raise NoPluginError(f"{name} has no class Plugin")
        return PluginModule(name, module, self._style(name, module, is_ours=is_ours))

    def _import(self, name: str) -> tuple[ModuleType, bool]:
        place = self.modules.get(name)
        if place is not None:
            by_name = not place.endswith(".py")
            return (importlib.import_module(place) if by_name else _import_file(name, Path(place))), False
        path = self.directory / f"{name}.py" if self.directory is not None else None
        if path is not None and path.parent == self.directory and path.is_file():
            return _import_file(name, path), False
        if name in BUILT_IN:
            return importlib.import_module(BUILT_IN[name]), True
        raise ModuleNotFoundError(f"there is no plugin {name}")

    def _style(self, name: str, module: ModuleType, *, is_ours: bool) -> PdkStyle:
        said = getattr(module, "pdk_style", None)
        if said is not None:
            try:
                return PdkStyle(said)
            except ValueError as error:
                raise PluginLoadError(f"{name} has a pdk_style that there is not") from error
        if is_ours:
            return PdkStyle.PLAIN
        return PdkStyle.LUA if self.lua_style is None or name in self.lua_style else PdkStyle.PYTHON


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


def _import_file(name: str, path: Path) -> ModuleType:
    folder = str(path.parent.absolute())
    if folder not in sys.path:
        sys.path.append(folder)  # a plugin finds the modules beside it, as where it runs as a script
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
