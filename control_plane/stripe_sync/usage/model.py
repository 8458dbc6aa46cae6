"""What is done with a row of sealed usage next. Pure.

Stripe adds meter events up by the moment they bear, and knows neither our phases nor our hours. So a row is sent
once, with a moment inside the period and the plan that Stripe has it in, or not at all: then our own adjustment of
the invoice takes it (`RowState.OURS`).
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from control_plane.stripe_sync.usage.moments import AtStripe, closed_because, place_of
from control_plane.stripe_sync.usage.reasons import Reason

MAX_IDENTIFIER: Final = 100
MAX_UNITS: Final = 10**15 - 1
"""Stripe takes values of at most 15 digits."""

OLDEST: Final = timedelta(days=34)
"""Stripe takes moments of the past 35 days; a day is left for what is on its way."""

AHEAD: Final = timedelta(minutes=4)
"""Stripe takes moments up to five minutes ahead of its clock."""

REMEMBERED: Final = timedelta(hours=20)
"""Stripe knows an identifier again for a day at least; after this long we look before we send."""

CANCELLABLE: Final = timedelta(hours=23)
"""An event can be cancelled for a day after Stripe received it."""


class RowState(StrEnum):
    """See `tables.StripeUsageRow`."""

    WAITING = "waiting"
    SENT = "sent"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    TOO_OLD = "too_old"
    OURS = "ours"

    @property
    def is_settled(self) -> bool:
        """Say whether nothing more happens by itself."""
        return self not in {RowState.WAITING, RowState.SENT}


NOT_AT_STRIPE: Final = (RowState.REFUSED, RowState.TOO_OLD, RowState.OURS)
"""Settled, and Stripe does not count them: what they come to is ours to bill."""


class Way(StrEnum):
    """What Stripe is asked for."""

    EVENT = "event"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowKey:
    """The ledger's key."""

    account_id: str
    hour: datetime
    revision: int
    phase_id: str
    meter: str

    @property
    def total(self) -> tuple[str, datetime, str, str]:
        """What rows have in common whose sum is an hour's usage."""
        return self.account_id, self.hour, self.phase_id, self.meter


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a decision about a row needs to know of it."""

    key: RowKey
    delta_units: int
    state: RowState = RowState.WAITING
    reason: Reason | str = Reason.NONE
    edition: int = 1
    first_sent_at: datetime | None = None
    stripe_at: datetime | None = None

    @property
    def is_untouched(self) -> bool:
        """Say whether Stripe was never asked about it."""
        return self.state is RowState.WAITING and self.first_sent_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send a meter event that bears this moment."""

    stripe_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Have Stripe forget the event of an earlier row."""

    revision: int
    stripe_at: datetime


@dataclass(frozen=True, slots=True)
class AskAgain:
    """Ask what was asked before, word for word."""


@dataclass(frozen=True, slots=True)
class LookFirst:
    """See what Stripe counts before anything is sent: it may not know the identifier any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Neither this row nor that of `revision`, which is its opposite, was ever sent, and neither need be."""

    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """Stripe is not asked."""

    state: RowState
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Something else comes first."""

    reason: Reason


Decision = Send | Cancel | AskAgain | LookFirst | Drop | Settle | Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """Who rates a meter for a phase. `event_name` None: our own rating does; `pushed` False: nobody knows yet."""

    event_name: str | None = None
    pushed: bool = True


def decide(
    row: Row, siblings: Collection[Row], *, at_stripe: AtStripe | None, rating: Rating, now: datetime
) -> Decision:
    """Return what to do with a row that waits, or whose outcome is not known.

    `siblings`: the other rows of its hour, phase and meter. `at_stripe` None: Stripe has no subscription yet.
    """
    if at_stripe is None:
        return Wait(reason=Reason.NO_SUBSCRIPTION)
    if row.state is RowState.SENT:
        return _ask_again(row, at_stripe, now)
    if rating.event_name is None and not rating.pushed:
        return Wait(reason=Reason.NOT_PUSHED)
    if rating.event_name is None:
        return Settle(state=RowState.OURS, reason=Reason.NOT_NATIVE)
    if opposite := _opposite(row, siblings):
        return Drop(revision=opposite.key.revision)
    return _place(row, siblings, at_stripe, now)


