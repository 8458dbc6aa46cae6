"""Each check of the soak finds what it is there for: one violation, planted in otherwise sound evidence."""

from dataclasses import replace

import pytest

from devstack.soak.checks import all_checks
from devstack.soak.customers import UNIT_AND_TOKEN_PRICES, UNIT_PRICES, AtOnce, Customer, Role, SpendCap
from devstack.soak.evidence import Evidence
from devstack.soak.faults import Effect, FaultRecord
from devstack.soak.ledger import Call, Door, KeyLife, Ledger
from devstack.soak.repetitions import name_events
from devstack.soak.stored import Arrival, Billing, StoredEvent
from gateway_contract.counters import hour_calls, hour_number, hour_revision, hour_units
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Receipt

START_MS = 1_800_000_000_000
HOUR = hour_number(START_MS)
SECOND = 1_000


class Played:
    """Calls of a closed and an open account, both two a second, and what became of them."""

    def __init__(self) -> None:
        self.customers = [
            Customer(Role("closed", "closed-hard", ((2, SECOND),), 1, 1, quota=100), "acc_c", "sub_c"),
            Customer(Role("open", "open", ((2, SECOND),), 1, 1), "acc_o", "sub_o"),
            Customer(Role("metered", "closed", ((2, SECOND),), 1, 1, door=Door.METER), "acc_m", "sub_m"),
            Customer(Role("sandbox", "open", ((2, SECOND),), 1, 1, mode=Mode.TEST), "acc_t", "sub_t"),
        ]
        self.ledger = Ledger()
        self.faults = []
        self.events = []
        self.arrivals = []
        self.keys_found = []
        self.rollups = None
        self.units = None
        self.settled_more = 0
        self.lost_admissions = 0
        self.invoiced_more_minor = 0
        self.replayed = 0
        for number in range(6):
            for customer in self.customers:
                if customer.role.mode is Mode.TEST:
                    self.refused(customer, f"{customer.role.name}-{number}", START_MS + number * SECOND)
                else:
                    self.served(customer, f"{customer.role.name}-{number}", START_MS + number * SECOND)

    def add(self, role):
        """Let one more account play, which has not called yet."""
        customer = Customer(role, f"acc_{role.name}", f"sub_{role.name}")
        self.customers.append(customer)
        return customer

    def call(self, customer, name, at_ms, **values):
        call = Call(
            path=f"/{customer.role.route}/v1/answers/{name}",
            caller=customer.role.name,
            account_id=customer.account_id,
            key_id=f"key_{customer.account_id}",
            door=customer.role.door,
            begun_ms=at_ms - 2,
            answered_ms=at_ms + 2,
        )
        for field, value in values.items():
            setattr(call, field, value)
        self.ledger.begin(call)
        return call

    def receipt(self, customer, at_ms, *, outcome=Outcome.SERVED, number=1, emitter="e"):
        return Receipt(
            emitter=emitter,
            sequence=len(self.ledger.calls),
            call_number=number,
            decided_at_ms=at_ms,
            account_id=customer.account_id,
            key_id=f"key_{customer.account_id}",
            product="weather",
            mode=customer.role.mode,
            outcome=outcome,
            units=1,
        )

    def served(
        self, customer, name, at_ms, *, number=1, emitter="e", status=200, tokens=0, lasts_ms=1, replayed=None
    ):
        receipt = self.receipt(customer, at_ms, number=number, emitter=emitter)
        answered = {"status": status, "code": "served", "receipt": receipt, "tokens": tokens}
        call = self.call(customer, name, at_ms, **answered, replayed=bool(replayed))
        call.answered_ms = at_ms + lasts_ms + 1
        self.store(call, receipt, flags=("replayed",) if replayed else ())
        self.arrivals.append(Arrival(f"/v1/answers/{name}", customer.account_id, at_ms, at_ms + lasts_ms))
        return call

    def refused(self, customer, name, at_ms, *, outcome=Outcome.NO_SANDBOX, status=403):
        receipt = self.receipt(customer, at_ms, outcome=outcome, number=0)
        call = self.call(customer, name, at_ms, status=status, code=outcome.value, receipt=receipt)
        self.store(call, receipt)
        return call

    def store(self, call, receipt, **changes):
        values = {
            "path": call.path,
            "event_id": receipt.event_id,
            "account_id": receipt.account_id,
            "key_id": receipt.key_id,
            "mode": receipt.mode.value,
            "outcome": receipt.outcome.value,
            "status": call.status,
            "units": 1 if receipt.outcome is Outcome.SERVED else 0,
            "tokens": call.tokens,
            "decided_ms": receipt.decided_at_ms,
            "flags": (),
        }
        self.events.append(StoredEvent(**{**values, **changes}))

    def evidence(self) -> Evidence:
        rollups: dict = {}
        for event in self.events:
            group = (event.account_id, str(event.status), event.outcome, event.mode)
            rollups[group] = rollups.get(group, 0) + 1
        served = {
            customer.account_id: sum(
                event.account_id == customer.account_id and event.outcome == "served" for event in self.events
            )
            for customer in self.customers
        }
        counted = {
            account_id: {hour_calls(HOUR): count + self.lost_admissions, hour_units(HOUR): count}
            for account_id, count in served.items()
        }
        return Evidence(
            ledger=self.ledger,
            faults=self.faults,
            customers=self.customers,
            events=self.events,
            arrivals=self.arrivals,
            rollups=rollups if self.rollups is None else self.rollups,
            billing={customer.account_id: self.billing(customer) for customer in self.customers},
            replayed={
                customer.account_id: self.replayed if any(customer.role.repetitions) else 0
                for customer in self.customers
            },
            admitted=counted,
            settled={
                account_id: {hour_units(HOUR): count + self.settled_more, hour_revision(HOUR): 1}
                for account_id, count in served.items()
            },
            billed_hours={account_id: {HOUR: count} for account_id, count in served.items()},
            keys_found=self.keys_found,
            searched_bytes=1,
            stale_max_ms=10 * SECOND,
        )

    def billing(self, customer):
        """Return the invoice: served calls at a cent each, a tenth of one for each token; repetitions are free."""
        billed = [
            event
            for event in self.events
            if event.account_id == customer.account_id and event.outcome == "served" and not event.flags
        ]
        requests, tokens = len(billed), sum(event.tokens for event in billed)
        cap = customer.role.spend_cap
        return Billing(
            used_units={"requests": requests if self.units is None else self.units, "tokens": tokens},
            period_start_ms=START_MS,
            total_minor=requests + tokens // 10 + (cap.fixed_minor if cap else 0) + self.invoiced_more_minor,
            cap_minor=cap and cap.cap_minor,
        )

    def violations(self) -> dict[str, int]:
        return {check.name: check.wrong for check in all_checks(self.evidence()) if not check.ok}


