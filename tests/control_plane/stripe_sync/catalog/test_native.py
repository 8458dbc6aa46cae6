"""Who rates a price, Stripe or we; and in what amounts."""

from decimal import Decimal
from typing import Any

import pytest

from control_plane.catalog.prices import MODELS, check_price_params
from control_plane.catalog.stripe_limits import minor_decimal
from control_plane.stripe_sync.catalog.names import lookup_key, meter_event_name
from control_plane.stripe_sync.catalog.native import Native, Ours, RatedPrice, Tier, stripe_rating

TIERS = [{"up_to": 1_000, "unit_amount": "0.01"}, {"up_to": None, "unit_amount": "0.005"}]
SAMPLES: dict[str, dict[str, Any]] = {
    "flat": {"amount": "49"},
    "setup_fee": {"amount": "10"},
    "commitment": {"amount": "500"},
    "per_unit": {"unit_amount": "0.0005"},
    "overage": {"included": 50_000, "unit_amount": "0.0015"},
    "graduated": {"tiers": TIERS},
    "volume": {"tiers": TIERS},
    "package": {"size": 1_000, "amount": "0.80"},
    "percentage": {"percent": "2.9"},
}


def rated(model: str, *, aggregation: str = "sum", currency: str = "USD", **params: Any) -> Native | Ours:
    checked = check_price_params(model, params or SAMPLES[model], currency=currency)
    meter = None if model in {"flat", "setup_fee", "commitment"} else "requests"
    return stripe_rating(RatedPrice(model=model, meter=meter, params=checked, currency=currency), aggregation)


class TestWhoRates:
    def test_there_is_a_sample_of_every_model(self) -> None:
        assert set(SAMPLES) == set(MODELS)

    @pytest.mark.parametrize(
        ("model", "native"),
        [
            ("flat", Native(kind="flat", unit_amount=Decimal(4900))),
            ("setup_fee", Native(kind="setup_fee", unit_amount=Decimal(1000))),
            ("per_unit", Native(kind="metered", unit_amount=Decimal("0.05"))),
            (
                "overage",
                Native(
                    kind="metered",
                    tiers=(Tier(50_000, Decimal(0)), Tier(None, Decimal("0.15"))),
                    tiers_mode="graduated",
                ),
            ),
            (
                "graduated",
                Native(
                    kind="metered",
                    tiers=(Tier(1_000, Decimal(1)), Tier(None, Decimal("0.5"))),
                    tiers_mode="graduated",
                ),
            ),
            (
                "volume",
                Native(
                    kind="metered",
                    tiers=(Tier(1_000, Decimal(1)), Tier(None, Decimal("0.5"))),
                    tiers_mode="volume",
                ),
            ),
            ("package", Native(kind="metered", unit_amount=Decimal(80), package_size=1_000)),
        ],
    )
    def test_stripe_rates_what_it_can(self, model: str, native: Native) -> None:
        assert rated(model) == native

    @pytest.mark.parametrize("model", ["commitment", "percentage"])
    def test_we_rate_what_stripe_has_no_price_for(self, model: str) -> None:
        assert isinstance(rated(model), Ours)

    @pytest.mark.parametrize("aggregation", ["unique", "max", "latest"])
    @pytest.mark.parametrize("model", ["per_unit", "overage", "graduated", "volume", "package", "percentage"])
    def test_we_rate_what_does_not_add_up(self, model: str, aggregation: str) -> None:
        assert isinstance(rated(model, aggregation=aggregation), Ours)

    @pytest.mark.parametrize("model", ["graduated", "volume"])
    def test_we_rate_amounts_per_tier(self, model: str) -> None:
        assert isinstance(rated(model, tiers=[{"up_to": None, "flat_amount": "5"}]), Ours)
        assert isinstance(rated(model, tiers=[{"up_to": None, "unit_amount": "1", "flat_amount": "0"}]), Native)

    def test_what_stripe_would_refuse_as_needless_is_simplified(self) -> None:
        assert rated("overage", included=0, unit_amount="0.01") == Native(kind="metered", unit_amount=Decimal(1))
        assert rated("package", size=1, amount="2") == Native(kind="metered", unit_amount=Decimal(200))
        one = [{"up_to": None, "unit_amount": "0.01"}]
        assert rated("graduated", tiers=one) == Native(kind="metered", unit_amount=Decimal(1))


class TestAmounts:
    @pytest.mark.parametrize(
        ("amount", "currency", "minor"),
        [
            ("49.00", "USD", "4900"),
            ("0.0004", "USD", "0.04"),
            ("0.000000000001", "USD", "0.0000000001"),
            ("500", "JPY", "500"),
            ("0.000000000001", "JPY", "0.000000000001"),
            ("1.230", "KWD", "1230"),
            ("999999999999.999999999999", "USD", "99999999999999.9999999999"),
            ("0", "USD", "0"),
        ],
    )
    def test_minor_units_are_exact(self, amount: str, currency: str, minor: str) -> None:
        assert f"{minor_decimal(amount, currency):f}" == minor


class TestNames:
    @pytest.mark.parametrize(
        ("product", "meter", "name"),
        [
            ("maps", "requests", "km_main_maps_requests"),
            ("maps", "compute_ms", "km_main_maps_compute__ms"),
            ("maps_", "x", "km_main_maps___x"),
        ],
    )
    def test_a_meter_s_event_name_reads_in_one_way(self, product: str, meter: str, name: str) -> None:
        assert meter_event_name("main", product, meter) == name

    def test_no_two_meters_share_a_name(self) -> None:
        codes = ["a", "a_", "a_b", "a__b", "b", "b_a", "a-b"]
        names = [meter_event_name("main", product, meter) for product in codes for meter in codes]
        assert len(set(names)) == len(codes) ** 2

    def test_long_names_are_cut_and_stay_apart(self) -> None:
        one, other = (meter_event_name("main", "p" * 48, "m" * 47 + end) for end in "xy")
        assert one != other
        assert len(one) == len(other) == 100

    def test_lookup_keys_fit(self) -> None:
        longest = lookup_key("i" * 16, "c" * 48, 2**31, 99, "USD")
        assert len(longest) <= 200
