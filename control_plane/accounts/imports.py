"""Accounts by what another system calls them, many at once. Nothing here commits."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.model import check_currency, check_external_id
from control_plane.accounts.operations import account_facts
from control_plane.accounts.tables import Account
from control_plane.foundation.audit import add_change
from control_plane.foundation.db import is_any_of
from control_plane.foundation.ids import new_id
from control_plane.foundation.outbox import Topic, enqueue_many
from control_plane.foundation.text import clean_name
from gateway_contract.records import AccountStatus


async def accounts_by_external_id(session: AsyncSession, external_ids: Collection[str]) -> dict[str, Account]:
    """Return the accounts that are there, deleted ones too, locked until the transaction ends."""
    statement = (
        select(Account)
        .where(is_any_of(Account.external_id, external_ids))
        .order_by(Account.id)  # everybody locks in this order, so nobody waits in a circle
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return {str(found.external_id): found for found in await session.scalars(statement)}


async def create_accounts(
    session: AsyncSession, *, names: Mapping[str, str], currency: str, actor: str, now: datetime
) -> dict[str, Account]:
    """Make an account for each external id, with the name given for it; returns them by external id.

    Raises:
        ValidationFailedError: an external id, a name or the currency is not usable.
        IntegrityError: another transaction made one of them meanwhile.
    """
    check_currency(currency)
    made = {
        check_external_id(external_id): Account(
            id=new_id("acc", now),
            external_id=external_id,
            name=clean_name(name),
            status=AccountStatus.ACTIVE,
            currency=currency,
            time_zone="UTC",
            gateway_version=1,
            created_at=now,
        )
        for external_id, name in names.items()
    }
    session.add_all(made.values())
    for account in made.values():
        add_change(
            session,
            actor=actor,
            action="account.created",
            entity_type="account",
            entity_id=account.id,
            before=None,
            after=account_facts(account).as_dict(),
            now=now,
        )
    await session.flush()
    ids = [account.id for account in made.values()]
    await enqueue_many(session, topic=Topic.ACCOUNT_CHANGED, entity_ids=ids, now=now)
    return made
