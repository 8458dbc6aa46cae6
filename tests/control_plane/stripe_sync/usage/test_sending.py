"""Rows go to Stripe once, whatever happens on the way."""

from datetime import timedelta

import pytest

from control_plane.stripe_sync.usage.queue import LEASE
from control_plane.stripe_sync.usage.sender import claim_rows, handle
from tests.control_plane.stripe_sync.usage.conftest import EVENT_NAME, OURS, STRIPE_ANCHOR

HOUR = OURS.replace(day=17, hour=5)


class TestSending:
    async def test_sends_one_event_for_each_row_and_no_more(self, world):
        await world.seal(HOUR, 10)
        await world.seal(HOUR + timedelta(hours=1), 20)
        await world.seal(HOUR, 5)
        assert await world.send() == 3
        assert await world.send() == 0
        assert await world.at_stripe() == 35
        row = (await world.rows())[0]
        assert row.identifier == f"km:main:{world.phase_id}:requests:2026031705:1"
        assert row.stripe_at == HOUR
        assert row.delivered_at == world.now
        asked = world.sent()[0]
        assert asked["params"]["payload"] == {"stripe_customer_id": world.customer_id, "value": "10"}
        assert asked["params"]["event_name"] == EVENT_NAME
        assert asked["idempotency_key"].endswith(":1")

    async def test_an_hour_that_stripes_period_begins_in_bears_a_moment_of_that_period(self, world):
        await world.seal(OURS, 10)
        await world.send()
        assert (await world.row()).stripe_at == STRIPE_ANCHOR

    async def test_waits_for_a_customer_that_is_made_late(self, world):
        await world.subscribe(linked=False)
        await world.seal(HOUR, 10)
        await world.send()
        assert await world.states() == [("waiting", "no_stripe_subscription")]
        await world.link()
        world.later(minutes=1)
        await world.send()
        assert await world.at_stripe() == 10

    async def test_leaves_what_stripe_cannot_rate_to_us(self, world):
        await world.seal(HOUR, 10, meter="upstream_ms")
        await world.send()
        assert await world.states() == [("ours", "not_native")]
        assert world.sent() == []

    async def test_an_answer_that_never_came_is_asked_for_again(self, world):
        for fault in (
            "error_after",
            "reset_after",
            "error_before",
            "reset_before",
            "rate_limited",
            "lock_timeout",
        ):
            await world.subscribe()
            await world.seal(HOUR, 10)
            world.sim.control.fault(fault, path="/v1/billing/meter_events", count=3)
            for _ in range(5):
                await world.send()
                world.later(minutes=1)
            assert await world.at_stripe() == 10, fault
            assert (await world.row(account_id=world.account_id)).state == "delivered", fault

    async def test_a_process_that_dies_in_between_leaves_a_row_that_is_asked_again(self, world):
        await world.seal(HOUR, 10)
        await claim_rows(world.sessions, world.stripe, now=world.now, limit=5)
        assert await world.states() == [("sent", "outcome_unknown")]
        assert await world.send() == 0  # somebody may be asking
        world.at(world.now + LEASE)
        await world.send()
        assert await world.at_stripe() == 10
        assert await world.states() == [("delivered", "")]

    async def test_a_process_that_dies_after_stripe_took_it_finds_it_there(self, world):
        await world.seal(HOUR, 10)
        claimed = await claim_rows(world.sessions, world.stripe, now=world.now, limit=5)

        with pytest.raises(TypeError):
            await handle(None, world.stripe, claimed.work[0], clock=world.clock)
        world.at(world.now + LEASE)
        await world.send()
        assert await world.at_stripe() == 10
        assert await world.states() == [("delivered", "")]  # the idempotency key brought the first answer

    async def test_an_event_that_stripe_has_already_counts_as_delivered(self, world):
        await world.seal(HOUR, 10)
        claimed = await claim_rows(world.sessions, world.stripe, now=world.now, limit=5)
        taken = claimed.asks[0]
        await world.stripe.call(
            lambda client: client.v1.billing.meter_events.create_async(
                {
                    "event_name": taken.event_name,
                    "payload": {"stripe_customer_id": taken.customer_id, "value": "10"},
                    "identifier": taken.identifier,
                    "timestamp": int(taken.stripe_at.timestamp()),
                },
                {"idempotency_key": "another"},
            )
        )
        world.at(world.now + LEASE)
        await world.send()
        assert await world.states() == [("delivered", "already_there")]
        assert await world.at_stripe() == 10

    async def test_a_customer_whom_stripe_refuses_holds_up_nobody(self, world):
        refused = world.account_id
        await world.change(customer_id="cus_gone")
        await world.seal(HOUR, 1)
        await world.subscribe()
        await world.seal(HOUR, 2)
        world.sim.control.fault("reset_before", path="/v1/billing/meter_events")
        for _ in range(3):
            await world.send()
            world.later(minutes=1)
        assert await world.at_stripe() == 2
        assert (await world.row(account_id=refused)).state == "delivered"  # Stripe tells later that it was not

    async def test_rows_of_one_customer_and_meter_go_one_after_another(self, world):
        await world.seal(HOUR, 1)
        await world.seal(HOUR + timedelta(hours=1), 2)
        first = await claim_rows(world.sessions, world.stripe, now=world.now, limit=5)
        second = await claim_rows(world.sessions, world.stripe, now=world.now, limit=5)
        assert [ask.units for ask in first.asks] == [1]
        assert second.asks == ()
        await handle(world.sessions, world.stripe, first.work[0], clock=world.clock)
        third = await claim_rows(world.sessions, world.stripe, now=world.now, limit=5)
        assert [ask.units for ask in third.asks] == [2]

    async def test_those_far_behind_take_one_turn_a_round(self, world):
        for hour in range(5):
            await world.seal(HOUR + timedelta(hours=hour), 1)
        for _ in range(2):
            await world.subscribe()
            await world.seal(HOUR, 1)
        first = await claim_rows(world.sessions, world.stripe, now=world.now, limit=2)
        second = await claim_rows(world.sessions, world.stripe, now=world.now, limit=2, after=first.after)
        assert len({ask.key.account_id for ask in (*first.asks, *second.asks)}) == 3
