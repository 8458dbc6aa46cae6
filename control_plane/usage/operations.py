"""What people do to usage: have hours recomputed, retire shippers. Nothing here commits."""

from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.audit import record_change
from control_plane.foundation.errors import NotFoundError
from control_plane.usage.tables import Shipper

_TOUCH_KNOWN = text("""
INSERT INTO touched_hours (account_id, hour, generation, touched_at)
SELECT account_id, hour, 1, :now FROM usage_hours
WHERE account_id = :account_id AND hour > CAST(:start AS timestamptz) - interval '1 hour' AND hour < :end
ORDER BY account_id, hour
ON CONFLICT (account_id, hour) DO UPDATE SET generation = touched_hours.generation + 1
RETURNING hour
""")


async def touch_hours(
    session: AsyncSession, *, account_id: str, start: datetime, end: datetime, now: datetime
) -> int:
    """Have every hour with usage that has a moment in [start, end) recomputed; returns how many.

    For changes that reach back: a phase that began earlier than now, a moved boundary. Where figures come out
    different the hour gets a new revision and is sealed again. Touch after the change, in its transaction.
    """
    rows = await session.execute(_TOUCH_KNOWN, {"account_id": account_id, "start": start, "end": end, "now": now})
    return len(rows.all())


async def retire_shipper(session: AsyncSession, *, shipper_id: str, actor: str, now: datetime) -> Shipper:
    """Take a gateway node's shipper out of service, so that it no longer holds the seal of hours. Idempotent.

    What it has not shipped by then may be missing from sealed hours, and makes them revisions if it still comes:
    a shipper that ships is live again.

    Raises:
        NotFoundError: no shipper of that name was ever heard of.
    """
    shipper = await session.scalar(select(Shipper).where(Shipper.shipper_id == shipper_id).with_for_update())
    if shipper is None:
        raise NotFoundError("shipper", shipper_id)
    if shipper.retired_at is None:
        shipper.retired_at = now
        await record_change(
            session,
            actor=actor,
            action="shipper.retired",
            entity_type="shipper",
            entity_id=shipper_id,
            before={"retired_at": None},
            after={"retired_at": now.isoformat(), "shipped_up_to_ms": shipper.shipped_up_to_ms},
            now=now,
        )
    return shipper
