"""Caps, calls at a time and unpaid bills, as the gateway is told of them and as its counters are kept."""

from datetime import timedelta

import pytest
from redis.exceptions import OutOfMemoryError
from sqlalchemy import select, update

from control_plane.billing.operations import remove_spend_cap, set_spend_cap
from control_plane.catalog.model import PlanFacts, PlanTerms, PriceTerms, ProductFacts
from control_plane.catalog.operations import create_api_product, create_plan
from control_plane.catalog.publishing import publish_version
from control_plane.foundation.clock import floor_hour, floor_ms, to_ms
from control_plane.foundation.period import period_containing
from control_plane.foundation.redis import create_redis
from control_plane.gateway_sync.projection import project_changes
from control_plane.gateway_sync.record_writer import RecordWriter
from control_plane.gateway_sync.settlement import settle_sealed_hours
from control_plane.gateway_sync.sweep import rebuild, sweep
from control_plane.keys.operations import revoke_key
from control_plane.subscriptions.advance import advance
from control_plane.subscriptions.operations import change_plan
from control_plane.subscriptions.own_terms import override_limits
from control_plane.subscriptions.statuses import change_status
from control_plane.subscriptions.tables import SubscriptionPhase
from control_plane.usage.tables import UsageHourly
from gateway_contract.counters import (
    CALLS,
    SKIPPED,
    UNITS,
    dimension_units,
    hour_calls,
    hour_dimension_units,
    hour_number,
    hour_revision,
    hour_units,
)
from gateway_contract.modes import Mode
from gateway_contract.records import Concurrency, KeyStatus, Quota
from gateway_contract.redis_names import period_counters
from tests.control_plane.gateway_sync.conftest import Gateway

PUBLIC_URL = "https://api.example.com"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FLAT = PriceTerms(model="flat", meter=None, params={"amount": "10.00"})
PER_CALL = PriceTerms(model="per_unit", meter="requests", params={"unit_amount": "0.01"})
CHEAP_CALL = PriceTerms(model="per_unit", meter="requests", params={"unit_amount": "0.001"})
PER_TOKEN = PriceTerms(model="per_unit", meter="tokens", params={"unit_amount": "0.00002"})
TERMS = {
    "plain": {"prices": (FLAT, PER_CALL)},
    "chat": {"prices": (FLAT, PER_CALL, PER_TOKEN)},
    "cheap": {"prices": (FLAT, CHEAP_CALL)},
    "capped": {
        "quota_units": 500,
        "quota_cap_units": 900,
        "concurrency": Concurrency(limit=20, lease_ms=60_000),
        "on_past_due": "refuse",
    },
}


@pytest.fixture
async def shop(shop, now):
    """The shop with an API whose upstream reports tokens."""
    product = ProductFacts(
        code="weather",
        name="Weather",
        service="weather",
        routes=("chat",),
        unit_headers={"tokens": "x-tokens"},
        unit_maximums={"*": {"tokens": 8000}},
    )
    async with shop.sessions() as session, session.begin():
        await create_api_product(session, product=product, actor="test", now=now)
        for position, (code, values) in enumerate(TERMS.items()):
            facts = PlanFacts(code=code, name=code.title(), api_product="weather", position=position)
            await create_plan(session, plan=facts, actor="test", now=now)
            terms = PlanTerms(interval="month", currency="USD", **values)
            await publish_version(session, plan_code=code, terms=terms, actor="test", now=now)
    return shop


@pytest.fixture
async def grant_of(shop, gateway, project, now):
    """What the gateway knows of a customer once everything is told."""

    async def read(customer, at=now):
        async with shop.sessions() as session, session.begin():
            await advance(session, now=at)
        await project(at)
        return (await gateway.account(customer.account_id)).products["weather"]

    return read


async def cap(shop, customer, amount, *, now):
    async with shop.sessions() as session, session.begin():
        options = {"subscription_id": customer.subscription_id, "actor": "test", "now": now}
        if amount is None:
            await remove_spend_cap(session, **options)
        else:
            await set_spend_cap(session, amount=amount, **options)


