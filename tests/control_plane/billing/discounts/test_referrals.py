"""Referrals: once for each account, never in circles, paid once with the first payment."""

import asyncio
from datetime import date, timedelta

import pytest

from control_plane.accounts.tables import Account
from control_plane.billing.balance.queries import balances_of_account
from control_plane.billing.discounts.referral_queries import referral_page, referrer_page, rewards
from control_plane.billing.discounts.referrals import (
    ReferralRefusedError,
    assign_referrer,
    referral_code,
    reward_first_payment,
    set_reward,
)
from control_plane.billing.discounts.tables import FirstPayment, Referral
from control_plane.billing.payments.operations import pay_invoice
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from tests.control_plane.billing.final_invoices import a_final_invoice
from tests.control_plane.builders import ACTOR, an_account, audit_of

DAY = timedelta(days=1)


async def refer(session, referrer, account, *, now):
    code = await referral_code(session, account_id=referrer.id, now=now)
    return await assign_referrer(session, account_id=account.id, code=code, actor=ACTOR, now=now)


async def refusal(attempt):
    with pytest.raises(ReferralRefusedError) as refused:
        await attempt
    return refused.value.code


async def balance(session, account):
    return {row.currency: row.amount_minor for row in await balances_of_account(session, account.id)}


@pytest.fixture
async def ada(session, now):
    await set_reward(session, currency="USD", amount_minor=2_500, actor=ACTOR, now=now)
    return await an_account(session, now=now, name="Ada")


@pytest.fixture
async def bob(session, now):
    return await an_account(session, now=now, name="Bob", currency="EUR")


class TestAssign:
    async def test_each_account_has_one_code_that_is_not_case_sensitive(self, session, ada, bob, now):
        code = await referral_code(session, account_id=ada.id, now=now)
        assert await referral_code(session, account_id=ada.id, now=now + DAY) == code
        referral = await assign_referrer(
            session, account_id=bob.id, code=f" {code.lower()} ", actor=ACTOR, now=now
        )
        assert (referral.referrer_id, referral.state) == (ada.id, "pending")
        assert (referral.reward_minor, referral.currency) == (2_500, "USD")
        assert "referral.assigned" in [row.action for row in await audit_of(session, bob.id)]

    async def test_once_for_ever_and_the_same_again_changes_nothing(self, session, ada, bob, now):
        cleo = await an_account(session, now=now)
        first = await refer(session, ada, bob, now=now)
        assert await refer(session, ada, bob, now=now + DAY) is first
        assert await refusal(refer(session, cleo, bob, now=now)) == "referred_before"

    async def test_never_itself_and_never_in_circles(self, session, ada, now):
        bob, cleo = [await an_account(session, now=now) for _ in range(2)]
        assert await refusal(refer(session, ada, ada, now=now)) == "referred_itself"
        await refer(session, ada, bob, now=now)
        await refer(session, bob, cleo, now=now)
        assert await refusal(refer(session, cleo, ada, now=now)) == "referred_in_a_circle"

    async def test_not_after_the_first_payment(self, session, ada, bob, now):
        invoice = await a_final_invoice(session, bob.id, now=now)
        await reward_first_payment(session, invoice=invoice, now=now)
        assert await refusal(refer(session, ada, bob, now=now)) == "referred_too_late"

    async def test_not_where_there_is_nothing_to_reward_the_referrer_with(self, session, ada, bob, now):
        assert await refusal(refer(session, bob, ada, now=now)) == "referral_reward_missing"

    async def test_an_unknown_code_is_told(self, session, ada, now):
        with pytest.raises(NotFoundError):
            await assign_referrer(session, account_id=ada.id, code="NOBODY", actor=ACTOR, now=now)

    async def test_two_who_bring_each_other_at_once_do_not_both(self, sessions, now):
        async with sessions() as session, session.begin():
            await set_reward(session, currency="USD", amount_minor=100, actor=ACTOR, now=now)
            one, other = [await an_account(session, now=now) for _ in range(2)]

        async def attempt(referrer, account):
            async with sessions() as session, session.begin():
                try:
                    await refer(session, referrer, account, now=now)
                except ReferralRefusedError as refused:
                    return refused.code
            return "assigned"

        outcomes = await asyncio.gather(attempt(one, other), attempt(other, one))
        assert sorted(outcomes) == ["assigned", "referred_in_a_circle"]


