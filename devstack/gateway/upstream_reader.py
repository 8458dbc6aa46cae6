"""Reads the `upstreams` and `targets` of a declarative configuration."""

from collections.abc import Callable, Mapping
from typing import Any

from devstack.gateway.entity_makers import dates, generated_id
from devstack.gateway.problems import Path, Problems
from devstack.gateway.upstreams import Target, Upstream, is_ip_address, split_target

Items = Callable[[Mapping[str, Any], str, Path], list[dict[str, Any]]]
Checked = Callable[[str, dict[str, Any], Path, frozenset[str]], tuple[dict[str, Any], str, bool]]


class UpstreamReader:
    """Collects upstreams by name; what is wrong goes to the problems of the whole configuration."""

    def __init__(self, *, items: Items, checked: Checked, problems: Problems, now: int) -> None:
        """`items` and `checked` read lists and complete entities; `now` in seconds since 1970."""
        self._items = items
        self._checked = checked
        self._problems = problems
        self._now = now
        self._targets: dict[str, list[Target]] = {}
        self._found: dict[str, dict[str, Any]] = {}
        self.shown: dict[str, dict[str, Any]] = {"upstreams": {}, "targets": {}}

    def read(self, document: Mapping[str, Any]) -> dict[str, Upstream]:
        """Return the upstreams, each with its targets in the order of the file."""
        for index, item in enumerate(self._items(document, "upstreams", ())):
            self._add_upstream(item, ("upstreams", index))
        for index, item in enumerate(self._items(document, "targets", ())):
            self._add_target(item, ("targets", index), None)
        return {
            name: Upstream(name, tuple(self._targets[name]), complete["host_header"])
            for name, complete in self._found.items()
        }

    def _add_upstream(self, item: dict[str, Any], path: Path) -> None:
        complete, label, good = self._checked("upstream", item, path, frozenset({"targets"}))
        name = str(complete.get("name") or "")
        if good and is_ip_address(name):
            self._problems.add(path, label, "name", "Invalid name; no ip addresses allowed")
            good = False
        if good and name in self._found:
            self._problems.add(path, label, "name", f"the name '{name}' is used twice in upstreams")
            good = False
        if good:
            identifier = complete["id"] or generated_id("upstreams", name)
            self._found[name] = complete | {"id": identifier}
            self._targets[name] = []
            self.shown["upstreams"][identifier] = complete | {"id": identifier, **dates(complete, now=self._now)}
        for index, target in enumerate(self._items(item, "targets", path)):
            self._add_target(target, (*path, "targets", index), name if good else "")

    def _add_target(self, item: dict[str, Any], path: Path, upstream: str | None) -> None:
        complete, label, good = self._checked("target", item, path, frozenset({"upstream"}))
        if upstream is None:
            upstream = self._named(item, path, label)
        address = split_target(complete["target"]) if good else None
        if good and address is None:
            self._problems.add(path, label, "target", "not a valid hostname or ip address")
        if address is None or not upstream:
            return
        owner = self._found[upstream]
        self._targets[upstream].append(Target(*address, complete["weight"]))
        identifier = complete["id"] or generated_id("targets", f"{owner['id']}:{complete['target']}")
        self.shown["targets"][identifier] = complete | {
            "id": identifier,
            "upstream": {"id": owner["id"]},
            **dates(complete, now=self._now),
        }

    def _named(self, item: Mapping[str, Any], path: Path, label: str) -> str:
        reference = item.get("upstream")
        wanted = reference.get("id") or reference.get("name") if isinstance(reference, dict) else reference
        for name, complete in self._found.items():
            if wanted in (name, complete["id"]):
                return name
        self._problems.add(path, label, "upstream", f"there is no upstream '{wanted}'")
        return ""
