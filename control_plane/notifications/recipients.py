"""Whom a mail goes to: where the account's bills go, else the account's own address."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.billing.profiles.queries import profiles
from gateway_contract.records import AccountStatus

NO_ADDRESS = "The account has no email address: set one, then send the mail again."
DELETED = "The account was deleted."


@dataclass(frozen=True, slots=True)
class Recipient:
    """An address, and whose clock and name the words go by."""

    address: str
    account: str = ""
    time_zone: str = "UTC"


async def recipient_of(
    session: AsyncSession, *, account_id: str | None, to_address: str | None
) -> Recipient | str:
    """Return the recipient as of now, or in words why there is none. A given address counts before all."""
    account = None if account_id is None else await session.get(Account, account_id, populate_existing=True)
    if account is None:
        return Recipient(to_address) if to_address else NO_ADDRESS
    if account.status == AccountStatus.DELETED:
        return DELETED
    profile = (await profiles(session, {account.id})).get(account.id)
    address = to_address or (profile.invoice_email if profile else "") or account.email
    return Recipient(address, account.name, account.time_zone) if address else NO_ADDRESS
