"""Telling customers that their bank wants a payment confirmed (3-D Secure), whether or not it is past due yet."""

from datetime import datetime, timedelta

from sqlalchemy import func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.dunning.model import ends_at
from control_plane.dunning.plans import plan_name, plan_names
from control_plane.dunning.records import facts_of
from control_plane.dunning.tables import DunningCase
from control_plane.dunning.unpaid import ACTION_REQUIRED, mail_values, unpaid_invoices
from control_plane.notifications.model import MailKind
from control_plane.notifications.queue import queue_mail
from control_plane.notifications.tables import Mail
from control_plane.stripe_sync.events.tables import StripeEvent
from control_plane.stripe_sync.invoices.tables import StripeInvoice
from control_plane.subscriptions.model import OVER
from control_plane.subscriptions.tables import Subscription

CAUSE = "action_required:"
# events come late, and are received long after they were made
LOOK_BACK = timedelta(days=3)


async def tell_of_confirmations(
    session: AsyncSession, *, received_after: datetime, now: datetime, limit: int = 200
) -> int:
    """Queue a mail for each open invoice that waits for its customer; returns how many.

    Once for each invoice, however often Stripe says so. The invoice is as it was read after the event: one that
    was paid meanwhile is told of to nobody.
    """
    asked = select(literal(1)).where(
        StripeEvent.object_id == StripeInvoice.id,
        StripeEvent.type == ACTION_REQUIRED,
        StripeEvent.received_at > received_after,
        StripeEvent.state == "done",
    )
    told = select(literal(1)).where(Mail.cause == func.concat(CAUSE, StripeInvoice.id))
    statement = (
        select(StripeInvoice.id, Subscription)
        .join(Subscription, Subscription.id == StripeInvoice.subscription_id)
        .where(
            asked.exists(),
            ~told.exists(),
            StripeInvoice.status == "open",
            StripeInvoice.amount_remaining_minor > 0,
            Subscription.status.not_in(sorted(OVER)),
        )
        .order_by(StripeInvoice.id)
        .limit(limit)
    )
    found = (await session.execute(statement)).all()
    for invoice_id, subscription in found:
        await _tell(session, invoice_id, subscription, now=now)
    return len(found)


async def _tell(session: AsyncSession, invoice_id: str, subscription: Subscription, *, now: datetime) -> None:
    unpaid = [bill for bill in await unpaid_invoices(session, subscription, now=now) if bill.id == invoice_id]
    case = await session.scalar(
        select(DunningCase).where(DunningCase.subscription_id == subscription.id, DunningCase.closed_at.is_(None))
    )
    names = await plan_names(session, subscription.id)
    await queue_mail(
        session,
        kind=MailKind.PAYMENT_ACTION_REQUIRED,
        cause=f"{CAUSE}{invoice_id}",
        account_id=subscription.account_id,
        values={
            **mail_values(unpaid, now=now),
            "product": names.product,
            "plan": names.plan,
            # without a case nothing is at stake yet
            "after": "serve" if case is None else case.after,
            "ends_at": now.isoformat() if case is None else ends_at(facts_of(case), now).isoformat(),
            "free_plan": None if case is None else await plan_name(session, case.free_plan_version_id),
        },
        now=now,
    )
