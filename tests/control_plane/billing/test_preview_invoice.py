"""What an account would be invoiced, from rows in a real database."""

# ruff: noqa: RUF001 - the multiplication sign is what an invoice shows
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.queries import NotSubscribedError, preview_invoice
from control_plane.catalog.model import PriceTerms, ProductFacts
from control_plane.catalog.operations import create_api_product
from control_plane.foundation.errors import NotFoundError
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.own_terms import override_limits
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.trials import end_trial
from control_plane.usage.tables import UsageHourly
from tests.control_plane.builders import a_published_plan, a_subscription, an_account

NOV_1 = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def flat(amount: str) -> PriceTerms:
    return PriceTerms(model="flat", meter=None, params={"amount": amount})


def overage(unit_amount: str, included: int) -> PriceTerms:
    params = {"included": included, "unit_amount": unit_amount}
    return PriceTerms(model="overage", meter="requests", params=params)


STARTER = {"quota_units": 50_000, "prices": (flat("49.00"), overage("0.0015", 50_000))}
GROWTH = {"quota_units": 500_000, "prices": (flat("199.00"), overage("0.0006", 500_000))}


async def add_usage(
    session: AsyncSession,
    subscription: Subscription,
    *,
    hour: datetime,
    units: int,
    phase: int = -1,
    **values: Any,
) -> None:
    """One row of the rollup as the aggregator writes it."""
    billed = {
        "mode": "live",
        "key_id": "key_1",
        "status": 200,
        "outcome": "served",
        "billable_units": units,
        "billable_dimensions": {},
        "bytes_in": 0,
        "bytes_out": 0,
    }
    row = billed | values
    session.add(
        UsageHourly(
            account_id=subscription.account_id,
            hour=hour,
            phase_id=subscription.phases[phase].id,
            product="weather",
            endpoint="GET /v1/current",
            calls=units,
            units=units,
            billable_calls=min(units, row["billable_units"]),
            latency_ms_sum=0,
            gateway_ms_sum=0,
            dimensions=row["billable_dimensions"],
            revision=1,
            **row,
        )
    )
    await session.flush()


async def on_plan(
    session: AsyncSession, plan: str = "starter", *, at: datetime = NOV_1, **terms: Any
) -> Subscription:
    await a_published_plan(session, now=NOV_1 - DAY, code=plan, **(terms or STARTER))
    account = await an_account(session, now=NOV_1 - DAY)
    return await a_subscription(session, account, now=at, plan=plan)


async def preview(session: AsyncSession, subscription: Subscription, *, now: datetime = NOV_1 + 20 * DAY):
    return await preview_invoice(session, account_id=subscription.account_id, product_code="weather", now=now)


def as_table(found) -> list[tuple[str, str, int]]:
    return [(line.line.description, line.line.formula, line.line.amount_minor) for line in found.lines]


