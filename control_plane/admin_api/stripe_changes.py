"""Changes of subscriptions that Stripe bills: the same routes, the way over Stripe."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.admin_api.forms import Moment
from control_plane.admin_api.services import Given, Now, Services
from control_plane.foundation.errors import ConflictError
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.outcomes import StripeOffError
from control_plane.stripe_sync.subscriptions.tables import StripeChange, StripeSubscription
from control_plane.subscriptions import queries
from control_plane.subscriptions.tables import Subscription


class StripeChangeRefusedError(ConflictError):
    """Stripe has not made the change; what it said stands in the message."""

    def __init__(self, change: StripeChange) -> None:
        super().__init__("stripe_change_refused", f"Nothing has changed. {change.problem}")


class StripeChangeAnswer(BaseModel):
    """What was wanted of Stripe, and what has come of it."""

    id: str
    kind: str = Field(
        description="`update`, `schedule`, `withdraw`, `cancel`, `cancel_now`, `keep`, `end_trial`, "
        "`extend_trial`, `discount` or `begin`."
    )
    state: str = Field(
        description="`wanted` and `asked`: on its way, a worker sees to it; `pending`: it waits for a "
        "payment, and nothing has changed yet; `scheduled`: Stripe makes it at `effective_at`; "
        "`done`, `refused`, `withdrawn`."
    )
    problem: str = Field(description="Why it was refused, or is not through yet; empty otherwise.")
    requested_by: str
    created_at: Moment
    effective_at: Moment | None
    finished_at: Moment | None

    @classmethod
    def of(cls, change: StripeChange) -> "StripeChangeAnswer":
        """Return a row's answer."""
        return cls(
            id=change.id,
            kind=change.kind,
            state=change.state,
            problem=change.problem,
            requested_by=change.requested_by,
            created_at=change.created_at,
            effective_at=change.effective_at,
            finished_at=change.finished_at,
        )


class StripeRoute:
    """Finds out whether Stripe bills a subscription, and gives the way to it."""

    def __init__(self, services: Services, now: datetime) -> None:
        self._services = services
        self._now = now

    async def of(self, session: AsyncSession, subscription_id: str) -> StripeContext | None:
        """Return the way to Stripe; None for one with invoices of our own, and for one that is not there.

        Raises:
            StripeOffError: Stripe bills it, and this installation has no key.
        """
        statement = select(StripeSubscription.stripe_id).where(
            StripeSubscription.subscription_id == subscription_id
        )
        if await session.scalar(statement) is None:
            return None
        if self._services.stripe is None:
            raise StripeOffError
        return self._services.stripe.at(self._now)


def _route(services: Given, now: Now) -> StripeRoute:
    return StripeRoute(services, now)


ByStripe = Annotated[StripeRoute, Depends(_route)]


async def followed(session: AsyncSession, change: StripeChange) -> Subscription:
    """Return our subscription after a change at Stripe, as it is now.

    Raises:
        StripeChangeRefusedError: the change was refused.
    """
    if change.state == "refused":
        raise StripeChangeRefusedError(change)
    session.expire_all()
    return await queries.subscription(session, change.subscription_id)


def takes_effect(change: StripeChange, row: Subscription, now: datetime) -> tuple[bool, datetime]:
    """Say whether a change of plan is for later, and when it takes effect."""
    if change.kind == "schedule":
        planned = queries.period_end(row, now)
        return True, planned if change.effective_at is None else change.effective_at
    return False, change.effective_at or now