@pytest.fixture
def played():
    return Played()


def fault(effect, began_ms, ended_ms):
    return FaultRecord("a fault", effect, began_ms, ended_ms)


LATER = START_MS + 60 * SECOND


class TestSoundEvidence:
    def test_violates_nothing(self, played):
        assert played.violations() == {}


class TestEveryCallOnce:
    def test_a_lost_call(self, played):
        lost = next(event for event in played.events if event.account_id == "acc_c")
        played.events.remove(lost)
        assert played.violations() == {
            "answered calls that are not stored": 1,
            "calls that reached the upstream and left no trace": 1,
        }

    def test_a_call_stored_twice_under_two_ids(self, played):
        played.events.append(replace(played.events[0], event_id="e-another"))
        assert played.violations()["calls stored twice"] == 1

    @pytest.mark.parametrize(
        "changes", [{"status": 404}, {"account_id": "acc_o"}, {"event_id": "e-other"}, {"tokens": 9}]
    )
    def test_a_call_stored_otherwise_than_seen(self, played, changes):
        played.events[0] = replace(played.events[0], **changes)
        assert played.violations()["calls stored with another status, account, id or units"] == 1

    def test_an_event_of_a_call_that_nobody_made(self, played):
        played.events.append(replace(played.events[0], path="/weather/v1/answers/ghost", event_id="e-9999"))
        assert "calls stored with another status, account, id or units" in played.violations()

    def test_a_call_let_through_without_a_decision(self, played):
        call = played.served(played.customers[1], "through", LATER)
        call.receipt = None
        assert played.violations()["calls let through without a decision"] == 1

    def test_a_broken_call_may_be_missing_and_a_refusal_while_the_disk_is_full(self, played):
        played.call(played.customers[0], "broken", LATER)
        played.faults = [fault(Effect.NO_LINES, LATER - SECOND, LATER + SECOND)]
        played.refused(played.customers[0], "unwritten", LATER, outcome=Outcome.RATE_LIMITED)
        played.events.pop()
        for customer in played.customers[:3]:
            played.served(customer, f"{customer.role.name}-again", LATER + 10 * SECOND)
        played.refused(played.customers[3], "again", LATER + 10 * SECOND)
        assert played.violations() == {}

    def test_a_served_call_may_not_be_missing_while_the_disk_is_full(self, played):
        played.faults = [fault(Effect.NO_LINES, LATER - SECOND, LATER + SECOND)]
        played.served(played.customers[0], "unwritten", LATER)
        played.events.pop()
        assert played.violations()["answered calls that are not stored"] == 1

    def test_what_the_meter_missed_must_show_as_admitted(self, played):
        played.faults = [fault(Effect.LOG_PHASE_LOST, LATER - SECOND, LATER + SECOND)]
        played.served(played.customers[2], "missed", LATER)
        played.events.pop()
        assert played.violations()["calls lost without a trace"] == 1
        played.lost_admissions = 1
        assert "calls lost without a trace" not in played.violations()

    def test_the_meter_may_miss_nothing_without_a_fault(self, played):
        played.served(played.customers[2], "missed", LATER)
        played.events.pop()
        assert played.violations()["answered calls that are not stored"] == 1


