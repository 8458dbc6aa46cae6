"""Billing periods and shares of time, as tables."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devstack.stripe.billing.periods import next_anchor, period_of, step
from devstack.stripe.billing.proration import prorated, spread


def at(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def day(moment):
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S}"


class TestSteps:
    @pytest.mark.parametrize(
        ("anchor", "interval", "count", "number", "expected"),
        [
            ("2026-01-31T10:20:30", "month", 1, 1, "2026-02-28 10:20:30"),
            ("2026-01-31T10:20:30", "month", 1, 2, "2026-03-31 10:20:30"),
            ("2026-01-31T10:20:30", "month", 1, -2, "2025-11-30 10:20:30"),
            ("2024-02-29T00:00:00", "year", 1, 1, "2025-02-28 00:00:00"),
            ("2024-02-29T00:00:00", "year", 1, 4, "2028-02-29 00:00:00"),
            ("2026-11-15T00:00:00", "month", 3, 1, "2027-02-15 00:00:00"),
            ("2026-03-28T23:00:00", "week", 2, 1, "2026-04-11 23:00:00"),
            ("2026-12-31T12:00:00", "day", 1, 1, "2027-01-01 12:00:00"),
        ],
    )
    def test_keep_the_anchors_day_where_the_month_has_it(self, anchor, interval, count, number, expected):
        assert day(step(at(anchor), interval, count, number)) == expected

    @settings(max_examples=60)
    @given(
        anchor=st.integers(946_684_800, 4_102_444_800),
        away=st.integers(-90_000_000, 90_000_000),
        interval=st.sampled_from(["day", "week", "month", "year"]),
        count=st.integers(1, 6),
    )
    def test_every_moment_lies_in_exactly_one_period(self, anchor, away, interval, count):
        start, end = period_of(anchor, interval, count, anchor + away)
        assert start <= anchor + away < end
        assert period_of(anchor, interval, count, start) == (start, end)
        assert period_of(anchor, interval, count, end)[0] == end


class TestAnchorConfig:
    @pytest.mark.parametrize(
        ("now", "config", "expected"),
        [
            ("2026-11-23T20:45:10", {"day_of_month": 1}, "2026-12-01 20:45:10"),
            (
                "2026-11-23T20:45:10",
                {"day_of_month": 23, "hour": 20, "minute": 0, "second": 0},
                "2026-12-23 20:00:00",
            ),
            (
                "2026-11-23T20:45:10",
                {"day_of_month": 31, "hour": 0, "minute": 0, "second": 0},
                "2026-11-30 00:00:00",
            ),
            ("2026-11-23T20:45:10", {"day_of_month": 5, "month": 3, "hour": 1}, "2027-03-05 01:45:10"),
        ],
    )
    def test_gives_the_next_moment_that_fits(self, now, config, expected):
        assert day(next_anchor(at(now), config)) == expected


class TestShares:
    @pytest.mark.parametrize(
        ("exact", "since", "expected"),
        [
            ("4900", 0, 4900),
            ("4900", 1000, 0),
            ("4900", 250, 3675),
            ("4901", 500, 2451),
            ("-4901", 500, -2451),
            ("1000", 333, 667),
        ],
    )
    def test_are_by_the_second_and_rounded_once(self, exact, since, expected):
        assert prorated(Decimal(exact), start=0, end=1000, since=since) == expected

    def test_end_where_the_charge_did(self):
        assert prorated(Decimal(1000), start=0, end=1000, since=200, until=500) == 300
        assert prorated(Decimal(1000), start=0, end=1000, since=600, until=500) == 0

    @settings(max_examples=60)
    @given(amount=st.integers(0, 10**9), weights=st.lists(st.integers(0, 10**7), min_size=1, max_size=12))
    def test_a_split_loses_nothing(self, amount, weights):
        shares = spread(amount, weights)
        assert sum(shares) == (amount if sum(weights) else 0)
        assert all(share >= 0 for share in shares)
