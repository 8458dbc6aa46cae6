"""Upgrade hints over real stores: what is counted, when it is worked out again, how it reaches the gateway."""

import asyncio
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import delete, select, update

from control_plane.billing.comparisons.demand import demands
from control_plane.catalog.model import PlanTerms, PriceTerms
from control_plane.catalog.publishing import publish_version
from control_plane.foundation.clock import floor_hour, utc_now
from control_plane.foundation.outbox import OutboxRow, Topic, enqueue_many
from control_plane.gateway_sync.hint_rounds import run_upgrade_hints
from control_plane.gateway_sync.tables import UpgradeHint
from control_plane.gateway_sync.upgrade_hints import due_after, refresh_hints, refresh_void_hints
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.own_terms import override_limits
from control_plane.subscriptions.tables import Subscription, SubscriptionPhase
from control_plane.usage.tables import UsageHour, UsageHourly
from gateway_contract.records import Window
from tests.control_plane.builders import a_published_plan

ACTOR = "test"
UNUSABLE_HINTS = "km_projection_unusable_total", {"kind": "upgrade_hint"}
WIDER = (Window(limit=50, window_ms=1000), Window(limit=1500, window_ms=60_000))


def priced(amount, included, unit_amount, **options):
    flat = PriceTerms(model="flat", meter=None, params={"amount": amount})
    params = {"included": included, "unit_amount": unit_amount}
    overage = PriceTerms(model="overage", meter="requests", params=params)
    terms = {"interval": "month", "currency": "USD", "quota_units": included, **options}
    return PlanTerms(**terms, prices=(flat, overage))


@pytest.fixture
async def ada(shop, now):
    """On Free, beside Starter (49 and 0.0015 above 50,000), Growth (199 and 0.0006 above 500,000), Enterprise."""
    await shop.add_catalog(now)
    async with shop.sessions() as session, session.begin():
        starter = priced("49.00", 50_000, "0.0015", windows=(Window(limit=10, window_ms=1000),))
        await publish_version(session, plan_code="starter", terms=starter, actor=ACTOR, now=now)
        growth = priced("199.00", 500_000, "0.0006", windows=WIDER)
        await a_published_plan(session, now=now, code="growth", position=5, **_fields(growth))
    return await shop.add_customer(now)


def _fields(terms):
    return {name: getattr(terms, name) for name in ("quota_units", "windows", "prices")}


async def use(shop, customer, hour, *, outcome="served", mode="live", status=200, aggregated_at=None, **counts):
    """Put one rollup row; `units` are billable where they were served."""
    units, calls = counts.get("units", 0), counts.get("calls", counts.get("units", 0))
    async with shop.sessions() as session, session.begin():
        phases = select(SubscriptionPhase.id).where(
            SubscriptionPhase.subscription_id == customer.subscription_id, SubscriptionPhase.ends_at.is_(None)
        )
        billable = mode == "live" and outcome == "served" and status < 500
        session.add(
            UsageHourly(
                account_id=customer.account_id,
                hour=hour,
                phase_id=await session.scalar(phases),
                product=counts.get("product", "weather"),
                mode=mode,
                key_id=customer.keys[0],
                endpoint=counts.get("endpoint", "GET /v1/forecast"),
                status=status,
                outcome=outcome,
                calls=calls,
                units=units,
                billable_calls=calls if billable else 0,
                billable_units=units if billable else 0,
                bytes_in=0,
                bytes_out=counts.get("bytes_out", 0),
                latency_ms_sum=0,
                gateway_ms_sum=0,
                billable_dimensions=counts.get("dimensions", {}),
                revision=1,
            )
        )
        await session.merge(
            UsageHour(
                account_id=customer.account_id, hour=hour, revision=1, aggregated_at=aggregated_at or utc_now()
            )
        )


async def hint_of(shop, customer):
    async with shop.sessions() as session:
        return await session.get(UpgradeHint, customer.subscription_id)


async def due(shop, now):
    async with shop.sessions() as session:
        return (await due_after(session, "", now=now)).due


async def upgrade(gateway, customer):
    found = (await gateway.account(customer.account_id)).products["weather"].upgrade
    return None if found is None else found.plan


