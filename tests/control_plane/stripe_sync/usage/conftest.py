"""A subscription that Stripe bills, its meter at the simulator, and a ledger that tests write to."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.accounts.tables import Account
from control_plane.catalog import tables as _catalog  # noqa: F401 - foreign keys name them
from control_plane.foundation.ids import new_id
from control_plane.stripe_sync.client import Stripe
from control_plane.stripe_sync.subscriptions.tables import StripeCustomer, StripeSpan, StripeSubscription
from control_plane.stripe_sync.usage.sender import send_due
from control_plane.stripe_sync.usage.tables import StripeUsageRow
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.usage.rollups.tables import UsageLedger
from devstack.stripe.embedded import EmbeddedStripe

STRIPE_ANCHOR = datetime(2026, 3, 1, 9, 17, 5, tzinfo=UTC)
OURS = STRIPE_ANCHOR.replace(minute=0, second=0)
EVENT_NAME = "km_main_weather_requests"
# rows by hand: making them by the operations takes longer than most of these tests
CATALOGUE = """
INSERT INTO api_products (id, code, name, service, routes, created_at)
    VALUES ('prd_1', 'weather', 'Weather', 'weather', '{weather}', :at);
INSERT INTO plans (id, code, name, api_product_id, position, visibility, created_at)
    VALUES ('plan_1', 'pro', 'Pro', 'prd_1', 0, 'public', :at);
INSERT INTO plan_versions (id, plan_id, version, status, interval, currency, billed_by, created_at)
    VALUES ('plv_1', 'plan_1', 1, 'draft', 'month', 'USD', 'stripe', :at);
INSERT INTO prices (id, plan_version_id, position, currency, model, meter, params) VALUES
    ('prc_0', 'plv_1', 0, 'USD', 'flat', NULL, '{"amount": "49.00"}'),
    ('prc_1', 'plv_1', 1, 'USD', 'overage', 'requests', '{"included": 100, "unit_amount": "0.01"}'),
    -- nothing at Stripe is laid out for this one: our own rating charges it
    ('prc_2', 'plv_1', 2, 'USD', 'per_unit', 'upstream_ms', '{"unit_amount": "0.01"}');
UPDATE plan_versions SET status = 'published', published_at = :at;
INSERT INTO stripe_products (plan_id, product_id, digest, pushed_at) VALUES ('plan_1', 'km_plan_1', '', :at);
INSERT INTO stripe_meters (meter_id, api_product_id, meter, event_name, digest, pushed_at)
    VALUES (:meter, 'prd_1', 'requests', :event_name, '', :at);
INSERT INTO stripe_prices (price_id, plan_version_id, position, currency, kind, product_id, meter_id, lookup_key,
        digest, pushed_at)
    VALUES ('price_1', 'plv_1', 1, 'USD', 'metered', 'km_plan_1', :meter, 'km:main:pro:1:1:USD', '', :at);
INSERT INTO stripe_pushes (plan_version_id, state, wanted_at, next_try_at, pushed_at)
    VALUES ('plv_1', 'pushed', :at, :at, :at)
    ON CONFLICT (plan_version_id) DO UPDATE SET state = 'pushed', pushed_at = :at;
"""


@dataclass
class World:
    """One customer's subscription; the clock is the test's and the simulator's."""

    sessions: async_sessionmaker[AsyncSession]
    stripe: Stripe
    sim: EmbeddedStripe
    now: datetime
    version_id: str = "plv_1"
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
            self.account_id, self.subscription_id = new_id("acc", STRIPE_ANCHOR), new_id("sub", STRIPE_ANCHOR)
            self.phase_id = new_id("ph", STRIPE_ANCHOR)
            account = Account(
                id=self.account_id, external_id=self.account_id, name="Ada", created_at=STRIPE_ANCHOR
            )
            session.add(account)
            await session.flush()
            session.add(
                Subscription(
                    id=self.subscription_id,
                    account_id=account.id,
                    api_product_id="prd_1",
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


@pytest.fixture
async def world(
    sessions: async_sessionmaker[AsyncSession], stripe: Stripe, sim: EmbeddedStripe, now: datetime
) -> World:
    made = World(sessions=sessions, stripe=stripe, sim=sim, now=now)
    meter = await stripe.call(
        lambda client: client.v1.billing.meters.create_async(
            {
                "display_name": "Requests",
                "event_name": EVENT_NAME,
                "default_aggregation": {"formula": "sum"},
                "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
                "value_settings": {"event_payload_key": "value"},
            }
        )
    )
    made.meter_id = meter.id
    given = {"at": STRIPE_ANCHOR, "meter": meter.id, "event_name": EVENT_NAME}
    async with sessions() as session, session.begin():
        for statement in CATALOGUE.strip().removesuffix(";").split(";\n"):
            await session.execute(text(statement), given)
    await made.subscribe()
    return made
