"""What days of use say about the days ahead: ranges that hold as often as they say."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from control_plane.billing.forecasts.days import DAY, time_ahead
from control_plane.billing.forecasts.model import Sureness, how_sure
from control_plane.billing.forecasts.projection import project, project_from_hours
from control_plane.subscriptions.timeline import PhaseKind, TimelinePhase

Series = Callable[[random.Random, int], list[int]]
NOV_1 = datetime(2026, 11, 1, tzinfo=UTC)


def steady(dice: random.Random, count: int) -> list[int]:
    return [max(0, round(dice.gauss(1000, 150))) for _ in range(count)]


def weekly(dice: random.Random, count: int) -> list[int]:
    shares = (1.3, 1.4, 1.4, 1.3, 1.2, 0.2, 0.2)
    return [max(0, round(shares[day % 7] * dice.gauss(1000, 150))) for day in range(count)]


def working_days(dice: random.Random, count: int) -> list[int]:
    return [max(0, round(dice.gauss(1000, 300))) if day % 7 < 5 else 0 for day in range(count)]


def growing(dice: random.Random, count: int) -> list[int]:
    return [max(0, round((500 + 20 * day) * dice.gauss(1, 0.15))) for day in range(count)]


def bursty(dice: random.Random, count: int) -> list[int]:
    return [round(dice.expovariate(1 / 200)) + (8000 if dice.random() < 0.1 else 0) for _ in range(count)]


def wandering(dice: random.Random, count: int) -> list[int]:
    level, days = 0.0, []
    for _ in range(count):
        level = 0.7 * level + dice.gauss(0, 0.25)
        days.append(max(0, round(1000 * (1 + level))))
    return days


def coverage(series: Series, *, known: int, ahead: int, runs: int = 200) -> float:
    """How often the sum of the days ahead lies in the range."""
    dice, held = random.Random(5), 0
    for _ in range(runs):
        days = series(dice, known + ahead)
        rest = project(days[:known], ahead=[1.0] * ahead)
        held += rest.low <= sum(days[known:]) <= rest.high
    return held / runs


class TestRangeHoldsFourTimesOutOfFive:
    @pytest.mark.parametrize("series", [steady, weekly, working_days, growing, bursty])
    @pytest.mark.parametrize("known", [28, 56])
    @pytest.mark.parametrize("ahead", [5, 20])
    def test_with_four_weeks_and_more(self, series: Series, known: int, ahead: int):
        assert 0.70 <= coverage(series, known=known, ahead=ahead) <= 0.93

    def test_where_days_in_a_row_are_alike(self):
        assert 0.65 <= coverage(wandering, known=42, ahead=20) <= 0.95

    @pytest.mark.parametrize("series", [steady, weekly, growing, wandering])
    def test_new_accounts_have_wide_ranges_rather_than_wrong_ones(self, series: Series):
        assert coverage(series, known=5, ahead=10) >= 0.85

    def test_more_days_narrow_it(self):
        dice = random.Random(1)
        days = steady(dice, 60)
        widths = [
            rest.high - rest.low for known in (3, 10, 28) for rest in [project(days[:known], ahead=[1.0] * 10)]
        ]
        assert widths == sorted(widths, reverse=True)


class TestLikely:
    def test_steady_use_goes_on(self):
        rest = project([100] * 30, ahead=[0.5, 1.0, 1.0])
        assert rest.by_day == pytest.approx((50, 100, 100))
        assert rest.low == pytest.approx(rest.high) == pytest.approx(250)

    def test_weekdays_keep_their_shares(self):
        # the last of these days is a Sunday
        days = [100, 100, 100, 100, 100, 0, 0] * 4
        assert project(days, ahead=[1.0] * 7).by_day == pytest.approx((100, 100, 100, 100, 100, 0, 0), abs=1e-6)
        # and one day later it is Monday's turn to be over
        assert project([*days, 100], ahead=[1.0] * 5).by_day == pytest.approx((100, 100, 100, 100, 0), abs=1)

    def test_a_rise_goes_on(self):
        rest = project([100 + 10 * day for day in range(28)], ahead=[1.0] * 3)
        assert rest.by_day == pytest.approx((380, 390, 400))

    def test_a_fall_ends_at_nothing(self):
        rest = project([280 - 10 * day for day in range(28)], ahead=[1.0] * 5)
        assert rest.by_day == pytest.approx((0, 0, 0, 0, 0), abs=1e-6)

    def test_days_before_the_first_use_do_not_count(self):
        assert project([0] * 20 + [100] * 8, ahead=[1.0]).likely == pytest.approx(100)

    def test_without_use_nothing_is_said(self):
        assert project([0] * 20, ahead=[1.0]) is None
        assert project([], ahead=[1.0]) is None
        assert project_from_hours(0, of_day=0.5, ahead=[1.0]) is None

    def test_a_first_day_is_taken_by_its_pace_with_a_wide_range(self):
        rest = project_from_hours(60, of_day=0.25, ahead=[0.75, 1.0])
        assert (rest.low, rest.likely, rest.high) == (140, 420, 1260)


class TestTimeAhead:
    def phase(self, key: str, start: datetime, end: datetime | None, kind: PhaseKind = PhaseKind.PAID):
        return TimelinePhase(
            id=key, plan_version_id="v", kind=kind, starts_at=start, ends_at=end, charged_from=start
        )

    def test_today_counts_by_the_hours_in_which_calls_come(self):
        office = [0.0] * 8 + [0.125] * 8 + [0.0] * 8
        now, until = NOV_1 + timedelta(hours=12), NOV_1 + 2 * DAY
        ahead = time_ahead([self.phase("p", NOV_1, None)], now=now, until=until, hour_shares=office)
        assert ahead.days == pytest.approx((0.5, 1.0))
        evening = time_ahead(
            [self.phase("p", NOV_1, None)], now=NOV_1 + timedelta(hours=17), until=until, hour_shares=office
        )
        assert evening.days == pytest.approx((0.0, 1.0))

    def test_days_fall_on_the_phases_of_their_time_and_on_no_pause(self):
        change, pause, end = NOV_1 + 1.5 * DAY, NOV_1 + 2 * DAY, NOV_1 + 3 * DAY
        phases = [
            self.phase("first", NOV_1, change),
            self.phase("second", change, pause),
            self.phase("third", pause, None, PhaseKind.PAUSED),
        ]
        ahead = time_ahead(phases, now=NOV_1, until=end)
        assert ahead.days == pytest.approx((1.0, 1.0, 0.0))
        assert ahead.of_phases["first"] == pytest.approx((1.0, 0.5, 0.0))
        assert ahead.of_phases["second"] == pytest.approx((0.0, 0.5, 0.0))

    def test_says_when_units_are_used_up(self):
        ahead = time_ahead([self.phase("p", NOV_1, None)], now=NOV_1, until=NOV_1 + 3 * DAY)
        assert ahead.moment_of((100, 100, 100), 150) == NOV_1 + 1.5 * DAY
        assert ahead.moment_of((100, 100, 100), 0) == NOV_1
        assert ahead.moment_of((100, 100, 100), 301) is None


@pytest.mark.parametrize(
    ("days", "low", "high", "sureness"),
    [
        (5, 90, 110, Sureness.LOW),
        (7, 90, 110, Sureness.MEDIUM),
        (27, 90, 110, Sureness.MEDIUM),
        (28, 90, 110, Sureness.HIGH),
        (28, 70, 130, Sureness.MEDIUM),
        (28, 20, 180, Sureness.LOW),
    ],
)
def test_sureness_follows_days_and_width(days: int, low: float, high: float, sureness: Sureness):
    assert how_sure(days_known=days, used_units=0, low=low, likely=100, high=high) is sureness
