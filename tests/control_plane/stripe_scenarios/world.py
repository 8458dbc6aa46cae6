"""A shop that sells through Stripe: our stores and workers, a Stripe with its own clock, webhooks between them.

Nothing runs by itself: `go` moves both clocks to a moment, and `settle` lets the workers work until nothing is
left to do. Webhooks come over HTTP, signed, in whatever order Stripe sends them. Stripe is our simulator, or, with
`KM_TEST_STRIPE_KEY`, Stripe itself: what differs between them is a `Side`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import selectinload

from control_plane.accounts.queries import account as account_of
from control_plane.catalog.model import PriceTerms
from control_plane.catalog.tables import Plan, PlanVersion
from control_plane.dunning.model import DunningConfig
from control_plane.dunning.worker import look_after
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import KmError
from control_plane.stripe_sync.catalog.pushing import push_what_waits
from control_plane.stripe_sync.client import StripeUnavailable
from control_plane.stripe_sync.events.processing import process_due
from control_plane.stripe_sync.events.registry import APPLIERS
from control_plane.stripe_sync.invoices.expected import InvoiceEvent
from control_plane.stripe_sync.invoices.standing import Expectation, expected_invoice
from control_plane.stripe_sync.invoices.tables import StripeDispute, StripeInvoice, StripeInvoiceCheck
from control_plane.stripe_sync.invoices.worker import invoice_round
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.checkout import start_checkout
from control_plane.stripe_sync.subscriptions.refusals import ChangeInProgressError
from control_plane.stripe_sync.subscriptions.requests import cancel, change_plan
from control_plane.stripe_sync.subscriptions.tables import StripeCheckout, StripeSubscription
from control_plane.stripe_sync.subscriptions.worker import take_up
from control_plane.stripe_sync.usage.sender import send_due
from control_plane.subscriptions.advance import advance
from control_plane.subscriptions.queries import subscription as subscription_of
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timelines import timeline
from devstack.stripe.embedded import EmbeddedStripe
from tests.control_plane.billing.invoices.billing_kit import Billing, flat, overage
from tests.control_plane.builders import ACTOR, a_published_plan, a_subscription, an_account
from tests.control_plane.stripe_scenarios.killing import was_killed
from tests.control_plane.stripe_scenarios.side import Side
from tests.control_plane.stripe_scenarios.simulated import Simulated

T = TypeVar("T")

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BOUGHT_AT = datetime(2026, 3, 3, 9, 17, 5, tzinfo=UTC)
STARTER = (flat("49.00"), overage("0.0015", 50_000))
GROWTH = (flat("199.00"), overage("0.0006", 500_000))
MOST_ROUNDS = 200
MOST_LOOKS = 60
SECOND = timedelta(seconds=1)
_NEXT_DUE = text("""
SELECT min(at) FROM (
    SELECT next_attempt_at AS at FROM stripe_events WHERE state = 'waiting'
    UNION ALL SELECT next_try_at FROM stripe_changes WHERE state IN ('wanted', 'asked')
    UNION ALL SELECT next_try_at FROM stripe_checkouts WHERE state = 'wanted'
    UNION ALL SELECT next_try_at FROM stripe_balance_credits WHERE state IN ('wanted', 'asked')
    UNION ALL SELECT due_at FROM stripe_usage_rows WHERE state IN ('waiting', 'sent')
    UNION ALL SELECT look_at FROM stripe_invoice_tasks
) AS due WHERE at >= :now AND at <= :until
""")


@dataclass
class World:
    """`killed` counts how often a worker or a request died. What is told by `plain` sessions never dies."""

    sessions: async_sessionmaker[AsyncSession]
    plain: async_sessionmaker[AsyncSession]
    side: Side
    ctx: StripeContext
    dunning: DunningConfig = field(default_factory=DunningConfig)
    killed: int = 0
    account_id: str = ""

    @property
    def now(self) -> datetime:
        return self.ctx.now

    @property
    def sim(self) -> EmbeddedStripe:
        """The simulator, for what can be ordered of it alone."""
        assert isinstance(self.side, Simulated), "this needs the simulator: run it without KM_TEST_STRIPE_KEY"
        return self.side.sim

    @property
    def billing(self) -> Billing:
        return Billing(self.plain)

    # --- time

    async def go(self, to: datetime) -> None:
        """Move both clocks to a moment and let everything that is due be done."""
        await self.side.advance(self.ctx, to)
        self.ctx = self.ctx.at(to)
        await self.settle()

    async def later(self, span: timedelta) -> None:
        await self.go(self.now + span)

    async def pass_period_end(self) -> None:
        """Pass the end of Stripe's period: before it, at the draft, and after Stripe has made it final."""
        end = (await self.row()).current_period_end
        for moment in (
            end - 2 * MINUTE,
            end + 2 * MINUTE,
            end + 30 * MINUTE,
            end + 52 * MINUTE,
            end + 65 * MINUTE,
        ):
            await self.go(moment)

    async def settle(self, *, patience: timedelta = 2 * MINUTE) -> None:
        """Let workers work until nothing is left to do. What is tried again within minutes is waited for."""
        until = self.now + patience
        for _ in range(MOST_ROUNDS):
            await self.side.delivered()
            if await self._round() or await self.side.look_for_more(self.ctx):
                continue
            async with self.plain() as session:
                due = (await session.execute(_NEXT_DUE, {"now": self.now, "until": until})).scalar()
            if due is None:
                return
            await self.side.advance(self.ctx, due + SECOND)
            self.ctx = self.ctx.at(due + SECOND)
        raise AssertionError("workers find more and more to do")

    async def _round(self) -> int:
        """One round of every worker; returns how much was done."""
        ctx = self.ctx
        done = await self.survive(lambda: process_due(ctx, APPLIERS)) or 0
        done += await self.survive(lambda: take_up(ctx)) or 0
        done += await self.survive(lambda: push_what_waits(ctx)) or 0
        done += await self.survive(lambda: send_due(self.sessions, ctx.stripe, clock=lambda: self.now)) or 0
        done += await self.survive(lambda: invoice_round(ctx)) or 0
        done += await self.survive(self._advance) or 0
        done += (
            await self.survive(lambda: look_after(config=self.dunning, sessions=self.sessions, now=ctx.now)) or 0
        )
        return done

    async def _advance(self) -> int:
        async with self.sessions() as session, session.begin():
            done = await advance(session, now=self.now)
            return done.phases_begun + done.subscriptions_ended

    async def survive(self, work: Callable[[], Awaitable[Any]]) -> int:
        """Do a round of a worker; one that is killed is started again. Returns how much was done."""
        try:
            done = await work()
        except StripeUnavailable:
            return 0
        except BaseException as error:
            if not was_killed(error):
                raise
            self.killed += 1
            return 1
        return done if isinstance(done, int) else len(done)

    async def ask(self, request: Callable[[], Awaitable[T]], *, taken: tuple[type[KmError], ...] = ()) -> T | None:
        """Do what somebody asks for; where it fails, or dies, they ask again. `taken`: the answers that say so."""
        for _ in range(20):
            try:
                return await request()
            except taken:
                return None
            except StripeUnavailable:
                pass
            except BaseException as error:
                if not was_killed(error):
                    raise
                self.killed += 1
            self.ctx = self.ctx.at(self.now + 3 * SECOND)
            await self.side.advance(self.ctx, self.now)
        raise AssertionError("it never came to an answer")

    # --- the shop

    async def sell(self, code: str, *prices: PriceTerms, billed_by: str = "stripe", **terms: Any) -> None:
        """Put a plan on sale, and lay it at Stripe."""
        async with self.plain() as session, session.begin():
            await a_published_plan(session, now=self.now, code=code, prices=prices, billed_by=billed_by, **terms)
        await self.settle()

    # --- the customer

    async def sign_up(self, name: str = "Nimbus Labs") -> str:
        async with self.plain() as session, session.begin():
            self.account_id = (await an_account(session, now=self.now, name=name)).id
        return self.account_id

    async def buy(self, plan: str, *, card: str = "pm_card_visa", **options: Any) -> bool:
        """Go through a checkout; says whether Stripe took the card."""
        started = await self.ask(
            lambda: start_checkout(
                self.ctx,
                account_id=self.account_id,
                plan_code=plan,
                success_url="https://shop.example/thanks",
                cancel_url="https://shop.example/plans",
                actor=ACTOR,
                **options,
            )
        )
        assert started is not None
        assert started.checkout.session_id is not None
        taken = await self.side.complete_checkout(started.checkout.session_id, started.url, card)
        if taken:
            await self._wait_for(self._is_completed, started.checkout.id, what="the checkout to be completed")
        else:
            await self.settle()
        return taken

    async def set_card(self, card: str) -> None:
        """Let a test card, such as pm_card_visa, pay from now on, as a customer does in the portal."""
        customer_id = (await self.row()).customer_id
        call = self.ctx.stripe.call
        method = await call(lambda c: c.v1.payment_methods.attach_async(card, {"customer": customer_id}))
        default: Any = {"invoice_settings": {"default_payment_method": method.id}}
        await call(lambda c: c.v1.customers.update_async(customer_id, default))
        listed: Any = {"customer": customer_id}
        for one in (await call(lambda c: c.v1.subscriptions.list_async(listed))).data:
            if one.default_payment_method:
                own: Any = {"default_payment_method": method.id}
                await call(lambda c, one=one, own=own: c.v1.subscriptions.update_async(one.id, own))  # type: ignore[misc]
        await self.settle()

    async def dispute(self) -> StripeDispute:
        """Return the dispute that the customer's bank has opened, as soon as we know of it."""
        await self._wait_for(self._disputes, what="a dispute")
        return (await self._disputes())[0]

    async def win(self, dispute: StripeDispute) -> None:
        """Send the evidence that Stripe's sandboxes take for a good one."""
        evidence: Any = {"evidence": {"uncategorized_text": "winning_evidence"}, "submit": True}
        await self.ctx.stripe.call(lambda c: c.v1.disputes.update_async(dispute.id, evidence))
        await self._wait_for(self._is_won, what="the dispute to be won")

    async def _disputes(self) -> list[StripeDispute]:
        async with self.plain() as session:
            return list(await session.scalars(select(StripeDispute)))

    async def _is_won(self) -> bool:
        return [one.status for one in await self._disputes()] == ["won"]

    async def _is_completed(self, checkout_id: str) -> bool:
        async with self.plain() as session:
            return (await session.get_one(StripeCheckout, checkout_id)).state == "completed"

    async def _wait_for(self, found: Callable[..., Awaitable[Any]], *given: Any, what: str) -> None:
        """Let workers work until something that Stripe does by itself, maybe a while later, is known here."""
        for _ in range(MOST_LOOKS):
            await self.settle()
            if not self.side.is_late or await found(*given):
                return
        raise AssertionError(f"waited for {what}, in vain: {self.side.told()}")

    async def subscribe_here(self, plan: str) -> None:
        """Begin a plan that Stripe has nothing to do with."""
        async with self.plain() as session, session.begin():
            account = await account_of(session, self.account_id)
            await a_subscription(session, account, now=self.now, plan=plan)

    async def pay(self, invoice_id: str) -> None:
        """Pay an open invoice with the customer's card, as they do on Stripe's page of it."""
        key = {"idempotency_key": f"test:pay:{invoice_id}:{self.now.isoformat()}"}
        await self.ctx.stripe.call(lambda client: client.v1.invoices.pay_async(invoice_id, None, key))  # type: ignore[arg-type]
        await self.settle()

    async def change_plan(self, plan: str) -> None:
        """Ask for another plan: up at once, down at the period's end."""
        subscription_id = (await self.row()).subscription_id
        await self.ask(
            lambda: change_plan(self.ctx, subscription_id=subscription_id, plan_code=plan, actor=ACTOR),
            taken=(ChangeInProgressError,),
        )
        await self.settle()

    async def cancel(self, at: Literal["now", "period_end"] = "period_end") -> None:
        subscription_id = (await self.row()).subscription_id
        await self.ask(
            lambda: cancel(self.ctx, subscription_id=subscription_id, at=at, actor=ACTOR),
            taken=(ChangeInProgressError,),
        )
        await self.settle()

    async def use(self, units: int) -> None:
        """Make calls within this hour; an hour later they are sealed, and at Stripe."""
        at = self.now
        over = floor_hour(at) + HOUR
        await self.billing.use(await self.subscription(), units, at=at, known_at=over + 10 * MINUTE)
        await self.go(over + 20 * MINUTE)
        await self.billing.seal(self.now)
        await self.settle()

    # --- what is

    async def order(self, name: str, **given: Any) -> dict[str, Any]:
        """Tell Stripe's simulator what a customer or a bank does there."""
        return await asyncio.to_thread(lambda: self.sim.control.order(name, **given))

    async def row(self) -> StripeSubscription:
        """Return the newest subscription of the customer at Stripe, as last read."""
        async with self.plain() as session:
            statement = select(StripeSubscription).where(StripeSubscription.account_id == self.account_id)
            return (await session.scalars(statement.order_by(StripeSubscription.created_at.desc()).limit(1))).one()

    async def subscription(self) -> Subscription:
        """Return the newest subscription here, with its phases."""
        async with self.plain() as session:
            statement = select(Subscription.id).where(Subscription.account_id == self.account_id)
            newest = (await session.scalars(statement.order_by(Subscription.id.desc()).limit(1))).one()
            return await subscription_of(session, newest)

    async def plan(self) -> str:
        """Return the code of the plan in force here."""
        async with self.plain() as session:
            phase = (await timeline(session, (await self.subscription()).id)).phase_at(self.now)
            assert phase is not None
            code: str = (
                await session.scalars(
                    select(Plan.code)
                    .join(PlanVersion, PlanVersion.plan_id == Plan.id)
                    .where(PlanVersion.id == phase.plan_version_id)
                )
            ).one()
            return code

    async def expected(self, event: InvoiceEvent = InvoiceEvent.PERIOD_END, to: str = "") -> Expectation:
        """Return what we say that Stripe's next invoice will say. `to`: the plan that it would change to."""
        subscription_id = (await self.row()).subscription_id
        async with self.plain() as session:
            held = None
            if to:
                statement = (
                    select(PlanVersion.id).join(Plan, Plan.id == PlanVersion.plan_id).where(Plan.code == to)
                )
                held = {(await session.scalars(statement)).one(): 1}
            return await expected_invoice(session, subscription_id, now=self.now, event=event, to=held)

    async def invoices(self) -> list[StripeInvoice]:
        """Return Stripe's invoices as we know them, in the order in which they were made."""
        async with self.plain() as session:
            statement = (
                select(StripeInvoice)
                .where(StripeInvoice.account_id == self.account_id)
                .options(selectinload(StripeInvoice.lines))
                .order_by(StripeInvoice.created_at, StripeInvoice.id)
            )
            return list(await session.scalars(statement))

    async def checks(self) -> list[StripeInvoiceCheck]:
        """Return what came of comparing Stripe's final invoices with what was expected of them."""
        async with self.plain() as session:
            statement = select(StripeInvoiceCheck).where(StripeInvoiceCheck.account_id == self.account_id)
            return list(await session.scalars(statement.order_by(StripeInvoiceCheck.invoice_id)))

    def at_stripe(self, kind: str) -> list[dict[str, Any]]:
        """Return all objects of a kind, oldest first, as Stripe has them."""
        return list(reversed(self.sim.control.dump(kind).get(kind, [])))
