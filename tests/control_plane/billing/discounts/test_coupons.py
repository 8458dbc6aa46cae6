"""Coupons and promotion codes: what may be in them, and that what was redeemed is final."""

from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from control_plane.billing.discounts.checks import check_code_terms, check_promotion_code, check_terms
from control_plane.billing.discounts.coupons import (
    CodeTakenError,
    CouponRedeemedError,
    archive_coupon,
    archive_promotion_code,
    change_coupon,
    terms_of,
)
from control_plane.billing.discounts.model import CodeTerms, CouponTerms, Duration, discount_name
from control_plane.billing.discounts.queries import coupon_page, promotion_code_page
from control_plane.billing.discounts.refusals import ArchivedError
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from tests.control_plane.billing.discounts.coupon_rows import a_coupon, a_promotion_code, redeem
from tests.control_plane.builders import ACTOR, audit_of

TWENTY = CouponTerms(name="Spring", percent=Decimal(20), duration=Duration.FOREVER)


class TestTerms:
    @pytest.mark.parametrize(
        ("terms", "field"),
        [
            ({"percent": None}, "percent"),
            ({"amount_minor": 500, "currency": "USD"}, "percent"),
            ({"percent": Decimal(0)}, "percent"),
            ({"percent": Decimal("100.0001")}, "percent"),
            ({"percent": Decimal("NaN")}, "percent"),
            ({"percent": Decimal("0.00001")}, "percent"),
            ({"currency": "USD"}, "currency"),
            ({"percent": None, "amount_minor": 500}, "currency"),
            ({"percent": None, "amount_minor": 500, "currency": "XXX"}, "currency"),
            ({"percent": None, "amount_minor": 0, "currency": "USD"}, "amount"),
            ({"duration": Duration.MONTHS}, "count"),
            ({"duration": Duration.PERIODS, "count": 0}, "count"),
            ({"duration": Duration.PERIODS, "count": 121}, "count"),
            ({"duration": Duration.ONCE, "count": 3}, "count"),
            ({"max_redemptions": 0}, "max_redemptions"),
            ({"name": " "}, "name"),
        ],
    )
    def test_names_the_field_that_is_wrong(self, terms, field):
        with pytest.raises(ValidationFailedError) as refused:
            check_terms(CouponTerms(**{"name": "Spring", "percent": Decimal(20), **terms}))
        assert refused.value.field == field

    @pytest.mark.parametrize("percent", ["0.0001", "33.3333", "100"])
    def test_takes_percentages_to_four_decimals(self, percent):
        check_terms(CouponTerms(name="Spring", percent=Decimal(percent)))

    @pytest.mark.parametrize(
        ("typed", "kept"), [(" spring26 ", "SPRING26"), ("A-1_B", "A-1_B"), ("2FOR1", "2FOR1")]
    )
    def test_promotion_codes_are_kept_in_capitals(self, typed, kept):
        assert check_promotion_code(typed) == kept

    @pytest.mark.parametrize("typed", ["", "AB", "-AB", "A B C", "SPRÄNG", "A" * 49])
    def test_refuses_codes_that_nobody_could_type(self, typed):
        with pytest.raises(ValidationFailedError):
            check_promotion_code(typed)

    @pytest.mark.parametrize(
        ("terms", "field"),
        [
            ({"max_redemptions": 0}, "max_redemptions"),
            ({"minimum_minor": 0, "minimum_currency": "USD"}, "minimum_amount"),
            ({"minimum_minor": 100}, "minimum_currency"),
            ({"minimum_minor": 100, "minimum_currency": "XYZ"}, "minimum_currency"),
        ],
    )
    def test_names_what_is_wrong_about_a_promotion_code(self, terms, field):
        with pytest.raises(ValidationFailedError) as refused:
            check_code_terms(CodeTerms(**terms))
        assert refused.value.field == field

    def test_is_named_with_what_it_takes_off(self):
        assert (
            discount_name("Spring", percent=Decimal("25.0000"), amount_minor=None, currency=None)
            == "Spring (25% off)"
        )
        assert discount_name("Hi", percent=None, amount_minor=2_000, currency="USD") == "Hi (20.00 USD off)"


