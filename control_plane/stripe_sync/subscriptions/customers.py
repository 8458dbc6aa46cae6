"""The customer that Stripe knows an account as: made when it is first needed, and kept up to date."""

from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import AccountDeletedError
from control_plane.accounts.queries import account as account_of
from control_plane.billing.profiles.model import BillingProfile
from control_plane.billing.profiles.queries import profile_or_default
from control_plane.billing.profiles.tables import BillingProfileRow
from control_plane.foundation.audit import record_change
from control_plane.stripe_sync.client import StripeRefused, StripeUnavailable, options
from control_plane.stripe_sync.effects import Effect, mark_handled
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.applying import lock_object
from control_plane.stripe_sync.subscriptions.customer_details import customer_params, digest_of, tax_id_params
from control_plane.stripe_sync.subscriptions.reading import seconds
from control_plane.stripe_sync.subscriptions.tables import StripeCustomer
from gateway_contract.records import AccountStatus

# idempotency keys are kept for a day at least: after that, whether a call took effect is looked up
KEY_LIFE: Final = timedelta(hours=20)
LOOK_AGAIN: Final = timedelta(days=1)
log = structlog.get_logger(__name__)


async def customer_of(session: AsyncSession, account_id: str) -> StripeCustomer | None:
    """Return the customer of an account; None where Stripe has none yet."""
    row = await session.get(StripeCustomer, account_id, populate_existing=True)
    return row if row is not None and row.customer_id is not None and row.deleted_at is None else None


async def ensure_customer(ctx: StripeContext, account_id: str) -> str:
    """Return the id of an account's customer, made now if there is none; up to date with the billing profile.

    Whatever is cut off in between, there is one customer: its row is there first, and gives the idempotency key.

    Raises:
        NotFoundError, AccountDeletedError, StripeRefused, StripeUnavailable.
    """
    async with ctx.sessions() as session, session.begin():
        account = await account_of(session, account_id)
        if account.status == AccountStatus.DELETED:
            raise AccountDeletedError(account_id)
        await session.execute(
            insert(StripeCustomer).values(account_id=account_id, created_at=ctx.now).on_conflict_do_nothing()
        )
        row = await session.get_one(StripeCustomer, account_id, with_for_update=True, populate_existing=True)
        if row.deleted_at is not None:
            # somebody deleted the customer at Stripe: the next one is another
            row.customer_id = row.asked_at = row.deleted_at = row.tax_id = row.told_at = None
            row.digest, row.attempt = "", row.attempt + 1
        first_asked, row.asked_at = row.asked_at, row.asked_at or ctx.now
        customer_id, attempt = row.customer_id, row.attempt
    if customer_id is None:
        customer_id = await _make(ctx, account_id, attempt, first_asked)
    await tell_customer(ctx, account_id)
    return customer_id


async def tell_customer(ctx: StripeContext, account_id: str) -> bool:
    """Tell Stripe what has changed of an account's billing profile; says whether anything had.

    What Stripe does not take is noted at the customer; a tax id that it does not take holds up nothing else.
    """
    async with ctx.sessions() as session, session.begin():
        await lock_object(session, f"customer:{account_id}")
        row = await customer_of(session, account_id)
        profile = await profile_or_default(session, account_id)
        if row is None or row.customer_id is None or profile is None:
            return False
        if row.digest == digest_of(profile):
            row.told_at = ctx.now
            return False
        customer_id, digest = row.customer_id, digest_of(profile)
        params: Any = {**customer_params(profile), "metadata": _mark(ctx, account_id)}
        key = options(f"{_key(ctx, account_id, row.attempt)}:{digest[:16]}:{seconds(ctx.now)}")
        row.problem = ""
        try:
            await ctx.stripe.call(lambda c: c.v1.customers.update_async(customer_id, params, key))
        except StripeRefused as error:
            # told again when the profile changes, or in a day
            row.problem, row.told_at = error.sentence, ctx.now
            log.warning("stripe_customer_refused", account_id=account_id, sentence=error.sentence)
            return False
        await _tell_tax_id(ctx, row, customer_id, profile)
        row.digest, row.told_at = digest, ctx.now
    return True


