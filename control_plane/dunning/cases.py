"""Cases, step by step. Nothing here commits: a step, its mail and its audit row are one transaction.

Every function takes the account's lock first and looks at the subscription again: whoever paid meanwhile counts.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.accounts.tables import Account
from control_plane.dunning import metrics
from control_plane.dunning.endings import after_the_end
from control_plane.dunning.model import CaseState, DunningConfig, Step, next_step, step_due
from control_plane.dunning.plans import policy_of
from control_plane.dunning.records import facts_of, record_case
from control_plane.dunning.tables import DunningCase
from control_plane.dunning.telling import tell
from control_plane.dunning.unpaid import unpaid_invoices
from control_plane.foundation.ids import new_id
from control_plane.notifications.model import MailKind
from control_plane.subscriptions.holds import begin_grace, hold_back
from control_plane.subscriptions.model import OVER, Status
from control_plane.subscriptions.tables import PaymentHold, Subscription

SYSTEM = "system"


async def open_case(
    session: AsyncSession, *, subscription_id: str, config: DunningConfig, now: datetime
) -> DunningCase | None:
    """Open a case for a past due subscription that has none; returns None where there is nothing to open."""
    subscription = await _locked(session, subscription_id)
    if subscription.status != Status.PAST_DUE or await _open_case_of(session, subscription_id) is not None:
        return None
    policy = await policy_of(session, subscription, config=config)
    case = DunningCase(
        id=new_id("dun", now),
        subscription_id=subscription.id,
        account_id=subscription.account_id,
        state=CaseState.GRACE.value,
        after=policy.after,
        free_plan_version_id=policy.free_plan_version_id,
        told=[],
        opened_at=now,
        grace_until=now if policy.at_once else now + config.grace,
    )
    _plan_ahead(case, config)
    session.add(case)
    await begin_grace(session, subscription_id=subscription.id, now=now)
    await session.flush()
    await record_case(session, case, action="dunning.opened", before=None, actor=SYSTEM, now=now)
    metrics.OPENED.inc()
    return case


async def take_step(session: AsyncSession, *, case_id: str, config: DunningConfig, now: datetime) -> Step | None:
    """Take the step of an open case that is due, or close it where the subscription is past due no longer.

    Returns the step that was taken.
    """
    case, subscription = await _locked_case(session, case_id)
    if case is None:
        return None
    is_paid = await session.get(PaymentHold, subscription.id, populate_existing=True) is None
    if subscription.status != Status.PAST_DUE or is_paid:
        # paid, and past due again since: that is another case
        await _close(session, case, subscription, config=config, now=now)
        return None
    if subscription.ends_at is not None and subscription.ends_at <= now:
        return None  # it is over, and is noted as such in a moment
    step = step_due(facts_of(case), config=config, now=now)
    if step is None:
        _plan_ahead(case, config)
        return None
    before = case.state
    if step is Step.FALL:
        await _fall(session, case, now=now)
    elif not await _notify(session, case, subscription, step, config=config, now=now):
        case.look_at = min(now + config.settle, case.opened_at + config.wait_for_invoice)
        return None
    _plan_ahead(case, config)
    await session.flush()
    await record_case(session, case, action=f"dunning.{step}", before=before, actor=SYSTEM, now=now)
    return step


async def _notify(
    session: AsyncSession,
    case: DunningCase,
    subscription: Subscription,
    step: Step,
    *,
    config: DunningConfig,
    now: datetime,
) -> bool:
    """Queue a notice; False where the first one still waits for an invoice that it can name."""
    unpaid = await unpaid_invoices(session, subscription, now=now)
    if step is Step.FAILED:
        at_once = facts_of(case).holds_at_once
        if not unpaid and not at_once and now < case.opened_at + config.wait_for_invoice:
            return False
        asked = [bill for bill in unpaid if bill.asks_customer]
        if asked and not at_once:
            kind, cause = MailKind.PAYMENT_ACTION_REQUIRED, f"action_required:{asked[-1].id}"
        else:
            kind, cause = MailKind.PAYMENT_FAILED, f"{case.id}:{step}"
        if not at_once:  # else the mail that tells of the end says all
            await tell(session, case, kind=kind, cause=cause, unpaid=unpaid, now=now)
    elif step is Step.REMINDER:
        await tell(
            session, case, kind=MailKind.PAYMENT_REMINDER, cause=f"{case.id}:{step}", unpaid=unpaid, now=now
        )
    else:
        case.last_notice_at = now
        cause = f"{case.id}:{step}:{case.grace_until.isoformat()}"
        await tell(session, case, kind=MailKind.PAYMENT_LAST_DAY, cause=cause, unpaid=unpaid, now=now)
    case.told = sorted({*case.told, step.value})
    return True


async def _fall(session: AsyncSession, case: DunningCase, *, now: datetime) -> None:
    """The grace is over."""
    version = case.free_plan_version_id if case.after == "free" else None
    await hold_back(session, subscription_id=case.subscription_id, plan_version_id=version, actor=SYSTEM, now=now)
    case.state = (CaseState.BLOCKED if version is None else CaseState.FALLEN_BACK).value
    case.fell_at = now
    metrics.FELL.labels(case.state).inc()
    kind = MailKind.ACCESS_BLOCKED if version is None else MailKind.ACCESS_REDUCED
    subscription = await session.get_one(Subscription, case.subscription_id)
    unpaid = await unpaid_invoices(session, subscription, now=now)
    cause = f"{case.id}:fell:{case.grace_until.isoformat()}"
    await tell(session, case, kind=kind, cause=cause, unpaid=unpaid, now=now)


async def _close(
    session: AsyncSession, case: DunningCase, subscription: Subscription, *, config: DunningConfig, now: datetime
) -> None:
    """The subscription was paid, rests, or is over: so is the case. What held it back is gone already."""
    before = case.state
    paid = subscription.status in {Status.ACTIVE, Status.TRIALING, Status.PAST_DUE}
    case.state = (CaseState.RECOVERED if paid else CaseState.OVER).value
    case.closed_at = now
    case.look_at = None
    metrics.CLOSED.labels(case.state).inc()
    # who was never told of a trouble need not hear that it is over
    if paid and case.told:
        cause = f"{case.id}:recovered"
        await tell(session, case, kind=MailKind.PAYMENT_RECOVERED, cause=cause, was=before, unpaid=[], now=now)
    elif subscription.status in OVER:
        await after_the_end(session, case, subscription, config=config, now=now)
    await session.flush()
    await record_case(session, case, action=f"dunning.{case.state}", before=before, actor=SYSTEM, now=now)


def _plan_ahead(case: DunningCase, config: DunningConfig) -> None:
    found = next_step(facts_of(case), config=config)
    case.look_at = None if found is None else found[1]


async def _locked(session: AsyncSession, subscription_id: str) -> Subscription:
    """Return a subscription as it is now; its account is locked, as by everybody who changes its status."""
    account_id = (
        await session.scalars(select(Subscription.account_id).where(Subscription.id == subscription_id))
    ).one()
    await session.execute(select(Account.id).where(Account.id == account_id).with_for_update(key_share=True))
    return await session.get_one(Subscription, subscription_id, populate_existing=True)


async def _locked_case(session: AsyncSession, case_id: str) -> tuple[DunningCase | None, Subscription]:
    """Return a case under lock, None where it is closed, and its subscription."""
    subscription_id = (
        await session.scalars(select(DunningCase.subscription_id).where(DunningCase.id == case_id))
    ).one()
    subscription = await _locked(session, subscription_id)
    case = await session.get_one(DunningCase, case_id, populate_existing=True, with_for_update=True)
    return (case if case.closed_at is None else None), subscription


async def _open_case_of(session: AsyncSession, subscription_id: str) -> DunningCase | None:
    statement = select(DunningCase).where(
        DunningCase.subscription_id == subscription_id, DunningCase.closed_at.is_(None)
    )
    return (await session.scalars(statement)).one_or_none()