class TestPreviewInvoice:
    async def test_shows_fee_and_overage_with_their_formulas(self, session: AsyncSession):
        subscription = await on_plan(session)
        await add_usage(session, subscription, hour=NOV_1, units=50_000)
        await add_usage(session, subscription, hour=NOV_1 + DAY, units=12_345)
        found = await preview(session, subscription)
        assert as_table(found) == [
            ("Starter plan", "$49.00", 4_900),
            ("Requests", "12,345 requests above 50,000 × $0.0015", 1_852),
        ]
        assert (found.total_minor, found.currency) == (6_752, "USD")
        assert (found.period.start, found.period.end) == (NOV_1, datetime(2026, 12, 1, tzinfo=UTC))
        assert (found.quota.used_units, found.quota.quota_units, str(found.quota.used_percent)) == (
            62_345,
            50_000,
            "124.6",
        )

    async def test_without_usage_there_is_the_fee(self, session: AsyncSession):
        found = await preview(session, await on_plan(session))
        assert as_table(found) == [
            ("Starter plan", "$49.00", 4_900),
            ("Requests", "0 of 50,000 included requests", 0),
        ]

    async def test_counts_only_what_is_billable(self, session: AsyncSession):
        subscription = await on_plan(session)
        await add_usage(session, subscription, hour=NOV_1, units=50_007)
        await add_usage(session, subscription, hour=NOV_1, units=900, mode="test", billable_units=0)
        await add_usage(session, subscription, hour=NOV_1, units=800, status=500, billable_units=0)
        await add_usage(
            session, subscription, hour=NOV_1, units=700, status=429, outcome="rate_limited", billable_units=0
        )
        assert (await preview(session, subscription)).used_units == {"requests": 50_007}

    @pytest.mark.parametrize(
        ("hour", "counts"),
        [
            (NOV_1, True),
            (datetime(2026, 11, 30, 23, tzinfo=UTC), True),
            (datetime(2026, 12, 1, tzinfo=UTC), False),
            (NOV_1 - HOUR, False),
        ],
    )
    async def test_a_billing_period_is_half_open(self, session: AsyncSession, hour: datetime, *, counts: bool):
        subscription = await on_plan(session)
        await add_usage(session, subscription, hour=hour, units=3)
        assert (await preview(session, subscription)).used_units == {"requests": 3 if counts else 0}

    async def test_shows_the_period_that_runs(self, session: AsyncSession):
        subscription = await on_plan(session)
        await add_usage(session, subscription, hour=NOV_1, units=60_000)
        found = await preview(session, subscription, now=datetime(2026, 12, 1, tzinfo=UTC))
        assert found.period.start == datetime(2026, 12, 1, tzinfo=UTC)
        assert found.total_minor == 4_900

    async def test_who_subscribes_within_an_hour_pays_its_first_period_once_and_whole(self, session: AsyncSession):
        subscription = await on_plan(session, at=NOV_1 + timedelta(minutes=37, seconds=12, milliseconds=345))
        found = await preview(session, subscription)
        assert found.period.start == NOV_1
        assert as_table(found)[0] == ("Starter plan", "$49.00", 4_900)

    async def test_who_joins_a_running_period_pays_its_part(self, session: AsyncSession):
        await a_published_plan(session, now=NOV_1, **STARTER)
        account = await an_account(session, now=NOV_1)
        subscription = await a_subscription(session, account, now=NOV_1 + 10 * DAY, anchor_at=NOV_1)
        assert as_table(await preview(session, subscription))[0] == (
            "Starter plan",
            "$49.00 × 20 of 30 days",
            3_267,
        )


class TestPlanChange:
    async def test_each_plan_is_rated_on_its_own_usage(self, session: AsyncSession):
        subscription = await on_plan(session)
        await a_published_plan(session, now=NOV_1, code="growth", position=1, **GROWTH)
        await add_usage(session, subscription, hour=NOV_1, units=60_000)
        subscription = await change_plan(
            session, subscription_id=subscription.id, plan_code="growth", actor="test", now=NOV_1 + 10 * DAY
        )
        await add_usage(session, subscription, hour=NOV_1 + 11 * DAY, units=500_100)
        found = await preview(session, subscription)
        assert as_table(found) == [
            ("Starter: Starter plan", "$49.00 × 10 of 30 days", 1_633),
            ("Starter: Requests", "10,000 requests above 50,000 × $0.0015", 1_500),
            ("Growth: Growth plan", "$199.00 × 20 of 30 days", 13_267),
            ("Growth: Requests", "100 requests above 500,000 × $0.0006", 6),
        ]
        assert found.total_minor == 16_406
        assert (found.quota.used_units, found.quota.quota_units) == (500_100, 500_000)

    async def test_a_change_planned_for_period_end_changes_nothing_yet(self, session: AsyncSession):
        subscription = await on_plan(session)
        await a_published_plan(session, now=NOV_1, code="growth", position=1, **GROWTH)
        await change_plan(
            session,
            subscription_id=subscription.id,
            plan_code="growth",
            effective_at=datetime(2026, 12, 1, tzinfo=UTC),
            actor="test",
            now=NOV_1 + DAY,
        )
        assert (await preview(session, subscription)).total_minor == 4_900


