"""What a reconciliation says of Stripe's summaries."""

from datetime import timedelta

import pytest

from control_plane.reconciliation import summaries
from control_plane.reconciliation.model import Comparison, LinkState, Severity, Span
from control_plane.reconciliation.summaries import CompareSummaries
from control_plane.stripe_sync.client import StripeRefused, StripeUnavailable
from tests.control_plane.stripe_sync.usage.conftest import OURS, World
from tests.control_plane.stripe_sync.usage.test_comparing import HOUR, by_hand


async def compared(world: World) -> Comparison:
    span = Span(start=OURS, end=HOUR + timedelta(days=2), now=world.now, ask_stripe=True)
    async with world.sessions() as session:
        return await CompareSummaries(world.stripe.config, world.sessions, clock=world.clock)(session, span)


def causes(comparison: Comparison) -> list[tuple[str, Severity, int, int]]:
    return [(one.cause, one.severity, one.expected, one.found) for one in comparison.differences]


class TestSummaries:
    async def test_what_is_sent_every_hour_hides_no_difference_of_another(self, world):
        await world.seal(HOUR, 10)
        await world.send()
        await by_hand(world, 4, HOUR + timedelta(minutes=30))
        assert causes(await compared(world)) == [("being_added_up", Severity.WAITING, 10, 14)]
        world.later(hours=3)
        await world.seal(HOUR + timedelta(hours=3), 7)
        await world.send()
        assert causes(await compared(world)) == [("more_at_stripe", Severity.WRONG, 10, 14)]

    async def test_units_of_unknown_outcome_are_waited_for(self, world):
        await world.seal(HOUR, 10)
        world.sim.control.fault("timeout_after", method="POST", path="/v1/billing/meter_events", seconds=0.1)
        await world.send()
        world.later(hours=3)
        assert causes(await compared(world)) == [("unknown_outcome", Severity.WAITING, 0, 10)]

    @pytest.mark.parametrize(
        ("error", "cause", "checked"),
        [
            (ValueError("0.5 is no number of whole units"), "summary_unreadable", 1),
            (StripeRefused("", None, "No."), "summary_unreadable", 1),
            (StripeUnavailable("It is away."), "stripe_not_asked", 0),
        ],
    )
    async def test_what_is_not_told_of_one_is_said(self, world, monkeypatch, error, cause, checked):
        await world.seal(HOUR, 10)
        await world.send()
        await world.subscribe()
        await world.seal(HOUR, 10)
        await world.send()
        asked = []
        real = summaries.compare_window

        async def first_fails(*args, **options):
            asked.append(options)
            if len(asked) == 1:
                raise error
            return await real(*args, **options)

        monkeypatch.setattr(summaries, "compare_window", first_fails)
        found = await compared(world)
        assert causes(found) == [(cause, Severity.WRONG, 0, 0)]
        assert found.checked == checked
        assert found.state is LinkState.DIFFERS