class TestProjectedGrant:
    async def test_carries_cap_and_concurrency(self, shop, now, grant_of):
        customer = await shop.add_customer(now, plan="capped")
        found = await grant_of(customer)
        assert found.quota == Quota(units=500, hard=False, cap_units=900)
        assert found.concurrency == Concurrency(limit=20, lease_ms=60_000)
        assert (found.payment_due, found.spend_cap) == (False, None)

    async def test_carries_overrides(self, shop, now, grant_of):
        customer = await shop.add_customer(now, plan="capped")
        async with shop.sessions() as session, session.begin():
            await override_limits(
                session,
                subscription_id=customer.subscription_id,
                quota_units=2000,
                quota_cap_units=3000,
                concurrency_limit=5,
                actor="test",
                now=now,
            )
        found = await grant_of(customer)
        assert found.quota == Quota(units=2000, hard=False, cap_units=3000)
        assert found.concurrency == Concurrency(limit=5, lease_ms=60_000)

    @pytest.mark.parametrize(("plan", "due"), [("capped", True), ("plain", False)])
    async def test_says_payment_due_where_the_plan_refuses_then(self, shop, now, grant_of, plan, due):
        customer = await shop.add_customer(now, plan=plan)
        for status, expected in (("past_due", due), ("active", False)):
            async with shop.sessions() as session, session.begin():
                await change_status(
                    session, subscription_id=customer.subscription_id, status=status, actor="test", now=now
                )
            assert (await grant_of(customer)).payment_due is expected

    async def test_a_spend_cap_comes_and_goes(self, shop, now, grant_of):
        customer = await shop.add_customer(now, plan="plain")
        await cap(shop, customer, "60.00", now=now)
        found = (await grant_of(customer)).spend_cap
        assert (found.amount_minor, found.currency, found.ceiling_units) == (60_00, "USD", 5000)
        await cap(shop, customer, None, now=now)
        assert (await grant_of(customer)).spend_cap is None

    async def test_a_spend_cap_of_several_prices_reserves_the_routes_maxima(self, shop, now, grant_of):
        customer = await shop.add_customer(now, plan="chat")
        await cap(shop, customer, "60.00", now=now)
        found = (await grant_of(customer)).spend_cap
        assert (found.usage_minor, found.ceiling_units) == (50_00, None)
        assert [price.dimension for price in found.prices] == ["requests", "tokens"]
        assert found.reserves == {"chat": {"tokens": 8000}}

    async def test_a_change_of_plan_compiles_the_cap_anew(self, shop, now, grant_of):
        customer = await shop.add_customer(now - 10 * DAY, plan="plain")
        await cap(shop, customer, "60.00", now=now)
        before = (await grant_of(customer)).spend_cap
        async with shop.sessions() as session, session.begin():
            await change_plan(
                session, subscription_id=customer.subscription_id, plan_code="chat", actor="test", now=now
            )
        after = (await grant_of(customer)).spend_cap
        assert (before.ceiling_units, after.ceiling_units) == (5000, None)

    async def test_a_new_period_compiles_the_cap_anew_by_itself(self, shop, now, grant_of):
        customer = await shop.add_customer(now - 10 * DAY, plan="chat")
        await cap(shop, customer, "60.00", now=now)
        async with shop.sessions() as session, session.begin():
            await change_plan(
                session, subscription_id=customer.subscription_id, plan_code="plain", actor="test", now=now
            )
        end = (await grant_of(customer)).periods[-2].end_ms - to_ms(now)
        # fixed charges of two plans are for parts of the period, together once $10.00, give or take a cent
        this = (await grant_of(customer)).spend_cap.ceiling_units
        following = (await grant_of(customer, at=now + timedelta(milliseconds=end) + 5 * DAY)).spend_cap
        assert this in range(4998, 5003)
        assert following.ceiling_units == 5000

    async def test_one_account_that_cannot_be_compiled_holds_up_no_other(self, shop, now, gateway, project):
        spoiled, sound = [await shop.add_customer(now, plan="plain") for _ in range(2)]
        for customer in (spoiled, sound):
            await cap(shop, customer, "60.00", now=now)
        async with shop.sessions() as session, session.begin():
            subscription = await override_limits(
                session, subscription_id=spoiled.subscription_id, quota_units=5, actor="test", now=now
            )
            subscription.overrides = {"windows": 7}
        await project(now)
        assert await gateway.account(spoiled.account_id) is None
        assert (await gateway.account(sound.account_id)).products["weather"].spend_cap is not None


