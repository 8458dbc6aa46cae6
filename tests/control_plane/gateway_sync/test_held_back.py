"""Subscriptions that are held back until they are paid, as the gateway's records have them."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from control_plane.catalog.tables import Plan, PlanVersion
from control_plane.gateway_sync.allowances import Counting
from control_plane.gateway_sync.config import ProjectorConfig
from control_plane.gateway_sync.held_terms import held_to
from control_plane.gateway_sync.projector import run_projector
from control_plane.gateway_sync.records import AddedTerms, PlanTerms, SubscriptionSnapshot, build_grant
from control_plane.rating.model import Share
from control_plane.subscriptions.holds import hold_back, let_go
from control_plane.subscriptions.statuses import change_status
from gateway_contract.records import Allowance, Concurrency, Window

ACTOR = "test"
URL = "https://api.example.com"
NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
SLOW, FAST = Window(limit=1, window_ms=1000), Window(limit=50, window_ms=1000)
FREE = PlanTerms(
    code="free",
    name="Free",
    version=3,
    position=0,
    windows=(SLOW,),
    quota_units=1000,
    quota_hard=True,
    entitlements=("forecast",),
    redis_down="open",
    by_quote=False,
    on_past_due="refuse",
)
GROWTH = replace(
    FREE,
    code="growth",
    name="Growth",
    windows=(FAST,),
    quota_units=500_000,
    quota_hard=False,
    quota_cap_units=900_000,
    entitlements=("forecast", "history"),
    concurrency=Concurrency(limit=100, lease_ms=1000),
    on_past_due="serve",
)


def a_subscription(**changed):
    made = SubscriptionSnapshot(
        id="sub_1",
        product="weather",
        plan=GROWTH,
        anchor_at=datetime(2026, 11, 1, tzinfo=UTC),
        ends_at=None,
        interval="month",
        time_zone="UTC",
        windows_override=(Window(limit=99, window_ms=1000),),
        quota_override=700_000,
        quota_cap_override=950_000,
        concurrency_override=200,
        route_units={"history": 5},
        offers=(replace(GROWTH, code="scale", quota_units=9_000_000),),
        past_due=True,
        added=AddedTerms(units=50, units_later=100, entitlements=("satellite",)),
    )
    return replace(made, **changed)


def grant(snapshot):
    return build_grant(snapshot, now=NOW, public_url=URL)


class TestHeldTo:
    def test_has_the_free_plans_terms_whatever_was_agreed_apart(self):
        held = grant(held_to(a_subscription(), FREE))
        assert (held.plan, held.windows, held.entitlements) == ("free", (SLOW,), ("forecast",))
        assert (held.quota.units, held.quota.hard, held.concurrency) == (1000, True, None)
        assert held.upgrade is None
        assert not held.payment_due

    def test_keeps_what_counts_calls(self):
        held, own = grant(held_to(a_subscription(), FREE)), grant(a_subscription())
        assert (held.subscription_id, held.periods, held.route_units) == (
            own.subscription_id,
            own.periods,
            own.route_units,
        )

    def test_counts_all_units_of_the_period_and_still_keeps_versions_apart(self):
        allowance = Allowance(period_start_ms=5, part="p2", others=("p1",), carried=False)
        counting = Counting(allowance, Share(1, 2), {"p2": NOW})
        held = grant(held_to(a_subscription(counting=counting, counting_from_ms=5), FREE))
        assert held.allowance == replace(allowance, carried=True)
        assert held.quota.units == 1000

    def test_holds_for_what_is_planned_too(self):
        later = a_subscription(plan=replace(GROWTH, code="scale"))
        held = grant(held_to(a_subscription(next=(NOW + timedelta(days=1), later)), FREE))
        assert held.next.grant.plan == "free"
        ending = held_to(a_subscription(next=(NOW + timedelta(days=1), None)), FREE)
        assert grant(ending).next.grant is None

    @pytest.mark.parametrize(("interval", "units"), [("month", 1000), ("year", 12_000)])
    def test_gives_a_year_twelve_months_of_the_quota(self, interval, units):
        assert grant(held_to(a_subscription(interval=interval), FREE)).quota.units == units
        assert grant(held_to(a_subscription(interval=interval), replace(FREE, quota_units=None))).quota is None


class TestBlocked:
    @pytest.mark.parametrize(
        ("past_due", "blocked", "policy", "refused"),
        [
            (True, True, "serve", True),
            (True, False, "serve", False),
            (True, False, "refuse", True),
            (False, True, "serve", False),
            (False, False, "refuse", False),
        ],
    )
    def test_only_while_it_is_past_due(self, past_due, blocked, policy, refused):
        plan = replace(GROWTH, on_past_due=policy)
        assert grant(a_subscription(past_due=past_due, blocked=blocked, plan=plan)).payment_due is refused


class TestProjected:
    async def set_status(self, shop, customer, status, now):
        async with shop.sessions() as session, session.begin():
            await change_status(
                session, subscription_id=customer.subscription_id, status=status, actor=ACTOR, now=now
            )

    async def hold(self, shop, customer, now, *, to=None):
        async with shop.sessions() as session, session.begin():
            version = None
            if to is not None:
                statement = (
                    select(PlanVersion.id).join(Plan, Plan.id == PlanVersion.plan_id).where(Plan.code == to)
                )
                version = await session.scalar(statement)
            return await hold_back(
                session,
                subscription_id=customer.subscription_id,
                plan_version_id=version,
                actor=ACTOR,
                now=now,
            )

    async def test_holds_back_and_recovers_within_the_transaction_of_the_payment(
        self, shop, gateway, project, now
    ):
        await shop.add_catalog(now)
        customer = await shop.add_customer(now, plan="starter")
        await project(now)
        own = (await gateway.account(customer.account_id)).products["weather"]
        assert not await self.hold(shop, customer, now), "a subscription that is paid is left alone"
        await self.set_status(shop, customer, "past_due", now)
        for to, seen in ((None, (True, "starter")), ("free", (False, "free"))):
            assert await self.hold(shop, customer, now, to=to)
            await project(now)
            held = (await gateway.account(customer.account_id)).products["weather"]
            assert (held.payment_due, held.plan) == seen
        await self.set_status(shop, customer, "active", now)
        await project(now)
        assert (await gateway.account(customer.account_id)).products["weather"] == own
        await self.set_status(shop, customer, "past_due", now)
        await project(now)
        assert (await gateway.account(customer.account_id)).products["weather"] == own, (
            "what held before holds no more"
        )

    async def test_lets_go_when_more_time_is_given(self, shop, gateway, project, now):
        await shop.add_catalog(now)
        customer = await shop.add_customer(now, plan="starter")
        await self.set_status(shop, customer, "past_due", now)
        await self.hold(shop, customer, now)
        async with shop.sessions() as session, session.begin():
            assert await let_go(session, subscription_id=customer.subscription_id, actor=ACTOR, now=now)
        await project(now)
        assert not (await gateway.account(customer.account_id)).products["weather"].payment_due

    async def test_the_running_projector_serves_again_at_once(
        self, *, shop, gateway, now, eventually, database_url, redis_url
    ):
        await shop.add_catalog(now)
        customer = await shop.add_customer(now, plan="starter")
        await self.set_status(shop, customer, "past_due", now)
        await self.hold(shop, customer, now)
        stop = asyncio.Event()
        config = ProjectorConfig(database_url=database_url, redis_url=redis_url, public_url=URL)
        running = asyncio.create_task(run_projector(config, stop))

        async def refuses():
            record = await gateway.account(customer.account_id)
            return record is not None and record.products["weather"].payment_due

        async def serves():
            return not await refuses()

        await eventually(refuses)
        await self.set_status(shop, customer, "active", now)
        await eventually(serves)
        stop.set()
        await asyncio.wait_for(running, 20)
