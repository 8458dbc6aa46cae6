"""What Stripe took and would not count after all: its thin events, put down once."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from control_plane.stripe_sync.effects import Effect
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.usage.meter_errors import apply_meter_errors, reports_of
from control_plane.stripe_sync.usage.refusals import REFUSALS
from control_plane.stripe_sync.usage.tables import StripeUsageError
from tests.control_plane.stripe_sync.usage.conftest import OURS

HOUR = OURS.replace(day=17, hour=5)


@pytest.fixture
def apply(world):
    async def to_all():
        """Act on every thin event of the simulator's, twice, and return what it came to."""
        context = StripeContext(sessions=world.sessions, stripe=world.stripe, now=world.now)
        events = world.sim.control.dump("v2.core.event")["v2.core.event"]
        ids = [one["id"] for one in events if one["type"].startswith("v1.billing.meter")]
        return [await apply_meter_errors(context, event_id) for event_id in ids * 2]

    return to_all


class TestApplyMeterErrors:
    async def test_a_customer_that_stripe_does_not_know_is_refused(self, world, apply):
        await world.change(customer_id="cus_gone")
        await world.seal(HOUR, 10)
        await world.send()
        assert await world.states() == [("delivered", "")]
        assert await apply() == [Effect.APPLIED] * 2
        assert await world.states() == [("refused", "meter_event_customer_not_found")]
        async with world.sessions() as session:
            (error,) = await session.scalars(select(StripeUsageError))
        assert (error.error_count, error.rows_found, error.rows_doubted) == (1, 1, 0)

    async def test_what_is_below_zero_and_not_taken_is_ours(self, world, apply):
        world.sim.control.configure(whole_positive_values=True)
        await world.seal(HOUR, 10)
        await world.seal(HOUR, -4)
        await world.send()
        await apply()
        assert await world.states() == [("delivered", ""), ("ours", "negative_refused")]
        assert await world.at_stripe() == 10

    async def test_a_meter_that_is_archived_refuses(self, world, apply):
        await world.stripe.call(lambda client: client.v1.billing.meters.deactivate_async(world.meter_id))
        await world.seal(HOUR, 10)
        await world.send()
        await apply()
        assert await world.states() == [("refused", "archived_meter")]

    async def test_reports_of_others_are_not_ours(self, world, apply):
        await world.stripe.call(
            lambda client: client.v1.billing.meter_events.create_async(
                {"event_name": "theirs", "payload": {"stripe_customer_id": "cus_1", "value": "1"}}
            )
        )
        assert await apply() == [Effect.NOT_OURS] * 2

    async def test_rows_that_a_report_does_not_name_are_found_by_their_sum(self, world, apply, monkeypatch):
        await world.seal(HOUR, 10)
        await world.send()
        await world.stripe.call(lambda client: client.v1.billing.meters.deactivate_async(world.meter_id))
        for hours in (1, 2):
            await world.seal(HOUR + timedelta(hours=hours), 5)
            await world.send()

        def without_samples(event, *, installation):
            return [replace(report, identifiers=()) for report in reports_of(event, installation=installation)]

        monkeypatch.setattr("control_plane.stripe_sync.usage.meter_errors.reports_of", without_samples)
        await apply()
        assert {state for state, _ in await world.states()} == {"sent"}
        world.later(hours=1)
        await world.send()
        assert [state for state, _ in await world.states()] == ["delivered", "refused", "refused"]
        assert await world.at_stripe() == 10


class TestReports:
    def test_name_rows_by_event_or_by_request(self):
        told = {
            "id": "evt_1",
            "related_object": {"id": "mtr_1"},
            "data": {
                "validation_start": "2026-03-17T10:00:00.000Z",
                "validation_end": "2026-03-17T10:00:10.000Z",
                "reason": {
                    "error_count": 3,
                    "error_types": [
                        {
                            "code": "archived_meter",
                            "error_count": 3,
                            "sample_errors": [
                                {"error_message": "no", "request": {"identifier": "km:main:ph_1:r:1:1"}},
                                {
                                    "error_message": "no",
                                    "request": {"identifier": "km:main:usage-event:km:main:ph_1:r:2:1:1"},
                                },
                            ],
                        }
                    ],
                },
            },
        }
        (report,) = reports_of(told, installation="main")
        assert report.identifiers == ("km:main:ph_1:r:1:1", "km:main:ph_1:r:2:1")
        assert report.error_count == 3
        assert report.window_end - report.window_start == timedelta(seconds=10)

    def test_every_code_of_the_sdks_says_what_to_do(self):
        codes = {
            "archived_meter",
            "meter_event_customer_not_found",
            "meter_event_dimension_count_too_high",
            "meter_event_invalid_value",
            "meter_event_no_customer_defined",
            "meter_event_value_too_many_digits",
            "missing_dimension_payload_keys",
            "no_meter",
            "timestamp_in_future",
            "timestamp_too_far_in_past",
        }
        assert codes == REFUSALS.keys()
        assert all(refusal.to_do.endswith(".") for refusal in REFUSALS.values())
