"""A shop whose plans lie at a simulated Stripe, and a customer who buys there."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.catalog.tables import Plan, PlanVersion
from control_plane.stripe_sync.catalog.pushing import push_what_waits
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.applying import apply_subscription
from control_plane.stripe_sync.subscriptions.checkout import apply_checkout, start_checkout
from control_plane.stripe_sync.subscriptions.tables import StripeChange, StripeSpan, StripeSubscription
from control_plane.subscriptions.queries import subscription as subscription_of
from control_plane.subscriptions.tables import Subscription
from devstack.stripe.embedded import EmbeddedStripe
from tests.control_plane.builders import a_published_plan, an_account
from tests.control_plane.stripe_sync.catalog.builders import a_price

SUCCESS, CANCEL = "https://shop.example/thanks", "https://shop.example/plans"


@dataclass
class Shop:
    """Orders of the customer, the passing of time, and what has come of it."""

    sim: EmbeddedStripe
    sessions: async_sessionmaker[AsyncSession]
    ctx: StripeContext
    account_id: str

    async def start(self, plan: str = "starter", **options: Any) -> Any:
        return await start_checkout(
            self.ctx,
            account_id=self.account_id,
            plan_code=plan,
            success_url=SUCCESS,
            cancel_url=CANCEL,
            actor="ada",
            **options,
        )

    async def pay(self, started: Any, card: str = "pm_card_visa") -> dict[str, Any]:
        return self.sim.control.order("complete_checkout", session=started.checkout.session_id, card=card)

    async def buy(self, plan: str = "starter", **options: Any) -> Subscription:
        """A whole purchase, as the webhook sees it."""
        started = await self.start(plan, **options)
        assert (await self.pay(started))["completed"]
        await apply_checkout(self.ctx, started.checkout.session_id)
        return await self.subscription()

    async def subscription(self) -> Subscription:
        async with self.sessions() as session:
            newest = select(Subscription.id).where(Subscription.account_id == self.account_id)
            found = await session.scalar(newest.order_by(Subscription.id.desc()).limit(1))
            return await subscription_of(session, found or "")

    async def row(self) -> StripeSubscription:
        async with self.sessions() as session:
            of_account = StripeSubscription.account_id == self.account_id
            return (await session.scalars(select(StripeSubscription).where(of_account))).one()

    async def changes(self) -> list[StripeChange]:
        async with self.sessions() as session:
            mine = StripeChange.subscription_id == (await self.row()).subscription_id
            return list(await session.scalars(select(StripeChange).where(mine).order_by(StripeChange.id)))

    async def spans(self) -> list[StripeSpan]:
        async with self.sessions() as session:
            mine = StripeSpan.subscription_id == (await self.row()).subscription_id
            return list(await session.scalars(select(StripeSpan).where(mine).order_by(StripeSpan.starts_at)))

    async def plans(self, subscription: Subscription | None = None) -> list[tuple[str, str, datetime]]:
        """Code, kind and beginning of the phases."""
        found = subscription or await self.subscription()
        async with self.sessions() as session:
            rows = await session.execute(
                select(PlanVersion.id, Plan.code).join(Plan, Plan.id == PlanVersion.plan_id)
            )
            codes = dict(rows.all())
        return [(codes[phase.plan_version_id], phase.kind, phase.starts_at) for phase in found.phases]

    def at(self, moment: datetime) -> "Shop":
        """Move Stripe's clock and ours."""
        self.sim.control.advance(to=int(moment.timestamp()))
        self.ctx = self.ctx.at(moment)
        return self

    def later(self, **span: float) -> "Shop":
        return self.at(self.ctx.now + timedelta(**span))

    async def see(self) -> Subscription:
        """Read the subscription again, as an event would have us do."""
        await apply_subscription(self.ctx, (await self.row()).stripe_id)
        return await self.subscription()

    async def another(self) -> "Shop":
        """The same shop, with a new customer."""
        async with self.sessions() as session, session.begin():
            account = await an_account(session, now=self.ctx.now, name="Grace")
        return replace(self, account_id=account.id)

    def at_stripe(self, kind: str = "subscription") -> list[dict[str, Any]]:
        return self.sim.control.dump(kind).get(kind, [])


@pytest.fixture
def now() -> datetime:
    return datetime.fromisoformat("2026-11-10T09:20:30+00:00")


USAGE = {"included": 50_000, "unit_amount": "0.0015"}
STARTER = (a_price("flat", amount="49"), a_price("overage", "requests", **USAGE))
GROWTH = (a_price("flat", amount="199"), a_price("overage", "requests", included=500_000, unit_amount="0.0006"))
SETUP_FEE = a_price("setup_fee", amount="25")


@pytest.fixture
async def shop(
    sim: EmbeddedStripe, context: StripeContext, sessions: async_sessionmaker[AsyncSession], now: datetime
) -> Shop:
    """Sells `starter` and `growth`, by Stripe, and `free`."""
    by_stripe: dict[str, Any] = {"now": now, "billed_by": "stripe"}
    async with sessions() as session, session.begin():
        await a_published_plan(session, now=now, code="free", position=9, prices=(), quota_units=1_000)
        await a_published_plan(session, code="starter", prices=STARTER, quota_units=50_000, **by_stripe)
        await a_published_plan(session, code="growth", position=1, prices=GROWTH, quota_units=500_000, **by_stripe)
        account = await an_account(session, now=now)
    await push_what_waits(context)
    return Shop(sim, sessions, replace(context), account.id)


@pytest.fixture
async def full_shop(shop: Shop, now: datetime) -> Shop:
    """Sells `trial`, two weeks and a setup fee, and the add-on `extra` as well."""
    by_stripe: dict[str, Any] = {"now": now, "billed_by": "stripe"}
    fee = (*STARTER, SETUP_FEE)
    extra: dict[str, Any] = {"kind": "add_on", "prices": (a_price("flat", amount="10"),), "quota_units": 10_000}
    async with shop.sessions() as session, session.begin():
        await a_published_plan(session, code="trial", position=2, prices=fee, trial_days=14, **by_stripe)
        await a_published_plan(session, code="extra", position=3, **extra, **by_stripe)
    await push_what_waits(shop.ctx)
    return shop
