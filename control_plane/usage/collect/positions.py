"""What a batch changes in PostgreSQL: positions of shippers, and which hours have new events."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import from_ms
from control_plane.usage.collect.entries import SegmentKey
from control_plane.usage.model import ByteRange, HourKey, advance_position

_OPEN_POSITIONS = text("""
INSERT INTO shipper_positions (shipper_id, segment, end_offset, shipped_up_to_ms, updated_at)
SELECT shipper_id, segment, 0, 0, :now
FROM unnest(CAST(:shippers AS text[]), CAST(:segments AS text[])) AS wanted (shipper_id, segment)
ORDER BY shipper_id, segment
ON CONFLICT DO NOTHING
""")
_LOCK_POSITIONS = text("""
SELECT shipper_id, segment, end_offset FROM shipper_positions
WHERE (shipper_id, segment) IN (SELECT * FROM unnest(CAST(:shippers AS text[]), CAST(:segments AS text[])))
ORDER BY shipper_id, segment
FOR UPDATE
""")
_TAKE_RANGES = text("""
DELETE FROM shipper_ranges
WHERE (shipper_id, segment) IN (SELECT * FROM unnest(CAST(:shippers AS text[]), CAST(:segments AS text[])))
RETURNING shipper_id, segment, start_offset, end_offset
""")
_KEEP_RANGES = text("""
INSERT INTO shipper_ranges (shipper_id, segment, start_offset, end_offset)
SELECT * FROM unnest(
    CAST(:shippers AS text[]), CAST(:segments AS text[]), CAST(:starts AS bigint[]), CAST(:ends AS bigint[]))
""")
_SET_POSITIONS = text("""
UPDATE shipper_positions AS position
SET end_offset = reached.end_offset, shipped_up_to_ms = greatest(position.shipped_up_to_ms, reached.claim_ms),
    updated_at = :now
FROM unnest(
    CAST(:shippers AS text[]), CAST(:segments AS text[]), CAST(:ends AS bigint[]), CAST(:claims AS bigint[])
) AS reached (shipper_id, segment, end_offset, claim_ms)
WHERE position.shipper_id = reached.shipper_id AND position.segment = reached.segment
""")
_SHIPPERS_WITH_GAPS = text("""
SELECT DISTINCT shipper_id FROM shipper_ranges WHERE shipper_id = ANY(CAST(:shippers AS text[]))
""")
# A shipper that ships is live, whatever somebody said of it before.
_SEE_SHIPPERS = text("""
INSERT INTO shippers (shipper_id, shipped_up_to_ms, last_seen_at)
SELECT seen.shipper_id, seen.claim_ms, :now
FROM unnest(CAST(:shippers AS text[]), CAST(:claims AS bigint[])) AS seen (shipper_id, claim_ms)
ORDER BY seen.shipper_id
ON CONFLICT (shipper_id) DO UPDATE SET
    shipped_up_to_ms = greatest(shippers.shipped_up_to_ms, excluded.shipped_up_to_ms),
    last_seen_at = greatest(shippers.last_seen_at, excluded.last_seen_at),
    retired_at = NULL
