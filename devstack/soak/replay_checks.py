"""Answers that the upstream says it repeats: known as such, and billed once with their original. Pure."""

from devstack.soak.bills import REPLAYED, billable_events, used_units
from devstack.soak.evidence import Check, Evidence, check_of, tell
from devstack.soak.ledger import AGAIN, SERVED

OK_STATUS = 200


def replays_known(evidence: Evidence) -> Check:
    """An event is flagged if, and only if, the caller saw the upstream's own answer to a repetition."""
    wrong, flagged = [], 0
    for path, (event, *_) in evidence.by_path.items():
        call = evidence.ledger.calls.get(path)
        is_flagged = REPLAYED in event.flags
        flagged += is_flagged
        if call is None or event.outcome != SERVED:
            continue
        # without the upstream's own answer nobody says that it is a repetition
        if is_flagged != call.replayed and (is_flagged or call.status == OK_STATUS):
            wrong.append(f"{tell(call)}: {'flagged' if is_flagged else 'not flagged'} as a repetition")
    return check_of("repeated answers that are not known as such", wrong, f"{flagged:,} repetitions")


def billed_once(evidence: Evidence) -> Check:
    """Judged by names alone: of all calls of one path exactly one is billed, as soon as one can be."""
    wrong, originals, repetitions = [], 0, 0
    for customer in evidence.customers:
        if not any(customer.role.repetitions):
            continue
        billable = billable_events(evidence, customer)
        firsts = {event.path.partition(AGAIN)[0]: event for event in reversed(billable)}
        wanted = used_units(firsts.values())["requests"]
        billed = evidence.billing[customer.account_id].used_units.get("requests", 0)
        spared, rolled_up = len(billable) - len(firsts), evidence.replayed[customer.account_id]
        originals += len(firsts)
        repetitions += spared
        if billed != wanted:
            wrong.append(f"{customer.role.name}: {wanted} originals, {billed} billed")
        if spared != rolled_up:
            wrong.append(f"{customer.role.name}: {spared} repetitions, {rolled_up} in rollups")
    figures = f"{originals:,} originals, {repetitions:,} repetitions of them"
    return check_of("repetitions billed, or originals not billed once", wrong, figures)
