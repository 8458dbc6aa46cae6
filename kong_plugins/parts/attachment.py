"""A plugin as it is attached somewhere: its configuration, and the route it stands on once that is known."""

from functools import lru_cache
from time import monotonic
from typing import Any, Protocol

from gateway_contract.records import AccountRecord, ProductGrant
from kong_plugins.parts.plugin_config import AccessConfig

# a route may be renamed, and the plugin on it hears nothing of that
ASK_AGAIN_SECONDS = 60.0


class KnowsRoute(Protocol):
    def route_name(self) -> str: ...


class Attachment:
    """Compared by identity; equal configurations share one (see `attach`)."""

    __slots__ = ("_asked_at", "_route_name", "config")

    def __init__(self, config: AccessConfig) -> None:
        self.config = config
        self._route_name: str | None = None
        self._asked_at = 0.0

    def place(self, account: AccountRecord, request: KnowsRoute) -> tuple[Any, str]:
        """Return what tells callers of one key apart here, and the route's name ("" where it does not matter).

        Kong is asked for the route only where the plan weighs routes or there is a spend cap, and only once in a
        while where the plugin stands on a single route.
        """
        if not _depends_on_route(account.products.get(self.config.api_product)):
            return self, ""
        name = self._single_route(request) if self.config.route_id else request.route_name()
        return (self, name), name

    def _single_route(self, request: KnowsRoute) -> str:
        name, now = self._route_name, monotonic()
        if name is None or now - self._asked_at >= ASK_AGAIN_SECONDS:
            self._asked_at = now
            name = self._route_name = request.route_name()
        return name


def _depends_on_route(grant: ProductGrant | None) -> bool:
    while grant is not None:
        if grant.route_units or grant.spend_cap:
            return True
        grant = None if grant.next is None else grant.next.grant
    return False


@lru_cache(maxsize=4096)
def attach(config: AccessConfig) -> Attachment:
    """Return the attachment of this configuration; the same one for equal configurations."""
    return Attachment(config)
