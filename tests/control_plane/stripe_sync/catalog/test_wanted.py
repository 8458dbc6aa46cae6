"""What Stripe needs of a plan version, and what is asked for in words of Stripe's."""

from dataclasses import replace
from decimal import Decimal

import pytest

from control_plane.catalog.model import ADD_ON, PriceTerms
from control_plane.stripe_sync.catalog.wanted import Wanted, WantedPrice
from control_plane.stripe_sync.catalog.writing import price_params
from tests.control_plane.stripe_sync.catalog.builders import FLAT, OVERAGE, PRO, a_price, wanted


def price_at(found: Wanted, position: int, currency: str = "USD") -> WantedPrice:
    return next(price for price in found.prices if (price.position, price.currency) == (position, currency))


class TestWanted:
    def test_each_currency_has_the_same_prices_at_the_same_positions(self) -> None:
        euro = a_price("flat", currency="EUR", other=True, amount="45")
        euro_overage = a_price(
            "overage", "requests", currency="EUR", other=True, included=50_000, unit_amount="0.0014"
        )
        found = wanted(FLAT, OVERAGE, euro, euro_overage)
        assert [price.lookup_key for price in found.prices] == [
            "km:main:pro:3:0:USD",
            "km:main:pro:3:1:USD",
            "km:main:pro:3:0:EUR",
            "km:main:pro:3:1:EUR",
        ]
        assert len({price.terms_digest for price in found.prices}) == 4
        assert [meter.event_name for meter in found.meters] == ["km_main_weather_requests"]

    def test_a_plan_that_only_we_rate_has_a_price_of_nothing_to_carry_it(self) -> None:
        found = wanted(a_price("percentage", "cents", percent="2.9"), a_price("setup_fee", amount="10"))
        assert [(price.position, price.native.kind) for price in found.prices] == [
            (1, "setup_fee"),
            (2, "carrier"),
        ]
        assert [(ours.position, ours.model) for ours in found.ours] == [(0, "percentage")]
        assert found.meters == ()

    def test_a_free_plan_has_one_too_and_an_add_on_needs_none(self) -> None:
        assert [price.native.kind for price in wanted().prices] == ["carrier"]
        assert wanted(plan=replace(PRO, kind=ADD_ON)).prices == ()

    def test_declared_meters_that_add_up_are_stripe_s_and_others_ours(self) -> None:
        prices = (
            FLAT,
            a_price("per_unit", "searches", unit_amount="0.01"),
            a_price("per_unit", "users", unit_amount="1"),
        )
        found = wanted(
            *prices, aggregations={"searches": "count", "users": "unique"}, meter_names={"searches": "Searches"}
        )
        assert [(meter.meter, meter.display_name) for meter in found.meters] == [("searches", "Weather: Searches")]
        assert [ours.meter for ours in found.ours] == ["users"]

    def test_terms_keep_their_digest(self) -> None:
        # it stands at Stripe in prices that were made long ago: it must never come out otherwise
        found = wanted(FLAT, OVERAGE)
        assert [price.terms_digest for price in found.prices] == ["138266e2da8b6f80", "38d14551e3fcf829"]

    def test_a_name_that_changes_leaves_the_terms_digest_alone(self) -> None:
        before = price_at(wanted(FLAT), 0)
        after = price_at(wanted(FLAT, plan=replace(PRO, name="Professional", description="New")), 0)
        assert before.terms_digest == after.terms_digest

    def test_with_taxes_products_have_a_code_and_prices_a_behaviour(self) -> None:
        found = wanted(FLAT, automatic_tax=True)
        assert found.product.tax_code == "txcd_10103001"
        assert price_at(found, 0).tax_behavior == "exclusive"


