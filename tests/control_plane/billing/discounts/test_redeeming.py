"""Putting coupons onto subscriptions: who can, how often, and from when the discount holds."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from control_plane.billing.discounts.applying import discounts_in_force
from control_plane.billing.discounts.coupons import archive_coupon, archive_promotion_code
from control_plane.billing.discounts.model import Duration
from control_plane.billing.discounts.queries import discounts_of
from control_plane.billing.discounts.redeeming import remove_discount
from control_plane.billing.discounts.redemption_rules import months_end
from control_plane.billing.discounts.refusals import RedemptionRefusedError, UsedUpError
from control_plane.billing.discounts.tables import Coupon, DiscountRow, FirstPayment, PromotionCode
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import NotFoundError
from control_plane.foundation.outbox import Topic
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.records import SubscriptionOverError
from control_plane.subscriptions.trials import end_trial
from tests.control_plane.billing.discounts.coupon_rows import a_coupon, a_promotion_code, redeem, redeem_code
from tests.control_plane.billing.final_invoices import a_final_invoice
from tests.control_plane.builders import (
    ACTOR,
    a_published_plan,
    a_subscription,
    an_account,
    audit_of,
    outbox_of,
)

DAY = timedelta(days=1)


async def refusal(attempt) -> str:
    with pytest.raises(RedemptionRefusedError) as refused:
        await attempt
    return refused.value.code


class TestFromWhen:
    async def test_the_running_period_where_the_subscription_begins_and_later_the_next(
        self, session, subscription, now
    ):
        await a_coupon(session, now=now)
        assert (await redeem(session, subscription.id, now=now)).holds_from == floor_hour(now)
        await a_coupon(session, now=now, code="later")
        row = await redeem(session, subscription.id, now=now + DAY, coupon="later")
        assert row.holds_from == floor_hour(now).replace(month=4)

    async def test_the_running_period_with_a_change_of_plan(self, session, subscription, now):
        await a_published_plan(session, now=now, code="growth")
        await a_coupon(session, now=now)
        later = now + DAY
        await change_plan(session, subscription_id=subscription.id, plan_code="growth", actor=ACTOR, now=later)
        assert (await redeem(session, subscription.id, now=later)).holds_from == floor_hour(now)

    async def test_the_period_that_was_asked_for(self, session, subscription, now):
        for place, starts in enumerate(["now", "next_period"]):
            await a_coupon(session, now=now, code=f"c{place}")
            row = await redeem(session, subscription.id, now=now + DAY, coupon=f"c{place}", starts=starts)
            assert row.holds_from.month == 3 + place

    async def test_the_first_period_that_is_billed_on_trial_whenever_that_ends(self, session, now):
        await a_published_plan(session, now=now, trial_days=14)
        subscription = await a_subscription(session, await an_account(session, now=now), now=now)
        await a_coupon(session, now=now, duration=Duration.MONTHS, count=12)
        await redeem(session, subscription.id, now=now + DAY)
        for ends_early in (False, True):
            first = floor_hour(now + 7 * DAY) if ends_early else subscription.trial_ends_at
            if ends_early:
                await end_trial(session, subscription_id=subscription.id, actor=ACTOR, now=now + 7 * DAY)
            (held,) = await discounts_of(session, subscription.id)
            (discount,) = (await discounts_in_force(session, [subscription.id]))[subscription.id]
            assert discount.holds_from <= subscription.anchor_at == first
            assert held.ends_at == discount.ends_at == first.replace(year=2027)

    async def test_for_its_months(self, session, subscription, now):
        await a_coupon(session, now=now, duration=Duration.MONTHS, count=12)
        row = await redeem(session, subscription.id, now=now)
        assert row.ends_at == floor_hour(now).replace(year=2027)

    @pytest.mark.parametrize(
        ("interval", "months", "end"),
        [
            ("month", 1, "2026-02-28"),
            ("month", 12, "2027-01-31"),
            ("month", 25, "2028-02-29"),
            ("year", 12, "2027-01-31"),
            ("year", 13, "2028-01-31"),
            ("year", 3, "2027-01-31"),
        ],
    )
    def test_months_are_the_periods_that_begin_within_them(self, interval, months, end):
        anchor = datetime(2026, 1, 31, tzinfo=UTC)
        found = months_end(months, begins=anchor, anchor_at=anchor, interval=interval, time_zone="UTC")
        assert found == datetime.fromisoformat(f"{end}T00:00:00Z")

    def test_months_follow_the_wall_clock_of_the_subscription(self):
        anchor = datetime(2026, 1, 14, 23, tzinfo=UTC)  # midnight in Berlin
        found = months_end(3, begins=anchor, anchor_at=anchor, interval="month", time_zone="Europe/Berlin")
        assert found == datetime(2026, 4, 14, 22, tzinfo=UTC)

    async def test_never_is_refused(self, session, subscription, now):
        await a_coupon(session, now=now)
        await cancel(session, subscription_id=subscription.id, at="period_end", actor=ACTOR, now=now)
        assert await refusal(redeem(session, subscription.id, now=now + DAY)) == "discount_never_holds"
        assert await session.scalar(select(Coupon.redemptions)) == 0


class TestRedeem:
    async def test_is_on_the_subscription_and_told_of(self, session, subscription, now):
        await a_coupon(session, now=now)
        await a_promotion_code(session, now=now)
        row = await redeem_code(session, subscription.id, now=now, code=" spring26 ")
        assert (row.source, row.coupon.code, row.promotion_code.code) == ("promotion_code", "spring", "SPRING26")
        assert (row.coupon.redemptions, row.promotion_code.redemptions) == (1, 1)
        (held,) = await discounts_of(session, subscription.id)
        assert (held.taken_minor, held.periods_left, held.is_over(now)) == (0, None, False)
        assert [one.action for one in await audit_of(session, row.id)] == ["discount.given"]
        assert (await outbox_of(session, Topic.SUBSCRIPTION_CHANGED))[-1] == subscription.id

    async def test_what_is_not_given_any_more_is_refused(self, session, subscription, now):
        await a_coupon(session, now=now, code="late", redeem_until=now)
        assert await refusal(redeem(session, subscription.id, now=now, coupon="late")) == "coupon_expired"
        await a_coupon(session, now=now)
        await a_promotion_code(session, now=now, code="LATE", redeem_until=now)
        await a_promotion_code(session, now=now, code="GONE")
        assert (
            await refusal(redeem_code(session, subscription.id, now=now, code="LATE")) == "promotion_code_expired"
        )
        await archive_promotion_code(session, code="GONE", actor=ACTOR, now=now)
        assert (
            await refusal(redeem_code(session, subscription.id, now=now, code="GONE")) == "promotion_code_archived"
        )
        await a_promotion_code(session, now=now)
        await archive_coupon(session, code="spring", actor=ACTOR, now=now)
        assert await refusal(redeem(session, subscription.id, now=now)) == "coupon_archived"
        assert await refusal(redeem_code(session, subscription.id, now=now)) == "coupon_archived"

    async def test_another_currency_plan_or_product_is_refused(self, session, subscription, now):
        await a_published_plan(session, now=now, code="maps-pro", product="maps")
        await a_coupon(session, now=now, code="euro", amount_minor=500, currency="EUR")
        await a_coupon(session, now=now, code="pro", plan_codes=("maps-pro",))
        await a_coupon(session, now=now, code="maps", product_codes=("maps",))
        codes = [
            await refusal(redeem(session, subscription.id, now=now, coupon=code))
            for code in ("euro", "pro", "maps")
        ]
        assert codes == ["coupon_currency_differs", "coupon_plan_differs", "coupon_product_differs"]

    async def test_a_plan_that_the_subscription_is_planned_to_be_on_will_do(self, session, subscription, now):
        await a_published_plan(session, now=now, code="growth")
        await a_coupon(session, now=now, plan_codes=("growth",))
        await change_plan(
            session,
            subscription_id=subscription.id,
            plan_code="growth",
            effective_at=now + DAY,
            actor=ACTOR,
            now=now,
        )
        await redeem(session, subscription.id, now=now)

    async def test_the_same_coupon_again_only_when_it_is_over(self, session, subscription, now):
        await a_coupon(session, now=now)
        row = await redeem(session, subscription.id, now=now)
        assert await refusal(redeem(session, subscription.id, now=now)) == "already_discounted"
        await remove_discount(session, subscription_id=subscription.id, discount_id=row.id, actor=ACTOR, now=now)
        await redeem(session, subscription.id, now=now)

    async def test_a_code_once_for_each_account(self, session, subscription, now):
        await a_coupon(session, now=now)
        await a_promotion_code(session, now=now)
        row = await redeem_code(session, subscription.id, now=now)
        await remove_discount(session, subscription_id=subscription.id, discount_id=row.id, actor=ACTOR, now=now)
        assert await refusal(redeem_code(session, subscription.id, now=now)) == "promotion_code_used_before"

    async def test_for_new_customers_only(self, session, subscription, now):
        await a_coupon(session, now=now)
        await a_promotion_code(session, now=now, first_time_only=True)
        invoice = await a_final_invoice(session, subscription.account_id, now=now)
        session.add(FirstPayment(account_id=subscription.account_id, invoice_id=invoice.id, paid_at=now))
        await session.flush()
        assert await refusal(redeem_code(session, subscription.id, now=now)) == "promotion_code_first_time_only"

    async def test_from_a_minimum_price_on(self, session, subscription, now):
        await a_coupon(session, now=now)
        for place, (minimum, currency) in enumerate([(4_901, "USD"), (1, "EUR"), (4_900, "USD")]):
            code = f"MIN{place}"
            await a_promotion_code(session, now=now, code=code, minimum_minor=minimum, minimum_currency=currency)
            if (minimum, currency) == (4_900, "USD"):
                await redeem_code(session, subscription.id, now=now, code=code)
            else:
                refused = await refusal(redeem_code(session, subscription.id, now=now, code=code))
                assert refused == "promotion_code_below_minimum"

    async def test_what_is_over_has_no_discounts(self, session, subscription, now):
        await a_coupon(session, now=now)
        await cancel(session, subscription_id=subscription.id, at="now", actor=ACTOR, now=now + DAY)
        with pytest.raises(SubscriptionOverError):
            await redeem(session, subscription.id, now=now + DAY)
        with pytest.raises(NotFoundError):
            await redeem(session, "sub_" + "0" * 26, now=now)


class TestRemove:
    async def test_one_that_took_nothing_off_is_gone(self, session, subscription, now):
        await a_coupon(session, now=now)
        row = await redeem(session, subscription.id, now=now)
        for _ in range(2):
            gone = await remove_discount(
                session, subscription_id=subscription.id, discount_id=row.id, actor=ACTOR, now=now
            )
            assert gone.removed_at == now
        assert [one.action for one in await audit_of(session, row.id)] == ["discount.given", "discount.removed"]

    async def test_only_of_its_own_subscription(self, session, subscription, now):
        await a_coupon(session, now=now)
        row = await redeem(session, subscription.id, now=now)
        with pytest.raises(NotFoundError):
            await remove_discount(
                session, subscription_id="sub_" + "0" * 26, discount_id=row.id, actor=ACTOR, now=now
            )


class TestManyAtOnce:
    """Accounts redeem at the same moment what may be redeemed less often."""

    async def several(self, sessions, now, count=8):
        async with sessions() as session, session.begin():
            await a_published_plan(session, now=now)
            accounts = [await an_account(session, now=now) for _ in range(count)]
            return [(await a_subscription(session, account, now=now)).id for account in accounts]

    async def attempt(self, sessions, now, subscription_id, take, **options):
        async with sessions() as session, session.begin():
            try:
                await take(session, subscription_id, now=now, **options)
            except UsedUpError:
                await session.rollback()
                return False
        return True

    async def test_a_coupon_is_never_redeemed_too_often_by_either_way(self, sessions, now):
        subscriptions = await self.several(sessions, now)
        async with sessions() as session, session.begin():
            await a_coupon(session, now=now, max_redemptions=3)
            await a_promotion_code(session, now=now)
        taken = await asyncio.gather(
            *(
                self.attempt(sessions, now, one, redeem if place % 2 else redeem_code)
                for place, one in enumerate(subscriptions)
            )
        )
        async with sessions() as session:
            assert sum(taken) == 3
            assert await session.scalar(select(func.count()).select_from(DiscountRow)) == 3
            assert await session.scalar(select(Coupon.redemptions)) == 3

    async def test_a_code_has_a_limit_of_its_own(self, sessions, now):
        subscriptions = await self.several(sessions, now, count=6)
        async with sessions() as session, session.begin():
            await a_coupon(session, now=now)
            await a_promotion_code(session, now=now, max_redemptions=2)
        taken = await asyncio.gather(*(self.attempt(sessions, now, one, redeem_code) for one in subscriptions))
        async with sessions() as session:
            assert sum(taken) == 2
            assert await session.scalar(select(PromotionCode.redemptions)) == 2

    async def test_an_account_has_a_code_once_on_all_its_subscriptions(self, sessions, now):
        async with sessions() as session, session.begin():
            account = await an_account(session, now=now)
            subscriptions = []
            for product in ("weather", "maps", "news"):
                await a_published_plan(session, now=now, code=f"{product}-plan", product=product)
                made = await a_subscription(session, account, now=now, plan=f"{product}-plan")
                subscriptions.append(made.id)
            await a_coupon(session, now=now)
            await a_promotion_code(session, now=now)

        async def attempt(subscription_id):
            async with sessions() as session, session.begin():
                try:
                    await redeem_code(session, subscription_id, now=now)
                except RedemptionRefusedError as refused:
                    await session.rollback()
                    return refused.code
            return "taken"

        outcomes = await asyncio.gather(*map(attempt, subscriptions))
        assert sorted(outcomes) == ["promotion_code_used_before", "promotion_code_used_before", "taken"]
