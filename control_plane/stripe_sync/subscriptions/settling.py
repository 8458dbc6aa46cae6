"""What has come of changes that were wanted, judged by what Stripe shows. Nothing here commits."""

from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.stripe_sync.subscriptions.steps import Call, Kind, Outcome, Seen, next_step
from control_plane.stripe_sync.subscriptions.tables import StripeChange, StripeSubscription

OPEN: Final = ("wanted", "asked", "pending")
GIVEN_UP: Final = "given_up"
_PROBLEMS: Final = {
    Outcome.PAYMENT_FAILED: (
        "payment_failed",
        "The payment for it was not made in time, so nothing has changed: check the payment method and ask again.",
    ),
    Outcome.OVER: ("subscription_over", "The subscription is over at Stripe."),
}


async def settle_changes(session: AsyncSession, row: StripeSubscription, seen: Seen, *, now: datetime) -> None:
    """Finish the changes of a subscription that Stripe shows as made, planned or failed; the others wait on."""
    statement = (
        select(StripeChange)
        .where(StripeChange.subscription_id == row.subscription_id, StripeChange.state.in_([*OPEN, "scheduled"]))
        .order_by(StripeChange.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    for change in (await session.scalars(statement)).all():
        found = next_step(Kind(change.kind), change.wanted, seen, was_pending=change.state == "pending")
        if change.state == "scheduled":
            if found is not Outcome.SCHEDULED:
                await finish(session, change, "done" if found is Outcome.DONE else "withdrawn", now=now)
        elif found is Outcome.PENDING:
            change.state = "pending"
        elif found is Outcome.SCHEDULED and seen.state.planned is not None:
            change.effective_at, change.schedule_id = seen.state.planned.starts_at, seen.state.schedule_id
            await finish(session, change, "scheduled", now=now)
        elif found is Outcome.DONE:
            change.effective_at = change.effective_at or now
            if _charged_plan_fee(change):
                row.setup_fee_at = row.setup_fee_at or now
            await finish(session, change, "done", now=now)
        elif found is Outcome.PAYMENT_FAILED and GIVEN_UP in change.wanted:
            await finish(session, change, "withdrawn", now=now)
        elif not isinstance(found, Call):
            code, sentence = _PROBLEMS[found]
            await refuse_change(session, change, code=code, sentence=sentence, now=now)
    await session.flush()


def _charged_plan_fee(change: StripeChange) -> bool:
    """Say whether it brought the setup fee of a plan, which is charged once; those of add-ons are beside it."""
    of_plan = change.kind == Kind.BEGIN or change.wanted.get("plan_fee", False)
    return bool(change.wanted.get("setup_fees")) and of_plan


async def refuse_change(
    session: AsyncSession, change: StripeChange, *, code: str, sentence: str, now: datetime
) -> None:
    """Note that a change was not made, and why."""
    change.problem_code, change.problem = code, sentence
    await finish(session, change, "refused", now=now)


async def finish(session: AsyncSession, change: StripeChange, state: str, *, now: datetime) -> None:
    """Note that nothing is left to do for a change; `scheduled` ones wait for their time."""
    change.state, change.next_try_at = state, None
    change.finished_at = None if state == "scheduled" else now
    await record_change(
        session,
        actor=change.requested_by,
        action=f"stripe_change.{state}",
        entity_type="subscription",
        entity_id=change.subscription_id,
        before=None,
        after={"change_id": change.id, "kind": change.kind, "wanted": change.wanted, "problem": change.problem},
        now=now,
    )


async def is_beginning(session: AsyncSession, subscription_id: str) -> bool:
    """Say whether Stripe has not been told everything yet of how a subscription begins."""
    statement = select(StripeChange.id).where(
        StripeChange.subscription_id == subscription_id,
        StripeChange.kind == Kind.BEGIN,
        StripeChange.state.in_(OPEN),
    )
    return await session.scalar(statement.limit(1)) is not None
