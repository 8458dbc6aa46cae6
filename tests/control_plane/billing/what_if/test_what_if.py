"""Months replayed under other terms: amounts by hand, for each customer and together."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.billing.queries import preview_invoice
from control_plane.billing.what_if.operations import start_what_if
from control_plane.billing.what_if.queries import what_if
from control_plane.billing.what_if.tables import WhatIfResult
from control_plane.billing.what_if.worker import WhatIfConfig, work_once
from control_plane.catalog.drafts import save_draft
from control_plane.catalog.model import PlanTerms, PriceTerms
from control_plane.catalog.plan_file import parse_plan_file
from control_plane.catalog.publishing import NoDraftError
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.subscriptions.add_ons import add_on
from control_plane.subscriptions.operations import change_plan
from control_plane.subscriptions.own_terms import override_limits
from control_plane.subscriptions.tables import Subscription
from tests.control_plane.builders import (
    ACTOR,
    a_new_version,
    a_published_plan,
    a_subscription,
    an_account,
    an_hour_of_use,
)

SEP_1 = datetime(2026, 9, 1, tzinfo=UTC)
OCT_1 = datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 5, 10, 30, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def flat(amount: str) -> PriceTerms:
    return PriceTerms(model="flat", meter=None, params={"amount": amount})


def per_unit(amount: str) -> PriceTerms:
    return PriceTerms(model="per_unit", meter="requests", params={"unit_amount": amount})


OLD = {"prices": (flat("49.00"), per_unit("0.01"))}
DRAFT = PlanTerms(interval="month", currency="USD", prices=(flat("59.00"), per_unit("0.005")))


async def customer(session: AsyncSession, *, since: datetime = SEP_1, **options) -> Subscription:
    return await a_subscription(session, await an_account(session, now=SEP_1, **options), now=since)


def uses(session: AsyncSession, subscription: Subscription, units: int, *, at: datetime, phase: int = 0) -> None:
    session.add(an_hour_of_use(subscription, units, hour=at, phase_id=subscription.phases[phase].id))


async def run(
    session: AsyncSession,
    sessions: async_sessionmaker[AsyncSession],
    *,
    draft: PlanTerms | None = DRAFT,
    months: int = 2,
    at_once: int = 2,
    **options,
) -> str:
    if draft is not None:
        await save_draft(session, plan_code="starter", terms=draft, actor=ACTOR, now=NOW)
    wanted = {"plan_code": "starter", "source": "draft", "months": months, "actor": ACTOR, "now": NOW}
    job = await start_what_if(session, **{**wanted, **options})
    await session.commit()
    for _ in range(10):
        if not await work_once(sessions, config=WhatIfConfig(at_once=at_once), now=NOW):
            break
    session.expunge_all()
    return job.id


async def results(session: AsyncSession, job_id: str) -> dict[str, tuple[int, int, int | None, int]]:
    found = await session.scalars(select(WhatIfResult).where(WhatIfResult.job_id == job_id))
    return {
        one.subscription_id: (one.periods, one.before_minor, one.after_minor, one.refused_units) for one in found
    }


class TestWhatIf:
    async def test_adds_up_the_months_of_each_customer(self, session: AsyncSession, sessions):
        await a_published_plan(session, now=SEP_1, **OLD)
        quiet, busy, new = [await customer(session) for _ in range(2)] + [await customer(session, since=OCT_1)]
        uses(session, busy, 10_000, at=SEP_1 + DAY)
        uses(session, busy, 2_000, at=OCT_1 + DAY)
        uses(session, busy, 99_999, at=datetime(2026, 11, 4, tzinfo=UTC))  # of a period that is not over
        job_id = await run(session, sessions)
        assert await results(session, job_id) == {
            quiet.id: (2, 98_00, 118_00, 0),
            busy.id: (2, 98_00 + 120_00, 118_00 + 60_00, 0),
            new.id: (1, 49_00, 59_00, 0),
        }
        found = await what_if(session, job_id)
        total = found.sums["USD"]
        assert found.job.status == "done"
        assert (total.before_minor, total.after_minor) == (365_00, 355_00)
        assert (total.subscriptions, total.dearer, total.cheaper, total.same) == (3, 2, 1, 0)

    async def test_before_is_what_invoices_say(self, session: AsyncSession, sessions):
        await a_published_plan(session, now=SEP_1, **OLD)
        await a_published_plan(session, now=SEP_1, code="growth", position=1, prices=(flat("199.00"),))
        one = await customer(session)
        uses(session, one, 10_000, at=OCT_1 + DAY)
        one = await change_plan(
            session, subscription_id=one.id, plan_code="growth", actor=ACTOR, now=OCT_1 + 10 * DAY
        )
        await session.flush()
        preview = await preview_invoice(
            session, account_id=one.account_id, product_code="weather", now=NOW, period_start=OCT_1
        )
        job_id = await run(session, sessions, months=1)
        (found,) = (await results(session, job_id)).values()
        # only the ten days of the plan in question are other terms: 59.00 x 10/31 and half of 100.00
        own = round(5900 * 10 / 31) + 50_00 - (round(4900 * 10 / 31) + 100_00)
        assert found == (1, preview.subtotal_minor, preview.subtotal_minor + own, 0)

    async def test_what_new_terms_refuse_is_said_and_not_charged(self, session: AsyncSession, sessions):
        await a_published_plan(session, now=SEP_1, **OLD)
        one = await customer(session)
        uses(session, one, 10_000, at=OCT_1)
        hard = PlanTerms(
            interval="month", currency="USD", quota_units=4_000, quota_hard=True, prices=(per_unit("0.01"),)
        )
        job_id = await run(session, sessions, draft=hard, months=1)
        assert await results(session, job_id) == {one.id: (1, 149_00, 40_00, 6_000)}

    @pytest.mark.parametrize("limit", [{"quota_hard": True}, {"quota_cap_units": 4_000}])
    async def test_what_add_ons_bring_is_not_refused(self, session: AsyncSession, sessions, limit: dict):
        await a_published_plan(session, now=SEP_1, quota_units=100, **OLD)
        await a_published_plan(session, now=SEP_1, code="more", position=1, kind="add_on", quota_units=1_000)
        one, other = [await customer(session) for _ in range(2)]
        await add_on(
            session, subscription_id=one.id, add_on_code="more", quantity=2, actor=ACTOR, now=SEP_1 + MINUTE
        )
        await override_limits(session, subscription_id=other.id, quota_units=9_000, actor=ACTOR, now=SEP_1)
        for subscription in (one, other):
            uses(session, subscription, 10_000, at=OCT_1, phase=-1)
        units = 4_000 if "quota_hard" in limit else 3_000
        terms = PlanTerms(interval="month", currency="USD", quota_units=units, prices=(per_unit("0.01"),), **limit)
        job_id = await run(session, sessions, draft=terms, months=1)
        found = await results(session, job_id)
        # 6,000 with what two of the add-on bring, $98.00 for these; 9,000 where the quota is its own
        assert found[one.id][2:] == (60_00 + 98_00, 4_000)
        assert found[other.id][2:] == (90_00, 1_000)

    async def test_a_cap_of_its_own_stands_in_place_of_the_new_one(self, session: AsyncSession, sessions):
        await a_published_plan(session, now=SEP_1, quota_units=100, quota_cap_units=200, **OLD)
        one = await customer(session)
        await override_limits(session, subscription_id=one.id, quota_cap_units=8_000, actor=ACTOR, now=SEP_1)
        uses(session, one, 10_000, at=OCT_1)
        job_id = await run(session, sessions, draft=None, source="version", version=1, months=1)
        assert (await results(session, job_id))[one.id] == (1, 149_00, 49_00 + 80_00, 2_000)

    async def test_terms_that_are_not_sold_in_a_currency_have_no_amount(self, session: AsyncSession, sessions):
        await a_published_plan(session, now=SEP_1, currency="EUR", prices=(flat("45.00"),))
        one = await customer(session, currency="EUR")
        job_id = await run(session, sessions)
        assert await results(session, job_id) == {one.id: (2, 90_00, None, 0)}
        sums = (await what_if(session, job_id)).sums["EUR"]
        assert (sums.not_sold, sums.subscriptions, sums.before_minor) == (1, 0, 0)

    async def test_replays_an_older_version_and_a_plan_file(self, session: AsyncSession, sessions):
        await a_published_plan(session, now=SEP_1, prices=(flat("39.00"),))
        await a_new_version(session, now=SEP_1, prices=(flat("49.00"),))
        one = await customer(session)
        job_id = await run(session, sessions, draft=None, source="version", version=1)
        assert await results(session, job_id) == {one.id: (2, 98_00, 78_00, 0)}
        file = (
            "api_products: [{code: weather, name: Weather, service: weather, routes: [weather]}]\n"
            "plans: [{code: starter, name: Starter, api_product: weather, prices: [{model: flat, amount: 60}]}]\n"
        )
        job_id = await run(session, sessions, draft=None, source="plan_file", plan_file=parse_plan_file(file))
        assert await results(session, job_id) == {one.id: (2, 98_00, 120_00, 0)}

    async def test_goes_on_where_another_worker_stopped(self, session: AsyncSession, sessions):
        await a_published_plan(session, now=SEP_1, **OLD)
        for _ in range(3):
            await customer(session)
        await save_draft(session, plan_code="starter", terms=DRAFT, actor=ACTOR, now=NOW)
        start = {"plan_code": "starter", "source": "draft", "months": 1, "actor": ACTOR, "now": NOW}
        job_id = (await start_what_if(session, **start)).id
        await session.commit()
        counts = []
        for _ in range(4):
            await work_once(sessions, config=WhatIfConfig(at_once=1), now=NOW)
            counts.append(len(await results(session, job_id)))
            await session.rollback()
        assert counts == [1, 2, 3, 3]
        assert not await work_once(sessions, config=WhatIfConfig(), now=NOW)

    async def test_refuses_what_there_is_not(self, session: AsyncSession):
        await a_published_plan(session, now=SEP_1, **OLD)
        wanted = {"plan_code": "starter", "months": 1, "actor": ACTOR, "now": NOW}
        with pytest.raises(NoDraftError):
            await start_what_if(session, source="draft", **wanted)
        with pytest.raises(NotFoundError):
            await start_what_if(session, source="version", version=7, **wanted)
        for source, options, field in (
            ("plan_file", {}, "plan_file"),
            ("version", {}, "version"),
            ("draft", {"version": 1}, "version"),
        ):
            with pytest.raises(ValidationFailedError) as refused:
                await start_what_if(session, source=source, **options, **wanted)
            assert refused.value.field == field