""")
# Sorted, so that two collectors that touch the same hours wait for each other instead of dying.
_TOUCH = text("""
INSERT INTO touched_hours (account_id, hour, generation, touched_at)
SELECT account_id, hour, 1, :now
FROM unnest(CAST(:accounts AS text[]), CAST(:hours AS timestamptz[])) AS touched (account_id, hour)
ORDER BY account_id, hour
ON CONFLICT (account_id, hour) DO UPDATE SET generation = touched_hours.generation + 1
""")

_NOTE_REPLAYS = text("""
INSERT INTO replay_hours (account_id, hour)
SELECT account_id, hour
FROM unnest(CAST(:accounts AS text[]), CAST(:hours AS timestamptz[])) AS noted (account_id, hour)
ORDER BY account_id, hour
ON CONFLICT DO NOTHING
""")


async def commit_positions(
    session: AsyncSession,
    *,
    received: Mapping[SegmentKey, Collection[ByteRange]],
    claims_ms: Mapping[str, int],
    now: datetime,
) -> dict[SegmentKey, int]:
    """Advance positions over what was received without a gap and return where they stand; atomic, idempotent.

    What lies behind a gap is remembered and passed once the gap is filled. `claims_ms` is what each shipper says
    it has shipped up to; a claim is believed only of shippers that have no gap. The events must be stored before.
    """
    keys = sorted(received)
    names = {"shippers": [key.shipper_id for key in keys], "segments": [key.segment for key in keys]}
    reached: dict[SegmentKey, int] = {}
    if keys:
        await session.execute(_OPEN_POSITIONS, {**names, "now": now})
        rows = await session.execute(_LOCK_POSITIONS, names)
        positions = {SegmentKey(shipper_id, segment): end for shipper_id, segment, end in rows}
        ranges = {key: list(received[key]) for key in keys}
        for shipper_id, segment, start, end in await session.execute(_TAKE_RANGES, names):
            ranges[SegmentKey(shipper_id, segment)].append(ByteRange(start, end))
        waiting: list[tuple[str, str, int, int]] = []
        for key in keys:
            reached[key], left = advance_position(positions[key], ranges[key])
            waiting += [(*key, piece.start, piece.end) for piece in left]
        if waiting:
            columns = dict(zip(("shippers", "segments", "starts", "ends"), map(list, zip(*waiting)), strict=True))  # noqa: B905 - rows of one length
            await session.execute(_KEEP_RANGES, columns)
        await session.execute(
            _SET_POSITIONS,
            {
                **names,
                "ends": [reached[key] for key in keys],
                "claims": [claims_ms.get(key.shipper_id, 0) for key in keys],
                "now": now,
            },
        )
    if claims_ms:
        await _see_shippers(session, claims_ms, now)
    return reached


async def _see_shippers(session: AsyncSession, claims_ms: Mapping[str, int], now: datetime) -> None:
    shippers = sorted(claims_ms)
    with_gaps = set(await session.scalars(_SHIPPERS_WITH_GAPS, {"shippers": shippers}))
    claims = [0 if shipper_id in with_gaps else claims_ms[shipper_id] for shipper_id in shippers]
    await session.execute(_SEE_SHIPPERS, {"shippers": shippers, "claims": claims, "now": now})


async def touch(session: AsyncSession, *, hours: Collection[HourKey], now: datetime) -> None:
    """Mark hours as having new events: their generation grows by one each time."""
    if hours:
        ordered = sorted(hours)
        await session.execute(
            _TOUCH,
            {
                "accounts": [key.account_id for key in ordered],
                "hours": [from_ms(key.hour_ms) for key in ordered],
                "now": now,
            },
        )


async def note_replays(session: AsyncSession, *, hours: Collection[HourKey]) -> None:
    """Remember hours that hold calls flagged `replayed`; to be committed with their touched marks. Idempotent."""
    if hours:
        ordered = sorted(hours)
        await session.execute(
            _NOTE_REPLAYS,
            {
                "accounts": [key.account_id for key in ordered],
                "hours": [from_ms(key.hour_ms) for key in ordered],
            },
        )


async def positions_to_publish(
    session: AsyncSession, *, updated_after: datetime | None = None
) -> dict[SegmentKey, int]:
    """Return the positions of live shippers, all of them or those that moved lately."""
    rows = await session.execute(
        text("""
        SELECT position.shipper_id, position.segment, position.end_offset
        FROM shipper_positions AS position JOIN shippers USING (shipper_id)
        WHERE shippers.retired_at IS NULL
            AND position.updated_at > coalesce(CAST(:after AS timestamptz), '-infinity')
        """),
        {"after": updated_after},
    )
    return {SegmentKey(shipper_id, segment): end for shipper_id, segment, end in rows}


async def forget_old_positions(session: AsyncSession, *, now: datetime, keep: timedelta) -> list[SegmentKey]:
    """Delete positions that have not moved for `keep` and return them.

    Their segments are long gone; should one still be there, it is shipped again, and every event counts once.
    """
    rows = await session.execute(
        text("DELETE FROM shipper_positions WHERE updated_at < :before RETURNING shipper_id, segment"),
        {"before": now - keep},
    )
    forgotten = [SegmentKey(shipper_id, segment) for shipper_id, segment in rows]
    await session.execute(
        text("""
        DELETE FROM shipper_ranges AS piece WHERE NOT EXISTS (
            SELECT 1 FROM shipper_positions AS position
            WHERE position.shipper_id = piece.shipper_id AND position.segment = piece.segment)
        """)
    )
    return forgotten
