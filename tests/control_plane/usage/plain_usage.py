"""What a person would count of calls and reported events, one after the other. Shares no code with the product."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tests.control_plane.usage.metered import Event

FIGURES = (
    "calls",
    "units",
    "billable_calls",
    "billable_units",
    "bytes_in",
    "bytes_out",
    "latency_ms_sum",
    "gateway_ms_sum",
    "upstream_ms_sum",
)
ENDPOINTS = {
    "/weather/v1/current/oslo": "GET /weather/v1/current/{city}",
    "/weather/v1/forecast": "GET /weather/v1/forecast",
}


@dataclass(frozen=True)
class PlainPhase:
    """An account was on a plan version of a product in [start, end); statuses below `below` are billed."""

    id: str
    account: str
    product: str
    version: str
    start: datetime
    end: datetime | None
    below: int = 500

    def holds(self, one: "Usage") -> bool:
        at = one.event.at
        return (
            (one.event.account, one.event.product) == (self.account, self.product)
            and self.start <= at
            and (self.end is None or at < self.end)
        )


@dataclass(frozen=True)
class Usage:
    """A call, or an event that an application reported."""

    event: Event
    units: int = 0
    phase: PlainPhase | None = None
    # an answer that the upstream repeated, and that would be billed otherwise
    replayed: bool = False
    billed: bool = False

    @property
    def is_report(self) -> bool:
        return self.event.outcome == "reported"

    @property
    def hour(self) -> datetime:
        return self.event.at.replace(minute=0, second=0, microsecond=0)

    @property
    def row(self) -> tuple[Any, ...]:
        one = self.event
        phase = self.phase.id if self.phase else ""
        return (
            one.account, phase, one.product, one.mode, one.key, one.endpoint, one.status, one.outcome,
            self.replayed,
        )  # fmt: skip

    def figures(self) -> dict[str, int]:
        """Return what it adds to figures of usage; dimensions have a prefix, billed ones another."""
        one, call = self.event, not self.is_report
        found = {
            "calls": 1,
            "units": self.units,
            "billable_calls": int(self.billed and call),
            "billable_units": self.units * (self.billed and call),
            "bytes_in": one.bytes_in * call,
            "bytes_out": 1200 * call,
            "latency_ms_sum": 12 * call,
            "gateway_ms_sum": 2 * call,
            "upstream_ms_sum": max(0, one.upstream_ms),
        }
        for name, amount in one.dimensions.items():
            found[f"all {name}"] = amount
            found[f"billable {name}"] = amount * self.billed
        return found

    def sealed(self) -> dict[str, int]:
        """Return what it adds to the ledger, by meter."""
        if not self.billed:
            return {}
        dimensions = dict(self.event.dimensions)
        if self.is_report:
            return dimensions
        one = self.event
        measured = {"bytes_in": one.bytes_in, "bytes_out": 1200, "upstream_ms": max(0, one.upstream_ms)}
        return {"": 1, "requests": self.units, **measured, **dimensions}


def usage_of_call(call: Any) -> Usage:
    """Return a call of the tests' gateway, not yet judged."""
    served = call.outcome.value == "served"
    event = Event(
        call.receipt.event_id,
        at=call.at,
        account=call.account,
        product=call.product,
        mode=call.mode.value,
        outcome=call.outcome.value,
        status=call.status,
        endpoint=ENDPOINTS.get(call.path, "weather-v1") if call.product == "weather" else "weather-v1",
        path=call.path,
        key=call.key,
        ip="203.0.113.7",
        bytes_in=300,
        upstream_ms=10 if served else -1,
        dimensions={"tokens": call.tokens} if call.tokens else {},
        flags=("replayed",) if call.replayed else (),
    )
    return Usage(event, units=call.units)


def usage_of_report(event: dict[str, Any], event_id: str) -> Usage:
    """Return an event as an application sent it, not yet judged."""
    data = event["data"]
    return Usage(
        Event(
            event_id,
            at=datetime.fromisoformat(event["time"]),
            account=event["subject"],
            product=data.get("product", "weather"),
            mode=data.get("mode", "live"),
            outcome="reported",
            status=0,
            endpoint=event["type"],
            method="",
            path="",
            key="",
            ip="",
            bytes_in=0,
            upstream_ms=-1,
            type=event["type"],
            source=event["source"],
            dimensions=data.get("units", {}),
            properties=data.get("properties", {}),
        )
    )


def judged(every: Iterable[Usage], phases: Sequence[PlainPhase]) -> list[Usage]:
    """Return them in their order of time, each with its phase and what is billed of it."""
    found = []
    originals: dict[tuple[str, ...], datetime] = {}
    for one in sorted(every, key=lambda one: (one.event.at, one.event.id)):
        event = one.event
        phase = next((phase for phase in phases if phase.holds(one)), None)
        live = event.mode == "live"
        if one.is_report:
            found.append(replace(one, phase=phase, billed=live))
            continue
        counts = event.outcome == "served" and event.status < (phase.below if phase else 500)
        kind = (event.account, event.mode, event.product, event.path)
        original = originals.get(kind)
        replayed = (
            counts and event.flags != () and original is not None and event.at - original <= timedelta(hours=24)
        )
        if counts and not replayed:
            originals[kind] = event.at
        # what meters look at: a replay that is billed after all is like any other call
        event = replace(event, flags=("replayed",) if replayed else ())
        found.append(Usage(event, one.units, phase, replayed=replayed, billed=counts and not replayed and live))
    return found


@dataclass
class Sums:
    """Figures by group, without zeros."""

    groups: dict[tuple[Any, ...], dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, group: tuple[Any, ...], figures: dict[str, int]) -> None:
        found = self.groups[group]
        for name, amount in figures.items():
            found[name] = found.get(name, 0) + amount

    def plain(self) -> dict[tuple[Any, ...], dict[str, int]]:
        cleaned = {
            group: {name: amount for name, amount in sums.items() if amount} for group, sums in self.groups.items()
        }
        return {group: sums for group, sums in cleaned.items() if sums}


def sums(
    every: Iterable[Usage],
    group: Callable[[Usage], tuple[Any, ...]],
    what: Callable[[Usage], dict[str, int]] = Usage.figures,
) -> dict[tuple[Any, ...], dict[str, int]]:
    """Return figures added up by group."""
    found = Sums()
    for one in every:
        found.add(group(one), what(one))
    return found.plain()
