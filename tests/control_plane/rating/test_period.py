"""A billing period as a whole, computed by hand: the examples of docs/pricing-models.md."""

# ruff: noqa: RUF001 - signs as an invoice shows them

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from control_plane.rating.charging import price_in_run
from control_plane.rating.explain import explain_line
from control_plane.rating.model import RatingError
from control_plane.rating.period import rate_period
from control_plane.rating.phases import PhaseUsage
from control_plane.rating.rate import total_minor
from control_plane.rating.runs import Run, Stretch, period_runs
from control_plane.rating.versions import RatedVersion, SoldPrice, read_version

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAY_MS = 86_400_000


def sold(code: str, *prices: tuple, **terms) -> RatedVersion:
    return read_version(
        version_id=code,
        name=terms.pop("name", code),
        currency=terms.pop("currency", "USD"),
        prices=[
            SoldPrice(position=position, model=model, meter=meter, params=params)
            for position, (model, meter, params) in enumerate(prices)
        ],
        **terms,
    )


def flat(amount: str) -> tuple:
    return "flat", None, {"amount": amount}


def overage(included: int, unit_amount: str, meter: str = "requests") -> tuple:
    return "overage", meter, {"included": included, "unit_amount": unit_amount}


def phase(code: str, start_day: float, end_day: float | None, requests: int = 0, *, add_ons=None, **units):
    return PhaseUsage(
        plan_version_id=code,
        starts_at=START + start_day * DAY,
        ends_at=None if end_day is None else START + end_day * DAY,
        units={"requests": requests, **units},
        add_ons=add_ons or {},
    )


def rated(phases: list[PhaseUsage], *versions: RatedVersion, **terms):
    by_id = {version.version_id: version for version in versions}
    return rate_period(period_runs(phases, by_id, period_start=START, period_end=END, **terms))


def shown(phases: list[PhaseUsage], *versions: RatedVersion, **terms) -> list[tuple[str, str, int]]:
    return [
        (one.line.description, one.line.formula, one.line.amount_minor)
        for one in rated(phases, *versions, **terms)
    ]


class TestOrderAndWords:
    def test_lines_come_by_run_then_price_and_commitments_last(self):
        first = sold(
            "a", ("commitment", None, {"amount": "10.00", "counts": "usage"}), flat("1.00"), overage(0, "1")
        )
        second = sold("b", flat("2.00"), ("commitment", None, {"amount": "20.00", "counts": "all"}))
        extra = sold("x", flat("3.00"), is_add_on=True)
        lines = rated([phase("b", 10, None), phase("a", 0, 10, add_ons={"x": 1})], first, second, extra)
        assert [(one.version_id, one.position, one.kind.value) for one in lines] == [
            ("a", 1, "recurring"),
            ("a", 2, "usage"),
            ("b", 0, "recurring"),
            ("x", 0, "recurring"),
            ("a", 0, "commitment"),
            ("b", 1, "commitment"),
        ]

    def test_plans_are_named_where_several_ran_and_add_ons_always(self):
        starter = sold("s", flat("49.00"), overage(50_000, "0.0015"), name="Starter")
        growth = sold("g", flat("199.00"), name="Growth")
        support = sold(
            "x", flat("10.00"), ("per_unit", "tokens", {"unit_amount": "1"}), name="Support", is_add_on=True
        )
        alone = [words for words, _, _ in shown([phase("s", 0, None, add_ons={"x": 1})], starter, support)]
        assert alone == ["Starter plan", "Requests", "Support", "Support: Tokens"]
        both = [words for words, _, _ in shown([phase("s", 0, 9), phase("g", 9, None)], starter, growth)]
        assert both == ["Starter: Starter plan", "Starter: Requests", "Growth: Growth plan"]

    def test_declared_meters_and_weighted_requests_are_called_by_their_names(self):
        plan = sold(
            "a",
            ("per_unit", "requests", {"unit_amount": "1"}),
            ("per_unit", "active_users", {"unit_amount": "1"}),
            weighted=True,
            meter_names={"active_users": "Active users"},
        )
        lines = shown([phase("a", 0, None, 2, active_users=3)], plan)
        assert lines == [
            ("Requests", "2 request units × $1.00", 200),
            ("Active users", "3 active users × $1.00", 300),
        ]

    def test_says_what_was_used_with_what_is_included(self):
        (one,) = rated([phase("s", 0, None, 62_345)], sold("s", overage(50_000, "0.0015")))
        assert (one.used_units, one.line.quantity, one.meter) == (62_345, 12_345, "requests")

    def test_prices_are_taken_by_position(self):
        version = read_version(
            version_id="a",
            name="a",
            currency="USD",
            prices=[
                SoldPrice(position=1, model="flat", meter=None, params={"amount": "2"}),
                SoldPrice(position=0, model="flat", meter=None, params={"amount": "1"}, description="First"),
            ],
        )
        assert [words for words, _, _ in shown([phase("a", 0, None)], version)] == ["First", "a plan"]


