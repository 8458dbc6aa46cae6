"""Credits pay invoices. Called when invoices become final, for many at once; nothing here commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditDraw:
    """What an invoice asks of its account's credits: at most `amount_minor`, its total.

    `subscription_id` and `period_start` (None for invoices that bill no subscription) name the usage it bills.
    `used_until`: what is paid was used before this moment, so grants that expired at it, or later, still pay;
    None: at the moment of the draw.
    """

    invoice_id: str
    account_id: str
    subscription_id: str | None
    period_start: datetime | None
    currency: str
    amount_minor: int
    used_until: datetime | None = None


async def draw_credits(
    session: AsyncSession,  # noqa: ARG001 - there are no credits to read yet
    wanted: Sequence[CreditDraw],
    *,
    now: datetime,  # noqa: ARG001 - the moment that grants are judged at, once there are any
) -> dict[str, int]:
    """Draw what credits pay of these invoices; returns minor units by invoice id, 0 where there are no credits."""
    return dict.fromkeys((draw.invoice_id for draw in wanted), 0)
