"""Accounts whose records begin to count what was not counted before: calls made before count from the start.

A plan version that began within the billing period is counted apart from the moment in which its record says so;
what usage knows of it by then is restored.

Spend caps begin to count dimensions: what calls before that may come to counts from the start. Until its record
says so, the limit script counts no dimensions. Calls that it admitted before, of hours that are not settled, are
known from usage or are still on their way here: each of these counts as the most that a call can report, until its
hour is settled.

Counters of a subscription whose billing periods begin at other moments go on under another name.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.period import BillingPeriod, period_containing
from control_plane.gateway_sync.counters import JUST_ENDED, HourCount, restore_counters
from control_plane.gateway_sync.moved_counters import may_have_moved, moved_counters
from control_plane.gateway_sync.record_writer import RecordWriter
from control_plane.gateway_sync.records import AccountSnapshot, SubscriptionSnapshot
from control_plane.gateway_sync.restoring import known_counters
from gateway_contract.modes import Mode
from gateway_contract.records import AccountRecord, ProductGrant, RecordError, SpendCap, decode_account_record
from gateway_contract.redis_names import account_record, period_counters

REQUESTS = "requests"
# usage of a whole period is read for each
AT_ONCE = 100

# calls of so short a time are left to the settling of their hour
JUST_BEGUN = timedelta(seconds=10)

Counters = Mapping[str, Sequence[HourCount]]
# a subscription, what is counted, and for parts of a billing period its start (ms)
Counted = tuple[str, str, int]


async def write_accounts(
    sessions: async_sessionmaker[AsyncSession],
    writer: RecordWriter,
    accounts: Sequence[AccountSnapshot],
    *,
    now: datetime,
    public_url: str,
    announce_new: bool = True,
) -> int:
    """Write records as `RecordWriter.write_accounts` does, where caps begin to count with the counters."""
    compared = [account for account in accounts if _counted(account, now) or may_have_moved(account, now)]
    stored = await _stored(writer, compared)
    moves = moved_counters(compared, stored, now)
    beginning = {
        account.id for account in compared if _counted(account, now) - _counted_in(stored.get(account.id))
    }.union(moves)
    others = [account for account in accounts if account.id not in beginning]
    written = await writer.write_accounts(others, now=now, public_url=public_url, announce_new=announce_new)
    found = [account for account in accounts if account.id in beginning]
    for start in range(0, len(found), AT_ONCE):
        page = found[start : start + AT_ONCE]
        known = await known_counters(sessions, [account.id for account in page], now=now)
        moved = {move.new for account in page for move in moves.get(account.id, ())}
        await restore_counters(writer.client, [one for one in known if one[0] not in moved])
        hours = {name: counts for name, _, counts in known}
        for account in page:
            told = _beginnings(account, hours, now)
            written += await writer.begin_counting(
                account, told, moves.get(account.id, ()), now=now, public_url=public_url
            )
    return written


async def _stored(writer: RecordWriter, accounts: Sequence[AccountSnapshot]) -> dict[str, AccountRecord]:
    """Return the records that gateways have; what cannot be read is left out."""
    if not accounts:
        return {}
    async with writer.client.pipeline(transaction=False) as pipeline:
        for account in accounts:
            pipeline.get(account_record(account.id))
        texts = await pipeline.execute()
    found = {}
    for account, text in zip(accounts, texts, strict=True):
        with suppress(RecordError):
            if text is not None:
                found[account.id] = decode_account_record(text)
    return found


def _counted(account: AccountSnapshot, now: datetime) -> set[Counted]:
    """Return what the account's caps and allowances count; not yet a plan version that has only just begun."""
    found = {(held.id, name, 0) for held in account.subscriptions for name in _dimensions(held.spend_cap)}
    for held in account.subscriptions:
        if held.counting is not None:
            parts = held.counting.parts.items()
            started = held.counting_from_ms
            found |= {(held.id, part, started) for part, begun in parts if begun <= now - JUST_BEGUN}
    return found


def _counted_in(record: AccountRecord | None) -> set[Counted]:
    products = {} if record is None else record.products
    found = {(held.subscription_id, name, 0) for held in products.values() for name in _dimensions(held.spend_cap)}
    for held in products.values():
        grant: ProductGrant | None = held
        while grant is not None:
            if (allowance := grant.allowance) is not None:
                parts = {allowance.part, *allowance.others}
                found |= {(held.subscription_id, part, allowance.period_start_ms) for part in parts}
            grant = None if grant.next is None else grant.next.grant
    return found


def _dimensions(cap: SpendCap | None) -> set[str]:
    return set() if cap is None else {price.dimension for price in cap.prices} - {REQUESTS}


def _beginnings(account: AccountSnapshot, hours: Counters, now: datetime) -> dict[str, str]:
    told = {}
    for held in account.subscriptions:
        if held.spend_cap is None or not _dimensions(held.spend_cap):
            continue
        maximums = {
            # a unit that no header reports is never counted
            name: max((most.get(name, 0) for most in held.spend_cap.reserves.values()), default=0)
            for name in _dimensions(held.spend_cap)
        }
        for period in _periods(held, now):
            name = period_counters(account.id, held.id, period.start_ms, Mode.LIVE)
            known = {
                str(hour.hour): {"calls": hour.calls, "used": hour.dimensions} for hour in hours.get(name, ())
            }
            told[name] = json.dumps({"maximums": maximums, "known": known})
    return told


def _periods(held: SubscriptionSnapshot, now: datetime) -> Collection[BillingPeriod]:
    """Return the periods in which calls may be counted by now, by Redis' clock."""
    moments = (now - JUST_ENDED, now, now + JUST_ENDED)
    counted_from = held.anchor_at, held.interval, held.time_zone
    return dict.fromkeys(period_containing(moment, *counted_from) for moment in moments)
