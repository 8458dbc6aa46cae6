"""Nobody served without a valid key, and no key readable anywhere. Pure."""

from devstack.soak.evidence import Check, Evidence, check_of, is_local, tell, upstream_path, was_served
from devstack.soak.faults import Effect
from devstack.soak.ledger import SERVED, Call
from devstack.soak.stored import StoredEvent
from gateway_contract.modes import Mode

# a worker waits no longer for Redis
LONGEST_TRIP_MS = 1_000


def nobody_served(evidence: Evidence) -> Check:
    """Judged by the upstream's own record, so broken calls count as well."""
    arrived = {arrival.path for arrival in evidence.arrivals}
    strangers = [call for call in evidence.ledger.calls.values() if not call.key_id]
    test_ids = {c.account_id for c in evidence.customers if c.role.mode is Mode.TEST}
    tests = [call for call in evidence.ledger.calls.values() if call.account_id in test_ids]
    wrong = [tell(call) for call in [*strangers, *tests] if upstream_path(call) in arrived or was_served(call)]
    figures = f"{len(strangers):,} calls without a good key, {len(tests):,} with a test key"
    return check_of("calls served without a valid key", wrong, figures)


def revoked_keys(evidence: Evidence) -> Check:
    """From the moment Redis knows of it; while Redis is away known keys go on for `stale_max_seconds`."""
    arrived = {arrival.path for arrival in evidence.arrivals}
    revoked = {life.key_id: life for life in evidence.ledger.keys.values() if life.projected_ms}
    delays = sorted(life.projected_ms - life.revoked_ms for life in revoked.values())
    wrong, tried = [], 0
    for call in evidence.ledger.calls.values():
        life = revoked.get(call.key_id)
        if life is None or call.begun_ms <= life.projected_ms:
            continue
        tried += 1
        if upstream_path(call) not in arrived:
            continue
        away = evidence.under(Effect.REDIS_AWAY, call.begun_ms, call.answered_ms)
        if not away or call.begun_ms > life.projected_ms + evidence.stale_max_ms or not _may_be_local(call):
            wrong.append(f"{tell(call)}, {call.begun_ms - life.projected_ms} ms after its key was revoked")
    slowest = f", known in Redis after {delays[len(delays) // 2]} ms (median)" if delays else ""
    return check_of(
        "calls served with a revoked key", wrong, f"{tried:,} calls with {len(delays)} revoked keys{slowest}"
    )


def _may_be_local(call: Call) -> bool:
    return call.receipt is None or is_local(call)


def expired_keys(evidence: Evidence) -> Check:
    """A key is judged before the call goes to Redis, whose time is noted: what counts is when it was sent."""
    ends = {life.key_id: life.expires_ms for life in evidence.ledger.keys.values() if life.expires_ms}
    wrong = [
        f"{event.path}: {event.decided_ms - ends[event.key_id]} ms late"
        for event in evidence.events
        if event.outcome == SERVED
        and event.decided_ms >= ends.get(event.key_id, event.decided_ms + 1)
        and not _was_sent_in_time(evidence, event, ends[event.key_id])
    ]
    tried = sum(
        call.begun_ms >= ends.get(call.key_id, call.begun_ms + 1) for call in evidence.ledger.calls.values()
    )
    return check_of(
        "calls served with an expired key", wrong, f"{tried:,} calls with {len(ends)} keys that expired"
    )


def _was_sent_in_time(evidence: Evidence, event: StoredEvent, ends_ms: int) -> bool:
    call = evidence.ledger.calls.get(event.path)
    return call is not None and call.begun_ms < ends_ms and event.decided_ms < ends_ms + LONGEST_TRIP_MS


def no_key_readable(evidence: Evidence) -> Check:
    texts = len(evidence.ledger.key_texts())
    figures = (
        f"{texts:,} keys looked for in {evidence.searched_bytes / 1e6:,.0f} MB of files, tables, Redis, events"
    )
    return check_of("places where a key can be read", evidence.keys_found, figures)
