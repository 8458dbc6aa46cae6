"""Price models against hand-computed tables: P1 to P5, and what each model refuses."""

# ruff: noqa: RUF001 - the multiplication sign is what an invoice shows

from decimal import Decimal

import pytest

from control_plane.rating.model import WHOLE_PERIOD, Allowance, Quantity, RatingError, Share
from control_plane.rating.models import MODELS, read_price
from control_plane.rating.rate import rate, total_minor
from control_plane.rating.words import unit_of

DAY_MS = 86_400_000
HALF_OF_30_DAYS = Share(covered_ms=15 * DAY_MS, period_ms=30 * DAY_MS)


def line(model: str, params: dict, quantity: int, *, currency: str = "USD", meter: str = "requests", share=None):
    price = read_price(model, params, currency)
    extra = {} if share is None else {"share": share}
    (only,) = rate(price, quantity=quantity, currency=currency, meter=meter, description="test", **extra)
    return only


class TestPerUnit:
    @pytest.mark.parametrize(
        ("unit_amount", "quantity", "amount_minor"),
        [
            ("0.0005", 0, 0),
            ("0.0005", 9, 0),  # 0.45 cents
            ("0.0005", 10, 1),  # half a cent goes up
            ("0.0005", 1_000_000, 50_000),
            ("0.05", 1, 5),
            ("0.05", 333, 1_665),
            ("0.000000000001", 1, 0),
            ("0.000000000001", 5_000_000_000, 1),  # 0.5 cents
            ("0.000000000001", 4_999_999_999, 0),
            ("0.000000000001", 2**63 - 1, 922_337_204),  # $9,223,372.036854775807
        ],
    )
    def test_charges_every_unit(self, unit_amount: str, quantity: int, amount_minor: int):
        assert line("per_unit", {"unit_amount": unit_amount}, quantity).amount_minor == amount_minor

    def test_shows_its_working(self):
        rated = line("per_unit", {"unit_amount": "0.0005"}, 12_345)
        assert rated.formula == "12,345 requests × $0.0005"
        assert rated.exact_amount == Decimal("6.1725")
        assert (rated.quantity, rated.unit_amount) == (12_345, Decimal("0.0005"))

    @pytest.mark.parametrize(
        ("meter", "quantity", "formula"),
        [
            ("requests", 1, "1 request × $0.02"),
            ("tokens", 1, "1 token × $0.02"),
            ("tokens", 1_500, "1,500 tokens × $0.02"),
            ("compute_ms", 7, "7 compute ms × $0.02"),
        ],
    )
    def test_speaks_of_what_the_meter_counts(self, meter: str, quantity: int, formula: str):
        assert line("per_unit", {"unit_amount": "0.02"}, quantity, meter=meter).formula == formula

    @pytest.mark.parametrize(
        ("currency", "formula", "amount_minor"),
        [
            ("EUR", "150 requests × €0.015", 225),
            ("JPY", "150 requests × ¥0.015", 2),  # 2.25 yen: no decimals
            ("CHF", "150 requests × 0.015 CHF", 225),
            ("KWD", "150 requests × 0.015 KWD", 2_250),  # three decimals
        ],
    )
    def test_rounds_to_the_currency(self, currency: str, formula: str, amount_minor: int):
        rated = line("per_unit", {"unit_amount": "0.015"}, 150, currency=currency)
        assert (rated.formula, rated.amount_minor) == (formula, amount_minor)


