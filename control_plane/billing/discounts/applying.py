"""Discounts on invoices that become final, for many at once; nothing here commits.

`discounts_in_force` reads, `discounts_on` reckons, `note_discounts` keeps what was reckoned. Where several
invoices of one subscription are made final in one transaction, `discounts_after` takes the discounts from one to
the next.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.discounts.model import AppliedDiscount, Discount
from control_plane.billing.discounts.stacking import amounts_left, discounts_after, discounts_on

__all__ = ["amounts_left", "discounts_after", "discounts_in_force", "discounts_on", "note_discounts"]


async def discounts_in_force(
    session: AsyncSession,  # noqa: ARG001 - there are no discounts to read yet
    subscription_ids: Collection[str],  # noqa: ARG001 - as above
    *,
    at: datetime,  # noqa: ARG001 - as above
    locked: bool = False,  # noqa: ARG001 - as above
) -> dict[str, tuple[Discount, ...]]:
    """Return, by subscription, the discounts that may take something off lines billed at `at`, in their order.

    A discount that has run out is among them: it still holds for corrections of the periods that it held for.
    Subscriptions without any are left out. `locked`: until the transaction ends nobody else makes invoices with
    them; to be given where invoices become final, not for previews.
    """
    return {}


async def note_discounts(
    session: AsyncSession,
    applied_by_invoice: Mapping[str, Sequence[AppliedDiscount]],
    *,
    now: datetime,
) -> None:
    """Keep what discounts took off these invoices, which are final. Noting an invoice again changes nothing."""
