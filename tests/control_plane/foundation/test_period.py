"""Billing periods cover all time without gap or overlap, and come back to the anchor's day."""

import calendar
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.foundation.clock import NaiveTimeError, floor_hour
from control_plane.foundation.period import anchor_on_day, next_period, period_containing

# half hours, quarters; a clock put forward by half an hour; midnights that are jumped over or come twice
WHOLE_HOUR_ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Pacific/Auckland",
    "Africa/Cairo",
    "America/Havana",
]
ZONES = [
    *WHOLE_HOUR_ZONES,
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "America/St_Johns",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
]
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants naive bounds
ANCHORS = MOMENTS.map(floor_hour)
INTERVALS = st.sampled_from(["month", "year"])


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
        period = period_containing(at(moment), at(anchor), interval, "UTC")
        assert (period.start, period.end) == (at(start), at(end))

    def test_reckons_in_utc_whatever_zone_the_moment_comes_in(self):
        moment = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
        assert period_containing(moment, at("2026-01-01"), "month", "UTC").end == at("2026-03-01")

    def test_refuses_naive_moments(self):
        with pytest.raises(NaiveTimeError):
            period_containing(datetime(2026, 1, 1), at("2026-01-01"), "month", "UTC")  # noqa: DTZ001 - the point

    def test_counts_an_anchor_off_the_hour_as_its_hour(self):
        period = period_containing(at("2026-02-10"), at("2026-01-01T09:59"), "month", "UTC")
        assert (period.start, period.end) == (at("2026-02-01T09:00"), at("2026-03-01T09:00"))

    def test_refuses_zones_that_nobody_knows(self):
        with pytest.raises(KeyError):
            period_containing(at("2026-02-10"), at("2026-01-01"), "month", "Mars/Olympus")


# starts one after the other, in UTC, with the local time that they stand for
IN_ZONES = [
    # midnight, in summer an hour earlier
    ("Europe/Berlin", "2026-01-31T23:00", "month", ["2026-02-28T23:00", "2026-03-31T22:00", "2026-04-30T22:00"]),
    ("Europe/Berlin", "2026-09-30T22:00", "month", ["2026-10-31T23:00", "2026-11-30T23:00"]),
    # the day is the local one: it is the 31st in Auckland, while it is the 30th in UTC
    (
        "Pacific/Auckland",
        "2026-01-30T11:00",
        "month",
        ["2026-02-27T11:00", "2026-03-30T11:00", "2026-04-29T12:00"],
    ),
    # half hours and quarters: cut down to the hour that holds midnight (18:30, 18:15 UTC)
    ("Asia/Kolkata", "2026-02-28T18:00", "month", ["2026-03-31T18:00", "2026-04-30T18:00", "2026-05-31T18:00"]),
    ("Asia/Kathmandu", "2026-02-28T18:00", "month", ["2026-03-31T18:00", "2026-04-30T18:00"]),
    (
        "America/St_Johns",
        "2026-01-01T03:00",
        "month",
        ["2026-02-01T03:00", "2026-03-01T03:00", "2026-04-01T02:00"],
    ),
    # a clock that is put forward by half an hour: midnight is 13:00, then 13:30 UTC
    ("Australia/Lord_Howe", "2026-02-28T13:00", "month", ["2026-03-31T13:00", "2026-04-30T13:00"]),
    ("Australia/Lord_Howe", "2026-05-31T16:00", "month", ["2026-06-30T16:00"]),
    # 02:00 on the last Sunday of March is jumped over: it begins when the clock jumps
    ("Europe/Berlin", "2026-01-29T01:00", "month", ["2026-02-28T01:00", "2026-03-29T01:00", "2026-04-29T00:00"]),
    # 02:00 comes twice on the last Sunday of October: the first of them
    ("Europe/Berlin", "2026-09-25T00:00", "month", ["2026-10-25T00:00", "2026-11-25T01:00"]),
    # an anchor that is the second of them is itself
    ("Europe/Berlin", "2026-10-25T01:00", "month", ["2026-11-25T01:00", "2026-12-25T01:00"]),
    ("Europe/Berlin", "2026-10-25T00:00", "month", ["2026-11-25T01:00", "2026-12-25T01:00"]),
    # midnight itself is jumped over in Cairo
    ("Africa/Cairo", "2026-03-23T22:00", "month", ["2026-04-23T22:00", "2026-05-23T21:00"]),
    # a day that never was: Samoa left out 30 December 2011
    ("Pacific/Apia", "2011-11-30T10:00", "month", ["2011-12-30T10:00", "2012-01-29T10:00"]),
    # leap days by the local date
    (
        "America/New_York",
        "2028-02-29T05:00",
        "year",
        ["2029-02-28T05:00", "2030-02-28T05:00", "2031-02-28T05:00", "2032-02-29T05:00"],
    ),
]


