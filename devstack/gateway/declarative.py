"""Reading a declarative configuration (`_format_version: "3.0"`): all of it, or nothing and every error."""

import hashlib
import time
from collections.abc import Mapping
from typing import Any, Protocol

import yaml

from devstack.gateway import entity_fields
from devstack.gateway.entities import Configuration, Plugin, Route, Service
from devstack.gateway.entity_makers import dates, generated_id, make_route, make_service, split_url
from devstack.gateway.problems import ConfigurationInvalidError, Path, Problems
from devstack.gateway.router import path_problem
from devstack.gateway.schema import process_record
from devstack.gateway.upstream_reader import UpstreamReader

FORMAT_VERSIONS = ("3.0",)


class PluginCatalog(Protocol):
    """What plugins there are; see plugin_catalog."""

    def priority(self, name: str) -> int | None:
        """None for a plugin that is not enabled."""

    def complete_config(self, name: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The config with its defaults, and the errors by field."""

    def why_not(self, name: str) -> str:
        """Why the plugin cannot be used."""


def configuration_hash(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def load_configuration(text: str, *, catalog: PluginCatalog, first_sequence: int) -> Configuration:
    """Parse YAML (or JSON) into a configuration; plugins are numbered from `first_sequence`.

    Raises:
        ConfigurationInvalidError: with every problem found, each naming its entity and field.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationInvalidError.of_sentence(
            f"failed parsing declarative configuration: {error}"
        ) from error
    if not isinstance(document, dict):
        raise ConfigurationInvalidError.of_sentence("expected a declarative configuration: a map")
    return _Loader(catalog, first_sequence).load(document, configuration_hash(text))


class _Loader:
    def __init__(self, catalog: PluginCatalog, first_sequence: int) -> None:
        self._catalog = catalog
        self._sequence = first_sequence
        self._now = int(time.time())
        self._problems = Problems()
        self._services: dict[str, Service] = {}
        self._routes: dict[str, Route] = {}
        self._plugins: dict[tuple[str, str | None, str | None], tuple[Plugin, bool]] = {}
        self._shown: dict[str, dict[str, Any]] = {"services": {}, "routes": {}, "plugins": {}}

    def load(self, document: dict[str, Any], digest: str) -> Configuration:
        self._check_top_level(document)
        reader = UpstreamReader(items=self._items, checked=self._checked, problems=self._problems, now=self._now)
        upstreams = reader.read(document)
        for index, item in enumerate(self._items(document, "services", ())):
            self._add_service(item, ("services", index))
        for index, item in enumerate(self._items(document, "routes", ())):
            self._add_route(item, ("routes", index), None)
        for index, item in enumerate(self._items(document, "plugins", ())):
            self._add_plugin(item, ("plugins", index), None, None)
        self._problems.raise_if_any()
        enabled = [route for route in self._routes.values() if route.service.enabled]
        return Configuration(
            hash=digest,
            routes=tuple(enabled),
            chains={route.id: self._chain(route) for route in enabled},
            global_chain=self._chain(None),
            entities=self._shown | {kind: shown for kind, shown in reader.shown.items() if shown},
            upstreams=upstreams,
        )

    def _check_top_level(self, document: dict[str, Any]) -> None:
        version = document.get("_format_version")
        if version is None:
            self._problems.add((), "configuration", "_format_version", "required field missing")
        elif str(version) not in FORMAT_VERSIONS:
            self._problems.add(
                (), "configuration", "_format_version", "expected one of: " + ", ".join(FORMAT_VERSIONS)
            )
        unknown = {key: None for key in document if key not in entity_fields.TOP_LEVEL}
        self._refuse_unknown("configuration", "configuration", (), unknown)

    def _items(self, holder: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
        items = holder.get(key)
        if items is None:
            return []
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            self._problems.add(path, "configuration", key, "expected an array of records")
            return []
        return items

    def _refuse_unknown(self, kind: str, label: str, path: Path, names: Mapping[str, Any]) -> None:
        for name in names:
            known_to_kong = name in entity_fields.UNSUPPORTED[kind]
            sentence = "is not supported by the local gateway" if known_to_kong else "unknown field"
            self._problems.add(path, label, str(name), sentence)

    def _checked(
        self,
        kind: str,
        item: dict[str, Any],
        path: Path,
        apart: frozenset[str],
    ) -> tuple[dict[str, Any], str, bool]:
        """Complete an entity, but for the fields in `apart`. Returns also its label and whether it is good."""
        fields = getattr(entity_fields, kind.upper())
        label = f"{kind} '{item.get('name') or item.get('id') or path[-1]}'"
        names = {name for entry in fields for name in entry}
        unknown = {name: None for name in item if name not in names and name not in apart}
        self._refuse_unknown(kind, label, path, unknown)
        known = {name: value for name, value in item.items() if name in names and name not in apart}
        complete, errors = process_record(fields, known)
        for name, error in errors.items():
            self._problems.add(path, label, name, error)
        return complete, label, not errors and not unknown

    def _add_service(self, item: dict[str, Any], path: Path) -> None:
        item = dict(item)
        if "url" in item:
            item |= self._parts_of_url(item, path)
        complete, label, good = self._checked("service", item, path, frozenset({"url", "routes", "plugins"}))
        service = make_service(complete, now=self._now) if good else None
        if service is not None:
            self._claim_name("services", service.name, path, label, self._services)
            self._services[service.id] = service
            self._shown["services"][service.id] = service.fields
        for index, route in enumerate(self._items(item, "routes", path)):
            self._add_route(route, (*path, "routes", index), service, nested=True)
        for index, plugin in enumerate(self._items(item, "plugins", path)):
            self._add_plugin(plugin, (*path, "plugins", index), None, service, nested=True)

    def _parts_of_url(self, item: dict[str, Any], path: Path) -> dict[str, Any]:
        try:
            return split_url(str(item["url"]))
        except ValueError as error:
            self._problems.add(path, f"service '{item.get('name')}'", "url", f"invalid url: {error}")
            return {}

    def _add_route(
        self,
        item: dict[str, Any],
        path: Path,
        service: Service | None,
        *,
        nested: bool = False,
    ) -> None:
        complete, label, good = self._checked("route", item, path, frozenset({"service", "plugins"}))
        if not nested:
            service = self._referenced(item.get("service"), path, label, "service", self._services)
            good = good and service is not None
        good = self._check_matchers(complete, path, label) and good
        route = make_route(complete, service, path, now=self._now) if good and service else None
        if route is not None:
            if route.name is not None:
                self._claim_name("routes", route.name, path, label, self._routes)
            self._routes[route.id] = route
            self._shown["routes"][route.id] = route.fields
        for index, plugin in enumerate(self._items(item, "plugins", path)):
            self._add_plugin(plugin, (*path, "plugins", index), route, None, nested=True)

    def _check_matchers(self, complete: dict[str, Any], path: Path, label: str) -> bool:
        if not (complete["paths"] or complete["hosts"] or complete["methods"]):
            self._problems.add(path, label, "@entity", "must set one of 'methods', 'hosts', 'paths'")
            return False
        paths = complete["paths"] if isinstance(complete["paths"], list) else []
        found = [path_problem(one) for one in paths if isinstance(one, str)]
        if any(found):
            self._problems.add(path, label, "paths", found)
        return not any(found)

    def _add_plugin(
        self,
        item: dict[str, Any],
        path: Path,
        route: Route | None,
        service: Service | None,
        *,
        nested: bool = False,
    ) -> None:
        complete, label, good = self._checked("plugin", item, path, frozenset({"config", "route", "service"}))
        if not nested:
            route = self._referenced(item.get("route"), path, label, "route", self._routes)
            service = self._referenced(item.get("service"), path, label, "service", self._services)
        config = self._plugin_config(item, path, label)
        if not good or config is None:
            return
        name = complete["name"]
        owner = (name, route.id if route else None, service.id if service else None)
        if owner in self._plugins:
            self._problems.add(path, label, "name", f"plugin '{name}' is attached to the same place twice")
            return
        named = [self._as_written(item, "route", route), self._as_written(item, "service", service)]
        identifier = complete["id"] or generated_id("plugins", ":".join(["plugins:*", name, *named, ""]))
        priority = self._catalog.priority(name)
        plugin = Plugin(identifier, name, priority or 0, config, owner[1], owner[2], self._sequence)
        self._sequence += 1
        self._plugins[owner] = (plugin, complete["enabled"])
        self._shown["plugins"][identifier] = complete | {
            "id": identifier,
            "config": config,
            "route": {"id": owner[1]} if owner[1] else None,
            "service": {"id": owner[2]} if owner[2] else None,
            **dates(complete, now=self._now),
        }

    def _plugin_config(self, item: dict[str, Any], path: Path, label: str) -> dict[str, Any] | None:
        name = item.get("name")
        if not isinstance(name, str):
            return None  # already reported
        if self._catalog.priority(name) is None:
            self._problems.add(path, label, "name", self._catalog.why_not(name))
            return None
        given = item.get("config") or {}
        if not isinstance(given, dict):
            self._problems.add(path, label, "config", "expected a record")
            return None
        complete, errors = self._catalog.complete_config(name, given)
        if errors:
            self._problems.add(path, label, "config", errors)
            return None
        return complete

    def _as_written(self, item: dict[str, Any], key: str, found: Service | Route | None) -> str:
        # Kong hashes a reference as it stands in the file: a name where a name was given
        written = item.get(key)
        return written if isinstance(written, str) else found.id if found else ""

    def _referenced(
        self,
        reference: Any,
        path: Path,
        label: str,
        field: str,
        known: Mapping[str, Any],
    ) -> Any:
        if reference is None:
            if label.startswith("route "):
                self._problems.add(
                    path, label, field, "routes without a service are not supported by the local gateway"
                )
            return None
        wanted = reference if isinstance(reference, str) else None
        if isinstance(reference, dict):
            wanted = reference.get("id") or reference.get("name")
        for entity in known.values():
            if wanted in (entity.id, entity.name):
                return entity
        self._problems.add(path, label, field, f"there is no {field} '{wanted}'")
        return None

    def _claim_name(self, kind: str, name: str, path: Path, label: str, taken: Mapping[str, Any]) -> None:
        if any(entity.name == name for entity in taken.values()):
            self._problems.add(path, label, "name", f"the name '{name}' is used twice in {kind}")

    def _chain(self, route: Route | None) -> tuple[Plugin, ...]:
        """The plugins of a route: of each name only the one attached most closely, in the order they run."""
        places: list[tuple[str | None, str | None]] = [(None, None)]
        if route is not None:
            places = [(route.id, route.service.id), (route.id, None), (None, route.service.id), (None, None)]
        chosen: list[Plugin] = []
        for name in {owner[0] for owner in self._plugins}:
            candidates = [self._plugins.get((name, *place)) for place in places]
            # one that is disabled does not hide a wider one
            found = next((plugin for plugin, enabled in filter(None, candidates) if enabled), None)
            if found is not None:
                chosen.append(found)
        # a higher priority runs first; of equals, Kong runs the later name first
        chosen.sort(key=lambda plugin: plugin.name, reverse=True)
        return tuple(sorted(chosen, key=lambda plugin: -plugin.priority))
