"""Coupons and promotion codes over the API."""

import pytest
import stripe

DAY = 86_400
HOUR = 3_600


def totals(shop, customer):
    return [one.total for one in reversed(shop.invoices(customer))]


class TestCoupons:
    @pytest.mark.parametrize(
        ("coupon", "expected"),
        [
            ({"percent_off": 25, "duration": "once"}, [3675, 4900, 4900]),
            (
                {"amount_off": 1000, "currency": "usd", "duration": "repeating", "duration_in_months": 2},
                [3900, 3900, 4900],
            ),
            ({"percent_off": 50, "duration": "forever"}, [2450, 2450, 2450]),
        ],
    )
    def test_last_as_long_as_they_say(self, shop, coupon, expected):
        customer = shop.customer()
        made = shop.client.v1.coupons.create(coupon).id
        sub = shop.subscribe(customer, "pro", discounts=[{"coupon": made}])
        for _ in range(2):
            shop.to_period_end(sub, plus=HOUR)
        assert totals(shop, customer) == expected
        first = shop.invoices(customer)[-1]
        assert first.total_discount_amounts[0].amount == 4900 - expected[0]

    def test_cover_only_the_products_they_name(self, shop):
        coupon = shop.client.v1.coupons.create(
            {"percent_off": 50, "applies_to": {"products": [shop.other_product]}, "duration": "forever"}
        )
        sub = shop.subscribe(
            shop.customer(), "pro", "addon", discounts=[{"coupon": coupon.id}], expand=["latest_invoice"]
        )
        assert sub.latest_invoice.total == 4900 + 500

    def test_are_inside_the_prorations_of_a_change(self, shop):
        customer = shop.customer()
        coupon = shop.client.v1.coupons.create({"percent_off": 10, "duration": "forever"})
        sub = shop.subscribe(customer, "pro", discounts=[{"coupon": coupon.id}])
        shop.sim.control.advance(31 * DAY // 2)
        changed = shop.swap(sub, "pro", "team", proration_behavior="always_invoice", expand=["latest_invoice"])
        assert [one.amount for one in changed.latest_invoice.lines.data] == [-2205, 4455]
        assert changed.latest_invoice.total == 2250

    def test_stand_beside_prorations_that_itemise_them(self, shop):
        customer = shop.customer()
        coupon = shop.client.v1.coupons.create({"percent_off": 10, "duration": "forever"})
        mode = {"type": "flexible", "flexible": {"proration_discounts": "itemized"}}
        sub = shop.subscribe(customer, "pro", discounts=[{"coupon": coupon.id}], billing_mode=mode)
        shop.sim.control.advance(31 * DAY // 2)
        changed = shop.swap(sub, "pro", "team", proration_behavior="always_invoice", expand=["latest_invoice"])
        lines = changed.latest_invoice.lines.data
        assert [(one.amount, one.discount_amounts[0].amount) for one in lines] == [(-2450, -245), (4950, 495)]
        assert changed.latest_invoice.total == 2250

    def test_that_are_used_up_are_refused(self, shop):
        coupon = shop.client.v1.coupons.create({"percent_off": 10, "max_redemptions": 1})
        shop.subscribe(shop.customer(), "pro", discounts=[{"coupon": coupon.id}])
        with pytest.raises(stripe.InvalidRequestError) as refused:
            shop.subscribe(shop.customer(), "pro", discounts=[{"coupon": coupon.id}])
        assert (refused.value.code, refused.value.param) == ("coupon_expired", "discounts[0][coupon]")

    def test_can_be_taken_off(self, shop):
        coupon = shop.client.v1.coupons.create({"percent_off": 10, "duration": "forever"})
        sub = shop.subscribe(shop.customer(), "pro", discounts=[{"coupon": coupon.id}])
        assert shop.client.v1.subscriptions.update(sub.id, {"discounts": ""}).discounts == []


class TestPromotionCodes:
    @pytest.mark.parametrize(
        ("restriction", "code"),
        [
            ({"expires_at": 1_772_366_401}, "promotion_code_expired"),
            ({"max_redemptions": 1}, "promotion_code_max_redemptions"),
            ({"active": False}, "promotion_code_inactive"),
            ({"restrictions": {"first_time_transaction": True}}, "customer_max_redemptions"),
        ],
    )
    def test_are_refused_outside_their_terms(self, shop, restriction, code):
        coupon = shop.client.v1.coupons.create({"percent_off": 10, "duration": "once"}).id
        promotion = shop.client.v1.promotion_codes.create(
            {"promotion": {"type": "coupon", "coupon": coupon}, **restriction}
        )
        customer = shop.customer()
        if "expires_at" in restriction or "active" in restriction:
            shop.sim.control.advance(2)
        else:
            shop.subscribe(customer, "pro", discounts=[{"promotion_code": promotion.id}])
        with pytest.raises(stripe.InvalidRequestError) as refused:
            shop.subscribe(customer, "team", discounts=[{"promotion_code": promotion.id}])
        assert refused.value.code == code


class TestChangeOfDiscounts:
    def test_holds_for_what_begins_with_it(self, shop):
        customer = shop.customer()
        sub = shop.subscribe(customer, "pro")
        coupon = shop.client.v1.coupons.create({"percent_off": 50, "duration": "forever"}).id
        shop.sim.control.advance(31 * DAY // 2)
        more = {
            "proration_behavior": "always_invoice",
            "discounts": [{"coupon": coupon}],
            "expand": ["latest_invoice"],
        }
        changed = shop.swap(sub, "pro", "team", **more)
        assert [one.amount for one in changed.latest_invoice.lines.data] == [-2450, 2475]
        assert len(changed.discounts) == 1

    def test_comes_by_itself_when_their_time_is_over(self, shop):
        terms = {"percent_off": 10, "duration": "repeating", "duration_in_months": 1}
        sub = shop.subscribe(
            shop.customer(), "pro", discounts=[{"coupon": shop.client.v1.coupons.create(terms).id}]
        )
        shop.to_period_end(sub)
        assert shop.again(sub).discounts == []
        assert "customer.discount.deleted" in shop.events()
