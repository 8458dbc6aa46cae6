"""Whatever is sealed, corrected, lost or cut off on the way: Stripe counts what the ledger says, once.

One example is one customer, whose hours are sealed and corrected in any order while answers are lost, Stripe fails
before or after it has done what it was asked, and processes die between any two steps.
"""

from collections import Counter
from datetime import timedelta

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from control_plane.foundation.clock import floor_hour
from control_plane.stripe_sync.usage.asking import ask_stripe
from control_plane.stripe_sync.usage.delivered import usage_at_stripe
from control_plane.stripe_sync.usage.flushing import flush
from control_plane.stripe_sync.usage.queue import LEASE
from control_plane.stripe_sync.usage.sender import claim_rows
from tests.control_plane.stripe_sync.usage.conftest import OURS

METER_CALLS = "/v1/billing/meter_event*"
FAULTS = {
    "reset_before": 0.1,
    "reset_after": 0.15,
    "error_before": 0.08,
    "error_after": 0.12,
    "rate_limited": 0.05,
    "lock_timeout": 0.05,
}
LAG_SECONDS = 300

actions = st.one_of(
    st.tuples(st.just("seal"), st.integers(0, 3), st.sampled_from((0, 3, 5, 10, 10, 12))),
    st.tuples(st.just("seal"), st.integers(0, 3), st.sampled_from((0, 3, 5, 10, 10, 12))),
    st.tuples(st.just("send")),
    st.tuples(st.just("send")),
    st.tuples(st.just("flush")),
    st.tuples(st.just("die before asking")),
    st.tuples(st.just("die after asking")),
    st.tuples(st.just("pass"), st.sampled_from((1, 5, 70, 3 * 60, 21 * 60, 26 * 60))),
)


class History:
    """What has come to pass in one example."""

    def __init__(self, world):
        self.world = world
        self.first_hour = floor_hour(world.now) - timedelta(hours=6)
        self.totals = Counter()

    async def play(self, name, *arguments):
        await getattr(self, name.replace(" ", "_"))(*arguments)

    async def seal(self, number, units):
        """Seal an hour anew: it has so many units now."""
        hour = self.first_hour + timedelta(hours=number)
        if units != self.totals[hour]:
            await self.world.seal(hour, units - self.totals[hour])
            self.totals[hour] = units

    async def send(self):
        await self.world.send()
        self.world.later(seconds=1)

    async def flush(self):
        world = self.world
        await flush(
            world.sessions,
            world.stripe,
            subscription_id=world.subscription_id,
            until=world.now,
            clock=world.clock,
        )

    async def die_before_asking(self):
        await claim_rows(self.world.sessions, self.world.stripe, now=self.world.now, limit=3)

    async def die_after_asking(self):
        claimed = await claim_rows(self.world.sessions, self.world.stripe, now=self.world.now, limit=3)
        for ask in claimed.asks:
            await ask_stripe(self.world.stripe, ask)

    async def pass_(self, minutes):
        self.world.later(minutes=minutes)

    async def finish(self):
        """Let whoever is left do the rest, and Stripe sum up."""
        self.world.sim.control.clear_faults()
        for _ in range(12):
            self.world.at(self.world.now + max(LEASE, timedelta(minutes=31)))
            if not await self.world.send():
                break
        self.world.later(seconds=LAG_SECONDS + 1)


class TestAnyHistory:
    @settings(
        max_examples=8,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
    @given(history=st.lists(actions, min_size=6, max_size=16), seed=st.integers(0, 10**6))
    async def test_ends_with_the_ledgers_sum_at_stripe(self, world, history, seed):
        world.sim.control.configure(aggregation_seconds=LAG_SECONDS)
        if world.now.day > 14:
            world.at(OURS.replace(month=world.now.month + 1, day=4))  # a period with room
        await world.subscribe()
        played = History(world)
        world.sim.control.random_faults(FAULTS, seed=seed, path=METER_CALLS)
        for name, *arguments in [("seal", 0, 10), *history]:
            await played.play("pass_" if name == "pass" else name, *arguments)
        await played.finish()
        rows = await world.rows(account_id=world.account_id)
        assert {row.state for row in rows} <= {"delivered", "cancelled"}, rows
        assert await world.at_stripe() == await world.in_ledger() == sum(played.totals.values())
        async with world.sessions() as session:
            sums = await usage_at_stripe(session, subscription_id=world.subscription_id, start=OURS, end=world.now)
        assert sum(one.delivered for one in sums) == await world.in_ledger()
