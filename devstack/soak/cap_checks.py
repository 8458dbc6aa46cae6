"""No invoice over a spend cap, and no more calls at once than a plan allows. Pure."""

from devstack.soak.bills import billed_events, cost_minor
from devstack.soak.customers import AtOnce, Customer
from devstack.soak.evidence import Check, Evidence, check_of, upstream_path
from devstack.soak.faults import Effect
from devstack.soak.limit_checks import forgotten_by_redis
from gateway_contract.outcomes import Outcome

TOO_MANY_STATUS = 429


def spend_caps(evidence: Evidence) -> Check:
    """By invoice and by events, with what an emptied Redis may have forgotten on top. Each cap was reached."""
    wrong, figures = [], []
    for customer in evidence.customers:
        cap = customer.role.spend_cap
        if cap is None:
            continue
        events = billed_events(evidence, customer)
        cost = cap.fixed_minor + cost_minor(cap, events)
        forgotten = cost_minor(cap, forgotten_by_redis(evidence, events))
        billing = evidence.billing[customer.account_id]
        name = customer.role.name
        figures.append(f"{name}: {cost:,} of {cap.cap_minor:,} cents, at most {forgotten:,} forgotten")
        if max(cost, billing.total_minor) > cap.cap_minor + forgotten:
            wrong.append(f"{figures[-1]}, {billing.total_minor:,} on the invoice")
        if billing.cap_minor != cap.cap_minor or billing.total_minor != cost:
            invoice = f"{billing.total_minor} of {billing.cap_minor} on the invoice"
            wrong.append(f"{name}: {cost} of {cap.cap_minor} by events, {invoice}")
        if not _was_refused(evidence, customer):
            wrong.append(f"{name}: the cap was never reached")
    return check_of("spend caps passed, or not reached", wrong, "; ".join(figures))


def _was_refused(evidence: Evidence, customer: Customer) -> bool:
    code = Outcome.SPEND_CAP_REACHED.value
    calls = evidence.ledger.calls.values()
    return any(call.code == code for call in calls if call.account_id == customer.account_id)


def calls_at_once(evidence: Evidence) -> Check:
    """Judged by when calls began and ended at the upstream; none counts for longer than its lease, as in Redis.

    Redis that was emptied has forgotten who is under way: once more the limit for each time.
    """
    wrong, figures = [], []
    for customer in evidence.customers:
        at_once = customer.role.at_once
        if at_once is None:
            continue
        flights, given_up = _flights(evidence, customer, at_once)
        most, over = _most_at_once(evidence, flights, at_once.limit)
        refused = sum(
            call.status == TOO_MANY_STATUS and call.account_id == customer.account_id
            for call in evidence.ledger.calls.values()
        )
        name = f"{customer.role.name}: at most {most} of {at_once.limit} at once"
        figures.append(f"{name}, {len(flights):,} calls, {refused:,} refused, {given_up} outlasted their lease")
        wrong += [f"{name}, {count} at {at_ms}" for at_ms, count in over]
        if not refused:
            wrong.append(f"{customer.role.name}: the limit was never reached")
    return check_of("calls at once over a limit, or limits not reached", wrong, "; ".join(figures))


def _flights(evidence: Evidence, customer: Customer, at_once: AtOnce) -> tuple[list[tuple[int, int]], int]:
    """Return from when to when each call was at the upstream, and how many of them outlasted their lease."""
    calls = {
        upstream_path(call): call
        for call in evidence.ledger.calls.values()
        if call.account_id == customer.account_id
    }
    flights, given_up = [], 0
    for arrival in evidence.arrivals:
        call = calls.get(arrival.path)
        if call is None:
            continue
        # an upstream that was killed ends nothing: the gateway saw it, and its caller
        ended_ms = arrival.ended_ms or call.answered_ms
        decided_ms = call.receipt.decided_at_ms if call.receipt else call.begun_ms
        lease_ends_ms = decided_ms + at_once.lease_ms
        given_up += ended_ms > lease_ends_ms
        flights.append((arrival.at_ms, min(ended_ms, lease_ends_ms)))
    return flights, given_up


def _most_at_once(
    evidence: Evidence, flights: list[tuple[int, int]], limit: int
) -> tuple[int, list[tuple[int, int]]]:
    """Return how many there were at most, and the moments at which there were too many, with how many."""
    most, over = 0, []
    under_way: list[tuple[int, int]] = []
    for flight in sorted(flights):
        begun_ms = flight[0]
        # one that ends in the millisecond in which another begins has made room for it
        under_way = [other for other in under_way if other[1] > begun_ms] + [flight]
        count = len(under_way)
        most = max(most, count)
        emptied = len(evidence.under(Effect.REDIS_EMPTIED, under_way[0][0], begun_ms)) if count > limit else 0
        if count > limit * (1 + emptied):
            over.append((begun_ms, count))
    return most, over
