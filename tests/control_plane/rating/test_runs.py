"""Plan changes within a billing period: what ran for how long, with how many units."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.rating.model import RatingError, Share
from control_plane.rating.period import rate_period
from control_plane.rating.phases import PhaseUsage
from control_plane.rating.rate import total_minor
from control_plane.rating.runs import Run, period_runs
from control_plane.rating.versions import SoldPrice, read_version
from tests.control_plane.rating.unhurried import UNHURRIED

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
DAY = timedelta(days=1)
DAY_MS = 86_400_000
PERIOD_MS = 30 * DAY_MS


def plan(code: str, amount: str, included: int, unit_amount: str):
    overage = {"included": included, "unit_amount": unit_amount}
    prices = [("flat", None, {"amount": amount}), ("overage", "requests", overage)]
    return read_version(
        version_id=code,
        name=code,
        currency="USD",
        prices=[
            SoldPrice(position=position, model=model, meter=meter, params=params)
            for position, (model, meter, params) in enumerate(prices)
        ],
    )


VERSIONS = {"s": plan("s", "49.00", 50_000, "0.0015"), "g": plan("g", "199.00", 500_000, "0.0006")}


def phase(version: str, start_day: float, end_day: float | None, requests: int = 0, **add_ons: int) -> PhaseUsage:
    return PhaseUsage(
        plan_version_id=version,
        starts_at=START + start_day * DAY,
        ends_at=None if end_day is None else START + end_day * DAY,
        units={"requests": requests},
        add_ons=add_ons,
    )


def runs(phases) -> tuple[Run, ...]:
    codes = {code for one in phases for code in (one.plan_version_id, *one.add_ons)}
    versions = {code: VERSIONS.get(code) or plan(code, "1", 0, "1") for code in codes}
    return period_runs(phases, versions, period_start=START, period_end=END)


def bill(phases: list[PhaseUsage]) -> int:
    return total_minor(rated.line for rated in rate_period(runs(phases)))


class TestPeriodRuns:
    @pytest.mark.parametrize(
        ("phases", "expected"),
        [
            ([], []),
            ([phase("s", 0, None, 5)], [("s", PERIOD_MS, 5)]),
            ([phase("s", -20, None, 5)], [("s", PERIOD_MS, 5)]),
            ([phase("s", 0, 10, 5), phase("g", 10, None, 7)], [("s", 10 * DAY_MS, 5), ("g", 20 * DAY_MS, 7)]),
            (
                [phase("s", 0, 10, 5), phase("g", 10, 11, 7), phase("s", 11, None, 1)],
                [("s", 29 * DAY_MS, 6), ("g", DAY_MS, 7)],
            ),
            ([phase("s", -5, 0, 9)], []),  # half-open: it ended as the period began
            ([phase("s", 30, 40, 9)], []),
            ([phase("s", 3, 3, 9)], []),  # no time, no usage possible
            ([phase("s", 10, 12, 1)], [("s", 2 * DAY_MS, 1)]),  # canceled
        ],
    )
    def test_add_time_and_units_of_each_version(self, phases, expected):
        found = runs(phases[::-1])
        assert [
            (run.version.version_id, run.share.covered_ms, run.used_units("requests")) for run in found
        ] == expected
        assert all(run.period_ms == PERIOD_MS for run in found)

    def test_of_add_ons_come_after_plans_and_remember_how_many_were_held(self):
        found = runs([phase("s", 0, 5, 1, x=2), phase("g", 5, None, 3, y=1, x=4)])
        assert [run.version.version_id for run in found] == ["s", "g", "x", "y"]
        x, y = found[2:]
        assert [(stretch.quantity, stretch.covered_ms) for stretch in x.stretches] == [
            (2, 5 * DAY_MS),
            (4, 25 * DAY_MS),
        ]
        assert (x.starts_ms, x.quantity, x.used_units("requests")) == (0, 4, 4)
        assert (y.starts_ms, y.quantity, y.used_units("requests")) == (5 * DAY_MS, 1, 3)

    def test_say_what_was_used_before_each_stretch_under_any_version(self):
        found = runs([phase("s", 0, 5, 10), phase("g", 5, 6, 20), phase("s", 6, None, 40)])
        before = {
            run.version.version_id: [s.units_before.get("requests", 0) for s in run.stretches] for run in found
        }
        assert before == {"s": [0, 30], "g": [10]}

    @settings(UNHURRIED, max_examples=30)
    @given(cuts=st.lists(st.integers(min_value=0, max_value=PERIOD_MS), max_size=6))
    def test_parts_of_a_period_always_make_the_whole(self, cuts):
        edges = [0, *sorted(cuts), PERIOD_MS]
        phases = [
            phase(str(number), start / DAY_MS, end / DAY_MS) for number, (start, end) in enumerate(pairwise(edges))
        ]
        assert sum(run.share.covered_ms for run in runs(phases)) == PERIOD_MS

    def test_the_share_is_a_part_of_a_period(self):
        (run,) = runs([phase("s", 0, 15)])
        assert run.share == Share(15 * DAY_MS, PERIOD_MS)

    @pytest.mark.parametrize(
        ("phases", "why"),
        [
            ([phase("s", 0, 11), phase("g", 10, None)], "overlap"),
            ([phase("s", 5, 4)], "before it starts"),
        ],
    )
    def test_refuse_phases_that_cannot_be(self, phases, why):
        with pytest.raises(RatingError, match=why):
            runs(phases)


class TestPlanChange:
    def test_upgrade_keeps_what_was_included(self):
        # $49 x 10/30 + $199 x 20/30, no overage
        assert bill([phase("s", 0, 10, 40_000), phase("g", 10, None, 500_000)]) == 1_633 + 13_267

    def test_each_plan_rates_its_own_overage(self):
        # 10,000 x $0.0015 and 100,000 x $0.0006
        phases = [phase("s", 0, 15, 60_000), phase("g", 15, None, 600_000)]
        assert bill(phases) == 2_450 + 1_500 + 9_950 + 6_000

    def test_changing_back_and_forth_gives_no_second_allowance(self):
        phases = [phase("s", 0, 10, 50_000), phase("g", 10, 11, 0), phase("s", 11, None, 50_000)]
        assert bill(phases) == 4_737 + 7_500 + 663
