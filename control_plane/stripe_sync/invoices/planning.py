"""Deciding the adjustments of a draft: those of its own period, and what was found late of earlier ones."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import ColumnElement, Interval, exists, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from control_plane.foundation.ids import new_id
from control_plane.foundation.period import BillingPeriod
from control_plane.stripe_sync.invoices import metrics
from control_plane.stripe_sync.invoices.adjustments import Plan, Unexplained, Wanted, plan_adjustments
from control_plane.stripe_sync.invoices.facts import (
    BillingFacts,
    adjusted_charges,
    at_stripe,
    delivered_units,
    period_due,
)
from control_plane.stripe_sync.invoices.tables import (
    StripeAdjustment,
    StripeInvoice,
    StripeInvoiceLine,
    StripeInvoiceTask,
)
from control_plane.stripe_sync.invoices.totals import after_discounts
from control_plane.usage.rollups.tables import UsageLedger

OPEN: Final = ("waiting", "adjusting", "releasing")
SETTLED: Final = ("done", "late")
LOOK_BACK: Final = timedelta(days=400)
# a seal bears the moment at which it began to be written
SEAL_MARGIN: Final = timedelta(minutes=10)
log = structlog.get_logger(__name__)


async def plan_period(
    session: AsyncSession,
    facts: BillingFacts,
    period: BillingPeriod,
    *,
    on_draft: bool,
    also_waiting: bool = False,
) -> Plan:
    """Return what is to be added to what Stripe rates of a period.

    `on_draft`: the use of the period's last stretch is on no final invoice yet. `also_waiting`: as if Stripe had
    already what will be sent to it.
    """
    due = await period_due(session, facts, period)
    running = None
    if on_draft:
        running = await delivered_units(session, facts.row.subscription_id, period, also_waiting=also_waiting)
    return plan_adjustments(
        due,
        native=facts.native,
        at_stripe=await at_stripe(session, facts, period, due, running=running),
        adjusted=await adjusted_charges(session, facts.row.subscription_id, period),
    )


async def decide(session: AsyncSession, facts: BillingFacts, task: StripeInvoiceTask, *, now: datetime) -> int:
    """Write down the adjustments of a draft, which is locked by its task; returns how many. Nothing commits."""
    own = facts.period_of(task.period_start, task.period_end)
    plan = await plan_period(session, facts, own, on_draft=True)
    unexplained = [*plan.unexplained]
    written = await _write(session, task, own, plan.wanted, now=now)
    for earlier in await changed_tasks(session, facts, now=now):
        period = facts.period_of(earlier.period_start, earlier.period_end)
        if period != own:
            found = await plan_period(session, facts, period, on_draft=False)
            unexplained += found.unexplained
            written += await _write(session, task, period, found.wanted, now=now)
        earlier.usage_as_of = now
    _alarm(task, unexplained)
    return written


async def lock_adjustments(session: AsyncSession, subscription_id: str) -> None:
    """Wait until nobody else decides adjustments of a subscription; until the transaction ends."""
    number = func.hashtextextended(f"km.stripe.adjustments.{subscription_id}", 0)
    await session.execute(select(func.pg_advisory_xact_lock(number)))


def sealed_since(account_id: str | InstrumentedAttribute[str]) -> tuple[ColumnElement[bool], ...]:
    """Return what picks the seals of a task's period that came after what its invoice was decided by."""
    task = StripeInvoiceTask
    return (
        UsageLedger.account_id == account_id,
        UsageLedger.hour >= func.date_trunc("hour", task.period_start, "UTC"),
        UsageLedger.hour < task.period_end,
        UsageLedger.sealed_at > task.usage_as_of - literal(SEAL_MARGIN, Interval()),
    )


def is_billed(*, now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Return what picks tasks whose invoice is final: of a draft nobody knows yet what Stripe charges."""
    task = StripeInvoiceTask
    is_draft = exists().where(StripeInvoice.id == task.invoice_id, StripeInvoice.status == "draft")
    return task.state.in_(SETTLED), task.period_end > now - LOOK_BACK, ~is_draft


async def changed_tasks(
    session: AsyncSession, facts: BillingFacts, *, now: datetime
) -> Sequence[StripeInvoiceTask]:
    """Return the tasks of billed periods of a subscription of which something was sealed since."""
    task = StripeInvoiceTask
    late = exists().where(*sealed_since(facts.row.account_id))
    rows = await session.scalars(
        select(task)
        .where(
            task.subscription_id == facts.row.subscription_id,
            *is_billed(now=now),
            task.usage_as_of.is_(None) | late,
        )
        .order_by(task.period_start)
    )
    return rows.all()


async def _write(
    session: AsyncSession,
    task: StripeInvoiceTask,
    period: BillingPeriod,
    wanted: Collection[Wanted],
    *,
    now: datetime,
) -> int:
    for one in wanted:
        await write_adjustment(
            session, task.subscription_id, period, one, invoice_id=task.invoice_id, way="item", now=now
        )
    return len(wanted)


async def write_adjustment(
    session: AsyncSession,
    subscription_id: str,
    period: BillingPeriod,
    wanted: Wanted,
    *,
    invoice_id: str | None,
    way: str,
    now: datetime,
) -> StripeAdjustment:
    """Write down what is to be made; nothing commits."""
    key = wanted.line.charge_key
    last = await session.scalar(
        select(func.max(StripeAdjustment.turn)).where(
            StripeAdjustment.subscription_id == subscription_id,
            StripeAdjustment.period_start == period.start,
            StripeAdjustment.charge_key == key,
        )
    )
    details = wanted.details
    if wanted.amount_minor < 0:
        details["item_minor"] = await _after_discounts(session, subscription_id, period, key, wanted.amount_minor)
    made = StripeAdjustment(
        id=new_id("adj", now),
        subscription_id=subscription_id,
        period_start=period.start,
        charge_key=key,
        turn=(last or 0) + 1,
        cause=wanted.cause.value,
        way=way,
        state="done" if way == "written_off" else "wanted",
        currency=wanted.line.currency,
        amount_minor=wanted.amount_minor,
        description=wanted.description,
        invoice_id=invoice_id,
        details=details,
        created_at=now,
        done_at=now if way == "written_off" else None,
    )
    session.add(made)
    await session.flush()
    return made


async def _after_discounts(
    session: AsyncSession, subscription_id: str, period: BillingPeriod, charge_key: str, amount_minor: int
) -> int:
    """Return the part of what is taken back that discounts left: as they did of the charge's own lines."""
    line = StripeInvoiceLine
    row = (
        await session.execute(
            select(
                func.coalesce(func.sum(line.amount_minor), 0).label("amount"),
                func.coalesce(func.sum(line.discount_minor), 0).label("discount"),
            )
            .join(StripeInvoice, StripeInvoice.id == line.invoice_id)
            .where(
                StripeInvoice.subscription_id == subscription_id,
                line.charge_key == charge_key,
                line.kind == "metered",
                line.period_start >= period.start,
                line.period_start < period.end,
            )
        )
    ).one()
    return after_discounts(amount_minor, charged_minor=int(row.amount), discount_minor=int(row.discount))


def _alarm(task: StripeInvoiceTask, unexplained: Collection[Unexplained]) -> None:
    for one in unexplained:
        metrics.ALARMS.labels("unexplained").inc()
        log.error(
            "stripe_rates_otherwise",
            invoice=task.invoice_id,
            subscription_id=task.subscription_id,
            charge=one.line.charge_key,
            amount_minor=one.amount_minor,
        )
