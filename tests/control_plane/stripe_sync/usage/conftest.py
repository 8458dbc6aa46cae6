"""A subscription that Stripe bills, its meter at the simulator, and a ledger that tests write to."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.catalog.model import PriceTerms
from control_plane.catalog.tables import PlanVersion
from control_plane.foundation.ids import new_id
from control_plane.stripe_sync.catalog.tables import StripeMeter, StripePrice, StripeProduct, StripePush
from control_plane.stripe_sync.client import Stripe
from control_plane.stripe_sync.subscriptions.tables import StripeCustomer, StripeSpan, StripeSubscription
from control_plane.stripe_sync.usage.sender import send_due
from control_plane.stripe_sync.usage.tables import StripeUsageRow
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.usage.rollups.tables import UsageLedger
from devstack.stripe.embedded import EmbeddedStripe
from tests.control_plane.builders import FLAT_49, a_published_plan, an_account, an_api_product

OVERAGE = PriceTerms(model="overage", meter="requests", params={"included": 100, "unit_amount": "0.01"})
# nothing at Stripe is laid out for this one: our own rating charges it
NOT_NATIVE = PriceTerms(model="per_unit", meter="upstream_ms", params={"unit_amount": "0.01"})
STRIPE_ANCHOR = datetime(2026, 3, 1, 9, 17, 5, tzinfo=UTC)
OURS = STRIPE_ANCHOR.replace(minute=0, second=0)
EVENT_NAME = "km_main_weather_requests"


@dataclass
class World:
    """One customer's subscription; the clock is the test's and the simulator's."""

    sessions: async_sessionmaker[AsyncSession]
    stripe: Stripe
    sim: EmbeddedStripe
    now: datetime
    version_id: str = ""
    product_id: str = ""
    account_id: str = ""
    subscription_id: str = ""
    phase_id: str = ""
    customer_id: str = ""
    meter_id: str = ""
    revisions: dict[Any, int] = field(default_factory=dict, repr=False)

    def clock(self) -> datetime:
        return self.now

    def at(self, moment: datetime) -> None:
        """Go on to a moment, here and at Stripe."""
        self.now = moment
        self.sim.control.advance(to=int(moment.timestamp()))

    def later(self, **span: float) -> None:
        self.at(self.now + timedelta(**span))

    async def seal(
        self, hour: datetime, units: int, *, phase: str | None = None, meter: str = "requests", **more: Any
    ) -> None:
        """Write what a seal changes to the ledger."""
        account = more.get("account", self.account_id)
        place = (account, hour)
        self.revisions[place] = revision = self.revisions.get(place, 0) + 1
        async with self.sessions() as session, session.begin():
            session.add(
                UsageLedger(
                    account_id=account,
                    hour=hour,
                    revision=revision,
                    phase_id=phase or self.phase_id,
                    meter=meter,
                    units=max(units, 0),
                    delta_units=units,
                    sealed_at=self.now,
                )
            )

    async def send(self) -> int:
        return await send_due(self.sessions, self.stripe, clock=self.clock)

    async def rows(self, **wanted: Any) -> list[StripeUsageRow]:
        async with self.sessions() as session:
            statement = select(StripeUsageRow).filter_by(**wanted)
            found = await session.scalars(statement.order_by(StripeUsageRow.hour, StripeUsageRow.revision))
            return list(found)

    async def row(self, **wanted: Any) -> StripeUsageRow:
        (row,) = await self.rows(**wanted)
        return row

    async def states(self) -> list[tuple[str, str]]:
        return [(row.state, row.reason) for row in await self.rows()]

    async def at_stripe(self, *, days: int = 365) -> int:
        """What Stripe counts for the customer."""
        start = (OURS - timedelta(days=1)).replace(hour=0)
        page = await self.stripe.call(
            lambda client: client.v1.billing.meters.event_summaries.list_async(
                self.meter_id,
                {
                    "customer": self.customer_id,
                    "start_time": int(start.timestamp()),
                    "end_time": int((start + timedelta(days=days)).timestamp()),
                },
            )
        )
        return sum(int(one.aggregated_value) for one in page.data)

    async def in_ledger(self) -> int:
        async with self.sessions() as session:
            statement = select(func.sum(UsageLedger.delta_units)).where(UsageLedger.account_id == self.account_id)
            return int(await session.scalar(statement) or 0)

    def sent(self) -> list[dict[str, Any]]:
        """Meter events that the simulator was asked to take."""
        return self.sim.control.requests("/v1/billing/meter_events")

    async def change(self, **values: Any) -> None:
        """Have Stripe's subscription read otherwise."""
        async with self.sessions() as session, session.begin():
            await session.execute(
                update(StripeSubscription)
                .where(StripeSubscription.subscription_id == self.subscription_id)
                .values(**values)
            )

    async def unlink(self) -> None:
        """Have Stripe's subscription not be known here."""
        async with self.sessions() as session, session.begin():
            await session.execute(delete(StripeSpan))
            await session.execute(delete(StripeSubscription))

    async def new_customer(self) -> str:
        made = await self.stripe.call(
            lambda client: client.v1.customers.create_async(
                {"name": "Ada"}, {"idempotency_key": new_id("test", self.now)}
            )
        )
        return made.id

    async def subscribe(self, *, linked: bool = True, phase_kind: str = "paid", billed_by: str = "stripe") -> str:
        """Make another account with a subscription, which is the world's from now on; returns the account."""
        self.customer_id = await self.new_customer()
        async with self.sessions() as session, session.begin():
            account = await an_account(session, now=STRIPE_ANCHOR)
            self.account_id, self.subscription_id = account.id, new_id("sub", STRIPE_ANCHOR)
            self.phase_id = new_id("ph", STRIPE_ANCHOR)
            session.add(
                Subscription(
                    id=self.subscription_id,
                    account_id=account.id,
                    api_product_id=self.product_id,
                    status="active",
                    anchor_at=OURS,
                    interval="month",
                    started_at=STRIPE_ANCHOR,
                    created_at=STRIPE_ANCHOR,
                    billed_by=billed_by,
                )
            )
            session.add(StripeCustomer(account_id=account.id, customer_id=self.customer_id, created_at=OURS))
            await session.flush()
            session.add(
                SubscriptionPhase(
                    id=self.phase_id,
                    subscription_id=self.subscription_id,
                    plan_version_id=self.version_id,
                    starts_at=STRIPE_ANCHOR,
                    ends_at=None,
                    applied_at=STRIPE_ANCHOR,
                    kind=phase_kind,
                )
            )
        if linked:
            await self.link()
        return self.account_id

    async def link(self) -> None:
        """Have Stripe's subscription known here."""
        async with self.sessions() as session, session.begin():
            session.add(
                StripeSubscription(
                    subscription_id=self.subscription_id,
                    stripe_id=f"sub_{self.subscription_id}",
                    account_id=self.account_id,
                    customer_id=self.customer_id,
                    status="active",
                    currency="USD",
                    plan_version_id=self.version_id,
                    started_at=STRIPE_ANCHOR,
                    billing_cycle_anchor=STRIPE_ANCHOR,
                    current_period_start=STRIPE_ANCHOR.replace(month=self.now.month),
                    current_period_end=STRIPE_ANCHOR.replace(month=self.now.month + 1),
                    cancel_at_period_end=False,
                    read_at=STRIPE_ANCHOR,
                    created_at=STRIPE_ANCHOR,
                )
            )
            await session.flush()
            session.add(
                StripeSpan(
                    subscription_id=self.subscription_id,
                    starts_at=STRIPE_ANCHOR,
                    plan_version_id=self.version_id,
                    ours_from=STRIPE_ANCHOR,
                )
            )


