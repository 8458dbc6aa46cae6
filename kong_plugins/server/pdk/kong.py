"""`kong` itself and its small namespaces."""

import socket
from typing import Any

from kong_plugins.server import messages, wire
from kong_plugins.server.methods import METHODS
from kong_plugins.server.pdk.channel import Channel, Namespace, decode_int, decode_number, encode_pair
from kong_plugins.server.pdk.client import Client
from kong_plugins.server.pdk.log import Log
from kong_plugins.server.pdk.request import Request
from kong_plugins.server.pdk.response import Response
from kong_plugins.server.pdk.service import Service


class Shared(Namespace):
    """`kong.ctx.shared`: values that other plugins of the same request see."""

    __slots__ = ()

    def get(self, k: str) -> wire.Json:
        """Return the value. Kong's side turns False into nil: store 0 or a text where it matters."""
        return wire.decode_value(self._channel.call(METHODS["kong.ctx.shared.get"], wire.encode_string(k)))

    def set(self, k: str, v: object) -> None:
        self._do("kong.ctx.shared.set", encode_pair(k, v))


class Ctx(Namespace):
    __slots__ = ("shared",)

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self.shared = Shared(channel)


class Nginx(Namespace):
    __slots__ = ()

    def get_var(self, name: str) -> str | None:
        return self._text_or_none("kong.nginx.get_var", wire.encode_string(name))

    def get_tls1_version_str(self) -> str | None:
        return self._text_or_none("kong.nginx.get_tls1_version_str")

    def get_ctx(self, k: str) -> wire.Json:
        return wire.decode_value(self._channel.call(METHODS["kong.nginx.get_ctx"], wire.encode_string(k)))

    def set_ctx(self, k: str, v: object) -> None:
        self._do("kong.nginx.set_ctx", encode_pair(k, v))

    def req_start_time(self) -> float:
        """Return the request's start in seconds since the epoch, with milliseconds."""
        return decode_number(self._channel.call(METHODS["kong.nginx.req_start_time"], b""))

    def get_subsystem(self) -> str:
        return self._text("kong.nginx.get_subsystem")


class Node(Namespace):
    __slots__ = ()

    def get_id(self) -> str:
        return self._text("kong.node.get_id")

    def get_hostname(self) -> str:
        """Return this machine's name, which is Kong's: the socket between them is a local one."""
        return socket.gethostname()

    def get_memory_stats(self) -> dict[str, Any]:
        reply = self._channel.call(METHODS["kong.node.get_memory_stats"], b"")
        return messages.decode("MemoryStats", reply)


class Ip(Namespace):
    __slots__ = ()

    def is_trusted(self, address: str) -> bool:
        """Say whether the address is in Kong's `trusted_ips`."""
        reply = self._channel.call(METHODS["kong.ip.is_trusted"], wire.encode_string(address))
        return bool(decode_int(reply))


class Router(Namespace):
    __slots__ = ()

    def get_route(self) -> dict[str, Any] | None:
        return self._entity("kong.router.get_route", "Route")

    def get_service(self) -> dict[str, Any] | None:
        return self._entity("kong.router.get_service", "Service")

    def _entity(self, method: str, kind: str) -> dict[str, Any] | None:
        reply = self._channel.call(METHODS[method], b"")
        return messages.decode(kind, reply) if reply else None


class Kong:
    """Kong's PDK for the event at hand. Only the greenlet that runs the phase may use it, and only meanwhile."""

    __slots__ = ("client", "ctx", "ip", "log", "nginx", "node", "request", "response", "router", "service")

    def __init__(self, channel: Channel) -> None:
        self.client = Client(channel)
        self.ctx = Ctx(channel)
        self.ip = Ip(channel)
        self.log = Log(channel)
        self.nginx = Nginx(channel)
        self.node = Node(channel)
        self.request = Request(channel)
        self.response = Response(channel)
        self.router = Router(channel)
        self.service = Service(channel)