class TestLimits:
    def problems(self, *prices: PriceTerms, currency: str = "USD") -> tuple[str, ...]:
        return wanted(*prices, currency=currency).problems

    def test_twenty_items_are_as_many_as_a_subscription_has(self) -> None:
        counted = [a_price("per_unit", f"m{number}", unit_amount="1") for number in range(20)]
        assert self.problems(*counted, a_price("setup_fee", amount="1")) == ()
        assert self.problems(FLAT, *counted) == (
            "A subscription at Stripe has at most 20 items, and this needs 21.",
        )

    @pytest.mark.parametrize("currency", ["ISK", "UGX", "MGA"])
    def test_a_currency_that_stripe_counts_otherwise_is_refused(self, currency: str) -> None:
        flat = a_price("flat", currency=currency, amount="4900")
        assert self.problems(flat, currency=currency) == (
            f"Stripe counts {currency} in other minor units than ISO 4217: bill it by own invoices.",
        )

    def test_three_digits_that_stripe_would_round_are_refused(self) -> None:
        fine = a_price("per_unit", "requests", currency="KWD", unit_amount="0.01")
        finer = a_price("per_unit", "requests", currency="KWD", unit_amount="0.0015")
        ours = a_price("commitment", currency="KWD", amount="5")
        assert self.problems(fine, currency="KWD") == ()
        assert "steps of 0.010" in self.problems(finer, currency="KWD")[0]
        assert "commitment" in self.problems(fine, ours, currency="KWD")[0]
        tiers = [{"up_to": None, "unit_amount": "0.01", "flat_amount": "1"}]
        per_tier = a_price("graduated", "requests", currency="KWD", tiers=tiers)
        assert "graduated" in self.problems(per_tier, currency="KWD")[0]

    @pytest.mark.parametrize("currency", ["USD", "JPY", "KWD", "HUF"])
    def test_other_currencies_are_not(self, currency: str) -> None:
        assert self.problems(a_price("flat", currency=currency, amount="4900"), currency=currency) == ()


class TestParams:
    def test_included_units_are_a_first_tier_of_nothing(self) -> None:
        price = price_at(wanted(FLAT, OVERAGE), 1)
        assert price_params(price, installation="main", meter_id="mtr_1") == {
            "currency": "usd",
            "product": "km_main_pln_1",
            "nickname": "pro v3: overage requests",
            "lookup_key": "km:main:pro:3:1:USD",
            "metadata": {
                "km_installation": "main",
                "km_object": "plv_1:1",
                "km_digest": price.terms_digest,
            },
            "billing_scheme": "tiered",
            "tiers_mode": "graduated",
            "tiers": [
                {"up_to": 50_000, "unit_amount_decimal": Decimal(0)},
                {"up_to": "inf", "unit_amount_decimal": Decimal("0.15")},
            ],
            "recurring": {"interval": "month", "usage_type": "metered", "meter": "mtr_1"},
        }

    def test_the_smallest_amounts_are_written_without_an_exponent(self) -> None:
        prices = (
            a_price("per_unit", "bytes_out", unit_amount="0.00000000009"),
            a_price("overage", "bytes_in", included=10, unit_amount="0.00000000009"),
        )
        per_unit, overage = (
            price_params(price, installation="main", meter_id="mtr_1") for price in wanted(*prices).prices
        )
        assert str(per_unit["unit_amount_decimal"]) == "0.000000009"
        assert str(overage["tiers"][1]["unit_amount_decimal"]) == "0.000000009"

    def test_packages_are_counted_up(self) -> None:
        price = price_at(wanted(a_price("package", "requests", size=1_000, amount="0.8"), interval="year"), 0)
        params = price_params(price, installation="main", meter_id="mtr_1")
        assert params["transform_quantity"] == {"divide_by": 1_000, "round": "up"}
        assert params["unit_amount_decimal"] == Decimal(80)
        assert params["recurring"] == {"interval": "year", "usage_type": "metered", "meter": "mtr_1"}

    def test_a_setup_fee_does_not_recur(self) -> None:
        price = price_at(wanted(FLAT, a_price("setup_fee", amount="10")), 1)
        assert "recurring" not in price_params(price, installation="main", meter_id=None)

    def test_taxes_come_on_top(self) -> None:
        price = price_at(wanted(FLAT, automatic_tax=True), 0)
        assert price_params(price, installation="main", meter_id=None)["tax_behavior"] == "exclusive"
        assert "tax_behavior" not in price_params(price_at(wanted(FLAT), 0), installation="main", meter_id=None)