class TestCountersByDimension:
    @pytest.fixture
    async def ada(self, shop, now):
        customer = await shop.add_customer(now - 3 * DAY, plan="chat")
        await cap(shop, customer, "60.00", now=now)
        return customer

    @pytest.fixture
    def hour(self, now):
        return floor_hour(now) - 5 * HOUR

    def name(self, customer, now, mode=Mode.LIVE) -> str:
        period = period_containing(now, floor_hour(now - 3 * DAY), "month", "UTC")
        return period_counters(customer.account_id, customer.subscription_id, period.start_ms, mode)

    async def read(self, gateway, customer, now) -> dict[str, int]:
        found = await gateway.client.hgetall(self.name(customer, now))
        return {field: int(value) for field, value in found.items() if field != SKIPPED}

    async def reserve(self, gateway, customer, now, hour, *, tokens: int, calls: int = 1) -> None:
        """Count calls as the limit script does."""
        number = hour_number(to_ms(hour))
        for field, count in (
            (UNITS, calls),
            (hour_units(number), calls),
            (dimension_units("tokens"), tokens),
            (hour_dimension_units("tokens", number), tokens),
        ):
            await gateway.client.hincrby(self.name(customer, now), field, count)

    async def admit(self, gateway, customer, now, hour, *, calls: int) -> None:
        """Count calls as the limit script does where no cap counts dimensions."""
        number = hour_number(to_ms(hour))
        for field in (CALLS, UNITS, hour_calls(number), hour_units(number)):
            await gateway.client.hincrby(self.name(customer, now), field, calls)

    async def use(self, shop, customer, hour, *, tokens: int, failed: int = 0, sealed: bool, revision: int = 1):
        await shop.add_usage(
            customer, hour, units=2, failed_units=1 if failed else 0, revision=revision, sealed=sealed
        )
        async with shop.sessions() as session, session.begin():
            for status, used in ((200, tokens), (503, failed)):
                await session.execute(
                    update(UsageHourly)
                    .where(
                        UsageHourly.account_id == customer.account_id,
                        UsageHourly.hour == hour,
                        UsageHourly.status == status,
                        UsageHourly.replayed.is_(False),
                    )
                    .values(
                        dimensions={"tokens": used},
                        billable_dimensions={"tokens": used} if status < 500 else {},
                    )
                )

    async def settle(self, shop, gateway, customer, hour, now, *, revision: int = 1):
        await shop.seal(customer, hour, revision=revision)
        await settle_sealed_hours(shop.sessions, gateway.client, now=now)

    async def test_a_settled_hour_holds_what_was_billed(self, shop, gateway, now, hour, ada):
        await self.reserve(gateway, ada, now, hour, tokens=24_000, calls=3)
        await self.reserve(gateway, ada, now, hour + HOUR, tokens=8000)
        await self.use(shop, ada, hour, tokens=500, failed=70, sealed=True)
        for _ in range(2):  # twice is once
            await self.settle(shop, gateway, ada, hour, now)
        found = await self.read(gateway, ada, now)
        assert found[hour_dimension_units("tokens", hour_number(to_ms(hour)))] == 500
        assert found[dimension_units("tokens")] == 8500
        assert found[UNITS] == 3

    async def test_an_older_revision_never_wins_and_a_newer_one_does(self, shop, gateway, now, hour, ada):
        await self.reserve(gateway, ada, now, hour, tokens=8000)
        for revision, tokens, expected in ((2, 500, 500), (1, 400, 500), (3, 300, 300)):
            await self.use(shop, ada, hour, tokens=tokens, sealed=True, revision=revision)
            await self.settle(shop, gateway, ada, hour, now, revision=revision)
            assert (await self.read(gateway, ada, now))[dimension_units("tokens")] == expected

    async def test_a_call_that_reported_nothing_gives_its_reserve_back(self, shop, gateway, now, hour, ada):
        await self.reserve(gateway, ada, now, hour, tokens=8000)
        await shop.add_usage(ada, hour, units=1, sealed=True)
        await self.settle(shop, gateway, ada, hour, now)
        assert (await self.read(gateway, ada, now))[dimension_units("tokens")] == 0

    async def test_nothing_is_kept_where_no_cap_counts_it(self, shop, gateway, now, hour, ada):
        await cap(shop, ada, None, now=now)
        await self.use(shop, ada, hour, tokens=500, sealed=True)
        await self.settle(shop, gateway, ada, hour, now)
        assert dimension_units("tokens") not in await self.read(gateway, ada, now)

    async def test_a_cap_set_again_forgets_what_was_reserved_before(self, shop, gateway, now, ada, project):
        hour = floor_hour(now) - 5 * HOUR
        await self.reserve(gateway, ada, now, hour, tokens=8000)
        await self.use(shop, ada, hour, tokens=500, sealed=True)
        await cap(shop, ada, None, now=now)
        await self.settle(shop, gateway, ada, hour, now)  # without a cap: units only
        await cap(shop, ada, "70.00", now=now)
        await project(now)
        assert (await self.read(gateway, ada, now))[dimension_units("tokens")] == 500

    async def test_come_back_after_flushall(self, shop, gateway, now, hour, ada):
        await self.use(shop, ada, hour, tokens=500, failed=70, sealed=True)
        await self.use(shop, ada, hour + HOUR, tokens=30, failed=5, sealed=False)
        await gateway.client.flushall()
        for _ in range(2):
            await rebuild(shop.engine, gateway.client, public_url=PUBLIC_URL, now=now)
            found = await self.read(gateway, ada, now)
            assert found[hour_dimension_units("tokens", hour_number(to_ms(hour)))] == 500
            # open: everything admitted
            assert found[hour_dimension_units("tokens", hour_number(to_ms(hour + HOUR)))] == 35
            assert found[dimension_units("tokens")] == 535

    async def test_are_never_lowered_while_the_hour_is_open(self, shop, gateway, now, hour, ada):
        await self.reserve(gateway, ada, now, hour, tokens=8000)
        await self.use(shop, ada, hour, tokens=500, sealed=False)
        await rebuild(shop.engine, gateway.client, public_url=PUBLIC_URL, now=now)
        assert (await self.read(gateway, ada, now))[dimension_units("tokens")] == 8000

    async def test_a_cap_set_today_knows_what_the_period_has_used(self, shop, gateway, now, hour, project):
        bob = await shop.add_customer(now - 3 * DAY, plan="chat")
        await self.use(shop, bob, hour, tokens=500, sealed=True)
        await self.settle(shop, gateway, bob, hour, now)  # without a cap: units only
        await self.use(shop, bob, hour + HOUR, tokens=30, sealed=False)
        await cap(shop, bob, "60.00", now=now)
        await project(now)
        found = await self.read(gateway, bob, now)
        assert (found[dimension_units("tokens")], found[UNITS]) == (530, 4)
        assert await gateway.account(bob.account_id) is not None

    async def test_a_cap_that_begins_counts_calls_still_on_their_way_as_the_most_they_can_be(
        self, shop, gateway, now, project
    ):
        bob = await shop.add_customer(now - 3 * DAY, plan="chat")
        hour = floor_hour(now)
        await self.admit(gateway, bob, now, hour, calls=5)
        await self.admit(gateway, bob, now, hour - HOUR, calls=1)
        await self.use(shop, bob, hour, tokens=30, sealed=False)  # two of them have arrived
        await cap(shop, bob, "60.00", now=now)
        await project(now)
        found = await self.read(gateway, bob, now)
        assert found[hour_dimension_units("tokens", hour_number(to_ms(hour)))] == 30 + 3 * 8000
        assert found[dimension_units("tokens")] == 30 + 4 * 8000

    async def test_a_full_sweep_that_is_faster_than_the_news_counts_them_too(self, shop, gateway, now, project):
        bob = await shop.add_customer(now - 3 * DAY, plan="chat")
        await project(now)
        await self.admit(gateway, bob, now, floor_hour(now), calls=5)
        await cap(shop, bob, "60.00", now=now)
        await sweep(shop.sessions, gateway.client, public_url=PUBLIC_URL, now=now, restore=False)
        assert (await self.read(gateway, bob, now))[dimension_units("tokens")] == 5 * 8000

    async def test_a_cap_that_cannot_begin_in_a_full_redis_holds_up_no_revocation(self, shop, own_valkey, now):
        ada, bob = [await shop.add_customer(now - 3 * DAY, plan="chat") for _ in range(2)]
        async with create_redis(own_valkey().url) as client:
            gateway, options = Gateway(client), {"public_url": PUBLIC_URL, "now": now}
            await project_changes(shop.sessions, RecordWriter(client), **options)
            await self.admit(gateway, bob, now, floor_hour(now), calls=5)
            await cap(shop, bob, "60.00", now=now)
            async with shop.sessions() as session, session.begin():
                await revoke_key(session, key_id=ada.keys[0], actor="test", now=now)
            await client.config_set("maxmemory-policy", "noeviction")
            await client.config_set("maxmemory", 1)
            with pytest.raises(OutOfMemoryError):
                await project_changes(shop.sessions, RecordWriter(client), **options)
            assert (await gateway.key(ada.hashes[0])).status is KeyStatus.REVOKED
            await client.config_set("maxmemory", 0)
            await project_changes(shop.sessions, RecordWriter(client), **options)
            assert (await self.read(gateway, bob, now))[dimension_units("tokens")] == 5 * 8000

    async def test_settling_gives_back_what_calls_before_the_cap_did_not_use(
        self, shop, gateway, now, hour, project
    ):
        bob = await shop.add_customer(now - 3 * DAY, plan="chat")
        await self.admit(gateway, bob, now, hour, calls=2)
        await cap(shop, bob, "60.00", now=now)
        await project(now)
        await self.use(shop, bob, hour, tokens=500, sealed=True)
        await self.settle(shop, gateway, bob, hour, now)
        assert (await self.read(gateway, bob, now))[dimension_units("tokens")] == 500

    async def test_a_cap_that_counts_already_trusts_what_calls_reserved(self, shop, gateway, now, ada, project):
        await project(now)
        hour = floor_hour(now)
        await self.admit(gateway, ada, now, hour, calls=3)
        await self.reserve(gateway, ada, now, hour, tokens=100, calls=3)  # on a route that reports little
        await cap(shop, ada, "70.00", now=now)
        await project(now)
        assert (await self.read(gateway, ada, now))[dimension_units("tokens")] == 100

    async def test_settled_hours_keep_what_was_billed_when_a_cap_begins(self, shop, gateway, now, hour, project):
        bob = await shop.add_customer(now - 3 * DAY, plan="chat")
        await self.admit(gateway, bob, now, hour, calls=9)  # of which seven were never logged
        await self.use(shop, bob, hour, tokens=500, sealed=True)
        await self.settle(shop, gateway, bob, hour, now)
        await cap(shop, bob, "60.00", now=now)
        await project(now)
        assert (await self.read(gateway, bob, now))[dimension_units("tokens")] == 500


