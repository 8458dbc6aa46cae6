"""The loops of Kong configuration: pushes after changes of API products, and the check for drift."""

import asyncio
from datetime import datetime, timedelta
from typing import cast

import structlog
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import utc_now
from control_plane.foundation.db import create_engine, session_factory
from control_plane.foundation.outbox import OutboxRow, Topic, claim, finish
from control_plane.foundation.rounds import repeat
from control_plane.gateway_sync import metrics
from control_plane.gateway_sync.base_config import KongConfigError
from control_plane.gateway_sync.config import GatewayConfig
from control_plane.gateway_sync.operations import PushReport, check_nodes, push_config

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.5
BATCH = 1000
ACTOR_CHANGES = "system:config_changed"
ACTOR_DRIFT = "system:drift"


async def run_config_sync(config: GatewayConfig, *, database_url: str, stop: asyncio.Event) -> None:
    """Push configuration when API products change, and look for drift, until `stop` is set."""
    engine = create_engine(database_url, pool_size=2, application_name="km-config-sync")
    sessions = session_factory(engine)

    async def push() -> float:
        await push_when_quiet(sessions, config=config, now=utc_now())
        return POLL_SECONDS

    async def check() -> float:
        await check_and_repair(sessions, config=config, now=utc_now())
        return config.check_seconds

    try:
        async with asyncio.TaskGroup() as group:
            for name, one_round in (("config-push", push), ("config-check", check)):
                failures = metrics.FAILURES.labels(name)
                group.create_task(repeat(name, one_round, stop=stop, failures=failures))
    finally:
        await engine.dispose()


async def push_when_quiet(
    sessions: async_sessionmaker[AsyncSession], *, config: GatewayConfig, now: datetime
) -> PushReport | None:
    """Push once for all waiting changes, when the last is `debounce_seconds` old or the first waited too long.

    The changes are worked off in the transaction of the push. A configuration that cannot be rendered is reported
    and not tried again by itself: only another change, of a product or of the base, can make it right.
    """
    async with sessions() as session, session.begin():
        if not await _is_quiet(session, config=config, now=now):
            return None
        rows = await claim(session, topics=(Topic.CONFIG_CHANGED,), limit=BATCH)
        if not rows:
            return None  # another worker is at it
        report = None
        if config.push_changes:
            report = await _try_push(session, config=config, actor=ACTOR_CHANGES, now=now)
        await finish(session, [row.id for row in rows], now)
    return report


async def check_and_repair(
    sessions: async_sessionmaker[AsyncSession], *, config: GatewayConfig, now: datetime
) -> list[str]:
    """Check every node; give drifted ones our configuration again where the setting says so."""
    async with sessions() as session, session.begin():
        drifted = await check_nodes(session, config=config, now=now)
    for admin_url in drifted:
        log.warning("a node runs another configuration than it was given", admin_url=admin_url)
    if drifted and config.repush_drifted:
        async with sessions() as session, session.begin():
            await _try_push(session, config=config, actor=ACTOR_DRIFT, now=now)
    return drifted


async def _is_quiet(session: AsyncSession, *, config: GatewayConfig, now: datetime) -> bool:
    statement = select(func.min(OutboxRow.created_at), func.max(OutboxRow.created_at)).where(
        OutboxRow.done_at.is_(None), OutboxRow.topic == Topic.CONFIG_CHANGED.value
    )
    row = (await session.execute(statement)).one()
    first, last = cast("tuple[datetime | None, datetime | None]", tuple(row))
    if first is None or last is None:
        return False
    settled = now - last >= timedelta(seconds=config.debounce_seconds)
    return settled or now - first >= timedelta(seconds=config.debounce_max_seconds)


async def _try_push(
    session: AsyncSession, *, config: GatewayConfig, actor: str, now: datetime
) -> PushReport | None:
    try:
        report = await push_config(session, config=config, actor=actor, now=now)
    except KongConfigError as error:
        metrics.PUSHES.labels("not_rendered").inc()
        log.error("the Kong configuration cannot be rendered; nothing was pushed", problems=error.message)  # noqa: TRY400 - the problems are the message
        return None
    for node in report.nodes:
        outcome = "left alone" if node.push is None else node.push.outcome.value
        log.info("configuration pushed", node=node.name, outcome=outcome, config_hash=report.hash)
    return report
