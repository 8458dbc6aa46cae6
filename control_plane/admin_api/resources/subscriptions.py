"""Subscriptions: which plan an account is on, for each API product."""

from datetime import datetime

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts import queries as account_queries
from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import AccountId, SubscriptionId
from control_plane.admin_api.resources.discounts import list_discounts
from control_plane.admin_api.resources.fitting_plans import fitting_plan
from control_plane.admin_api.resources.subscription_answers import (
    ChangedSubscriptionAnswer,
    SubscriptionAnswer,
    SubscriptionDetailAnswer,
    SubscriptionsAnswer,
    answers,
    one_answer,
)
from control_plane.admin_api.resources.subscription_forms import (
    CancelSubscription,
    ChangePlan,
    ChangeStatus,
    CreateSubscription,
    ExtendTrial,
    OverrideLimits,
)
from control_plane.admin_api.services import Now
from control_plane.admin_api.stripe_changes import ByStripe, followed, takes_effect
from control_plane.billing.discounts.new_plans import discount_new_plan
from control_plane.billing.operations import require_cap_kept, require_cap_kept_by_quota
from control_plane.billing.plan_moves.operations import discard_planned_move
from control_plane.foundation.unset import UNSET
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions import requests as stripe_requests
from control_plane.stripe_sync.subscriptions.refusals import NotAtStripeError
from control_plane.subscriptions import operations, own_terms, plan_changes, queries, statuses, trials
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timelines import timeline
from gateway_contract.records import Window

router = APIRouter(tags=["subscriptions"])


async def _kept_answer(session: AsyncSession, row: Subscription, now: datetime) -> SubscriptionAnswer:
    """Return the answer to a change that made the subscription dearer, unless its spend cap forbids it."""
    await require_cap_kept(session, row, now=now)
    return await one_answer(session, row, now)


@router.post("/accounts/{account_id}/subscriptions", status_code=201)
async def create_subscription(
    account_id: AccountId, body: CreateSubscription, session: Database, caller: Authenticated, now: Now
) -> SubscriptionAnswer:
    """Put an account on a plan from now on, with the plan's trial where there is one.

    At most one live subscription for each API product.
    """
    row = await operations.subscribe(
        session,
        account_id=account_id,
        plan_code=body.plan,
        anchor_at=body.anchor_at,
        anchor_day=body.anchor_day,
        trial=body.trial,
        allow_unlisted=body.allow_unlisted,
        actor=caller.actor,
        now=now,
    )
    await discount_new_plan(session, subscription_id=row.id, code=body.promotion_code, actor=caller.actor, now=now)
    return await one_answer(session, row, now)


@router.get("/accounts/{account_id}/subscriptions")
async def list_subscriptions(account_id: AccountId, session: Database, now: Now) -> SubscriptionsAnswer:
    """List an account's subscriptions, those that are over too, newest first."""
    await account_queries.account(session, account_id)
    rows = await queries.subscriptions_of_account(session, account_id)
    return SubscriptionsAnswer(items=await answers(session, list(rows), now))


@router.get("/subscriptions/{subscription_id}")
async def get_subscription(
    subscription_id: SubscriptionId, session: Database, now: Now
) -> SubscriptionDetailAnswer:
    """Return one subscription with its discounts, and the plan that would have fitted its last 30 days."""
    found = await one_answer(session, await queries.subscription(session, subscription_id), now)
    held = await list_discounts(subscription_id, session, now)
    fitting = await fitting_plan(session, subscription_id)
    return SubscriptionDetailAnswer(**found.model_dump(), fitting_plan=fitting, discounts=held.items)


