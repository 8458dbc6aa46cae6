"""Reads the operator's kong.yml: what is in it, where, and whether it can be built upon. Pure.

Only what the renderer needs is understood; everything else is carried along as it is, and Kong judges it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml

from control_plane.foundation.errors import Problem, ValidationFailedError

FORMAT_VERSIONS = ("1.1", "2.1", "3.0")


class KongConfigError(ValidationFailedError):
    """The base configuration, or what products ask of it, is wrong. `problems` tells all of it at once."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin as written in the base; `where` is its path there, like `services[0].routes[1].plugins[0]`."""

    name: str
    where: str
    value: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        config = self.value.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def enabled(self) -> bool:
        return self.value.get("enabled") is not False


@dataclass(slots=True)
class Service:
    name: str | None
    where: str
    value: dict[str, Any]
    plugins: list[Plugin] = field(default_factory=list)


@dataclass(slots=True)
class Route:
    name: str | None
    where: str
    value: dict[str, Any]
    service: Service | None
    plugins: list[Plugin] = field(default_factory=list)


Entity = TypeVar("Entity", Service, Route)


@dataclass(slots=True)
class BaseConfig:
    """What the base holds, by name. The `value`s are parts of `document`: changing one changes the document."""

    document: dict[str, Any]
    services: dict[str, Service]
    routes: dict[str, Route]
    all_services: list[Service]
    all_routes: list[Route]
    global_plugins: list[Plugin]

    def effective_plugin(self, route: Route, name: str) -> Plugin | None:
        """Return the plugin that Kong runs on the route: its own before its service's before the global one."""
        for plugins in (route.plugins, route.service.plugins if route.service else [], self.global_plugins):
            for plugin in plugins:
                if plugin.name == name and plugin.enabled:
                    return plugin
        return None

    def every_plugin(self) -> Iterator[Plugin]:
        yield from self.global_plugins
        for service in self.all_services:
            yield from service.plugins
        for route in self.all_routes:
            yield from route.plugins


def parse_base_config(text: str) -> dict[str, Any]:
    """Return the document of a kong.yml.

    Raises:
        KongConfigError: not YAML, not a mapping, or a mapping that names a key twice.
    """
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader with one more check
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise KongConfigError("kong.yml", f"cannot be read as YAML: {error}") from error
    if not isinstance(document, dict):
        raise KongConfigError("kong.yml", "must be a mapping with _format_version, services, routes and plugins")
    return document


def index_base_config(document: dict[str, Any]) -> BaseConfig:
    """Find services, routes and plugins, wherever the document nests them.

    Raises:
        KongConfigError: a wrong `_format_version`, a section that is no list of mappings, a name given twice, or
            a reference to something that is not there. All problems at once.
    """
    return _Indexer(document).index()


