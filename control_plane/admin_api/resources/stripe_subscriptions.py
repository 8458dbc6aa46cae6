"""Buying at Stripe, the customer portal, and how a subscription stands at Stripe."""

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts import queries as account_queries
from control_plane.accounts.model import Role
from control_plane.admin_api.access import Authenticated, allows, reads_only
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import AccountId, MoneyAnswer, SubscriptionId
from control_plane.admin_api.resources.stripe_forms import (
    ChangePreviewAnswer,
    CheckoutAnswer,
    CheckoutId,
    CheckoutsAnswer,
    OpenPortal,
    PortalAnswer,
    PreviewLineAnswer,
    StartCheckout,
    StartedCheckoutAnswer,
    StripeDiscountAnswer,
    StripeItemAnswer,
    StripeStandingAnswer,
)
from control_plane.admin_api.resources.subscription_forms import PreviewChange
from control_plane.admin_api.stripe_access import StripeGiven
from control_plane.admin_api.stripe_changes import StripeChangeAnswer
from control_plane.catalog.queries import plan_versions
from control_plane.foundation.errors import NotFoundError
from control_plane.stripe_sync.subscriptions.applying import apply_subscription
from control_plane.stripe_sync.subscriptions.changes import changes_of
from control_plane.stripe_sync.subscriptions.checkout import close_checkout, start_checkout
from control_plane.stripe_sync.subscriptions.checkout_rows import checkout_by_id, checkouts_of_account
from control_plane.stripe_sync.subscriptions.portal import portal_url
from control_plane.stripe_sync.subscriptions.previews import preview_plan_change
from control_plane.stripe_sync.subscriptions.queries import standing_of
from control_plane.stripe_sync.subscriptions.tables import StripeCheckout, StripeSubscription
from control_plane.subscriptions import queries

router = APIRouter(tags=["stripe"])


@router.post("/accounts/{account_id}/checkouts", status_code=201)
@allows(Role.FINANCE)
async def create_checkout(
    account_id: AccountId, body: StartCheckout, *, stripe: StripeGiven, session: Database, caller: Authenticated
) -> StartedCheckoutAnswer:
    """Open a checkout at Stripe for two hours. The subscription begins when it is paid, or its trial begins.

    On the same terms again it is the same checkout; on others the former one is closed.
    """
    started = await start_checkout(
        stripe,
        account_id=account_id,
        plan_code=body.plan,
        success_url=body.success_url,
        cancel_url=body.cancel_url,
        trial=body.trial,
        promotion_code=body.promotion_code,
        allow_unlisted=body.allow_unlisted,
        actor=caller.actor,
    )
    [answer] = await _answers(session, [started.checkout])
    return StartedCheckoutAnswer(**answer.model_dump(), url=started.url)


@router.get("/accounts/{account_id}/checkouts")
async def list_checkouts(account_id: AccountId, session: Database) -> CheckoutsAnswer:
    """List the last hundred checkouts of an account, newest first."""
    await account_queries.account(session, account_id)
    return CheckoutsAnswer(items=await _answers(session, list(await checkouts_of_account(session, account_id))))


@router.get("/checkouts/{checkout_id}")
async def get_checkout(checkout_id: CheckoutId, session: Database) -> CheckoutAnswer:
    """Return one checkout."""
    return (await _answers(session, [await checkout_by_id(session, checkout_id)]))[0]


@router.post("/checkouts/{checkout_id}/close")
@allows(Role.FINANCE)
async def end_checkout(
    checkout_id: CheckoutId, *, stripe: StripeGiven, session: Database, caller: Authenticated
) -> CheckoutAnswer:
    """Close a checkout that nobody has completed. Closed already: nothing changes."""
    closed = await close_checkout(stripe, checkout_id=checkout_id, actor=caller.actor)
    return (await _answers(session, [closed]))[0]


@router.post("/accounts/{account_id}/portal-sessions", status_code=201)
@allows(Role.FINANCE)
async def open_portal(
    account_id: AccountId, body: OpenPortal, *, stripe: StripeGiven, session: Database
) -> PortalAnswer:
    """Return the way into Stripe's customer portal: cards, invoices, addresses, cancelling."""
    await account_queries.account(session, account_id)
    return PortalAnswer(
        url=await portal_url(stripe, account_id=account_id, return_url=body.return_url, flow=body.flow)
    )


