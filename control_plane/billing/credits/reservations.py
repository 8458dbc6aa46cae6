"""Holding credits back for something that is about to be done. Nothing here commits.

A reservation takes its amount out of grants at once, so that nobody else can use it; whatever ends it gives that
back to the grants it came from, and draws what the thing came to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.credits import ledger
from control_plane.billing.credits.ledger import Cause
from control_plane.billing.credits.model import (
    MAX_AMOUNT_MINOR,
    MAX_HOLD,
    CreditsUsedUpError,
    EntryKind,
    ReferenceTakenError,
    ReservationNotFoundError,
    ReservationOverError,
    ReservationStatus,
    check_amount,
    free_beside,
)
from control_plane.billing.credits.operations import check_reference
from control_plane.billing.credits.prepaid import limits_told
from control_plane.billing.credits.tables import CreditEntry, CreditGrant, CreditReservation
from control_plane.catalog.queries import api_product
from control_plane.foundation.audit import record_change
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.money import Money

Place = tuple[str, str, str | None]
"""An account's id, a currency, an API product's id or None."""
NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReservation:
    """What is to be held, for how long. `api_product`: its code, so that credits for it alone can be held too."""

    amount_minor: int
    ttl: timedelta
    reference: str
    api_product: str | None = None


async def reserve_credits(
    session: AsyncSession,
    *,
    account_id: str,
    wanted: NewReservation,
    undrawn: Mapping[str, int] = NOTHING,
    actor: str,
    now: datetime,
) -> CreditReservation:
    """Hold an amount back, all of it or nothing, until it is settled or released, at most for `ttl`.

    `undrawn`: what else is about to be drawn, in minor units by API product; it cannot be held.

    Idempotent by reference: asked again, it returns the reservation of that time, whatever has become of it.

    Raises:
        NotFoundError, AccountDeletedError, ValidationFailedError. CreditsUsedUpError: less is left.
        ReferenceTakenError: the account used the reference for another amount.
    """
    now = floor_ms(now)
    check_amount(wanted.amount_minor)
    check_reference(wanted.reference)
    if not timedelta(0) < wanted.ttl <= MAX_HOLD:
        raise ValidationFailedError("ttl_seconds", f"must be from 1 to {int(MAX_HOLD.total_seconds())}")
    product_id = None if wanted.api_product is None else (await api_product(session, wanted.api_product)).id
    account = await ledger.lock_account(session, account_id)
    before = await _reserved(session, account_id, wanted.reference)
    if before is not None:
        if (before.held_minor, before.api_product_id) != (wanted.amount_minor, product_id):
            raise ReferenceTakenError(wanted.reference)
        return before
    async with limits_told(session, [account_id], now=now):
        grants, left = await _free(session, (account_id, account.currency, product_id), undrawn, now)
        if left < wanted.amount_minor:
            raise CreditsUsedUpError(
                asked=Money(wanted.amount_minor, account.currency), left=Money(left, account.currency)
            )
        row = CreditReservation(
            id=new_id("crs", now),
            account_id=account_id,
            reference=wanted.reference,
            currency=account.currency,
            api_product_id=product_id,
            held_minor=wanted.amount_minor,
            status=ReservationStatus.HELD.value,
            author=actor,
            created_at=now,
            expires_at=now + wanted.ttl,
        )
        session.add(row)
        await session.flush()
        cause = Cause(author=actor, reservation_id=row.id)
        ledger.take(session, grants, wanted.amount_minor, kind=EntryKind.RESERVE, cause=cause, now=now)
    await _record(session, row, action="credits.reserved", actor=actor, now=now)
    return row


async def settle_reservation(
    session: AsyncSession,
    *,
    reservation_id: str,
    amount_minor: int,
    undrawn: Mapping[str, int] = NOTHING,
    actor: str,
    now: datetime,
) -> CreditReservation:
    """Draw what the thing came to: the rest of what was held goes back, more is drawn where more is left.

    `undrawn` as for `reserve_credits`: it limits what is drawn beyond what was held. Settling again with the same
    amount changes nothing.

    Raises:
        ReservationNotFoundError. ReservationOverError: released, expired, or settled with another amount.
        CreditsUsedUpError: more than was held, and than is left; nothing has changed then.
    """
    now = floor_ms(now)
    if not 0 <= amount_minor <= MAX_AMOUNT_MINOR:
        raise ValidationFailedError("amount", "must be 0 or more")
    row = await _locked(session, reservation_id)
    if row.status == ReservationStatus.SETTLED and row.settled_minor == amount_minor:
        return row
    _require_held(row, now)
    async with limits_told(session, [row.account_id], now=now):
        drawn = await _draw_held(session, row, amount_minor, actor, now)
        more = amount_minor - drawn
        if more > 0:
            place = (row.account_id, row.currency, row.api_product_id)
            grants, left = await _free(session, place, undrawn, now)
            if left < more:
                asked, left_in_all = Money(amount_minor, row.currency), Money(left + drawn, row.currency)
                raise CreditsUsedUpError(asked=asked, left=left_in_all)
            cause = Cause(author=actor, reservation_id=row.id)
            ledger.take(session, grants, more, kind=EntryKind.DRAW, cause=cause, now=now)
        row.settled_minor = amount_minor
        _end(row, ReservationStatus.SETTLED, now)
    await _record(session, row, action="credits.settled", actor=actor, now=now)
    return row


async def release_reservation(
    session: AsyncSession, *, reservation_id: str, actor: str, now: datetime
) -> CreditReservation:
    """Give back all that was held. Releasing again changes nothing, nor does releasing what has expired.

    Raises:
        ReservationNotFoundError. ReservationOverError: it was settled.
    """
    now = floor_ms(now)
    row = await _locked(session, reservation_id)
    if row.status in {ReservationStatus.RELEASED, ReservationStatus.EXPIRED}:
        return row
    if row.status == ReservationStatus.SETTLED:
        raise ReservationOverError(row.id, row.status)
    async with limits_told(session, [row.account_id], now=now):
        await give_back_held(session, row, status=ReservationStatus.RELEASED, author=actor, now=now)
    await _record(session, row, action="credits.released", actor=actor, now=now)
    return row


async def lock_account_of(session: AsyncSession, reservation_id: str) -> str:
    """Lock the account that a reservation belongs to, and return its id.

    Raises:
        ReservationNotFoundError.
    """
    account_id = await session.scalar(
        select(CreditReservation.account_id).where(CreditReservation.id == reservation_id)
    )
    if account_id is None:
        raise ReservationNotFoundError(reservation_id)
    await ledger.lock_accounts(session, [account_id])
    return account_id


async def give_back_held(
    session: AsyncSession, row: CreditReservation, *, status: ReservationStatus, author: str, now: datetime
) -> None:
    """End a locked reservation: all that it holds goes back."""
    taken = await ledger.taken_by_grant(session, CreditEntry.reservation_id == row.id)
    cause = Cause(author=author, reservation_id=row.id)
    await ledger.give_back(session, taken, row.held_minor, kind=EntryKind.RELEASE, cause=cause, now=now)
    _end(row, status, now)


async def _draw_held(
    session: AsyncSession, row: CreditReservation, amount_minor: int, actor: str, now: datetime
) -> int:
    """Free what is held, and draw the amount, or what was held of it, from the same grants."""
    held = await ledger.taken_by_grant(session, CreditEntry.reservation_id == row.id)
    cause = Cause(author=actor, reservation_id=row.id)
    return await ledger.draw_held(session, held, amount_minor, cause=cause, now=now)


async def _free(
    session: AsyncSession, place: Place, undrawn: Mapping[str, int], now: datetime
) -> tuple[list[CreditGrant], int]:
    """Return the grants that can pay for something of the product, and how much of them is free."""
    account_id, currency, product_id = place
    grants = (await ledger.open_grants(session, [account_id])).get(account_id, [])
    left: dict[str | None, int] = {}
    for one in {product_id, None, *undrawn}:
        own = ledger.usable(grants, currency=currency, api_product_id=one, now=now)
        left[one] = sum(grant.remaining_minor for grant in own if grant.api_product_id == one)
    usable = ledger.usable(grants, currency=currency, api_product_id=product_id, now=now)
    return usable, free_beside(left, undrawn, api_product_id=product_id)


async def _reserved(session: AsyncSession, account_id: str, reference: str) -> CreditReservation | None:
    return await session.scalar(
        select(CreditReservation).where(
            CreditReservation.account_id == account_id, CreditReservation.reference == reference
        )
    )


async def _locked(session: AsyncSession, reservation_id: str) -> CreditReservation:
    await lock_account_of(session, reservation_id)
    return await session.get_one(CreditReservation, reservation_id, with_for_update=True, populate_existing=True)


def _require_held(row: CreditReservation, now: datetime) -> None:
    if row.status != ReservationStatus.HELD:
        raise ReservationOverError(row.id, row.status)
    if row.expires_at <= now:
        # the worker has not come by yet
        raise ReservationOverError(row.id, ReservationStatus.EXPIRED.value)


def _end(row: CreditReservation, status: ReservationStatus, now: datetime) -> None:
    row.status = status.value
    row.ended_at = now


async def _record(
    session: AsyncSession, row: CreditReservation, *, action: str, actor: str, now: datetime
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="credit_reservation",
        entity_id=row.id,
        before=None,
        after={
            "account_id": row.account_id,
            "reference": row.reference,
            "held_minor": row.held_minor,
            "settled_minor": row.settled_minor,
            "currency": row.currency,
            "status": row.status,
        },
        now=now,
    )