class TestLimits:
    def test_one_call_over_the_window_of_a_closed_plan(self, played):
        for number in range(3):
            played.served(played.customers[0], f"burst-{number}", LATER + number * 499)
        assert played.violations() == {"admissions over a window of a closed plan": 1}

    def test_a_window_in_which_redis_was_emptied_begins_anew_once(self, played):
        played.faults = [fault(Effect.REDIS_EMPTIED, LATER, LATER + 10)]
        for number in range(4):
            played.served(played.customers[0], f"burst-{number}", LATER + number * 100)
        assert "admissions over a window of a closed plan" not in played.violations()
        played.served(played.customers[0], "burst-4", LATER + 500)
        assert played.violations()["admissions over a window of a closed plan"] == 1

    def test_a_closed_plan_decided_without_redis(self, played):
        played.served(played.customers[0], "local", LATER, number=0)
        assert played.violations()["calls of closed plans decided without Redis"] == 1

    def test_an_open_plan_has_the_limit_once_for_redis_and_once_for_each_worker(self, played):
        for number in range(2):
            played.served(played.customers[1], f"redis-{number}", LATER + number)
            for emitter in ("one", "two"):
                played.served(
                    played.customers[1], f"{emitter}-{number}", LATER + number, number=0, emitter=emitter
                )
        assert played.violations() == {}
        played.served(played.customers[1], "one-more", LATER + 5, number=0, emitter="two")
        assert played.violations() == {"admissions over the bound of an open plan": 1}

    def test_units_over_a_hard_quota(self, played):
        for number in range(100):
            played.served(played.customers[0], f"quota-{number}", LATER + number * SECOND)
        assert played.violations() == {"units over a hard quota": 1}


