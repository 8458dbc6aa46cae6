"""Granting credits and revoking them. Nothing here commits; every change writes its audit row."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.credits import ledger
from control_plane.billing.credits.ledger import Cause
from control_plane.billing.credits.model import (
    DEFAULT_PRIORITY,
    MAX_PRIORITY,
    MAX_REASON_LENGTH,
    MAX_REFERENCE_LENGTH,
    EntryKind,
    GrantKind,
    GrantNotFoundError,
    ReferenceTakenError,
    check_amount,
    check_term,
)
from control_plane.billing.credits.prepaid import limits_told
from control_plane.billing.credits.tables import CreditGrant
from control_plane.catalog.queries import api_product
from control_plane.foundation.audit import record_change
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.ids import new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGrant:
    """What is asked of a grant. `starts_at` None: now; `expires_at` None: never; `api_product`: its code."""

    amount_minor: int
    kind: GrantKind = GrantKind.PROMOTIONAL
    priority: int = DEFAULT_PRIORITY
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    api_product: str | None = None
    reason: str = ""
    reference: str | None = None


async def grant_credits(
    session: AsyncSession, *, account_id: str, grant: NewGrant, actor: str, now: datetime
) -> CreditGrant:
    """Give an account credits, in the currency that it pays in.

    With a `reference` that was used before, the grant of that time is returned and nothing is granted.

    Raises:
        NotFoundError, AccountDeletedError: no such account or API product, or deleted. ValidationFailedError.
        ReferenceTakenError: the account used the reference for another amount or kind.
    """
    now = floor_ms(now)
    starts_at = now if grant.starts_at is None else floor_ms(grant.starts_at)
    expires_at = None if grant.expires_at is None else floor_ms(grant.expires_at)
    _check(grant)
    product_id = None if grant.api_product is None else (await api_product(session, grant.api_product)).id
    account = await ledger.lock_account(session, account_id)
    before = await _granted(session, account_id, grant.reference)
    if before is not None:
        if (before.amount_minor, before.kind) != (grant.amount_minor, grant.kind):
            raise ReferenceTakenError(before.reference or "")
        return before
    # asked for again, it may have expired meanwhile
    check_term(starts_at, expires_at, now)
    row = CreditGrant(
        id=new_id("crg", now),
        account_id=account_id,
        currency=account.currency,
        amount_minor=grant.amount_minor,
        remaining_minor=grant.amount_minor,
        kind=grant.kind.value,
        priority=grant.priority,
        starts_at=starts_at,
        expires_at=expires_at,
        api_product_id=product_id,
        reason=grant.reason,
        author=actor,
        reference=grant.reference,
        created_at=now,
        look_at=starts_at if starts_at > now else expires_at,
    )
    async with limits_told(session, [account_id], now=now):
        session.add(row)
        await session.flush()
        cause = Cause(author=actor)
        ledger.add_entry(session, row, row.amount_minor, kind=EntryKind.GRANT, cause=cause, now=now)
    await _record(session, row, action="credits.granted", amount_minor=row.amount_minor, actor=actor, now=now)
    return row


async def revoke_grant(session: AsyncSession, *, grant_id: str, actor: str, now: datetime) -> CreditGrant:
    """Take back what is left of a grant; what was used stays used. Revoking again changes nothing.

    What reservations hold of it is taken back when they are settled or released.

    Raises:
        GrantNotFoundError.
    """
    now = floor_ms(now)
    account_id = await session.scalar(select(CreditGrant.account_id).where(CreditGrant.id == grant_id))
    if account_id is None:
        raise GrantNotFoundError(grant_id)
    await ledger.lock_accounts(session, [account_id])
    row = await session.get_one(CreditGrant, grant_id, with_for_update=True, populate_existing=True)
    if row.revoked_at is not None:
        return row
    left = row.remaining_minor
    async with limits_told(session, [account_id], now=now):
        row.revoked_at = now
        row.look_at = None
        if left:
            cause = Cause(author=actor)
            ledger.add_entry(session, row, -left, kind=EntryKind.REVOKE, cause=cause, now=now)
    await _record(session, row, action="credits.revoked", amount_minor=left, actor=actor, now=now)
    return row


def _check(grant: NewGrant) -> None:
    check_amount(grant.amount_minor)
    if not 0 <= grant.priority <= MAX_PRIORITY:
        raise ValidationFailedError("priority", f"must be from 0 to {MAX_PRIORITY}")
    if len(grant.reason) > MAX_REASON_LENGTH:
        raise ValidationFailedError("reason", f"must be at most {MAX_REASON_LENGTH} characters")
    if grant.reference is not None:
        check_reference(grant.reference)


def check_reference(reference: str) -> str:
    """Return a reference that can be kept.

    Raises:
        ValidationFailedError: empty, or too long.
    """
    if not 1 <= len(reference) <= MAX_REFERENCE_LENGTH:
        raise ValidationFailedError("reference", f"must be 1 to {MAX_REFERENCE_LENGTH} characters")
    return reference


async def _granted(session: AsyncSession, account_id: str, reference: str | None) -> CreditGrant | None:
    if reference is None:
        return None
    return await session.scalar(
        select(CreditGrant).where(CreditGrant.account_id == account_id, CreditGrant.reference == reference)
    )


async def _record(
    session: AsyncSession, row: CreditGrant, *, action: str, amount_minor: int, actor: str, now: datetime
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="credit_grant",
        entity_id=row.id,
        before=None,
        after={
            "account_id": row.account_id,
            "amount_minor": amount_minor,
            "currency": row.currency,
            "kind": row.kind,
            "expires_at": None if row.expires_at is None else row.expires_at.isoformat(),
            "reason": row.reason,
        },
        now=now,
    )
