"""Usage that is taken back: cancelled, sent below zero, or left to our own adjustment of the invoice."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from tests.control_plane.stripe_sync.usage.conftest import OURS

HOUR = OURS.replace(day=17, hour=5)


class TestTakingBack:
    async def test_what_was_never_sent_is_dropped_with_what_takes_it_back(self, world):
        await world.seal(HOUR, 10)
        await world.seal(HOUR, -10)
        await world.send()
        assert await world.states() == [("cancelled", "never_sent")] * 2
        assert world.sent() == []

    async def test_a_whole_row_is_cancelled_within_a_day(self, world):
        await world.seal(HOUR, 10)
        await world.send()
        world.later(hours=20)
        await world.seal(HOUR, -10)
        await world.send()
        assert await world.states() == [("cancelled", "taken_back")] * 2
        assert await world.at_stripe() == 0
        assert len(world.sent()) == 1

    @pytest.mark.parametrize(("units", "hours"), [(-4, 1), (-10, 24)])
    async def test_a_part_and_what_is_older_go_as_an_event_below_zero(self, world, units, hours):
        await world.seal(HOUR, 10)
        await world.send()
        world.later(hours=hours)
        await world.seal(HOUR, units)
        await world.send()
        assert await world.states() == [("delivered", "")] * 2
        assert await world.at_stripe() == 10 + units

    async def test_a_cancellation_whose_answer_never_came_is_not_taken_for_refused(self, world):
        for fault in ("reset_after", "error_after", "reset_before"):
            await world.subscribe()
            await world.seal(HOUR, 10)
            await world.send()
            await world.seal(HOUR, -10)
            world.sim.control.fault(fault, path="/v1/billing/meter_event_adjustments", count=2)
            for _ in range(6):
                await world.send()
                world.later(minutes=20)
            assert await world.at_stripe() == 0, fault
            rows = await world.rows(account_id=world.account_id)
            assert [(row.state, row.reason) for row in rows] == [("cancelled", "taken_back")] * 2, fault

    async def test_what_stripe_will_not_cancel_is_sent_below_zero(self, world):
        await world.seal(HOUR, 10)
        await world.send()
        identifier = (await world.row()).identifier
        await world.seal(HOUR, -10)
        world.sim.control.freeze(int((world.now + timedelta(hours=26)).timestamp()))  # Stripe's clock alone
        await world.send()
        assert await world.states() == [("delivered", ""), ("delivered", "")]
        assert (await world.rows())[1].identifier == f"{identifier[:-1]}2:e2"
        assert await world.at_stripe() == 0

    async def test_more_than_stripe_has_is_ours(self, world):
        await world.seal(HOUR, 10)
        await world.send()
        await world.seal(HOUR, 5)
        async with world.sessions() as session, session.begin():
            await session.execute(text("UPDATE stripe_usage_rows SET state = 'refused' WHERE delta_units = 5"))
        await world.seal(HOUR, -12)
        await world.send()
        assert (await world.rows())[-1].reason == "takes_more_than_delivered"
        assert await world.at_stripe() == 10

    async def test_up_and_down_several_times_within_an_hour_comes_to_the_last(self, world):
        for units in (10, -10, 12, -2, -10, 7):
            await world.seal(HOUR, units)
            if units in {10, 12, -10}:
                await world.send()
        await world.send()
        world.later(minutes=1)
        await world.send()
        assert await world.at_stripe() == await world.in_ledger() == 7

    async def test_waits_for_what_is_not_known_of_the_row_it_takes_back(self, world):
        await world.seal(HOUR, 10)
        world.sim.control.fault("reset_after", path="/v1/billing/meter_events")
        await world.send()
        await world.seal(HOUR, -10)
        await world.send()
        assert await world.states() == [("sent", "outcome_unknown"), ("waiting", "earlier_row_undecided")]
        world.later(minutes=1)
        await world.send()
        world.later(minutes=1)
        await world.send()
        assert await world.at_stripe() == 0
        assert await world.states() == [("cancelled", "taken_back")] * 2
