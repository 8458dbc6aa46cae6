"""Where test keys are sent to a sandbox, and why Kong may not be able to. Pure.

Kong's balancer looks at the service's own host first: with an IP address there it takes the upstream's name that a
plugin has set for an address, and the call fails with 500 (kong/runloop/balancer/init.lua, 3.9.3).
"""

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from control_plane.foundation.errors import Problem
from control_plane.gateway_sync.base_config import BaseConfig, Route
from gateway_contract.plugins import KEY_AUTH, MONETIZE


def sandbox_problem(base: BaseConfig, route: Route) -> Problem | None:
    """Return why test keys cannot reach the sandbox of a route; None where they can, or where it has none."""
    plugins = (base.effective_plugin(route, name) for name in (MONETIZE, KEY_AUTH))
    attached = next((plugin for plugin in plugins if plugin and plugin.config.get("sandbox_upstream")), None)
    if attached is None or route.service is None:
        return None
    host = _host_of(route.service.value)
    if not _is_address(host):
        return None
    message = (
        f"cannot be reached from route {route.name!r}: the host of its service is the address {host}, and Kong "
        "sends calls to an upstream only where the service's host is a name. Give the service a name, or an "
        "upstream of its own"
    )
    return Problem(f"{attached.where}.config.sandbox_upstream", message)


def _host_of(service: dict[str, Any]) -> str:
    host = service.get("host")
    if not isinstance(host, str):
        url = service.get("url")
        try:
            host = urlsplit(url).hostname if isinstance(url, str) else None
        except ValueError:
            host = None
    return (host or "").strip("[]")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
