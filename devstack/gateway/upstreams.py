"""Upstreams of a configuration: several targets behind one name, taken in turn by their weights."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_TARGET_PORT = 8000


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go; `weight` is its share of them, 0 for none."""

    host: str
    port: int
    weight: int


@dataclass(slots=True)
class Upstream:
    """Targets by name. Which one is next changes with every request; a push makes new upstreams."""

    name: str
    targets: tuple[Target, ...]
    host_header: str | None = None
    _owed: list[int] = field(default_factory=list)

    def next_target(self) -> Target | None:
        """Return the next target, None where there is none with a weight.

        In any number of requests in a row each gets its share, evenly spread: what a target is owed grows by its
        weight, the one that is owed most is taken and pays for all.
        """
        if not self._owed:
            self._owed = [0] * len(self.targets)
        whole = sum(target.weight for target in self.targets)
        if not whole:
            return None
        for index, target in enumerate(self.targets):
            self._owed[index] += target.weight
        taken = max(range(len(self.targets)), key=lambda index: (self._owed[index], -index))
        self._owed[taken] -= whole
        return self.targets[taken]


class NoTargetError(Exception):
    """The host cannot be resolved to an address; `status` and message are what Kong answers."""

    def __init__(self, status: int, message: str | None = None) -> None:
        super().__init__(message or f"status {status}")
        self.status = status
        self.message = message


def find_upstream(host: str, *, service_host: str, upstreams: Mapping[str, Upstream]) -> Upstream | None:
    """Return the upstream that a host names, None for an address or a name of its own.

    As Kong does, which looks at the *service's* host only once: where that is an IP address, no other host is ever
    looked up, so an upstream that a plugin sets is taken for an address and fails.

    Raises:
        NoTargetError: no address can be made of it.
    """
    if is_ip_address(service_host):
        if not is_ip_address(host):
            raise NoTargetError(500)
        return None
    upstream = upstreams.get(host)
    if upstream is not None and not any(target.weight for target in upstream.targets):
        raise NoTargetError(503, "failure to get a peer from the ring-balancer")
    return upstream


def is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def split_target(text: str) -> tuple[str, int] | None:
    """Return host and port of `host[:port]`, None where it is neither."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_TARGET_PORT)
    plain = host.strip("[]")
    if not plain or not port.isascii() or not port.isdigit() or int(port) > 65_535:  # noqa: PLR2004 - a TCP port
        return None
    if ":" in plain and not is_ip_address(plain):
        return None
    return plain, int(port)
