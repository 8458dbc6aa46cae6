"""What is found after everything was drained, and the form in which checks judge it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from devstack.soak.customers import Customer
from devstack.soak.faults import Effect, FaultRecord
from devstack.soak.ledger import Call, Ledger
from devstack.soak.stored import Arrival, Billing, Group, StoredEvent
from gateway_contract.outcomes import Outcome

EXAMPLES = 5
# a fault is felt a little before it is noted as begun, and for a while after it was undone
FELT_BEFORE_MS, FELT_AFTER_MS = 500, 2_000

# whoever gets these is looked after as well as one who is served
USED_UP = {"quota_exceeded", "spend_cap_reached", "no_sandbox"}


@dataclass(frozen=True, slots=True)
class Check:
    """One promise. `wrong` is how many violate it; `figures` say what was looked at."""

    name: str
    wrong: int
    figures: str
    examples: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.wrong == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that was found after everything was drained."""

    ledger: Ledger
    faults: Sequence[FaultRecord]
    customers: Sequence[Customer]
    events: Sequence[StoredEvent]
    arrivals: Sequence[Arrival]
    rollups: Mapping[Group, int]
    billing: Mapping[str, Billing]
    replayed: Mapping[str, int]
    admitted: Mapping[str, Mapping[str, int]]
    settled: Mapping[str, Mapping[str, int]]
    billed_hours: Mapping[str, Mapping[int, int]]
    keys_found: Sequence[str]
    searched_bytes: int
    stale_max_ms: int
    by_path: dict[str, list[StoredEvent]] = field(init=False, default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for event in self.events:
            self.by_path[event.path].append(event)

    def under(self, effect: Effect, begun_ms: int, ended_ms: int) -> list[FaultRecord]:
        """Return the faults with this effect that were felt at any moment from `begun_ms` to `ended_ms`."""
        return [
            fault
            for fault in self.faults
            if fault.effect & effect
            and fault.began_ms - FELT_BEFORE_MS <= ended_ms
            and begun_ms <= fault.ended_ms + FELT_AFTER_MS
        ]


def tell(call: Call) -> str:
    """Return what an example shows of a call."""
    return f"{call.path} {call.status or 'broken'} {call.code} at {call.begun_ms}"


def check_of(name: str, wrong: Iterable[str], figures: str = "") -> Check:
    """Return a check that found these violations."""
    found = list(wrong)
    return Check(name=name, wrong=len(found), figures=figures, examples=tuple(found[:EXAMPLES]))


def was_served(call: Call) -> bool:
    """Say whether the caller saw that the gateway admitted the call."""
    return call.receipt is not None and call.receipt.outcome is Outcome.SERVED


def is_local(call: Call) -> bool:
    """Say whether the caller saw that the call was decided without Redis."""
    return call.receipt is not None and call.receipt.call_number == 0


def upstream_path(call: Call) -> str:
    """Return the path under which the call reaches the upstream: the route's own part is taken off."""
    return "/" + call.path.split("/", 2)[2]