class TestReward:
    async def test_is_paid_into_the_balance_with_the_first_payment(self, session, ada, bob, now):
        await refer(session, ada, bob, now=now)
        await set_reward(
            session, currency="USD", amount_minor=9_900, actor=ACTOR, now=now
        )  # what was promised stays
        for place in range(2):
            invoice = await a_final_invoice(session, bob.id, now=now)
            await pay_invoice(
                session,
                invoice_id=invoice.id,
                reference=f"transfer {place}",
                paid_on=date(2026, 3, 17),
                actor=ACTOR,
                now=now,
            )
        assert await balance(session, ada) == {"USD": 2_500}
        referral = await session.get(Referral, bob.id)
        assert (referral.state, referral.settled_at) == ("rewarded", now)
        assert referral.invoice_id == (await session.get(FirstPayment, bob.id)).invoice_id

    async def test_an_invoice_with_nothing_to_pay_is_no_first_payment(self, session, ada, bob, now):
        await refer(session, ada, bob, now=now)
        paid_by_balance = await a_final_invoice(session, bob.id, balance_applied_minor=4_900, now=now)
        assert await reward_first_payment(session, invoice=paid_by_balance, now=now) is None
        assert await balance(session, ada) == {}

    async def test_is_forfeited_where_the_referrer_is_gone(self, session, ada, bob, now):
        await refer(session, ada, bob, now=now)
        (await session.get(Account, ada.id)).status = "deleted"
        invoice = await a_final_invoice(session, bob.id, now=now)
        assert (await reward_first_payment(session, invoice=invoice, now=now)).state == "forfeited"
        assert await balance(session, ada) == {}

    async def test_nobody_is_rewarded_for_who_was_not_brought(self, session, ada, bob, now):
        invoice = await a_final_invoice(session, bob.id, now=now)
        assert await reward_first_payment(session, invoice=invoice, now=now) is None
        assert (await session.get(FirstPayment, bob.id)).invoice_id == invoice.id

    async def test_is_paid_once_however_many_payments_come_at_once(self, sessions, now):
        async with sessions() as session, session.begin():
            await set_reward(session, currency="USD", amount_minor=100, actor=ACTOR, now=now)
            referrer, account = [await an_account(session, now=now) for _ in range(2)]
            await refer(session, referrer, account, now=now)
            invoices = [await a_final_invoice(session, account.id, now=now) for _ in range(6)]

        async def pay(invoice):
            async with sessions() as session, session.begin():
                return await reward_first_payment(session, invoice=invoice, now=now)

        settled = await asyncio.gather(*map(pay, [*invoices, *invoices]))
        assert len([one for one in settled if one is not None]) == 1
        async with sessions() as session:
            assert await balance(session, referrer) == {"USD": 100}


class TestRewardAmounts:
    async def test_are_set_for_each_currency_and_taken_away(self, session, ada, now):
        await set_reward(session, currency="JPY", amount_minor=3_000, actor=ACTOR, now=now)
        await set_reward(session, currency="USD", amount_minor=2_000, actor=ACTOR, now=now)
        assert [(row.currency, row.amount_minor) for row in await rewards(session)] == [
            ("JPY", 3_000),
            ("USD", 2_000),
        ]
        for _ in range(2):
            await set_reward(session, currency="JPY", amount_minor=None, actor=ACTOR, now=now)
        assert [row.currency for row in await rewards(session)] == ["USD"]
        assert [row.after for row in await audit_of(session, "JPY")] == [{"amount_minor": 3_000}, None]

    async def test_refuses_what_is_no_amount(self, session, now):
        for currency, amount in (("XYZ", 100), ("USD", 0), ("USD", 10**13)):
            with pytest.raises(ValidationFailedError):
                await set_reward(session, currency=currency, amount_minor=amount, actor=ACTOR, now=now)


class TestReports:
    async def test_tell_what_each_referrer_brought(self, session, ada, now):
        brought = [await an_account(session, now=now) for _ in range(3)]
        for account in brought:
            await refer(session, ada, account, now=now)
        await refer(session, brought[0], await an_account(session, now=now), now=now + DAY)
        invoice = await a_final_invoice(session, brought[0].id, now=now)
        await reward_first_payment(session, invoice=invoice, now=now)
        page = await referrer_page(session, limit=1)
        rest = await referrer_page(session, limit=5, cursor=page.next_cursor)
        found = {
            one.referrer_id: (one.brought, one.paying, one.rewarded_minor, one.pending_minor)
            for one in (*page.items, *rest.items)
        }
        assert found == {ada.id: (3, 1, 2_500, 5_000), brought[0].id: (1, 0, 0, 2_500)}

    async def test_list_referrals_the_last_one_first(self, session, ada, now):
        accounts = [await an_account(session, now=now) for _ in range(3)]
        for place, account in enumerate(accounts):
            await refer(session, ada, account, now=now + place * DAY)
        page = await referral_page(session, limit=2, referrer_id=ada.id)
        rest = await referral_page(session, limit=2, referrer_id=ada.id, cursor=page.next_cursor, state="pending")
        assert [one.account_id for one in (*page.items, *rest.items)] == [one.id for one in reversed(accounts)]
        assert (await referral_page(session, limit=2, state="rewarded")).items == ()
