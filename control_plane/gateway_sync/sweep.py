"""Full sweeps: every record written again where it differs, and counters restored after Redis lost them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import InstrumentedAttribute

from control_plane.accounts.tables import Account
from control_plane.foundation.clock import to_ms
from control_plane.foundation.db import session_factory
from control_plane.foundation.redis import RedisClient
from control_plane.gateway_sync.cap_beginnings import write_accounts
from control_plane.gateway_sync.key_snapshots import keys_after
from control_plane.gateway_sync.projection_state import Marker, begin_sweep, finish_sweep, read_state
from control_plane.gateway_sync.record_writer import RecordWriter
from control_plane.gateway_sync.records import AccountSnapshot, KeySnapshot
from control_plane.gateway_sync.restoring import restore_accounts
from control_plane.gateway_sync.snapshots import SnapshotPage, accounts_after, consistent_reads
from control_plane.gateway_sync.unlogged_calls import UnloggedCalls
from control_plane.keys.tables import ApiKey

Made = TypeVar("Made")

log = structlog.get_logger(__name__)

PAGE = 1000
# an account's usage of a year is far more than its record
USAGE_PAGE = 100
# any fixed number: holders of this PostgreSQL lock sweep, one at a time
SWEEP_LOCK = 0x6B6D_7377


class SweepInterruptedError(Exception):
    """Redis was emptied, restarted or swept by another while this sweep ran: what it wrote may be gone."""


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """`step` is `counters`, `accounts` or `keys`; `done` of about `total` rows."""

    step: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a full sweep saw, and `written`: how many records were not already as they should be."""

    keys: int
    accounts: int
    counters: int
    written: int
    seconds: float


ProgressCallback = Callable[[SweepProgress], None]


def _ignore(_progress: SweepProgress) -> None:
    return None


async def rebuild(
    engine: AsyncEngine,
    client: RedisClient,
    *,
    public_url: str,
    now: datetime,
    progress: ProgressCallback = _ignore,
) -> SweepReport:
    """Make everything in Redis anew from PostgreSQL: counters, records, marker. Safe at any time, repeatable.

    Waits for a sweep that is running. Until it is done, unknown keys get 503, since Redis' content is in doubt.
    Counters come first: no call is admitted by a record while its quota use is still forgotten.

    Raises:
        SweepInterruptedError: Redis was emptied or restarted meanwhile; call it again.
    """
    async with sweep_lock(engine, wait=True):
        return await sweep(
            session_factory(engine), client, public_url=public_url, now=now, restore=True, progress=progress
        )


@asynccontextmanager
async def sweep_lock(engine: AsyncEngine, *, wait: bool) -> AsyncIterator[bool]:
    """Hold the lock of sweeps; False where another holds it and `wait` is off. Freed when the process dies."""
    function = "pg_advisory_lock" if wait else "pg_try_advisory_lock"
    async with engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")  # noqa: PLW2901 - the same connection
        got = await connection.scalar(text(f"SELECT {function}({SWEEP_LOCK})")) is not False
        try:
            yield got
        finally:
            if got:
                await connection.execute(text(f"SELECT pg_advisory_unlock({SWEEP_LOCK})"))


async def sweep(
    sessions: async_sessionmaker[AsyncSession],
    client: RedisClient,
    *,
    public_url: str,
    now: datetime,
    restore: bool,
    progress: ProgressCallback = _ignore,
) -> SweepReport:
    """Write every record that differs, in pages of bounded memory, and the marker at the end.

    `restore` is for a Redis that may have lost counters. The caller holds the sweep lock.

    Raises:
        SweepInterruptedError: the marker was not written, since what was projected may be gone again.
    """
    started = time.monotonic()
    run_ids = (await read_state(client)).run_ids
    token = await begin_sweep(client, forget_marker=restore)
    run = _Sweep(sessions, client, public_url=public_url, now=now, progress=progress)
    counters = await run.restore_all() if restore else 0
    accounts = await run.write_accounts()
    keys = await run.write_keys()
    marker = Marker(run_ids=run_ids, completed_at_ms=to_ms(now), keys=keys, accounts=accounts)
    if not await finish_sweep(client, token, marker):
        raise SweepInterruptedError("Redis was emptied, restarted or swept by another during a full sweep")
    return SweepReport(
        keys=keys,
        accounts=accounts,
        counters=counters,
        written=run.written,
        seconds=time.monotonic() - started,
    )