class TestSetupFee:
    FEE = sold("a", ("setup_fee", None, {"amount": "500.00"}), flat("10.00"))

    def test_is_charged_whole_where_it_is_due_and_has_no_line_elsewhere(self):
        assert shown([phase("a", 20, None)], self.FEE, setup_fees_due={"a"})[0] == (
            "Setup fee",
            "$500.00, once",
            500_00,
        )
        assert len(rated([phase("a", 20, None)], self.FEE)) == 1

    def test_of_add_ons_is_due_for_as_many_as_were_held_first(self):
        extra = sold("x", ("setup_fee", None, {"amount": "5.00"}), is_add_on=True)
        phases = [phase("a", 0, 5, add_ons={"x": 2}), phase("a", 5, None, add_ons={"x": 7})]
        lines = shown(phases, sold("a"), extra, setup_fees_due={"x"})
        assert lines == [("x: Setup fee", "2 × $5.00, once", 10_00)]


class TestCommitment:
    @pytest.mark.parametrize(
        ("requests", "minimum", "formula"),
        [
            (0, 500_00, "$500.00 minimum − $0.00 charged for use"),
            (30_000, 200_00, "$500.00 minimum − $300.00 charged for use"),
            (50_000, 0, "minimum of $500.00, reached by $500.00 charged for use"),
            (80_000, 0, "minimum of $500.00, reached by $800.00 charged for use"),
        ],
    )
    def test_charges_what_use_falls_short_of_it(self, requests, minimum, formula):
        plan = sold(
            "a",
            flat("100.00"),
            ("per_unit", "requests", {"unit_amount": "0.01"}),
            ("commitment", None, {"amount": "500.00", "counts": "usage"}),
        )
        lines = shown([phase("a", 0, None, requests)], plan)
        assert lines[-1] == ("Minimum", formula, minimum)
        assert total_minor(one.line for one in rated([phase("a", 0, None, requests)], plan)) == 100_00 + max(
            500_00, requests
        )

    def test_may_count_every_line_of_the_version(self):
        plan = sold(
            "a",
            ("setup_fee", None, {"amount": "50.00"}),
            flat("100.00"),
            ("commitment", None, {"amount": "500.00", "counts": "all"}),
        )
        (*_, last) = shown([phase("a", 0, None)], plan, setup_fees_due={"a"})
        assert last == ("Minimum", "$500.00 minimum − $150.00 charged already", 350_00)

    def test_is_cut_by_time_and_counts_no_other_version(self):
        plan = sold("a", ("commitment", None, {"amount": "300.00", "counts": "usage"}))
        other = sold("b", ("per_unit", "requests", {"unit_amount": "1"}))
        lines = shown([phase("a", 0, 10), phase("b", 10, None, 500)], plan, other)
        assert lines[-1] == ("a: Minimum", "$300.00 × 10 of 30 days minimum − $0.00 charged for use", 100_00)

    def test_brings_the_bill_to_the_minimum_to_the_cent(self):
        plan = sold(
            "a",
            ("per_unit", "requests", {"unit_amount": "0.0015"}),
            ("commitment", None, {"amount": "100.00", "counts": "usage"}),
        )
        lines = rated([phase("a", 0, 7, 12_345)], plan)
        # $18.5175 appears as $18.52, a minimum for 7 of 30 days is $23.3333...
        assert [one.line.amount_minor for one in lines] == [18_52, 4_81]


STARTER = sold("s", overage(50_000, "0.0015"), name="Starter")


def growth(on_change: str) -> RatedVersion:
    return sold("g", overage(100_000, "0.0010"), name="Growth", quota_on_change=on_change)