async def lay_at_stripe(world: World, session: AsyncSession, version: PlanVersion, product_id: str) -> None:
    """Write what the catalogue's push leaves, with a real meter of the simulator's."""
    meter = await world.stripe.call(
        lambda client: client.v1.billing.meters.create_async(
            {
                "display_name": "Requests",
                "event_name": EVENT_NAME,
                "default_aggregation": {"formula": "sum"},
                "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
                "value_settings": {"event_payload_key": "value"},
            },
            {"idempotency_key": "test:meter"},
        )
    )
    world.meter_id = meter.id
    session.add(StripeProduct(plan_id=version.plan_id, product_id="km_main_plan", digest="", pushed_at=world.now))
    session.add(
        StripeMeter(
            meter_id=meter.id,
            api_product_id=product_id,
            meter="requests",
            event_name=EVENT_NAME,
            digest="",
            pushed_at=world.now,
        )
    )
    await session.flush()
    session.add(
        StripePrice(
            price_id="price_1",
            plan_version_id=version.id,
            position=1,
            currency="USD",
            kind="metered",
            product_id="km_main_plan",
            meter_id=meter.id,
            lookup_key="km:main:pro:1:1:USD",
            digest="",
            pushed_at=world.now,
        )
    )
    push = {"state": "pushed", "wanted_at": world.now, "next_try_at": world.now, "pushed_at": world.now}
    await session.merge(StripePush(plan_version_id=version.id, **push))


@pytest.fixture
async def world(
    sessions: async_sessionmaker[AsyncSession], stripe: Stripe, sim: EmbeddedStripe, now: datetime
) -> World:
    made = World(sessions=sessions, stripe=stripe, sim=sim, now=now)
    async with sessions() as session, session.begin():
        prices = (FLAT_49, OVERAGE, NOT_NATIVE)
        version = await a_published_plan(session, now=STRIPE_ANCHOR, billed_by="stripe", prices=prices)
        made.version_id, made.product_id = version.id, (await an_api_product(session, now=STRIPE_ANCHOR)).id
        await lay_at_stripe(made, session, version, made.product_id)
    await made.subscribe()
    return made
