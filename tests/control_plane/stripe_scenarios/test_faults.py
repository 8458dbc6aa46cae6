"""One story under every fault at once: requests that fail, answers that are lost, webhooks in disorder, kills.

Whatever happens on the way, every call is billed once, every invoice is paid once, and all stores agree.
`KM_STRIPE_FAULT_RUNS` says how many runs there are, `KM_STRIPE_FAULT_SEED` which is the first.
"""

import os
from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import select, text

from control_plane.foundation.clock import floor_hour
from control_plane.reconciliation.model import Severity, Span
from control_plane.reconciliation.worker import all_comparisons
from control_plane.stripe_sync.events.listing import read_lists
from control_plane.stripe_sync.subscriptions.tables import StripeSubscription
from control_plane.subscriptions.tables import Subscription
from tests.control_plane.stripe_scenarios.killing import Killer
from tests.control_plane.stripe_scenarios.world import BOUGHT_AT, DAY, GROWTH, MINUTE, STARTER, World

RUNS = int(os.environ.get("KM_STRIPE_FAULT_RUNS", "1"))
FIRST = int(os.environ.get("KM_STRIPE_FAULT_SEED", "1"))
FAULTS = (
    "error_before",
    "error_after",
    "rate_limited",
    "lock_timeout",
    "reset_before",
    "reset_after",
    "timeout_before",
    "timeout_after",
)
SLOW = {"timeout_before", "timeout_after"}
# 60,000 and 5,000 on Starter (50,000 included), 500,100 and 20,000 on Growth (500,000 included), 600,100 in the
# last period
OVERAGE_MINOR = 2_250 + 1_206 + 6_006


class Trouble:
    """Orders the faults of one run."""

    def __init__(self, world: World, killer: Killer, seed: int) -> None:
        self._world = world
        self._killer = killer
        self._random = Random(seed)

    def begin(self) -> None:
        """From now on a part of everything fails."""
        draw, control = self._random, self._world.sim.control
        kinds = draw.sample(FAULTS, k=draw.randint(1, len(FAULTS)))
        rates = {kind: draw.uniform(0.01, 0.03 if kind in SLOW else 0.12) for kind in kinds}
        control.random_faults(rates, seed=draw.randrange(10**6), path="/v*")
        control.disorder(
            duplicate=draw.choice((0.0, 0.5)),
            drop=draw.choice((0.0, 0.2)),
            hold=draw.random() < 0.3,
            seed=draw.randrange(10**6),
        )
        self._killer.kill_after(draw.randint(0, 80))

    async def end(self) -> None:
        """Everything works again, what was held comes in any order, and what nobody heard of is read."""
        control = self._world.sim.control
        self._killer.spare()
        control.clear_faults()
        control.disorder()
        control.deliver(
            order=self._random.choice(("made", "reversed", "shuffled")), times=self._random.randint(1, 2)
        )
        await self._world.settle(patience=20 * MINUTE)
        await read_lists(self._world.ctx, lag=timedelta(0))
        await self._world.settle(patience=20 * MINUTE)


async def tell(world: World, trouble: Trouble) -> None:
    """A purchase, an upgrade, a full period, and a cancellation, with usage all the way."""
    await world.sell("starter", *STARTER, quota_units=50_000)
    await world.sell("growth", *GROWTH, position=1, quota_units=500_000)
    await world.sign_up()

    async def troubled(step: str, *given: object) -> None:
        trouble.begin()
        await getattr(world, step)(*given)
        await trouble.end()

    await troubled("buy", "starter")
    await troubled("use", 60_000)
    await troubled("use", 5_000)
    await world.later(3 * DAY)
    await troubled("change_plan", "growth")
    await troubled("use", 500_100)
    await troubled("use", 20_000)
    await troubled("pass_period_end")
    await world.later(2 * DAY)
    await troubled("use", 600_100)
    await troubled("cancel")
    await troubled("pass_period_end")
    await world.later(3 * DAY)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + RUNS))
async def test_nothing_is_lost_doubled_or_paid_twice(world: World, killer: Killer, seed: int) -> None:
    await tell(world, Trouble(world, killer, seed))
    row = await world.row()
    # one of everything
    assert len([one for one in world.at_stripe("customer") if not one.get("deleted")]) == 1
    assert len(world.at_stripe("subscription")) == 1
    async with world.plain() as session:
        assert len((await session.scalars(select(Subscription))).all()) == 1
        assert len((await session.scalars(select(StripeSubscription))).all()) == 1
    # every unit reached Stripe once
    async with world.plain() as session:
        rows = (
            await session.execute(text("SELECT state, sum(delta_units) FROM stripe_usage_rows GROUP BY state"))
        ).all()
    assert sum(units for _, units in rows) == 60_000 + 5_000 + 500_100 + 20_000 + 600_100
    assert {state for state, _ in rows} <= {"delivered", "ours"}
    # every unit was billed once, every fixed price once, every change once
    invoices = await world.invoices()
    lines = [line for invoice in invoices for line in invoice.lines]
    fixed = [line.amount_minor for line in lines if line.kind == "flat"]
    assert fixed == [4_900, 19_900]
    prorated = sorted(line.amount_minor for line in lines if line.kind == "proration")
    assert len(prorated) == 2
    assert prorated[0] < 0 < prorated[1]
    usage = sum(line.amount_minor for line in lines if line.kind in {"metered", "adjustment"})
    assert usage == OVERAGE_MINOR
    # every invoice was paid once
    assert {invoice.status for invoice in invoices} == {"paid"}
    charged = [one for one in world.at_stripe("charge") if one["paid"]]
    assert sum(one["amount"] for one in charged) == sum(invoice.amount_paid_minor for invoice in invoices)
    assert len({one["payment_intent"] for one in charged}) == len(charged)
    # all stores agree, and it is over here and there
    assert (row.status, (await world.subscription()).status) == ("canceled", "ended")
    async with world.plain() as session:
        span = Span(start=floor_hour(BOUGHT_AT), end=floor_hour(world.now), now=world.now, ask_stripe=True)
        for compare in all_comparisons(world.ctx.config, world.sessions):
            comparison = await compare(session, span)
            assert [one for one in comparison.differences if one.severity is Severity.WRONG] == [], comparison.link
        waiting = await session.scalar(
            text("SELECT count(*) FROM stripe_events WHERE state IN ('waiting', 'dead')")
        )
        assert waiting == 0
