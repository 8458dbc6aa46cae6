"""What time does to credits: grants begin and expire, rests are written off, reservations end."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.accounts.operations import bump_gateway_versions
from control_plane.billing.credits import ledger, metrics
from control_plane.billing.credits.ledger import SYSTEM, Cause
from control_plane.billing.credits.model import EntryKind, ReservationStatus, next_look
from control_plane.billing.credits.prepaid import limits_told, prepaid_of_accounts
from control_plane.billing.credits.reservations import give_back_held
from control_plane.billing.credits.tables import CreditGrant, CreditReservation
from control_plane.foundation.clock import floor_ms, utc_now
from control_plane.foundation.db import is_any_of
from control_plane.foundation.rounds import repeat

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CreditExpiryConfig:
    """`keep`: how long after it expired a grant still pays for what was used before."""

    keep: timedelta = timedelta(hours=72)
    pause_seconds: float = 1.0
    per_round: int = 500


@dataclass(frozen=True, slots=True)
class Looked:
    """How many grants were looked at, how many rests written off, how many reservations expired."""

    grants: int = 0
    written_off: int = 0
    reservations: int = 0


async def look(session: AsyncSession, *, now: datetime, keep: timedelta, limit: int = 500) -> Looked:
    """Do what is due at `now`, at most `limit` grants and reservations; call again while it did something.

    A grant that begins or expires is told to gateways where a prepaid subscription can use it. What is left of it
    `keep` after it expired is written off. Idempotent: what was done is not done again, also when two workers look
    at the same moment.
    """
    now = floor_ms(now)
    grants = select(CreditGrant.account_id).where(CreditGrant.look_at <= now).limit(limit)
    held = select(CreditReservation.account_id).where(
        CreditReservation.status == ReservationStatus.HELD.value, CreditReservation.expires_at <= now
    )
    account_ids = {*(await session.scalars(grants)), *(await session.scalars(held.limit(limit)))}
    if not account_ids:
        return Looked()
    await ledger.lock_accounts(session, account_ids)
    async with limits_told(session, account_ids, now=now):
        ended = await _end_reservations(session, account_ids, now)
    changed, found, written_off = await _look_at_grants(session, account_ids, keep, now)
    prepaid = {one.account_id for one in await prepaid_of_accounts(session, changed, now=now)}
    if prepaid:
        await bump_gateway_versions(session, prepaid, now)
    metrics.WRITTEN_OFF.inc(written_off)
    metrics.RESERVATIONS_EXPIRED.inc(ended)
    return Looked(found, written_off, ended)


async def run_credit_expiry(
    *,
    config: CreditExpiryConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Look at what is due until `stop`. Failures are counted, logged and tried again."""

    async def one_round() -> float:
        async with sessions() as session, session.begin():
            done = await look(session, now=clock(), keep=config.keep, limit=config.per_round)
        return config.pause_seconds if done == Looked() else 0

    await repeat("credit-expiry", one_round, stop=stop, failures=metrics.FAILURES.labels("expiry"))


async def _end_reservations(session: AsyncSession, account_ids: Collection[str], now: datetime) -> int:
    statement = (
        select(CreditReservation)
        .where(
            is_any_of(CreditReservation.account_id, account_ids),
            CreditReservation.status == ReservationStatus.HELD.value,
            CreditReservation.expires_at <= now,
        )
        .order_by(CreditReservation.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    rows = list(await session.scalars(statement))
    for row in rows:
        await give_back_held(session, row, status=ReservationStatus.EXPIRED, author=SYSTEM, now=now)
    return len(rows)


async def _look_at_grants(
    session: AsyncSession, account_ids: Collection[str], keep: timedelta, now: datetime
) -> tuple[set[str], int, int]:
    """Return the accounts of which a grant began or expired, how many grants were due, how many written off."""
    changed: set[str] = set()
    written_off = 0
    rows = await ledger.grants_to_look_at(session, account_ids, now)
    for grant in rows:
        seen = grant.look_at or now
        if grant.remaining_minor and seen in {grant.starts_at, grant.expires_at}:
            changed.add(grant.account_id)
        grant.look_at = next_look(starts_at=grant.starts_at, expires_at=grant.expires_at, keep=keep, after=now)
        if grant.look_at is None and grant.expires_at is not None and grant.remaining_minor:
            rest = grant.remaining_minor
            ledger.add_entry(session, grant, -rest, kind=EntryKind.EXPIRE, cause=Cause(), now=now)
            written_off += 1
    await session.flush()
    return changed, len(rows), written_off