class TestDemand:
    async def test_is_what_was_served_and_what_was_refused_for_want_of_a_larger_plan(self, shop, now, ada):
        hour = floor_hour(now)
        await use(shop, ada, hour, units=400, dimensions={"tokens": 7}, bytes_out=90)
        await use(shop, ada, hour - timedelta(hours=3), units=600, dimensions={"tokens": 5})
        await use(shop, ada, hour, outcome="quota_exceeded", status=429, calls=30)
        await use(shop, ada, hour, outcome="rate_limited", status=429, calls=20)
        await use(shop, ada, hour, status=503, units=11, bytes_out=70)  # failed: burns no quota
        await use(shop, ada, hour, outcome="key_revoked", status=401, calls=99)
        await use(shop, ada, hour, outcome="spend_cap_reached", status=429, calls=99)  # their own wish
        await use(shop, ada, hour, mode="test", units=5_000)
        await use(shop, ada, hour, product="maps", units=77)
        await use(shop, ada, hour - timedelta(days=30), units=1_000)
        await use(shop, ada, hour - timedelta(days=30, hours=1), units=1_000_000)
        async with shop.sessions() as session:
            found = await demands(session, [ada.account_id], now=now)
        weather = found[ada.account_id, "weather"]
        requests = 400 + 600 + 30 + 20 + 1_000
        assert weather.units == {"requests": requests, "tokens": 12, "bytes_out": 90}
        assert (weather.refused_calls, weather.rate_limited_calls) == (50, 20)
        assert weather.peak_hour_calls == 1_000
        assert found[ada.account_id, "maps"].units == {"requests": 77}


class TestHint:
    async def test_names_the_cheaper_plan_in_the_gateways_answer(self, shop, gateway, project, now, ada):
        await project(now)
        assert await upgrade(gateway, ada) == "starter"  # the next larger one, while nothing is known
        version = (await gateway.account(ada.account_id)).version
        await use(shop, ada, floor_hour(now), units=1_000)
        await use(shop, ada, floor_hour(now), outcome="quota_exceeded", status=429, calls=179_000)
        # 180,000 calls an hour are more than any plan bears: so they lie in many hours
        await _spread(shop, ada, now)
        assert await refresh_hints(shop.sessions, [ada.subscription_id], now=now) == 1
        await project(now)
        assert await upgrade(gateway, ada) == "growth"
        assert (await gateway.account(ada.account_id)).version == version
        hint = await hint_of(shop, ada)
        assert hint.demand["units"] == {"requests": 180_000}
        assert [(one["plan"], one["amount_minor"]) for one in hint.offers] == [
            ("growth", 19_900),
            ("starter", 24_400),
            ("enterprise", None),
        ]

    async def test_told_once(self, shop, now, ada):
        await use(shop, ada, floor_hour(now), units=100)
        assert await refresh_hints(shop.sessions, [ada.subscription_id], now=now) == 1
        assert await refresh_hints(shop.sessions, [ada.subscription_id], now=now) == 0

    async def test_is_void_after_a_change_of_plan_until_it_is_worked_out(self, shop, gateway, project, now, ada):
        await _spread(shop, ada, now)
        await refresh_hints(shop.sessions, [ada.subscription_id], now=now)
        later = now + timedelta(seconds=1)
        async with shop.sessions() as session, session.begin():
            await change_plan(
                session, subscription_id=ada.subscription_id, plan_code="growth", actor=ACTOR, now=later
            )
        await project(later)
        assert await upgrade(gateway, ada) == "enterprise"  # not "growth", which they have
        assert await refresh_void_hints(shop.sessions, now=later) >= 1
        await project(later)
        assert (await hint_of(shop, ada)).fitting_plan == "enterprise"
        assert await refresh_void_hints(shop.sessions, now=later) == 0  # what was worked out is void no more

    async def test_is_void_after_a_change_of_quota(self, shop, project, now, ada):
        await use(shop, ada, floor_hour(now), units=100)
        await refresh_hints(shop.sessions, [ada.subscription_id], now=now)
        async with shop.sessions() as session, session.begin():
            await override_limits(
                session, subscription_id=ada.subscription_id, quota_units=70_000, actor=ACTOR, now=now
            )
        await project(now)
        assert await refresh_void_hints(shop.sessions, now=now) == 1
        assert (await hint_of(shop, ada)).fitting_plan == "growth"  # Starter's 50,000 are no more than they have

    @pytest.mark.parametrize("spoiled", ["quota", "dimension"])
    async def test_one_that_cannot_be_worked_out_holds_up_no_other(self, shop, now, ada, spoiled):
        others = [await shop.add_customer(now, name=f"c{number}") for number in range(4)]
        for customer in (ada, *others):
            await use(shop, customer, floor_hour(now), units=100)
        async with shop.sessions() as session, session.begin():
            if spoiled == "quota":
                held = await session.get(Subscription, ada.subscription_id)
                held.overrides = {"quota_units": "many"}
            else:
                mine = UsageHourly.account_id == ada.account_id
                await session.execute(
                    update(UsageHourly).where(mine).values(billable_dimensions={"tokens": "many"})
                )
            ids = [customer.subscription_id for customer in (ada, *others)]
            await enqueue_many(session, topic=Topic.UPGRADE_HINT_VOID, entity_ids=ids, now=now)
        unusable = REGISTRY.get_sample_value(*UNUSABLE_HINTS) or 0
        assert await refresh_void_hints(shop.sessions, now=now) == 5
        assert await _waiting(shop) == []
        assert [(await hint_of(shop, customer)).fitting_plan for customer in others] == ["starter"] * 4
        assert await hint_of(shop, ada) is None
        assert await refresh_hints(shop.sessions, ids, now=now) == 0  # rounds go on, too
        assert REGISTRY.get_sample_value(*UNUSABLE_HINTS) == unusable + 2

    async def test_a_plan_that_is_sold_no_longer_is_not_named(self, shop, gateway, project, now, ada):
        await _spread(shop, ada, now)
        await refresh_hints(shop.sessions, [ada.subscription_id], now=now)
        async with shop.sessions() as session, session.begin():
            hint = await session.get(UpgradeHint, ada.subscription_id)
            hint.fitting_plan = "archived"
        await project(now)
        assert await upgrade(gateway, ada) == "starter"

    async def test_ended_subscriptions_get_none(self, shop, now, ada):
        async with shop.sessions() as session, session.begin():
            await cancel(session, subscription_id=ada.subscription_id, at="now", actor=ACTOR, now=now)
        assert await refresh_hints(shop.sessions, [ada.subscription_id], now=now) == 0
        assert await hint_of(shop, ada) is None


