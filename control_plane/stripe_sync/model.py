"""What everything that deals with Stripe is given, and what it tells to the layers above."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.stripe_sync.client import Stripe, StripeConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionSeen:
    """A subscription as it was read from Stripe just now. `status_before` None: it is new to us.

    `subscription_id` is ours, None while we have none for it.
    """

    account_id: str
    subscription_id: str | None
    stripe_id: str
    status_before: str | None
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceSeen:
    """An invoice as it was read from Stripe just now. `status_before` None: it is new to us."""

    account_id: str
    subscription_id: str | None
    stripe_id: str
    status_before: str | None
    status: str
    currency: str
    amount_due_minor: int
    attempts: int
    next_attempt_at: datetime | None
    hosted_url: str | None


class SubscriptionHook(Protocol):
    """Called in the transaction in which the row of a Stripe subscription is written, after it."""

    def __call__(self, session: AsyncSession, seen: SubscriptionSeen, *, now: datetime) -> Awaitable[None]: ...


class InvoiceHook(Protocol):
    """Called in the transaction in which the row of a Stripe invoice is written, after it."""

    def __call__(self, session: AsyncSession, seen: InvoiceSeen, *, now: datetime) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeHooks:
    """What higher layers do as soon as something is seen at Stripe; a hook that raises undoes the writing."""

    subscription: tuple[SubscriptionHook, ...] = ()
    invoice: tuple[InvoiceHook, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeContext:
    """What processing needs. `now` is the time of this piece of work: `at` makes the next one's."""

    sessions: async_sessionmaker[AsyncSession]
    stripe: Stripe
    now: datetime
    hooks: StripeHooks = field(default_factory=StripeHooks)

    @property
    def config(self) -> StripeConfig:
        return self.stripe.config

    def at(self, now: datetime) -> "StripeContext":
        """Return the same for another moment."""
        return replace(self, now=now)

    async def subscription_seen(self, session: AsyncSession, seen: SubscriptionSeen) -> None:
        """Tell higher layers, in this transaction."""
        for hook in self.hooks.subscription:
            await hook(session, seen, now=self.now)

    async def invoice_seen(self, session: AsyncSession, seen: InvoiceSeen) -> None:
        """Tell higher layers, in this transaction."""
        for hook in self.hooks.invoice:
            await hook(session, seen, now=self.now)


Clock = Callable[[], datetime]
