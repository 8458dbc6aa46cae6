"""Billing periods cover all time without gap or overlap, and come back to the anchor's day."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.foundation.clock import NaiveTimeError
from control_plane.foundation.period import next_period, period_containing


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class TestPeriodContaining:
    @pytest.mark.parametrize(
        ("anchor", "interval", "moment", "start", "end"),
        [
            ("2026-01-01", "month", "2026-01-01", "2026-01-01", "2026-02-01"),
            ("2026-01-01", "month", "2026-01-31T23:59:59.999999", "2026-01-01", "2026-02-01"),
            ("2026-01-01", "month", "2026-02-01", "2026-02-01", "2026-03-01"),
            ("2026-01-15T10:00", "month", "2026-03-15T09:59", "2026-02-15T10:00", "2026-03-15T10:00"),
            ("2026-01-15T10:00", "month", "2026-03-15T10:00", "2026-03-15T10:00", "2026-04-15T10:00"),
            # days that short months do not have
            ("2026-01-28", "month", "2026-02-28", "2026-02-28", "2026-03-28"),
            ("2026-01-29", "month", "2026-02-28", "2026-02-28", "2026-03-29"),
            ("2026-01-30", "month", "2026-02-27T23:00", "2026-01-30", "2026-02-28"),
            ("2026-01-30", "month", "2026-03-29", "2026-02-28", "2026-03-30"),
            ("2026-01-31", "month", "2026-02-28", "2026-02-28", "2026-03-31"),
            ("2026-01-31", "month", "2026-03-31", "2026-03-31", "2026-04-30"),
            ("2026-01-31", "month", "2026-04-30", "2026-04-30", "2026-05-31"),
            ("2026-01-31", "month", "2026-12-31", "2026-12-31", "2027-01-31"),
            # leap years
            ("2027-12-31", "month", "2028-02-29", "2028-02-29", "2028-03-31"),
            ("2028-01-29", "month", "2028-02-29", "2028-02-29", "2028-03-29"),
            ("2028-02-29", "month", "2028-03-28", "2028-02-29", "2028-03-29"),
            ("2028-02-29", "year", "2029-02-28", "2029-02-28", "2030-02-28"),
            ("2028-02-29", "year", "2031-06-01", "2031-02-28", "2032-02-29"),
            ("2028-02-29", "year", "2032-02-29", "2032-02-29", "2033-02-28"),
            # years
            ("2026-07-01", "year", "2027-06-30T23:00", "2026-07-01", "2027-07-01"),
            ("2026-07-01", "year", "2027-07-01", "2027-07-01", "2028-07-01"),
            # before the anchor
            ("2026-07-31", "month", "2026-07-30", "2026-06-30", "2026-07-31"),
            ("2026-07-01", "year", "2026-06-30", "2025-07-01", "2026-07-01"),
        ],
    )
    def test_finds_the_period(self, anchor, interval, moment, start, end):
        period = period_containing(at(moment), at(anchor), interval)
        assert (period.start, period.end) == (at(start), at(end))

    def test_reckons_in_utc_whatever_zone_the_moment_comes_in(self):
        moment = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
        assert period_containing(moment, at("2026-01-01"), "month").end == at("2026-03-01")

    def test_refuses_naive_moments(self):
        with pytest.raises(NaiveTimeError):
            period_containing(datetime(2026, 1, 1), at("2026-01-01"), "month")  # noqa: DTZ001 - the point

    moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds
    intervals = st.sampled_from(["month", "year"])

    @given(moments, moments, intervals)
    def test_every_moment_is_in_its_period_and_neighbours_meet(self, moment, anchor, interval):
        period = period_containing(moment, anchor, interval)
        assert moment in period
        following = next_period(period, anchor, interval)
        assert following.start == period.end
        assert period_containing(period.end - timedelta(microseconds=1), anchor, interval) == period
        assert period_containing(period.start, anchor, interval) == period
        longest = timedelta(days=31 if interval == "month" else 366)
        assert timedelta(days=28) <= period.end - period.start <= longest

    @given(moments, moments, intervals)
    def test_begins_on_the_anchors_day_or_the_months_last(self, moment, anchor, interval):
        start = period_containing(moment, anchor, interval).start
        assert start.time() == anchor.time()
        last_of_month = (start + timedelta(days=1)).month != start.month
        assert start.day == anchor.day or (start.day < anchor.day and last_of_month)
