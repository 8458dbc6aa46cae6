"""Services, routes and plugins of one loaded configuration. Never changed: a push makes new ones."""

from dataclasses import dataclass, field
from typing import Any

from devstack.gateway.upstreams import Upstream

WORKSPACE_ID = "0dc6f45b-8f8d-40d2-a504-473544ee190b"


@dataclass(frozen=True)
class Service:
    """Where requests go. Timeouts in ms; `fields` is the entity as Kong's log shows it."""

    id: str
    name: str
    host: str
    port: int
    path: str
    connect_timeout_ms: int
    write_timeout_ms: int
    read_timeout_ms: int
    retries: int
    enabled: bool
    fields: dict[str, Any]


@dataclass(frozen=True)
class Route:
    """Which requests go to `service`. `fields` is the entity as Kong's log shows it."""

    id: str
    name: str | None
    service: Service
    paths: tuple[str, ...]
    hosts: tuple[str, ...]
    methods: tuple[str, ...]
    protocols: tuple[str, ...]
    regex_priority: int
    strip_path: bool
    preserve_host: bool
    https_redirect_status_code: int
    fields: dict[str, Any]


@dataclass(frozen=True)
class Plugin:
    """One plugin attached to a route, a service, or (neither) to everything.

    `config` is complete: defaults filled in, None where an optional field is not set.
    """

    id: str
    name: str
    priority: int
    config: dict[str, Any]
    route_id: str | None
    service_id: str | None
    sequence: int

    @property
    def key(self) -> str:
        """Kong's cache key of the plugin."""
        return f"plugins:{self.name}:{self.route_id or ''}:{self.service_id or ''}:::{WORKSPACE_ID}"


@dataclass(frozen=True)
class Configuration:
    """Everything one declarative configuration says.

    `chains` holds the plugins of each route id in the order they run; `global_chain` those of a request that
    no route matched, which only their log phase sees. `entities` is what the Admin API shows. `upstreams` are
    those of the file by name; of them only the turn changes.
    """

    hash: str
    routes: tuple[Route, ...]
    chains: dict[str, tuple[Plugin, ...]]
    global_chain: tuple[Plugin, ...]
    entities: dict[str, Any] = field(default_factory=dict)
    upstreams: dict[str, Upstream] = field(default_factory=dict)


EMPTY_HASH = "0" * 32
EMPTY = Configuration(hash=EMPTY_HASH, routes=(), chains={}, global_chain=())
