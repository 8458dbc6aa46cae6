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
from control_plane.gateway_sync.usage_door import Door, check_spool_writers, file_log_plugin, find_door
from gateway_contract.file_log import UnitHeaderError, render_privacy_expression
from gateway_contract.plugins import API_PRODUCT_FIELD, KEY_AUTH, MONETIZE

HEADER = "# Written by kong-monetize from the base configuration and the API products. Change those, not this.\n"


@dataclass(frozen=True, slots=True)
class ProductRouting:
    """Where an API product lives in Kong, and which answer headers hold its units (dimension -> header)."""

    code: str
    service: str
    routes: tuple[str, ...]
    unit_headers: dict[str, str] = field(default_factory=dict)


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

    def _open_usage_door(self, sold: dict[str, ProductRouting]) -> None:
        path = self._settings.usage_spool_path
        self._problems += check_spool_writers(self._base, path)
        closed, metered = [], False
        for route in self._base.all_routes:
            product = sold.get(route.name or "")
            if product is None and not self._is_monetized(route):
                continue
            headers = product.unit_headers if product else {}
            door = find_door(self._base, route, path=path, unit_headers=headers)
            if isinstance(door, Problem):
                self._problem(door.field, door.message)
            elif door is None:
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
        plugin = file_log_plugin(path, self._units())
        if not metered:
            self._append_plugin(self._base.document, plugin)
            self._added.append(f"file-log for usage to {path}, on every route")
            return
        # a global one would send the metered routes' usage a second time
        for route in closed:
            self._append_plugin(route.value, copy.deepcopy(plugin))
            self._added.append(f"file-log for usage to {path}, on route {route.name!r}")

    @staticmethod
    def _append_plugin(owner: dict[str, Any], plugin: dict[str, Any]) -> None:
        # a new list: the old one may stand elsewhere too, by a YAML alias
        owner["plugins"] = [*(owner.get("plugins") or []), plugin]

    def _is_monetized(self, route: Route) -> bool:
        return any(self._base.effective_plugin(route, name) for name in (MONETIZE, KEY_AUTH))

    def _units(self) -> dict[str, str]:
        return {name: header for product in self._products for name, header in product.unit_headers.items()}

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
