"""Meter events that count, by meter and customer."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from devstack.stripe.state import Object

if TYPE_CHECKING:
    from devstack.stripe.simulator import Simulator

WINDOWS = {"hour": 3_600, "day": 86_400}


@dataclass
class Counted:
    """One event that was aggregated."""

    identifier: str
    timestamp: int
    value: Decimal
    number: int
    """Grows with the order in which they were received."""


@dataclass
class Series:
    """Events of one customer on one meter."""

    events: dict[str, Counted] = field(default_factory=dict)

    def moments(self, start: int, end: int) -> list[int]:
        return [one.timestamp for one in self.events.values() if start <= one.timestamp < end]

    def aggregated(self, meter: Object, start: int, end: int) -> Decimal:
        """By the meter's formula over [start, end)."""
        found = [one for one in self.events.values() if start <= one.timestamp < end]
        if window := WINDOWS.get(meter["event_time_window"] or ""):
            found = _newest_of_each(found, window)
        match meter["default_aggregation"]["formula"]:
            case "count":
                return Decimal(len(found))
            case "last":
                return max(found, key=lambda one: (one.timestamp, one.number)).value if found else Decimal(0)
            case _:
                return sum((one.value for one in found), Decimal(0))


def _newest_of_each(found: list[Counted], window: int) -> list[Counted]:
    newest: dict[int, Counted] = {}
    for one in sorted(found, key=lambda event: event.number):
        newest[one.timestamp - one.timestamp % window] = one
    return list(newest.values())


def series_of(sim: "Simulator", meter: str, customer: str) -> Series:
    kept: dict[tuple[str, str], Series] = sim.features.setdefault("meter_series", {})
    return kept.setdefault((meter, customer), Series())


def aggregated_value(sim: "Simulator", *, meter: str, customer: str, start: int, end: int) -> Decimal:
    """What the meter (an id) shows for the customer over [start, end), of the events aggregated by now."""
    return series_of(sim, meter, customer).aggregated(sim.state.get("billing.meter", meter), start, end)
