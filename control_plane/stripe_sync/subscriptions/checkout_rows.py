"""Rows of checkouts, and what Stripe is told of one. Nothing here commits."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.operations import AccountDeletedError
from control_plane.accounts.queries import account as account_of
from control_plane.accounts.tables import Account
from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.ids import new_id
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.checkout_terms import LIFETIME, Purchase
from control_plane.stripe_sync.subscriptions.items import priced
from control_plane.stripe_sync.subscriptions.model import PriceAtStripe
from control_plane.stripe_sync.subscriptions.reading import seconds
from control_plane.stripe_sync.subscriptions.tables import OPEN_CHECKOUT_STATES, StripeCheckout
from gateway_contract.records import AccountStatus


async def checkout_by_id(session: AsyncSession, checkout_id: str, *, locked: bool = False) -> StripeCheckout:
    """Return a checkout.

    Raises:
        NotFoundError.
    """
    found = await session.get(StripeCheckout, checkout_id, with_for_update=locked, populate_existing=True)
    if found is None:
        raise NotFoundError("checkout", checkout_id)
    return found


async def checkouts_of_account(session: AsyncSession, account_id: str) -> Sequence[StripeCheckout]:
    """Return the last hundred checkouts of an account, newest first."""
    statement = (
        select(StripeCheckout)
        .where(StripeCheckout.account_id == account_id)
        .order_by(StripeCheckout.id.desc())
        .limit(100)
    )
    return (await session.scalars(statement)).all()


def session_params(
    ctx: StripeContext,
    checkout: StripeCheckout,
    prices: Sequence[PriceAtStripe],
    customer_id: str,
    stripe_coupon_id: str | None,
) -> Any:
    """Return what Stripe is told of a checkout: the same for the same row, however often it is asked for."""
    mark = {**ctx.config.metadata, "km_object": checkout.id}
    on_trial = checkout.trial_ends_at is not None or checkout.trial_days is not None
    # a setup fee is due when the first paid period begins; Checkout would charge it before the trial
    lines = [
        priced((price, None if price.kind == "metered" else 1)) for price in prices if price.recurs or not on_trial
    ]
    data: dict[str, Any] = {"metadata": mark, "billing_mode": {"type": "flexible"}}
    if on_trial:
        data["trial_settings"] = {"end_behavior": {"missing_payment_method": "cancel"}}
    if checkout.trial_ends_at is not None:
        data["trial_end"] = seconds(checkout.trial_ends_at)
    elif checkout.trial_days is not None:
        data["trial_period_days"] = checkout.trial_days
    params: dict[str, Any] = {
        "mode": "subscription",
        "customer": customer_id,
        "client_reference_id": checkout.account_id,
        "line_items": lines,
        "subscription_data": data,
        "payment_method_collection": "always",
        "success_url": checkout.success_url,
        "cancel_url": checkout.cancel_url,
        "expires_at": seconds(checkout.expires_at),
        "metadata": mark,
    }
    if stripe_coupon_id is not None:
        params["discounts"] = [{"coupon": stripe_coupon_id}]
    if ctx.config.automatic_tax:
        params["automatic_tax"] = {"enabled": True}
        params["customer_update"] = {"address": "auto", "name": "auto"}
        params["tax_id_collection"] = {"enabled": True}
    return params


def close(checkout: StripeCheckout, state: str, *, now: datetime) -> None:
    checkout.state, checkout.finished_at, checkout.next_try_at = state, now, None


async def locked_account(session: AsyncSession, account_id: str) -> Account:
    await account_of(session, account_id)
    account = await session.get_one(
        Account, account_id, with_for_update={"key_share": True}, populate_existing=True
    )
    if account.status == AccountStatus.DELETED:
        raise AccountDeletedError(account_id)
    return account


async def open_checkout(session: AsyncSession, account_id: str, api_product_id: str) -> StripeCheckout | None:
    found: StripeCheckout | None = await session.scalar(
        select(StripeCheckout)
        .where(
            StripeCheckout.account_id == account_id,
            StripeCheckout.api_product_id == api_product_id,
            StripeCheckout.state.in_(OPEN_CHECKOUT_STATES),
        )
        .execution_options(populate_existing=True)
    )
    return found


def checkout_row(
    account: Account, bought: Purchase, urls: tuple[str, str], *, actor: str, now: datetime
) -> StripeCheckout:
    expires_at = (now + LIFETIME).replace(microsecond=0)
    return StripeCheckout(
        id=new_id("sco", now),
        account_id=account.id,
        api_product_id=bought.version.plan.api_product_id,
        plan_version_id=bought.version.id,
        currency=account.currency,
        state="wanted",
        trial_ends_at=bought.trial_ends_at,
        trial_days=bought.trial_days,
        coupon_id=bought.coupon_id,
        promotion_code_id=bought.promotion_code_id,
        founding_offer_id=bought.founding_offer_id,
        success_url=urls[0],
        cancel_url=urls[1],
        attempt=1,
        requested_by=actor,
        created_at=now,
        expires_at=expires_at,
        next_try_at=expires_at,
    )


def is_same(former: StripeCheckout, bought: Purchase, urls: tuple[str, str]) -> bool:
    on_trial = former.trial_ends_at is not None or former.trial_days is not None
    same_terms = (
        former.plan_version_id == bought.version.id
        and on_trial == bought.on_trial
        and former.coupon_id == bought.coupon_id
        and former.promotion_code_id == bought.promotion_code_id
    )
    return same_terms and (former.success_url, former.cancel_url) == urls


async def record(
    session: AsyncSession, checkout: StripeCheckout, action: str, *, actor: str, now: datetime
) -> None:
    await record_change(
        session,
        actor=actor,
        action=action,
        entity_type="account",
        entity_id=checkout.account_id,
        before=None,
        after={
            "checkout_id": checkout.id,
            "plan_version_id": checkout.plan_version_id,
            "state": checkout.state,
            "coupon_id": checkout.coupon_id,
        },
        now=now,
    )


def checkout_key(ctx: StripeContext, checkout: StripeCheckout) -> str:
    return f"km:{ctx.config.installation}:checkout:{checkout.id}"
