"""The workers that bills depend on, run at one moment until nothing is left to do; and when one has work next.

Left out: those that only check, show or pass on (completeness, sinks, exports, upgrade hints, alerts).
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.credits.due import CreditExpiryConfig, Looked, look
from control_plane.billing.invoices.closing import ClosingConfig
from control_plane.billing.invoices.steps import ClosingRules
from control_plane.billing.invoices.worker import close_all
from control_plane.billing.payments.overdue import OverdueConfig, behind, fall_behind
from control_plane.billing.plan_moves.worker import PlanMovesConfig, move_once
from control_plane.billing.prepaid.worker import draw_usage
from control_plane.gateway_sync.projection import project_changes
from control_plane.gateway_sync.record_writer import RecordWriter
from control_plane.gateway_sync.settlement import settle_sealed_hours
from control_plane.subscriptions.advance import advance
from control_plane.usage.daily.retention import HourlyRetentionConfig, drop_old_hours
from control_plane.usage.daily.rollup import DailyConfig, roll_up_days
from control_plane.usage.extra_units import EXTRA_UNITS
from control_plane.usage.meters.periods import PeriodsConfig, count_due_periods
from control_plane.usage.rollups.aggregator import aggregate_touched
from control_plane.usage.rollups.sealing import SealingConfig, seal_hours
from control_plane.usage.workers import DERIVED
from devstack.year.world import PUBLIC_URL, TERMS, World

T = TypeVar("T")

GRACE = timedelta(hours=1)
SEALING = SealingConfig(hours_per_pass=5000)
# a draft is brought up to date when it becomes final: nobody looks at it in between
CLOSING = ClosingConfig(rules=ClosingRules(grace=GRACE, refresh=GRACE), terms=TERMS)
OVERDUE = OverdueConfig()
EXPIRY = CreditExpiryConfig()
MOVES = PlanMovesConfig()
# the database marks days by its own clock, which is not ours
DAYS = DailyConfig(quiet=timedelta(days=-36500))
PERIODS = PeriodsConfig(shortest_pause_seconds=0.0, pause_factor=0.0)

_DUE = text("""
SELECT min(at) FROM (
    SELECT look_at AS at FROM subscription_billing
    UNION ALL SELECT starts_at FROM subscription_phases WHERE applied_at IS NULL
    UNION ALL SELECT ends_at FROM subscriptions WHERE status NOT IN ('canceled', 'ended')
    UNION ALL SELECT look_at FROM credit_grants
    UNION ALL SELECT due_at + CAST(:grace AS interval) FROM invoices WHERE status = 'open'
    UNION ALL SELECT hour + CAST(:sealed_after AS interval) FROM usage_hours WHERE sealed_at IS NULL
) AS due WHERE at > :now
""")


async def work(world: World) -> None:
    """Do all that is due at the clock's time, in the order in which one worker's news reaches the next."""
    now = world.clock.now
    await world.gateway.heartbeat(now)
    await _time(world, now)
    await _usage(world, now)
    await _money(world, now)
    await _gateway(world, now)


async def next_due(world: World) -> datetime | None:
    """Return the next moment after the clock's at which a worker has something to do; None where there is none."""
    values = {
        "now": world.clock.now,
        "grace": OVERDUE.grace,
        "sealed_after": timedelta(hours=1) + SEALING.lateness,
    }
    async with world.sessions() as session:
        found: datetime | None = (await session.execute(_DUE, values)).scalar()
    return found


async def _time(world: World, now: datetime) -> None:
    done = True
    while done:
        moved = await move_once(world.sessions, config=MOVES, now=now)
        advanced = await _in_transaction(world, lambda session: advance(session, now=now))
        done = bool(moved or advanced.accounts_told or advanced.phases_begun or advanced.subscriptions_ended)


async def _usage(world: World, now: datetime) -> None:
    # asking for more than was sent would wait for a tenth of a second, each time
    while world.gateway.entries:
        world.gateway.entries -= await world.collector.collect()
    while await aggregate_touched(world.sessions, world.store, now=now, limit=500, derive=DERIVED):
        pass
    while await count_due_periods(world.sessions, world.store, now=now, config=PERIODS):
        pass
    await _until_nothing(world, lambda session: _seal(session, now))
    await _until_nothing(world, lambda session: roll_up_days(session, config=DAYS, now=now))
    await _until_nothing(world, lambda session: drop_old_hours(session, config=HourlyRetentionConfig(), now=now))


async def _seal(session: AsyncSession, now: datetime) -> int:
    return len((await seal_hours(session, config=SEALING, now=now, extra_units=EXTRA_UNITS)).sealed)


async def _money(world: World, now: datetime) -> None:
    await draw_usage(world.sessions, now=now)
    await close_all(world.sessions, config=CLOSING, now=now)
    looked: Looked | None = None
    while looked != Looked():
        looked = await _in_transaction(world, lambda session: look(session, now=now, keep=EXPIRY.keep))
    async with world.sessions() as session:
        late = await behind(session, config=OVERDUE, now=now)
    for subscription_id, account_id in late:
        async with world.sessions() as session, session.begin():
            await fall_behind(
                session, subscription_id=subscription_id, account_id=account_id, config=OVERDUE, now=now
            )


async def _gateway(world: World, now: datetime) -> None:
    writer = RecordWriter(world.redis)
    while await project_changes(world.sessions, writer, public_url=PUBLIC_URL, now=now):
        pass
    while await settle_sealed_hours(world.sessions, world.redis, now=now):
        pass


async def _until_nothing(world: World, step: Callable[[AsyncSession], Awaitable[int]]) -> None:
    while await _in_transaction(world, step):
        pass


async def _in_transaction(world: World, step: Callable[[AsyncSession], Awaitable[T]]) -> T:
    async with world.sessions() as session, session.begin():
        return await step(session)
