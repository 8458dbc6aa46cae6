"""A customer on a paid plan, and a clock for the worker that looks after unpaid bills."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from control_plane.accounts.tables import Account
from control_plane.dunning.model import DunningConfig
from control_plane.dunning.tables import DunningCase
from control_plane.dunning.worker import look_after, look_seldom
from control_plane.gateway_sync.records import build_account_record
from control_plane.gateway_sync.snapshots import accounts_by_id, consistent_reads
from control_plane.notifications.tables import Mail
from control_plane.stripe_sync.events.tables import StripeEvent
from control_plane.stripe_sync.invoices.tables import StripeInvoice
from control_plane.stripe_sync.subscriptions.following import follow
from control_plane.stripe_sync.subscriptions.model import SubscriptionState
from control_plane.subscriptions.records import bumped_subscription, locked_subscription
from control_plane.subscriptions.statuses import change_status
from control_plane.subscriptions.tables import Subscription
from gateway_contract.records import Window
from tests.control_plane.builders import FLAT_49, a_published_plan, a_subscription, an_account

ACTOR = "test"
PER_SECOND = Window(limit=2, window_ms=1000)
PER_MINUTE = Window(limit=300, window_ms=60_000)


@dataclass
class Shop:
    sessions: Any
    now: datetime
    account_id: str
    subscription_id: str
    config: DunningConfig
    began: datetime

    async def set_status(self, status: str, *, after: timedelta = timedelta()) -> None:
        """What a payment does, or reading the subscription again at Stripe, where it is billed there."""
        self.now += after
        async with self.sessions() as session, session.begin():
            found = await session.get_one(Subscription, self.subscription_id)
            if found.billed_by == "own":
                await change_status(
                    session, subscription_id=self.subscription_id, status=status, actor=ACTOR, now=self.now
                )
                return
            await bumped_subscription(session, self.subscription_id, self.now)
            subscription = await locked_subscription(session, self.subscription_id)
            await follow(session, subscription, self.at_stripe(status), None, now=self.now)

    def at_stripe(self, status: str) -> SubscriptionState:
        return SubscriptionState(
            stripe_id="sub_stripe",
            customer_id="cus_1",
            status=status,
            currency="usd",
            metadata={},
            items=(),
            started_at=self.began,
            billing_cycle_anchor=self.began,
            trial_end=None,
            cancel_at_period_end=False,
            cancel_at=None,
            canceled_at=None,
            ended_at=None,
            latest_invoice_id=None,
            pending_update_until=None,
            automatic_tax=False,
        )

    async def look(self, *, after: timedelta = timedelta()) -> None:
        """What the worker does in a round."""
        self.now += after
        await look_after(config=self.config, sessions=self.sessions, now=self.now)

    async def look_seldom(self, *, after: timedelta = timedelta()) -> None:
        self.now += after
        await look_seldom(config=self.config, sessions=self.sessions, now=self.now)

    async def look_often(self, days: float) -> None:
        for _ in range(round(days * 2)):
            await self.look(after=timedelta(hours=12))

    async def case(self) -> DunningCase | None:
        """The newest case."""
        async with self.sessions() as session:
            statement = select(DunningCase).order_by(DunningCase.opened_at.desc(), DunningCase.id.desc())
            return (await session.scalars(statement)).first()

    async def mails(self) -> list[Mail]:
        async with self.sessions() as session:
            return list(await session.scalars(select(Mail).order_by(Mail.created_at, Mail.id)))

    async def kinds(self) -> list[str]:
        return [mail.kind for mail in await self.mails()]

    async def grant(self):
        """What the gateway is told of the subscription."""
        async with consistent_reads(self.sessions) as session:
            (account,) = await accounts_by_id(session, [self.account_id], now=self.now)
        record = build_account_record(account, now=self.now, public_url="https://api.example.com")
        return record.products["weather"]

    async def gateway_version(self) -> int:
        async with self.sessions() as session:
            return (await session.get_one(Account, self.account_id)).gateway_version

    async def bill_at_stripe(self, number: int = 1, *, status: str = "open", asks: bool = False) -> None:
        """Put an invoice of Stripe's as it was read last."""
        async with self.sessions() as session, session.begin():
            (await session.get_one(Subscription, self.subscription_id)).billed_by = "stripe"
            zero = dict.fromkeys(("discount_minor", "tax_minor", "balance_minor", "amount_paid_minor"), 0)
            await session.merge(
                StripeInvoice(
                    id=f"in_{number}",
                    account_id=self.account_id,
                    subscription_id=self.subscription_id,
                    customer_id="cus_1",
                    number=f"A-{number}",
                    status=status,
                    billing_reason="subscription_cycle",
                    collection="charge_automatically",
                    currency="USD",
                    period_start=self.now,
                    period_end=self.now,
                    subtotal_minor=4900,
                    total_minor=4900,
                    amount_due_minor=4900,
                    amount_remaining_minor=4900 if status == "open" else 0,
                    auto_advance=True,
                    attempt_count=1,
                    next_attempt_at=self.now + timedelta(days=3),
                    created_at=self.now + timedelta(seconds=number),
                    hosted_url=f"https://invoice.stripe.test/in_{number}",
                    read_at=self.now,
                    **zero,
                )
            )
            if asks:
                session.add(an_event(f"evt_{number}", f"in_{number}", self.now))


def an_event(event_id: str, invoice_id: str, now: datetime) -> StripeEvent:
    return StripeEvent(
        id=event_id,
        type="invoice.payment_action_required",
        kind="invoice",
        object_id=invoice_id,
        created_at=now,
        source="webhook",
        received_at=now,
        deliveries=1,
        state="done",
        reason="",
        attempts=1,
        next_attempt_at=now,
        handled_at=now,
    )


@pytest.fixture
async def shop(sessions, now):
    async with sessions() as session, session.begin():
        account = await an_account(session, now=now)
        account.email = "ada@example.com"
        await a_published_plan(
            session,
            now=now,
            code="free",
            prices=(),
            windows=(PER_SECOND,),
            quota_units=1000,
            quota_hard=True,
            entitlements=("forecast",),
        )
        await a_published_plan(
            session,
            now=now,
            code="growth",
            position=1,
            prices=(FLAT_49,),
            windows=(PER_MINUTE,),
            quota_units=50_000,
            entitlements=("forecast", "history"),
        )
        subscription = await a_subscription(session, account, now=now, plan="growth")
    return Shop(sessions, now, account.id, subscription.id, DunningConfig(settle=timedelta()), now)
