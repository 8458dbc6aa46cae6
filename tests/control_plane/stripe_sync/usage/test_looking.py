"""A row whose outcome nobody knows is not sent again once Stripe may have forgotten it."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from control_plane.stripe_sync.usage.looking import which_are_there
from tests.control_plane.stripe_sync.usage.conftest import OURS

HOUR = OURS.replace(day=17, hour=5)


async def unknown(world, units, fault, hour=HOUR):
    """A row that Stripe was asked about once, without an answer; then nobody was there to ask again."""
    await world.seal(hour, units)
    world.sim.control.fault(fault, path="/v1/billing/meter_events")
    await world.send()


async def put_off(world, *, until):
    async with world.sessions() as session, session.begin():
        await session.execute(text("UPDATE stripe_usage_rows SET due_at = :until"), {"until": until})


class TestLookingFirst:
    @pytest.mark.parametrize("fault", ["reset_after", "reset_before"])
    async def test_after_a_day_stripes_summary_decides(self, world, fault):
        await unknown(world, 10, fault)
        world.later(hours=30)
        await world.send()
        await world.send()
        assert await world.at_stripe() == 10
        assert (await world.row()).state == "delivered"
        assert len(world.sent()) == (1 if fault == "reset_after" else 2)

    async def test_several_of_one_hour_are_told_apart_by_their_sum(self, world):
        await world.seal(HOUR, 1)
        await world.send()
        await unknown(world, 10, "reset_after")
        await unknown(world, 20, "reset_before")
        await unknown(world, 40, "reset_after")
        world.later(hours=30)
        for _ in range(3):
            await world.send()
        assert [row.reason for row in await world.rows()] == ["", "seen_in_summary", "", "seen_in_summary"]
        assert await world.at_stripe() == 71

    async def test_nothing_is_concluded_while_stripe_may_still_sum_up(self, world):
        world.sim.control.configure(aggregation_seconds=600)
        await unknown(world, 5, "reset_after")
        world.later(hours=30)
        await put_off(world, until=world.now + timedelta(hours=1))
        await world.seal(HOUR, 5)
        await world.send()  # delivered, and not in Stripe's sum yet: that looks as if the first were missing
        await put_off(world, until=world.now)
        await world.send()
        assert [state for state, _ in await world.states()] == ["sent", "delivered"]
        world.later(hours=1)
        await world.send()
        world.later(hours=1)
        assert await world.states() == [("delivered", "seen_in_summary"), ("delivered", "")]
        assert await world.at_stripe() == 10

    async def test_a_sum_that_nothing_explains_is_left_to_people(self, world):
        await unknown(world, 10, "reset_before")
        world.later(hours=30)
        await world.stripe.call(
            lambda client: client.v1.billing.meter_events.create_async(
                {
                    "event_name": "km_main_weather_requests",
                    "payload": {"stripe_customer_id": world.customer_id, "value": "3"},
                    "identifier": "by hand",
                    "timestamp": int(HOUR.timestamp()),
                }
            )
        )
        await world.send()
        assert await world.states() == [("sent", "summary_unclear")]
        assert "3 units" in (await world.row()).error
        assert len(world.sent()) == 2

    async def test_once_the_invoice_is_final_what_is_missing_is_ours(self, world):
        await unknown(world, 10, "reset_before")
        await world.change(
            current_period_start=HOUR + timedelta(minutes=9), current_period_end=HOUR + timedelta(days=30)
        )
        await world.change(ended_at=HOUR + timedelta(minutes=10))
        world.later(days=5)
        for _ in range(2):
            await world.send()
        assert await world.states() == [("ours", "invoice_final")]
        assert len(world.sent()) == 1


class TestWhichAreThere:
    @pytest.mark.parametrize(
        ("excess", "doubtful", "there"),
        [
            (0, [5], (False,)),
            (5, [5], (True,)),
            (3, [5], None),
            (0, [], ()),
            (1, [], None),
            (-4, [5, -4], (False, True)),
            (1, [5, -4], (True, True)),
            (12, [5, 5, 7], (True, False, True)),
            (2**60 + 100, [2**60, 100], (True, True)),
        ],
    )
    def test_finds_a_choice_of_that_sum(self, excess, doubtful, there):
        found = which_are_there(excess, doubtful)
        assert (found is None) == (there is None)
        if found is not None:
            assert sum(units for units, is_there in zip(doubtful, found, strict=True) if is_there) == excess
            assert sum(found) == sum(there)

    def test_gives_up_where_there_are_too_many(self):
        assert which_are_there(0, [1] * 17) is None
