"""A plugin as it is attached somewhere: its configuration, and the route it stands on once that is known."""

from functools import lru_cache
from typing import Any, Protocol

from gateway_contract.records import AccountRecord
from kong_plugins.parts.plugin_config import AccessConfig


class KnowsRoute(Protocol):
    def route_name(self) -> str: ...


class Attachment:
    """Compared by identity; equal configurations share one (see `attach`)."""

    __slots__ = ("_route_name", "config")

    def __init__(self, config: AccessConfig) -> None:
        self.config = config
        self._route_name: str | None = None

    def place(self, account: AccountRecord, request: KnowsRoute) -> tuple[Any, str]:
        """Return what tells callers of one key apart here, and the route's name ("" where it does not matter).

        Kong is asked for the route only where the plan weighs routes or there is a spend cap, and only once where
        the plugin stands on a single route.
        """
        grant = account.products.get(self.config.api_product)
        if grant is None or not (grant.route_units or grant.spend_cap):
            return self, ""
        if not self.config.route_id:
            name = request.route_name()
            return (self, name), name
        if self._route_name is None:
            self._route_name = request.route_name()
        return self, self._route_name


@lru_cache(maxsize=4096)
def attach(config: AccessConfig) -> Attachment:
    """Return the attachment of this configuration; the same one for equal configurations."""
    return Attachment(config)
