"""Giving an account a billing profile. Nothing here commits."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import AccountDeletedError
from control_plane.accounts.tables import Account
from control_plane.billing.profiles.model import BillingProfile, check_profile
from control_plane.billing.profiles.queries import as_profile
from control_plane.billing.profiles.tables import BillingProfileRow
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import NotFoundError
from gateway_contract.records import AccountStatus


async def set_billing_profile(
    session: AsyncSession, *, account_id: str, profile: BillingProfile, actor: str, now: datetime
) -> BillingProfile:
    """Replace an account's billing profile whole. Invoices that are final keep what they say.

    Raises:
        NotFoundError, AccountDeletedError: no such account, or deleted. ValidationFailedError: fields are wrong.
    """
    check_profile(profile)
    # the account's lock: two who give the first profile at once take turns
    account = await session.scalar(select(Account).where(Account.id == account_id).with_for_update(key_share=True))
    if account is None:
        raise NotFoundError("account", account_id)
    if account.status == AccountStatus.DELETED:
        raise AccountDeletedError(account_id)
    row = await session.get(BillingProfileRow, account_id, populate_existing=True)
    before = None if row is None else as_profile(row)
    if before == profile:
        return profile
    if row is None:
        row = BillingProfileRow(account_id=account_id, created_at=now)
        session.add(row)
    for name, value in profile.as_dict().items():
        setattr(row, name, value)
    row.updated_at = now
    await session.flush()
    await record_change(
        session,
        actor=actor,
        action="billing_profile.set",
        entity_type="account",
        entity_id=account_id,
        before=None if before is None else before.as_dict(),
        after=profile.as_dict(),
        now=now,
    )
    return profile
