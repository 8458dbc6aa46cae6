"""Every call once: what callers saw against what was stored. Pure."""

from collections import Counter

from devstack.soak.customers import JOBS, ROUTES, Customer
from devstack.soak.evidence import (
    Check,
    Evidence,
    check_of,
    tell,
    was_served,
)
from devstack.soak.faults import Effect
from devstack.soak.ledger import BROKEN, SERVED, Call, Door
from gateway_contract.outcomes import UNIDENTIFIED

# the log phase of km-usage-meter comes after the answer
LOG_PHASE_MS = 2_000
FIRST_ERROR_STATUS = 400
NOBODYS = {outcome.value for outcome in UNIDENTIFIED}


def nothing_lost(evidence: Evidence) -> Check:
    """Whatever a caller saw answered is stored, but for refusals while no line could be written."""
    missing = [
        call
        for call in evidence.ledger.calls.values()
        if call.status != BROKEN and not evidence.by_path.get(call.path) and not may_be_missing(evidence, call)
    ]
    answered = sum(call.status != BROKEN for call in evidence.ledger.calls.values())
    return check_of("answered calls that are not stored", map(tell, missing), f"{answered:,} answered")


def may_be_missing(evidence: Evidence, call: Call) -> bool:
    if call.door is Door.METER:
        # without a plugin server nobody writes; one that dies takes along what it has not written yet
        if call.receipt is None and call.code not in NOBODYS:
            return True
        return bool(evidence.under(Effect.LOG_PHASE_LOST, call.begun_ms, call.answered_ms + LOG_PHASE_MS))
    refused = call.receipt is None or call.receipt.outcome.value != SERVED
    return refused and bool(evidence.under(Effect.NO_LINES, call.begun_ms, call.answered_ms))


def missed_by_the_meter(evidence: Evidence) -> Check:
    """The meter's own ledger: what it missed was admitted, and is seen as admitted and not stored.

    Its plan is closed, so Redis numbered every call. Where Redis was emptied there is nothing to compare with.
    """
    wrong = []
    missed_of = Counter(
        call.account_id
        for call in evidence.ledger.calls.values()
        if call.door is Door.METER and was_served(call) and not evidence.by_path.get(call.path)
    )
    emptied = _redis_was_emptied(evidence)
    for customer in evidence.customers:
        if customer.role.door is not Door.METER or emptied:
            continue
        missed, unsettled = missed_of[customer.account_id], _unsettled(evidence, customer)
        if missed > unsettled:
            wrong.append(f"{customer.role.name}: {missed} missed, {unsettled} admitted and not stored")
    seen = "not compared with what was admitted: Redis was emptied" if emptied else "all admitted, not stored"
    figures = f"{missed_of.total():,} missed by km-usage-meter in faults, {seen}"
    return check_of("calls lost without a trace", wrong, figures)


def _unsettled(evidence: Evidence, customer: Customer) -> int:
    """Return how many calls Redis has admitted that are not stored."""
    stored = sum(
        event.account_id == customer.account_id
        and event.outcome == SERVED
        and event.mode == customer.role.mode.value
        for event in evidence.events
    )
    fields = evidence.admitted[customer.account_id]
    return sum(count for name, count in fields.items() if name.startswith("c:")) - stored


def _redis_was_emptied(evidence: Evidence) -> bool:
    return any(fault.effect & Effect.REDIS_EMPTIED for fault in evidence.faults)


def nothing_doubled(evidence: Evidence) -> Check:
    doubled = [
        f"{path}: {[event.event_id for event in found]}"
        for path, found in evidence.by_path.items()
        if len(found) > 1
    ]
    broken = evidence.ledger.broken
    return check_of(
        "calls stored twice", doubled, f"{len(evidence.events):,} events; {broken:,} answers never seen"
    )


def stored_as_seen(evidence: Evidence) -> Check:
    wrong = []
    for path, (event, *_) in evidence.by_path.items():
        call = evidence.ledger.calls.get(path)
        if call is None:
            wrong.append(f"{path}: nobody sent it")
        elif call.status not in {BROKEN, event.status}:
            wrong.append(f"{tell(call)}, stored as {event.status}")
        elif call.receipt is not None and call.receipt.event_id != event.event_id:
            wrong.append(f"{tell(call)}: another call's event {event.event_id}")
        elif event.account_id != (call.account_id if event.outcome not in {*NOBODYS, "unattributed"} else ""):
            wrong.append(f"{tell(call)}: stored for {event.account_id!r}")
        elif (
            event.outcome == SERVED
            and call.status not in {BROKEN, *range(500, 600)}
            and event.tokens != call.tokens
        ):
            wrong.append(f"{tell(call)}: {call.tokens} tokens, stored {event.tokens}")
    return check_of("calls stored with another status, account, id or units", wrong, "")


def decided(evidence: Evidence) -> Check:
    """No request without a decision: whatever is not an error was served by a receipt of ours."""
    wrong = [
        tell(call)
        for call in evidence.ledger.calls.values()
        if 0 < call.status < FIRST_ERROR_STATUS and not was_served(call)
    ]
    return check_of("calls let through without a decision", wrong, "")


def arrived_and_stored(evidence: Evidence) -> Check:
    """What reached the upstream is stored, unless the gateway was killed under it, or the meter's log phase."""
    wrong = []
    for path in {arrival.path for arrival in evidence.arrivals}:
        public = [f"/{route}{path}" for route in (*ROUTES.values(), JOBS)]
        calls = [call for name in public if (call := evidence.ledger.calls.get(name)) is not None]
        if not calls:
            wrong.append(f"{path}: nobody sent it")
        wrong += [
            tell(call)
            for call in calls
            if call.status != BROKEN and not evidence.by_path.get(call.path) and not may_be_missing(evidence, call)
        ]
    return check_of(
        "calls that reached the upstream and left no trace", wrong, f"{len(evidence.arrivals):,} arrived"
    )
