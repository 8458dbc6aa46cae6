"""What prices charge, as tables worked out by hand."""

from decimal import Decimal

import pytest

from devstack.stripe.billing.amounts import charges, to_minor, total
from devstack.stripe.billing.lines import in_words


def flat(amount, **more):
    return {
        "billing_scheme": "per_unit",
        "unit_amount_decimal": Decimal(amount),
        "transform_quantity": None,
        **more,
    }


def tiered(mode, *tiers):
    rows = [
        {"up_to": up_to, "unit_amount_decimal": Decimal(unit), "flat_amount": fee} for up_to, unit, fee in tiers
    ]
    return {"billing_scheme": "tiered", "tiers_mode": mode, "tiers": rows}


def amounts(price, quantity):
    return [one.amount for one in charges(price, quantity)]


class TestRounding:
    @pytest.mark.parametrize(
        ("exact", "minor"),
        [("0.4", 0), ("0.5", 1), ("1.5", 2), ("2.5", 3), ("-0.5", -1), ("-2.5", -3), ("2.4999999", 2)],
    )
    def test_a_half_goes_away_from_zero(self, exact, minor):
        assert to_minor(Decimal(exact)) == minor


class TestPerUnit:
    @pytest.mark.parametrize(
        ("unit", "quantity", "amount"),
        [
            ("4900", 1, 4900),
            ("0.04", 12, 0),
            ("0.04", 13, 1),
            ("0.0001", 1_234_567, 123),
            ("1", 0, 0),
            ("1", -5, 0),
        ],
    )
    def test_is_quantity_times_unit_amount_rounded_once(self, unit, quantity, amount):
        assert amounts(flat(unit), quantity) == [amount]

    @pytest.mark.parametrize(
        ("rounding", "quantity", "packages"),
        [("up", 0, 0), ("up", 1, 1), ("up", 1000, 1), ("up", 1001, 2), ("down", 1999, 1)],
    )
    def test_packages_are_counted_whole(self, rounding, quantity, packages):
        price = flat("500", transform_quantity={"divide_by": 1000, "round": rounding})
        assert amounts(price, quantity) == [500 * packages]


QUOTA = tiered("graduated", (1000, "0", None), (5000, "0.5", None), (None, "0.333", 700))


class TestGraduated:
    @pytest.mark.parametrize(
        ("quantity", "lines"),
        [
            (0, [0]),
            (1000, [0]),
            (1001, [0, 1]),  # half a cent
            (5000, [0, 2000]),
            (5001, [0, 2000, 0, 700]),
            (8000, [0, 2000, 999, 700]),
        ],
    )
    def test_each_tier_reached_is_a_line_of_its_own_rounded_by_itself(self, quantity, lines):
        assert amounts(QUOTA, quantity) == lines

    def test_the_exact_total_knows_no_rounding(self):
        assert total(QUOTA, 1001) == Decimal("0.5")

    def test_a_flat_amount_of_the_first_tier_is_due_even_for_nothing(self):
        assert amounts(tiered("graduated", (10, "1", 300), (None, "1", None)), 0) == [0, 300]


class TestVolume:
    @pytest.mark.parametrize(("quantity", "lines"), [(0, [0]), (10, [100]), (11, [55, 200]), (1000, [5000, 200])])
    def test_all_units_take_the_rate_of_the_tier_reached(self, quantity, lines):
        assert amounts(tiered("volume", (10, "10", None), (None, "5", 200)), quantity) == lines


class TestWords:
    @pytest.mark.parametrize(
        ("amount", "currency", "words"),
        [
            ("4900", "usd", "$49.00"),
            ("0.04", "usd", "$0.0004"),
            ("-150", "eur", "-€1.50"),
            ("500", "jpy", "¥500"),
            ("1234567", "sek", "12,345.67 SEK"),
        ],
    )
    def test_show_at_least_the_digits_of_the_currency(self, amount, currency, words):
        assert in_words(Decimal(amount), currency) == words
