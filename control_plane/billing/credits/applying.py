"""Credits pay invoices. Called when invoices become final, for many at once; nothing here commits."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.credits import ledger
from control_plane.billing.credits.ledger import Cause
from control_plane.billing.credits.model import EntryKind
from control_plane.billing.credits.prepaid import limits_told
from control_plane.billing.credits.tables import CreditEntry, CreditGrant, InvoiceCredits, PrepaidPeriod
from control_plane.foundation.db import is_any_of
from control_plane.subscriptions.tables import Subscription


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditDraw:
    """What an invoice asks of its account's credits: at most `amount_minor`, its total; below 0 nothing.

    `subscription_id` and `period_start` (None for invoices that bill no subscription) name what it bills.
    `used_until`: it bills the usage before this moment, None where it bills none. What prepaid usage has drawn
    until then counts as paid; and grants that expired at that moment, or later, still pay.
    """

    invoice_id: str
    account_id: str
    subscription_id: str | None
    period_start: datetime | None
    currency: str
    amount_minor: int
    used_until: datetime | None = None


async def draw_credits(session: AsyncSession, wanted: Sequence[CreditDraw], *, now: datetime) -> dict[str, int]:
    """Draw what credits pay of these invoices; returns minor units by invoice id, 0 where there are no credits.

    What prepaid usage has drawn ahead counts first, and is never drawn twice: from here on the invoice pays for
    that usage, and what it does not need goes back. Accounts that have credits are locked, in the order of their
    ids. Asked again for the same invoice, it returns what was drawn then. Atomic with the caller's transaction.
    """
    paid = dict.fromkeys((draw.invoice_id for draw in wanted), 0)
    account_ids = await _concerned(session, wanted)
    concerned = [draw for draw in wanted if draw.account_id in account_ids]
    if not concerned:
        return paid
    await ledger.lock_accounts(session, account_ids)
    known = await _known(session, [draw.invoice_id for draw in concerned])
    products = await _products(session, {draw.subscription_id for draw in concerned if draw.subscription_id})
    fresh = [draw for draw in concerned if draw.invoice_id not in known]
    async with limits_told(session, account_ids, now=now):
        ahead = await _count_ahead(session, fresh, now)
        # what came back to grants above can be drawn here
        grants = await ledger.open_grants(session, account_ids)
        for draw in fresh:
            usable = ledger.usable(
                grants.get(draw.account_id, []),
                currency=draw.currency,
                api_product_id=products.get(draw.subscription_id or ""),
                now=now,
                used_until=draw.used_until,
            )
            cause = Cause(invoice_id=draw.invoice_id)
            rest = draw.amount_minor - ahead[draw.invoice_id]
            drawn = ledger.take(session, usable, rest, kind=EntryKind.DRAW, cause=cause, now=now)
            paid[draw.invoice_id] = ahead[draw.invoice_id] + drawn
            _note(session, draw, paid[draw.invoice_id], ahead[draw.invoice_id])
    for invoice_id, row in known.items():
        paid[invoice_id] = 0 if row.returned_at else row.amount_minor
    return paid


async def return_credits(session: AsyncSession, invoice_ids: Collection[str], *, now: datetime) -> dict[str, int]:
    """Give back what voided invoices drew, to the grants it came from; returns minor units by invoice id.

    Invoices that drew nothing are left out, as are those of which all was given back before (idempotent). What
    comes back to a grant that has expired is written off.
    """
    statement = select(InvoiceCredits).where(
        is_any_of(InvoiceCredits.invoice_id, invoice_ids), InvoiceCredits.returned_at.is_(None)
    )
    account_ids = {row.account_id for row in await session.scalars(statement)}
    await ledger.lock_accounts(session, account_ids)
    # read again: whoever held the lock before may have given it back
    rows = list(await session.scalars(statement.execution_options(populate_existing=True)))
    returned = {}
    async with limits_told(session, account_ids, now=now):
        for row in rows:
            periods = list(
                await session.scalars(select(PrepaidPeriod).where(PrepaidPeriod.invoice_id == row.invoice_id))
            )
            for period in periods:
                await return_drawn(session, period, period.drawn_minor, now=now)
            cause = Cause(invoice_id=row.invoice_id)
            taken = await ledger.taken_by_grant(session, CreditEntry.invoice_id == row.invoice_id)
            amount = sum(taken.values())
            await ledger.give_back(session, taken, amount, kind=EntryKind.RETURN, cause=cause, now=now)
            row.returned_at = now
            returned[row.invoice_id] = row.amount_minor
    return returned


async def _concerned(session: AsyncSession, wanted: Iterable[CreditDraw]) -> set[str]:
    """Return the accounts that have, or had, credits, or of which prepaid usage was looked at."""
    account_ids = {draw.account_id for draw in wanted}
    subscription_ids = {draw.subscription_id for draw in wanted if draw.subscription_id is not None}
    granted = select(CreditGrant.account_id).where(is_any_of(CreditGrant.account_id, account_ids)).distinct()
    looked_at = (
        select(Subscription.account_id)
        .join(PrepaidPeriod, PrepaidPeriod.subscription_id == Subscription.id)
        .where(is_any_of(PrepaidPeriod.subscription_id, subscription_ids), PrepaidPeriod.invoice_id.is_(None))
    )
    return {*(await session.scalars(granted)), *(await session.scalars(looked_at))}


async def _known(session: AsyncSession, invoice_ids: Collection[str]) -> dict[str, InvoiceCredits]:
    statement = select(InvoiceCredits).where(is_any_of(InvoiceCredits.invoice_id, invoice_ids))
    return {row.invoice_id: row for row in await session.scalars(statement)}


async def _products(session: AsyncSession, subscription_ids: Collection[str]) -> dict[str, str]:
    statement = select(Subscription.id, Subscription.api_product_id).where(
        is_any_of(Subscription.id, subscription_ids)
    )
    return dict((await session.execute(statement)).all())


async def _count_ahead(session: AsyncSession, wanted: Sequence[CreditDraw], now: datetime) -> dict[str, int]:
    """Return what the usage on these invoices has drawn ahead; what is more than an invoice goes back.

    The invoice closes the periods that it bills: nothing is drawn ahead for them any more.
    """
    counted = dict.fromkeys((draw.invoice_id for draw in wanted), 0)
    periods = await _open_periods(session, wanted)
    for draw in wanted:
        for period in periods.get(draw.subscription_id or "", []):
            billed = draw.used_until is not None and period.period_start < draw.used_until
            if period.invoice_id is not None or not billed:
                continue
            period.invoice_id = draw.invoice_id
            part = max(0, min(period.drawn_minor, draw.amount_minor - counted[draw.invoice_id]))
            counted[draw.invoice_id] += part
            await return_drawn(session, period, period.drawn_minor - part, now=now)
    return counted


async def _open_periods(session: AsyncSession, wanted: Iterable[CreditDraw]) -> dict[str, list[PrepaidPeriod]]:
    found: dict[str, list[PrepaidPeriod]] = defaultdict(list)
    statement = (
        select(PrepaidPeriod)
        .where(
            is_any_of(PrepaidPeriod.subscription_id, {draw.subscription_id or "" for draw in wanted}),
            PrepaidPeriod.invoice_id.is_(None),
        )
        .order_by(PrepaidPeriod.subscription_id, PrepaidPeriod.period_start)
        .execution_options(populate_existing=True)
    )
    for row in await session.scalars(statement):
        found[row.subscription_id].append(row)
    return found


async def return_drawn(session: AsyncSession, period: PrepaidPeriod, amount_minor: int, *, now: datetime) -> None:
    """Give back part of what usage of a billing period has drawn; the account is locked."""
    if amount_minor <= 0:
        return
    cause = Cause(subscription_id=period.subscription_id, period_start=period.period_start)
    taken = await ledger.taken_by_grant(
        session,
        and_(
            CreditEntry.subscription_id == period.subscription_id,
            CreditEntry.period_start == period.period_start,
        ),
    )
    period.drawn_minor -= await ledger.give_back(
        session, taken, amount_minor, kind=EntryKind.RETURN, cause=cause, now=now
    )


def _note(session: AsyncSession, draw: CreditDraw, amount_minor: int, prepaid_minor: int) -> None:
    if amount_minor > 0:
        session.add(
            InvoiceCredits(
                invoice_id=draw.invoice_id,
                account_id=draw.account_id,
                amount_minor=amount_minor,
                prepaid_minor=prepaid_minor,
            )
        )