class TestOtherPrices:
    async def test_freemium_without_prices_costs_nothing(self, session: AsyncSession):
        subscription = await on_plan(session, "free", quota_units=1_000, quota_hard=True, prices=())
        await add_usage(session, subscription, hour=NOV_1, units=1_000)
        found = await preview(session, subscription)
        assert (found.lines, found.total_minor) == ((), 0)
        assert (found.quota.hard, found.quota.used_percent) == (True, 100)

    async def test_bytes_and_times_are_charged_and_named_for_people(self, session: AsyncSession):
        prices = (
            PriceTerms(model="package", meter="bytes_out", params={"size": 1_000_000_000, "amount": "0.09"}),
            PriceTerms(model="per_unit", meter="upstream_ms", params={"unit_amount": "0.0000021"}),
        )
        subscription = await on_plan(session, "metered", prices=prices)
        measured = {"bytes_in": 5, "bytes_out": 1_200_000_000, "upstream_ms_sum": 40_000}
        await add_usage(session, subscription, hour=NOV_1, units=3, **measured)
        await add_usage(session, subscription, hour=NOV_1, units=3, status=500, billable_units=0, **measured)
        found = await preview(session, subscription)
        assert [(line.line.description, line.line.amount_minor) for line in found.lines] == [
            ("Bytes sent", 18),
            ("Milliseconds of processing time", 8),
        ]
        assert found.lines[1].line.formula == "40,000 milliseconds of processing time × $0.0000021"
        # what costs nothing is not shown
        assert found.used_units == {"requests": 3, "bytes_out": 1_200_000_000, "upstream_ms": 40_000}

    async def test_named_units_are_charged_by_their_own_price(self, session: AsyncSession):
        product = ProductFacts(
            code="weather",
            name="Weather",
            service="weather",
            routes=("weather", "heavy"),
            route_units={"heavy": 5},
            unit_headers={"tokens": "x-tokens"},
        )
        await create_api_product(session, product=product, actor="test", now=NOV_1 - DAY)
        prices = (
            PriceTerms(model="per_unit", meter="requests", params={"unit_amount": "0.0005"}),
            PriceTerms(model="per_unit", meter="tokens", params={"unit_amount": "0.00002"}),
        )
        subscription = await on_plan(session, "metered", prices=prices)
        await add_usage(session, subscription, hour=NOV_1, units=100, billable_dimensions={"tokens": 2_000})
        await add_usage(session, subscription, hour=NOV_1 + HOUR, units=50, billable_dimensions={"tokens": 501})
        found = await preview(session, subscription)
        assert as_table(found) == [
            ("Requests", "150 request units × $0.0005", 8),
            ("Tokens", "2,501 tokens × $0.00002", 5),
        ]
        assert found.quota is None

    async def test_a_quota_override_is_what_is_included(self, session: AsyncSession):
        subscription = await on_plan(session)
        subscription = await override_limits(
            session, subscription_id=subscription.id, quota_units=60_000, actor="test", now=NOV_1
        )
        await add_usage(session, subscription, hour=NOV_1, units=60_100)
        found = await preview(session, subscription)
        assert as_table(found)[1] == ("Requests", "100 requests above 60,000 × $0.0015", 15)
        assert found.quota.quota_units == 60_000

    async def test_a_quota_override_taken_away_stays_that_of_the_period_before(self, session: AsyncSession):
        subscription = await on_plan(session)
        of = {"subscription_id": subscription.id, "actor": "test"}
        await override_limits(session, quota_units=60_000, **of, now=NOV_1)
        await add_usage(session, subscription, hour=NOV_1, units=60_100)
        await override_limits(session, quota_units=None, **of, now=NOV_1 + 31 * DAY)
        found = await preview_invoice(
            session,
            account_id=subscription.account_id,
            product_code="weather",
            now=NOV_1 + 31 * DAY,
            period_start=NOV_1,
        )
        assert as_table(found)[1] == ("Requests", "100 requests above 60,000 × $0.0015", 15)