WIDE = ((1000, SECOND),)
CAPS = {
    "units": SpendCap(cap_minor=110, fixed_minor=100, unit_minor=UNIT_PRICES),
    "money": SpendCap(cap_minor=130, fixed_minor=100, unit_minor=UNIT_AND_TOKEN_PRICES),
}
CAP_CHECK = "spend caps passed, or not reached"


@pytest.fixture(params=CAPS)
def capped(request, played):
    """An account that was refused once its cap was reached: by ten calls, or by ten with 20 tokens each."""
    role = Role("capped", "closed-cap", WIDE, 1, 1, spend_cap=CAPS[request.param])
    customer = played.add(role)
    tokens = 20 if request.param == "money" else 0
    for number in range(10):
        played.served(customer, f"capped-{number}", LATER + number * SECOND, tokens=tokens)
    played.refused(customer, "capped-refused", LATER + 20 * SECOND, outcome=Outcome.SPEND_CAP_REACHED, status=429)
    return customer


class TestSpendCaps:
    def test_a_cap_that_was_reached_and_not_passed_is_no_violation(self, played, capped):
        assert played.evidence().billing[capped.account_id].total_minor == capped.role.spend_cap.cap_minor
        assert played.violations() == {}

    def test_one_call_over_the_cap(self, played, capped):
        played.served(capped, "over", LATER + 30 * SECOND, tokens=0)
        assert played.violations() == {CAP_CHECK: 1}

    def test_an_invoice_that_costs_more_than_its_events(self, played, capped):
        played.invoiced_more_minor = 1
        # more than the cap, and other than the events
        assert played.violations() == {CAP_CHECK: 2}

    def test_a_cap_that_was_never_reached(self, played, capped):
        call = next(call for call in played.ledger.calls.values() if call.code == "spend_cap_reached")
        call.code = "rate_limited"
        assert played.violations() == {CAP_CHECK: 1}

    def test_an_emptied_redis_may_forget_what_was_not_rolled_up_yet(self, played, capped):
        at_ms = LATER + 40 * SECOND
        played.faults = [fault(Effect.REDIS_EMPTIED, at_ms, at_ms + 10)]
        played.served(capped, "forgotten", at_ms - SECOND)
        assert CAP_CHECK not in played.violations()
        played.served(capped, "later", at_ms + 10 * SECOND)
        assert CAP_CHECK in played.violations()


AT_ONCE_CHECK = "calls at once over a limit, or limits not reached"


@pytest.fixture
def jobs(played):
    """Two calls at once, of four seconds each, and one that was refused meanwhile."""
    role = Role("jobs", "closed-jobs", WIDE, 1, 1, door=Door.METER, at_once=AtOnce(limit=2, lease_ms=5 * SECOND))
    customer = played.add(role)
    for number in range(2):
        played.served(customer, f"jobs-{number}", LATER + number, lasts_ms=4 * SECOND)
    played.refused(customer, "jobs-refused", LATER + SECOND, outcome=Outcome.RATE_LIMITED, status=429)
    return customer


