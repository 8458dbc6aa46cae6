"""When which step is due."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings, strategies

from control_plane.dunning.model import CaseFacts, CaseState, DunningConfig, Step, ends_at, next_step, step_due

OPENED = datetime(2026, 11, 1, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)
CONFIG = DunningConfig()


def a_case(*, days=14.0, after="block", told=(), last_notice_at=None, state=CaseState.GRACE):
    return CaseFacts(
        state=state,
        after=after,
        opened_at=OPENED,
        grace_until=OPENED + days * DAY,
        told=frozenset(told),
        last_notice_at=last_notice_at,
    )


def play(case, *, looks):
    """Take steps as a worker that looks at these moments; return each with the days since the opening."""
    taken = []
    told, last_notice_at = set(case.told), case.last_notice_at
    for now in looks:
        while True:
            seen = a_case(
                days=(case.grace_until - OPENED) / DAY, after=case.after, told=told, last_notice_at=last_notice_at
            )
            step = step_due(seen, config=CONFIG, now=now)
            if step is None:
                break
            taken.append((step, (now - OPENED) / DAY))
            if step is Step.FALL:
                return taken
            told.add(step)
            if step is Step.LAST_DAY:
                last_notice_at = now
    return taken


def every_hour(days):
    return [OPENED + timedelta(hours=hour) for hour in range(int(days * 24) + 1)]


class TestSteps:
    @pytest.mark.parametrize(
        ("days", "after", "steps"),
        [
            (14, "block", [("failed", 0), ("reminder", 7), ("last_day", 13), ("fall", 14)]),
            (14, "free", [("failed", 0), ("reminder", 7), ("last_day", 13), ("fall", 14)]),
            (14, "serve", [("failed", 0), ("reminder", 7)]),
            (4, "block", [("failed", 0), ("reminder", 2), ("last_day", 3), ("fall", 4)]),
            (3, "block", [("failed", 0), ("last_day", 2), ("fall", 3)]),
            (1, "block", [("failed", 0), ("fall", 1)]),
            (0, "block", [("failed", 0), ("fall", 0)]),
            (0, "serve", [("failed", 0)]),
        ],
    )
    def test_come_in_time(self, days, after, steps):
        taken = play(a_case(days=days, after=after), looks=every_hour(days + 3))
        assert [(str(step), round(day)) for step, day in taken] == steps

    @pytest.mark.parametrize(
        ("away_until", "steps"),
        [
            (8, [("failed", 8), ("reminder", 8), ("last_day", 13), ("fall", 14)]),
            (13.5, [("failed", 13.5), ("last_day", 13.5), ("fall", 14.5)]),
            (40, [("failed", 40), ("last_day", 40), ("fall", 41)]),
        ],
    )
    def test_leave_a_day_to_pay_after_an_outage(self, away_until, steps):
        looks = [moment for moment in every_hour(away_until + 10) if moment >= OPENED + away_until * DAY]
        assert [(str(step), day) for step, day in play(a_case(), looks=looks)] == steps

    @pytest.mark.parametrize(
        "state", [CaseState.BLOCKED, CaseState.FALLEN_BACK, CaseState.RECOVERED, CaseState.OVER]
    )
    def test_are_over_once_something_else_holds(self, state):
        assert next_step(a_case(state=state, told=("failed", "last_day")), config=CONFIG) is None

    @settings(max_examples=40)
    @given(
        days=strategies.sampled_from([0, 0.5, 1, 1.5, 3, 4, 14, 60]),
        after=strategies.sampled_from(["block", "free", "serve"]),
        hours=strategies.lists(strategies.integers(0, 24 * 90), min_size=1, max_size=30),
    )
    def test_come_once_each_and_never_hold_back_without_a_days_notice(self, days, after, hours):
        looks = [OPENED + timedelta(hours=hour) for hour in sorted(hours)]
        taken = play(a_case(days=days, after=after), looks=looks)
        steps = [step for step, _ in taken]
        assert len(set(steps)) == len(steps)
        at = dict(taken)
        if Step.FALL in at:
            assert after != "serve"
            assert at[Step.FALL] >= days
            if days > 1:
                assert at[Step.FALL] >= at[Step.LAST_DAY] + 1
        assert steps == [step for step in Step if step in steps]


class TestEnd:
    def test_is_told_as_it_will_be(self):
        assert ends_at(a_case(), OPENED) == OPENED + 14 * DAY
        late = OPENED + 20 * DAY
        assert ends_at(a_case(told=("failed",)), late) == late + DAY
        told = a_case(told=("failed", "last_day"), last_notice_at=late)
        assert ends_at(told, late + DAY / 2) == late + DAY == next_step(told, config=CONFIG)[1]