class TestFlat:
    @pytest.mark.parametrize("quantity", [0, 1, 10**12])
    def test_is_the_same_whatever_was_used(self, quantity: int):
        rated = line("flat", {"amount": "49.00"}, quantity)
        assert (rated.amount_minor, rated.formula, rated.quantity) == (4_900, "$49.00", 1)

    @pytest.mark.parametrize(
        ("amount", "covered_ms", "period_ms", "amount_minor", "formula"),
        [
            ("49", 15 * DAY_MS, 30 * DAY_MS, 2_450, "$49.00 × 15 of 30 days"),
            ("49", 10 * DAY_MS, 30 * DAY_MS, 1_633, "$49.00 × 10 of 30 days"),
            ("49", 20 * DAY_MS, 30 * DAY_MS, 3_267, "$49.00 × 20 of 30 days"),
            ("199", 31 * DAY_MS // 2, 31 * DAY_MS, 9_950, "$199.00 × 372 of 744 hours"),
            ("49", 1, 30 * DAY_MS, 0, "$49.00 × 0.001 s of 30 days"),
            ("49", 0, 30 * DAY_MS, 0, "$49.00 × 0 of 30 days"),
            ("0.01", 15 * DAY_MS, 30 * DAY_MS, 1, "$0.01 × 15 of 30 days"),  # exactly half a cent
            ("0.01", 15 * DAY_MS - 1, 30 * DAY_MS, 0, "$0.01 × 14 days 23 h 59 min 59.999 s of 30 days"),
        ],
    )
    def test_part_of_a_period_pays_its_part(self, amount, covered_ms, period_ms, amount_minor, formula):
        rated = line("flat", {"amount": amount}, 0, share=Share(covered_ms=covered_ms, period_ms=period_ms))
        assert (rated.amount_minor, rated.formula) == (amount_minor, formula)


STARTER = {"included": 50_000, "unit_amount": "0.0015"}


class TestOverage:
    @pytest.mark.parametrize(
        ("quantity", "amount_minor", "formula"),
        [
            (0, 0, "0 of 50,000 included requests"),
            (49_999, 0, "49,999 of 50,000 included requests"),
            (50_000, 0, "50,000 of 50,000 included requests"),
            (50_001, 0, "1 request above 50,000 × $0.0015"),  # 0.15 cents
            (50_003, 0, "3 requests above 50,000 × $0.0015"),  # 0.45 cents
            (50_004, 1, "4 requests above 50,000 × $0.0015"),  # 0.6 cents
            (62_345, 1_852, "12,345 requests above 50,000 × $0.0015"),  # 1,851.75 cents
            (500_000, 67_500, "450,000 requests above 50,000 × $0.0015"),
        ],
    )
    def test_charges_only_what_is_above(self, quantity: int, amount_minor: int, formula: str):
        rated = line("overage", STARTER, quantity)
        assert (rated.amount_minor, rated.formula) == (amount_minor, formula)

    def test_shows_both_tiers(self):
        rated = line("overage", STARTER, 50_100)
        assert [(t.first_unit, t.last_unit, t.quantity, t.amount) for t in rated.tiers] == [
            (1, 50_000, 50_000, Decimal(0)),
            (50_001, None, 100, Decimal("0.15")),
        ]

    def test_an_allowance_is_not_cut_when_the_plan_ran_for_half_the_period(self):
        assert line("overage", STARTER, 50_000, share=HALF_OF_30_DAYS).amount_minor == 0

    def test_nothing_included_is_per_unit(self):
        assert line("overage", {"included": 0, "unit_amount": "0.01"}, 5).amount_minor == 5


GRADUATED = {
    "tiers": [
        {"up_to": 1_000, "unit_amount": "0.01"},
        {"up_to": 10_000, "unit_amount": "0.005", "flat_amount": "2"},
        {"up_to": None, "unit_amount": "0.001", "flat_amount": "3.50"},
    ]
}


class TestGraduated:
    @pytest.mark.parametrize(
        ("quantity", "amount_minor", "formula"),
        [
            (0, 0, "0 requests × $0.01"),
            (1, 1, "1 request × $0.01"),
            (1_000, 1_000, "1,000 requests × $0.01"),
            (1_001, 1_201, "1,000 requests × $0.01 + 1 request × $0.005 + $2.00"),  # 1,000 + 0.5 + 200
            (10_000, 5_700, "1,000 requests × $0.01 + 9,000 requests × $0.005 + $2.00"),
            (
                10_010,
                6_051,
                "1,000 requests × $0.01 + 9,000 requests × $0.005 + $2.00 + 10 requests × $0.001 + $3.50",
            ),
        ],
    )
    def test_each_unit_pays_its_own_tier(self, quantity: int, amount_minor: int, formula: str):
        rated = line("graduated", GRADUATED, quantity)
        assert (rated.amount_minor, rated.formula) == (amount_minor, formula)

    def test_part_of_a_period_pays_part_of_the_tiers_flat_amounts(self):
        rated = line("graduated", GRADUATED, 1_001, share=HALF_OF_30_DAYS)
        assert rated.exact_amount == Decimal(10) + Decimal("0.005") + Decimal(1)


VOLUME = {
    "tiers": [
        {"up_to": 1_000, "unit_amount": "0.01", "flat_amount": "5"},
        {"up_to": None, "unit_amount": "0.005"},
    ]
}


class TestVolume:
    @pytest.mark.parametrize(
        ("quantity", "amount_minor"), [(0, 0), (1, 501), (1_000, 1_500), (1_001, 501), (4_000, 2_000)]
    )
    def test_the_tier_reached_prices_every_unit(self, quantity: int, amount_minor: int):
        assert line("volume", VOLUME, quantity).amount_minor == amount_minor


class TestPackage:
    @pytest.mark.parametrize(
        ("quantity", "amount_minor", "formula"),
        [
            (0, 0, "0 requests = 0 packages of 1,000 × $0.80"),
            (1, 80, "1 request = 1 package of 1,000 × $0.80"),
            (1_000, 80, "1,000 requests = 1 package of 1,000 × $0.80"),
            (1_001, 160, "1,001 requests = 2 packages of 1,000 × $0.80"),
        ],
    )
    def test_a_package_begun_is_charged_whole(self, quantity: int, amount_minor: int, formula: str):
        rated = line("package", {"size": 1_000, "amount": "0.80"}, quantity)
        assert (rated.amount_minor, rated.formula) == (amount_minor, formula)


class TestPercentage:
    @pytest.mark.parametrize(
        ("currency", "units", "amount_minor", "formula"),
        [
            ("USD", 0, 0, "$0.00 × 2.9 %"),
            ("USD", 17, 0, "$0.17 × 2.9 %"),  # 0.493 cents
            ("USD", 18, 1, "$0.18 × 2.9 %"),  # 0.522 cents
            ("USD", 1_999_99, 58_00, "$1,999.99 × 2.9 %"),  # 5,799.971 cents
            ("JPY", 10_000, 290, "¥10,000 × 2.9 %"),
            ("KWD", 10_000, 290, "10.000 KWD × 2.9 %"),
        ],
    )
    def test_takes_its_part_of_a_value_in_minor_units(self, currency, units, amount_minor, formula):
        rated = line("percentage", {"percent": "2.9"}, units, currency=currency, meter="charged_cents")
        assert (rated.amount_minor, rated.formula, rated.quantity) == (amount_minor, formula, units)

    def test_is_not_cut_by_time(self):
        assert line("percentage", {"percent": "50"}, 100, share=HALF_OF_30_DAYS).amount_minor == 50


class TestSetupFee:
    def test_is_whole_however_short_the_time(self):
        rated = line("setup_fee", {"amount": "500.00"}, 0, share=HALF_OF_30_DAYS)
        assert (rated.amount_minor, rated.formula, rated.quantity) == (500_00, "$500.00, once", 1)


class TestAllowance:
    """What a plan change, add-ons and terms of a subscription's own make of a price."""

    SOLD = read_price("overage", {"included": 50_000, "unit_amount": "0.01"}, "USD")
    TWENTY_OF_30_DAYS = Share(covered_ms=20 * DAY_MS, period_ms=30 * DAY_MS)

    @pytest.mark.parametrize(
        ("allowance", "left"),
        [
            (Allowance(), 50_000),
            (Allowance(units_before=40_000), 10_000),
            (Allowance(units_before=60_000), 0),
            (Allowance(share=TWENTY_OF_30_DAYS), 33_334),  # 33,333.33
            (Allowance(own_units=80_000), 80_000),
            (Allowance(own_units=0), 0),
            (Allowance(quantity=3), 150_000),
            (Allowance(extra_units=7), 50_007),
            (Allowance(share=TWENTY_OF_30_DAYS, own_units=80_000, extra_units=7), 53_341),
        ],
    )
    def test_leaves_so_many_included_units(self, allowance, left):
        price = self.SOLD.under(allowance)
        steps = price.steps(WHOLE_PERIOD)
        assert price.charge(quantity(left)).amount == 0
        assert price.charge(quantity(left + 1)).amount == Decimal("0.01")
        assert (steps[0].above, steps[0].cost(left + 1)) == (left, Decimal("0.01"))

    @pytest.mark.parametrize(
        ("before", "used", "packages"),
        [(0, 1_000, 1), (1, 999, 0), (1, 1_000, 1), (999, 1, 0), (999, 2, 1), (1_000, 1, 1), (1_500, 1_500, 1)],
    )
    def test_uses_a_begun_package_up_first(self, before, used, packages):
        price = read_price("package", {"size": 1_000, "amount": "1.00"}, "USD").under(
            Allowance(units_before=before)
        )
        assert price.charge(quantity(used)).quantity == packages

    @pytest.mark.parametrize(("model", "params"), [("flat", {"amount": "1"}), ("percentage", {"percent": "1"})])
    def test_changes_nothing_where_nothing_is_included(self, model, params):
        price = read_price(model, params, "USD")
        assert price.under(Allowance(units_before=5, share=self.TWENTY_OF_30_DAYS, quantity=2)) == price

    def test_cut_tiers_may_vanish_and_the_rest_still_stand(self):
        cut = Share(covered_ms=1, period_ms=1_000)
        sold = {"tiers": [{"up_to": end, "unit_amount": "1", "flat_amount": "1"} for end in (1, 2, 3, None)]}
        for model in ("graduated", "volume"):
            price = read_price(model, sold, "USD").under(Allowance(share=cut))
            # the first three tiers all end at unit 1
            for used in (1, 2, 9):
                steps = price.steps(WHOLE_PERIOD)
                found = next(step.cost(used) for step in reversed(steps) if step.above < used)
                assert found == price.charge(quantity(used)).amount


def quantity(units: int) -> Quantity:
    return Quantity(units=units, unit=unit_of("requests"), currency="USD")


DEFAULT_CATALOG = {
    "free": [],
    "starter": [("flat", {"amount": "49.00"}), ("overage", {"included": 50_000, "unit_amount": "0.0015"})],
    "growth": [("flat", {"amount": "199.00"}), ("overage", {"included": 500_000, "unit_amount": "0.0006"})],
}


class TestDefaultCatalog:
    @pytest.mark.parametrize(
        ("plan", "quantity", "total"),
        [
            ("free", 1_000, 0),
            ("starter", 0, 4_900),
            ("starter", 50_000, 4_900),
            ("starter", 150_000, 19_900),  # where Growth begins to be the better plan
            ("starter", 500_000, 72_400),
            ("growth", 500_000, 19_900),
            ("growth", 1_000_000, 49_900),
            ("growth", 2_500_000, 139_900),
        ],
    )
    def test_costs_what_the_pricing_page_says(self, plan: str, quantity: int, total: int):
        lines = [line(model, params, quantity) for model, params in DEFAULT_CATALOG[plan]]
        assert total_minor(lines) == total


class TestReadPrice:
    @pytest.mark.parametrize(
        ("model", "params", "field"),
        [
            ("bundle", {}, "model"),
            ("flat", {}, "amount"),
            ("flat", {"amount": 49}, "amount"),
            ("flat", {"amount": "-1"}, "amount"),
            ("flat", {"amount": "1e3"}, "amount"),
            ("flat", {"amount": "NaN"}, "amount"),
            ("flat", {"amount": "0.0000000000001"}, "amount"),
            ("flat", {"amount": "١"}, "amount"),
            ("flat", {"amount": "1\n"}, "amount"),
            ("flat", {"amount": "1", "discount": "1"}, "discount"),
            ("per_unit", {"unit_amount": 0.0015}, "unit_amount"),
            ("overage", {"unit_amount": "1"}, "included"),
            ("overage", {"included": -1, "unit_amount": "1"}, "included"),
            ("overage", {"included": True, "unit_amount": "1"}, "included"),
            ("overage", {"included": 1.0, "unit_amount": "1"}, "included"),
            ("overage", {"included": 2**63, "unit_amount": "1"}, "included"),
            ("graduated", {}, "tiers"),
            ("graduated", {"tiers": []}, "tiers"),
            ("graduated", {"tiers": ["x"]}, "tiers[0].up_to"),
            ("graduated", {"tiers": [{"unit_amount": "1"}]}, "tiers[0].up_to"),
            ("graduated", {"tiers": [{"up_to": 10, "unit_amount": "1"}]}, "tiers[0].up_to"),
            ("graduated", {"tiers": [{"up_to": None, "unit_amount": "1"}, {"up_to": None}]}, "tiers[1].up_to"),
            (
                "volume",
                {"tiers": [{"up_to": 9, "flat_amount": "1"}, {"up_to": 9, "flat_amount": "1"}]},
                "tiers[1].up_to",
            ),
            ("volume", {"tiers": [{"up_to": None, "unit_amount": "x"}]}, "tiers[0].unit_amount"),
            ("volume", {"tiers": [{"up_to": None, "price": "1"}]}, "tiers[0].price"),
            ("volume", {"tiers": [{"up_to": None}]}, "tiers[0].unit_amount"),
            ("volume", {"tiers": [{"up_to": None, "unit_amount": None}]}, "tiers[0].unit_amount"),
            ("flat", {"amount": "49.005"}, "amount"),
            ("setup_fee", {"amount": "0.001"}, "amount"),
            ("commitment", {"amount": "500"}, "counts"),
            ("commitment", {"amount": "500", "counts": "fixed"}, "counts"),
            ("percentage", {"percent": "100.5"}, "percent"),
            ("percentage", {"percent": 3}, "percent"),
            ("overage", {"included": 2**53, "unit_amount": "1"}, "included"),
            ("package", {"size": 0, "amount": "1"}, "size"),
        ],
    )
    def test_refuses_and_names_the_parameter(self, model: str, params: dict, field: str):
        with pytest.raises(RatingError) as caught:
            read_price(model, params, "USD")
        assert caught.value.field == field

    def test_every_model_has_a_name_and_refuses_what_it_does_not_know(self):
        for model in MODELS:
            with pytest.raises(RatingError, match="surprise"):
                read_price(model, {"surprise": 1}, "USD")


class TestRate:
    def test_refuses_a_negative_quantity(self):
        with pytest.raises(RatingError, match="quantity"):
            line("per_unit", {"unit_amount": "1"}, -1)

    @pytest.mark.parametrize(("covered_ms", "period_ms"), [(2, 1), (-1, 1), (0, 0)])
    def test_refuses_what_is_no_part_of_a_period(self, covered_ms: int, period_ms: int):
        with pytest.raises(RatingError, match="share"):
            Share(covered_ms=covered_ms, period_ms=period_ms)