class TestDue:
    async def test_only_with_usage_since_the_last_time(self, shop, now, ada):
        bob = await shop.add_customer(now, name="Bob")
        assert await due(shop, now) == ()
        hour = floor_hour(now)
        await use(shop, ada, hour, units=10, aggregated_at=now)
        assert await due(shop, now) == (ada.subscription_id,)
        await refresh_hints(shop.sessions, [ada.subscription_id], now=now)
        assert await due(shop, now) == ()
        later = now + timedelta(minutes=20)
        await use(shop, ada, hour, units=5, endpoint="other", aggregated_at=later)
        await use(shop, bob, hour, units=5, aggregated_at=later)
        assert set(await due(shop, later)) == {ada.subscription_id, bob.subscription_id}

    async def test_pages_pass_every_subscription_once(self, shop, now, ada):
        customers = [ada, *[await shop.add_customer(now, name=f"c{number}") for number in range(4)]]
        for customer in customers:
            await use(shop, customer, floor_hour(now), units=1)
        seen, last_id = [], ""
        async with shop.sessions() as session:
            while last_id is not None:
                page = await due_after(session, last_id, now=now, limit=2)
                seen += page.due
                last_id = page.last_id
        assert sorted(seen) == sorted(customer.subscription_id for customer in customers)


class TestRounds:
    async def test_go_round_side_by_side_and_hear_of_void_ones(self, shop, project, database_url, eventually, ada):
        await _spread(shop, ada, utc_now())
        stop = asyncio.Event()
        rounds = [
            asyncio.create_task(run_upgrade_hints(database_url=database_url, stop=stop, round_seconds=0.2))
            for _ in range(2)
        ]
        try:
            await eventually(lambda: _names(shop, ada, "growth"))
            async with shop.sessions() as session, session.begin():
                await session.execute(delete(UsageHour))  # nothing is due any more
                await change_plan(
                    session, subscription_id=ada.subscription_id, plan_code="growth", actor=ACTOR, now=utc_now()
                )
            await project(utc_now())
            await eventually(lambda: _names(shop, ada, "enterprise"))
            assert await _waiting(shop) == []
        finally:
            stop.set()
            await asyncio.wait_for(asyncio.gather(*rounds), 30)


async def _names(shop, customer, plan):
    hint = await hint_of(shop, customer)
    return hint is not None and hint.fitting_plan == plan


async def _waiting(shop):
    statement = select(OutboxRow.id).where(
        OutboxRow.topic == Topic.UPGRADE_HINT_VOID.value, OutboxRow.done_at.is_(None)
    )
    async with shop.sessions() as session:
        return list(await session.scalars(statement))


async def _spread(shop, customer, now):
    """Put 180,000 calls into 18 hours: 1,000 served, 179,000 refused."""
    async with shop.sessions() as session, session.begin():
        await session.execute(delete(UsageHourly).where(UsageHourly.account_id == customer.account_id))
    await use(shop, customer, floor_hour(now), units=1_000)
    for hours in range(18):
        calls = 9_000 if hours == 0 else 10_000
        hour = floor_hour(now) - timedelta(hours=hours)
        await use(shop, customer, hour, outcome="quota_exceeded", status=429, calls=calls)
