"""A subscription bought at the simulated Stripe's checkout, and what it uses."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.catalog.model import PriceTerms
from control_plane.stripe_sync.catalog.pushing import push_what_waits
from control_plane.stripe_sync.invoices.mirror import apply_invoice
from control_plane.stripe_sync.invoices.tables import StripeInvoice
from control_plane.stripe_sync.invoices.tasks import work_tasks
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.applying import apply_subscription
from control_plane.stripe_sync.subscriptions.checkout import apply_checkout, start_checkout
from control_plane.stripe_sync.usage.flushing import flush
from control_plane.subscriptions.queries import subscription as subscription_of
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.rollups.tables import UsageLedger
from control_plane.usage.tables import UsageHour, UsageHourly
from devstack.stripe.embedded import EmbeddedStripe
from tests.control_plane.builders import ACTOR, FLAT_49, a_published_plan, an_account, an_hour_of_use

BOUGHT_AT = datetime(2026, 3, 1, 9, 17, 5, tzinfo=UTC)
ENDS_AT = datetime(2026, 4, 1, 9, 17, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
OVERAGE = PriceTerms(model="overage", meter="requests", params={"included": 1_000, "unit_amount": "0.015"})


@pytest.fixture
def now() -> datetime:
    """The moment of the purchase, here and at Stripe."""
    return BOUGHT_AT


@dataclass
class Bought:
    """The clock is the test's and Stripe's."""

    sessions: async_sessionmaker[AsyncSession]
    sim: EmbeddedStripe
    ctx: StripeContext
    account_id: str = ""
    stripe_id: str = ""
    subscription_id: str = ""
    revisions: dict[datetime, int] = field(default_factory=dict)

    def at(self, moment: datetime) -> None:
        """Go on to a moment."""
        self.sim.control.advance(to=int(moment.timestamp()))
        self.ctx = self.ctx.at(moment)

    async def plan(self, code: str, *prices: PriceTerms, **terms: Any) -> str:
        """Sell a plan at Stripe; returns its version."""
        async with self.sessions() as session, session.begin():
            version = await a_published_plan(
                session,
                now=self.ctx.now,
                code=code,
                billed_by="stripe",
                prices=prices or (FLAT_49, OVERAGE),
                **terms,
            )
        await push_what_waits(self.ctx)
        return version.id

    async def buy(self, code: str, **options: Any) -> str:
        """Pay for a plan; returns our subscription."""
        async with self.sessions() as session, session.begin():
            self.account_id = (await an_account(session, now=self.ctx.now)).id
        started = await start_checkout(
            self.ctx,
            account_id=self.account_id,
            plan_code=code,
            success_url="https://example.com/ok",
            cancel_url="https://example.com/no",
            actor=ACTOR,
            **options,
        )
        done = self.sim.control.order("complete_checkout", session=started.checkout.session_id)
        assert done["completed"], done
        self.stripe_id = done["subscription"]
        await apply_checkout(self.ctx, started.checkout.session_id or "")
        async with self.sessions() as session:
            [row] = await session.scalars(select(Subscription).where(Subscription.account_id == self.account_id))
        self.subscription_id = row.id
        return row.id

    async def use(self, units: int, *, hour: datetime, phase: int = -1, sealed: bool = True) -> None:
        """Have calls counted in an hour, and the hour sealed."""
        async with self.sessions() as session, session.begin():
            subscription = await subscription_of(session, self.subscription_id)
            phase_id = subscription.phases[phase].id
            self.revisions[hour] = revision = self.revisions.get(hour, 0) + 1
            amended = {"amendment_id": "amd_1", "outcome": "amended"} if units < 0 else {}
            more = {"revision": revision, "key_id": f"key_{revision}", **amended}
            session.add(an_hour_of_use(subscription, units, hour=hour, phase_id=phase_id, **more))
            if sealed:
                session.add(self._seal(phase_id, hour, revision, units))
            else:
                session.add(UsageHour(account_id=self.account_id, hour=hour, revision=revision))

    async def seal_open(self) -> None:
        """Seal hours that are open."""
        async with self.sessions() as session, session.begin():
            for hour in await session.scalars(select(UsageHour).where(UsageHour.sealed_at.is_(None))):
                hour.sealed_at = self.ctx.now
                [used] = await session.scalars(select(UsageHourly).where(UsageHourly.hour == hour.hour))
                session.add(self._seal(used.phase_id, hour.hour, 1, used.billable_units))

    def _seal(self, phase_id: str, hour: datetime, revision: int, units: int) -> UsageLedger:
        return UsageLedger(
            account_id=self.account_id,
            hour=hour,
            revision=revision,
            phase_id=phase_id,
            meter="requests",
            units=max(0, units),
            delta_units=units,
            sealed_at=self.ctx.now,
        )

    async def flush(self) -> None:
        await flush(
            self.sessions,
            self.ctx.stripe,
            subscription_id=self.subscription_id,
            until=self.ctx.now,
            clock=lambda: self.ctx.now,
        )

    def latest(self) -> dict[str, Any]:
        """Stripe's latest invoice of the subscription."""
        [sub] = [
            one for one in self.sim.control.dump("subscription")["subscription"] if one["id"] == self.stripe_id
        ]
        found = self.sim.control.dump("invoice")["invoice"]
        return next(one for one in found if one["id"] == sub["latest_invoice"])

    async def hear(self) -> StripeInvoice:
        """Read the subscription and its latest invoice, as after webhooks."""
        await apply_subscription(self.ctx, self.stripe_id)
        await apply_invoice(self.ctx, self.latest()["id"])
        return await self.mirrored(self.latest()["id"])

    async def mirrored(self, invoice_id: str) -> StripeInvoice:
        async with self.sessions() as session:
            return await session.get_one(StripeInvoice, invoice_id)

    async def work(self) -> None:
        await work_tasks(self.ctx)


Buy = Callable[..., Awaitable[Bought]]


@pytest.fixture
async def bought(
    sessions: async_sessionmaker[AsyncSession], sim: EmbeddedStripe, context: StripeContext
) -> Bought:
    """Nothing is bought yet: `plan`, then `buy`."""
    return Bought(sessions=sessions, sim=sim, ctx=context)
