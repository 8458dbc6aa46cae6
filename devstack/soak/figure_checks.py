"""Rollups, invoices and counters against the events, and that all is well again at the end. Pure."""

from collections import Counter

from devstack.soak.bills import billed_events, used_units
from devstack.soak.evidence import (
    FELT_AFTER_MS,
    USED_UP,
    Check,
    Evidence,
    check_of,
    was_served,
)
from devstack.soak.stored import Group
from gateway_contract import counters
from gateway_contract.modes import Mode


def rollups_agree(evidence: Evidence) -> Check:
    stored: Counter[Group] = Counter(
        (event.account_id, str(event.status), event.outcome, event.mode) for event in evidence.events
    )
    wrong = [
        f"{group}: {stored[group]} events, {evidence.rollups.get(group, 0)} in rollups"
        for group in stored.keys() | evidence.rollups.keys()
        if stored[group] != evidence.rollups.get(group, 0)
    ]
    return check_of("rollups that differ from the events", wrong, f"{len(stored):,} groups")


def invoices_agree(evidence: Evidence) -> Check:
    wrong, figures = [], 0
    for customer in evidence.customers:
        used = evidence.billing[customer.account_id].used_units
        wanted = used_units(billed_events(evidence, customer))
        figures += wanted["requests"]
        wrong += [
            f"{customer.role.name}: {units} {name} by events, {used.get(name, 0)} on the invoice"
            for name, units in wanted.items()
            if units != used.get(name, 0)
        ]
    return check_of("invoice units that differ from the events", wrong, f"{figures:,} units")


def settled(evidence: Evidence) -> Check:
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
    return check_of("settled counters that differ from what is billed", wrong, f"{hours} hours of accounts")


def recovered(evidence: Evidence) -> Check:
    """After the last fault everybody is served again."""
    last_ms = max((fault.ended_ms for fault in evidence.faults), default=0) + FELT_AFTER_MS
    served = {
        call.account_id
        for call in evidence.ledger.calls.values()
        if call.begun_ms > last_ms and (was_served(call) or call.code in USED_UP)
    }
    wrong = [c.role.name for c in evidence.customers if c.account_id not in served]
    return check_of("accounts not served again after the last fault", wrong, f"{len(evidence.faults)} faults")