SETUP = PriceTerms(model="setup_fee", meter=None, params={"amount": "20.00"})


class TestTrial:
    async def test_says_until_when_nothing_is_charged_and_what_is_charged_then(self, session: AsyncSession):
        subscription = await on_plan(session, **STARTER | {"prices": (*STARTER["prices"], SETUP)}, trial_days=14)
        await add_usage(session, subscription, hour=NOV_1, units=60_000)
        found = await preview(session, subscription, now=NOV_1 + DAY)
        assert (found.lines, found.total_minor) == ((), 0)
        assert (found.trial.ends_at, found.trial.goes_on) == (NOV_1 + 14 * DAY, True)
        charged = [(line.line.description, line.line.amount_minor) for line in found.trial.lines]
        assert charged == [("Starter plan", 4_900), ("Setup fee", 2_000)]
        assert found.trial.total_minor == 6_900

    async def test_of_one_that_ends_the_subscription_charges_nothing_then(self, session: AsyncSession):
        subscription = await on_plan(session, **STARTER, trial_days=14)
        await cancel(session, subscription_id=subscription.id, at="now", actor="test", now=NOV_1 + DAY)
        found = await preview(session, subscription, now=NOV_1 + 2 * DAY)
        assert (found.trial.ends_at, found.trial.goes_on) == (NOV_1 + DAY, False)
        assert (found.trial.lines, found.trial.total_minor) == ((), 0)

    async def test_is_not_told_of_a_period_that_is_billed(self, session: AsyncSession):
        subscription = await on_plan(session, **STARTER, trial_days=14)
        await end_trial(session, subscription_id=subscription.id, actor="test", now=NOV_1 + HOUR / 2)
        found = await preview(session, subscription, now=NOV_1 + HOUR)
        assert (found.trial, found.total_minor) == (None, 4_900)


class TestEndedTrial:
    async def test_what_the_trial_used_in_the_first_hour_of_the_period_uses_no_quota(self, session: AsyncSession):
        subscription = await on_plan(session, **STARTER, trial_days=14, quota_on_change="carry")
        await add_usage(session, subscription, hour=NOV_1, units=60_000, phase=0)
        in_trial = await preview(session, subscription, now=NOV_1 + HOUR / 4)
        assert (in_trial.quota.used_units, in_trial.quota.quota_units) == (60_000, 50_000)
        await end_trial(session, subscription_id=subscription.id, actor="test", now=NOV_1 + HOUR / 2)
        await add_usage(session, subscription, hour=NOV_1, units=7, phase=1, key_id="key_2")
        found = await preview(session, subscription, now=NOV_1 + HOUR)
        assert as_table(found)[1] == ("Requests", "7 of 50,000 included requests", 0)
        assert (found.quota.used_units, found.quota.quota_units) == (7, 50_000)


class TestNothingToPreview:
    async def test_says_that_there_is_no_subscription(self, session: AsyncSession):
        await on_plan(session)
        other = await an_account(session, now=NOV_1)
        with pytest.raises(NotSubscribedError, match="no subscription of account acc_"):
            await preview_invoice(session, account_id=other.id, product_code="weather", now=NOV_1)

    async def test_shows_the_last_period_of_a_subscription_that_is_over(self, session: AsyncSession):
        subscription = await on_plan(session)
        await cancel(session, subscription_id=subscription.id, at="now", actor="test", now=NOV_1 + DAY)
        found = await preview(session, subscription, now=NOV_1 + 90 * DAY)
        assert as_table(found)[0] == ("Starter plan", "$49.00", 4_900)
        assert found.period.start == NOV_1

    async def test_names_the_account_or_the_product_that_is_not_there(self, session: AsyncSession):
        subscription = await on_plan(session)
        for account_id, product, code in (
            ("acc_none", "weather", "account_not_found"),
            (subscription.account_id, "none", "api_product_not_found"),
        ):
            with pytest.raises(NotFoundError) as caught:
                await preview_invoice(session, account_id=account_id, product_code=product, now=NOV_1)
            assert caught.value.code == code
