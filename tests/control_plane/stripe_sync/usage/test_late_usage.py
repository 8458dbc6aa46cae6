"""Usage that is sealed when Stripe has gone on: on the draft while there is one, and ours to bill after it."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from control_plane.foundation.clock import floor_hour
from control_plane.foundation.ids import new_id
from control_plane.stripe_sync.invoices.tables import StripeInvoice, StripeInvoiceLine, StripeInvoiceTask
from control_plane.stripe_sync.subscriptions.tables import StripeSpan
from control_plane.subscriptions.tables import SubscriptionPhase
from tests.control_plane.stripe_sync.usage.conftest import STRIPE_ANCHOR

PERIOD_END = STRIPE_ANCHOR.replace(month=4)
LAST_HOUR = floor_hour(PERIOD_END) - timedelta(hours=1)


async def an_invoice(world, *, final: bool, start: datetime = STRIPE_ANCHOR, end: datetime = PERIOD_END):
    """What the mirror has of the invoice of an ended period."""
    amounts = ("subtotal", "discount", "tax", "total", "balance", "amount_due", "amount_paid", "amount_remaining")
    async with world.sessions() as session, session.begin():
        invoice = StripeInvoice(
            id=f"in_{end:%d%H%M}",
            account_id=world.account_id,
            subscription_id=world.subscription_id,
            customer_id=world.customer_id,
            status="paid" if final else "draft",
            billing_reason="subscription_cycle",
            collection="charge_automatically",
            currency="USD",
            period_start=start,
            period_end=end,
            **{f"{name}_minor": 0 for name in amounts},
            auto_advance=True,
            attempt_count=0,
            created_at=end,
            finalised_at=end + timedelta(hours=1) if final else None,
            read_at=world.now,
        )
        session.add(invoice)
        await session.flush()
        for position, (kind, starts, ends) in enumerate(
            [("metered", start, end), ("metered", end, end + timedelta(days=30)), ("flat", end, end)]
        ):
            session.add(
                StripeInvoiceLine(
                    invoice_id=invoice.id,
                    id=f"il_{position}",
                    position=position,
                    kind=kind,
                    description="",
                    amount_minor=0,
                    proration=False,
                    period_start=starts,
                    period_end=ends,
                )
            )


async def a_task(world, state: str):
    async with world.sessions() as session, session.begin():
        session.add(
            StripeInvoiceTask(
                invoice_id=f"in_{state}",
                subscription_id=world.subscription_id,
                period_start=STRIPE_ANCHOR,
                period_end=PERIOD_END,
                state=state,
                created_at=world.now,
            )
        )


async def next_period(world, **later):
    world.at(PERIOD_END + timedelta(**later))
    await world.change(current_period_start=PERIOD_END, current_period_end=PERIOD_END.replace(month=5))


class TestAfterThePeriodsEnd:
    async def test_goes_on_the_draft(self, world):
        await next_period(world, hours=20)
        await an_invoice(world, final=False)
        await world.seal(LAST_HOUR, 10)
        await world.send()
        row = await world.row()
        assert (row.state, row.stripe_at) == ("delivered", LAST_HOUR)

    @pytest.mark.parametrize("units", [10, -10])
    async def test_is_ours_once_the_invoice_is_final(self, world, units):
        await world.seal(LAST_HOUR - timedelta(days=20), 30)
        await world.send()
        await next_period(world, hours=2)
        await an_invoice(world, final=True)
        await world.seal(LAST_HOUR - timedelta(days=20), units)
        await world.send()
        assert await world.states() == [("delivered", ""), ("ours", "invoice_final")]
        assert await world.at_stripe() == 30
        await world.seal(floor_hour(PERIOD_END), 5)  # the new period's
        await world.send()
        assert await world.at_stripe() == 35

    async def test_is_ours_once_our_adjustments_are_decided(self, world):
        await next_period(world, minutes=30)
        for state, becomes in {
            "waiting": "delivered",
            "gone": "delivered",
            "adjusting": "ours",
            "done": "ours",
        }.items():
            await world.subscribe()
            await world.change(current_period_start=PERIOD_END, current_period_end=PERIOD_END.replace(month=5))
            await a_task(world, state)
            await world.seal(LAST_HOUR, 10)
            await world.send()
            assert (await world.row(account_id=world.account_id)).state == becomes, state

    async def test_older_than_stripe_takes_is_told_apart(self, world):
        await next_period(world, days=36)
        await world.change(current_period_end=PERIOD_END.replace(month=6))
        await an_invoice(world, final=False)
        await world.seal(LAST_HOUR, 10)
        await world.send()
        assert await world.states() == [("too_old", "too_old")]


class TestPlanChangedWithinAnHour:
    async def test_usage_of_the_new_plan_goes_there_and_late_usage_of_the_old_is_ours(self, world):
        change = datetime.fromisoformat("2026-03-17T09:20:31Z")
        hour, old = floor_hour(change), world.phase_id
        await world.seal(hour - timedelta(hours=1), 7)
        await world.send()  # flushed before the change
        new = new_id("ph", change)
        async with world.sessions() as session, session.begin():
            statement = update(SubscriptionPhase).where(SubscriptionPhase.id == old)
            await session.execute(statement.values(ends_at=change))
            session.add(
                SubscriptionPhase(
                    id=new,
                    subscription_id=world.subscription_id,
                    plan_version_id=world.version_id,
                    starts_at=change,
                    applied_at=change,
                    kind="paid",
                )
            )
            session.add(
                StripeSpan(
                    subscription_id=world.subscription_id,
                    starts_at=change,
                    plan_version_id=world.version_id,
                    ours_from=change,
                )
            )
        await world.seal(hour, 20, phase=old)
        await world.seal(hour, 50, phase=new)
        await world.send()
        assert [(row.delta_units, row.state, row.stripe_at) for row in await world.rows()] == [
            (7, "delivered", hour - timedelta(hours=1)),
            (20, "ours", None),
            (50, "delivered", change),
        ]
        assert (await world.row(delta_units=20)).reason == "plan_changed"


class TestCancelled:
    async def test_last_usage_goes_on_the_final_invoices_draft_and_not_after_it(self, world):
        end = datetime.fromisoformat("2026-03-17T10:00:09Z")
        await world.change(status="canceled", ended_at=end, canceled_at=end)
        await world.seal(floor_hour(end) - timedelta(hours=1), 10)
        await world.seal(floor_hour(end), 2)  # nine seconds of it
        await world.send()
        assert [row.stripe_at for row in await world.rows()] == [
            floor_hour(end) - timedelta(hours=1),
            floor_hour(end),
        ]
        await an_invoice(world, final=True, end=end)
        await world.seal(floor_hour(end), 3)
        await world.send()
        assert (await world.row(delta_units=3)).reason == "invoice_final"
        assert await world.at_stripe() == 12
