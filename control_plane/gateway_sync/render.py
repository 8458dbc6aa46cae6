"""Renders what Kong gets: the operator's kong.yml, and what selling its routes needs. Pure.

What the operator wrote stays as and where it was; entries are only added, and nothing is ever taken out.
"""

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from control_plane.foundation.errors import Problem
from control_plane.gateway_sync.base_config import BaseConfig, KongConfigError, Route, index_base_config
from control_plane.gateway_sync.sandboxes import sandbox_problem
from control_plane.gateway_sync.usage_door import (
    Door,
    check_spool_writers,
    concurrency_problem,
    file_log_plugin,
    find_door,
    meter_plugin,
)
from gateway_contract.file_log import LoggedHeaders, UnitHeaderError, render_privacy_expression
from gateway_contract.headers import DEFAULT_REPLAY_HEADERS
from gateway_contract.plugins import API_PRODUCT_FIELD, KEY_AUTH, MONETIZE, USAGE_METER

HEADER = "# Written by kong-monetize from the base configuration and the API products. Change those, not this.\n"


@dataclass(frozen=True, slots=True)
class ProductRouting:
    """Where an API product lives in Kong, and which answer headers hold its units (dimension -> header).

    `replay_header` is the one by which its upstream says that it repeated an answer, '' where it never does.
    `concurrency_plan` is the code of a plan that limits calls at a time, where one is in use or on sale.
    """

    code: str
    service: str
    routes: tuple[str, ...]
    unit_headers: dict[str, str] = field(default_factory=dict)
    replay_header: str = DEFAULT_REPLAY_HEADERS[0]
    concurrency_plan: str | None = None

    @property
    def logged_headers(self) -> LoggedHeaders:
        """What a usage door must read of its answers."""
        replay = (self.replay_header.lower(),) if self.replay_header else ()
        return LoggedHeaders(units=self.unit_headers, replay=replay)


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """`usage_spool_path` is the file `file-log` writes to, as Kong sees it; None where it must not be used."""

    usage_spool_path: str | None


@dataclass(frozen=True, slots=True)
class RenderedConfig:
    """A whole configuration. `hash` is what Kong will show as its `configuration_hash`; `added` says in words
    what the base did not have.
    """

    text: str
    hash: str
    added: tuple[str, ...]


def render_kong_config(
    base: dict[str, Any], products: Iterable[ProductRouting], settings: RenderSettings
) -> RenderedConfig:
    """Return the configuration to push; equal input gives equal bytes. `base` is left as it is.

    Raises:
        KongConfigError: with every problem found in the base, and between the base and the products.
    """
    return _Renderer(index_base_config(copy.deepcopy(base)), sorted(products, key=_code), settings).render()


def concurrency_problems(
    base: dict[str, Any], products: Iterable[ProductRouting], settings: RenderSettings
) -> list[Problem]:
    """Return what in the base keeps plans from limiting calls at a time, and nothing else that is wrong with it.

    Raises:
        KongConfigError: the base cannot be understood.
    """
    indexed = index_base_config(base)
    problems = []
    for product in products:
        for name in product.routes if product.concurrency_plan else ():
            route = indexed.routes.get(name)
            if route is None or product.concurrency_plan is None:
                continue
            door = find_door(indexed, route, path=settings.usage_spool_path, needed=product.logged_headers)
            if not isinstance(door, Problem):
                problems.append(concurrency_problem(indexed, route, door, limited_by=product.concurrency_plan))
    return [problem for problem in problems if problem is not None]


def dump_config(document: dict[str, Any]) -> str:
    """Return the document as YAML, its keys in their order; long texts are not folded."""
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=float("inf"))


