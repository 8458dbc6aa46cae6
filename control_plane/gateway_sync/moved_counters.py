"""Counters of subscriptions whose billing periods begin at other moments now: they go on under another name.

Only a trial that is ended early, or made longer, moves the beginnings of periods.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from control_plane.foundation.clock import to_ms
from control_plane.foundation.period import period_containing
from control_plane.gateway_sync.counters import KEEP_AFTER_PERIOD
from control_plane.gateway_sync.records import AccountSnapshot, SubscriptionSnapshot
from gateway_contract.counters import hour_number
from gateway_contract.modes import Mode
from gateway_contract.records import AccountRecord
from gateway_contract.redis_names import period_counters

# longer than nobody may have written records
LATELY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class MovedCounter:
    """One counter's old and new name. `units_too`: units count on, else calls are only numbered on."""

    old: str
    new: str
    first_hour: int
    forget_at_ms: int
    units_too: bool

    @property
    def words(self) -> str:
        """What the script `move_counters` reads."""
        return f"{self.first_hour} {self.forget_at_ms} {int(self.units_too)}"


def may_have_moved(account: AccountSnapshot, now: datetime) -> bool:
    """Say whether the account's record must be compared with the one that gateways have."""
    return any(_was_lately_in_trial(held, now) for held in account.subscriptions)


def moved_counters(
    accounts: Iterable[AccountSnapshot], stored: Mapping[str, AccountRecord], now: datetime
) -> dict[str, Sequence[MovedCounter]]:
    """Return by account what moves with its new record; `stored`: the records that gateways have. Pure."""
    found: dict[str, Sequence[MovedCounter]] = {}
    for account in accounts:
        record = stored.get(account.id)
        if record is None or record.version > account.version:
            continue
        moves = [
            move
            for held in account.subscriptions
            if _was_lately_in_trial(held, now)
            for move in _moves(account.id, held, record, now)
        ]
        if moves:
            found[account.id] = moves
    return found


def _was_lately_in_trial(held: SubscriptionSnapshot, now: datetime) -> bool:
    return held.trial_ends_at is not None and now < held.trial_ends_at + LATELY


def _moves(
    account_id: str, held: SubscriptionSnapshot, record: AccountRecord, now: datetime
) -> Sequence[MovedCounter]:
    grant = record.products.get(held.product)
    if grant is None or grant.subscription_id != held.id or held.trial_ends_at is None:
        return ()
    old = [period.start_ms for period in grant.periods if period.start_ms <= to_ms(now) < period.end_ms]
    new = period_containing(now, held.anchor_at, held.interval, held.time_zone)
    if not old or old[-1] == new.start_ms:
        return ()
    return [
        MovedCounter(
            old=period_counters(account_id, held.id, old[-1], mode),
            new=period_counters(account_id, held.id, new.start_ms, mode),
            first_hour=hour_number(new.start_ms),
            forget_at_ms=to_ms(new.end + KEEP_AFTER_PERIOD),
            units_too=held.anchor_at > now,  # made longer, and not ended: billing began by now
        )
        for mode in Mode
    ]
