"""Prices on declared meters: what a preview shows and adds up, and which of them no spend cap can hold."""

# ruff: noqa: RUF001 - the multiplication sign is what an invoice shows
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.call_bounds import MeterUncappedError
from control_plane.billing.forecasts.queries import forecast
from control_plane.billing.model import InvoicePreview
from control_plane.billing.operations import require_cap_kept, set_spend_cap
from control_plane.billing.plan_moves.candidates import MoveScope
from control_plane.billing.plan_moves.model import MoveTime
from control_plane.billing.plan_moves.queries import preview_move
from control_plane.billing.queries import preview_invoice
from control_plane.catalog.meter_operations import create_meter
from control_plane.catalog.meters import Aggregation, MeteredEvents, MeterFacts
from control_plane.catalog.model import PriceTerms, ProductFacts
from control_plane.catalog.operations import create_api_product
from control_plane.catalog.tables import Meter
from control_plane.subscriptions.operations import change_plan
from control_plane.subscriptions.queries import subscription as subscription_by_id
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.meters.tables import MeterHourly, MeterPeriod, MeterPeriodState
from tests.control_plane.builders import ACTOR, a_new_version, a_published_plan, a_subscription, an_account

NOV_1, DEC_1 = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
METERS = {
    "jobs": ("Finished jobs", Aggregation.COUNT, None, MeteredEvents.REPORTED),
    "writes": ("Writes", Aggregation.COUNT, None, MeteredEvents.CALLS),
    "users": ("Active users", Aggregation.UNIQUE, "properties.user", MeteredEvents.REPORTED),
    "callers": ("Callers", Aggregation.UNIQUE, "key_id", MeteredEvents.CALLS),
    "peak": ("Peak tokens", Aggregation.MAX, "tokens", MeteredEvents.CALLS),
    "seats": ("Seats", Aggregation.LATEST, "seats", MeteredEvents.ALL),
}


@pytest.fixture
async def meters(session: AsyncSession) -> dict[str, Meter]:
    product = ProductFacts(
        code="weather", name="Weather", service="weather", routes=("weather",), unit_headers={"tokens": "x-tokens"}
    )
    await create_api_product(session, product=product, actor=ACTOR, now=NOV_1)
    found = {}
    for code, (name, aggregation, value, events) in METERS.items():
        meter = MeterFacts(
            code=code, name=name, api_product="weather", aggregation=aggregation, value=value, events=events
        )
        found[code] = await create_meter(session, meter=meter, actor=ACTOR, now=NOV_1)
    return found


def per_unit(meter: str, amount: str) -> PriceTerms:
    return PriceTerms(model="per_unit", meter=meter, params={"unit_amount": amount})


async def subscribed(session: AsyncSession, *prices: PriceTerms) -> Subscription:
    await a_published_plan(session, now=NOV_1, prices=prices)
    account = await an_account(session, now=NOV_1)
    return await a_subscription(session, account, now=NOV_1)


async def read_again(session: AsyncSession, subscription: Subscription) -> Subscription:
    subscription_id = subscription.id
    session.expire(subscription)
    return await subscription_by_id(session, subscription_id)


async def counted(
    session: AsyncSession,
    subscription: Subscription,
    meter: Meter,
    value: int,
    *,
    at: datetime = NOV_1,
    phase: int = 0,
    **more: Any,
) -> None:
    session.add(
        MeterHourly(
            account_id=subscription.account_id,
            hour=at,
            phase_id=subscription.phases[phase].id,
            meter_id=meter.id,
            value=value,
            events=1,
            **more,
        )
    )
    await session.flush()


async def different(session: AsyncSession, subscription: Subscription, meter: Meter, *values: int) -> None:
    """Have the period's unique values counted, one for each phase's plan version."""
    session.add(
        MeterPeriodState(
            subscription_id=subscription.id,
            period_start=NOV_1,
            period_end=DEC_1,
            account_id=subscription.account_id,
            due_at=NOV_1,
        )
    )
    for phase, value in zip(subscription.phases, values, strict=False):
        session.add(
            MeterPeriod(
                subscription_id=subscription.id,
                period_start=NOV_1,
                meter_id=meter.id,
                plan_version_id=phase.plan_version_id,
                value=value,
                events=value,
            )
        )
    await session.flush()


async def test_a_plan_move_shows_what_different_values_cost(session: AsyncSession, meters: dict[str, Meter]):
    one = await subscribed(session, per_unit("users", "1.00"), per_unit("seats", "2.00"))
    await a_new_version(session, now=NOV_1, prices=(per_unit("users", "3.00"), per_unit("seats", "2.00")))
    await counted(session, one, meters["users"], 5)
    await different(session, one, meters["users"], 7)
    await counted(session, one, meters["seats"], 4, latest_at_ms=1, latest_event_id="evt")
    when = MoveTime(timing="date", at=NOV_1 + 60 * DAY, notice_days=30)
    scope = MoveScope(from_plan="starter", to_plan="starter")
    (found,) = (await preview_move(session, scope=scope, when=when, now=NOV_1 + 20 * DAY)).candidates
    assert (found.cost.month_before_minor, found.cost.month_after_minor) == (7_00 + 8_00, 21_00 + 8_00)


async def preview(session: AsyncSession, subscription: Subscription) -> InvoicePreview:
    return await preview_invoice(
        session, account_id=subscription.account_id, product_code="weather", now=NOV_1 + 20 * DAY
    )


def lines(found: InvoicePreview) -> list[tuple[str, str, int]]:
    return [(line.line.description, line.line.formula, line.line.amount_minor) for line in found.lines]


