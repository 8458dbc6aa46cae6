"""Price parameters: exact text, one canonical form, errors that name the field."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.catalog.prices import canonical_amount, check_price_params
from control_plane.foundation.errors import ValidationFailedError
from control_plane.rating.models import read_price


class TestCanonicalAmount:
    @pytest.mark.parametrize(
        ("written", "currency", "canonical"),
        [
            ("49", "USD", "49.00"),
            (49, "USD", "49.00"),
            ("49.0", "USD", "49.00"),
            ("49.00000", "USD", "49.00"),
            (Decimal("0.0015"), "USD", "0.0015"),
            (Decimal("1E-12"), "USD", "0.000000000001"),
            (Decimal("1E+3"), "USD", "1000.00"),
            ("0.10", "USD", "0.10"),
            ("0.1", "USD", "0.10"),
            ("007.5", "USD", "7.50"),
            (0, "USD", "0.00"),
            ("500", "JPY", "500"),
            ("500.50", "JPY", "500.5"),
            ("1.5", "KWD", "1.500"),
            ("999999999999.999999999999", "USD", "999999999999.999999999999"),
        ],
    )
    def test_writes_equal_amounts_alike(self, written, currency, canonical):
        assert canonical_amount(written, currency=currency, field="f") == canonical

    @pytest.mark.parametrize(
        "written",
        [0.0015, True, None, "", "-1", -1, "1e3", "1,5", "0x10", "\u0661", "1.", ".5", "NaN", Decimal("NaN"),
         Decimal("-0.1"), "0.0000000000001", "1000000000000", Decimal(10) ** 12, [], "1 2"],
    )  # fmt: skip
    def test_refuses_what_is_not_an_exact_amount(self, written):
        with pytest.raises(ValidationFailedError) as refused:
            canonical_amount(written, currency="USD", field="prices[0].amount")
        assert refused.value.field == "prices[0].amount"

    @given(st.decimals(0, 10**9, places=12), st.sampled_from(["USD", "JPY", "KWD"]))
    def test_keeps_the_value_and_is_its_own_canonical_form(self, amount, currency):
        canonical = canonical_amount(amount, currency=currency, field="f")
        assert Decimal(canonical) == amount
        assert canonical_amount(canonical, currency=currency, field="f") == canonical


GOOD = [
    ("flat", {"amount": "49"}, {"amount": "49.00"}),
    ("setup_fee", {"amount": 500}, {"amount": "500.00"}),
    ("commitment", {"amount": "500"}, {"amount": "500.00", "counts": "usage"}),
    ("commitment", {"amount": "500", "counts": "all"}, {"amount": "500.00", "counts": "all"}),
    ("percentage", {"percent": "2.90"}, {"percent": "2.9"}),
    ("percentage", {"percent": 100}, {"percent": "100"}),
    ("per_unit", {"unit_amount": "0.0005"}, {"unit_amount": "0.0005"}),
    ("overage", {"included": 0, "unit_amount": 1}, {"included": 0, "unit_amount": "1.00"}),
    ("package", {"size": 1000, "amount": "0.8"}, {"size": 1000, "amount": "0.80"}),
    (
        "graduated",
        {"tiers": [{"up_to": 10, "unit_amount": 0}, {"up_to": None, "unit_amount": "0.01", "flat_amount": 5}]},
        {
            "tiers": [
                {"up_to": 10, "unit_amount": "0.00"},
                {"up_to": None, "unit_amount": "0.01", "flat_amount": "5.00"},
            ]
        },
    ),
    (
        "volume",
        {"tiers": [{"up_to": None, "flat_amount": 5}]},
        {"tiers": [{"up_to": None, "flat_amount": "5.00"}]},
    ),
]


def tiers(*ends, **more):
    return {"tiers": [{"up_to": end, "unit_amount": "1", **more} for end in ends]}


class TestCheckPriceParams:
    @pytest.mark.parametrize(("model", "params", "canonical"), GOOD, ids=[case[0] for case in GOOD])
    def test_accepts_what_rating_can_read(self, model, params, canonical):
        checked = check_price_params(model, params, currency="USD")
        assert checked == canonical
        assert check_price_params(model, checked, currency="USD") == canonical
        read_price(model, checked, "USD")

    @pytest.mark.parametrize(
        ("model", "params", "field"),
        [
            ("metered", {}, "model"),
            ("flat", {}, "amount"),
            ("flat", {"amount": "49.005"}, "amount"),
            ("setup_fee", {"amount": "49.005"}, "amount"),
            ("commitment", {"amount": "1", "counts": "fixed"}, "counts"),
            ("commitment", {"counts": "all"}, "amount"),
            ("percentage", {}, "percent"),
            ("percentage", {"percent": 2.9}, "percent"),
            ("percentage", {"percent": "100.01"}, "percent"),
            ("flat", {"amount": "1", "unit_amount": "1"}, "unit_amount"),
            ("per_unit", {"amount": "1"}, "amount"),
            ("overage", {"unit_amount": "1"}, "included"),
            ("overage", {"included": -1, "unit_amount": "1"}, "included"),
            ("overage", {"included": "5", "unit_amount": "1"}, "included"),
            ("overage", {"included": True, "unit_amount": "1"}, "included"),
            ("package", {"size": 0, "amount": "1"}, "size"),
            ("graduated", {"tiers": []}, "tiers"),
            ("graduated", {"tiers": {}}, "tiers"),
            ("graduated", {"tiers": ["x"]}, "tiers[0]"),
            ("graduated", tiers(10), "tiers[0].up_to"),
            ("graduated", tiers(None, None), "tiers[0].up_to"),
            ("graduated", tiers(10, 10, None), "tiers[1].up_to"),
            ("volume", tiers(0, None), "tiers[0].up_to"),
            ("volume", tiers(None, price=1), "tiers[0].price"),
            ("volume", {"tiers": [{"unit_amount": 1}]}, "tiers[0].up_to"),
            ("volume", {"tiers": [{"up_to": None}]}, "tiers[0].unit_amount"),
            ("volume", {"tiers": [{"up_to": None, "unit_amount": 0.1}]}, "tiers[0].unit_amount"),
        ],
    )
    def test_names_the_wrong_parameter(self, model, params, field):
        with pytest.raises(ValidationFailedError) as refused:
            check_price_params(model, params, currency="USD")
        assert refused.value.field == field
