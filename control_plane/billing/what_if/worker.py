"""The worker that works jobs out, batch by batch: what is done is kept, and another worker may go on."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.accounts.tables import Account
from control_plane.billing.comparisons.plan_cost import rated_terms
from control_plane.billing.terms import IN_ADVANCE, Terms, read_terms
from control_plane.billing.what_if import metrics
from control_plane.billing.what_if.operations import terms_of_job
from control_plane.billing.what_if.replay import NEW, Units, ended_periods, replay
from control_plane.billing.what_if.tables import WhatIfJob, WhatIfResult
from control_plane.catalog.meter_queries import meters
from control_plane.catalog.meters import Aggregation
from control_plane.catalog.model import PlanTerms
from control_plane.catalog.tables import ApiProduct, Plan, PlanVersion
from control_plane.foundation.clock import floor_ms, utc_now
from control_plane.foundation.db import is_any_of
from control_plane.foundation.period import BillingPeriod
from control_plane.foundation.rounds import repeat
from control_plane.subscriptions.tables import SubscriptionPhase
from control_plane.subscriptions.timeline import Timeline
from control_plane.subscriptions.timelines import timelines
from control_plane.usage.rollups.period_units import PhasePeriod, units_of_periods

log = structlog.get_logger(__name__)
MAX_ATTEMPTS = 3
WITHOUT_PAUSE = 20


@dataclass(frozen=True, slots=True)
class WhatIfConfig:
    """How many subscriptions are worked out in one transaction."""

    at_once: int = 1000
    pause_seconds: float = 2.0


async def run_what_if(
    *,
    config: WhatIfConfig,
    sessions: async_sessionmaker[AsyncSession],
    stop: asyncio.Event,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Work jobs out until `stop`. A job that fails three times is given up; others go on."""

    async def one_round() -> float:
        done = await work_once(sessions, config=config, now=floor_ms(clock()))
        return 0 if done else config.pause_seconds

    await repeat("what-if", one_round, stop=stop, failures=metrics.FAILURES)