class TestCallsOnTheirWayWhenThePlanChanges:
    """Two plans of $10.00 a period: what is left of $60.00 is $50.00, at $0.001 a call 50,004 calls."""

    @pytest.fixture
    async def ada(self, shop, now, project):
        customer = await shop.add_customer(now - 3 * DAY, plan="plain")
        await cap(shop, customer, "60.00", now=now)
        await project(now)
        return customer

    def name(self, customer, now) -> str:
        period = period_containing(now, floor_hour(now - 3 * DAY), "month", "UTC")
        return period_counters(customer.account_id, customer.subscription_id, period.start_ms, Mode.LIVE)

    async def admit(self, gateway, customer, now, *, calls: int) -> None:
        number = hour_number(to_ms(now))
        for field in (CALLS, UNITS, hour_calls(number), hour_units(number)):
            await gateway.client.hincrby(self.name(customer, now), field, calls)

    async def move(self, shop, customer, plan, *, now, effective_at=None):
        async with shop.sessions() as session, session.begin():
            await change_plan(
                session,
                subscription_id=customer.subscription_id,
                plan_code=plan,
                effective_at=effective_at,
                actor="test",
                now=now,
            )

    async def test_cost_what_the_plan_before_asks(self, shop, gateway, now, ada, grant_of):
        await self.admit(gateway, ada, now, calls=1000)
        await self.move(shop, ada, "cheap", now=now)
        assert (await grant_of(ada)).spend_cap.ceiling_units == 40_004
        await shop.add_usage(ada, floor_hour(now), units=600)
        async with shop.sessions() as session, session.begin():
            phase = (
                SubscriptionPhase.subscription_id == ada.subscription_id,
                SubscriptionPhase.ends_at == floor_ms(now),
            )
            await session.execute(
                update(UsageHourly).values(phase_id=select(SubscriptionPhase.id).where(*phase).scalar_subquery())
            )
        await self.move(shop, ada, "cheap", now=now)  # told anew
        # six hundred are known now, and not counted twice
        assert (await grant_of(ada)).spend_cap.ceiling_units == 40_604

    async def test_cost_the_most_that_they_can_report(self, shop, gateway, now, ada, grant_of):
        await self.move(shop, ada, "chat", now=now - DAY)
        await self.admit(gateway, ada, now, calls=3)
        await self.move(shop, ada, "plain", now=now)
        # $0.48 for three times 8,000 tokens, and $0.03
        assert (await grant_of(ada)).spend_cap.ceiling_units == 50_00 - 48 - 3

    async def test_are_seen_by_a_full_sweep(self, shop, gateway, now, ada):
        await self.admit(gateway, ada, now, calls=1000)
        await self.move(shop, ada, "cheap", now=now)
        await sweep(shop.sessions, gateway.client, public_url=PUBLIC_URL, now=now, restore=False)
        grant = (await gateway.account(ada.account_id)).products["weather"]
        assert grant.spend_cap.ceiling_units == 40_004

    async def test_count_up_to_the_moment_in_which_the_gateway_knows_the_new_plan(self, shop, gateway, now, ada):
        class Busy(RecordWriter):
            async def write_accounts(writer, accounts, **options):  # noqa: N805 - the test's own self is needed
                await self.admit(gateway, ada, now, calls=1000 - admitted.pop())
                return await super().write_accounts(accounts, **options)

        admitted = [1000, 400]
        await self.admit(gateway, ada, now, calls=400)
        await self.move(shop, ada, "cheap", now=now)
        await project_changes(shop.sessions, Busy(gateway.client), public_url=PUBLIC_URL, now=now)
        grant = (await gateway.account(ada.account_id)).products["weather"]
        assert grant.spend_cap.ceiling_units == 40_004

    async def test_count_no_more_once_their_hour_is_settled(self, shop, gateway, now, ada, grant_of):
        await self.admit(gateway, ada, now, calls=1000)
        await gateway.client.hset(self.name(ada, now), hour_revision(hour_number(to_ms(now))), 1)
        await self.move(shop, ada, "cheap", now=now)
        assert (await grant_of(ada)).spend_cap.ceiling_units == 50_004

    async def test_are_not_those_of_a_plan_that_comes_later(self, shop, gateway, now, ada, grant_of):
        await self.move(shop, ada, "cheap", now=now, effective_at=now + timedelta(milliseconds=5))
        await self.admit(gateway, ada, now, calls=1000)
        assert (await grant_of(ada)).spend_cap.ceiling_units == 50_00


class TestPeriodThatHasJustEnded:
    async def test_is_restored_too(self, shop, gateway, now):
        """Calls judged by Redis' clock may still count in it."""
        start = floor_hour(now)
        bob = await shop.add_customer(start - 40 * DAY, plan="plain")
        this = period_containing(start, floor_hour(start - 40 * DAY), "month", "UTC")
        before = period_containing(this.start - HOUR, floor_hour(start - 40 * DAY), "month", "UTC")
        await shop.add_usage(bob, this.start - 2 * HOUR, units=7, sealed=True)
        name = period_counters(bob.account_id, bob.subscription_id, before.start_ms, Mode.LIVE)
        await rebuild(shop.engine, gateway.client, public_url=PUBLIC_URL, now=this.start + timedelta(minutes=6))
        assert await gateway.client.hget(name, UNITS) is None
        await rebuild(shop.engine, gateway.client, public_url=PUBLIC_URL, now=this.start + timedelta(minutes=4))
        assert await gateway.client.hget(name, UNITS) == "7"
