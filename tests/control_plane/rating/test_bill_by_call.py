"""Whole billing periods against the oracle that counts call by call, and what holds for every bill."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from control_plane.rating.period import rate_period
from control_plane.rating.phases import PhaseUsage
from control_plane.rating.runs import period_runs
from control_plane.rating.versions import RatedVersion, SoldPrice, read_version
from tests.control_plane.rating.oracle import DIGITS, Phase, Plan, bill, rounded
from tests.control_plane.rating.unhurried import UNHURRIED

START = datetime(2026, 11, 1, tzinfo=UTC)
METERS = ("requests", "tokens")

TINY = Fraction(1, 10**29)

money = st.integers(min_value=0, max_value=400).map(str)
fine = st.decimals(min_value="0.0001", max_value=9, places=4).map(lambda amount: f"{amount:f}")
small = st.integers(min_value=0, max_value=12)
meters = st.sampled_from(["requests", "requests", "tokens"])


@st.composite
def tiers(draw) -> dict:
    ends = sorted(draw(st.sets(st.integers(min_value=1, max_value=14), max_size=3)))
    return {
        "tiers": [{"up_to": end, "unit_amount": draw(fine), "flat_amount": draw(money)} for end in [*ends, None]]
    }


def price(model: str, params: st.SearchStrategy[dict], meter: st.SearchStrategy[str | None] = meters):
    return st.tuples(st.just(model), meter, params)


amount = st.fixed_dictionaries({"amount": money})
of_add_ons = st.one_of(
    price("flat", amount, st.none()),
    price("setup_fee", amount, st.none()),
    price("per_unit", st.fixed_dictionaries({"unit_amount": fine})),
    price("overage", st.fixed_dictionaries({"included": small, "unit_amount": fine})),
    price("package", st.fixed_dictionaries({"size": st.integers(1, 7), "amount": fine})),
    price("percentage", st.fixed_dictionaries({"percent": fine})),
    price("graduated", tiers()),
    price("volume", tiers()),
)
minimum = st.fixed_dictionaries({"amount": money, "counts": st.sampled_from(["usage", "all"])})
changes = st.sampled_from(["full", "carry", "prorated"])


def plans(*, add_on: bool) -> st.SearchStrategy[Plan]:
    prices = st.lists(of_add_ons, min_size=1, max_size=3)
    if not add_on:
        least = st.lists(price("commitment", minimum, st.none()), max_size=1)
        prices = st.builds(lambda a, b: [*a, *b], prices, least)
    return st.builds(
        Plan,
        prices=prices,
        on_change=changes,
        add_on=st.just(add_on),
        quota_units=small if add_on else st.none(),
        quota_hard=st.booleans(),
    )


@st.composite
def timelines(draw, *, period: int) -> list[Phase]:
    edges = draw(st.lists(st.integers(min_value=0, max_value=period), min_size=3, max_size=6, unique=True))
    edges.sort()
    phases = []
    for start, end in pairwise(edges):
        # sometimes a pause
        if draw(st.integers(0, 5)):
            phases.append(
                Phase(
                    plan=draw(st.sampled_from("AB")),
                    start=start,
                    end=end,
                    units={meter: draw(small) for meter in METERS},
                    add_ons=draw(st.dictionaries(st.sampled_from("XY"), st.integers(1, 3), max_size=2)),
                )
            )
    return phases


def version(code: str, plan: Plan, currency: str) -> RatedVersion:
    return read_version(
        version_id=code,
        name=code,
        currency=currency,
        prices=[
            SoldPrice(position=position, model=model, meter=meter, params=params)
            for position, (model, meter, params) in enumerate(plan.prices)
        ],
        is_add_on=plan.add_on,
        quota_units=plan.quota_units,
        quota_hard=plan.quota_hard,
        quota_on_change=plan.on_change,
    )


def rate(sold: dict[str, Plan], phases: list[Phase], *, period: int, currency: str, own_quota=None, fees_due=()):
    at = [START + timedelta(milliseconds=ms) for ms in range(period + 1)]
    runs = period_runs(
        [
            PhaseUsage(
                plan_version_id=phase.plan,
                starts_at=at[phase.start],
                ends_at=at[phase.end],
                units=phase.units,
                add_ons=phase.add_ons,
            )
            for phase in phases
        ],
        {code: version(code, plan, currency) for code, plan in sold.items()},
        period_start=START,
        period_end=at[-1],
        own_quota_units=own_quota,
        setup_fees_due=fees_due,
    )
    return rate_period(runs)


cases = st.integers(min_value=5, max_value=40).flatmap(
    lambda period: st.fixed_dictionaries(
        {
            "sold": st.fixed_dictionaries(
                {
                    "A": plans(add_on=False),
                    "B": plans(add_on=False),
                    "X": plans(add_on=True),
                    "Y": plans(add_on=True),
                }
            ),
            "phases": timelines(period=period),
            "period": st.just(period),
            "currency": st.sampled_from(sorted(DIGITS)),
            "own_quota": st.none() | small,
            "fees_due": st.sets(st.sampled_from("ABX")).map(tuple),
        }
    )
)
# 2, 2 and 3 fourteenths of a cent are half a cent, which is rounded up; as decimals that end somewhere, less
FOURTEENTHS = {
    "sold": {
        "A": Plan(prices=[]),
        "X": Plan(prices=[("flat", None, {"amount": "0.01"})], add_on=True),
    },
    "phases": [
        Phase(plan="A", start=0, end=2, add_ons={"X": 1}),
        Phase(plan="A", start=2, end=3, add_ons={"X": 2}),
        Phase(plan="A", start=3, end=4, add_ons={"X": 3}),
    ],
    "period": 14,
    "currency": "USD",
    "own_quota": None,
    "fees_due": (),
}


class TestEveryBill:
    @settings(UNHURRIED, max_examples=60)
    @given(case=cases)
    @example(case=FOURTEENTHS)
    def test_is_what_counting_call_by_call_gives(self, case):
        expected = bill(**case)
        rated = rate(**case)
        assert {(one.version_id, one.position) for one in rated} == set(expected)
        for one in rated:
            exact = expected[one.version_id, one.position]
            assert abs(Fraction(one.line.exact_amount) - exact) < TINY
            assert one.line.amount_minor == rounded(exact, case["currency"]) >= 0
        last = [one.kind == "commitment" for one in rated]
        assert last == sorted(last)

    @settings(UNHURRIED, max_examples=30)
    @given(case=cases, data=st.data())
    def test_is_the_same_whatever_order_its_phases_come_in(self, case, data):
        once = rate(**case)
        assert rate(**{**case, "phases": data.draw(st.permutations(case["phases"]))}) == once
        assert rate(**case) == once

    @settings(UNHURRIED, max_examples=50)
    @given(case=cases, data=st.data())
    def test_is_the_same_when_a_phase_is_cut_in_two(self, case, data):
        whole = [phase for phase in case["phases"] if phase.end - phase.start > 1]
        if not whole:
            return
        cut = data.draw(st.sampled_from(whole))
        moment = data.draw(st.integers(cut.start + 1, cut.end - 1))
        first = {meter: data.draw(st.integers(0, units)) for meter, units in cut.units.items()}
        second = {meter: units - first[meter] for meter, units in cut.units.items()}
        parts = [
            Phase(plan=cut.plan, start=cut.start, end=moment, units=first, add_ons=cut.add_ons),
            Phase(plan=cut.plan, start=moment, end=cut.end, units=second, add_ons=cut.add_ons),
        ]
        phases = [*(phase for phase in case["phases"] if phase is not cut), *parts]
        assert rate(**{**case, "phases": phases}) == rate(**case)


CARRIED = {
    "per_unit": st.fixed_dictionaries({"unit_amount": fine}),
    "overage": st.fixed_dictionaries({"included": small, "unit_amount": fine}),
    "package": st.fixed_dictionaries({"size": st.integers(2, 7), "amount": fine}),
    "percentage": st.fixed_dictionaries({"percent": fine}),
    "graduated": tiers().map(lambda read: {"tiers": [{**tier, "flat_amount": "0"} for tier in read["tiers"]]}),
}


class TestCarry:
    """What was used before counts: for the same prices, any number of cuts comes to what no cut does."""

    @pytest.mark.parametrize("model", CARRIED)
    @settings(UNHURRIED, max_examples=40)
    @given(data=st.data(), used=st.lists(st.tuples(st.sampled_from("ABC"), small), min_size=2, max_size=6))
    def test_over_any_cuts_costs_what_no_cut_does(self, model, data, used):
        sold = (model, "requests", data.draw(CARRIED[model]))
        same = {code: Plan(prices=[sold], on_change="carry") for code in "ABC"}
        cut = [
            Phase(plan=code, start=number, end=number + 1, units={"requests": units})
            for number, (code, units) in enumerate(used)
        ]
        whole = Phase(plan="A", start=0, end=len(used), units={"requests": sum(units for _, units in used)})
        by_parts, at_once = (
            sum(one.line.exact_amount for one in rate(same, phases, period=len(used), currency="USD"))
            for phases in (cut, [whole])
        )
        assert by_parts == at_once

    @UNHURRIED
    @given(sold=tiers(), used=st.lists(st.tuples(st.sampled_from("ABC"), small), min_size=1, max_size=6))
    def test_never_makes_the_flat_amounts_of_tiers_dearer(self, sold, used):
        same = {code: Plan(prices=[("graduated", "requests", sold)], on_change="carry") for code in "ABC"}
        cut = [
            Phase(plan=code, start=number, end=number + 1, units={"requests": units})
            for number, (code, units) in enumerate(used)
        ]
        whole = Phase(plan="A", start=0, end=len(used), units={"requests": sum(units for _, units in used)})
        by_parts, at_once = (
            sum(Fraction(one.line.exact_amount) for one in rate(same, phases, period=len(used), currency="USD"))
            for phases in (cut, [whole])
        )
        assert by_parts <= at_once + TINY


class TestProrated:
    @UNHURRIED
    @given(start=st.integers(0, 39), end=st.integers(1, 40), included=st.integers(0, 50), used=st.integers(0, 60))
    def test_allowance_is_that_of_the_time_left_however_early_the_version_ends(self, start, end, included, used):
        if end <= start:
            return
        plan = Plan(
            prices=[("overage", "requests", {"included": included, "unit_amount": "1"})], on_change="prorated"
        )
        (one,) = rate(
            {"A": plan},
            [Phase(plan="A", start=start, end=end, units={"requests": used})],
            period=40,
            currency="USD",
        )
        left = -(-included * (40 - start) // 40)
        assert one.line.quantity == max(0, used - left)

    @UNHURRIED
    @given(cuts=st.sets(st.integers(1, 39), max_size=4), price_amount=money)
    def test_fixed_amounts_over_any_cuts_add_up_to_the_whole(self, cuts, price_amount):
        edges = [0, *sorted(cuts), 40]
        plans_by_code = {
            str(number): Plan(prices=[("flat", None, {"amount": price_amount})], on_change="prorated")
            for number in range(len(edges) - 1)
        }
        phases = [
            Phase(plan=str(number), start=start, end=end) for number, (start, end) in enumerate(pairwise(edges))
        ]
        rated = rate(plans_by_code, phases, period=40, currency="USD")
        assert sum(Fraction(one.line.exact_amount) for one in rated) == int(price_amount)
