"""Rows of usage in the database: reading them for a decision, and putting down what became of them."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.stripe_sync.usage import metrics
from control_plane.stripe_sync.usage.model import Row, RowKey, RowState, Way
from control_plane.stripe_sync.usage.reasons import Reason
from control_plane.stripe_sync.usage.tables import StripeUsageRow

Total = tuple[str, datetime, str, str]
"""See `RowKey.total`."""

_LOCK = text("SELECT pg_advisory_xact_lock(4242027)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What Stripe is to be asked about a row. `cancels`: the identifier of the event to be forgotten."""

    key: RowKey
    way: Way
    identifier: str
    idempotency_key: str
    customer_id: str
    event_name: str
    stripe_at: datetime
    units: int
    attempt: int
    cancels: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A row of which it must be seen whether Stripe counts it."""

    key: RowKey
    customer_id: str
    event_name: str
    stripe_at: datetime


async def lock_queue(session: AsyncSession) -> None:
    """Keep everybody else from deciding on rows until this transaction ends."""
    await session.execute(_LOCK)


async def is_being_sent(session: AsyncSession, *, subscription_id: str, until: datetime) -> bool:
    """Say whether Stripe was asked to take rows of hours before `until`, and nobody knows whether it did.

    Under the queue's lock none is taken up meanwhile.
    """
    row = StripeUsageRow
    is_sent = exists().where(
        row.subscription_id == subscription_id, row.hour < until, row.state == RowState.SENT.value
    )
    return bool(await session.scalar(select(is_sent)))


async def rows_of_hours(session: AsyncSession, keys: Iterable[RowKey]) -> dict[Total, dict[int, StripeUsageRow]]:
    """Return all rows of these rows' hours, phases and meters, locked, by `RowKey.total` and revision."""
    totals = sorted({key.total for key in keys})
    found: dict[Total, dict[int, StripeUsageRow]] = defaultdict(dict)
    if not totals:
        return found
    place = tuple_(StripeUsageRow.account_id, StripeUsageRow.hour, StripeUsageRow.phase_id, StripeUsageRow.meter)
    rows = await session.scalars(
        select(StripeUsageRow)
        .where(place.in_(totals))
        .order_by(
            StripeUsageRow.account_id,
            StripeUsageRow.hour,
            StripeUsageRow.revision,
            StripeUsageRow.phase_id,
            StripeUsageRow.meter,
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    for row in rows:
        found[key_of(row).total][row.revision] = row
    return found


def key_of(row: StripeUsageRow) -> RowKey:
    return RowKey(
        account_id=row.account_id,
        hour=row.hour,
        revision=row.revision,
        phase_id=row.phase_id,
        meter=row.meter,
    )


def as_row(row: StripeUsageRow) -> Row:
    """Return what decisions need to know of a row."""
    return Row(
        key=key_of(row),
        delta_units=row.delta_units,
        state=RowState(row.state),
        reason=row.reason,
        edition=row.edition,
        first_sent_at=row.first_sent_at,
        stripe_at=row.stripe_at,
    )


def look_of(row: StripeUsageRow) -> Look:
    """Return where to look for a row that Stripe was asked about."""
    if row.customer_id is None or row.event_name is None or row.stripe_at is None:
        message = "a row that was never sent is at no place"
        raise ValueError(message)
    return Look(key=key_of(row), customer_id=row.customer_id, event_name=row.event_name, stripe_at=row.stripe_at)


def settle(row: StripeUsageRow, state: RowState, reason: Reason | str, *, error: str = "") -> None:
    """Put a row down as settled."""
    row.state, row.reason, row.error, row.leased_until = state, reason, error, None
    metrics.SETTLED.labels(state.value, reason).inc()