@router.post("/subscriptions/{subscription_id}/preview-change")
@reads_only
async def preview_change(
    subscription_id: SubscriptionId, body: PreviewChange, stripe: StripeGiven
) -> ChangePreviewAnswer:
    """Return what a change of plan would cost at once, by Stripe's reckoning. Nothing is changed."""
    found = await preview_plan_change(
        stripe,
        subscription_id=subscription_id,
        plan_code=body.plan,
        at=body.at,
        allow_unlisted=body.allow_unlisted,
    )
    currency = found.currency
    return ChangePreviewAnswer(
        at=found.at,
        effective_at=found.effective_at,
        proration_at=found.proration_at,
        subtotal=MoneyAnswer.of(found.subtotal_minor, currency),
        total=MoneyAnswer.of(found.total_minor, currency),
        amount_due=MoneyAnswer.of(found.amount_due_minor, currency),
        lines=[
            PreviewLineAnswer(description=line.description, amount=MoneyAnswer.of(line.amount_minor, currency))
            for line in found.lines
        ],
    )


@router.get("/subscriptions/{subscription_id}/stripe")
async def get_stripe_standing(subscription_id: SubscriptionId, session: Database) -> StripeStandingAnswer:
    """Return how a subscription stood at Stripe when it was read last, and what was wanted of Stripe for it."""
    await queries.subscription(session, subscription_id)
    return await _standing(session, subscription_id)


@router.post("/subscriptions/{subscription_id}/stripe/refresh")
@allows(Role.FINANCE, Role.SUPPORT)
async def refresh_from_stripe(
    subscription_id: SubscriptionId, stripe: StripeGiven, session: Database
) -> StripeStandingAnswer:
    """Read a subscription at Stripe now and bring ours to what it says, as an event would."""
    row = await session.get(StripeSubscription, subscription_id)
    if row is None:
        await queries.subscription(session, subscription_id)
        raise NotFoundError("stripe_subscription", subscription_id)
    await apply_subscription(stripe, row.stripe_id)
    session.expire_all()
    return await _standing(session, subscription_id)


async def _answers(session: AsyncSession, rows: list[StripeCheckout]) -> list[CheckoutAnswer]:
    versions = await plan_versions(session, {row.plan_version_id for row in rows})
    return [
        CheckoutAnswer(
            id=row.id,
            account_id=row.account_id,
            plan=versions[row.plan_version_id].plan.code,
            plan_version=versions[row.plan_version_id].version,
            currency=row.currency,
            state=row.state,
            problem=row.problem,
            trial_ends_at=row.trial_ends_at,
            trial_days=row.trial_days,
            has_discount=row.coupon_id is not None,
            subscription_id=row.subscription_id,
            created_at=row.created_at,
            expires_at=row.expires_at,
            finished_at=row.finished_at,
        )
        for row in rows
    ]


async def _standing(session: AsyncSession, subscription_id: str) -> StripeStandingAnswer:
    found = await standing_of(session, subscription_id)
    row = found.row
    return StripeStandingAnswer(
        subscription_id=subscription_id,
        stripe_id=row.stripe_id,
        customer_id=row.customer_id,
        status=row.status,
        current_period_start=row.current_period_start,
        current_period_end=row.current_period_end,
        trial_end=row.trial_end,
        cancel_at=row.cancel_at,
        schedule_id=row.schedule_id,
        pending_update_until=row.pending_update_until,
        automatic_tax=row.automatic_tax,
        problem=row.problem,
        read_at=row.read_at,
        items=[
            StripeItemAnswer(item_id=one.item_id, price_id=one.price_id, quantity=one.quantity)
            for one in found.items
        ],
        discounts=[
            StripeDiscountAnswer(
                discount_id=one.discount_id,
                coupon_id=one.stripe_coupon_id,
                starts_at=one.starts_at,
                ends_at=one.ends_at,
            )
            for one in found.discounts
        ],
        changes=[StripeChangeAnswer.of(change) for change in await changes_of(session, subscription_id)],
    )
