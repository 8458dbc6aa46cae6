"""Referrals: an account that brings another is rewarded when that one pays for the first time."""

from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession


class PaidInvoice(Protocol):
    """What is asked of an invoice that was paid. `amount_due_minor`: what was left to pay in money."""

    @property
    def id(self) -> str: ...
    @property
    def account_id(self) -> str: ...
    @property
    def amount_due_minor(self) -> int: ...


async def reward_first_payment(
    session: AsyncSession,
    *,
    invoice: PaidInvoice,
    now: datetime,
) -> None:
    """Reward the referrer of an account whose invoice was paid, if it is the account's first; once for ever."""
