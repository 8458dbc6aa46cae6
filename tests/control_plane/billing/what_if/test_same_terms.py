"""Terms that a plan has already change nothing, whatever its customers did: both sides are what invoices say."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.queries import preview_invoice
from control_plane.billing.what_if.operations import start_what_if
from control_plane.billing.what_if.tables import WhatIfResult
from control_plane.billing.what_if.worker import WhatIfConfig, work_once
from control_plane.catalog.model import PriceTerms
from control_plane.subscriptions.add_ons import add_on
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.own_terms import override_limits
from control_plane.subscriptions.statuses import pause, resume
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timelines import timelines
from control_plane.usage.tables import UsageHourly
from tests.control_plane.builders import (
    ACTOR,
    a_published_plan,
    a_subscription,
    an_account,
    an_hour_of_use,
)

SEP_1, NOW = datetime(2026, 9, 1, 7, tzinfo=UTC), datetime(2026, 12, 5, 10, 30, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def price(model: str, meter: str | None = None, **params) -> PriceTerms:
    return PriceTerms(model=model, meter=meter, params=params)


PRICES = (
    price("flat", amount="49.00"),
    price("setup_fee", amount="10.00"),
    price("overage", "requests", included=1_000, unit_amount="0.0125"),
    price("commitment", amount="80.00", counts="all"),
)


async def customers(session: AsyncSession) -> list[Subscription]:
    async def one(**options) -> Subscription:
        account = await an_account(session, now=SEP_1, time_zone="Europe/Berlin")
        return await a_subscription(session, account, now=SEP_1 + 25 * MINUTE, **{"trial": False, **options})

    def of(subscription: Subscription, day: float) -> dict:
        return {"subscription_id": subscription.id, "actor": ACTOR, "now": SEP_1 + day * DAY}

    upgraded, left, paused, extended, own = [await one() for _ in range(5)]
    await change_plan(session, plan_code="growth", **of(upgraded, 10))
    await change_plan(session, plan_code="starter", **of(upgraded, 20))
    await cancel(session, at="now", unused_time="credited", **of(left, 40))
    await pause(session, **of(paused, 33))
    await resume(session, **of(paused, 70.5))
    await add_on(session, add_on_code="more", quantity=2, **of(extended, 35))
    await override_limits(session, quota_units=500, quota_cap_units=900_000, **of(own, 0.5))
    await override_limits(session, quota_units=4_000, **of(own, 45))
    return [upgraded, left, paused, extended, own, await one(trial=True), await one(anchor_day=17)]


async def use(session: AsyncSession, subscription: Subscription) -> None:
    found = (await timelines(session, [subscription.id]))[subscription.id]
    for day in range(0, 94, 3):
        hour = SEP_1 + day * DAY + timedelta(hours=5)
        phase = found.phase_at(hour)
        if phase is not None and phase.kind != "paused":
            session.add(used(subscription, phase.id, hour, 97 * day + 31))


def used(subscription: Subscription, phase_id: str, hour: datetime, units: int) -> UsageHourly:
    return an_hour_of_use(subscription, units, hour=hour, phase_id=phase_id)


@pytest.mark.parametrize("quota_on_change", ["full", "carry", "prorated"])
async def test_change_nothing(session: AsyncSession, sessions, quota_on_change: str):
    quota = {"quota_units": 1_000, "quota_cap_units": 600_000, "quota_on_change": quota_on_change}
    terms = {**quota, "trial_days": 20}
    await a_published_plan(session, now=SEP_1 - DAY, **terms, prices=PRICES)
    await a_published_plan(session, now=SEP_1 - DAY, code="growth", position=1, prices=PRICES[:1])
    await a_published_plan(session, now=SEP_1 - DAY, code="more", position=2, kind="add_on", quota_units=700)
    found = await customers(session)
    for subscription in found:
        await use(session, subscription)
    wanted = {"plan_code": "starter", "source": "version", "version": 1, "months": 3, "actor": ACTOR, "now": NOW}
    job_id = (await start_what_if(session, **wanted)).id
    await session.commit()
    while await work_once(sessions, config=WhatIfConfig(), now=NOW):
        pass
    results = list(await session.scalars(select(WhatIfResult).where(WhatIfResult.job_id == job_id)))
    assert {one.subscription_id for one in results} == {subscription.id for subscription in found}
    for result in results:
        assert (result.after_minor, result.refused_units) == (result.before_minor, 0)
        timeline = (await timelines(session, [result.subscription_id]))[result.subscription_id]
        invoiced, period = 0, timeline.period_at(NOW)
        for _ in range(3):
            period = timeline.period_at(period.start - MINUTE)
            if timeline.phases_within(period):
                preview = await preview_invoice(
                    session,
                    account_id=timeline.account_id,
                    product_code="weather",
                    now=NOW,
                    period_start=max(period.start, timeline.started_at),
                )
                invoiced += preview.subtotal_minor
        assert result.before_minor == invoiced > 0
