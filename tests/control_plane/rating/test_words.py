"""Amounts as people read them."""

from decimal import Decimal

import pytest

from control_plane.rating.words import format_amount


class TestFormatAmount:
    @pytest.mark.parametrize(
        ("amount", "currency", "text"),
        [
            ("49", "USD", "$49.00"),
            ("0.0015", "USD", "$0.0015"),
            ("1234567.5", "USD", "$1,234,567.50"),
            ("-5", "USD", "-$5.00"),
            ("-5", "CHF", "-5.00 CHF"),
            ("0", "USD", "$0.00"),
            ("500", "JPY", "¥500"),
        ],
    )
    def test_has_the_digits_that_count_and_its_sign_first(self, amount, currency, text):
        assert format_amount(Decimal(amount), currency) == text