class TestCallsAtOnce:
    def test_as_many_as_the_limit_are_no_violation_nor_is_one_that_follows(self, played, jobs):
        played.served(jobs, "next", LATER + 4 * SECOND)
        assert played.violations() == {}

    def test_one_call_more_at_once(self, played, jobs):
        played.served(jobs, "third", LATER + 4 * SECOND - 1)
        assert played.violations() == {AT_ONCE_CHECK: 1}

    def test_a_call_that_outlasts_its_lease_gives_way(self, played, jobs):
        played.arrivals = [
            replace(arrival, ended_ms=LATER + 60 * SECOND)
            if arrival.path.startswith("/v1/answers/jobs")
            else arrival
            for arrival in played.arrivals
        ]
        played.served(jobs, "after-the-leases", LATER + 5 * SECOND + 1)
        assert played.violations() == {}
        played.served(jobs, "before", LATER + 5 * SECOND - 1)
        assert played.violations() == {AT_ONCE_CHECK: 1}

    def test_a_call_whose_end_the_upstream_never_wrote_lasts_until_its_answer(self, played, jobs):
        played.arrivals = [replace(arrival, ended_ms=0) for arrival in played.arrivals]
        played.served(jobs, "next", LATER + 4 * SECOND + 2)
        assert played.violations() == {}
        played.served(jobs, "third", LATER + 4 * SECOND - 1)
        assert played.violations() == {AT_ONCE_CHECK: 1}

    def test_redis_that_was_emptied_knows_nobody_who_is_under_way(self, played, jobs):
        played.faults = [fault(Effect.REDIS_EMPTIED, LATER + SECOND, LATER + SECOND)]
        for number in range(2):
            played.served(jobs, f"more-{number}", LATER + 2 * SECOND + number, lasts_ms=SECOND)
        assert AT_ONCE_CHECK not in played.violations()
        played.served(jobs, "fifth", LATER + 2 * SECOND + 2, lasts_ms=SECOND)
        assert played.violations()[AT_ONCE_CHECK] == 1

    def test_a_limit_that_was_never_reached(self, played, jobs):
        next(call for call in played.ledger.calls.values() if call.status == 429).status = 403
        assert played.violations()[AT_ONCE_CHECK] == 1


KNOWN_CHECK = "repeated answers that are not known as such"
BILLED_ONCE_CHECK = "repetitions billed, or originals not billed once"


@pytest.fixture
def repeating(played):
    """One call, whose answer the upstream repeats twice."""
    customer = played.add(Role("replays", "closed", WIDE, 1, 1, repetitions=(2,)))
    played.served(customer, "replays-0", LATER)
    for number in (1, 2):
        played.served(customer, f"replays-0?again={number}", LATER + number * SECOND, replayed=True)
    played.replayed = 2
    return customer


class TestRepeatedAnswers:
    def test_repetitions_that_are_not_billed_are_no_violation(self, played, repeating):
        assert sum("replayed" in event.flags for event in played.events) == 2
        assert played.violations() == {}

    def test_a_repetition_that_is_not_known_as_one(self, played, repeating):
        played.events[-1] = replace(played.events[-1], flags=())
        assert played.violations()[KNOWN_CHECK] == 1

    def test_an_original_that_is_taken_for_a_repetition(self, played, repeating):
        first = next(event for event in played.events if event.path.endswith("replays-0"))
        played.events[played.events.index(first)] = replace(first, flags=("replayed",))
        assert played.violations()[KNOWN_CHECK] == 1

    @pytest.mark.parametrize("units", [0, 2])
    def test_an_original_that_is_billed_never_or_twice(self, played, repeating, units):
        played.units = units
        assert played.violations()[BILLED_ONCE_CHECK] == 1

    def test_a_repetition_that_the_rollups_do_not_hold_as_one(self, played, repeating):
        played.replayed = 1
        assert played.violations() == {BILLED_ONCE_CHECK: 1}

    def test_events_get_the_names_of_their_calls_by_receipt_else_by_time(self, played, repeating):
        paths = [event.path for event in played.events]
        bare = [replace(event, path=event.path.partition("?")[0]) for event in played.events]
        played.ledger.calls[paths[-1]].receipt = None
        named = {event.event_id: event.path for event in name_events(reversed(bare), played.ledger)}
        assert [named[event.event_id] for event in bare] == paths

    def test_an_event_in_the_moment_in_which_a_broken_call_ended_is_of_the_next_call(self, played, repeating):
        broken, answered = (played.ledger.calls[event.path] for event in played.events[-2:])
        event = played.events.pop()
        del played.events[-1]
        broken.status, broken.receipt, broken.answered_ms = 0, None, event.decided_ms
        answered.status, answered.code, answered.receipt, answered.begun_ms = (
            500,
            "gateway_error",
            None,
            event.decided_ms,
        )
        (named,) = name_events([replace(event, path=event.path.partition("?")[0], status=500)], played.ledger)
        assert named.path == answered.path

    def test_an_event_more_than_there_were_calls_is_nobodys(self, played, repeating):
        more = replace(played.events[-1], path="/weather/v1/answers/replays-0", event_id="e-more")
        bare = [replace(event, path=event.path.partition("?")[0]) for event in played.events]
        played.events = name_events([*bare, more], played.ledger)
        assert "calls stored with another status, account, id or units" in played.violations()


