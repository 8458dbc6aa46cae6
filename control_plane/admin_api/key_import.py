"""Taking over accounts and keys from another gateway: accounts, subscriptions and keys in one transaction."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.imports import accounts_by_external_id, create_accounts
from control_plane.accounts.tables import Account
from control_plane.catalog.currencies import currencies_of, is_sold_in
from control_plane.catalog.queries import plan_versions
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.errors import ValidationFailedError
from control_plane.keys.imports import ImportedKey, import_keys, owners_of_hashes
from control_plane.subscriptions.many import live_subscriptions_to, subscribe_accounts
from control_plane.subscriptions.offers import require_own, version_on_sale
from control_plane.subscriptions.tables import Subscription
from gateway_contract.records import AccountStatus

# any fixed number: imports take turns, so that none decides by what another is about to write
IMPORT_LOCK = 0x6B6D_696D


class ImportOutcome(StrEnum):
    """What became of an account: `existing` also where keys or a subscription were added to it."""

    CREATED = "created"
    EXISTING = "existing"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedAccount:
    """An account by its external id; `name` is for one that is not there yet."""

    external_id: str
    name: str
    keys: tuple[ImportedKey, ...]


@dataclass(slots=True, kw_only=True)
class ImportedAccount:
    """What was, or would be, done. `account_id` is None for one that a dry run would make, or that was refused.

    `plan` is the plan the account has after it: its own where it was subscribed before.
    """

    external_id: str
    outcome: ImportOutcome
    reason: str = ""
    account_id: str | None = None
    subscription_id: str | None = None
    plan: str | None = None
    subscribed: bool = False
    keys_created: int = 0
    keys_existing: int = 0


@dataclass(frozen=True, slots=True)
class _Known:
    """What an account is judged by.

    Accounts by external id, subscriptions by account; for each hash its owner, and the accounts it is given for.
    """

    version: PlanVersion
    accounts: Mapping[str, Account]
    subscriptions: Mapping[str, Subscription]
    owners: Mapping[str, str]
    given_for: Mapping[str, set[str]]


async def import_accounts(
    session: AsyncSession,
    wanted: Sequence[WantedAccount],
    *,
    product_code: str,
    plan_code: str,
    allow_unlisted: bool = False,
    dry_run: bool = False,
    actor: str,
    now: datetime,
) -> list[ImportedAccount]:
    """Make or match accounts, put those without a subscription to the product on the plan, keep their keys.

    All or nothing for each account: one key that belongs to another account refuses it, and the others go on.
    Repeatable: what is there stays as it is, revoked keys too. A dry run writes nothing.

    Raises:
        NotFoundError, PlanNotOnSaleError, PlanUnlistedError, BoughtAtStripeError.
        ValidationFailedError: the plan is of another product, or an external id is there twice.
    """
    version = await version_on_sale(session, plan_code, allow_unlisted=allow_unlisted)
    require_own(version)
    if version.plan.api_product.code != product_code:
        raise ValidationFailedError("plan", f"belongs to API product {version.plan.api_product.code}")
    _require_distinct(wanted)
    await session.execute(text(f"SELECT pg_advisory_xact_lock({IMPORT_LOCK})"))
    known = await _known(session, wanted, version)
    results = [_decide(account, known) for account in wanted]
    await _name_plans(session, results, known)
    if not dry_run:
        await _apply(session, wanted, results, known, actor=actor, now=now)
    return results


async def _known(session: AsyncSession, wanted: Sequence[WantedAccount], version: PlanVersion) -> _Known:
    accounts = await accounts_by_external_id(session, {account.external_id for account in wanted})
    subscriptions = await live_subscriptions_to(
        session, {account.id for account in accounts.values()}, api_product_id=version.plan.api_product_id
    )
    hashes = {key.key_hash for account in wanted for key in account.keys}
    owners = await owners_of_hashes(session, hashes)
    return _Known(version, accounts, subscriptions, owners, _given_for(wanted))


def _decide(wanted: WantedAccount, known: _Known) -> ImportedAccount:
    account = known.accounts.get(wanted.external_id)
    subscription = None if account is None else known.subscriptions.get(account.id)
    reason = _why_refused(wanted, account, subscription, known)
    if reason:
        return ImportedAccount(external_id=wanted.external_id, outcome=ImportOutcome.REFUSED, reason=reason)
    hashes = {key.key_hash for key in wanted.keys}
    there = sum(key_hash in known.owners for key_hash in hashes)
    return ImportedAccount(
        external_id=wanted.external_id,
        outcome=ImportOutcome.CREATED if account is None else ImportOutcome.EXISTING,
        account_id=None if account is None else account.id,
        subscription_id=None if subscription is None else subscription.id,
        plan=known.version.plan.code,
        subscribed=subscription is None,
        keys_created=len(hashes) - there,
        keys_existing=there,
    )


def _why_refused(
    wanted: WantedAccount, account: Account | None, subscription: Subscription | None, known: _Known
) -> str:
    if account is not None and account.status == AccountStatus.DELETED:
        return f"account {account.id} was deleted"
    version = known.version
    if account is not None and subscription is None and not is_sold_in(version, account.currency):
        priced = ", ".join(currencies_of(version))
        return f"account {account.id} pays in {account.currency}, the plan is priced in {priced}"
    for number, key in enumerate(wanted.keys, start=1):
        owner = known.owners.get(key.key_hash)
        if owner is not None and (account is None or owner != account.id):
            return f"key {number} ({key.name}) belongs to account {owner} already"
        others = known.given_for[key.key_hash] - {wanted.external_id}
        if others:
            return f"key {number} ({key.name}) is given for {min(others)}, too"
    return ""


async def _apply(
    session: AsyncSession,
    wanted: Sequence[WantedAccount],
    results: Sequence[ImportedAccount],
    known: _Known,
    *,
    actor: str,
    now: datetime,
) -> None:
    version = known.version
    missing = {
        account.external_id: account.name
        for account, result in zip(wanted, results, strict=True)
        if result.outcome == ImportOutcome.CREATED
    }
    made = await create_accounts(session, names=missing, currency=version.currency, actor=actor, now=now)
    for result in results:
        if result.outcome == ImportOutcome.CREATED:
            result.account_id = made[result.external_id].id
    subscribing = [str(result.account_id) for result in results if result.subscribed]
    subscribed = await subscribe_accounts(session, subscribing, version=version, actor=actor, now=now)
    keys: dict[str, tuple[str, ImportedKey]] = {}
    for account, result in zip(wanted, results, strict=True):
        if result.outcome == ImportOutcome.REFUSED:
            continue
        if result.subscribed:
            result.subscription_id = subscribed[str(result.account_id)].id
        keys |= {
            key.key_hash: (str(result.account_id), key) for key in account.keys if key.key_hash not in known.owners
        }
    await import_keys(session, list(keys.values()), actor=actor, now=now)


async def _name_plans(session: AsyncSession, results: Iterable[ImportedAccount], known: _Known) -> None:
    """Put the plan that an account has already in place of the one it would be given."""
    held = {subscription.id: subscription.phases[-1] for subscription in known.subscriptions.values()}
    versions = await plan_versions(session, {phase.plan_version_id for phase in held.values()})
    for result in results:
        if result.subscription_id is not None:
            result.plan = versions[held[result.subscription_id].plan_version_id].plan.code


def _given_for(wanted: Iterable[WantedAccount]) -> dict[str, set[str]]:
    given: dict[str, set[str]] = {}
    for account in wanted:
        for key in account.keys:
            given.setdefault(key.key_hash, set()).add(account.external_id)
    return given


def _require_distinct(wanted: Sequence[WantedAccount]) -> None:
    seen: set[str] = set()
    for index, account in enumerate(wanted):
        if account.external_id in seen:
            raise ValidationFailedError(f"accounts[{index}].external_id", "is given twice")
        seen.add(account.external_id)
