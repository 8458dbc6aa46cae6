"""Figures of billing periods: each hour in the period that holds it, whatever day periods begin on."""

from datetime import UTC, datetime, timedelta

import pytest

from control_plane.foundation.errors import NotFoundError
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.daily.tables import UsageDay
from control_plane.usage.periods import period_usage
from tests.control_plane.usage.test_daily import row

HOUR = timedelta(hours=1)
BEGIN = datetime(2027, 10, 31, 10, tzinfo=UTC)
# a leap year: the anchor on the 31st clamps to 30, 29 and comes back
STARTS = [
    BEGIN,
    datetime(2027, 11, 30, 10, tzinfo=UTC),
    datetime(2027, 12, 31, 10, tzinfo=UTC),
    datetime(2028, 1, 31, 10, tzinfo=UTC),
    datetime(2028, 2, 29, 10, tzinfo=UTC),
    datetime(2028, 3, 31, 10, tzinfo=UTC),
]


ENDS = [*STARTS[1:], datetime(2028, 4, 30, 10, tzinfo=UTC)]


@pytest.fixture
async def subscription(catalog, sessions):
    """One that begins an hour into its first period."""
    await catalog.account()
    await catalog.product()
    version = await catalog.plan_version()
    subscription_id = await catalog.subscription(("ph_1", version, BEGIN + HOUR, None))
    async with sessions() as session, session.begin():
        (await session.get(Subscription, subscription_id)).anchor_at = BEGIN
    return subscription_id


@pytest.fixture
async def hours(sessions):
    """The first and the last hour of each period, with 1 and 10 calls; another product's and account's beside."""
    async with sessions() as session, session.begin():
        for start, end in zip(STARTS, ENDS, strict=True):
            session.add_all([row(start + HOUR), row(end - HOUR, calls=10)])
        session.add(row(BEGIN + HOUR, product="maps", calls=100))
        session.add(row(BEGIN + HOUR, account="acc_2", calls=100))


async def found(sessions, subscription, **more):
    async with sessions() as session:
        periods = await period_usage(session, subscription_id=subscription, **more)
        return [(one.start, one.end, one.figures["live"].calls if one.figures else 0) for one in periods]


class TestPeriodUsage:
    async def test_each_hour_is_in_the_period_that_holds_it(self, subscription, hours, sessions):
        expected = [(start, end, 11) for start, end in zip(STARTS, ENDS, strict=True)]
        assert await found(sessions, subscription, now=ENDS[-1] - HOUR) == expected[::-1]

    async def test_is_limited(self, subscription, hours, sessions):
        assert [start for start, *_ in await found(sessions, subscription, now=STARTS[-1], limit=2)] == [
            STARTS[-1],
            STARTS[-2],
        ]

    async def test_ends_with_the_subscription(self, subscription, hours, sessions):
        async with sessions() as session, session.begin():
            (await session.get(Subscription, subscription)).ends_at = STARTS[2] + HOUR
        assert [start for start, *_ in await found(sessions, subscription, now=ENDS[-1])] == STARTS[2::-1]

    async def test_goes_back_as_far_as_hours_are_kept(self, subscription, hours, sessions):
        dropped = STARTS[1].replace(hour=0)
        async with sessions() as session, session.begin():
            session.add(UsageDay(account_id="acc_9", day=dropped, rolled_up_at=BEGIN, hours_dropped_at=BEGIN))
        assert [start for start, *_ in await found(sessions, subscription, now=STARTS[3])] == STARTS[3:1:-1]

    async def test_of_no_subscription_is_refused(self, sessions):
        with pytest.raises(NotFoundError):
            await found(sessions, "sub_none", now=BEGIN)
