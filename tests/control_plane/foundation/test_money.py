"""Money is rounded half up, in one place, to the currency's own minor unit."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.foundation.money import (
    CurrencyMixError,
    Money,
    UnknownCurrencyError,
    minor_units,
    round_minor,
)


class TestRoundMinor:
    @pytest.mark.parametrize(
        ("amount", "currency", "minor"),
        [
            ("0", "USD", 0),
            ("49.00", "USD", 4900),
            ("0.004999999999", "USD", 0),
            ("0.005", "USD", 1),
            ("0.015", "USD", 2),
            ("1.005", "USD", 101),
            ("2.675", "USD", 268),
            ("-0.004", "USD", 0),
            ("-0.005", "USD", -1),
            ("-1.005", "USD", -101),
            ("0.5", "JPY", 1),
            ("0.4999", "JPY", 0),
            ("1234.5", "JPY", 1235),
            ("0.0005", "KWD", 1),
            ("0.00049", "KWD", 0),
            ("1.2345", "KWD", 1235),
            ("0.000000000001", "USD", 0),
            ("123456789012345678901234567890.125", "USD", 12345678901234567890123456789013),
        ],
    )
    def test_rounds_half_away_from_zero_at_the_currencys_last_digit(self, amount, currency, minor):
        assert round_minor(Decimal(amount), currency) == minor

    @given(st.integers(-(10**15), 10**15), st.sampled_from(["USD", "JPY", "KWD"]))
    def test_leaves_whole_minor_units_alone(self, minor, currency):
        assert round_minor(Money(minor, currency).as_decimal(), currency) == minor

    @given(st.decimals(-(10**9), 10**9, places=12))
    def test_is_never_off_by_more_than_half_a_cent_and_symmetric(self, amount):
        minor = round_minor(amount, "USD")
        assert abs(Decimal(minor) - amount * 100) <= Decimal("0.5")
        assert round_minor(-amount, "USD") == -minor

    def test_refuses_an_unknown_currency(self):
        with pytest.raises(UnknownCurrencyError):
            round_minor(Decimal(1), "usd")


class TestMoney:
    def test_reads_with_the_currencys_digits(self):
        assert [str(Money(4900, "USD")), str(Money(4900, "JPY")), str(Money(-5, "KWD"))] == [
            "49.00 USD",
            "4900 JPY",
            "-0.005 KWD",
        ]

    def test_adds_and_subtracts_in_one_currency(self):
        assert Money(100, "USD") + Money(1, "USD") == Money(101, "USD")
        assert Money(100, "USD") - Money(101, "USD") == Money(-1, "USD")

    def test_refuses_to_mix_currencies(self):
        with pytest.raises(CurrencyMixError):
            Money(1, "USD") + Money(1, "EUR")

    def test_knows_the_digits_of_a_currency(self):
        assert [minor_units(code) for code in ("USD", "EUR", "JPY", "BHD")] == [2, 2, 0, 3]
