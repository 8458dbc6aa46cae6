"""Meter events that Stripe took and would not count after all: told later, by thin events only.

A report names the rows it samples; where it counts more than it names, rows of that time are looked up in
summaries. What it says is put down once for each report, however often that comes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.db import is_any_of
from control_plane.stripe_sync.catalog.tables import StripeMeter
from control_plane.stripe_sync.effects import Effect, mark_handled
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.usage import metrics
from control_plane.stripe_sync.usage.asking import refuse
from control_plane.stripe_sync.usage.model import RowState, Way, identifier_in
from control_plane.stripe_sync.usage.reasons import Reason
from control_plane.stripe_sync.usage.refusals import alarm_for
from control_plane.stripe_sync.usage.rows import lock_queue
from control_plane.stripe_sync.usage.summaries import QUIET
from control_plane.stripe_sync.usage.tables import StripeUsageError, StripeUsageRow

log = structlog.get_logger(__name__)

AROUND: Final = timedelta(minutes=10)
"""How far Stripe's window of a report may lie from our moments of sending."""

MOST_DOUBTED: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterReport:
    """One kind of error in a report. `meter_id` '': no meter has the event's name."""

    event_id: str
    code: str
    meter_id: str
    error_count: int
    identifiers: tuple[str, ...]
    sentence: str
    window_start: datetime | None
    window_end: datetime | None


async def apply_meter_errors(ctx: StripeContext, event_id: str) -> Effect | None:
    """Read a report of Stripe's and put down which rows it does not count; idempotent.

    Raises:
        StripeRefused, StripeUnavailable: the event could not be read.
    """
    event = await ctx.stripe.call(lambda client: client.v2.core.events.retrieve_async(event_id))
    reports = reports_of(event.to_dict(), installation=ctx.config.installation)
    async with ctx.sessions() as session, session.begin():
        await lock_queue(session)
        ours = [report for report in reports if await _is_ours(session, report)]
        for report in ours:
            await _put_down(session, report, ctx.now)
        await mark_handled(session)
    return Effect.APPLIED if ours else Effect.NOT_OURS


def reports_of(event: Mapping[str, Any], *, installation: str) -> list[MeterReport]:
    """Return what a thin event says, one for each code."""
    data = event.get("data") or {}
    meter = event.get("related_object") or {}
    reason = data.get("reason") or {}
    return [
        MeterReport(
            event_id=event["id"],
            code=found["code"],
            meter_id=meter.get("id", ""),
            error_count=found["error_count"],
            identifiers=tuple(
                identifier_in(sample["request"]["identifier"], installation)
                for sample in found.get("sample_errors") or ()
                if (sample.get("request") or {}).get("identifier")
            ),
            sentence=next((sample["error_message"] for sample in found.get("sample_errors") or ()), ""),
            window_start=_moment(data.get("validation_start")),
            window_end=_moment(data.get("validation_end")),
        )
        for found in reason.get("error_types") or ()
    ]


def _moment(told: object) -> datetime | None:
    """Return a moment however the SDK has left it."""
    if isinstance(told, str):
        told = datetime.fromisoformat(told)
    return told.astimezone(UTC) if isinstance(told, datetime) and told.tzinfo else None


async def _is_ours(session: AsyncSession, report: MeterReport) -> bool:
    """Say whether it is about a meter of ours, or names a row of ours."""
    if report.meter_id and await session.get(StripeMeter, report.meter_id) is not None:
        return True
    named = await session.scalar(
        select(StripeUsageRow.identifier).where(is_any_of(StripeUsageRow.identifier, report.identifiers)).limit(1)
    )
    return named is not None


async def _put_down(session: AsyncSession, report: MeterReport, now: datetime) -> None:
    rows = await _named(session, report.identifiers)
    new = await session.scalar(
        insert(StripeUsageError)
        .values(
            event_id=report.event_id,
            code=report.code,
            meter_id=report.meter_id,
            error_count=report.error_count,
            rows_found=len(rows),
            sentence=report.sentence,
            window_start=report.window_start,
            window_end=report.window_end,
            reported_at=now,
        )
        .on_conflict_do_nothing()
        .returning(StripeUsageError.event_id)
    )
    if new is None:
        return
    for row in rows:
        if row.state in {RowState.SENT, RowState.DELIVERED} and row.way == Way.EVENT:
            refuse(row, code=report.code, sentence=report.sentence, now=now)
    doubted = 0
    if report.error_count > len(rows):
        doubted = await _doubt(session, report, now)
        stored = await session.get_one(StripeUsageError, (report.event_id, report.code))
        stored.rows_doubted = doubted
    metrics.METER_ERRORS.labels(report.code).inc(report.error_count)
    log.error(
        "stripe does not count usage that it took",
        code=report.code,
        events=report.error_count,
        rows_found=len(rows),
        rows_doubted=doubted,
        sentence=report.sentence,
        to_do=alarm_for(report.code),
    )


async def _named(session: AsyncSession, identifiers: Sequence[str]) -> Sequence[StripeUsageRow]:
    rows = await session.scalars(
        select(StripeUsageRow).where(is_any_of(StripeUsageRow.identifier, identifiers)).with_for_update()
    )
    return rows.all()


async def _doubt(session: AsyncSession, report: MeterReport, now: datetime) -> int:
    """Have rows of the meter that were sent about then looked up: the report does not say which it means."""
    event_name = await session.scalar(
        select(StripeMeter.event_name).where(StripeMeter.meter_id == report.meter_id)
    )
    if event_name is None or report.window_start is None or report.window_end is None:
        return 0
    rows = (
        await session.scalars(
            select(StripeUsageRow)
            .where(
                StripeUsageRow.event_name == event_name,
                StripeUsageRow.state == RowState.DELIVERED,
                StripeUsageRow.sent_at >= report.window_start - AROUND,
                StripeUsageRow.sent_at <= report.window_end + AROUND,
            )
            .order_by(StripeUsageRow.sent_at)
            .limit(MOST_DOUBTED)
            .with_for_update()
        )
    ).all()
    for row in rows:
        row.state, row.reason, row.error = RowState.SENT, Reason.MAYBE_REFUSED, report.code
        row.due_at = now + QUIET
    return len(rows)
