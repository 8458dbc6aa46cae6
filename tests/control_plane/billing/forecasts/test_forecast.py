"""What a running period will come to, from rows in a real database."""

from datetime import UTC, datetime, timedelta

# ruff: noqa: RUF001 - the multiplication sign is what an invoice shows
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.forecasts.model import Forecast, Sureness
from control_plane.billing.forecasts.queries import NothingToForecastError, forecast
from control_plane.billing.operations import set_spend_cap
from control_plane.billing.queries import NotSubscribedError, preview_invoice
from control_plane.catalog.model import PriceTerms
from control_plane.foundation.clock import floor_ms
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.own_terms import override_limits
from control_plane.subscriptions.statuses import pause, resume
from control_plane.subscriptions.tables import Subscription
from control_plane.subscriptions.timelines import timeline
from tests.control_plane.builders import (
    ACTOR,
    a_published_plan,
    a_subscription,
    an_account,
    an_hour_of_use,
)

OCT_1 = datetime(2026, 10, 1, tzinfo=UTC)
NOV_1 = datetime(2026, 11, 1, tzinfo=UTC)
DEC_1 = datetime(2026, 12, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def flat(amount: str) -> PriceTerms:
    return PriceTerms(model="flat", meter=None, params={"amount": amount})


def overage(unit_amount: str, included: int) -> PriceTerms:
    params = {"included": included, "unit_amount": unit_amount}
    return PriceTerms(model="overage", meter="requests", params=params)


STARTER = {"quota_units": 20_000, "prices": (flat("49.00"), overage("0.01", 20_000))}


async def on_plan(session: AsyncSession, *, at: datetime = OCT_1, **terms) -> Subscription:
    await a_published_plan(session, now=OCT_1 - DAY, **(terms or STARTER))
    account = await an_account(session, now=OCT_1 - DAY)
    return await a_subscription(session, account, now=at)


def uses(
    session: AsyncSession, subscription: Subscription, *, since: datetime | None = None, until: datetime
) -> None:
    """A thousand units at noon of each day, since the subscription began where not said otherwise."""
    phase, units = subscription.phases[-1], 1000
    hour = (since or phase.starts_at).replace(hour=12, minute=0)
    while hour < until:
        session.add(an_hour_of_use(subscription, units, hour=hour, phase_id=phase.id, bytes_in=units))
        hour += DAY


async def forecast_of(session: AsyncSession, subscription: Subscription, *, now: datetime) -> Forecast:
    await session.flush()
    return await forecast(session, account_id=subscription.account_id, product_code="weather", now=now)


class TestForecast:
    async def test_adds_what_is_expected_to_what_was_used(self, session: AsyncSession):
        subscription = await on_plan(session)
        now = NOV_1 + 10 * DAY
        uses(session, subscription, until=now)
        found = await forecast_of(session, subscription, now=now)
        requests = found.meters[0]
        assert (requests.meter, requests.used_units, requests.projected) == ("requests", 10_000, True)
        assert (requests.at_end.low, requests.at_end.likely, requests.at_end.high) == (30_000, 30_000, 30_000)
        assert (found.subtotal_so_far_minor, found.subtotal.likely) == (49_00, 49_00 + 100_00)
        assert [(line.formula, line.amount_minor) for line in found.lines] == [
            ("$49.00", 49_00),
            ("10,000 requests above 20,000 × $0.01", 100_00),
        ]
        assert found.sureness is Sureness.HIGH
        assert (found.until, found.days_known) == (DEC_1, 41)

    async def test_comes_true(self, session: AsyncSession):
        subscription = await on_plan(session)
        now = NOV_1 + 10 * DAY
        uses(session, subscription, until=now)
        found = await forecast_of(session, subscription, now=now)
        uses(session, subscription, since=now, until=DEC_1)
        await session.flush()
        preview = await preview_invoice(
            session, account_id=subscription.account_id, product_code="weather", now=DEC_1, period_start=NOV_1
        )
        assert found.total.likely == preview.total_minor
        assert [(line.line.formula, line.line.amount_minor) for line in preview.lines] == [
            (line.formula, line.amount_minor) for line in found.lines
        ]

    async def test_says_when_the_quota_is_used_up(self, session: AsyncSession):
        subscription = await on_plan(session)
        now = NOV_1 + 10 * DAY
        uses(session, subscription, until=now)
        quota = (await forecast_of(session, subscription, now=now)).quota
        assert (quota.quota_units, quota.used_units, quota.hard) == (20_000, 10_000, False)
        assert abs(quota.likely_at - (NOV_1 + 20 * DAY)) < timedelta(minutes=1)

    async def test_calls_beyond_a_hard_quota_are_not_expected(self, session: AsyncSession):
        prices = (PriceTerms(model="per_unit", meter="requests", params={"unit_amount": "0.01"}),)
        subscription = await on_plan(session, quota_units=20_000, quota_hard=True, prices=prices)
        now = NOV_1 + 10 * DAY
        uses(session, subscription, until=now)
        found = await forecast_of(session, subscription, now=now)
        by_meter = {meter.meter: meter.at_end.likely for meter in found.meters}
        # what goes with calls goes as far as they do
        assert by_meter == {"requests": 20_000, "bytes_in": 20_000}
        assert found.subtotal.high == 200_00
        assert abs(found.quota.likely_at - (NOV_1 + 20 * DAY)) < timedelta(minutes=1)

    async def test_nor_are_calls_beyond_the_cap_of_a_quota_that_charges(self, session: AsyncSession):
        terms = {**STARTER, "quota_cap_units": 25_000}
        subscription = await on_plan(session, **terms)
        now = NOV_1 + 10 * DAY
        uses(session, subscription, until=now)
        found = await forecast_of(session, subscription, now=now)
        assert found.meters[0].at_end.likely == 25_000
        assert found.subtotal.high == 49_00 + 50_00
        await override_limits(
            session, subscription_id=subscription.id, quota_cap_units=26_000, actor=ACTOR, now=now
        )
        assert (await forecast_of(session, subscription, now=now)).meters[0].at_end.likely == 26_000

    async def test_planned_changes_are_in_it(self, session: AsyncSession):
        subscription = await on_plan(session)
        per_unit = PriceTerms(model="per_unit", meter="requests", params={"unit_amount": "0.02"})
        await a_published_plan(session, now=OCT_1, code="metered", position=1, prices=(per_unit,))
        now = NOV_1 + 10 * DAY
        uses(session, subscription, until=now)
        await change_plan(
            session,
            subscription_id=subscription.id,
            plan_code="metered",
            effective_at=NOV_1 + 15 * DAY,
            actor=ACTOR,
            now=now,
        )
        found = await forecast_of(session, subscription, now=now)
        lines = {(line.plan_code, line.kind.value): (line.used_units, line.amount_minor) for line in found.lines}
        assert lines["starter", "recurring"] == (None, 24_50)
        assert lines["starter", "usage"][0] == 15_000
        assert lines["metered", "usage"] == (15_000, 300_00)

    async def test_ends_where_the_subscription_ends(self, session: AsyncSession):
        subscription = await on_plan(session)
        now = NOV_1 + 10 * DAY
        uses(session, subscription, until=now)
        await cancel(session, subscription_id=subscription.id, at="period_end", actor=ACTOR, now=now)
        assert (await forecast_of(session, subscription, now=now)).until == DEC_1
        await cancel(session, subscription_id=subscription.id, at="now", actor=ACTOR, now=now)
        with pytest.raises(NothingToForecastError):
            await forecast_of(session, subscription, now=now + DAY)

    async def test_new_accounts_have_a_wide_range_and_little_sureness(self, session: AsyncSession):
        subscription = await on_plan(session, at=NOV_1)
        now = NOV_1 + 3 * DAY
        uses(session, subscription, until=now)
        found = await forecast_of(session, subscription, now=now)
        requests = found.meters[0].at_end
        assert (found.sureness, requests.likely) == (Sureness.LOW, 30_000)
        assert requests.low < 20_000
        assert requests.high > 40_000
        assert found.subtotal.low < found.subtotal.likely < found.subtotal.high

    async def test_a_first_day_is_better_than_nothing(self, session: AsyncSession):
        subscription = await on_plan(session, at=NOV_1)
        now = NOV_1 + timedelta(hours=13)
        uses(session, subscription, until=now)
        found = await forecast_of(session, subscription, now=now)
        assert (found.sureness, found.days_known) == (Sureness.LOW, 0)
        assert found.meters[0].at_end.low > 1000

    @pytest.mark.parametrize(("day", "hour"), [(NOV_1, 20), (NOV_1 + DAY, 2)])
    async def test_the_pace_of_a_first_day_is_since_it_began(self, session, day: datetime, hour: int):
        subscription = await on_plan(session, at=NOV_1 + timedelta(hours=11))
        now = day + timedelta(hours=hour)
        uses(session, subscription, until=NOV_1 + timedelta(hours=13))
        found = await forecast_of(session, subscription, now=now)
        expected = 1000 + 1000 / ((now - subscription.started_at) / DAY) * ((found.until - now) / DAY)
        assert (found.sureness, found.days_known) == (Sureness.LOW, 0)
        assert found.meters[0].at_end.likely == pytest.approx(expected, abs=1)

    @pytest.mark.parametrize("part", [0.0, 1e-9, 1 / 720, 0.5, 1 - 1 / 720, 1 - 1e-6])
    async def test_from_the_first_hour_to_the_last_it_is_between_used_and_range(self, session, part: float):
        subscription = await on_plan(session, at=OCT_1 + timedelta(hours=10, minutes=20))
        period = (await timeline(session, subscription.id)).period_at(NOV_1 + 20 * DAY)
        assert (period.start.hour, period.end.hour) == (10, 10)
        now = floor_ms(period.start + part * (period.end - period.start))
        uses(session, subscription, until=now)
        found = await forecast_of(session, subscription, now=now)
        requests = found.meters[0]
        assert requests.used_units <= requests.at_end.low <= requests.at_end.likely <= requests.at_end.high
        # thirty noons lie in the period
        assert requests.at_end.likely == pytest.approx(30_000, rel=0.02)
        assert found.subtotal_so_far_minor <= found.subtotal.low <= found.subtotal.likely <= found.subtotal.high
        assert found.period == period

    async def test_a_first_hour_says_little_and_does_not_fail(self, session: AsyncSession):
        subscription = await on_plan(session, at=NOV_1 + timedelta(hours=12))
        uses(session, subscription, until=NOV_1 + timedelta(hours=13))
        for minutes in (0, 1, 59):
            now = subscription.started_at + timedelta(minutes=minutes)
            found = await forecast_of(session, subscription, now=now)
            assert found.meters[0].at_end.likely <= 1000 + 24 * 1000 * 30

    async def test_what_was_used_before_a_pause_is_no_pace_after_it(self, session: AsyncSession):
        subscription = await on_plan(session, at=NOV_1)
        uses(session, subscription, until=NOV_1 + 9 * DAY)
        of = {"subscription_id": subscription.id, "actor": ACTOR}
        await pause(session, **of, now=NOV_1 + 8.75 * DAY)
        await resume(session, **of, now=NOV_1 + 8.8 * DAY)
        found = await forecast_of(session, subscription, now=NOV_1 + 8.9 * DAY)
        assert (found.sureness, found.meters[0].at_end.likely) == (Sureness.NONE, 9_000)

    async def test_without_use_it_is_what_is_due_anyway(self, session: AsyncSession):
        subscription = await on_plan(session)
        found = await forecast_of(session, subscription, now=NOV_1 + DAY)
        assert found.sureness is Sureness.NONE
        assert (found.total.low, found.total.likely, found.total.high) == (49_00, 49_00, 49_00)
        assert found.quota.likely_at is None

    async def test_says_whether_the_spend_cap_is_reached(self, session: AsyncSession):
        subscription = await on_plan(session)
        now = NOV_1 + 10 * DAY
        uses(session, subscription, until=now)
        answers = []
        for amount in ("100.00", "149.00", "149.01"):
            await session.flush()
            await set_spend_cap(session, subscription_id=subscription.id, amount=amount, actor=ACTOR, now=now)
            answers.append((await forecast_of(session, subscription, now=now)).reaches_spend_cap)
        assert answers == ["yes", "yes", "no"]

    async def test_needs_a_subscription(self, session: AsyncSession):
        await on_plan(session)
        other = await an_account(session, now=OCT_1)
        with pytest.raises(NotSubscribedError):
            await forecast(session, account_id=other.id, product_code="weather", now=NOV_1)
