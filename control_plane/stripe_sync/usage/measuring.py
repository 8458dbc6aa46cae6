"""How far usage is on its way to Stripe: for metrics, and for whoever asks."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.stripe_sync.usage import metrics
from control_plane.stripe_sync.usage.model import RowState
from control_plane.stripe_sync.usage.tables import StripeUsageRow

OPEN = (RowState.WAITING, RowState.SENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterProgress:
    """Rows of a meter that Stripe does not have, or will not count. `oldest_sealed_at`: of those still to go."""

    meter: str
    waiting_rows: int
    unknown_rows: int
    refused_rows: int
    oldest_sealed_at: datetime | None


async def progress_by_meter(session: AsyncSession) -> list[MeterProgress]:
    """Return how far each meter is that is not all delivered."""

    def count(state: RowState) -> Any:
        return func.count().filter(StripeUsageRow.state == state)

    rows = await session.execute(
        select(
            StripeUsageRow.meter,
            count(RowState.WAITING),
            count(RowState.SENT),
            count(RowState.REFUSED),
            func.min(StripeUsageRow.sealed_at).filter(StripeUsageRow.state.in_(OPEN)),
        )
        # as the indexes of what is open and of what was refused say it
        .where(or_(StripeUsageRow.state.in_(OPEN), StripeUsageRow.state == RowState.REFUSED))
        .group_by(StripeUsageRow.meter)
        .order_by(StripeUsageRow.meter)
    )
    return [
        MeterProgress(
            meter=meter, waiting_rows=waiting, unknown_rows=unknown, refused_rows=refused, oldest_sealed_at=oldest
        )
        for meter, waiting, unknown, refused, oldest in rows
    ]


async def measure(session: AsyncSession, *, now: datetime) -> None:
    """Tell Prometheus."""
    found = await progress_by_meter(session)
    for gauge in (metrics.WAITING, metrics.UNKNOWN, metrics.REFUSED):
        gauge.clear()
    for one in found:
        metrics.WAITING.labels(one.meter).set(one.waiting_rows)
        metrics.UNKNOWN.labels(one.meter).set(one.unknown_rows)
        metrics.REFUSED.labels(one.meter).set(one.refused_rows)
    oldest = min((one.oldest_sealed_at for one in found if one.oldest_sealed_at), default=None)
    metrics.OLDEST_SECONDS.set((now - oldest).total_seconds() if oldest else 0)
