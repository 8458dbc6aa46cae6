"""Snapshots of accounts for records. A page of them is only whole inside one REPEATABLE READ transaction."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

import structlog
from sqlalchemy import Row, Select, exists, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.accounts.tables import Account
from control_plane.billing.spend_caps import ReadUnlogged, read_spend_caps
from control_plane.catalog.currencies import CurrencyDiffersError
from control_plane.foundation.db import is_any_of
from control_plane.foundation.period import Interval, period_containing
from control_plane.foundation.windows import windows_from_json
from control_plane.gateway_sync import metrics
from control_plane.gateway_sync.held_terms import held_to
from control_plane.gateway_sync.plan_snapshots import ProductSnapshot, plans_by_version, products_with_offers
from control_plane.gateway_sync.records import (
    AccountSnapshot,
    FittingPlan,
    PlanTerms,
    SubscriptionSnapshot,
)
from control_plane.gateway_sync.tables import UpgradeHint, hint_basis
from control_plane.gateway_sync.timed_terms import versions_needed, with_timeline
from control_plane.rating.versions import PRORATED
from control_plane.subscriptions.holds import BLOCK
from control_plane.subscriptions.model import OVER, Status
from control_plane.subscriptions.tables import PaymentHold, Subscription, SubscriptionAddOn, SubscriptionPhase
from control_plane.subscriptions.timeline import PhaseKind, Timeline
from control_plane.subscriptions.timelines import timelines
from gateway_contract.records import SpendCap

log = structlog.get_logger(__name__)

Made = TypeVar("Made")


_HAS_ADD_ONS = (
    exists()
    .where(SubscriptionAddOn.subscription_id == Subscription.id)
    .correlate(Subscription)
    .label("has_add_ons")
)


@dataclass(frozen=True, slots=True)
class SnapshotPage(Generic[Made]):
    """A page of `rows` rows; unusable ones are not in `items`. `last_id` is None where no row was left."""

    items: Sequence[Made]
    rows: int
    last_id: str | None


@asynccontextmanager
async def consistent_reads(sessions: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """Open a session in which every read sees the database at one moment (REPEATABLE READ, read only)."""
    async with sessions() as session, session.begin():
        await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield session


async def accounts_by_id(
    session: AsyncSession,
    account_ids: Collection[str],
    *,
    now: datetime,
    read_unlogged: ReadUnlogged | None = None,
) -> list[AccountSnapshot]:
    """Return the accounts with the subscriptions that allow calls at `now`; unknown ids are left out."""
    if not account_ids:
        return []
    statement = _select_accounts().where(is_any_of(Account.id, account_ids))
    rows = (await session.execute(statement)).all()
    return await _accounts(session, rows, now=now, read_unlogged=read_unlogged)


async def accounts_after(
    session: AsyncSession, last_id: str, *, limit: int, now: datetime, read_unlogged: ReadUnlogged | None = None
) -> SnapshotPage[AccountSnapshot]:
    """Return the next page of all accounts in the order of their ids; start with ''."""
    statement = _select_accounts().where(Account.id > last_id).order_by(Account.id).limit(limit)
    rows = (await session.execute(statement)).all()
    accounts = await _accounts(session, rows, now=now, read_unlogged=read_unlogged)
    return SnapshotPage(accounts, len(rows), rows[-1].id if rows else None)


def _select_accounts() -> Select[str, str, str, int, str]:
    return select(Account.id, Account.name, Account.status, Account.gateway_version, Account.currency)


async def _accounts(
    session: AsyncSession,
    rows: Sequence[Row[str, str, str, int, str]],
    *,
    now: datetime,
    read_unlogged: ReadUnlogged | None,
) -> list[AccountSnapshot]:
    subscriptions = await _subscription_rows(session, [row.id for row in rows], now=now)
    found = [row for account in subscriptions.values() for row in account]
    # few plans and products, many subscriptions: each plan is read once a page
    plans = await plans_by_version(session, {row.plan_version_id for row in found})
    timed = await timelines(session, [row.id for row in found if _is_timed(row, plans[row.plan_version_id], now)])
    needed = {version for one in timed.values() for version in versions_needed(one, now)}
    needed |= {row.held_to_version for row in found if row.held_to_version is not None}
    plans |= await plans_by_version(session, needed.difference(plans))
    products = await products_with_offers(session, {row.api_product_id for row in found})
    capped = {
        row.id: row.phase_id
        for row in found
        if row.spend_cap_minor is not None or plans[row.plan_version_id].prepaid
    }
    caps = await read_spend_caps(session, capped, now=now, read_unlogged=read_unlogged)

    def snapshot(row: Row[str, str, str, int, str]) -> AccountSnapshot:
        return AccountSnapshot(
            id=row.id,
            name=row.name,
            status=row.status,
            version=row.gateway_version,
            subscriptions=tuple(
                _subscription(
                    held,
                    plans[held.plan_version_id],
                    products[held.api_product_id],
                    currency=row.currency,
                    cap=caps.compiled(held.id) if held.id in capped else None,
                    plan_changed=held.id in caps.changed,
                    timeline=timed.get(held.id),
                    plans=plans,
                    now=now,
                )
                for held in subscriptions[row.id]
            ),
        )

    return list(usable("account", rows, snapshot))


async def _subscription_rows(
    session: AsyncSession, account_ids: Sequence[str], *, now: datetime
) -> dict[str, list[Row[Any]]]:
    statement = (
        select(
            Subscription.account_id,
            Subscription.id,
            Subscription.status,
            Subscription.anchor_at,
            Subscription.ends_at,
            Subscription.interval,
            Subscription.time_zone,
            Subscription.overrides,
            Subscription.spend_cap_minor,
            Subscription.api_product_id,
            Subscription.started_at,
            Subscription.trial_ends_at,
            _HAS_ADD_ONS,
            SubscriptionPhase.plan_version_id,
            SubscriptionPhase.id.label("phase_id"),
            SubscriptionPhase.kind,
            SubscriptionPhase.starts_at,
            SubscriptionPhase.ends_at.label("phase_ends_at"),
            UpgradeHint.fitting_plan,
            UpgradeHint.basis,
            PaymentHold.kind.label("hold"),
            PaymentHold.plan_version_id.label("held_to_version"),
        )
        .join(SubscriptionPhase, SubscriptionPhase.subscription_id == Subscription.id)
        .outerjoin(UpgradeHint, UpgradeHint.subscription_id == Subscription.id)
        .outerjoin(PaymentHold, PaymentHold.subscription_id == Subscription.id)
        .where(
            is_any_of(Subscription.account_id, account_ids),
            Subscription.status.not_in(sorted(OVER)),
            Subscription.ends_at.is_(None) | (Subscription.ends_at > now),
            # applied: begun by the clock of whoever changed it, which may be ahead of ours
            (SubscriptionPhase.starts_at <= now) | SubscriptionPhase.applied_at.is_not(None),
            SubscriptionPhase.ends_at.is_(None) | (SubscriptionPhase.ends_at > now),
        )
        .order_by(Subscription.account_id, Subscription.id, SubscriptionPhase.starts_at)
    )
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in await session.execute(statement):
        held = found[row.account_id]
        if held and held[-1].id == row.id:
            held.pop()  # of two phases that look begun, the later holds
        held.append(row)
    return found


def _is_timed(row: Row[Any], plan: PlanTerms, now: datetime) -> bool:
    """Say whether more than the phase in force must be known: few subscriptions change within a billing period."""
    if row.has_add_ons or row.phase_ends_at is not None:
        return True
    if row.starts_at == row.started_at and plan.quota_on_change != PRORATED:
        return False
    return bool(row.starts_at > period_containing(now, row.anchor_at, row.interval, row.time_zone).start)


def usable(kind: str, rows: Iterable[Any], make: Callable[[Any], Made]) -> Iterator[Made]:
    """Yield what can be made of each row; one spoiled row must not hold up all others for ever."""
    for row in rows:
        try:
            yield make(row)
        except (ArithmeticError, LookupError, TypeError, ValueError, CurrencyDiffersError) as error:
            metrics.UNUSABLE.labels(kind).inc()
            log.error("a row cannot be projected", kind=kind, entity_id=row.id, error=repr(error))  # noqa: TRY400 - its trace says nothing more


def _subscription(
    row: Row[Any],
    plan: PlanTerms,
    product: ProductSnapshot,
    *,
    currency: str,
    cap: SpendCap | None,
    plan_changed: bool,
    timeline: Timeline | None,
    plans: Mapping[str, PlanTerms],
    now: datetime,
) -> SubscriptionSnapshot:
    windows = row.overrides.get("windows")
    made = SubscriptionSnapshot(
        id=row.id,
        product=product.code,
        plan=plan,
        past_due=row.status == Status.PAST_DUE.value,
        blocked=row.hold == BLOCK,
        paused=Status.PAUSED.value == row.status or row.kind == PhaseKind.PAUSED,
        anchor_at=row.anchor_at,
        trial_ends_at=row.trial_ends_at,
        ends_at=row.ends_at,
        interval=cast("Interval", row.interval),
        time_zone=row.time_zone,
        windows_override=None if windows is None else windows_from_json(windows),
        quota_override=row.overrides.get("quota_units"),
        quota_cap_override=row.overrides.get("quota_cap_units"),
        concurrency_override=row.overrides.get("concurrency_limit"),
        spend_cap=cap,
        plan_changed=plan_changed,
        route_units=product.route_units,
        offers=product.offers_in(currency),
        fitting=row.basis and FittingPlan(row.fitting_plan, row.basis == hint_basis(row)),
    )
    if timeline is not None:
        capped = row.spend_cap_minor is not None or plan.prepaid
        made = with_timeline(made, timeline, row.phase_id, plans, capped=capped, now=now)
    if made.past_due and row.held_to_version is not None:
        return held_to(made, plans[row.held_to_version])
    return made
