"""Discounts, taxes and balances, as tables worked out by hand."""

from decimal import Decimal

import pytest

from devstack.stripe.billing.totals import Counted, Discounting, Taxing, settle, total_up


def percent(value, **more):
    return Discounting("di_p", percent=Decimal(value), **more)


def off(amount, **more):
    return Discounting("di_a", amount=amount, **more)


class TestDiscounts:
    @pytest.mark.parametrize(
        ("amounts", "discounts", "taken"),
        [
            ([1000], [percent("25")], 250),
            ([333], [percent("50")], 167),
            ([333, 333], [percent("50")], 333),
            ([1000], [off(300), percent("50")], 650),
            ([1000], [percent("50"), off(300)], 800),
            ([200], [off(300)], 200),
            ([1000, -400], [percent("10")], 100),  # credits are not discounted
            ([1000], [percent("100"), off(5)], 1000),
        ],
    )
    def test_are_taken_in_order_of_what_is_left(self, amounts, discounts, taken):
        totals = total_up([Counted(one) for one in amounts], discounts)
        assert totals.discount == taken
        assert totals.total == sum(amounts) - taken

    def test_touch_only_the_products_they_apply_to(self):
        lines = [Counted(1000, product="a"), Counted(1000, product="b")]
        total_up(lines, [percent("50", products=frozenset({"b"}))])
        assert [line.discounts for line in lines] == [{}, {"di_p": 500}]

    def test_leave_out_what_takes_no_discount_and_keep_what_stands(self):
        lines = [Counted(1000, discountable=False, fixed=(("di_f", 70),)), Counted(500)]
        assert total_up(lines, [percent("10")]).discount == 120

    def test_of_a_line_replace_those_of_the_invoice(self):
        lines = [Counted(1000, own=(Discounting("di_own", percent=Decimal(20)),)), Counted(1000)]
        total_up(lines, [percent("10")])
        assert [line.discounts for line in lines] == [{"di_own": 200}, {"di_p": 100}]


class TestTaxes:
    def test_exclusive_ones_come_on_top_of_what_discounts_leave(self):
        vat = Taxing("txr_1", Decimal(19))
        totals = total_up([Counted(999, taxing=(vat,)), Counted(1, taxing=(vat,))], [percent("10")])
        assert (totals.subtotal, totals.discount, totals.exclusive_tax, totals.total) == (1000, 100, 171, 1071)
        assert totals.total_excluding_tax == 900

    def test_inclusive_ones_are_inside(self):
        totals = total_up([Counted(1100, taxing=(Taxing("txr_1", Decimal(10), inclusive=True),))], [])
        assert (totals.inclusive_tax, totals.total, totals.total_excluding_tax) == (100, 1100, 1000)

    def test_credits_lower_them(self):
        vat = Taxing("txr_1", Decimal(20))
        assert total_up([Counted(1000, taxing=(vat,)), Counted(-400, taxing=(vat,))], []).exclusive_tax == 120


class TestBalance:
    @pytest.mark.parametrize(
        ("total", "balance", "due", "left"),
        [
            (1000, 0, 1000, 0),
            (1000, -300, 700, 0),
            (1000, -1500, 0, -500),
            (1000, 200, 1200, 0),
            (-700, 0, 0, -700),
            (0, -50, 0, -50),
            (49, 0, 0, 49),  # less than can be charged waits
            (50, 0, 50, 0),
        ],
    )
    def test_pays_first_and_takes_what_cannot_be_charged(self, total, balance, due, left):
        settled = settle(total, balance=balance, currency="usd")
        assert (settled.amount_due, settled.ending_balance) == (due, left)