class _Sweep:
    """One pass over all rows. Pages are read in the order of ids; what is added meanwhile is in the outbox."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        client: RedisClient,
        *,
        public_url: str,
        now: datetime,
        progress: ProgressCallback,
    ) -> None:
        self._sessions = sessions
        self._client = client
        self._writer = RecordWriter(client)
        self._public_url = public_url
        self._started_at = now
        self._started = time.monotonic()
        self._progress = progress
        self.written = 0

    async def restore_all(self) -> int:
        restored = 0

        async def restore(account_ids: Sequence[str]) -> None:
            nonlocal restored
            restored += await self._restore(account_ids)

        await self._each_page("counters", Account.id, self._read_account_ids, restore)
        return restored

    async def write_accounts(self) -> int:
        async def write(page: Sequence[AccountSnapshot]) -> None:
            self.written += await write_accounts(
                self._sessions,
                self._writer,
                page,
                now=self._now(),
                public_url=self._public_url,
                announce_new=False,
            )

        return await self._each_page("accounts", Account.id, self._read_accounts, write)

    async def write_keys(self) -> int:
        async def write(page: Sequence[KeySnapshot]) -> None:
            self.written += await self._writer.write_keys(page, announce_new=False)

        return await self._each_page("keys", ApiKey.id, self._read_keys, write)

    async def _each_page(
        self,
        step: str,
        column: InstrumentedAttribute[str],
        read: Callable[[str], Awaitable[SnapshotPage[Made]]],
        work: Callable[[Sequence[Made]], Awaitable[None]],
    ) -> int:
        """Work on every page; returns how many rows there were.

        Three pages are in hand at most: PostgreSQL reads one and Redis writes one while we work on another.
        """
        async with self._sessions() as session:
            total = await session.scalar(select(func.count(column))) or 0
        done = 0
        reading = asyncio.ensure_future(read(""))
        working: asyncio.Future[None] = asyncio.ensure_future(asyncio.sleep(0))
        try:
            while (page := await reading).last_id is not None:
                reading = asyncio.ensure_future(read(page.last_id))
                await working
                working = asyncio.ensure_future(work(page.items))
                done += page.rows
                self._progress(SweepProgress(step, done, max(total, done)))
            await working
        finally:
            for task in (reading, working):
                task.cancel()
            await asyncio.gather(reading, working, return_exceptions=True)
        return done

    def _now(self) -> datetime:
        """Return the moment. A sweep takes minutes, and spend caps are other ones in another billing period."""
        return self._started_at + timedelta(seconds=time.monotonic() - self._started)

    async def _read_account_ids(self, last_id: str) -> SnapshotPage[str]:
        statement = select(Account.id).where(Account.id > last_id).order_by(Account.id).limit(USAGE_PAGE)
        async with self._sessions() as session:
            ids = (await session.scalars(statement)).all()
        return SnapshotPage(ids, len(ids), ids[-1] if ids else None)

    async def _read_accounts(self, last_id: str) -> SnapshotPage[AccountSnapshot]:
        async with consistent_reads(self._sessions) as session:
            return await accounts_after(
                session, last_id, limit=PAGE, now=self._now(), read_unlogged=UnloggedCalls(self._client)
            )

    async def _read_keys(self, last_id: str) -> SnapshotPage[KeySnapshot]:
        # one statement sees one moment, so no snapshot is needed around it
        async with self._sessions() as session:
            return await keys_after(session, last_id, limit=PAGE)

    async def _restore(self, account_ids: Sequence[str]) -> int:
        return await restore_accounts(self._sessions, self._client, account_ids, now=self._now())
