"""Taking from grants and giving back to them, each with its entry. Nothing here commits.

Whoever changes grants holds the locks of their accounts, taken in the order of their ids and before anything else
that belongs to these: so nobody waits in a circle, and what is left of a grant is read after all that took of it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import AccountDeletedError
from control_plane.accounts.tables import Account
from control_plane.billing.credits.model import EntryKind, in_order_of_use, parts_of
from control_plane.billing.credits.tables import CreditEntry, CreditGrant
from control_plane.foundation.db import is_any_of
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.ids import new_id
from gateway_contract.records import AccountStatus

SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Who or what an entry is for."""

    author: str = SYSTEM
    invoice_id: str | None = None
    reservation_id: str | None = None
    subscription_id: str | None = None
    period_start: datetime | None = None


async def lock_account(session: AsyncSession, account_id: str) -> Account:
    """Lock an account until the transaction ends.

    Raises:
        NotFoundError, AccountDeletedError: no such account, or deleted.
    """
    account = await session.get(Account, account_id, with_for_update={"key_share": True}, populate_existing=True)
    if account is None:
        raise NotFoundError("account", account_id)
    if account.status == AccountStatus.DELETED:
        raise AccountDeletedError(account_id)
    return account


async def lock_accounts(session: AsyncSession, account_ids: Collection[str]) -> None:
    """Lock accounts until the transaction ends, in the order in which everybody does.

    Rows that only refer to an account, such as others' drafts, hold nobody up: two who wrote some would wait for
    each other.
    """
    if account_ids:
        await session.execute(
            select(Account.id)
            .where(is_any_of(Account.id, account_ids))
            .order_by(Account.id)
            .with_for_update(key_share=True)
        )


async def open_grants(session: AsyncSession, account_ids: Collection[str]) -> dict[str, list[CreditGrant]]:
    """Return, by account, the grants of which something is left, whenever they can be used; locked."""
    found: dict[str, list[CreditGrant]] = defaultdict(list)
    if account_ids:
        # as it was flushed, not as a row that was read before says
        await session.flush()
        for grant in await _locked(
            session, is_any_of(CreditGrant.account_id, account_ids) & (CreditGrant.remaining_minor > 0)
        ):
            found[grant.account_id].append(grant)
    return found


async def grants_to_look_at(
    session: AsyncSession, account_ids: Collection[str], now: datetime
) -> list[CreditGrant]:
    """Return the grants to which time does something at `now`, used up or not; locked."""
    return await _locked(session, is_any_of(CreditGrant.account_id, account_ids) & (CreditGrant.look_at <= now))


def usable(
    grants: Iterable[CreditGrant],
    *,
    currency: str,
    api_product_id: str | None,
    now: datetime,
    used_until: datetime | None = None,
) -> list[CreditGrant]:
    """Return the grants that can pay for something of an API product (None: of none).

    With `used_until` also those that have expired since, but had not when what is paid for was used.
    """
    return [
        grant
        for grant in grants
        if grant.currency == currency
        and grant.api_product_id in {None, api_product_id}
        and grant.starts_at <= now
        and (
            grant.expires_at is None
            or grant.expires_at > now
            or (used_until is not None and grant.expires_at >= used_until)
        )
    ]


def take(
    session: AsyncSession,
    grants: Iterable[CreditGrant],
    amount_minor: int,
    *,
    kind: EntryKind,
    cause: Cause,
    now: datetime,
) -> int:
    """Take an amount, or what there is of it, from locked grants in order of use; returns what was taken."""
    taken = 0
    for grant, part in parts_of(grants, amount_minor):
        add_entry(session, grant, -part, kind=kind, cause=cause, now=now)
        taken += part
    return taken


async def give_back(
    session: AsyncSession,
    taken: Mapping[str, int],
    amount_minor: int,
    *,
    kind: EntryKind,
    cause: Cause,
    now: datetime,
) -> int:
    """Give an amount back to the grants it was `taken` from (minor units by grant id), the last used first.

    What comes back to a grant that was revoked is revoked at once; to one that was written off, written off by the
    next round of `due.look`.
    """
    given = 0
    rows = await _locked(session, is_any_of(CreditGrant.id, [key for key, part in taken.items() if part > 0]))
    for grant in reversed(in_order_of_use(rows)):
        part = min(taken[grant.id], amount_minor - given)
        if part <= 0:
            continue
        given += part
        add_entry(session, grant, part, kind=kind, cause=cause, now=now)
        _after_return(session, grant, part, cause, now)
    return given


async def draw_held(
    session: AsyncSession, held: Mapping[str, int], amount_minor: int, *, cause: Cause, now: datetime
) -> int:
    """Free what is held (minor units by grant id), and draw the amount, or what was held of it, from there.

    In the order of use, so that the rest goes back to the grants that are used last. Returns what was drawn.
    """
    drawn = 0
    for grant in in_order_of_use(await _locked(session, is_any_of(CreditGrant.id, held))):
        add_entry(session, grant, held[grant.id], kind=EntryKind.RELEASE, cause=cause, now=now)
        part = min(held[grant.id], amount_minor - drawn)
        if part > 0:
            add_entry(session, grant, -part, kind=EntryKind.DRAW, cause=cause, now=now)
            drawn += part
        _after_return(session, grant, held[grant.id] - part, cause, now)
    return drawn


async def taken_by_grant(session: AsyncSession, where: ColumnElement[bool]) -> dict[str, int]:
    """Return, by grant, what the entries of some cause have taken and not given back."""
    statement = (
        select(CreditEntry.grant_id, -func.sum(CreditEntry.amount_minor))
        .where(where)
        .group_by(CreditEntry.grant_id)
        .having(func.sum(CreditEntry.amount_minor) < 0)
    )
    return {grant_id: int(amount) for grant_id, amount in await session.execute(statement)}


def add_entry(
    session: AsyncSession, grant: CreditGrant, amount_minor: int, *, kind: EntryKind, cause: Cause, now: datetime
) -> None:
    """Change what is left of a locked grant, and write down why."""
    if kind is not EntryKind.GRANT:
        grant.remaining_minor += amount_minor
    session.add(
        CreditEntry(
            id=new_id("cre", now),
            grant_id=grant.id,
            account_id=grant.account_id,
            kind=kind.value,
            amount_minor=amount_minor,
            remaining_minor=grant.remaining_minor,
            invoice_id=cause.invoice_id,
            reservation_id=cause.reservation_id,
            subscription_id=cause.subscription_id,
            period_start=cause.period_start,
            author=cause.author,
            at=now,
        )
    )


def _after_return(session: AsyncSession, grant: CreditGrant, part: int, cause: Cause, now: datetime) -> None:
    """See to credits that came back to a grant that was revoked or written off meanwhile."""
    if part > 0 and grant.revoked_at is not None:
        add_entry(session, grant, -part, kind=EntryKind.REVOKE, cause=Cause(author=cause.author), now=now)
    elif part > 0 and grant.look_at is None and grant.expires_at is not None:
        grant.look_at = now


async def _locked(session: AsyncSession, where: ColumnElement[bool]) -> list[CreditGrant]:
    statement = (
        select(CreditGrant)
        .where(where)
        .order_by(CreditGrant.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return list(await session.scalars(statement))
