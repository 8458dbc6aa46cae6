"""The worker that carries moves out."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.billing.plan_moves import metrics
from control_plane.billing.plan_moves.steps import (
    finish_moves,
    note_begun,
    plan_waiting,
    take_back_canceled,
    wait_again,
)
from control_plane.foundation.clock import floor_ms, utc_now
from control_plane.foundation.rounds import repeat

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PlanMovesConfig:
    """Few at once: their accounts are locked together, and a customer may be waiting for one of them."""

    at_once: int = 20
    pause_seconds: float = 5.0


async def run_plan_moves(
    *,
    config: PlanMovesConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Carry moves out until `stop`. Failures are counted and tried again."""

    async def one_round() -> float:
        done = await move_once(sessions, config=config, now=floor_ms(clock()))
        return 0 if done else config.pause_seconds

    await repeat("plan-moves", one_round, stop=stop, failures=metrics.FAILURES.labels("round"))


async def move_once(sessions: async_sessionmaker[AsyncSession], *, config: PlanMovesConfig, now: datetime) -> int:
    """Do each step for a batch, in a transaction of its own; returns how many subscriptions were worked on."""
    done = 0
    for step in (take_back_canceled, wait_again, plan_waiting, note_begun):
        async with sessions() as session, session.begin():
            done += await step(session, now=now, limit=config.at_once)
    async with sessions() as session, session.begin():
        await finish_moves(session, now=now)
    return done