class TestKeys:
    def test_a_stranger_who_reached_the_upstream(self, played):
        call = played.call(played.customers[1], "stranger", LATER, key_id="", account_id="")
        played.arrivals.append(Arrival("/v1/answers/stranger", "", LATER))
        assert call.status == 0
        assert played.violations()["calls served without a valid key"] == 1

    def test_a_test_key_that_reached_the_upstream(self, played):
        played.served(played.customers[3], "test", LATER)
        assert "calls served without a valid key" in played.violations()

    def test_a_revoked_key_that_reached_the_upstream(self, played):
        key_id = "key_acc_o"
        played.ledger.keys[key_id] = KeyLife(key_id, "acc_o", "text", revoked_ms=LATER, projected_ms=LATER + 20)
        played.served(played.customers[1], "late", LATER + SECOND)
        assert played.violations() == {"calls served with a revoked key": 1}

    def test_a_revoked_key_may_go_on_for_a_while_where_redis_is_away(self, played):
        key_id = "key_acc_o"
        played.ledger.keys[key_id] = KeyLife(key_id, "acc_o", "text", revoked_ms=LATER, projected_ms=LATER + 20)
        played.faults = [fault(Effect.REDIS_AWAY, LATER, LATER + 60 * SECOND)]
        played.served(played.customers[1], "late", LATER + 9 * SECOND, number=0)
        assert "calls served with a revoked key" not in played.violations()
        played.served(played.customers[1], "too-late", LATER + 11 * SECOND, number=0)
        assert played.violations()["calls served with a revoked key"] == 1

    def test_an_expired_key_that_was_served(self, played):
        key_id = "key_acc_o"
        played.ledger.keys[key_id] = KeyLife(key_id, "acc_o", "text", expires_ms=LATER)
        played.served(played.customers[1], "sent-at-the-end", LATER + 2)
        assert played.violations() == {"calls served with an expired key": 1}

    def test_a_key_may_expire_while_its_call_is_on_the_way_to_redis_for_a_second_at_most(self, played):
        key_id = "key_acc_o"
        played.ledger.keys[key_id] = KeyLife(key_id, "acc_o", "text", expires_ms=LATER)
        played.served(played.customers[1], "sent-before", LATER + 1)
        assert played.violations() == {}
        played.served(played.customers[1], "sent-long-before", LATER + SECOND).begun_ms = LATER - 1
        assert played.violations() == {"calls served with an expired key": 1}

    def test_a_key_that_can_be_read(self, played):
        played.keys_found = ["logs/gateway.log"]
        assert played.violations() == {"places where a key can be read": 1}


class TestFigures:
    def test_a_rollup_that_differs(self, played):
        played.rollups = {}
        assert "rollups that differ from the events" in played.violations()

    def test_an_invoice_that_differs(self, played):
        played.units = 7
        assert "invoice units that differ from the events" in played.violations()

    def test_a_counter_that_was_not_settled(self, played):
        played.settled_more = 1
        assert "settled counters that differ from what is billed" in played.violations()

    def test_an_account_that_is_not_served_again(self, played):
        played.faults = [fault(Effect.NONE, LATER, LATER)]
        assert played.violations() == {"accounts not served again after the last fault": 4}