async def work_once(sessions: async_sessionmaker[AsyncSession], *, config: WhatIfConfig, now: datetime) -> bool:
    """Work out one batch of the oldest job; False where there is none, or where it is to be tried again."""
    statement = (
        select(WhatIfJob)
        .where(WhatIfJob.status == "queued")
        .order_by(WhatIfJob.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    async with sessions() as session, session.begin():
        job = (await session.scalars(statement)).one_or_none()
        if job is None:
            return False
        try:
            async with session.begin_nested():
                last_id = await _batch(session, job, limit=config.at_once)
        except Exception as error:  # noqa: BLE001 - counted, tried again, and said on the job
            metrics.FAILURES.inc()
            log.warning("a batch of a what-if job failed", job=job.id, error=repr(error))
            job.attempts += 1
            if job.attempts >= MAX_ATTEMPTS:
                job.status, job.finished_at = "failed", now
                job.error = "It failed again and again; the server's log says why."
            return job.status == "failed"
        job.attempts = 0
        if last_id is None:
            job.status, job.finished_at = "done", now
        else:
            job.done_until = last_id
    return True


async def _batch(session: AsyncSession, job: WhatIfJob, *, limit: int) -> str | None:
    """Write the results of the next subscriptions; returns the last one's id, None where none was left."""
    versions = set(await session.scalars(select(PlanVersion.id).where(PlanVersion.plan_id == job.plan_id)))
    statement = (
        select(SubscriptionPhase.subscription_id)
        .where(
            is_any_of(SubscriptionPhase.plan_version_id, versions),
            SubscriptionPhase.subscription_id > job.done_until,
        )
        .distinct()
        .order_by(SubscriptionPhase.subscription_id)
        .limit(limit)
    )
    ids = list(await session.scalars(statement))
    if not ids:
        return None
    found = await timelines(session, ids)
    currencies = await _currencies(session, {one.account_id for one in found.values()})
    new_terms = terms_of_job(job.terms)
    periods = {
        key: [
            period
            for period in ended_periods(one, as_of=job.as_of, months=job.months)
            if any(phase.plan_version_id in versions for phase in one.phases_within(period))
        ]
        for key, one in found.items()
        if one.interval == new_terms.interval
    }
    terms = await read_terms(
        session,
        {(version, currencies[one.account_id]) for one in found.values() for version in one.version_ids},
    )
    new = await _new_terms(session, job.plan_id, new_terms, set(currencies.values()))
    declares = any(one.declares for one in (*terms.values(), *new.values()))
    units = await units_of_periods(
        session,
        [
            PhasePeriod(phase.id, found[key].account_id, period.start, period.end, declares)
            for key, those in periods.items()
            for period in those
            for phase in found[key].phases_within(period)
            if phase.costs
        ],
    )
    rows = []
    for number, (key, those) in enumerate(periods.items()):
        if number % WITHOUT_PAUSE == 0:
            await asyncio.sleep(0)  # the API may share the loop
        if those:
            row = _result(
                job,
                found[key],
                those,
                currencies[found[key].account_id],
                terms=terms,
                of_plan=versions,
                new=new,
                new_terms=new_terms,
                units=units,
            )
            rows.append(row)
    if rows:
        await session.execute(insert(WhatIfResult), rows)
    return ids[-1]


def _result(
    job: WhatIfJob,
    timeline: Timeline,
    periods: Sequence[BillingPeriod],
    currency: str,
    *,
    terms: Mapping[tuple[str, str], Terms],
    of_plan: Collection[str],
    new: Mapping[str, Terms],
    new_terms: PlanTerms,
    units: Units,
) -> dict[str, Any]:
    replayed = replay(
        timeline,
        periods,
        terms={version: terms[version, currency] for version in timeline.version_ids},
        of_plan=of_plan,
        new=new.get(currency),
        new_terms=new_terms,
        units=units,
    )
    return {
        "job_id": job.id,
        "subscription_id": timeline.subscription_id,
        "account_id": timeline.account_id,
        "currency": currency,
        "periods": len(periods),
        "before_minor": replayed.before_minor,
        "after_minor": replayed.after_minor,
        "refused_units": replayed.refused_units,
    }


async def _currencies(session: AsyncSession, account_ids: Collection[str]) -> dict[str, str]:
    statement = select(Account.id, Account.currency).where(is_any_of(Account.id, account_ids))
    rows = await session.execute(statement)
    return {row.id: row.currency for row in rows}


async def _new_terms(
    session: AsyncSession, plan_id: str, new_terms: PlanTerms, currencies: Collection[str]
) -> dict[str, Terms]:
    """Return the new terms as if they were a version, by currency in which they are sold."""
    plan, product = (
        await session.execute(
            select(Plan, ApiProduct)
            .join(ApiProduct, ApiProduct.id == Plan.api_product_id)
            .where(Plan.id == plan_id)
        )
    ).one()
    declared = {one.code: one for one in await meters(session, product_codes=[product.code], archived=True)}
    found = {}
    for currency in currencies:
        if not new_terms.is_sold_in(currency):
            continue
        rated = rated_terms(
            new_terms.in_currency(currency),
            version_id=NEW,
            name=plan.name,
            meter_names={code: meter.name for code, meter in declared.items()},
            weighted=bool(product.route_units),
        )
        priced = {price.meter for price in rated.prices} & declared.keys()
        found[currency] = Terms(
            rated=rated,
            in_advance=replace(rated, prices=tuple(one for one in rated.prices if one.model in IN_ADVANCE)),
            plan_code=plan.code,
            plan_name=plan.name,
            version=0,
            declares=bool(priced),
            not_carried=frozenset(
                code for code in priced if code and not Aggregation(declared[code].aggregation).adds_up
            ),
        )
    return found
