"""Who does not pay falls behind; who pays is let on at once."""

import asyncio
from datetime import timedelta

import pytest

from control_plane.billing.credit_notes.model import Reason
from control_plane.billing.credit_notes.operations import CreditRequest, issue_credit_note
from control_plane.billing.payments.operations import give_up_invoice, pay_invoice, void_invoice
from control_plane.billing.payments.overdue import OverdueConfig, behind, fall_behind, run_overdue
from control_plane.subscriptions.queries import subscription as subscription_by_id
from control_plane.subscriptions.statuses import change_status
from tests.control_plane.billing.final_invoices import a_final_invoice
from tests.control_plane.builders import ACTOR, a_published_plan, a_subscription, an_account, outbox_of

CONFIG = OverdueConfig(grace=timedelta(days=7))


@pytest.fixture
async def subscription(session, now):
    await a_published_plan(session, now=now)
    return await a_subscription(session, await an_account(session, now=now), now=now)


async def an_overdue_invoice(session, subscription, *, due_at):
    return await a_final_invoice(
        session, subscription.account_id, subscription_id=subscription.id, due_at=due_at, now=due_at
    )


async def look(session, now):
    """Look once for who is behind; returns the ids of the subscriptions that became past due."""
    found = await behind(session, config=CONFIG, now=now)
    return [
        one
        for one, account_id in found
        if await fall_behind(session, subscription_id=one, account_id=account_id, config=CONFIG, now=now)
    ]


async def status_of(session, subscription):
    return (await subscription_by_id(session, subscription.id)).status


async def pay(session, invoice, now):
    await pay_invoice(
        session, invoice_id=invoice.id, paid_on=now.date(), reference=invoice.id, actor=ACTOR, now=now
    )


class TestOverdue:
    async def test_falls_behind_when_the_grace_has_passed(self, session, subscription, now):
        await an_overdue_invoice(session, subscription, due_at=now - timedelta(days=7))
        assert await look(session, now - timedelta(seconds=1)) == []
        assert await look(session, now) == [subscription.id]
        assert await status_of(session, subscription) == "past_due"

    async def test_gateways_are_told(self, session, subscription, now):
        before = len(await outbox_of(session, "account.changed"))
        await an_overdue_invoice(session, subscription, due_at=now - timedelta(days=8))
        assert await look(session, now) == [subscription.id]
        assert len(await outbox_of(session, "account.changed")) == before + 1
        assert await look(session, now) == []

    async def test_a_paused_subscription_waits(self, session, subscription, now):
        await an_overdue_invoice(session, subscription, due_at=now - timedelta(days=8))
        await change_status(session, subscription_id=subscription.id, status="paused", actor=ACTOR, now=now)
        assert await look(session, now) == []

    async def test_is_active_again_when_all_that_is_overdue_is_paid(self, session, subscription, now):
        first = await an_overdue_invoice(session, subscription, due_at=now - timedelta(days=9))
        second = await an_overdue_invoice(session, subscription, due_at=now - timedelta(days=1))
        await an_overdue_invoice(session, subscription, due_at=now + timedelta(days=5))
        await look(session, now)
        await pay(session, first, now)
        assert await status_of(session, subscription) == "past_due"
        await pay(session, second, now)
        assert await status_of(session, subscription) == "active"

    async def test_is_active_again_when_the_invoice_is_void_or_credited(self, session, subscription, now):
        for free in ("void", "credit"):
            invoice = await an_overdue_invoice(session, subscription, due_at=now - timedelta(days=9))
            await look(session, now)
            assert await status_of(session, subscription) == "past_due"
            if free == "void":
                await void_invoice(session, invoice_id=invoice.id, reason="r", actor=ACTOR, now=now)
            else:
                request = CreditRequest(reason=Reason.GOODWILL)
                await issue_credit_note(
                    session, invoice_id=invoice.id, request=request, idempotency_key="k", actor=ACTOR, now=now
                )
            assert await status_of(session, subscription) == "active"

    async def test_stays_past_due_while_an_invoice_that_was_given_up_is_unpaid(self, session, subscription, now):
        given_up = await an_overdue_invoice(session, subscription, due_at=now - timedelta(days=9))
        other = await an_overdue_invoice(session, subscription, due_at=now - timedelta(days=9))
        await look(session, now)
        await give_up_invoice(session, invoice_id=given_up.id, reason="r", actor=ACTOR, now=now)
        await pay(session, other, now)
        assert await status_of(session, subscription) == "past_due"
        await pay(session, given_up, now)
        assert await status_of(session, subscription) == "active"

    async def test_a_payment_that_comes_in_between_counts(self, session, subscription, now):
        invoice = await an_overdue_invoice(session, subscription, due_at=now - timedelta(days=9))
        ((found, account_id),) = await behind(session, config=CONFIG, now=now)
        await pay(session, invoice, now)
        assert not await fall_behind(session, subscription_id=found, account_id=account_id, config=CONFIG, now=now)
        assert await status_of(session, subscription) == "active"

    async def test_a_worker_does_it_by_itself(self, sessions, now):
        async with sessions() as session, session.begin():
            await a_published_plan(session, now=now)
            subscription = await a_subscription(session, await an_account(session, now=now), now=now)
            await an_overdue_invoice(session, subscription, due_at=now - timedelta(days=8))
        stop = asyncio.Event()
        config = OverdueConfig(grace=timedelta(days=7), pause_seconds=0.05)
        worker = asyncio.create_task(run_overdue(config=config, sessions=sessions, stop=stop, clock=lambda: now))
        try:
            async with asyncio.timeout(20):
                while True:
                    async with sessions() as session:
                        if await status_of(session, subscription) == "past_due":
                            break
                    await asyncio.sleep(0.05)
        finally:
            stop.set()
            await worker