class TestPreview:
    async def test_bills_each_user_once_a_period(self, session, meters) -> None:
        subscription = await subscribed(session, per_unit("users", "0.50"))
        for number in range(3):
            await counted(session, subscription, meters["users"], 2, at=NOV_1 + number * HOUR)
        await different(session, subscription, meters["users"], 4)
        found = await preview(session, subscription)
        assert lines(found) == [("Active users", "4 active users × $0.50", 200)]
        assert found.used_units == {"requests": 0, "users": 4}

    async def test_bills_the_greatest_of_a_period(self, session, meters) -> None:
        subscription = await subscribed(session, per_unit("peak", "0.001"))
        for number, value in enumerate((900, 4_000, 1_000)):
            await counted(session, subscription, meters["peak"], value, at=NOV_1 + number * HOUR)
        assert lines(await preview(session, subscription)) == [("Peak tokens", "4,000 peak tokens × $0.001", 400)]

    async def test_bills_the_last_of_a_period(self, session, meters) -> None:
        subscription = await subscribed(session, per_unit("seats", "10"))
        for number, value in enumerate((9, 5, 3)):
            at = NOV_1 + number * HOUR
            await counted(
                session, subscription, meters["seats"], value, at=at, latest_at_ms=number + 1, latest_event_id="e"
            )
        assert lines(await preview(session, subscription)) == [("Seats", "3 seats × $10.00", 3000)]

    async def test_adds_up_counts_and_calls_one_by_its_name(self, session, meters) -> None:
        overage = PriceTerms(model="overage", meter="jobs", params={"included": 2, "unit_amount": "0.10"})
        subscription = await subscribed(session, overage, per_unit("writes", "1.00"))
        for number in range(4):
            await counted(session, subscription, meters["jobs"], 5, at=NOV_1 + number * HOUR)
        await counted(session, subscription, meters["writes"], 1)
        await counted(session, subscription, meters["jobs"], 100, at=NOV_1 - HOUR)
        await counted(session, subscription, meters["jobs"], 100, at=DEC_1)
        assert lines(await preview(session, subscription)) == [
            ("Finished jobs", "18 finished jobs above 2 × $0.10", 180),
            ("Writes", "1 write × $1.00", 100),
        ]

    async def test_says_nothing_where_nothing_was_counted_or_priced(self, session, meters) -> None:
        subscription = await subscribed(session, per_unit("users", "0.50"))
        await counted(session, subscription, meters["writes"], 7)
        found = await preview(session, subscription)
        assert [amount for _, _, amount in lines(found)] == [0]
        assert found.used_units == {"requests": 0}

    async def test_gives_each_plan_of_a_period_its_own_values(self, session, meters) -> None:
        subscription = await subscribed(session, per_unit("users", "0.50"), per_unit("peak", "1"))
        prices = (per_unit("users", "2"), per_unit("peak", "3"))
        await a_published_plan(session, code="growth", now=NOV_1, position=1, prices=prices)
        await change_plan(
            session, subscription_id=subscription.id, plan_code="growth", actor=ACTOR, now=NOV_1 + 10 * DAY
        )
        subscription = await read_again(session, subscription)
        assert len(subscription.phases) == 2
        await different(session, subscription, meters["users"], 3, 2)
        for phase, value in enumerate((5, 4)):
            at = NOV_1 + phase * 11 * DAY
            await counted(session, subscription, meters["users"], 1, at=at, phase=phase)
            await counted(session, subscription, meters["peak"], value, at=at, phase=phase)
        found = await preview(session, subscription)
        assert [amount for _, _, amount in lines(found)] == [150, 500, 400, 1200]
        assert found.used_units == {"requests": 0, "users": 5, "peak": 5}
        ahead = await forecast(
            session, account_id=subscription.account_id, product_code="weather", now=NOV_1 + 20 * DAY
        )
        assert {meter.meter: meter.used_units for meter in ahead.meters} == found.used_units


class TestSpendCaps:
    @pytest.mark.parametrize(
        ("meter", "reason"),
        [
            ("users", "never passes the gateway"),
            ("jobs", "never passes the gateway"),
            ("seats", "never passes the gateway"),
            ("callers", "known only afterwards"),
            ("peak", "can change with every event"),
            ("writes", "counts requests and reported units only"),
        ],
    )
    async def test_are_refused_with_the_reason(self, meter, reason, session, meters) -> None:
        subscription = await subscribed(session, per_unit(meter, "0.50"))
        with pytest.raises(MeterUncappedError, match=reason) as caught:
            await set_spend_cap(
                session, subscription_id=subscription.id, amount="50.00", actor=ACTOR, now=NOV_1 + DAY
            )
        assert METERS[meter][0] in caught.value.message

    async def test_stand_where_the_meter_costs_nothing(self, session, meters) -> None:
        subscription = await subscribed(session, per_unit("users", "0"), per_unit("requests", "0.01"))
        capped = await set_spend_cap(
            session, subscription_id=subscription.id, amount="50.00", actor=ACTOR, now=NOV_1 + DAY
        )
        assert capped.effective

    async def test_keep_a_change_to_such_a_plan_away(self, session, meters) -> None:
        subscription = await subscribed(session, per_unit("requests", "0.01"))
        await set_spend_cap(session, subscription_id=subscription.id, amount="50.00", actor=ACTOR, now=NOV_1 + DAY)
        await a_published_plan(session, code="users", now=NOV_1, prices=(per_unit("users", "2"),))
        await change_plan(
            session, subscription_id=subscription.id, plan_code="users", actor=ACTOR, now=NOV_1 + 2 * DAY
        )
        subscription = await read_again(session, subscription)
        with pytest.raises(MeterUncappedError):
            await require_cap_kept(session, subscription, now=NOV_1 + 2 * DAY)