async def apply_customer(ctx: StripeContext, customer_id: str) -> Effect | None:
    """Read a customer at Stripe: its balance, and whether it is still there. What we say of it stays ours.

    Raises:
        StripeRefused, StripeUnavailable.
    """
    async with ctx.sessions() as session, session.begin():
        await lock_object(session, customer_id)
        row = await session.scalar(
            select(StripeCustomer)
            .where(StripeCustomer.customer_id == customer_id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
        if row is None:
            return Effect.NOT_OURS
        found = await ctx.stripe.call(lambda c: c.v1.customers.retrieve_async(customer_id))
        row.read_at = ctx.now
        if getattr(found, "deleted", False):
            row.deleted_at = row.deleted_at or ctx.now
        else:
            currency = getattr(found, "currency", None)
            row.balance_minor = found.balance
            row.balance_currency = None if currency is None else currency.upper()
        await mark_handled(session)
    return None


async def untold_accounts(session: AsyncSession, *, now: datetime, limit: int) -> list[str]:
    """Return accounts whose customer may have to be told something: changed ones, and each once a day."""
    statement = (
        select(StripeCustomer.account_id)
        .outerjoin(BillingProfileRow, BillingProfileRow.account_id == StripeCustomer.account_id)
        .where(
            StripeCustomer.customer_id.is_not(None),
            StripeCustomer.deleted_at.is_(None),
            or_(
                StripeCustomer.told_at.is_(None),
                BillingProfileRow.updated_at > StripeCustomer.told_at,
                StripeCustomer.told_at < now - LOOK_AGAIN,
            ),
        )
        .order_by(StripeCustomer.told_at.nulls_first())
        .limit(limit)
    )
    return list(await session.scalars(statement))


async def _make(ctx: StripeContext, account_id: str, attempt: int, first_asked: datetime | None) -> str:
    found = None
    if first_asked is not None and (ctx.now - first_asked > KEY_LIFE or attempt > 1):
        found = await _find(ctx, account_id, first_asked)
    if found is None:
        params: Any = {"metadata": _mark(ctx, account_id), **_clock(ctx)}
        key = options(_key(ctx, account_id, attempt))
        try:
            made = await ctx.stripe.call(lambda c: c.v1.customers.create_async(params, key))
        except StripeUnavailable as error:
            if error.spent_key:
                await _next_attempt(ctx, account_id, attempt)
            raise
        found = made.id
    async with ctx.sessions() as session, session.begin():
        row = await session.get_one(StripeCustomer, account_id, with_for_update=True, populate_existing=True)
        if row.customer_id is None:
            row.customer_id = found
            await record_change(
                session,
                actor="stripe",
                action="stripe_customer.made",
                entity_type="account",
                entity_id=account_id,
                before=None,
                after={"customer_id": found},
                now=ctx.now,
            )
        return row.customer_id


async def _find(ctx: StripeContext, account_id: str, since: datetime) -> str | None:
    """Return the customer that was made without our learning of it, if there is one."""
    wanted = _mark(ctx, account_id)
    asked: Any = {"created": {"gte": seconds(since - timedelta(minutes=5))}, "limit": 100, **_clock(ctx)}
    async for one in ctx.stripe.every(lambda c: c.v1.customers.list_async(asked)):
        told = {} if one.metadata is None else one.metadata.to_dict()
        if all(told.get(name) == value for name, value in wanted.items()):
            return one.id
    return None


async def _next_attempt(ctx: StripeContext, account_id: str, attempt: int) -> None:
    async with ctx.sessions() as session, session.begin():
        row = await session.get_one(StripeCustomer, account_id, with_for_update=True, populate_existing=True)
        if row.attempt == attempt:
            row.attempt = attempt + 1


async def _tell_tax_id(ctx: StripeContext, row: StripeCustomer, customer_id: str, profile: BillingProfile) -> None:
    wanted: Any = tax_id_params(profile)
    present = await ctx.stripe.call(lambda c: c.v1.customers.tax_ids.list_async(customer_id, {"limit": 100}))
    same = [one for one in present.data if wanted is not None and (one.type, one.value) == tuple(wanted.values())]
    if row.tax_id is not None and all(one.id != row.tax_id for one in same):
        gone = row.tax_id
        if any(one.id == gone for one in present.data):
            await ctx.stripe.call(lambda c: c.v1.customers.tax_ids.delete_async(customer_id, gone))
        row.tax_id = None
    if same:
        row.tax_id = same[0].id
    elif wanted is not None:
        key = options(f"{_key(ctx, row.account_id, row.attempt)}:tax:{digest_of(profile)[:16]}:{seconds(ctx.now)}")
        try:
            made = await ctx.stripe.call(lambda c: c.v1.customers.tax_ids.create_async(customer_id, wanted, key))
        except StripeRefused as error:
            row.problem = f"tax id: {error.sentence}"
            log.warning("stripe_tax_id_refused", account_id=row.account_id, sentence=error.sentence)
        else:
            row.tax_id = made.id


def _clock(ctx: StripeContext) -> dict[str, str]:
    return {"test_clock": ctx.config.test_clock} if ctx.config.test_clock else {}


def _mark(ctx: StripeContext, account_id: str) -> dict[str, str]:
    return {**ctx.config.metadata, "km_object": account_id}


def _key(ctx: StripeContext, account_id: str, attempt: int) -> str:
    return f"km:{ctx.config.installation}:customer:{account_id}:{attempt}"
