"""What the catalogue accepts of a price's parameters, rating reads, and the other way round."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from control_plane.catalog import prices as catalog
from control_plane.foundation.errors import ValidationFailedError
from control_plane.rating import params as rating
from control_plane.rating.model import RatingError
from control_plane.rating.models import MODELS, read_price
from tests.control_plane.rating.unhurried import UNHURRIED

texts = st.sampled_from(
    ["0", "1", "49.00", "0.0015", "7.5", "100", "100.01", "999999999999.999999999999", "1000000000000",
     "0.0000000000001", "-1", "1e3", "", "x", "1.", ".5", "\u0661", "0.005"]
)  # fmt: skip
counts = st.sampled_from([0, 1, 5, 6, 2**53 - 1, 2**53, -1, True, None, "5", 1.0])
values = st.one_of(texts, counts, st.sampled_from(["usage", "all", "other", [], {}]))
tier = st.fixed_dictionaries(
    {}, optional={"up_to": counts, "unit_amount": texts, "flat_amount": texts, "more": texts}
)
names = ["amount", "unit_amount", "included", "size", "percent", "counts", "flat_amount"]
anything = st.dictionaries(st.sampled_from(names), values, max_size=3)
nearly = {
    "flat": st.fixed_dictionaries({"amount": texts}),
    "setup_fee": st.fixed_dictionaries({"amount": texts}),
    "commitment": st.fixed_dictionaries({"amount": texts, "counts": st.sampled_from(["usage", "all", "none"])}),
    "per_unit": st.fixed_dictionaries({"unit_amount": texts}),
    "overage": st.fixed_dictionaries({"included": counts, "unit_amount": texts}),
    "package": st.fixed_dictionaries({"size": counts, "amount": texts}),
    "percentage": st.fixed_dictionaries({"percent": texts}),
    "graduated": st.fixed_dictionaries({"tiers": st.lists(tier, max_size=3)}),
    "volume": st.fixed_dictionaries({"tiers": st.lists(tier, max_size=3)}),
}
priced = st.sampled_from(sorted(MODELS)).flatmap(
    lambda model: st.tuples(st.just(model), st.one_of(nearly[model], nearly[model], anything))
)


def canonical(model: str, params: dict, currency: str) -> dict | None:
    try:
        return catalog.check_price_params(model, params, currency=currency)
    except ValidationFailedError:
        return None


def read(model: str, params: dict, currency: str):
    try:
        return read_price(model, params, currency)
    except RatingError:
        return None


class TestCatalogueAndRating:
    def test_know_the_same_models(self):
        assert set(catalog.MODELS) == set(MODELS)

    @pytest.mark.parametrize("name", ["MAX_DECIMALS", "MAX_TIERS", "MAX_UNITS", "MAX_PERCENT"])
    def test_have_the_same_bounds(self, name):
        assert getattr(catalog, name) == getattr(rating, name)

    @UNHURRIED
    @given(price=priced, currency=st.sampled_from(["USD", "JPY", "KWD"]))
    @example(price=("volume", {"tiers": [{"up_to": None}]}), currency="USD")
    @example(price=("overage", {"included": 2**53, "unit_amount": "1"}), currency="USD")
    @example(price=("flat", {"amount": "0.005"}), currency="USD")
    @example(price=("flat", {"amount": "0.005"}), currency="KWD")
    @example(price=("percentage", {"percent": "100.01"}), currency="USD")
    @example(price=("graduated", {"tiers": [{"up_to": None, "unit_amount": "1"}] * 101}), currency="USD")
    def test_accept_the_same_parameters_and_mean_the_same_price(self, price, currency):
        model, params = price
        accepted, understood = canonical(model, params, currency), read(model, params, currency)
        # the catalogue takes numbers, too, and keeps them as text
        assert (accepted is None) == (read(model, accepted or params, currency) is None)
        if understood is not None:
            assert read(model, accepted, currency) == understood

    @UNHURRIED
    @given(amount=st.decimals(0, 10**6, places=4))
    def test_numbers_are_read_by_rating_in_their_canonical_form(self, amount: Decimal):
        (kept,) = (canonical("per_unit", {"unit_amount": amount}, "USD"),)
        assert read("per_unit", kept, "USD").unit_amount == amount

    def test_what_may_be_left_out_stands_in_the_canonical_form(self):
        assert read("commitment", canonical("commitment", {"amount": 5}, "USD"), "USD").counts == "usage"
