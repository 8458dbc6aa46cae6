"""Plan changes within a billing period."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.rating.model import RatingError, Share
from control_plane.rating.models import read_price
from control_plane.rating.phases import PhaseUsage, merge_phases
from control_plane.rating.rate import rate, total_minor

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAY_MS = 86_400_000
PERIOD_MS = 30 * DAY_MS

STARTER = [
    read_price("flat", {"amount": "49.00"}, "USD"),
    read_price("overage", {"included": 50_000, "unit_amount": "0.0015"}, "USD"),
]
GROWTH = [
    read_price("flat", {"amount": "199.00"}, "USD"),
    read_price("overage", {"included": 500_000, "unit_amount": "0.0006"}, "USD"),
]


def phase(version: str, start_day: float, end_day: float | None, requests: int = 0) -> PhaseUsage:
    return PhaseUsage(
        plan_version_id=version,
        starts_at=START + start_day * DAY,
        ends_at=None if end_day is None else START + end_day * DAY,
        units={"requests": requests},
    )


def bill(phases: list[PhaseUsage], plans: dict) -> int:
    return total_minor(
        line
        for version in merge_phases(phases, period_start=START, period_end=END)
        for price in plans[version.plan_version_id]
        for line in rate(
            price,
            quantity=version.units.get("requests", 0),
            currency="USD",
            share=version.share,
            description="any",
        )
    )


class TestMergePhases:
    @pytest.mark.parametrize(
        ("phases", "expected"),
        [
            ([], []),
            ([phase("a", 0, None, 5)], [("a", PERIOD_MS, 5)]),
            ([phase("a", -20, None, 5)], [("a", PERIOD_MS, 5)]),
            ([phase("a", 0, 10, 5), phase("b", 10, None, 7)], [("a", 10 * DAY_MS, 5), ("b", 20 * DAY_MS, 7)]),
            (
                [phase("a", 0, 10, 5), phase("b", 10, 11, 7), phase("a", 11, None, 1)],
                [("a", 29 * DAY_MS, 6), ("b", DAY_MS, 7)],
            ),
            ([phase("a", -5, 0, 9)], []),  # half-open: it ended as the period began
            ([phase("a", 30, 40, 9)], []),
            ([phase("a", 3, 3, 9)], []),  # no time, no usage possible
            ([phase("a", 10, 12, 1)], [("a", 2 * DAY_MS, 1)]),  # canceled
        ],
    )
    def test_adds_time_and_units_of_each_version(self, phases, expected):
        merged = merge_phases(reversed(phases), period_start=START, period_end=END)
        assert [(v.plan_version_id, v.share.covered_ms, v.units.get("requests")) for v in merged] == expected
        assert all(v.share.period_ms == PERIOD_MS for v in merged)

    def test_refuses_phases_that_overlap(self):
        with pytest.raises(RatingError, match="overlap"):
            merge_phases([phase("a", 0, 11), phase("b", 10, None)], period_start=START, period_end=END)

    def test_refuses_a_phase_that_ends_before_it_starts(self):
        with pytest.raises(RatingError, match="before it starts"):
            merge_phases([phase("a", 5, 4)], period_start=START, period_end=END)

    @given(cuts=st.lists(st.integers(min_value=0, max_value=PERIOD_MS), max_size=6))
    def test_parts_of_a_period_always_make_the_whole(self, cuts):
        edges = [0, *sorted(cuts), PERIOD_MS]
        phases = [
            phase(str(number), start / DAY_MS, end / DAY_MS) for number, (start, end) in enumerate(pairwise(edges))
        ]
        merged = merge_phases(phases, period_start=START, period_end=END)
        assert sum(v.share.covered_ms for v in merged) == PERIOD_MS


class TestPlanChange:
    def test_upgrade_keeps_what_was_included(self):
        phases = [phase("s", 0, 10, 40_000), phase("g", 10, None, 500_000)]
        # $49 x 10/30 + $199 x 20/30, no overage
        assert bill(phases, {"s": STARTER, "g": GROWTH}) == 1_633 + 13_267

    def test_each_plan_rates_its_own_overage(self):
        phases = [phase("s", 0, 15, 60_000), phase("g", 15, None, 600_000)]
        # 10,000 x $0.0015 and 100,000 x $0.0006
        assert bill(phases, {"s": STARTER, "g": GROWTH}) == 2_450 + 1_500 + 9_950 + 6_000

    def test_changing_back_and_forth_gives_no_second_allowance(self):
        phases = [phase("s", 0, 10, 50_000), phase("g", 10, 11, 0), phase("s", 11, None, 50_000)]
        assert bill(phases, {"s": STARTER, "g": GROWTH}) == 4_737 + 7_500 + 663

    @given(
        cut_ms=st.integers(min_value=1, max_value=PERIOD_MS - 1),
        first=st.integers(min_value=0, max_value=10**6),
        second=st.integers(min_value=0, max_value=10**6),
    )
    def test_cutting_a_phase_in_two_never_changes_the_bill(self, cut_ms, first, second):
        cut = cut_ms / DAY_MS
        whole = bill([phase("s", 0, None, first + second)], {"s": STARTER})
        assert bill([phase("s", 0, cut, first), phase("s", cut, None, second)], {"s": STARTER}) == whole

    def test_the_share_is_a_part_of_a_period(self):
        (merged,) = merge_phases([phase("s", 0, 15)], period_start=START, period_end=END)
        assert merged.share == Share(15 * DAY_MS, PERIOD_MS)
