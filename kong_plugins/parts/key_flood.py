"""A flood of random keys: bounds what keys that nobody has seen can cost Redis.

A worker has a budget of look-ups that find nothing. While at least half of it is left, every key is looked up and
Kong is asked nothing more. Below that the caller's address is asked, and nothing is looked up for one that sent
many unknown keys lately. When the budget is gone, nothing is looked up for anybody. Keys that a worker knows
never come here, and a look-up that finds a key gives its part of the budget back.
"""

import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from kong_plugins.parts.bounded_map import BoundedMap
from kong_plugins.parts.record_cache import Found, Missing
from kong_plugins.server import metrics

# nothing is looked up for an address for the rest of these seconds once it sent so many unknown keys in them
MANY_UNKNOWN_KEYS = 10
LATELY_SECONDS = 10.0
MOST_ADDRESSES = 10_000

_actions = {
    action: metrics.counter(
        "km_gateway_key_flood_total", {"action": action}, help_text="never seen keys while they came in floods"
    )
    for action in ("address_asked", "refused_by_address", "refused")
}


class KeyFlood:
    """For the greenlets of one thread. `per_second` look-ups that find nothing, and as many at once."""

    def __init__(self, per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._left = per_second
        self._counted_at = clock()
        # unknown keys that came from an address, and since when they are counted
        self._unknown: BoundedMap[str, tuple[int, float]] = BoundedMap(MOST_ADDRESSES)

    def look_up(self, key_hash: str, *, read: Callable[[str], Found], address: Callable[[], str]) -> Found:
        """Look up a key that was never seen, if that may be.

        UNAVAILABLE where its caller's address has sent many unknown keys lately, or the budget is gone: nobody
        looked, and behind a proxy that Kong does not know every customer has that address.
        """
        now = self._clock()
        self._left = min(self._per_second, self._left + (now - self._counted_at) * self._per_second)
        self._counted_at = now
        source = ""
        if self._left < self._per_second / 2:
            _actions["address_asked"].inc()
            source = network_of(address())
            if self._sent_many(source, now):
                _actions["refused_by_address"].inc()
                return Missing.UNAVAILABLE
            if self._left < 1:
                _actions["refused"].inc()
                return Missing.UNAVAILABLE
        self._left -= 1
        found = read(key_hash)
        if not isinstance(found, Missing):
            self._left += 1
        elif source and found is Missing.UNKNOWN:
            self._count(source, self._clock())
        return found

    def _sent_many(self, source: str, now: float) -> bool:
        count, since = self._unknown.get(source) or (0, now)
        return count >= MANY_UNKNOWN_KEYS and now - since < LATELY_SECONDS

    def _count(self, source: str, now: float) -> None:
        count, since = self._unknown.get(source) or (0, now)
        if now - since >= LATELY_SECONDS:
            count, since = 0, now
        self._unknown.put(source, (count + 1, since))


def network_of(address: str) -> str:
    """Return what one caller can choose from freely: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return str(found)
