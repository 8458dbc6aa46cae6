"""The loops that keep upgrade hints up to date: void ones within seconds, all others once an hour."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.foundation.clock import utc_now
from control_plane.foundation.db import create_engine, session_factory
from control_plane.foundation.rounds import repeat, sleep_unless
from control_plane.gateway_sync import metrics
from control_plane.gateway_sync.upgrade_hints import due_after, refresh_hints, refresh_void_hints

log = structlog.get_logger(__name__)

VOID_POLL_SECONDS = 2.0
ROUND_SECONDS = timedelta(hours=1).total_seconds()
# any fixed number: of all workers one at a time goes through the subscriptions
ROUND_LOCK = 0x6B6D_6869


async def run_upgrade_hints(
    *, database_url: str, stop: asyncio.Event, round_seconds: float = ROUND_SECONDS
) -> None:
    """Keep hints up to date until `stop` is set. Any number of these may run at once."""
    engine = create_engine(database_url, pool_size=3, application_name="km-upgrade-hints")
    sessions = session_factory(engine)

    async def void() -> float:
        while await refresh_void_hints(sessions, now=utc_now()):
            pass
        return VOID_POLL_SECONDS

    async def everything() -> float:
        async with _round_lock(engine) as mine:
            if mine:
                await _round(engine, stop)
        return round_seconds

    try:
        async with asyncio.TaskGroup() as group:
            for name, one_round in (("upgrade-hints-void", void), ("upgrade-hints", everything)):
                failures = metrics.FAILURES.labels(name)
                group.create_task(repeat(name, one_round, stop=stop, failures=failures))
    finally:
        await engine.dispose()


async def _round(engine: AsyncEngine, stop: asyncio.Event) -> None:
    """Go through all live subscriptions once; pauses as long as it works, so that it takes half a connection."""
    sessions = session_factory(engine)
    started, last_id, seen, changed = time.monotonic(), "", 0, 0
    while not stop.is_set():
        began = time.monotonic()
        async with sessions() as session:
            page = await due_after(session, last_id, now=utc_now())
        changed += await refresh_hints(sessions, page.due, now=utc_now())
        seen += len(page.due)
        if page.last_id is None:
            break
        last_id = page.last_id
        await sleep_unless(stop, time.monotonic() - began)
    seconds = time.monotonic() - started
    metrics.HINT_ROUND_SECONDS.set(seconds)
    log.info("upgrade hints are up to date", due=seen, changed=changed, seconds=round(seconds, 3))


@asynccontextmanager
async def _round_lock(engine: AsyncEngine) -> AsyncIterator[bool]:
    """Hold the lock of rounds; False where another worker has it. Freed when the process dies."""
    async with engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")  # noqa: PLW2901 - the same connection
        got = bool(await connection.scalar(text(f"SELECT pg_try_advisory_lock({ROUND_LOCK})")))
        try:
            yield got
        finally:
            if got:
                await connection.execute(text(f"SELECT pg_advisory_unlock({ROUND_LOCK})"))
