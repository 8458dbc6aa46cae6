"""What an API product says of its units and replays, as the collector needs it. Pure."""

from collections.abc import Mapping

from control_plane.catalog.model import EVERY_ROUTE, ProductUsageRules
from control_plane.usage.collect.lines import UsageLine

REPLAYED = "true"
_NO_MAXIMUMS: Mapping[str, int] = {}


class ProductRules:
    """The rules of all products; immutable but for a cache. What a product does not say is not limited."""

    def __init__(self, products: Mapping[str, ProductUsageRules] | None = None) -> None:
        given = products or {}
        self._maximums = {code: rules.unit_maximums for code, rules in given.items() if rules.unit_maximums}
        self._never_replay = frozenset(code for code, rules in given.items() if not rules.replay_header)
        self._by_route: dict[tuple[str, str], Mapping[str, int]] = {}

    def maximums(self, product: str, route: str) -> Mapping[str, int]:
        """Return, by dimension, the most units that one call of the route can report."""
        by_route = self._maximums.get(product)
        if by_route is None:
            return _NO_MAXIMUMS
        # a route that nobody named has no entry of its own: callers cannot fill this
        known = route if route in by_route else EVERY_ROUTE
        found = self._by_route.get((product, known))
        if found is None:
            found = {**by_route.get(EVERY_ROUTE, {}), **by_route.get(known, {})}
            self._by_route[product, known] = found
        return found

    def is_replay(self, product: str, line: UsageLine) -> bool:
        """Say whether the upstream said that it repeated an earlier answer: `true`, in whatever case."""
        return line.rp.lower() == REPLAYED and product not in self._never_replay