class TestCoupon:
    async def test_is_kept_as_it_was_given_and_told_of(self, session, subscription, now):
        coupon = await a_coupon(session, now=now, plan_codes=("starter",), product_codes=("weather",))
        assert (terms_of(coupon).percent, coupon.plan_codes) == (20, ["starter"])
        (row,) = await audit_of(session, coupon.id)
        assert (row.action, row.after["percent"]) == ("coupon.created", "20")

    async def test_refuses_plans_and_products_that_are_not_there(self, session, now):
        with pytest.raises(ValidationFailedError) as refused:
            await a_coupon(session, now=now, plan_codes=("starter",), product_codes=("weather",))
        assert [problem.field for problem in refused.value.problems] == ["plans[0]", "api_products[0]"]

    async def test_can_be_changed_until_it_is_redeemed(self, session, subscription, now):
        await a_coupon(session, now=now, percent=50)
        changed = await change_coupon(session, code="spring", terms=TWENTY, actor=ACTOR, now=now)
        assert (changed.percent, changed.name) == (20, "Spring")
        await redeem(session, subscription.id, now=now)
        assert await change_coupon(session, code="spring", terms=TWENTY, actor=ACTOR, now=now) is changed
        other = CouponTerms(name="Spring", percent=Decimal(21), duration=Duration.FOREVER)
        with pytest.raises(CouponRedeemedError):
            await change_coupon(session, code="spring", terms=other, actor=ACTOR, now=now)

    async def test_the_database_refuses_to_change_one_that_was_redeemed(self, session, subscription, now):
        await a_coupon(session, now=now)
        await redeem(session, subscription.id, now=now)
        for statement in (
            "UPDATE coupons SET percent = 99",
            "UPDATE coupons SET redemptions = 0",
            "DELETE FROM coupons",
        ):
            with pytest.raises(IntegrityError):
                async with session.begin_nested():
                    await session.execute(text(statement))
        await archive_coupon(session, code="spring", actor=ACTOR, now=now)

    async def test_archiving_twice_changes_nothing(self, session, now):
        coupon = await a_coupon(session, now=now)
        await archive_coupon(session, code="spring", actor=ACTOR, now=now)
        await archive_coupon(session, code="spring", actor=ACTOR, now=now + timedelta(days=1))
        assert coupon.archived_at == now
        assert [row.action for row in await audit_of(session, coupon.id)] == ["coupon.created", "coupon.archived"]
        other = CouponTerms(name="Spring", percent=Decimal(21), duration=Duration.FOREVER)
        with pytest.raises(ArchivedError):
            await change_coupon(session, code="spring", terms=other, actor=ACTOR, now=now)
        with pytest.raises(CodeTakenError) as taken:  # a code is given once
            await a_coupon(session, now=now)
        assert taken.value.code == "coupon_code_taken"


class TestPromotionCode:
    async def test_belongs_to_a_coupon_that_is_given(self, session, now):
        with pytest.raises(NotFoundError):
            await a_promotion_code(session, now=now)
        await a_coupon(session, now=now)
        made = await a_promotion_code(session, now=now, code="spring26")
        for _ in range(2):  # again changes nothing
            await archive_promotion_code(session, code="spring26", actor=ACTOR, now=now)
        actions = [row.action for row in await audit_of(session, made.id)]
        assert actions == ["promotion_code.created", "promotion_code.archived"]
        with pytest.raises(CodeTakenError) as taken:
            await a_promotion_code(session, now=now, code="Spring26")
        assert taken.value.code == "promotion_code_taken"
        await archive_coupon(session, code="spring", actor=ACTOR, now=now)
        with pytest.raises(ArchivedError):
            await a_promotion_code(session, now=now, code="MORE")


class TestLists:
    async def test_coupons_come_newest_first_page_by_page(self, session, now):
        for place in range(3):
            await a_coupon(session, now=now + timedelta(seconds=place), code=f"c{place}")
        await archive_coupon(session, code="c1", actor=ACTOR, now=now)
        page = await coupon_page(session, limit=1)
        rest = await coupon_page(session, limit=5, cursor=page.next_cursor)
        assert [one.code for one in (*page.items, *rest.items)] == ["c2", "c0"]
        assert len((await coupon_page(session, limit=5, archived=True)).items) == 3

    async def test_promotion_codes_of_one_coupon(self, session, now):
        for code in ("one", "two"):
            await a_coupon(session, now=now, code=code)
            await a_promotion_code(session, now=now, code=f"{code}-code", coupon=code)
        page = await promotion_code_page(session, limit=1)
        rest = await promotion_code_page(session, limit=1, cursor=page.next_cursor)
        assert [one.code for one in (*page.items, *rest.items)] == ["TWO-CODE", "ONE-CODE"]
        (only,) = (await promotion_code_page(session, limit=5, coupon_code="one")).items
        assert (only.code, only.coupon.code) == ("ONE-CODE", "one")
