"""Operators have rows sent once more, after seeing what that would do."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from control_plane.foundation.errors import ValidationFailedError
from control_plane.stripe_sync.usage.listing import RowFilter, list_rows
from control_plane.stripe_sync.usage.model import RowState
from control_plane.stripe_sync.usage.operations import Assume, Outcome, retry_rows
from control_plane.stripe_sync.usage.replaying import NotSummedUpError, StillDifferingError, replay_missing
from tests.control_plane.builders import ACTOR, audit_of
from tests.control_plane.stripe_sync.usage.conftest import OURS, STRIPE_ANCHOR
from tests.control_plane.stripe_sync.usage.test_comparing import by_hand

HOUR = OURS.replace(day=17, hour=5)


async def retried(world, *, dry_run=False, assume=None, **wanted):
    async with world.sessions() as session, session.begin():
        return await retry_rows(
            session,
            RowFilter(**wanted),
            assume=assume,
            dry_run=dry_run,
            reason="mended",
            actor=ACTOR,
            now=world.now,
        )


async def replayed(world, *, dry_run=False):
    return await replay_missing(
        world.sessions,
        world.stripe,
        subscription_id=world.subscription_id,
        start=STRIPE_ANCHOR,
        end=STRIPE_ANCHOR.replace(month=4),
        dry_run=dry_run,
        reason="lost",
        actor=ACTOR,
        now=world.now,
    )


class TestRetryRows:
    async def test_sends_refused_rows_anew_under_another_identifier(self, world):
        await world.seal(HOUR, 10)
        await world.change(customer_id="cus_gone")
        await world.send()
        await world.change(customer_id=world.customer_id)
        async with world.sessions() as session, session.begin():
            await session.execute(text("UPDATE stripe_usage_rows SET state = 'refused'"))  # as Stripe reports it
        before = (await world.row()).identifier
        (told,) = await retried(world, state=RowState.REFUSED, dry_run=True)
        assert (told.outcome, told.state) == (Outcome.SENT_ANEW, "refused")
        assert await world.send() == 0
        await retried(world, state=RowState.REFUSED)
        await world.send()
        assert await world.at_stripe() == 10
        assert (await world.row()).identifier == f"{before}:e2"
        async with world.sessions() as session:
            audited = (await audit_of(session, world.account_id))[-1]
        assert (audited.action, audited.after["units"]) == ("stripe_usage.retried", 10)

    @pytest.mark.parametrize(
        ("assume", "units", "state"), [(Assume.DELIVERED, 3, "delivered"), (Assume.MISSING, 13, "delivered")]
    )
    async def test_takes_unknown_rows_for_what_is_said_of_them(self, world, assume, units, state):
        await world.seal(HOUR, 10)
        world.sim.control.fault("reset_before", path="/v1/billing/meter_events")
        await world.send()
        await by_hand(world, 3, HOUR)
        world.later(hours=30)
        await world.send()
        assert await world.states() == [("sent", "summary_unclear")]
        await retried(world, state=RowState.SENT, assume=assume)
        await world.send()
        assert (await world.row()).state == state
        assert await world.at_stripe() == units

    async def test_leaves_what_is_settled_and_says_so(self, world):
        await world.seal(HOUR, 10)
        await world.send()
        (told,) = await retried(world, account_id=world.account_id)
        assert told.outcome is Outcome.LEFT
        assert (await world.row()).edition == 1

    async def test_asks_which_rows_are_meant(self, world):
        with pytest.raises(ValidationFailedError):
            await retried(world)


class TestReplayMissing:
    async def test_sends_delivered_rows_that_stripe_lacks(self, world):
        for hour, units in ((0, 10), (0, 4), (1, 5)):
            await world.seal(HOUR + timedelta(hours=hour), units)
        await world.send()
        lost = (await world.rows(delta_units=4))[0].identifier
        await world.stripe.call(
            lambda client: client.v1.billing.meter_event_adjustments.create_async(
                {"event_name": "km_main_weather_requests", "type": "cancel", "cancel": {"identifier": lost}}
            )
        )
        with pytest.raises(NotSummedUpError):
            await replayed(world)
        world.later(hours=1)
        for dry_run in (True, False):
            (told,) = await replayed(world, dry_run=dry_run)
            assert told.delta_units == 4
        await world.send()
        assert await world.at_stripe() == await world.in_ledger() == 19
        assert await replayed(world) == []

    async def test_refuses_where_no_rows_explain_it(self, world):
        await world.seal(HOUR, 10)
        await world.send()
        await by_hand(world, 1, HOUR)
        world.later(hours=1)
        with pytest.raises(StillDifferingError, match="11 units"):
            await replayed(world)


class TestListRows:
    async def test_goes_page_by_page_in_the_order_of_time(self, world):
        for hour in range(3):
            await world.seal(HOUR + timedelta(hours=hour), hour + 1)
        found, cursor = [], None
        async with world.sessions() as session:
            while True:
                page = await list_rows(session, RowFilter(meter="requests"), cursor=cursor, limit=2)
                found += [row.delta_units for row in page.items]
                cursor = page.next_cursor
                if cursor is None:
                    break
        assert found == [1, 2, 3]