class TestQuotaOnChange:
    """Starter for 10 days with 40,000 requests, then Growth with 90,000."""

    PHASES = (phase("s", 0, 10, 40_000), phase("g", 10, None, 90_000))

    @pytest.mark.parametrize(
        ("on_change", "formula", "amount_minor"),
        [
            ("full", "90,000 of 100,000 included requests", 0),
            ("carry", "30,000 requests above 60,000 left of 100,000 × $0.001", 30_00),
            ("prorated", "23,333 requests above 66,667 × $0.001", 23_33),
        ],
    )
    def test_says_what_an_allowance_is_worth(self, on_change, formula, amount_minor):
        lines = shown(list(self.PHASES), STARTER, growth(on_change))
        assert lines[1] == ("Growth: Requests", formula, amount_minor)

    def test_of_the_version_that_ends_changes_nothing(self):
        for on_change in ("full", "carry", "prorated"):
            before = sold("s", overage(50_000, "0.0015"), quota_on_change=on_change)
            lines = shown(list(self.PHASES), before, growth("full"))
            assert lines[0][1:] == ("40,000 of 50,000 included requests", 0)

    def test_carried_units_are_numbered_on_when_a_version_comes_back(self):
        a = sold("a", overage(50_000, "0.01"), quota_on_change="carry")
        b = sold("b", overage(50_000, "0.02"), quota_on_change="carry")
        phases = [phase("a", 0, 10, 30_000), phase("b", 10, 20, 30_000), phase("a", 20, None, 30_000)]
        # 30,000 of a, then 20,000 left for b, none for a
        lines = rated(phases, a, b)
        assert [one.line.amount_minor for one in lines] == [300_00, 200_00]
        assert lines[0].line.formula == "30,000 requests above 50,000 × $0.01"

    def test_carried_tiers_packages_and_volume(self):
        tiers = {"tiers": [{"up_to": 1_000, "unit_amount": "0.01"}, {"up_to": None, "unit_amount": "0.005"}]}
        package = {"size": 1_000, "amount": "0.80"}
        carried = sold(
            "g",
            ("graduated", "requests", tiers),
            ("volume", "requests", tiers),
            ("package", "requests", package),
            quota_on_change="carry",
        )
        lines = shown([phase("s", 0, 10, 700), phase("g", 10, None, 500)], STARTER, carried)
        assert [line[1:] for line in lines[1:]] == [
            ("300 requests × $0.01 + 200 requests × $0.005", 4_00),
            ("500 requests × $0.005", 2_50),
            ("(500 requests − 300 left of a package) = 1 package of 1,000 × $0.80", 80),
        ]

    def test_prorated_tiers_end_earlier_and_packages_stay(self):
        tiers = {"tiers": [{"up_to": 1_000, "unit_amount": "0.01"}, {"up_to": None, "unit_amount": "0.005"}]}
        cut = sold(
            "g",
            ("graduated", "requests", tiers),
            ("volume", "requests", tiers),
            ("package", "requests", {"size": 1_000, "amount": "0.80"}),
            quota_on_change="prorated",
        )
        lines = shown([phase("s", 0, 10), phase("g", 10, None, 700)], STARTER, cut)
        # 1,000 x 20 of 30 days end at 667
        assert [line[1:] for line in lines[1:]] == [
            ("667 requests × $0.01 + 33 requests × $0.005", 6_84),
            ("700 requests × $0.005", 3_50),
            ("700 requests = 1 package of 1,000 × $0.80", 80),
        ]

    def test_meters_that_do_not_add_up_are_never_carried(self):
        plan = sold("g", overage(10, "1", "active_users"), quota_on_change="carry")
        phases = [phase("s", 0, 10, active_users=8), phase("g", 10, None, active_users=9)]
        lines = rated(phases, STARTER, plan, not_carried={"active_users"})
        assert lines[1].line.amount_minor == 0
        assert rated(phases, STARTER, plan)[1].line.amount_minor == 7_00


class TestOwnQuotaAndAddOns:
    PLAN = sold("p", overage(100, "1"), quota_units=100)

    def test_own_quota_takes_the_place_of_the_plans_where_it_charges(self):
        hard = sold("h", overage(100, "1"), quota_units=100, quota_hard=True)
        assert rated([phase("p", 0, None, 150)], self.PLAN, own_quota_units=130)[0].line.amount_minor == 20_00
        assert rated([phase("h", 0, None, 150)], hard, own_quota_units=130)[0].line.amount_minor == 50_00
        other = sold("t", overage(100, "1", "tokens"))
        assert rated([phase("t", 0, None, tokens=150)], other, own_quota_units=130)[0].line.amount_minor == 50_00

    def test_add_ons_bring_the_most_that_was_held_at_one_time(self):
        extra = sold("x", is_add_on=True, quota_units=20)
        phases = [
            phase("p", 0, 10, 100, add_ons={"x": 1}),
            phase("p", 10, 20, 100, add_ons={"x": 3}),
            phase("p", 20, None),
        ]
        (line,) = rated(phases, self.PLAN, extra)
        assert line.line.formula == "40 requests above 160 × $1.00"
        assert line.line.notes == ("60 requests more included by add-ons.",)

    def test_a_prorated_add_on_brings_its_part(self):
        extra = sold("x", is_add_on=True, quota_units=20, quota_on_change="prorated")
        phases = [phase("p", 0, 15), phase("p", 15, None, 200, add_ons={"x": 3})]
        (line,) = rated(phases, self.PLAN, extra)
        assert line.line.quantity == 200 - 130

    def test_an_add_ons_own_prices_count_what_is_used_beside_it(self):
        extra = sold("x", flat("10.00"), overage(50, "0.10", "tokens"), is_add_on=True)
        phases = [
            phase("p", 0, 10, tokens=1_000),
            phase("p", 10, 20, tokens=70, add_ons={"x": 2}),
            phase("p", 20, None, tokens=80, add_ons={"x": 3}),
        ]
        lines = shown(phases, self.PLAN, extra)
        assert lines[1:] == [
            # $6.67 and $10.00
            ("x", "2 × $10.00 × 10 of 30 days + 3 × $10.00 × 10 of 30 days", 16_67),
            ("x: Tokens", "150 of 150 included tokens", 0),
        ]


