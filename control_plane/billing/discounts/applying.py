"""Discounts on invoices that become final, for many at once; nothing here commits.

`discounts_in_force` reads, `discounts_on` reckons, `note_discounts` keeps what was reckoned. Where several
invoices of one subscription are made final in one transaction, `discounts_after` takes the discounts from one to
the next.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ARRAY, BigInteger, Text, cast, delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.discounts.model import AppliedDiscount, Discount
from control_plane.billing.discounts.queries import discounts_with_memory
from control_plane.billing.discounts.stacking import amounts_left, discounts_after, discounts_on
from control_plane.billing.discounts.tables import DiscountRow, DiscountUse
from control_plane.foundation.db import UtcDateTime, is_any_of

__all__ = [
    "amounts_left",
    "discounts_after",
    "discounts_in_force",
    "discounts_on",
    "forget_discounts",
    "note_discounts",
]


async def discounts_in_force(
    session: AsyncSession, subscription_ids: Collection[str], *, locked: bool = False
) -> dict[str, tuple[Discount, ...]]:
    """Return, by subscription, the discounts that may take something off its lines, in their order.

    One that has run out is among them: it still holds for corrections of the billing periods that it held for.
    Subscriptions without any are left out. `locked`: until the transaction ends nobody else makes invoices with
    them; to be given where invoices become final, not for previews.
    """
    if not subscription_ids:
        return {}
    return await discounts_with_memory(session, subscription_ids, locked=locked)


async def note_discounts(
    session: AsyncSession, applied_by_invoice: Mapping[str, Sequence[AppliedDiscount]], *, now: datetime
) -> None:
    """Keep what discounts took off these invoices, which are final and stored. Again: changes nothing."""
    sums: dict[tuple[str, datetime, str, str], tuple[int, int]] = {}
    for invoice_id, applied in applied_by_invoice.items():
        for discount in applied:
            for share in discount.shares:
                key = discount.discount_id, share.period_start, share.charge_key, invoice_id
                base, amount = sums.get(key, (0, 0))
                sums[key] = base + share.base_minor, amount + share.amount_minor
    if not sums:
        return
    discounts, starts, charges, invoices = zip(*sums, strict=True)
    bases, amounts = zip(*sums.values(), strict=True)
    rows = (
        func.unnest(
            cast(list(discounts), ARRAY(Text())),
            cast(list(starts), ARRAY(UtcDateTime())),
            cast(list(charges), ARRAY(Text())),
            cast(list(invoices), ARRAY(Text())),
            cast(list(bases), ARRAY(BigInteger())),
            cast(list(amounts), ARRAY(BigInteger())),
        )
        .table_valued("discount_id", "period_start", "charge_key", "invoice_id", "base_minor", "amount_minor")
        .render_derived()
    )
    columns = [*rows.c.keys(), "noted_at"]
    uses = select(*rows.c, literal(now, UtcDateTime()))
    await session.execute(insert(DiscountUse).from_select(columns, uses).on_conflict_do_nothing())


async def forget_discounts(session: AsyncSession, invoice_ids: Collection[str]) -> None:
    """Take back what was noted for invoices that have become void: their discounts can be given again."""
    used = select(DiscountUse.discount_id).where(is_any_of(DiscountUse.invoice_id, invoice_ids))
    # whoever makes an invoice with them at this moment is waited for, and whoever comes then waits
    locked = select(DiscountRow.id).where(DiscountRow.id.in_(used)).order_by(DiscountRow.id).with_for_update()
    if (await session.scalars(locked)).all():
        await session.execute(
            delete(DiscountUse)
            .where(is_any_of(DiscountUse.invoice_id, invoice_ids))
            .execution_options(synchronize_session=False)
        )
