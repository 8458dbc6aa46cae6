"""Reads of billing profiles, for many accounts at once."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.billing.profiles.model import BillingProfile, TaxTreatment
from control_plane.billing.profiles.tables import BillingProfileRow
from control_plane.foundation.db import is_any_of


async def profiles(session: AsyncSession, account_ids: Collection[str]) -> dict[str, BillingProfile]:
    """Return the profiles that were given; an account without one is left out."""
    if not account_ids:
        return {}
    statement = select(BillingProfileRow).where(is_any_of(BillingProfileRow.account_id, account_ids))
    return {row.account_id: as_profile(row) for row in await session.scalars(statement)}


async def profile_or_default(session: AsyncSession, account_id: str) -> BillingProfile | None:
    """Return an account's profile; of one that gave none, its name and e-mail address. None: no such account."""
    return (await _profiles_of_all(session, {account_id})).get(account_id)


async def buyers(session: AsyncSession, account_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return what invoices write down of each buyer: the profile, else the account's name and e-mail address."""
    found = await _profiles_of_all(session, account_ids)
    return {account_id: {**profile.as_dict(), "account_id": account_id} for account_id, profile in found.items()}


async def _profiles_of_all(session: AsyncSession, account_ids: Collection[str]) -> dict[str, BillingProfile]:
    given = await profiles(session, account_ids)
    missing = set(account_ids) - given.keys()
    if missing:
        statement = select(Account.id, Account.name, Account.email).where(is_any_of(Account.id, missing))
        for account_id, name, email in await session.execute(statement):
            given[account_id] = BillingProfile(legal_name=name, invoice_email=email or "")
    return given


def as_profile(row: BillingProfileRow) -> BillingProfile:
    """Return a row as the value that it holds."""
    return BillingProfile(
        legal_name=row.legal_name,
        address_lines=tuple(row.address_lines),
        postal_code=row.postal_code,
        city=row.city,
        region=row.region,
        country=row.country,
        tax_id=row.tax_id,
        invoice_email=row.invoice_email,
        tax_treatment=TaxTreatment(row.tax_treatment),
    )
