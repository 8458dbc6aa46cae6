"""Which plan is named to whom: tables of demands, and what makes a plan unfit."""

import pytest

from control_plane.billing.comparisons.fitting_plans import Demand, Held, Offer, choose_fitting_plan
from control_plane.catalog.model import PlanTerms, PriceTerms
from gateway_contract.records import Concurrency, Window


def windows(per_second, per_minute):
    return (Window(limit=per_second, window_ms=1000), Window(limit=per_minute, window_ms=60_000))


def flat(amount):
    return PriceTerms(model="flat", meter=None, params={"amount": amount})


def overage(included, unit_amount, meter="requests"):
    params = {"included": included, "unit_amount": unit_amount}
    return PriceTerms(model="overage", meter=meter, params=params)


def terms(**options):
    return PlanTerms(**{"interval": "month", "currency": "USD", **options})


def offer(code, position=0, **options):
    return Offer(code=code, name=code.title(), position=position, terms=terms(**options))


# the catalogue that is shipped
FREE = offer("free", 3, quota_units=1_000, quota_hard=True, windows=windows(2, 60))
STARTER = offer(
    "starter", 2, quota_units=50_000, windows=windows(10, 300), prices=(flat("49.00"), overage(50_000, "0.0015"))
)
GROWTH = offer(
    "growth",
    1,
    quota_units=500_000,
    windows=windows(50, 1500),
    prices=(flat("199.00"), overage(500_000, "0.0006")),
)
ENTERPRISE = offer("enterprise", 0, windows=windows(200, 6000), by_quote=True)
SHIPPED = (ENTERPRISE, GROWTH, STARTER, FREE)


def held(plan, **options):
    return Held(**{"code": plan.code, "quota_units": plan.terms.quota_units, "terms": plan.terms, **options})


def demand(units=0, **options):
    return Demand(units={"requests": units}, **options)


def named(plan, wanted, offers=SHIPPED):
    judged = choose_fitting_plan(offers, held=held(plan), demand=wanted)
    return judged[0].plan if judged else None