class TestTime:
    def test_pauses_and_time_after_the_end_cost_nothing(self):
        plan = sold("a", flat("30.00"))
        assert shown([phase("a", 0, 5), phase("a", 20, 25)], plan) == [("a plan", "$30.00 × 10 of 30 days", 10_00)]

    def test_nothing_ran_nothing_is_due(self):
        assert rated([phase("a", -5, 0), phase("a", 30, None)], sold("a", flat("1.00"))) == ()

    @pytest.mark.parametrize(
        ("phases", "why"),
        [
            ([phase("a", 0, 11), phase("a", 10, None)], "overlap"),
            ([phase("a", 5, 4)], "before it starts"),
            ([phase("a", 0, None, -1)], "negative"),
        ],
    )
    def test_refuses_what_cannot_be(self, phases, why):
        with pytest.raises(RatingError, match=why):
            rated(phases, sold("a", overage(0, "1")))


class TestPriceInRun:
    def test_is_never_cheaper_than_the_bill_where_a_carried_version_came_back(self):
        version = sold("a", overage(50, "1"), quota_on_change="carry")
        run = Run(
            version=version,
            period_ms=30,
            stretches=(
                Stretch(covered_ms=10, units={"requests": 10}),
                Stretch(covered_ms=10, units={"requests": 10}, units_before={"requests": 60}),
            ),
        )
        (billed,) = rate_period([run])
        # 50 of another version between: all of the second ten are above what is included
        assert billed.line.exact_amount == Decimal(10)
        steps = price_in_run(run, version.prices[0]).steps(run.share)
        assert steps[0].cost(20) == Decimal(20)

    def test_knows_own_quota_add_ons_and_time(self):
        version = sold("a", overage(100, "1"), quota_on_change="prorated")
        run = Run(
            version=version,
            period_ms=30,
            starts_ms=15,
            stretches=(Stretch(covered_ms=15),),
            own_quota_units=200,
            extra_units=7,
        )
        (step,) = price_in_run(run, version.prices[0]).steps(run.share)
        assert step.above == 107


class TestExplained:
    def test_says_the_sum_its_rounding_and_what_was_counted(self):
        (one,) = rated([phase("s", 0, None, 62_345)], STARTER)
        assert explain_line(one.line, used_units=one.used_units, unit=STARTER.prices[0].unit) == (
            "12,345 requests above 50,000 × $0.0015 = $18.5175, rounded to $18.52.",
            "62,345 requests were counted.",
            "Requests 1 to 50,000: 50,000 included.",
            "Requests from 50,001: 12,345 × $0.0015 = $18.5175.",
        )

    def test_says_why_an_allowance_is_another(self):
        extra = sold("x", is_add_on=True, quota_units=20_000)
        lines = rated(
            [phase("s", 0, 10, 40_000), phase("g", 10, None, 90_000, add_ons={"x": 1})],
            STARTER,
            growth("prorated"),
            extra,
            own_quota_units=60_000,
        )
        assert lines[1].line.notes == (
            "60,000 requests included by agreement, in place of 100,000.",
            "Included for 20 of 30 days: 40,000 of 60,000 requests.",
            "20,000 requests more included by add-ons.",
        )
        carried = rated([phase("s", 0, 10, 40_000), phase("g", 10, None)], STARTER, growth("carry"))
        assert carried[1].line.notes == (
            "40,000 requests used earlier in the period count against what is included.",
        )

    def test_keeps_no_more_than_thirty_decimals_of_what_has_no_end(self):
        tiers = {"tiers": [{"up_to": None, "unit_amount": "0.01", "flat_amount": "2"}]}
        plan = sold("a", flat("49.00"), ("graduated", "requests", tiers))
        fixed, used = rated([phase("a", 0, 10, 5)], plan)
        third = "0." + "6" * 29 + "7"
        assert str(fixed.line.exact_amount) == "16." + "3" * 30
        assert [str(tier.flat_amount) for tier in used.line.tiers] == [third]
        assert str(used.line.exact_amount) == "0.71" + "6" * 27 + "7"