def kong_hash(text: str) -> str:
    """Return Kong's `configuration_hash` for a YAML configuration pushed as this text: its MD5."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _code(product: ProductRouting) -> str:
    return product.code


class _Renderer:
    def __init__(self, base: BaseConfig, products: Sequence[ProductRouting], settings: RenderSettings) -> None:
        self._base = base
        self._products = products
        self._settings = settings
        self._problems: list[Problem] = []
        self._added: list[str] = []

    def render(self) -> RenderedConfig:
        self._check_units()
        sold = dict(self._sold_routes())
        for name, product in sold.items():
            self._attach_monetize(self._base.routes[name], product)
        self._check_sandboxes()
        self._open_usage_door(sold)
        if self._problems:
            first, *more = self._problems
            raise KongConfigError(first.field, first.message, *more)
        text = HEADER + dump_config(self._base.document)
        return RenderedConfig(text=text, hash=kong_hash(text), added=tuple(self._added))

    def _sold_routes(self) -> Iterator[tuple[str, ProductRouting]]:
        """Yield each route that exists and is named by exactly one product."""
        seen: dict[str, str] = {}
        for product in self._products:
            where = f"api_products[{product.code}]"
            if product.service not in self._base.services:
                message = f"API product {product.code!r} names service {product.service!r}, which the base has not"
                self._problem(f"{where}.service", message)
            for name in product.routes:
                route = self._base.routes.get(name)
                if route is None:
                    message = f"API product {product.code!r} names route {name!r}, which the base has not"
                    self._problem(f"{where}.routes", message)
                elif name in seen:
                    message = f"route {name!r} is named by API products {seen[name]!r} and {product.code!r}"
                    self._problem(f"{where}.routes", message)
                elif (route.service.name if route.service else None) != product.service:
                    message = f"route {name!r} belongs to service {_service_name(route)}, not {product.service!r}"
                    self._problem(f"{where}.routes", f"API product {product.code!r}: {message}")
                else:
                    seen[name] = product.code
                    yield name, product

    def _attach_monetize(self, route: Route, product: ProductRouting) -> None:
        for plugin in route.plugins:
            if plugin.name in (MONETIZE, KEY_AUTH) and not plugin.enabled:
                message = f"is switched off, but route {route.name!r} is sold as {product.code!r}: remove it"
                self._problem(plugin.where, message)
                return
        for name in (MONETIZE, KEY_AUTH):
            attached = self._base.effective_plugin(route, name)
            if attached is None:
                continue
            own = attached.config.get(API_PRODUCT_FIELD)
            if own != product.code and not (own is None and name == KEY_AUTH):
                message = f"is {own!r}, but route {route.name!r} is sold as API product {product.code!r}"
                self._problem(f"{attached.where}.config.{API_PRODUCT_FIELD}", message)
            return
        entry = {"name": MONETIZE, "config": {API_PRODUCT_FIELD: product.code}}
        self._append_plugin(route.value, entry)
        self._added.append(f"{MONETIZE} for API product {product.code!r} on route {route.name!r}")

    def _check_sandboxes(self) -> None:
        for route in self._base.all_routes:
            problem = sandbox_problem(self._base, route)
            if problem is not None:
                self._problem(problem.field, problem.message)

    def _open_usage_door(self, sold: dict[str, ProductRouting]) -> None:
        path = self._settings.usage_spool_path
        self._problems += check_spool_writers(self._base, path)
        closed, metered = [], False
        for route in self._base.all_routes:
            product = sold.get(route.name or "")
            if product is None and not self._is_monetized(route):
                continue
            door = self._door_of(route, product)
            if door is None:
                closed.append(route)
            metered = metered or door is Door.METER
        if not closed or self._problems:
            return
        if path is None:
            message = (
                f"no file-log or km-usage-meter writes usage, and no usage spool path is set: {closed[0].name!r}"
            )
            self._problem(closed[0].where, message)
            return
        plugin = file_log_plugin(path, self._logged_headers())
        if not metered:
            self._append_plugin(self._base.document, plugin)
            self._added.append(f"file-log for usage to {path}, on every route")
            return
        # a global one would send the metered routes' usage a second time
        for route in closed:
            self._append_plugin(route.value, copy.deepcopy(plugin))
            self._added.append(f"file-log for usage to {path}, on route {route.name!r}")

    def _door_of(self, route: Route, product: ProductRouting | None) -> Door | Problem | None:
        """Return the route's usage door, made here where a plan needs more than the default one."""
        needed = product.logged_headers if product else LoggedHeaders()
        door = find_door(self._base, route, path=self._settings.usage_spool_path, needed=needed)
        if isinstance(door, Problem):
            self._problem(door.field, door.message)
            return door
        limited_by = product.concurrency_plan if product else None
        if limited_by is None:
            return door
        problem = concurrency_problem(self._base, route, door, limited_by=limited_by)
        if problem is not None:
            self._problem(problem.field, problem.message)
            return problem
        if door is None:
            self._append_plugin(route.value, meter_plugin(needed))
            self._added.append(f"{USAGE_METER} for plan {limited_by!r} on route {route.name!r}")
        return Door.METER

    @staticmethod
    def _append_plugin(owner: dict[str, Any], plugin: dict[str, Any]) -> None:
        # a new list: the old one may stand elsewhere too, by a YAML alias
        owner["plugins"] = [*(owner.get("plugins") or []), plugin]

    def _is_monetized(self, route: Route) -> bool:
        return any(self._base.effective_plugin(route, name) for name in (MONETIZE, KEY_AUTH))

    def _logged_headers(self) -> LoggedHeaders:
        every = [product.logged_headers for product in self._products]
        return LoggedHeaders(
            units={name: header for logged in every for name, header in logged.units.items()},
            replay=tuple(sorted({header for logged in every for header in logged.replay})),
        )

    def _check_units(self) -> None:
        """One expression serves all products, so a dimension has one header."""
        seen: dict[str, tuple[str, str]] = {}
        for product in self._products:
            where = f"api_products[{product.code}].unit_headers"
            try:
                render_privacy_expression(product.unit_headers)
            except UnitHeaderError as error:
                self._problem(where, str(error))
            for name, header in product.unit_headers.items():
                other, code = seen.setdefault(name, (header.lower(), product.code))
                if other != header.lower():
                    message = f"{name} is read from {header!r} here and from {other!r} by API product {code!r}"
                    self._problem(f"{where}.{name}", message)

    def _problem(self, where: str, message: str) -> None:
        problem = Problem(where, message)
        if problem not in self._problems:
            self._problems.append(problem)


def _service_name(route: Route) -> str:
    return repr(route.service.name) if route.service else "none"
