"""The checks: what callers saw against what was stored, limits, keys, money. Pure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from devstack.soak.customers import Customer
from devstack.soak.faults import Effect, FaultRecord
from devstack.soak.ledger import BROKEN, SERVED, Call, Door, Ledger
from devstack.soak.stored import Arrival, Billing, Group, StoredEvent
from gateway_contract import counters
from gateway_contract.modes import Mode
from gateway_contract.outcomes import UNIDENTIFIED
from gateway_contract.usage_events import is_billable

EXAMPLES = 5
# a fault is felt a little before it is noted as begun, and for a while after it was undone
FELT_BEFORE_MS, FELT_AFTER_MS = 500, 2_000
# the log phase of km-usage-meter comes after the answer
LOG_PHASE_MS = 2_000
# what was admitted so long before Redis was emptied may not be in the rollups yet, from which quotas are restored
ROLLUP_LAG_MS = 20_000
_NOBODYS = {outcome.value for outcome in UNIDENTIFIED}


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


def all_checks(evidence: Evidence) -> list[Check]:
    return [check(evidence) for check in _CHECKS]


# --- every call once


def _nothing_lost(evidence: Evidence) -> Check:
    """Whatever a caller saw answered is stored, but for refusals while no line could be written."""
    missing = [
        call
        for call in evidence.ledger.calls.values()
        if call.status != BROKEN and not evidence.by_path.get(call.path) and not _may_be_missing(evidence, call)
    ]
    answered = sum(call.status != BROKEN for call in evidence.ledger.calls.values())
    return _check("answered calls that are not stored", map(_tell, missing), f"{answered:,} answered")


def _may_be_missing(evidence: Evidence, call: Call) -> bool:
    if call.door is Door.METER:
        # without a plugin server nobody writes; one that dies takes along what it has not written yet
        if call.receipt is None and call.code not in _NOBODYS:
            return True
        return bool(evidence.under(Effect.LOG_PHASE_LOST, call.begun_ms, call.answered_ms + LOG_PHASE_MS))
    refused = call.receipt is None or call.receipt.outcome.value != SERVED
    return refused and bool(evidence.under(Effect.NO_LINES, call.begun_ms, call.answered_ms))


def _missed_by_the_meter(evidence: Evidence) -> Check:
    """The meter's own ledger: what it missed was admitted, and is seen as admitted and not stored."""
    wrong = []
    missed_of = Counter(
        call.account_id
        for call in evidence.ledger.calls.values()
        if call.door is Door.METER and _was_served(call) and not evidence.by_path.get(call.path)
    )
    for customer in evidence.customers:
        missed = missed_of[customer.account_id]
        unsettled = _unsettled(evidence, customer)
        if missed > unsettled and not _redis_was_emptied(evidence):
            wrong.append(f"{customer.role.name}: {missed} missed, {unsettled} admitted and not stored")
    figures = (
        f"{missed_of.total():,} served and missed by km-usage-meter in faults, all seen as admitted, not stored"
    )
    return _check("calls lost without a trace", wrong, figures)


def _was_served(call: Call) -> bool:
    return call.receipt is not None and call.receipt.outcome.value == SERVED


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


def _nothing_doubled(evidence: Evidence) -> Check:
    doubled = [
        f"{path}: {[event.event_id for event in found]}"
        for path, found in evidence.by_path.items()
        if len(found) > 1
    ]
    broken = evidence.ledger.broken
    return _check("calls stored twice", doubled, f"{len(evidence.events):,} events; {broken:,} answers never seen")


def _stored_as_seen(evidence: Evidence) -> Check:
    wrong = []
    for path, (event, *_) in evidence.by_path.items():
        call = evidence.ledger.calls.get(path)
        if call is None:
            wrong.append(f"{path}: nobody sent it")
        elif call.status not in {BROKEN, event.status}:
            wrong.append(f"{_tell(call)}, stored as {event.status}")
        elif call.receipt is not None and call.receipt.event_id != event.event_id:
            wrong.append(f"{_tell(call)}: another call's event {event.event_id}")
        elif event.account_id != (call.account_id if event.outcome not in {*_NOBODYS, "unattributed"} else ""):
            wrong.append(f"{_tell(call)}: stored for {event.account_id!r}")
        elif (
            event.outcome == SERVED
            and call.status not in {BROKEN, *range(500, 600)}
            and event.tokens != call.tokens
        ):
            wrong.append(f"{_tell(call)}: {call.tokens} tokens, stored {event.tokens}")
    return _check("calls stored with another status, account, id or units", wrong, "")


def _decided(evidence: Evidence) -> Check:
    """No request without a decision: whatever is not an error was served by a receipt of ours."""
    wrong = [
        _tell(call) for call in evidence.ledger.calls.values() if 0 < call.status < 400 and not _was_served(call)
    ]  # noqa: PLR2004
    return _check("calls let through without a decision", wrong, "")