class TestChooseFittingPlan:
    @pytest.mark.parametrize(
        ("plan", "units", "expected"),
        [
            (FREE, 1_200, "starter"),  # 49.00 against 199.00
            (FREE, 150_000, "starter"),  # 49 + 100,000 x 0.0015 = 199.00: of two that cost the same, the smaller
            (FREE, 150_004, "growth"),  # 199.006 rounds to 199.01
            (FREE, 180_000, "growth"),  # 49 + 130,000 x 0.0015 = 244.00 against 199.00
            (STARTER, 60_000, "growth"),
            (STARTER, 5_000_000, "growth"),
            (GROWTH, 5_000_000, "enterprise"),
            (ENTERPRISE, 5_000_000, None),
        ],
    )
    def test_names_the_cheapest_larger_plan(self, plan, units, expected):
        assert named(plan, demand(units)) == expected

    def test_says_what_each_would_have_cost(self):
        judged = choose_fitting_plan(SHIPPED, held=held(FREE), demand=demand(180_000))
        assert [(one.plan, one.amount_minor, one.refuses) for one in judged] == [
            ("growth", 19_900, ""),
            ("starter", 24_400, ""),
            ("enterprise", None, ""),
        ]

    def test_whoever_hit_a_rate_limit_needs_a_wider_one(self):
        same_rate = offer("bulk", quota_units=10_000, quota_hard=True, windows=FREE.terms.windows)
        wanted = demand(5_000)
        assert named(FREE, wanted, (same_rate, STARTER)) == "bulk"
        limited = demand(5_000, refused_calls=9, rate_limited_calls=9)
        judged = choose_fitting_plan((same_rate, STARTER), held=held(FREE), demand=limited)
        assert [(one.plan, one.refuses) for one in judged] == [
            ("starter", ""),
            ("bulk", "its limits are no wider"),
        ]

    def test_more_calls_at_a_time_are_wider_limits(self):
        mine = offer(
            "mine", windows=windows(10, 300), quota_units=10, concurrency=Concurrency(limit=2, lease_ms=9)
        )
        more = offer(
            "more", windows=windows(10, 300), quota_units=20, concurrency=Concurrency(limit=3, lease_ms=9)
        )
        same = offer(
            "same", windows=windows(10, 300), quota_units=30, concurrency=Concurrency(limit=2, lease_ms=9)
        )
        limited = demand(1, refused_calls=1, rate_limited_calls=1)
        judged = choose_fitting_plan((more, same), held=held(mine), demand=limited)
        assert [(one.plan, bool(one.refuses)) for one in judged] == [("more", False), ("same", True)]

    def test_a_plan_must_bear_the_busiest_hour(self):
        wanted = demand(60_000, peak_hour_calls=20_000)  # 333 a minute: more than Starter's 300
        judged = choose_fitting_plan(SHIPPED, held=held(FREE), demand=wanted)
        assert [one.plan for one in judged] == ["growth", "enterprise", "starter"]
        assert "busiest hour" in judged[-1].refuses

    def test_a_hard_quota_must_hold_the_demand(self):
        small = offer("small", quota_units=20_000, quota_hard=True, windows=windows(10, 300))
        assert named(FREE, demand(20_000), (small,)) == "small"
        (judged,) = choose_fitting_plan((small,), held=held(FREE), demand=demand(20_001))
        assert judged.refuses == "refuses above 20,000 units"

    def test_so_must_a_capped_one(self):
        capped = offer("capped", quota_units=5_000, quota_cap_units=20_000, windows=windows(10, 300))
        assert named(FREE, demand(20_000), (capped, GROWTH)) == "capped"
        assert named(FREE, demand(20_001), (capped, GROWTH)) == "growth"

    def test_a_plan_that_lacks_what_is_held_comes_after_quotes(self):
        rich = offer("rich", quota_units=1_000, quota_hard=True, windows=windows(2, 60), entitlements=("history",))
        judged = choose_fitting_plan(SHIPPED, held=held(rich), demand=demand(10))
        assert [one.plan for one in judged] == ["enterprise", "growth", "starter"]
        assert judged[1].refuses == "lacks history"

    @pytest.mark.parametrize("other", [{"currency": "EUR"}, {"interval": "year"}])
    def test_only_plans_that_can_be_changed_to(self, other):
        elsewhere = offer("elsewhere", quota_units=50_000, windows=windows(10, 300), **other)
        assert named(FREE, demand(10), (elsewhere,)) is None

    def test_the_quota_of_ones_own_counts_as_the_size(self):
        mine = held(STARTER, quota_units=600_000)
        assert [one.plan for one in choose_fitting_plan(SHIPPED, held=mine, demand=demand(10))] == ["enterprise"]

    def test_prices_of_other_meters_count(self):
        tokens = offer(
            "tokens", quota_units=60_000, windows=windows(20, 600), prices=(overage(0, "0.01", "tokens"),)
        )
        wanted = Demand(units={"requests": 100, "tokens": 10_000})
        judged = choose_fitting_plan((tokens, STARTER), held=held(FREE), demand=wanted)
        assert [(one.plan, one.amount_minor) for one in judged] == [("starter", 4_900), ("tokens", 10_000)]

    def test_a_year_is_reckoned_from_thirty_days(self):
        free = offer("free-year", interval="year", quota_units=1_000, quota_hard=True, windows=windows(2, 60))
        big = offer("big-year", interval="year", quota_units=12_166, quota_hard=True, windows=windows(10, 300))
        assert choose_fitting_plan((big,), held=held(free), demand=demand(999))[0].refuses == ""  # 12,154.5
        assert choose_fitting_plan((big,), held=held(free), demand=demand(1_000))[0].refuses  # 12,166.7

    def test_a_price_that_cannot_be_worked_out_is_never_the_cheapest(self):
        broken = offer("broken", quota_units=9_000, windows=windows(5, 100), prices=(overage(1, "not a number"),))
        judged = choose_fitting_plan((broken, STARTER), held=held(FREE), demand=demand(10))
        assert [one.plan for one in judged] == ["starter", "broken"]
