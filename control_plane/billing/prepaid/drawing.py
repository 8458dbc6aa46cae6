"""Drawing prepaid usage from credits: what is sealed less what was drawn. Nothing here commits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.billing.credits import ledger
from control_plane.billing.credits.applying import return_drawn
from control_plane.billing.credits.ledger import Cause
from control_plane.billing.credits.model import EntryKind
from control_plane.billing.credits.prepaid import limits_told
from control_plane.billing.credits.tables import CreditGrant, PrepaidPeriod
from control_plane.billing.prepaid.periods import HOUR, ChangedPeriod
from control_plane.billing.prepaid.usage import PeriodKey, prepaid_use
from control_plane.foundation.clock import floor_ms
from control_plane.foundation.db import is_any_of
from control_plane.foundation.period import BillingPeriod
from control_plane.subscriptions.tables import Subscription


@dataclass(frozen=True, slots=True)
class Drawn:
    """How many billing periods were looked at; what was drawn and given back in all, in minor units."""

    periods: int = 0
    drawn_minor: int = 0
    returned_minor: int = 0

    def __add__(self, other: "Drawn") -> "Drawn":
        """Return both together."""
        return Drawn(
            self.periods + other.periods,
            self.drawn_minor + other.drawn_minor,
            self.returned_minor + other.returned_minor,
        )


@dataclass(frozen=True, slots=True)
class Payer:
    """Whose credits pay for a subscription."""

    account_id: str
    currency: str
    api_product_id: str


async def draw_for(session: AsyncSession, changed: Sequence[ChangedPeriod], *, now: datetime) -> Drawn:
    """Bring what these billing periods have drawn up to what is sealed of their usage.

    What a correction took off goes back. Where credits do not suffice, the rest stays for the invoice; a period
    that an invoice has billed meanwhile is left alone. Locks the accounts, in the order of their ids. Idempotent.
    """
    now = floor_ms(now)
    payers = await _payers(session, {one.subscription_id for one in changed})
    account_ids = {payer.account_id for payer in payers.values()}
    await ledger.lock_accounts(session, account_ids)
    rows = await _open_periods(session, set(payers))
    wanted = [(one, rows[one.key]) for one in changed if one.key in rows]
    uses = await prepaid_use(
        session, {one.key: BillingPeriod(row.period_start, row.period_end) for one, row in wanted}
    )
    total = Drawn()
    async with limits_told(session, account_ids, now=now):
        grants = await ledger.open_grants(session, account_ids)
        for one, row in wanted:
            use, payer = uses[one.key], payers[one.subscription_id]
            usable = ledger.usable(
                grants.get(payer.account_id, []),
                currency=payer.currency,
                api_product_id=payer.api_product_id,
                now=now,
                used_until=None if one.first_hour is None else one.first_hour + HOUR,
            )
            total = total + await _draw(session, row, use.sealed_minor, usable, now)
            row.used_minor = max(use.known_minor, use.sealed_minor)
            row.looked_at = now
    return total


async def _draw(
    session: AsyncSession, row: PrepaidPeriod, wanted_minor: int, usable: Sequence[CreditGrant], now: datetime
) -> Drawn:
    if wanted_minor < row.drawn_minor:
        before = row.drawn_minor
        await return_drawn(session, row, before - wanted_minor, now=now)
        return Drawn(1, 0, before - row.drawn_minor)
    cause = Cause(subscription_id=row.subscription_id, period_start=row.period_start)
    missing = wanted_minor - row.drawn_minor
    drawn = ledger.take(session, usable, missing, kind=EntryKind.DRAW, cause=cause, now=now)
    row.drawn_minor += drawn
    return Drawn(1, drawn, 0)


async def _payers(session: AsyncSession, subscription_ids: set[str]) -> Mapping[str, Payer]:
    statement = (
        select(Subscription.id, Account.id, Account.currency, Subscription.api_product_id)
        .join(Account, Account.id == Subscription.account_id)
        .where(is_any_of(Subscription.id, subscription_ids))
    )
    return {key: Payer(*values) for key, *values in await session.execute(statement)}


async def _open_periods(session: AsyncSession, subscription_ids: set[str]) -> dict[PeriodKey, PrepaidPeriod]:
    statement = (
        select(PrepaidPeriod)
        .where(is_any_of(PrepaidPeriod.subscription_id, subscription_ids), PrepaidPeriod.invoice_id.is_(None))
        .execution_options(populate_existing=True)
    )
    return {(row.subscription_id, row.period_start): row for row in await session.scalars(statement)}