@router.post("/subscriptions/{subscription_id}/change")
async def change_plan(
    subscription_id: SubscriptionId,
    *,
    body: ChangePlan,
    session: Database,
    caller: Authenticated,
    now: Now,
    by_stripe: ByStripe,
) -> ChangedSubscriptionAnswer:
    """Move to the version of a plan that is on sale, now or at period end. Replaces a change planned before.

    Where Stripe bills it, what is dearer takes effect when it is paid for.
    """
    if (stripe := await by_stripe.of(session, subscription_id)) is not None:
        return await _change_at_stripe(stripe, session, subscription_id, body, actor=caller.actor)
    changed = await plan_changes.change(
        session,
        subscription_id=subscription_id,
        plan_code=body.plan,
        at=body.at,
        allow_unlisted=body.allow_unlisted,
        actor=caller.actor,
        now=now,
    )
    await require_cap_kept(session, changed.subscription, now=now)
    await discount_new_plan(
        session, subscription_id=subscription_id, code=body.promotion_code, actor=caller.actor, now=now
    )
    answer = await one_answer(session, changed.subscription, now)
    return ChangedSubscriptionAnswer(
        **answer.model_dump(), changed_at=changed.at, effective_at=changed.effective_at
    )


async def _change_at_stripe(
    stripe: StripeContext, session: AsyncSession, subscription_id: str, body: ChangePlan, *, actor: str
) -> ChangedSubscriptionAnswer:
    if body.promotion_code is not None:
        raise NotAtStripeError(
            "Stripe takes no promotion code with a change of plan", "redeem it on the subscription by itself"
        )
    change = await stripe_requests.change_plan(
        stripe,
        subscription_id=subscription_id,
        plan_code=body.plan,
        at=body.at,
        proration_at=body.proration_at,
        allow_unlisted=body.allow_unlisted,
        actor=actor,
    )
    row = await followed(session, change)
    later, effective_at = takes_effect(change, row, stripe.now)
    answer = await one_answer(session, row, stripe.now)
    return ChangedSubscriptionAnswer(
        **answer.model_dump(), changed_at="period_end" if later else "now", effective_at=effective_at
    )


@router.post("/subscriptions/{subscription_id}/discard-change")
async def discard_change(
    subscription_id: SubscriptionId, *, session: Database, caller: Authenticated, now: Now, by_stripe: ByStripe
) -> SubscriptionAnswer:
    """Take a change of plan back that is planned for later. Without one nothing changes.

    Where a plan move has planned it, the subscription is excluded from that move.
    """
    if (stripe := await by_stripe.of(session, subscription_id)) is not None:
        change = await stripe_requests.discard_change(stripe, subscription_id=subscription_id, actor=caller.actor)
        return await one_answer(session, await followed(session, change), now)
    await discard_planned_move(session, subscription_id=subscription_id, actor=caller.actor, now=now)
    row = await plan_changes.discard_change(session, subscription_id=subscription_id, actor=caller.actor, now=now)
    return await _kept_answer(session, row, now)


@router.post("/subscriptions/{subscription_id}/cancel")
async def cancel_subscription(
    subscription_id: SubscriptionId,
    *,
    body: CancelSubscription,
    session: Database,
    caller: Authenticated,
    now: Now,
    by_stripe: ByStripe,
) -> SubscriptionAnswer:
    """End it now, or when the billing period (or the trial) ends. Plan changes planned for later are dropped."""
    if (stripe := await by_stripe.of(session, subscription_id)) is not None:
        change = await stripe_requests.cancel(
            stripe,
            subscription_id=subscription_id,
            at=body.at,
            unused_time=body.unused_time,
            actor=caller.actor,
        )
        return await one_answer(session, await followed(session, change), now)
    row = await operations.cancel(
        session,
        subscription_id=subscription_id,
        at=body.at,
        unused_time=body.unused_time,
        actor=caller.actor,
        now=now,
    )
    return await one_answer(session, row, now)


@router.post("/subscriptions/{subscription_id}/keep")
async def keep_subscription(
    subscription_id: SubscriptionId, *, session: Database, caller: Authenticated, now: Now, by_stripe: ByStripe
) -> SubscriptionAnswer:
    """Take a cancellation at period end back. Without one nothing changes."""
    if (stripe := await by_stripe.of(session, subscription_id)) is not None:
        change = await stripe_requests.keep(stripe, subscription_id=subscription_id, actor=caller.actor)
        return await one_answer(session, await followed(session, change), now)
    row = await operations.withdraw_cancellation(
        session, subscription_id=subscription_id, actor=caller.actor, now=now
    )
    return await _kept_answer(session, row, now)


