"""Rows of plan versions and their prices, written from terms. Nothing here commits."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from control_plane.catalog.model import PlanTerms
from control_plane.catalog.tables import PlanVersion, Price
from control_plane.foundation.ids import new_id
from control_plane.foundation.windows import windows_to_json


async def draft_row(session: AsyncSession, plan_id: str) -> PlanVersion | None:
    """Return the draft of a plan with its prices, read afresh and locked."""
    statement = (
        select(PlanVersion)
        .where(PlanVersion.plan_id == plan_id, PlanVersion.status == "draft")
        .options(selectinload(PlanVersion.prices))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return (await session.scalars(statement)).one_or_none()


async def next_number(session: AsyncSession, plan_id: str) -> int:
    """Return the number that the next version of a plan gets."""
    statement = select(func.max(PlanVersion.version)).where(PlanVersion.plan_id == plan_id)
    return (await session.scalar(statement) or 0) + 1


async def add_draft(session: AsyncSession, plan_id: str, terms: PlanTerms, *, now: datetime) -> PlanVersion:
    """Write canonical terms as a new draft; the plan must have none. Every version begins as one."""
    number = await next_number(session, plan_id)
    version = PlanVersion(id=new_id("pv", now), plan_id=plan_id, version=number, status="draft", created_at=now)
    _write_columns(version, terms)
    version.prices = _price_rows(terms, now=now)
    session.add(version)
    await session.flush()
    return version


async def rewrite_draft(session: AsyncSession, draft: PlanVersion, terms: PlanTerms, *, now: datetime) -> None:
    """Write canonical terms in place of those of a draft, loaded with its prices."""
    for price in draft.prices:
        await session.delete(price)
    await session.flush()
    await session.refresh(draft, ["prices"])
    _write_columns(draft, terms)
    draft.prices = _price_rows(terms, now=now)
    await session.flush()


async def remove_version(session: AsyncSession, version: PlanVersion) -> None:
    """Delete a version, loaded with its prices; the database refuses one that a subscription or invoice names."""
    for price in version.prices:
        await session.delete(price)
    await session.flush()
    await session.refresh(version, ["prices"])
    await session.delete(version)
    await session.flush()


def _write_columns(version: PlanVersion, terms: PlanTerms) -> None:
    version.interval = terms.interval
    version.currency = terms.currency
    version.quota_units = terms.quota_units
    version.quota_hard = terms.quota_hard
    version.quota_cap_units = terms.quota_cap_units
    version.windows = windows_to_json(terms.windows)
    version.concurrency_limit = None if terms.concurrency is None else terms.concurrency.limit
    version.concurrency_lease_ms = None if terms.concurrency is None else terms.concurrency.lease_ms
    version.entitlements = list(terms.entitlements)
    version.redis_down = terms.redis_down
    version.on_past_due = terms.on_past_due
    version.billable_statuses = None if terms.billable_below is None else {"below": terms.billable_below}
    version.event_retention_days = terms.event_retention_days
    version.by_quote = terms.by_quote
    version.trial_days = terms.trial_days
    version.after_trial = terms.after_trial
    version.quota_on_change = terms.quota_on_change
    version.payment = terms.payment
    version.billed_by = terms.billed_by
    version.features = list(terms.features)
    version.sla_level = terms.sla_level
    version.support_level = terms.support_level


def _price_rows(terms: PlanTerms, *, now: datetime) -> list[Price]:
    """A price has the same position in every currency."""
    rows = []
    for currency in (terms.currency, *terms.other_currencies):
        for position, price in enumerate(terms.in_currency(currency).prices):
            rows.append(
                Price(
                    id=new_id("price", now),
                    position=position,
                    currency=currency,
                    model=price.model,
                    meter=price.meter,
                    params=price.params,
                    description=price.description,
                )
            )
    return rows
