"""Founding members: the first ones who pay, each account once."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import func, select

from control_plane.accounts.tables import Account
from control_plane.billing.discounts.founding import (
    FoundingOfferOpenError,
    FoundingTerms,
    close_founding_offer,
    current_offer,
    join_founders,
    open_founding_offer,
)
from control_plane.billing.discounts.queries import discounts_of
from control_plane.billing.discounts.tables import FirstPayment, FoundingMember
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.subscriptions.operations import change_plan
from tests.control_plane.billing.final_invoices import a_final_invoice
from tests.control_plane.billing.invoices.billing_kit import FEB_1, HOUR, JAN_1
from tests.control_plane.builders import ACTOR, a_published_plan, a_subscription, an_account, audit_of

DAY = timedelta(days=1)


async def open_offer(session, *, now, percent=25, **terms):
    terms = {"max_accounts": 2, **terms}
    return await open_founding_offer(
        session, terms=FoundingTerms(percent=Decimal(percent), **terms), actor=ACTOR, now=now
    )


async def subscribed(session, *, now, plan="starter", account=None):
    account = account or await an_account(session, now=now)
    return await a_subscription(session, account, now=now, plan=plan)


class TestFounders:
    async def test_have_the_discount_for_their_first_year(self, session, now):
        offer = await open_offer(session, now=now)
        await a_published_plan(session, now=now)
        subscription = await subscribed(session, now=now)
        assert await join_founders(session, [subscription.id], now=now) == {subscription.id: 1}
        (held,) = await discounts_of(session, subscription.id)
        assert (held.row.source, held.row.coupon.percent, held.row.coupon_id) == ("founding", 25, offer.coupon_id)
        assert held.row.holds_from == subscription.anchor_at
        assert held.row.ends_at == subscription.anchor_at.replace(year=2027)

    async def test_are_so_once(self, session, now):
        await open_offer(session, now=now)
        await a_published_plan(session, now=now)
        await a_published_plan(session, now=now, code="maps-plan", product="maps")
        first = await subscribed(session, now=now)
        await join_founders(session, [first.id], now=now)
        account = await an_account(session, now=now)
        other = await subscribed(session, now=now, account=account)
        same = await subscribed(session, now=now, account=account, plan="maps-plan")
        assert await join_founders(session, [first.id, same.id, other.id], now=now) == {other.id: 2}
        assert await join_founders(session, [first.id, same.id, other.id], now=now) == {}

    async def test_are_the_first_ones_only(self, session, now):
        await open_offer(session, now=now, max_accounts=2)
        await a_published_plan(session, now=now)
        ids = [(await subscribed(session, now=now + place * HOUR)).id for place in range(3)]
        assert await join_founders(session, ids, now=now + 3 * HOUR) == {ids[0]: 1, ids[1]: 2}
        assert (await current_offer(session)).members == 2

    async def test_are_welcome_until_the_offer_ends(self, session, now):
        await open_offer(session, now=now, max_accounts=None, until=now + DAY)
        await a_published_plan(session, now=now)
        early = await subscribed(session, now=now)
        late = await subscribed(session, now=now + DAY)
        assert await join_founders(session, [late.id], now=now + DAY) == {}
        assert await join_founders(session, [early.id], now=now + DAY - HOUR) == {early.id: 1}

    async def test_who_pays_nothing_takes_no_place_until_a_plan_costs_something(self, session, now):
        await open_offer(session, now=now)
        await a_published_plan(session, now=now, code="free", prices=())
        await a_published_plan(session, now=now)
        subscription = await subscribed(session, now=now, plan="free")
        assert await join_founders(session, [subscription.id], now=now) == {}
        later = now + DAY
        await change_plan(session, subscription_id=subscription.id, plan_code="starter", actor=ACTOR, now=later)
        assert await join_founders(session, [subscription.id], now=later) == {subscription.id: 1}

    async def test_who_paid_before_the_offer_is_none(self, session, now):
        await a_published_plan(session, now=now)
        await a_published_plan(session, now=now, code="maps-plan", product="maps")
        before = await subscribed(session, now=now)
        await open_offer(session, now=now + HOUR)
        account = await an_account(session, now=now)
        invoice = await a_final_invoice(session, account.id, now=now)
        session.add(FirstPayment(account_id=account.id, invoice_id=invoice.id, paid_at=now))
        payer = await subscribed(session, now=now + HOUR, account=account, plan="maps-plan")
        assert await join_founders(session, [before.id, payer.id], now=now + HOUR) == {}

    async def test_who_was_on_another_plan_that_costs_something_before_the_offer_is_none(self, session, now):
        await a_published_plan(session, now=now)
        await a_published_plan(session, now=now, code="maps-plan", product="maps")
        before = await subscribed(session, now=now)
        await open_offer(session, now=now + HOUR)
        account = await session.get_one(Account, before.account_id)
        later = await subscribed(session, now=now + HOUR, account=account, plan="maps-plan")
        assert await join_founders(session, [later.id], now=now + HOUR) == {}

    async def test_are_never_too_many_however_many_come_at_once(self, sessions, now):
        async with sessions() as session, session.begin():
            await open_offer(session, now=now, max_accounts=3)
            await a_published_plan(session, now=now)
            ids = [(await subscribed(session, now=now)).id for _ in range(8)]

        async def join(subscription_id):
            async with sessions() as session, session.begin():
                return await join_founders(session, [subscription_id], now=now)

        joined = await asyncio.gather(*map(join, ids))
        assert sorted(number for one in joined for number in one.values()) == [1, 2, 3]
        async with sessions() as session:
            assert await session.scalar(select(func.count()).select_from(FoundingMember)) == 3

    async def test_become_so_before_their_first_invoice_whoever_subscribed_them(self, billing):
        await billing.plan()
        async with billing.sessions() as session, session.begin():
            await open_offer(session, now=JAN_1)
        customer = await billing.customer()
        await billing.close(JAN_1 + HOUR)
        await billing.close(FEB_1 + 2 * HOUR)
        invoices = await billing.invoices(customer)
        assert [(one.subtotal_minor, one.discount_minor) for one in invoices] == [(4_900, 1_225)] * 2


class TestOffer:
    async def test_needs_a_limit_and_usable_terms(self, session, now):
        for terms, field in (
            ({"max_accounts": None}, "max_accounts"),
            ({"max_accounts": 0}, "max_accounts"),
            ({"until": now - DAY}, "until"),
            ({"percent": 101}, "percent"),
            ({"months": 0}, "count"),
        ):
            with pytest.raises(ValidationFailedError) as refused:
                await open_offer(session, now=now, **terms)
            assert refused.value.field == field

    async def test_one_is_open_at_a_time_and_both_steps_are_told_of(self, session, now):
        offer = await open_offer(session, now=now)
        with pytest.raises(FoundingOfferOpenError):
            await open_offer(session, now=now)
        await close_founding_offer(session, actor=ACTOR, now=now)
        with pytest.raises(NotFoundError):
            await close_founding_offer(session, actor=ACTOR, now=now)
        again = await open_offer(session, now=now)
        assert (await current_offer(session)).id == again.id
        actions = [row.action for row in await audit_of(session, offer.id)]
        assert actions == ["founding_offer.opened", "founding_offer.closed"]
