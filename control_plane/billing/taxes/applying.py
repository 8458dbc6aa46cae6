"""Taxes on invoices that become final, for many accounts at once."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.taxes.model import AppliedTax, TaxTerm, by_kind, taxes_on

__all__ = ["AppliedTax", "TaxTerm", "by_kind", "tax_terms", "taxes_on"]


async def tax_terms(
    session: AsyncSession,  # noqa: ARG001 - there are no rates to read yet
    account_ids: Collection[str],  # noqa: ARG001 - as above
    *,
    at: datetime,  # noqa: ARG001 - as above
    seller_country: str = "",  # noqa: ARG001 - as above
) -> dict[str, tuple[TaxTerm, ...]]:
    """Return, by account, the taxes of invoices that become final at `at`; accounts without any are left out.

    `seller_country`: ISO 3166-1 alpha-2, '' where no seller is set; for the reverse charge within the EU.
    """
    return {}
