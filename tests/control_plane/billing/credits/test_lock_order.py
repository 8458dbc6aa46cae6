"""Accounts are locked first and in one order, so that nobody waits in a circle.

Each test lets somebody wait for an account, and shows that whoever holds it can still get all it may need next.
"""

import asyncio
from datetime import date

from sqlalchemy import text

from control_plane.billing.balance.entries import lock_balances
from control_plane.billing.balance.queries import balances_of_account
from control_plane.billing.credits.ledger import lock_account, lock_accounts
from control_plane.billing.discounts.applying import discounts_in_force
from control_plane.billing.discounts.coupons import create_coupon
from control_plane.billing.discounts.model import CouponTerms, Duration
from control_plane.billing.discounts.redeeming import redeem_coupon
from control_plane.billing.discounts.referrals import assign_referrer, referral_code, set_reward
from control_plane.billing.invoices.closing import close_due
from control_plane.billing.invoices.queries import locked_invoice
from control_plane.billing.invoices.worker import sweep
from control_plane.billing.payments.operations import pay_invoice
from tests.control_plane.billing.credits.helpers import an_invoice
from tests.control_plane.billing.final_invoices import a_final_invoice
from tests.control_plane.billing.invoices.billing_kit import CONFIG, FEB_1, HOUR, JAN_1, Billing
from tests.control_plane.builders import ACTOR, an_account


async def until_someone_waits(sessions):
    """Return as soon as a session waits for a lock of another; polls, since PostgreSQL does not tell."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with asyncio.timeout(30):
        while True:
            async with sessions() as session:
                if await session.scalar(waiting):
                    return
            await asyncio.sleep(0.01)


async def at_once(session):
    """Let a session fail where it would have to wait for a lock; a deadlock would be found a second later."""
    await session.execute(text("SET LOCAL lock_timeout = '500ms'"))


class TestOrderOfLocks:
    async def test_two_who_have_written_drafts_of_an_account_take_turns(self, sessions):
        async with sessions() as session, session.begin():
            account = await an_account(session, now=JAN_1)
        async with sessions() as one, sessions() as other:
            await an_invoice(one, account.id, now=JAN_1)
            await an_invoice(other, account.id, now=JAN_1)
            await at_once(one)
            await lock_account(one, account.id)
            await lock_accounts(one, [account.id])

    async def test_a_payment_waits_for_the_referrer_before_it_holds_anything(self, sessions, now):
        async with sessions() as session, session.begin():
            await set_reward(session, currency="USD", amount_minor=100, actor=ACTOR, now=now)
            ada, bob = sorted([await an_account(session, now=now) for _ in range(2)], key=lambda one: one.id)
            code = await referral_code(session, account_id=ada.id, now=now)
            await assign_referrer(session, account_id=bob.id, code=code, actor=ACTOR, now=now)
            invoice = await a_final_invoice(session, bob.id, now=now)

        async def pay():
            async with sessions() as session, session.begin():
                await pay_invoice(
                    session,
                    invoice_id=invoice.id,
                    amount_minor=5_000,
                    surplus_to_balance=True,
                    paid_on=date(2026, 3, 17),
                    reference="wire 1",
                    actor=ACTOR,
                    now=now,
                )

        async with sessions() as round_, asyncio.TaskGroup() as tasks:
            await lock_accounts(round_, [ada.id])
            tasks.create_task(pay())
            await until_someone_waits(sessions)
            await at_once(round_)
            await lock_accounts(round_, [bob.id])
            balances = {(ada.id, "USD"), (bob.id, "USD")}
            await lock_balances(round_, balances, create=balances)
            await round_.rollback()
        async with sessions() as session:
            found = [(await balances_of_account(session, one.id))[0].amount_minor for one in (ada, bob)]
        assert found == [100, 100]

    async def test_a_round_of_billing_waits_for_an_account_before_it_holds_anything_of_it(self, sessions):
        billing = Billing(sessions)
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1 + HOUR)
        async with sessions() as session, session.begin():
            terms = CouponTerms(name="Ten", amount_minor=1_000, currency="USD", duration=Duration.FOREVER)
            await create_coupon(session, code="ten", terms=terms, actor=ACTOR, now=JAN_1)
            await redeem_coupon(
                session, subscription_id=customer.id, coupon_code="ten", actor=ACTOR, now=JAN_1 + HOUR
            )
        (invoice,) = await billing.invoices(customer)
        now = FEB_1 + 2 * HOUR
        await billing.seal(now)
        await sweep(sessions, now=now)

        async def close():
            async with sessions() as session, session.begin():
                return await close_due(session, config=CONFIG, now=now)

        async with sessions() as void, asyncio.TaskGroup() as tasks:
            # what voiding an invoice locks, in its order
            await lock_accounts(void, [customer.account_id])
            closing = tasks.create_task(close())
            await until_someone_waits(sessions)
            await at_once(void)
            await locked_invoice(void, invoice.id)
            await void.execute(text("SELECT * FROM billed_periods FOR UPDATE"))
            await discounts_in_force(void, [customer.id], locked=True)
            await void.rollback()
        assert closing.result().finalised == 1
