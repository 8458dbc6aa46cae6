"""Which of several calls of one path an event is of: the product knows paths, not the names of a ledger. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from devstack.soak.ledger import AGAIN, BROKEN, Call, Ledger
from devstack.soak.stored import StoredEvent


def name_events(events: Iterable[StoredEvent], ledger: Ledger) -> list[StoredEvent]:
    """Return the events under the names of their calls: by receipts, else by the moment of the decision.

    One that is nobody's gets a name that nobody sent.
    """
    calls_of: dict[str, list[Call]] = defaultdict(list)
    for call in ledger.calls.values():
        calls_of[call.path.partition(AGAIN)[0]].append(call)
    events_of: dict[str, list[StoredEvent]] = defaultdict(list)
    for event in events:
        events_of[event.path].append(event)
    return [
        named
        for path, found in events_of.items()
        for named in (found if len(calls_of[path]) < 2 else _named(found, calls_of[path]))  # noqa: PLR2004 - one
    ]


def _named(events: list[StoredEvent], calls: list[Call]) -> list[StoredEvent]:
    seen = {call.receipt.event_id: call for call in calls if call.receipt is not None}
    unseen = [call for call in calls if call.receipt is None]
    named = []
    for event in sorted(events, key=lambda event: event.decided_ms):
        call = seen.get(event.event_id)
        if call is None and unseen:
            # a caller repeats one call after the other, so no two of them were under way at once
            # in a moment that ends one and begins the next, an answer was logged, a broken call need not be
            call = min(unseen, key=lambda call: (_distance_ms(call, event.decided_ms), call.status == BROKEN))
            unseen.remove(call)
        named.append(replace(event, path=call.path if call else f"{event.path}{AGAIN}nobody"))
    return named


def _distance_ms(call: Call, at_ms: int) -> int:
    return max(call.begun_ms - at_ms, at_ms - call.answered_ms, 0)
