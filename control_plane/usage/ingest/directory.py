"""Reading whom reported events are about, a batch at a time."""

from collections import defaultdict
from collections.abc import Collection

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.catalog.tables import ApiProduct, Plan, PlanVersion
from control_plane.foundation.db import is_any_of
from control_plane.keys.tables import ApiKey
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.usage.ingest.placing import Directory, Subject, Subscribed
from control_plane.usage.rollups.rollup import first_ms
from gateway_contract.modes import Mode
from gateway_contract.records import AccountStatus


async def read_directory(session: AsyncSession, subjects: Collection[str]) -> Directory:
    """Return what is known of these subjects.

    A subject is an account's id, else an API key's id (revoked or not: its calls were before), else an account's
    external id; the first of these that there is.
    """
    if not subjects:
        return Directory()
    accounts = (
        await session.execute(
            select(Account.id, Account.external_id, Account.status).where(
                or_(is_any_of(Account.id, subjects), is_any_of(Account.external_id, subjects))
            )
        )
    ).all()
    keys = (
        await session.execute(
            select(ApiKey.id, ApiKey.account_id, ApiKey.mode, Account.status)
            .join(Account, Account.id == ApiKey.account_id)
            .where(is_any_of(ApiKey.id, subjects))
        )
    ).all()
    by_external_id = {
        external_id: Subject(account_id, status == AccountStatus.DELETED)
        for account_id, external_id, status in accounts
        if external_id is not None
    }
    by_key = {
        key_id: Subject(account_id, status == AccountStatus.DELETED, key_id, Mode(mode))
        for key_id, account_id, mode, status in keys
    }
    by_id = {
        account_id: Subject(account_id, status == AccountStatus.DELETED) for account_id, _, status in accounts
    }
    found = by_external_id | by_key | by_id
    return Directory(found, await _subscribed(session, {subject.account_id for subject in found.values()}))


async def _subscribed(session: AsyncSession, account_ids: Collection[str]) -> dict[str, list[Subscribed]]:
    statement = (
        select(
            Subscription.account_id,
            ApiProduct.code,
            Subscription.id,
            Plan.code,
            SubscriptionPhase.starts_at,
            SubscriptionPhase.ends_at,
            PlanVersion.event_retention_days,
        )
        .join(ApiProduct, ApiProduct.id == Subscription.api_product_id)
        .join(SubscriptionPhase, SubscriptionPhase.subscription_id == Subscription.id)
        .join(PlanVersion, PlanVersion.id == SubscriptionPhase.plan_version_id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .where(is_any_of(Subscription.account_id, account_ids))
        .order_by(SubscriptionPhase.starts_at, SubscriptionPhase.id)
    )
    found: dict[str, list[Subscribed]] = defaultdict(list)
    for account_id, product, subscription_id, plan, starts_at, ends_at, days in await session.execute(statement):
        end_ms = None if ends_at is None else first_ms(ends_at)
        found[account_id].append(Subscribed(product, subscription_id, plan, first_ms(starts_at), end_ms, days))
    return found