def _arrived_and_stored(evidence: Evidence) -> Check:
    """What reached the upstream is stored, unless the gateway was killed under it, or the meter's log phase."""
    wrong = []
    for path in {arrival.path for arrival in evidence.arrivals}:
        public = [f"/{route}{path}" for route in ("weather", "metered")]
        calls = [call for name in public if (call := evidence.ledger.calls.get(name)) is not None]
        if not calls:
            wrong.append(f"{path}: nobody sent it")
        wrong += [
            _tell(call)
            for call in calls
            if call.status != BROKEN
            and not evidence.by_path.get(call.path)
            and not _may_be_missing(evidence, call)
        ]
    return _check(
        "calls that reached the upstream and left no trace", wrong, f"{len(evidence.arrivals):,} arrived"
    )


# --- limits


def _windows_of_closed_plans(evidence: Evidence) -> Check:
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
    return _check("admissions over a window of a closed plan", wrong, f"{seen:,} admissions")


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


def _closed_means_closed(evidence: Evidence) -> Check:
    closed = {customer.account_id for customer in evidence.customers if customer.is_closed}
    wrong = [
        _tell(call)
        for call in evidence.ledger.calls.values()
        if call.account_id in closed and _was_served(call) and _is_local(call)
    ]
    return _check("calls of closed plans decided without Redis", wrong, "")


def _is_local(call: Call) -> bool:
    return call.receipt is not None and call.receipt.call_number == 0


