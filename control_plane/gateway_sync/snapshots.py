"""Snapshots of rows for records. A page of accounts is only whole inside one REPEATABLE READ transaction."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeVar, cast

import structlog
from sqlalchemy import Row, Select, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.accounts.tables import Account
from control_plane.catalog.tables import ApiProduct, Plan, PlanVersion
from control_plane.foundation.db import is_any_of
from control_plane.foundation.period import Interval
from control_plane.foundation.windows import windows_from_json
from control_plane.gateway_sync import metrics
from control_plane.gateway_sync.records import (
    AccountSnapshot,
    KeySnapshot,
    PlanTerms,
    SubscriptionSnapshot,
)
from control_plane.keys.tables import ApiKey
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase

log = structlog.get_logger(__name__)

Made = TypeVar("Made")

# A paused subscription exists but allows no call; the others that are missing here are over.
CALLABLE_STATUSES = ("trialing", "active", "past_due")

KEY_COLUMNS = (
    ApiKey.id,
    ApiKey.account_id,
    ApiKey.key_hash,
    ApiKey.mode,
    ApiKey.status,
    ApiKey.gateway_version,
    ApiKey.scopes,
    ApiKey.windows,
    ApiKey.quota_units,
    ApiKey.ip_ranges,
    ApiKey.expires_at,
    ApiKey.name,
)
PLAN_COLUMNS = (
    Plan.code.label("plan_code"),
    Plan.name.label("plan_name"),
    Plan.position,
    PlanVersion.version,
    PlanVersion.windows,
    PlanVersion.quota_units,
    PlanVersion.quota_hard,
    PlanVersion.entitlements,
    PlanVersion.redis_down,
    PlanVersion.by_quote,
)


@asynccontextmanager
async def consistent_reads(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """Open a session in which every read sees the database at one moment (REPEATABLE READ, read only)."""
    async with sessions() as session, session.begin():
        await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield session


async def keys_by_id(session: AsyncSession, key_ids: Collection[str]) -> list[KeySnapshot]:
    """Return the keys in no particular order; ids that do not exist are left out."""
    if not key_ids:
        return []
    rows = await session.execute(select(*KEY_COLUMNS).where(is_any_of(ApiKey.id, key_ids)))
    return list(_usable("key", rows, _key))


async def keys_after(session: AsyncSession, last_id: str, *, limit: int) -> list[KeySnapshot]:
    """Return the next page of all keys in the order of their ids; start with ''."""
    rows = await session.execute(select(*KEY_COLUMNS).where(ApiKey.id > last_id).order_by(ApiKey.id).limit(limit))
    return list(_usable("key", rows, _key))


async def accounts_by_id(
    session: AsyncSession, account_ids: Collection[str], *, now: datetime
) -> list[AccountSnapshot]:
    """Return the accounts with the subscriptions that allow calls at `now`; unknown ids are left out."""
    if not account_ids:
        return []
    return await _accounts(session, _select_accounts().where(is_any_of(Account.id, account_ids)), now=now)


async def accounts_after(
    session: AsyncSession, last_id: str, *, limit: int, now: datetime
) -> list[AccountSnapshot]:
    """Return the next page of all accounts in the order of their ids; start with ''."""
    page = _select_accounts().where(Account.id > last_id).order_by(Account.id).limit(limit)
    return await _accounts(session, page, now=now)


def _select_accounts() -> Select[str, str, str, int]:
    return select(Account.id, Account.name, Account.status, Account.gateway_version)


async def _accounts(
    session: AsyncSession, page: Select[str, str, str, int], *, now: datetime
) -> list[AccountSnapshot]:
    rows = (await session.execute(page)).all()
    subscriptions = await _subscription_rows(session, [row.id for row in rows], now=now)
    product_ids = {found.api_product_id for account in subscriptions.values() for found in account}
    offers = await _offers(session, product_ids)

    def snapshot(row: Row[Any]) -> AccountSnapshot:
        return AccountSnapshot(
            id=row.id,
            name=row.name,
            status=row.status,
            version=row.gateway_version,
            subscriptions=tuple(
                _subscription(found, offers[found.api_product_id]) for found in subscriptions[row.id]
            ),
        )

    return list(_usable("account", rows, snapshot))


async def _subscription_rows(
    session: AsyncSession, account_ids: Sequence[str], *, now: datetime
) -> dict[str, list[Row[Any]]]:
    statement = (
        select(
            Subscription.account_id,
            Subscription.id,
            Subscription.anchor_at,
            Subscription.ends_at,
            Subscription.interval,
            Subscription.overrides,
            Subscription.api_product_id,
            ApiProduct.code.label("product_code"),
            ApiProduct.route_units,
            *PLAN_COLUMNS,
        )
        .join(ApiProduct, ApiProduct.id == Subscription.api_product_id)
        .join(SubscriptionPhase, SubscriptionPhase.subscription_id == Subscription.id)
        .join(PlanVersion, PlanVersion.id == SubscriptionPhase.plan_version_id)
        .join(Plan, Plan.id == PlanVersion.plan_id)
        .where(
            is_any_of(Subscription.account_id, account_ids),
            Subscription.status.in_(CALLABLE_STATUSES),
            Subscription.ends_at.is_(None) | (Subscription.ends_at > now),
            SubscriptionPhase.starts_at <= now,
            SubscriptionPhase.ends_at.is_(None) | (SubscriptionPhase.ends_at > now),
        )
        .order_by(Subscription.account_id, Subscription.id)
    )
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in await session.execute(statement):
        found[row.account_id].append(row)
    return found


async def _offers(session: AsyncSession, product_ids: Collection[str]) -> dict[str, tuple[PlanTerms, ...]]:
    """Return, by API product, the plans that anybody may take today."""
    if not product_ids:
        return {}
    statement = (
        select(Plan.api_product_id, *PLAN_COLUMNS)
        .join(PlanVersion, PlanVersion.plan_id == Plan.id)
        .where(
            is_any_of(Plan.api_product_id, product_ids),
            Plan.visibility == "public",
            Plan.archived_at.is_(None),
            PlanVersion.status == "published",
        )
        .order_by(Plan.position, Plan.code)
    )
    found: dict[str, list[PlanTerms]] = defaultdict(list)
    for row in await session.execute(statement):
        found[row.api_product_id].append(_plan(row))
    return {product_id: tuple(found[product_id]) for product_id in product_ids}


def _usable(kind: str, rows: Iterable[Any], make: Callable[[Row[Any]], Made]) -> Iterator[Made]:
    """Yield what can be made of each row; one spoiled row must not hold up all others for ever."""
    for row in rows:
        try:
            yield make(row)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            metrics.UNUSABLE.labels(kind).inc()
            log.error("a row cannot be projected", kind=kind, entity_id=row.id, error=repr(error))  # noqa: TRY400 - its trace says nothing more


def _key(row: Row[Any]) -> KeySnapshot:
    # by position: a full sweep makes a million of these
    (key_id, account_id, key_hash, mode, status, version, scopes, windows, quota, ranges, expires_at, name) = (
        tuple(row)
    )
    return KeySnapshot(
        id=key_id,
        account_id=account_id,
        key_hash=key_hash,
        mode=mode,
        status=status,
        version=version,
        scopes=tuple(scopes),
        windows=windows_from_json(windows),
        quota_units=quota,
        ip_ranges=tuple(ranges),
        expires_at=expires_at,
        name=name,
    )


def _subscription(row: Row[Any], offers: tuple[PlanTerms, ...]) -> SubscriptionSnapshot:
    windows = row.overrides.get("windows")
    return SubscriptionSnapshot(
        id=row.id,
        product=row.product_code,
        plan=_plan(row),
        anchor_at=row.anchor_at,
        ends_at=row.ends_at,
        interval=cast("Interval", row.interval),
        windows_override=None if windows is None else windows_from_json(windows),
        quota_override=row.overrides.get("quota_units"),
        route_units={name: int(units) for name, units in row.route_units.items()},
        offers=offers,
    )


def _plan(row: Row[Any]) -> PlanTerms:
    return PlanTerms(
        code=row.plan_code,
        name=row.plan_name,
        version=row.version,
        position=row.position,
        windows=windows_from_json(row.windows),
        quota_units=row.quota_units,
        quota_hard=row.quota_hard,
        entitlements=tuple(row.entitlements),
        redis_down=row.redis_down,
        by_quote=row.by_quote,
    )