@router.post("/subscriptions/{subscription_id}/status")
async def change_status(
    subscription_id: SubscriptionId, body: ChangeStatus, session: Database, caller: Authenticated, now: Now
) -> SubscriptionAnswer:
    """Say that a payment failed or arrived, pause it or resume it; gateways know within a second. Repeatable."""
    row = await statuses.change_status(
        session, subscription_id=subscription_id, status=body.status, actor=caller.actor, now=now
    )
    return await (_kept_answer if body.status == "active" else one_answer)(session, row, now)


@router.post("/subscriptions/{subscription_id}/pause")
async def pause_subscription(
    subscription_id: SubscriptionId, session: Database, caller: Authenticated, now: Now
) -> SubscriptionAnswer:
    """Let it rest: no calls and no charges until it is resumed. Paused already: nothing changes."""
    row = await statuses.pause(session, subscription_id=subscription_id, actor=caller.actor, now=now)
    return await one_answer(session, row, now)


@router.post("/subscriptions/{subscription_id}/resume")
async def resume_subscription(
    subscription_id: SubscriptionId, session: Database, caller: Authenticated, now: Now
) -> SubscriptionAnswer:
    """Let a paused one go on, with the billing periods that it had. Not paused: nothing changes."""
    row = await statuses.resume(session, subscription_id=subscription_id, actor=caller.actor, now=now)
    return await _kept_answer(session, row, now)


@router.post("/subscriptions/{subscription_id}/end-trial")
async def end_trial(
    subscription_id: SubscriptionId, *, session: Database, caller: Authenticated, now: Now, by_stripe: ByStripe
) -> SubscriptionAnswer:
    """End a trial now and go on as a paying subscription; billing periods begin in this hour."""
    if (stripe := await by_stripe.of(session, subscription_id)) is not None:
        change = await stripe_requests.end_trial(stripe, subscription_id=subscription_id, actor=caller.actor)
        return await one_answer(session, await followed(session, change), now)
    row = await trials.end_trial(session, subscription_id=subscription_id, actor=caller.actor, now=now)
    return await _kept_answer(session, row, now)


@router.post("/subscriptions/{subscription_id}/extend-trial")
async def extend_trial(
    subscription_id: SubscriptionId,
    *,
    body: ExtendTrial,
    session: Database,
    caller: Authenticated,
    now: Now,
    by_stripe: ByStripe,
) -> SubscriptionAnswer:
    """Let a trial end later; what was to happen at its end happens then."""
    if (stripe := await by_stripe.of(session, subscription_id)) is not None:
        change = await stripe_requests.extend_trial(
            stripe, subscription_id=subscription_id, ends_at=body.ends_at, actor=caller.actor
        )
        return await one_answer(session, await followed(session, change), now)
    row = await trials.extend_trial(
        session, subscription_id=subscription_id, ends_at=body.ends_at, actor=caller.actor, now=now
    )
    return await one_answer(session, row, now)


@router.post("/subscriptions/{subscription_id}/override")
async def override_limits(
    subscription_id: SubscriptionId, body: OverrideLimits, session: Database, caller: Authenticated, now: Now
) -> SubscriptionAnswer:
    """Give one subscription limits of its own in place of its plan's."""
    given = body.model_fields_set
    windows = (
        None if body.windows is None else [Window(limit=w.limit, window_ms=w.window_ms) for w in body.windows]
    )
    quota_before = (await timeline(session, subscription_id)).quota_override
    row = await own_terms.override_limits(
        session,
        subscription_id=subscription_id,
        windows=windows if "windows" in given else UNSET,
        quota_units=body.quota_units if "quota_units" in given else UNSET,
        quota_cap_units=body.quota_cap_units if "quota_cap_units" in given else UNSET,
        concurrency_limit=body.concurrency_limit if "concurrency_limit" in given else UNSET,
        actor=caller.actor,
        now=now,
    )
    await require_cap_kept_by_quota(session, row, quota_before=quota_before, now=now)
    return await one_answer(session, row, now)
