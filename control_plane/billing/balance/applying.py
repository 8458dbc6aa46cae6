"""What final invoices draw from accounts' balances, or give to them: many invoices at once."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.balance.entries import AccountCurrency, NewEntry, add_entries, lock_balances

BILLING = "system:billing"


class BalanceDraw(NamedTuple):
    """An invoice and what of it the balance may pay; an amount below 0 is added to the balance."""

    invoice_id: str
    account_id: str
    currency: str
    amount_minor: int


async def apply_balances(
    session: AsyncSession, wanted: Sequence[tuple[str, str, str, int]], *, now: datetime
) -> dict[str, int]:
    """Pay invoices from their accounts' balances; returns for each invoice id what was applied, 0 for nothing.

    `wanted` holds `BalanceDraw`s, or tuples like them: a positive amount draws as much of it as the balance holds,
    never more; a negative one is added to the balance whole, and returned as it is. Of the invoices of one
    account, what is added comes first, then they draw in the order given. Balances stay locked until the
    transaction ends; every caller locks them in the order of account id and currency. An invoice is applied once:
    a second time violates a unique index. Invoices must have been written to the database before.
    """
    draws = [BalanceDraw(*one) for one in wanted]
    adding = {(draw.account_id, draw.currency) for draw in draws if draw.amount_minor < 0}
    drawing = {(draw.account_id, draw.currency) for draw in draws if draw.amount_minor > 0}
    balances = await lock_balances(session, adding | drawing, create=adding)
    entries: list[NewEntry] = []
    applied = {draw.invoice_id: 0 for draw in draws}
    for draw, amount_minor in _applied(draws, balances):
        applied[draw.invoice_id] = amount_minor
        entries.append(
            NewEntry(
                account_id=draw.account_id,
                currency=draw.currency,
                kind="invoice",
                amount_minor=-amount_minor,
                invoice_id=draw.invoice_id,
                author=BILLING,
            )
        )
    await add_entries(session, entries, balances, now=now)
    return applied


def _applied(
    draws: Iterable[BalanceDraw], balances: Mapping[AccountCurrency, int]
) -> Iterable[tuple[BalanceDraw, int]]:
    """Yield each invoice that changes a balance, and what is applied to it."""
    left = dict(balances)
    for draw in sorted(draws, key=lambda draw: draw.amount_minor > 0):
        of = draw.account_id, draw.currency
        amount_minor = min(draw.amount_minor, left.get(of, 0)) if draw.amount_minor > 0 else draw.amount_minor
        if amount_minor:
            left[of] -= amount_minor
            yield draw, amount_minor
