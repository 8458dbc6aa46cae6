"""Taxes on invoices that become final, for many accounts at once."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.line_scopes import LineScope
from control_plane.billing.profiles.model import BillingProfile
from control_plane.billing.profiles.queries import profiles
from control_plane.billing.taxes.model import AppliedTax, TaxTerm, by_kind, taxes_on
from control_plane.billing.taxes.rules import Place, place_of, terms_for
from control_plane.billing.taxes.tables import TaxRate

__all__ = ["AppliedTax", "TaxTerm", "by_kind", "tax_terms", "taxes_on"]


async def tax_terms(
    session: AsyncSession, account_ids: Collection[str], *, at: datetime, seller_country: str = ""
) -> dict[str, tuple[TaxTerm, ...]]:
    """Return, by account, the taxes of invoices that become final at `at`; accounts without any are left out.

    `seller_country`: ISO 3166-1 alpha-2, '' where no seller is set; for the reverse charge within the EU.
    """
    if not account_ids:
        return {}
    buyers: Mapping[str, BillingProfile] = await profiles(session, account_ids)
    rates = await _rates_by_place(session, at)
    found = {
        account_id: terms_for(buyers.get(account_id), rates, seller_country=seller_country)
        for account_id in account_ids
    }
    return {account_id: terms for account_id, terms in found.items() if terms}


async def _rates_by_place(session: AsyncSession, at: datetime) -> dict[Place, Sequence[TaxTerm]]:
    statement = (
        select(TaxRate)
        .where(TaxRate.valid_from <= at, or_(TaxRate.valid_until.is_(None), TaxRate.valid_until > at))
        .order_by(TaxRate.created_at, TaxRate.id)
    )
    found: dict[Place, list[TaxTerm]] = {}
    for rate in await session.scalars(statement):
        term = TaxTerm(name=rate.name, percent=rate.percent, scope=LineScope(rate.scope), rate_id=rate.id)
        found.setdefault(place_of(rate.country, rate.region), []).append(term)
    return dict(found)