class _Indexer:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._problems: list[Problem] = []
        self._services: list[Service] = []
        self._routes: list[Route] = []
        self._global_plugins: list[Plugin] = []

    def index(self) -> BaseConfig:
        self._check_format_version()
        for where, value in self._entries(self._document, "services", ""):
            service = Service(self._name(value, where), where, value)
            self._services.append(service)
            service.plugins += self._nested_plugins(value, where)
            for route_where, route in self._entries(value, "routes", where):
                self._add_route(route, route_where, service)
        for where, value in self._entries(self._document, "routes", ""):
            self._add_route(value, where, self._referenced(value, "service", where, self._services))
        for where, value in self._entries(self._document, "plugins", ""):
            self._add_top_level_plugin(value, where)
        self._check_duplicates("service", self._services)
        self._check_duplicates("route", self._routes)
        self._check_plugins()
        if self._problems:
            first, *more = self._problems
            raise KongConfigError(first.field, first.message, *more)
        return BaseConfig(
            document=self._document,
            services={service.name: service for service in self._services if service.name},
            routes={route.name: route for route in self._routes if route.name},
            all_services=self._services,
            all_routes=self._routes,
            global_plugins=self._global_plugins,
        )

    def _check_format_version(self) -> None:
        version = self._document.get("_format_version")
        if version not in FORMAT_VERSIONS:
            self._problem("_format_version", f'must be "3.0" (quoted), not {version!r}')

    def _add_route(self, value: dict[str, Any], where: str, service: Service | None) -> None:
        route = Route(self._name(value, where), where, value, service)
        route.plugins += self._nested_plugins(value, where)
        self._routes.append(route)

    def _nested_plugins(self, value: dict[str, Any], where: str) -> list[Plugin]:
        found = [self._plugin(plugin, at) for at, plugin in self._entries(value, "plugins", where)]
        return [plugin for plugin in found if not _is_for_some_callers(plugin.value)]

    def _add_top_level_plugin(self, value: dict[str, Any], where: str) -> None:
        plugin = self._plugin(value, where)
        if _is_for_some_callers(value):
            return
        # Kong prefers the route where a plugin names both
        if value.get("route") is not None:
            route = self._referenced(value, "route", where, self._routes)
            if route is not None:
                route.plugins.append(plugin)
        elif value.get("service") is not None:
            service = self._referenced(value, "service", where, self._services)
            if service is not None:
                service.plugins.append(plugin)
        else:
            self._global_plugins.append(plugin)

    def _plugin(self, value: dict[str, Any], where: str) -> Plugin:
        name = value.get("name")
        if not isinstance(name, str) or not name:
            self._problem(f"{where}.name", "a plugin needs a name")
            name = ""
        if value.get("config") is not None and not isinstance(value["config"], dict):
            self._problem(f"{where}.config", "must be a mapping")
        return Plugin(name, where, value)

    def _entries(self, parent: dict[str, Any], section: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
        path = f"{where}.{section}" if where else section
        values = parent.get(section)
        if values is None:
            return
        if not isinstance(values, list):
            self._problem(path, "must be a list")
            return
        for number, value in enumerate(values):
            if isinstance(value, dict):
                yield f"{path}[{number}]", value
            else:
                self._problem(f"{path}[{number}]", "must be a mapping")

    def _name(self, value: dict[str, Any], where: str) -> str | None:
        name = value.get("name")
        if name is None or (isinstance(name, str) and name):
            return name
        self._problem(f"{where}.name", f"must be a text, not {name!r}")
        return None

    def _referenced(self, value: dict[str, Any], kind: str, where: str, entities: list[Entity]) -> Entity | None:
        reference = value.get(kind)
        if reference is None:
            return None
        if isinstance(reference, dict):
            reference = reference.get("name") or reference.get("id")
        for entity in entities:
            if reference is not None and reference in (entity.name, entity.value.get("id")):
                return entity
        self._problem(f"{where}.{kind}", f"there is no {kind} {reference!r}")
        return None

    def _check_duplicates(self, kind: str, entities: Sequence[Service | Route]) -> None:
        seen: dict[str, str] = {}
        for entity in entities:
            if entity.name in seen:
                self._problem(
                    f"{entity.where}.name", f"{kind} {entity.name!r} is named at {seen[entity.name]} too"
                )
            elif entity.name:
                seen[entity.name] = entity.where

    def _check_plugins(self) -> None:
        places = [self._global_plugins]
        places += [service.plugins for service in self._services]
        places += [route.plugins for route in self._routes]
        for plugins in places:
            seen: dict[str, str] = {}
            for plugin in plugins:
                if plugin.name in seen:
                    message = f"{plugin.name} is attached to the same place at {seen[plugin.name]} too"
                    self._problem(plugin.where, message)
                elif plugin.name:
                    seen[plugin.name] = plugin.where

    def _problem(self, where: str, message: str) -> None:
        self._problems.append(Problem(where, message))


def _is_for_some_callers(plugin: dict[str, Any]) -> bool:
    return any(plugin.get(kind) is not None for kind in ("consumer", "consumer_group"))


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping; YAML would keep the last and drop the first silently."""


def _construct_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        # merge keys (<<) may come more than once
        if isinstance(key, yaml.ScalarNode) and key.tag == "tag:yaml.org,2002:str":
            if key.value in seen:
                message = f"{key.value!r} stands twice in one mapping"
                raise yaml.constructor.ConstructorError(problem=message, problem_mark=key.start_mark)
            seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
