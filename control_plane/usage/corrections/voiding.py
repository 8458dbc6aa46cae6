"""Voiding events, and taking that back. Nothing here commits.

A correction locks its hour's row in `usage_hours`, is written, and touches the hour, in this order: an aggregator
either sees it, or finds the mark raised after it looked.
"""

import asyncio
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.queries import account
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.ids import new_id
from control_plane.usage.corrections.amounts import clean_reason
from control_plane.usage.corrections.hours import (
    MAX_CORRECTIONS,
    TooManyCorrectionsError,
    lock_hour,
    require_countable,
    require_full_hour,
)
from control_plane.usage.corrections.queries import VoidRecord, in_force
from control_plane.usage.corrections.records import add_correction, withdraw
from control_plane.usage.corrections.tables import UsageVoid, UsageWithdrawal
from control_plane.usage.requests.model import EventFilters, EventSpan
from control_plane.usage.retention import MINIMUM_DAYS
from control_plane.usage.store import EventStore
from control_plane.usage.store.event_reads import search_events

HOUR = timedelta(hours=1)


async def void_event(
    session: AsyncSession,
    store: EventStore,
    *,
    account_id: str,
    hour: datetime,
    event_id: str,
    reason: str,
    actor: str,
    now: datetime,
    kept_days: int = MINIMUM_DAYS,
) -> UsageVoid:
    """Have an event count nothing; it stays in the request history. Idempotent: a void in force is returned.

    A voided call is an original all the same: answers that the upstream repeated for it are not billed.

    Raises:
        NotFoundError: no such account, or no such event in its hour. ValidationFailedError: hour or reason.
        HourTooOldError, HourKeptByDayError, TooManyCorrectionsError.
    """
    reason = clean_reason(reason)
    require_full_hour(hour, now)
    await account(session, account_id)
    require_countable(hour, now, kept_days=kept_days)
    span = EventSpan(account_id=account_id, start=hour, end=hour + HOUR)
    if not await asyncio.to_thread(search_events, store, span, EventFilters(event_id=event_id), limit=1):
        raise NotFoundError("usage_event", f"{event_id} of the account in that hour")
    await lock_hour(session, account_id=account_id, hour=hour)
    voids = (UsageVoid.account_id == account_id, UsageVoid.hour == hour, in_force(UsageVoid))
    known = await session.scalar(select(UsageVoid).where(*voids, UsageVoid.event_id == event_id))
    if known is not None:
        return known
    if (await session.scalar(select(func.count()).select_from(UsageVoid).where(*voids)) or 0) >= MAX_CORRECTIONS:
        raise TooManyCorrectionsError
    void = UsageVoid(
        id=new_id("uvd", now),
        account_id=account_id,
        hour=hour,
        event_id=event_id,
        reason=reason,
        author=actor,
        created_at=now,
    )
    await add_correction(session, void, actor=actor, now=now)
    return void


async def withdraw_void(
    session: AsyncSession,
    *,
    void_id: str,
    reason: str,
    actor: str,
    now: datetime,
    kept_days: int = MINIMUM_DAYS,
) -> VoidRecord:
    """Let a voided event count again. Idempotent: the first withdrawal stands.

    Raises:
        NotFoundError. ValidationFailedError: the reason. HourTooOldError, HourKeptByDayError.
    """
    reason = clean_reason(reason)
    void = await session.get(UsageVoid, void_id)
    if void is None:
        raise NotFoundError("usage_void", void_id)
    await lock_hour(session, account_id=void.account_id, hour=void.hour)
    if (known := await session.get(UsageWithdrawal, void_id)) is not None:
        return VoidRecord(void, known)
    require_countable(void.hour, now, kept_days=kept_days)
    return VoidRecord(void, await withdraw(session, void, reason=reason, actor=actor, now=now))
