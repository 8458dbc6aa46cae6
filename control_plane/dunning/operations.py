"""What people do about cases. Nothing here commits."""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.dunning.model import CaseState, Step
from control_plane.dunning.records import record_case
from control_plane.dunning.tables import DunningCase
from control_plane.foundation.errors import ConflictError, NotFoundError, ValidationFailedError
from control_plane.subscriptions.holds import let_go
from control_plane.subscriptions.records import bumped_subscription

LONGEST = timedelta(days=400)


class DunningCaseClosedError(ConflictError):
    """The case is over: paid, or the subscription has ended."""

    def __init__(self, case_id: str) -> None:
        super().__init__("dunning_case_closed", f"Case {case_id} is closed; there is no grace to change.")


async def grant_time(
    session: AsyncSession, *, case_id: str, until: datetime, actor: str, now: datetime
) -> DunningCase:
    """Let a customer have until another moment to pay; one who was held back has all limits again at once.

    The last day is told of anew. A moment before the old one shortens the grace.

    Raises:
        NotFoundError: no such case. DunningCaseClosedError: it is closed. ValidationFailedError: field `until`.
    """
    subscription_id = await session.scalar(select(DunningCase.subscription_id).where(DunningCase.id == case_id))
    if subscription_id is None:
        raise NotFoundError("dunning_case", case_id)
    if not now < until <= now + LONGEST:
        raise ValidationFailedError("until", f"must be ahead, and within {LONGEST.days} days")
    # the account's lock before the case's, as everybody takes them
    await bumped_subscription(session, subscription_id, now)
    case = await session.get_one(DunningCase, case_id, populate_existing=True, with_for_update=True)
    if case.closed_at is not None:
        raise DunningCaseClosedError(case_id)
    before = case.state
    await let_go(session, subscription_id=subscription_id, actor=actor, now=now)
    case.state = CaseState.GRACE.value
    case.grace_until = until
    case.fell_at = case.last_notice_at = None
    case.told = sorted(set(case.told) - {Step.LAST_DAY.value})
    case.look_at = now
    await session.flush()
    await record_case(session, case, action="dunning.time_granted", before=before, actor=actor, now=now)
    return case
