"""Nobody over a limit, judged by brute force over the moments of all admissions. Pure."""

from collections.abc import Sequence

from devstack.soak.customers import Customer
from devstack.soak.evidence import FELT_AFTER_MS, Check, Evidence, check_of, is_local, tell, was_served
from devstack.soak.faults import Effect
from devstack.soak.ledger import SERVED
from devstack.soak.stored import StoredEvent

# what was admitted so long before Redis was emptied may not be in the rollups yet, from which quotas are restored
ROLLUP_LAG_MS = 20_000
# a worker on its own counts by a clock that never steps, while receipts name Redis time as it was heard last
CLOCK_SLACK_MS = 250


def windows_of_closed_plans(evidence: Evidence) -> Check:
    wrong, seen = [], 0
    for customer in evidence.customers:
        if not customer.is_closed:
            continue
        admitted = _admitted_events(evidence, customer)
        seen += len(admitted)
        for limit, window_ms in customer.role.windows:
            times = [event.decided_ms for event in admitted]
            wrong += _over(evidence, times, limit, window_ms, customer.role.name)
        for limit, window_ms in customer.role.key_windows:
            for key_id in {event.key_id for event in admitted}:
                times = [event.decided_ms for event in admitted if event.key_id == key_id]
                wrong += _over(evidence, times, limit, window_ms, f"{customer.role.name} key {key_id}")
    return check_of("admissions over a window of a closed plan", wrong, f"{seen:,} admissions")


def _admitted_events(evidence: Evidence, customer: Customer) -> list[StoredEvent]:
    events = [
        event for event in evidence.events if event.account_id == customer.account_id and event.outcome == SERVED
    ]
    return sorted(events, key=lambda event: event.decided_ms)


def _over(evidence: Evidence, times: list[int], limit: int, window_ms: int, who: str) -> list[str]:
    """Judge every window that ends with an admission; one in which Redis was emptied begins anew."""
    wrong, first = [], 0
    for last, at_ms in enumerate(times):
        while at_ms - times[first] >= window_ms:
            first += 1
        count = last - first + 1
        if count > limit:
            emptied = len(evidence.under(Effect.REDIS_EMPTIED, at_ms - window_ms, at_ms))
            if count > limit * (1 + emptied):
                wrong.append(f"{who}: {count} of {limit} in {window_ms} ms up to {at_ms}")
    return wrong


def closed_means_closed(evidence: Evidence) -> Check:
    closed = {customer.account_id for customer in evidence.customers if customer.is_closed}
    wrong = [
        tell(call)
        for call in evidence.ledger.calls.values()
        if call.account_id in closed and was_served(call) and is_local(call)
    ]
    return check_of("calls of closed plans decided without Redis", wrong, "")


def windows_of_open_plans(evidence: Evidence) -> Check:
    """Beside what Redis admits, each worker admits at most the limit of its own while Redis is away."""
    wrong, local_calls = [], 0
    local_ids = {
        call.receipt.event_id for call in evidence.ledger.calls.values() if call.receipt and is_local(call)
    }
    for customer in evidence.customers:
        if customer.is_closed:
            continue
        admitted = _admitted_events(evidence, customer)
        local = [
            event
            for event in admitted
            if event.event_id in local_ids
            or (
                evidence.ledger.calls[event.path].receipt is None
                and evidence.under(Effect.REDIS_AWAY, event.decided_ms, event.decided_ms)
            )
        ]
        local_calls += len(local)
        known_local = {event.event_id for event in local}
        by_redis = [event.decided_ms for event in admitted if event.event_id not in known_local]
        for limit, window_ms in customer.role.windows:
            wrong += _over(evidence, by_redis, limit, window_ms, f"{customer.role.name} by Redis")
            for emitter in {event.emitter for event in local}:
                times = [event.decided_ms for event in local if event.emitter == emitter]
                shorter_ms = window_ms - CLOCK_SLACK_MS
                wrong += _over(evidence, times, limit, shorter_ms, f"{customer.role.name} by worker {emitter}")
    figures = f"{local_calls:,} decided without Redis; bound: limit x (1 + workers)"
    return check_of("admissions over the bound of an open plan", wrong, figures)


def hard_quotas(evidence: Evidence) -> Check:
    wrong, figures = [], []
    for customer in evidence.customers:
        if not customer.has_hard_quota or customer.role.quota is None:
            continue
        admitted = _admitted_events(evidence, customer)
        used = sum(event.units for event in admitted)
        lag = sum(event.units for event in forgotten_by_redis(evidence, admitted))
        figures.append(f"{customer.role.name}: {used:,} of {customer.role.quota:,}, at most {lag:,} forgotten")
        if used > customer.role.quota + lag:
            wrong.append(figures[-1])
    return check_of("units over a hard quota", wrong, "; ".join(figures))


def forgotten_by_redis(evidence: Evidence, events: Sequence[StoredEvent]) -> list[StoredEvent]:
    """Return what an emptied Redis may have forgotten: not in the rollups yet from which it was filled again."""
    return [
        event
        for event in events
        if any(
            fault.effect & Effect.REDIS_EMPTIED
            and fault.began_ms - ROLLUP_LAG_MS <= event.decided_ms <= fault.ended_ms + FELT_AFTER_MS
            for fault in evidence.faults
        )
    ]
