"""The operations of the simulated API: handlers by method and path."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from devstack.stripe.state import Object

if TYPE_CHECKING:
    from devstack.stripe.simulator import Simulator


@dataclass(frozen=True)
class Call:
    """One request after it was checked."""

    method: str
    url_path: str
    path: Mapping[str, str]
    """The ids in the path by their names in the template."""
    params: dict[str, Any]
    request_id: str = "req_0"
    idempotency_key: str | None = None
    expand: tuple[str, ...] = ()
    base_url: str = ""
    """Scheme, host and port by which the caller reached us."""
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[["Simulator", Call], Object]


@dataclass(frozen=True)
class Route:
    method: str
    template: str
    pattern: re.Pattern[str]
    handler: Handler


ROUTES: list[Route] = []


PAGES: list[Callable[["Simulator"], Any]] = []


def pages(make: Callable[["Simulator"], Any]) -> Callable[["Simulator"], Any]:
    """Register a function that makes a FastAPI router of pages for a simulator."""
    PAGES.append(make)
    return make


Order = Callable[["Simulator", dict[str, Any]], dict[str, Any]]
ORDERS: dict[str, Order] = {}


def order(name: str) -> Callable[[Order], Order]:
    """Register an order of the control API: `sim.control.order(name, **given)` calls it and gets its answer."""

    def register(given: Order) -> Order:
        ORDERS[name] = given
        return given

    return register


def route(method: str, template: str) -> Callable[[Handler], Handler]:
    """Register a handler. `template` as in the SDK: `/v1/customers/{customer}`; the more literal template wins."""

    def register(handler: Handler) -> Handler:
        pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template))
        ROUTES.append(Route(method, template, pattern, handler))
        ROUTES.sort(key=lambda one: one.template.count("{"))
        return handler

    return register


def match(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """`path` is not decoded; the ids come back as they stand in it."""
    for one in ROUTES:
        if one.method == method and (found := one.pattern.fullmatch(path)):
            return one, found.groupdict()
    return None
