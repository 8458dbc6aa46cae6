"""How long events are kept, and which hours can still be counted from them."""

from datetime import UTC, datetime, timedelta

import pytest

from control_plane.foundation.clock import to_ms
from control_plane.usage import retention

NOW = datetime(2026, 7, 1, 15, tzinfo=UTC)


class TestMayHaveExpired:
    @pytest.mark.parametrize(
        ("age", "expired"),
        [
            (timedelta(0), False),
            (timedelta(days=-1), False),
            (timedelta(days=88, hours=23), False),
            (timedelta(days=89), False),
            (timedelta(days=89, milliseconds=1), True),
            (timedelta(days=400), True),
        ],
    )
    def test_leaves_a_day_for_the_calls_that_replays_repeat(self, age: timedelta, *, expired: bool) -> None:
        assert retention.may_have_expired(to_ms(NOW - age), NOW) is expired

    def test_lets_an_hour_go_as_a_whole(self) -> None:
        half_past = NOW + timedelta(minutes=30)
        first_ms = retention.countable_from_ms(half_past)
        assert first_ms == to_ms(NOW + timedelta(hours=1) - timedelta(days=89))
        assert retention.may_have_expired(first_ms - 1, half_past)
        assert not retention.may_have_expired(first_ms, half_past)

    def test_follows_the_shortest_time_that_events_were_stored_for(self) -> None:
        hour_ms = to_ms(NOW - timedelta(days=300))
        assert not retention.may_have_expired(hour_ms, NOW, kept_days=400)
        assert retention.may_have_expired(hour_ms, NOW, kept_days=300)


class TestRetentionDays:
    @pytest.mark.parametrize(
        ("default_days", "plan_days", "expected"),
        [(90, None, 90), (90, 400, 400), (400, 90, 400), (30, 30, 90), (90, 100_000, retention.MAXIMUM_DAYS)],
    )
    def test_is_the_longer_of_installation_and_plan(
        self, default_days: int, plan_days: int | None, expected: int
    ) -> None:
        assert retention.retention_days(default_days=default_days, plan_days=plan_days) == expected