class TestPeriodsOfAZone:
    @pytest.mark.parametrize(("zone", "anchor", "interval", "starts"), IN_ZONES)
    def test_follow_its_clock(self, zone, anchor, interval, starts):
        period = period_containing(at(anchor), at(anchor), interval, zone)
        assert period.start == at(anchor)
        for start in starts:
            assert period.end == at(start)
            period = next_period(period, at(anchor), interval, zone)

    @pytest.mark.parametrize(
        ("zone", "anchor"),
        [
            ("America/Los_Angeles", "2025-09-01T01:00"),  # the evening of 31 August
            ("America/New_York", "2026-01-30T04:00"),
            ("Pacific/Pago_Pago", "2025-02-01T10:00"),
            ("Pacific/Kiritimati", "2025-01-30T12:00"),
            ("Asia/Tokyo", "2025-02-28T16:00"),
        ],
    )
    @pytest.mark.parametrize("interval", ["month", "year"])
    def test_hold_each_of_their_hours_where_the_local_day_is_another_than_that_of_utc(
        self, zone, anchor, interval
    ):
        period = period_containing(at(anchor), at(anchor), interval, zone)
        for _ in range(13):
            hours = range(-40, 40)
            for moment in (period.end + timedelta(hours=hour) for hour in hours):
                expected = period.end if moment >= period.end else period.start
                assert period_containing(moment, at(anchor), interval, zone).start == expected
            period = next_period(period, at(anchor), interval, zone)


class TestAnchorOnDay:
    @pytest.mark.parametrize(
        ("day", "zone", "now", "anchor"),
        [
            (1, "UTC", "2026-11-23T14:00", "2026-11-01"),
            (23, "UTC", "2026-11-23T00:00", "2026-11-23"),
            (24, "UTC", "2026-11-23T14:00", "2026-10-24"),
            # a month that has the day, so that it is not lost
            (31, "UTC", "2026-03-01T00:00", "2026-01-31"),
            (29, "UTC", "2027-03-05T00:00", "2027-01-29"),
            (15, "UTC", "2027-01-03T00:00", "2026-12-15"),
            # by the local clock
            (1, "Europe/Berlin", "2026-07-31T22:30", "2026-07-31T22:00"),
            (1, "Europe/Berlin", "2026-07-31T21:30", "2026-06-30T22:00"),
            (1, "Asia/Kathmandu", "2026-07-31T18:20", "2026-07-31T18:00"),
            # without a midnight on that day, the month before
            (24, "Africa/Cairo", "2026-04-25T00:00", "2026-03-23T22:00"),
            # of two midnights the first
            (1, "America/Havana", "2026-11-01T12:00", "2026-11-01T04:00"),
        ],
    )
    def test_is_the_last_midnight_of_that_day(self, day, zone, now, anchor):
        assert anchor_on_day(day, zone, now=at(now)) == at(anchor)

    @given(st.integers(1, 31), st.sampled_from(ZONES), MOMENTS)
    def test_periods_counted_from_it_begin_on_that_day(self, day, zone, now):
        anchor = anchor_on_day(day, zone, now=now)
        assert anchor <= now
        period = period_containing(now, anchor, "month", zone)
        for _ in range(3):
            # an hour later by the wall: midnights are cut down to full hours, or jumped over
            local = (period.start + timedelta(minutes=59)).astimezone(ZoneInfo(zone))
            assert local.day == min(day, calendar.monthrange(local.year, local.month)[1])
            period = next_period(period, anchor, "month", zone)


class TestAllPeriods:
    @given(MOMENTS, ANCHORS, INTERVALS, st.sampled_from(ZONES))
    def test_hold_every_moment_once_and_meet_on_full_hours(self, moment, anchor, interval, zone):
        period = period_containing(moment, anchor, interval, zone)
        assert moment in period
        assert floor_hour(period.start) == period.start
        following = next_period(period, anchor, interval, zone)
        assert following.start == period.end
        before = period_containing(period.start - timedelta(microseconds=1), anchor, interval, zone)
        assert before.end == period.start
        for inside in (period.start, period.end - timedelta(microseconds=1)):
            assert period_containing(inside, anchor, interval, zone) == period
        longest = timedelta(days=31 if interval == "month" else 366)
        assert timedelta(days=27, hours=21) <= period.end - period.start <= longest + timedelta(hours=3)

    @given(ANCHORS, INTERVALS, st.sampled_from(ZONES))
    def test_one_begins_at_the_anchor(self, anchor, interval, zone):
        assert period_containing(anchor, anchor, interval, zone).start == anchor

    @given(MOMENTS, ANCHORS, INTERVALS, st.sampled_from(WHOLE_HOUR_ZONES))
    def test_begin_on_the_anchors_day_and_time_or_the_months_last(self, moment, anchor, interval, zone):
        local = ZoneInfo(zone)
        begins = anchor.astimezone(local)
        start = period_containing(moment, anchor, interval, zone).start.astimezone(local)
        last_day = calendar.monthrange(start.year, start.month)[1]
        wall = datetime(start.year, start.month, min(begins.day, last_day), begins.hour)  # noqa: DTZ001 - a wall clock
        jumped_over = wall.replace(tzinfo=local).astimezone(UTC).astimezone(local).replace(tzinfo=None) != wall
        assert jumped_over or start.replace(tzinfo=None) == wall
        if interval == "year":
            assert start.month == begins.month
