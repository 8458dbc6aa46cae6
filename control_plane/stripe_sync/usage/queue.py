"""Which rows are taken up next, decided and put down as such before Stripe is asked.

What Stripe is asked is committed first: a process that dies in between leaves a row whose outcome nobody knows,
and whoever finds it asks the same again. One claim is made at a time, in all processes, so that a customer and
meter are never in two hands; nothing is locked while Stripe is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import EPOCH
from control_plane.stripe_sync.usage.facts import UsageFacts, usage_facts
from control_plane.stripe_sync.usage.model import (
    AskAgain,
    Cancel,
    Decision,
    Drop,
    LookFirst,
    RowKey,
    RowState,
    Send,
    Settle,
    Wait,
    Way,
    decide,
    idempotency_key,
    identifier_of,
)
from control_plane.stripe_sync.usage.reasons import Reason
from control_plane.stripe_sync.usage.rows import (
    Ask,
    Look,
    as_row,
    key_of,
    lock_queue,
    look_of,
    rows_of_hours,
    settle,
)
from control_plane.stripe_sync.usage.tables import StripeUsageRow

LEASE: Final = timedelta(seconds=150)
"""Longer than Stripe is ever asked; a row whose asker died is taken up again after it."""

LANES_PER_CLAIM: Final = 1_000
BEGINNING: Final = ("", "")
END_OF_TIME: Final = EPOCH.replace(year=9999)
_PAUSES: Final = {
    Reason.EARLIER_ROW: timedelta(seconds=2),
    Reason.NO_SUBSCRIPTION: timedelta(seconds=30),
    Reason.NOT_PUSHED: timedelta(seconds=30),
    Reason.AHEAD: timedelta(seconds=60),
}

# From lane to lane by the index of unsettled rows, going on where the claim before has ended: a customer who is
# far behind takes one turn a round like everybody else.
_FIRST_OF_LANES = text("""
WITH RECURSIVE lanes AS (
    (SELECT account_id, meter, 1 AS number FROM stripe_usage_rows
    WHERE state IN ('waiting', 'sent') AND (account_id, meter) > (:after_account, :after_meter)
        AND (CAST(:account AS text) IS NULL OR account_id = :account)
    ORDER BY account_id, meter LIMIT 1)
    UNION ALL
    SELECT next.account_id, next.meter, lanes.number + 1
    FROM lanes CROSS JOIN LATERAL (
        SELECT account_id, meter FROM stripe_usage_rows
        WHERE state IN ('waiting', 'sent') AND (account_id, meter) > (lanes.account_id, lanes.meter)
            AND (CAST(:account AS text) IS NULL OR account_id = :account)
        ORDER BY account_id, meter LIMIT 1
    ) AS next
    WHERE lanes.number < :lanes
)
SELECT lanes.account_id, lanes.meter, first.hour, first.revision, first.phase_id
FROM lanes LEFT JOIN LATERAL (
    SELECT hour, revision, phase_id FROM stripe_usage_rows AS row
    WHERE row.account_id = lanes.account_id AND row.meter = lanes.meter AND state IN ('waiting', 'sent')
        AND due_at <= :now AND hour < :until
        AND (CAST(:subscription AS text) IS NULL OR subscription_id = :subscription)
        AND NOT EXISTS (
            SELECT 1 FROM stripe_usage_rows AS busy
            WHERE busy.account_id = lanes.account_id AND busy.meter = lanes.meter AND busy.leased_until > :now)
    ORDER BY hour, revision, phase_id LIMIT 1
) AS first ON true
ORDER BY lanes.account_id, lanes.meter
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Only:
    """A subscription's rows of hours before `until`, nobody else's."""

    subscription_id: str
    account_id: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What is to be done; how many rows were decided without Stripe. `after`: where the next claim goes on."""

    asks: tuple[Ask, ...] = ()
    looks: tuple[Look, ...] = ()
    settled: int = 0
    after: tuple[str, str] = BEGINNING

    @property
    def work(self) -> tuple[Ask | Look, ...]:
        return *self.asks, *self.looks


async def claim(
    session: AsyncSession,
    *,
    installation: str,
    now: datetime,
    limit: int,
    after: tuple[str, str] = BEGINNING,
    only: Only | None = None,
) -> Claimed:
    """Decide on the next due row of up to `limit` lanes, and lease those that Stripe is asked about.

    The caller commits before it asks. `after` is BEGINNING again when all lanes were looked at.
    """
    await lock_queue(session)
    found = (
        await session.execute(
            _FIRST_OF_LANES,
            {
                "after_account": after[0],
                "after_meter": after[1],
                "account": only and only.account_id,
                "subscription": only and only.subscription_id,
                "until": only.until if only else END_OF_TIME,
                "lanes": LANES_PER_CLAIM,
                "now": now,
            },
        )
    ).all()
    ready = [row for row in found if row.hour is not None]
    taken = ready[:limit]
    next_lane = BEGINNING
    if len(ready) > limit:
        next_lane = (taken[-1].account_id, taken[-1].meter)
    elif len(found) == LANES_PER_CLAIM:
        next_lane = (found[-1].account_id, found[-1].meter)
    keys = [
        RowKey(
            account_id=row.account_id,
            hour=row.hour,
            revision=row.revision,
            phase_id=row.phase_id,
            meter=row.meter,
        )
        for row in taken
    ]
    return await _decide_all(session, keys, installation=installation, after=next_lane, now=now)


async def _decide_all(
    session: AsyncSession, keys: list[RowKey], *, installation: str, after: tuple[str, str], now: datetime
) -> Claimed:
    hours = await rows_of_hours(session, keys)
    rows = [hours[key.total][key.revision] for key in keys]
    facts = await usage_facts(
        session,
        {row.subscription_id for row in rows},
        plan_version_ids={row.plan_version_id for row in rows},
    )
    asks: list[Ask] = []
    looks: list[Look] = []
    settled = 0
    for key, row in zip(keys, rows, strict=True):
        decision = _decision(row, hours[key.total], facts, now)
        match decision:
            case LookFirst():
                row.leased_until = now + LEASE
                looks.append(look_of(row))
            case Send() | Cancel() | AskAgain():
                if not isinstance(decision, AskAgain):
                    _write_request(row, decision, hours[key.total], facts, first_sent_at=now)
                    row.identifier = identifier_of(installation, key, row.edition)
                # from now on the outcome is unknown until it is known
                row.state, row.reason = RowState.SENT, Reason.UNKNOWN
                row.attempts += 1
                row.sent_at, row.leased_until = now, now + LEASE
                asks.append(_ask(row, hours[key.total], installation))
            case Drop():
                for one in (row, hours[key.total][decision.revision]):
                    settle(one, RowState.CANCELLED, Reason.NEVER_SENT)
                settled += 2
            case Settle():
                settle(row, decision.state, decision.reason)
                settled += 1
            case Wait():
                row.reason = decision.reason
                row.due_at = now + _PAUSES[decision.reason]
    await session.flush()
    return Claimed(asks=tuple(asks), looks=tuple(looks), settled=settled, after=after)


def _decision(
    row: StripeUsageRow, of_hour: Mapping[int, StripeUsageRow], facts: UsageFacts, now: datetime
) -> Decision:
    siblings = [as_row(one) for revision, one in of_hour.items() if revision != row.revision]
    rating = facts.rating(key_of(row), subscription_id=row.subscription_id, plan_version_id=row.plan_version_id)
    return decide(
        as_row(row), siblings, at_stripe=facts.at_stripe.get(row.subscription_id), rating=rating, now=now
    )


def _write_request(
    row: StripeUsageRow,
    decision: Send | Cancel,
    of_hour: Mapping[int, StripeUsageRow],
    facts: UsageFacts,
    *,
    first_sent_at: datetime,
) -> None:
    rating = facts.rating(key_of(row), subscription_id=row.subscription_id, plan_version_id=row.plan_version_id)
    row.customer_id = facts.at_stripe[row.subscription_id].customer_id
    row.event_name = rating.event_name
    row.way, row.cancels_revision = Way.EVENT, None
    if isinstance(decision, Cancel):
        target = of_hour[decision.revision]
        row.way, row.cancels_revision = Way.CANCEL, decision.revision
        # Stripe takes the cancellation where the event lies
        row.customer_id, row.event_name = target.customer_id, target.event_name
    row.stripe_at = decision.stripe_at
    row.first_sent_at = first_sent_at


def _ask(row: StripeUsageRow, of_hour: Mapping[int, StripeUsageRow], installation: str) -> Ask:
    if row.identifier is None or row.customer_id is None or row.event_name is None or row.stripe_at is None:
        message = "a row without identifier, customer or moment cannot be sent"
        raise ValueError(message)
    way = Way(row.way)
    target = of_hour[row.cancels_revision] if row.cancels_revision is not None else None
    return Ask(
        key=key_of(row),
        way=way,
        identifier=row.identifier,
        idempotency_key=idempotency_key(installation, row.identifier, way, row.key_turn),
        customer_id=row.customer_id,
        event_name=row.event_name,
        stripe_at=row.stripe_at,
        units=row.delta_units,
        attempt=row.attempts,
        cancels=target.identifier if target is not None else None,
    )