def _place(row: Row, siblings: Collection[Row], at_stripe: AtStripe, now: datetime) -> Decision:
    place = place_of(row.key.hour, row.key.phase_id, at_stripe)
    if (closed := closed_because(place, at_stripe, now)) is not None:
        return Settle(state=RowState.OURS, reason=closed)
    if now - place.moment > OLDEST:
        return Settle(state=RowState.TOO_OLD, reason=Reason.TOO_OLD)
    if abs(row.delta_units) > MAX_UNITS:
        return Settle(state=RowState.OURS, reason=Reason.TOO_LARGE)
    if place.moment > now + AHEAD:
        return Wait(reason=Reason.AHEAD)
    if row.delta_units < 0:
        return _take_back(row, siblings, place.moment, now)
    return Send(stripe_at=place.moment)


def _ask_again(row: Row, at_stripe: AtStripe, now: datetime) -> Decision:
    """A late answer must not be taken for a new event: after a day Stripe would count it twice.

    Once the invoice is final Stripe would still take it and bill it nowhere; and what is refused now may have been
    taken before. So these are looked at as well.
    """
    place = place_of(row.key.hour, row.key.phase_id, at_stripe)
    asked_at = row.first_sent_at or now
    over = closed_because(place, at_stripe, now) is not None or now - place.moment > OLDEST
    forgotten = now - asked_at > REMEMBERED
    return LookFirst() if over or forgotten or row.reason == Reason.MAYBE_REFUSED else AskAgain()


def _opposite(row: Row, siblings: Collection[Row]) -> Row | None:
    if not row.is_untouched:
        return None
    found = [one for one in siblings if one.is_untouched and one.delta_units == -row.delta_units]
    return min(found, key=lambda one: abs(one.key.revision - row.key.revision), default=None)


def _take_back(row: Row, siblings: Collection[Row], moment: datetime, now: datetime) -> Decision:
    if any(not one.state.is_settled and one.key.revision < row.key.revision for one in siblings):
        return Wait(reason=Reason.EARLIER_ROW)
    delivered = [one for one in siblings if one.state is RowState.DELIVERED]
    if sum(one.delta_units for one in delivered) + row.delta_units < 0:
        # what it takes back never reached Stripe
        return Settle(state=RowState.OURS, reason=Reason.TAKES_MORE)
    whole = [
        one
        for one in delivered
        if one.delta_units == -row.delta_units
        and one.key.revision < row.key.revision
        and one.first_sent_at is not None
        and now - one.first_sent_at < CANCELLABLE
    ]
    if whole and row.edition == 1:  # another edition: Stripe refused to cancel
        latest = max(whole, key=lambda one: one.key.revision)
        return Cancel(revision=latest.key.revision, stripe_at=latest.stripe_at or moment)
    return Send(stripe_at=moment)


def identifier_of(installation: str, key: RowKey, edition: int) -> str:
    """Return the identifier of a row's event: readable where it fits, else a digest of the same."""
    again = f":e{edition}" if edition > 1 else ""
    name = f"{key.phase_id}:{key.meter}:{key.hour:%Y%m%d%H}:{key.revision}{again}"
    readable = f"km:{installation}:{name}"
    if len(readable) <= MAX_IDENTIFIER:
        return readable
    return f"km:{hashlib.sha256(readable.encode()).hexdigest()}"


def idempotency_key(installation: str, identifier: str, way: Way, turn: int) -> str:
    """Return the key of a row's request; another `turn` where Stripe has failed under the one before."""
    return f"km:{installation}:usage-{way}:{identifier}:{turn}"


def identifier_in(told: str, installation: str) -> str:
    """Return the identifier that an error report means: it names the event, or its request's idempotency key."""
    prefix = f"km:{installation}:usage-{Way.EVENT}:"
    return told.removeprefix(prefix).rpartition(":")[0] if told.startswith(prefix) else told


def lane_of(customer_id: str, event_name: str) -> str:
    """Return the lane in which Stripe takes one call at a time."""
    return f"{customer_id}:{event_name}"
