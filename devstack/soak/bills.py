"""What the soak itself would bill for the events, to compare with the product's own figures. Pure."""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal

from devstack.soak.customers import Customer, SpendCap
from devstack.soak.evidence import Evidence
from devstack.soak.ledger import AGAIN
from devstack.soak.stored import StoredEvent
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.usage_events import is_billable

REPLAYED = "replayed"


def billable_events(evidence: Evidence, customer: Customer) -> list[StoredEvent]:
    """Return what would be billed if no answer were a repetition, in the order of the decisions."""
    found = [
        event
        for event in evidence.events
        if event.account_id == customer.account_id
        and is_billable(
            account_id=event.account_id,
            mode=Mode(event.mode),
            outcome=Outcome(event.outcome),
            status=event.status,
        )
    ]
    return sorted(found, key=lambda event: (event.decided_ms, event.event_id))


def billed_events(evidence: Evidence, customer: Customer) -> list[StoredEvent]:
    """Return them without repeated answers to calls that were billed before."""
    known: set[str] = set()
    billed = []
    for event in billable_events(evidence, customer):
        path = event.path.partition(AGAIN)[0]
        if REPLAYED in event.flags and path in known:
            continue
        known.add(path)
        billed.append(event)
    return billed


def used_units(events: Iterable[StoredEvent]) -> dict[str, int]:
    requests, tokens = 0, 0
    for event in events:
        requests += event.units
        tokens += event.tokens
    return {"requests": requests, "tokens": tokens}


def cost_minor(cap: SpendCap, events: Iterable[StoredEvent]) -> int:
    """Return what the events cost by use: each price is rounded once, half up, as a line of an invoice is."""
    used = used_units(events)
    lines = (units * cap.unit_minor.get(name, Decimal(0)) for name, units in used.items())
    return sum(int(line.quantize(Decimal(1), ROUND_HALF_UP)) for line in lines)