def _windows_of_open_plans(evidence: Evidence) -> Check:
    """Beside what Redis admits, each worker admits at most the limit of its own while Redis is away."""
    wrong, local_calls = [], 0
    local_ids = {
        call.receipt.event_id for call in evidence.ledger.calls.values() if call.receipt and _is_local(call)
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
                wrong += _over(evidence, times, limit, window_ms, f"{customer.role.name} by worker {emitter}")
    figures = f"{local_calls:,} decided without Redis; bound: limit x (1 + workers)"
    return _check("admissions over the bound of an open plan", wrong, figures)


def _hard_quotas(evidence: Evidence) -> Check:
    wrong, figures = [], []
    for customer in evidence.customers:
        if not customer.has_hard_quota or customer.role.quota is None:
            continue
        admitted = _admitted_events(evidence, customer)
        used = sum(event.units for event in admitted)
        lag = sum(
            event.units
            for event in admitted
            for fault in evidence.faults
            if fault.effect & Effect.REDIS_EMPTIED
            and fault.began_ms - ROLLUP_LAG_MS <= event.decided_ms <= fault.ended_ms + FELT_AFTER_MS
        )
        figures.append(f"{customer.role.name}: {used:,} of {customer.role.quota:,}, at most {lag:,} forgotten")
        if used > customer.role.quota + lag:
            wrong.append(figures[-1])
    return _check("units over a hard quota", wrong, "; ".join(figures))


# --- keys


def _nobody_served(evidence: Evidence) -> Check:
    """Judged by the upstream's own record, so broken calls count as well."""
    arrived = {arrival.path for arrival in evidence.arrivals}
    strangers = [call for call in evidence.ledger.calls.values() if not call.key_id]
    test_ids = {c.account_id for c in evidence.customers if c.role.mode is Mode.TEST}
    tests = [call for call in evidence.ledger.calls.values() if call.account_id in test_ids]
    wrong = [_tell(call) for call in [*strangers, *tests] if _upstream_path(call) in arrived or _was_served(call)]
    figures = f"{len(strangers):,} calls without a good key, {len(tests):,} with a test key"
    return _check("calls served without a valid key", wrong, figures)


def _upstream_path(call: Call) -> str:
    return "/" + call.path.split("/", 2)[2]


def _revoked_keys(evidence: Evidence) -> Check:
    arrived = {arrival.path for arrival in evidence.arrivals}
    wrong, tried, delays = [], 0, []
    for life in evidence.ledger.keys.values():
        if life.projected_ms:
            delays.append(life.projected_ms - life.revoked_ms)
    for call in evidence.ledger.calls.values():
        life = evidence.ledger.keys.get(call.key_id)
        if life is None or not life.projected_ms or call.begun_ms <= life.projected_ms:
            continue
        tried += 1
        if _upstream_path(call) not in arrived:
            continue
        away = evidence.under(Effect.REDIS_AWAY, call.begun_ms, max(call.answered_ms, call.begun_ms))
        if not away or call.begun_ms > life.projected_ms + evidence.stale_max_ms or not _may_be_local(call):
            wrong.append(f"{_tell(call)}, {call.begun_ms - life.projected_ms} ms after its key was revoked")
    slowest = f", known in Redis after {sorted(delays)[len(delays) // 2]} ms (median)" if delays else ""
    return _check(
        "calls served with a revoked key", wrong, f"{tried:,} calls with {len(delays)} revoked keys{slowest}"
    )


def _may_be_local(call: Call) -> bool:
    return call.receipt is None or _is_local(call)


def _expired_keys(evidence: Evidence) -> Check:
    ends = {life.key_id: life.expires_ms for life in evidence.ledger.keys.values() if life.expires_ms}
    wrong = [
        f"{event.path}: {event.decided_ms - ends[event.key_id]} ms late"
        for event in evidence.events
        if event.outcome == SERVED and event.decided_ms >= ends.get(event.key_id, event.decided_ms + 1)
    ]
    tried = sum(
        call.begun_ms >= ends.get(call.key_id, call.begun_ms + 1) for call in evidence.ledger.calls.values()
    )
    return _check("calls served with an expired key", wrong, f"{tried:,} calls with {len(ends)} keys that expired")


def _no_key_readable(evidence: Evidence) -> Check:
    texts = len(evidence.ledger.key_texts())
    figures = (
        f"{texts:,} keys looked for in {evidence.searched_bytes / 1e6:,.0f} MB of files, tables, Redis, events"
    )
    return _check("places where a key can be read", evidence.keys_found, figures)


# --- figures


def _rollups_agree(evidence: Evidence) -> Check:
    stored: Counter[Group] = Counter(
        (event.account_id, str(event.status), event.outcome, event.mode) for event in evidence.events
    )
    wrong = [
        f"{group}: {stored[group]} events, {evidence.rollups.get(group, 0)} in rollups"
        for group in stored.keys() | evidence.rollups.keys()
        if stored[group] != evidence.rollups.get(group, 0)
    ]
    return _check("rollups that differ from the events", wrong, f"{len(stored):,} groups")


def _invoices_agree(evidence: Evidence) -> Check:
    wrong, figures = [], 0
    for customer in evidence.customers:
        billed = [
            event
            for event in evidence.events
            if event.account_id == customer.account_id
            and is_billable(
                account_id=event.account_id, mode=Mode(event.mode), outcome=_outcome(event), status=event.status
            )
        ]
        used = evidence.billing[customer.account_id].used_units
        wanted = {
            "requests": sum(event.units for event in billed),
            "tokens": sum(event.tokens for event in billed),
        }
        figures += wanted["requests"]
        wrong += [
            f"{customer.role.name}: {units} {name} by events, {used.get(name, 0)} on the invoice"
            for name, units in wanted.items()
            if units != used.get(name, 0)
        ]
    return _check("invoice units that differ from the events", wrong, f"{figures:,} units")


def _settled(evidence: Evidence) -> Check:
    """After the seal the gateway's quota counters hold what was billed."""
    wrong, hours = [], 0
    for customer in evidence.customers:
        fields = evidence.settled[customer.account_id]
        for hour, billed in evidence.billed_hours[customer.account_id].items():
            if customer.role.mode is Mode.TEST:
                continue
            hours += 1
            found = fields.get(counters.hour_units(hour), 0)
            if found != billed or (billed and counters.hour_revision(hour) not in fields):
                wrong.append(f"{customer.role.name}: {billed} billed, {found} in the counter of hour {hour}")
    return _check("settled counters that differ from what is billed", wrong, f"{hours} hours of accounts")


def _recovered(evidence: Evidence) -> Check:
    """After the last fault everybody is served again."""
    last_ms = max((fault.ended_ms for fault in evidence.faults), default=0) + FELT_AFTER_MS
    served = {
        call.account_id
        for call in evidence.ledger.calls.values()
        if call.begun_ms > last_ms and (_was_served(call) or call.code in {"quota_exceeded", "no_sandbox"})
    }
    wrong = [c.role.name for c in evidence.customers if c.account_id not in served]
    return _check("accounts not served again after the last fault", wrong, f"{len(evidence.faults)} faults")


def _outcome(event: StoredEvent):  # noqa: ANN202
    from gateway_contract.outcomes import Outcome

    return Outcome(event.outcome)


def _tell(call: Call) -> str:
    return f"{call.path} {call.status or 'broken'} {call.code} at {call.begun_ms}"


def _check(name: str, wrong: Iterable[str], figures: str) -> Check:
    found = list(wrong)
    return Check(name=name, wrong=len(found), figures=figures, examples=tuple(found[:EXAMPLES]))


_CHECKS: tuple[Callable[[Evidence], Check], ...] = (
    _nothing_lost,
    _nothing_doubled,
    _stored_as_seen,
    _decided,
    _arrived_and_stored,
    _missed_by_the_meter,
    _windows_of_closed_plans,
    _closed_means_closed,
    _windows_of_open_plans,
    _hard_quotas,
    _nobody_served,
    _revoked_keys,
    _expired_keys,
    _no_key_readable,
    _rollups_agree,
    _invoices_agree,
    _settled,
    _recovered,
)
