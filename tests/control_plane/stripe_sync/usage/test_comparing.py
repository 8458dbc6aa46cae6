"""What was delivered beside what Stripe counts, and bringing all of a subscription's usage there at once."""

from datetime import timedelta

import pytest

from control_plane.foundation.errors import NotFoundError
from control_plane.stripe_sync.usage.comparing import compare_summaries, differing_hours
from control_plane.stripe_sync.usage.delivered import delivered_units, usage_at_stripe
from control_plane.stripe_sync.usage.flushing import flush
from control_plane.stripe_sync.usage.measuring import measure, progress_by_meter
from control_plane.stripe_sync.usage.summaries import is_same, whole_units
from control_plane.usage.tables import UsageHour
from tests.control_plane.stripe_sync.usage.conftest import EVENT_NAME, OURS, STRIPE_ANCHOR

HOUR = OURS.replace(day=17, hour=5)
PERIOD_END = STRIPE_ANCHOR.replace(month=4)


async def by_hand(world, units, at):
    """Somebody reports usage beside us."""
    await world.stripe.call(
        lambda client: client.v1.billing.meter_events.create_async(
            {
                "event_name": EVENT_NAME,
                "payload": {"stripe_customer_id": world.customer_id, "value": str(units)},
                "timestamp": int(at.timestamp()),
            }
        )
    )


class TestCompareSummaries:
    async def test_finds_nothing_where_all_was_counted(self, world):
        for hour in (OURS, HOUR):
            await world.seal(hour, 10)
        await world.send()
        assert await compared(world) == []

    async def test_tells_meter_units_and_hours_of_a_difference(self, world):
        for hour in range(3):
            await world.seal(HOUR + timedelta(hours=hour), 10)
        await world.send()
        await by_hand(world, 4, HOUR + timedelta(hours=1, minutes=30))
        (found,) = await compared(world)
        assert (found.meter, found.units, found.delivered_units) == ("requests", 4, 30)
        (hour,) = await differing_hours(world.sessions, world.stripe, found)
        assert (hour.start, hour.units) == (HOUR + timedelta(hours=1), 4)

    async def test_the_next_periods_first_hour_is_not_in_it(self, world):
        world.at(PERIOD_END + timedelta(hours=2))
        await world.change(current_period_start=PERIOD_END, current_period_end=PERIOD_END.replace(month=5))
        await world.seal(PERIOD_END.replace(minute=0, second=0), 10)
        await world.seal(PERIOD_END.replace(hour=8, minute=0, second=0), 5)
        await world.send()
        assert await compared(world) == []
        moments = [row.stripe_at for row in await world.rows()]
        assert moments == [PERIOD_END.replace(hour=8, minute=0, second=0), PERIOD_END]


async def compared(world):
    return await compare_summaries(
        world.sessions, world.stripe, subscription_id=world.subscription_id, start=STRIPE_ANCHOR, end=PERIOD_END
    )


class TestFlush:
    async def test_sends_what_is_sealed_before_a_moment_and_says_what_is_left(self, world):
        await world.seal(HOUR, 10)
        await world.seal(HOUR + timedelta(hours=1), 20)
        async with world.sessions() as session, session.begin():
            session.add(UsageHour(account_id=world.account_id, hour=HOUR - timedelta(hours=1), revision=1))
            session.add(UsageHour(account_id=world.account_id, hour=HOUR + timedelta(hours=2), revision=1))
        left = await flushed(world, until=HOUR + timedelta(hours=1))
        assert (left.all_delivered, left.waiting_rows) == (False, 0)
        assert left.waiting_hours == (HOUR - timedelta(hours=1),)
        assert await world.at_stripe() == 10

    async def test_tries_at_once_what_was_put_off_and_leaves_what_fails(self, world):
        await world.seal(HOUR, 10)
        world.sim.control.fault("reset_before", path="/v1/billing/meter_events", count=2)
        await world.send()
        left = await flushed(world, until=world.now)
        assert (left.waiting_rows, left.waiting_hours) == (1, (HOUR,))
        left = await flushed(world, until=world.now)
        assert left.all_delivered
        assert await world.at_stripe() == 10

    async def test_leaves_other_subscriptions_alone(self, world):
        await world.seal(HOUR, 10)
        mine = world.subscription_id
        await world.subscribe()
        await world.seal(HOUR, 20)
        left = await flush(world.sessions, world.stripe, subscription_id=mine, until=world.now, clock=world.clock)
        assert left.all_delivered
        assert await world.at_stripe() == 0

    async def test_names_a_subscription_that_there_is_not(self, world):
        with pytest.raises(NotFoundError):
            await flush(world.sessions, world.stripe, subscription_id="sub_0", until=world.now)


async def flushed(world, *, until):
    return await flush(
        world.sessions, world.stripe, subscription_id=world.subscription_id, until=until, clock=world.clock
    )


class TestSums:
    async def test_are_told_by_where_usage_is_and_come_to_the_ledger(self, world):
        await world.seal(HOUR, 10)
        await world.seal(HOUR, -10)
        await world.seal(HOUR, 7)
        await world.seal(HOUR, 5, meter="upstream_ms")
        await world.send()
        await world.seal(HOUR, 3)
        place = {"subscription_id": world.subscription_id, "start": OURS, "end": world.now}
        async with world.sessions() as session:
            requests, upstream = await usage_at_stripe(session, **place)
            delivered = await delivered_units(session, **place)
            (progress,) = await progress_by_meter(session)
            await measure(session, now=world.now)
        assert (requests.delivered, requests.on_the_way, requests.withheld) == (7, 3, 0)
        assert (upstream.delivered, upstream.withheld) == (0, 5)
        assert delivered[world.phase_id, "requests"] == 7
        assert (progress.meter, progress.waiting_rows, progress.refused_rows) == ("requests", 1, 0)


class TestFloats:
    @pytest.mark.parametrize(("told", "units"), [(3.0, 3), (-2.0, -2), (0, 0), ("12.0", 12), (1e15, 10**15)])
    def test_are_read_as_whole_units(self, told, units):
        assert whole_units(told) == units

    @pytest.mark.parametrize("told", [0.5, float("nan"), float("inf")])
    def test_that_are_none_are_refused(self, told):
        with pytest.raises(ValueError, match="whole units"):
            whole_units(told)

    @pytest.mark.parametrize(
        ("told", "units", "same"),
        [
            (10, 10, True),
            (10, 11, False),
            (2**53 - 1, 2**53 - 2, False),
            (2**60, 2**60 + 3, True),
            (0, 2**60, False),
        ],
    )
    def test_are_compared_as_exactly_as_they_are(self, told, units, same):
        assert is_same(told, units) is same
