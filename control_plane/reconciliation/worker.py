"""Works out reconciliations that were asked for, and one of all accounts every day."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import floor_ms, utc_now
from control_plane.foundation.rounds import repeat
from control_plane.reconciliation import metrics
from control_plane.reconciliation.calls import compare_events, compare_rollups
from control_plane.reconciliation.ledger import compare_ledger
from control_plane.reconciliation.model import Comparison, Difference, Severity, Span, worst
from control_plane.reconciliation.operations import start_reconciliation
from control_plane.reconciliation.own_invoices import compare_own_invoices
from control_plane.reconciliation.queries import last_of_all
from control_plane.reconciliation.reports import compare_reports
from control_plane.reconciliation.stripe_invoices import compare_stripe_invoices
from control_plane.reconciliation.summaries import CompareSummaries
from control_plane.reconciliation.tables import FoundDifference, Reconciliation
from control_plane.stripe_sync.client import StripeConfig

log = structlog.get_logger(__name__)

ACTOR = "system:reconciliation"
MAX_ATTEMPTS = 3
MOST_DIFFERENCES = 10_000
_ONE_PLANNER = text("SELECT pg_advisory_xact_lock(hashtext('reconciliation.planned'))")

Compare = Callable[[AsyncSession, Span], Awaitable[Comparison]]
OWN: tuple[Compare, ...] = (
    compare_events,
    compare_rollups,
    compare_ledger,
    compare_own_invoices,
    compare_reports,
    compare_stripe_invoices,
)


def all_comparisons(
    stripe: StripeConfig | None, sessions: async_sessionmaker[AsyncSession]
) -> tuple[Compare, ...]:
    """Return every comparison, in the order of the way from a call to an invoice."""
    return (*OWN[:-1], CompareSummaries(stripe, sessions), OWN[-1])


@dataclass(frozen=True, slots=True)
class ReconciliationConfig:
    """All accounts are compared every `every`, sooner after a failure, and results are kept for `keep`."""

    every: timedelta = timedelta(days=1)
    after_failure: timedelta = timedelta(hours=1)
    keep: timedelta = timedelta(days=90)
    pause_seconds: float = 1.0


async def run_reconciliations(
    *,
    config: ReconciliationConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    comparisons: Sequence[Compare] = OWN,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Work until `stop`. One that fails three times is given up, with its reason; others go on."""
    looked_at: datetime | None = None

    async def one_round() -> float:
        nonlocal looked_at
        now = floor_ms(clock())
        if looked_at is None or now - looked_at >= min(config.every, timedelta(minutes=10)):
            await plan_round(sessions, config=config, now=now)
            looked_at = now
        done = await work_once(sessions, comparisons=comparisons, clock=clock)
        return 0 if done else config.pause_seconds

    await repeat("reconciliation", one_round, stop=stop, failures=metrics.FAILURES)


async def plan_round(
    sessions: async_sessionmaker[AsyncSession], *, config: ReconciliationConfig, now: datetime
) -> None:
    """Queue the daily reconciliation when it is due, forget old ones, and show the last one's figures."""
    async with sessions() as session, session.begin():
        await session.execute(_ONE_PLANNER)
        statement = (
            select(Reconciliation.created_at, Reconciliation.status)
            .where(Reconciliation.account_id.is_(None), Reconciliation.created_by == ACTOR)
            .order_by(Reconciliation.created_at.desc())
            .limit(1)
        )
        latest = (await session.execute(statement)).one_or_none()
        pause = config.after_failure if latest is not None and latest.status == "failed" else config.every
        if latest is None or now - latest.created_at >= pause:
            await start_reconciliation(
                session, account_id=None, start=None, end=None, with_stripe=True, actor=ACTOR, now=now
            )
        await session.execute(delete(Reconciliation).where(Reconciliation.created_at < now - config.keep))
        last = await last_of_all(session)
        if last is not None:
            show(last)


async def work_once(
    sessions: async_sessionmaker[AsyncSession],
    *,
    comparisons: Sequence[Compare] = OWN,
    clock: Callable[[], datetime] = utc_now,
) -> bool:
    """Work out the oldest that is queued; False where there is none, or where it is to be tried again.

    All stores are read in one snapshot of PostgreSQL, so that what moves meanwhile is no difference.
    """
    async with sessions() as session, session.begin():
        statement = (
            select(Reconciliation)
            .where(Reconciliation.status == "queued")
            .order_by(Reconciliation.created_at, Reconciliation.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        row = (await session.scalars(statement)).one_or_none()
        if row is None:
            return False
        try:
            found = await _compare(sessions, row, comparisons, now=floor_ms(clock()))
            async with session.begin_nested():
                await _write(session, row, found)
        except Exception as error:  # noqa: BLE001 - counted, tried again, and said on the row
            metrics.FAILURES.inc()
            await session.refresh(row)
            log.warning("a reconciliation failed", reconciliation=row.id, error=repr(error))
            row.attempts += 1
            if row.attempts >= MAX_ATTEMPTS:
                row.status, row.finished_at = "failed", floor_ms(clock())
                row.error = f"{type(error).__name__}: it failed again and again; the server's log says more."
            return row.status == "failed"
        row.status, row.finished_at = "done", floor_ms(clock())
    if row.account_id is None:
        show(row)
    return True


def show(row: Reconciliation) -> None:
    """Set the metrics to what a reconciliation of all accounts found."""
    metrics.LAST_RUN.set(row.created_at.timestamp())
    for link in row.links:
        for severity in Severity:
            metrics.DIFFERENCES.labels(link["link"], severity.value).set(link[severity.value])


async def _compare(
    sessions: async_sessionmaker[AsyncSession],
    row: Reconciliation,
    comparisons: Sequence[Compare],
    *,
    now: datetime,
) -> list[Comparison]:
    span = Span(
        start=row.span_start,
        end=row.span_end,
        now=now,
        account_id=row.account_id,
        ask_stripe=row.with_stripe,
    )
    async with sessions() as session:
        await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        return [await compare(session, span) for compare in comparisons]


async def _write(session: AsyncSession, row: Reconciliation, found: Sequence[Comparison]) -> None:
    row.links = [_link(one) for one in found]
    row.state = worst([one.state for one in found]).value
    differences = [one for comparison in found for one in comparison.differences]
    differences.sort(key=lambda one: one.severity is not Severity.WRONG)  # stable: else in the order of the way
    kept = differences[:MOST_DIFFERENCES]
    if kept:
        rows = [_difference(row.id, number, one) for number, one in enumerate(kept, start=1)]
        await session.execute(insert(FoundDifference), rows)


def _link(one: Comparison) -> dict[str, Any]:
    return {
        "link": one.link.value,
        "state": one.state.value,
        "checked": one.checked,
        "checked_what": one.checked_what,
        "expected": one.expected,
        "found": one.found,
        "wrong": one.count(Severity.WRONG),
        "waiting": one.count(Severity.WAITING),
        "note": one.note,
    }


def _difference(reconciliation_id: str, number: int, one: Difference) -> dict[str, Any]:
    return {
        "reconciliation_id": reconciliation_id,
        "number": number,
        "link": one.link.value,
        "severity": one.severity.value,
        "account_id": one.account_id,
        "subscription_id": one.subscription_id,
        "meter": one.meter,
        "starts_at": one.start,
        "ends_at": one.end,
        "unit": one.unit,
        "expected": one.expected,
        "found": one.found,
        "cause": one.cause,
        "detail": one.detail,
    }
