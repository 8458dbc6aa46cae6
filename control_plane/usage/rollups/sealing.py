"""Sealing: an hour's figures are final enough to bill, until a late event opens it again.

An hour is sealed when its lateness has passed, every live shipper has shipped past its end, no touched mark is
pending, and its figures were read after the lateness passed: so a plan change that was committed a moment after
the calls it governs is in them too. A seal writes the ledger and an outbox row `hour.sealed`; so does every later
revision.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import from_ms, to_ms, utc_now
from control_plane.foundation.outbox import Topic, enqueue
from control_plane.foundation.rounds import repeat
from control_plane.usage import metrics
from control_plane.usage.model import HourKey
from control_plane.usage.rollups.ledger import ExtraUnits, write_ledger

log = structlog.get_logger(__name__)

HOUR = timedelta(hours=1)

_RECOMPUTE = text("""
INSERT INTO touched_hours (account_id, hour, generation, touched_at)
SELECT account_id, hour, 1, :now FROM usage_hours
WHERE sealed_at IS NULL AND hour <= :last_hour
    AND (aggregated_at IS NULL OR aggregated_at < hour + CAST(:after AS interval))
ORDER BY account_id, hour
LIMIT :limit
ON CONFLICT DO NOTHING
""")
_SEAL = text("""
WITH ready AS (
    SELECT account_id, hour FROM usage_hours AS open
    WHERE sealed_at IS NULL AND hour <= :last_hour AND aggregated_at >= hour + CAST(:after AS interval)
        AND NOT EXISTS (
            SELECT 1 FROM touched_hours AS mark
            WHERE mark.account_id = open.account_id AND mark.hour = open.hour)
        -- hours of a billing period that is over wait until its unique meters are counted
        AND NOT EXISTS (
            SELECT 1 FROM meter_period_states AS period
            WHERE period.account_id = open.account_id AND period.counted_generation < period.generation
                AND period.period_start <= open.hour AND open.hour < period.period_end
                AND period.period_end <= :now)
    ORDER BY hour, account_id
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
)
UPDATE usage_hours AS hours SET sealed_at = greatest(:now, (
    -- by whatever clock the seal before was opened: what was known at a moment is told by the order of these
    SELECT max(superseded_at) FROM usage_hours_superseded AS before
    WHERE before.account_id = hours.account_id AND before.hour = hours.hour))
FROM ready
WHERE hours.account_id = ready.account_id AND hours.hour = ready.hour
RETURNING hours.account_id, hours.hour, hours.revision, hours.sealed_at
""")


@dataclass(frozen=True, slots=True)
class SealingConfig:
    """`lateness` after its end an hour may be sealed.

    A shipper is silent when nothing was heard of it for `shipper_silence`, or when what it has shipped up to lies
    further back than that and the lateness.
    """

    lateness: timedelta = timedelta(seconds=120)
    shipper_silence: timedelta = timedelta(seconds=60)
    pause_seconds: float = 1.0
    hours_per_pass: int = 500


@dataclass(frozen=True, slots=True)
class SealedHour:
    """An hour that was sealed at a revision."""

    account_id: str
    hour: datetime
    revision: int
    sealed_at: datetime


@dataclass(frozen=True, slots=True)
class SealingResult:
    """What was sealed; who said for too long nothing of what it has shipped, and so holds the seal of hours."""

    sealed: tuple[SealedHour, ...]
    silent_shippers: tuple[str, ...]
    sealable_until: datetime


async def seal_hours(
    session: AsyncSession, *, config: SealingConfig, now: datetime, extra_units: Sequence[ExtraUnits] = ()
) -> SealingResult:
    """Seal hours that are complete, with an outbox row for each account's hour; atomic, idempotent.

    What a seal changes in billable units goes to the ledger (see `ledger.write_ledger`); the hours' locks are held
    until the commit. Hours ready but for a last look at their events are touched and sealed at a later pass.
    """
    shippers = (
        await session.execute(
            text("SELECT shipper_id, shipped_up_to_ms, last_seen_at FROM shippers WHERE retired_at IS NULL")
        )
    ).all()
    # one that is heard of, but cannot say what it has shipped (a gap, a clock that was set back), holds it as well
    late_ms = to_ms(now - config.lateness - config.shipper_silence)
    silent = sorted(
        row.shipper_id
        for row in shippers
        if row.last_seen_at < now - config.shipper_silence or row.shipped_up_to_ms < late_ms
    )
    until = min([now - config.lateness, *(from_ms(row.shipped_up_to_ms) for row in shippers)])
    limits = {
        "last_hour": until - HOUR,
        "after": HOUR + config.lateness,
        "limit": config.hours_per_pass,
        "now": now,
    }
    await session.execute(_RECOMPUTE, limits)
    sealed = [SealedHour(*row) for row in await session.execute(_SEAL, limits)]
    # in statements after the lock was taken: they see what whoever held it before has committed
    seals = {HourKey(one.account_id, to_ms(one.hour)): (one.revision, one.sealed_at) for one in sealed}
    await write_ledger(session, seals, extra_units=extra_units)
    for found in sealed:
        if found.account_id:  # calls of nobody are neither billed nor counted against a quota
            await enqueue(
                session,
                topic=Topic.HOUR_SEALED,
                entity_id=found.account_id,
                payload={
                    "account_id": found.account_id,
                    "hour": found.hour.isoformat(),
                    "revision": found.revision,
                },
                now=now,
            )
    metrics.HOURS_SEALED.inc(len(sealed))
    metrics.SILENT_SHIPPERS.set(len(silent))
    return SealingResult(tuple(sealed), tuple(silent), until)


async def run_sealer(
    *,
    config: SealingConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    extra_units: Sequence[ExtraUnits] = (),
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Seal hours as they become complete until `stop`. Failures are counted, logged and tried again."""
    silent_before: tuple[str, ...] = ()

    async def one_round() -> float:
        nonlocal silent_before
        async with sessions() as session, session.begin():
            result = await seal_hours(session, config=config, now=clock(), extra_units=extra_units)
        if result.silent_shippers != silent_before:
            log.warning("shippers hold the seal of hours", silent_shippers=result.silent_shippers)
            silent_before = result.silent_shippers
        return config.pause_seconds if len(result.sealed) < config.hours_per_pass else 0

    await repeat("sealer", one_round, stop=stop, failures=metrics.FAILURES.labels("sealer", "seal"))
