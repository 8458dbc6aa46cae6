"""Plans that change within a billing period: what records say of it, and the counters behind them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from control_plane.billing.operations import set_spend_cap
from control_plane.catalog.model import PlanFacts, PlanTerms, PriceTerms
from control_plane.catalog.operations import create_plan
from control_plane.catalog.publishing import publish_version
from control_plane.foundation.clock import floor_hour, from_ms, to_ms
from control_plane.gateway_sync.allowances import AddOnTerms, brought_units, counting_in
from control_plane.gateway_sync.settlement import settle_sealed_hours
from control_plane.gateway_sync.sweep import rebuild, sweep
from control_plane.rating.phases import PhaseUsage
from control_plane.rating.runs import period_runs
from control_plane.rating.versions import CARRY, FULL, PRORATED, read_version
from control_plane.subscriptions.add_ons import add_on
from control_plane.subscriptions.operations import cancel, change_plan
from control_plane.subscriptions.own_terms import override_limits
from control_plane.subscriptions.statuses import pause, resume
from control_plane.subscriptions.tables import SubscriptionPhase
from control_plane.subscriptions.timeline import AddOnInForce, PhaseKind, Timeline, TimelinePhase
from control_plane.subscriptions.trials import end_trial, extend_trial
from gateway_contract.counters import (
    CALLS,
    UNITS,
    dimension_units,
    hour_calls,
    hour_dimension_units,
    hour_number,
    hour_units,
    plan_part,
)
from gateway_contract.modes import Mode
from gateway_contract.records import Allowance, Quota
from gateway_contract.redis_names import account_record, key_counters, period_counters
from tests.control_plane.builders import ACTOR

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MARCH, APRIL = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
PER_CALL = PriceTerms(model="per_unit", meter="requests", params={"unit_amount": "0.01"})
PUBLIC_URL = "https://api.example.com"


def phase(number: int, version: str, start: datetime, end: datetime | None, *add_ons, **changes) -> TimelinePhase:
    held = tuple(AddOnInForce(f"sao_{name}", name, quantity) for name, quantity in add_ons)
    values = {"kind": PhaseKind.PAID, "starts_at": start, "ends_at": end, "charged_from": start, "add_ons": held}
    return TimelinePhase(id=f"ph_{number}", plan_version_id=version, **{**values, **changes})


def timeline(*phases: TimelinePhase) -> Timeline:
    return Timeline(
        subscription_id="sub_1",
        account_id="acc_1",
        api_product_id="prd_1",
        status="active",
        anchor_at=MARCH,
        interval="month",
        time_zone="UTC",
        started_at=phases[0].starts_at,
        ends_at=None,
        trial_ends_at=None,
        unused_time="kept",
        billed_by="own",
        quota_override=None,
        phases=phases,
    )


def after(days: float) -> datetime:
    return MARCH + days * DAY


class TestCounting:
    def counted(self, found: Timeline, on_change: str = FULL):
        last = found.phases[-1]
        return counting_in(found, last, found.period_at(last.starts_at), quota_on_change=on_change)

    def test_is_of_the_whole_period_without_a_change(self):
        assert self.counted(timeline(phase(1, "a", after(-40), None))).allowance is None

    def test_is_apart_for_a_version_that_began_within_it(self):
        found = self.counted(timeline(phase(1, "a", after(-40), after(9)), phase(2, "b", after(9), None)))
        assert found.allowance == Allowance(to_ms(MARCH), part=plan_part("b"))
        assert found.parts == {plan_part("b"): after(9)}

    def test_of_the_first_version_leaves_out_all_that_ran_between(self):
        found = self.counted(
            timeline(
                phase(1, "a", after(-40), after(5)),
                phase(2, "b", after(5), after(9)),
                phase(3, "c", after(9), after(10)),
                phase(4, "a", after(10), None),
            )
        )
        assert found.allowance == Allowance(to_ms(MARCH), others=(plan_part("b"), plan_part("c")))

    def test_goes_on_with_its_own_part_when_a_version_comes_back(self):
        found = self.counted(
            timeline(
                phase(1, "a", after(-40), after(5)),
                phase(2, "b", after(5), after(9)),
                phase(3, "a", after(9), after(10)),
                phase(4, "b", after(10), None),
            )
        )
        assert (found.allowance.part, found.parts[plan_part("b")]) == (plan_part("b"), after(5))

    def test_of_all_units_under_carry_is_kept_apart_too(self):
        changed = timeline(phase(1, "a", after(-40), after(9)), phase(2, "b", after(9), None))
        assert self.counted(changed, CARRY).allowance == Allowance(to_ms(MARCH), part=plan_part("b"), carried=True)

    @pytest.mark.parametrize(
        "cut", [{"add_ons": ()}, {"kind": PhaseKind.PAUSED}], ids=["a change of add-ons", "a pause"]
    )
    def test_does_not_begin_anew_within_one_version(self, cut):
        first = phase(1, "a", after(-40), after(5), ("x", 1))
        found = timeline(
            first, replace(first, starts_at=after(5), ends_at=after(6), **cut), phase(3, "a", after(6), None)
        )
        assert self.counted(found).allowance is None

    def test_begins_anew_with_a_change_at_the_start_of_a_period(self):
        changed = timeline(phase(1, "a", after(-40), MARCH), phase(2, "b", MARCH, None))
        assert self.counted(changed).allowance is None

    @settings(max_examples=50, deadline=None)
    @given(
        data=st.data(),
        on_change=st.sampled_from([FULL, CARRY, PRORATED]),
        quota=st.integers(1, 10**6),
        starts=st.lists(st.integers(1, 31 * 86_400_000 - 1), min_size=1, max_size=4, unique=True).map(sorted),
    )
    def test_includes_what_invoices_include(self, data, on_change, quota, starts):
        moments = [MARCH + timedelta(milliseconds=ms) for ms in starts]
        names = data.draw(st.lists(st.sampled_from("abc"), min_size=len(starts) + 1, max_size=len(starts) + 1))
        held = data.draw(st.lists(st.integers(0, 3), min_size=len(names), max_size=len(names)))
        edges = [after(-40), *moments, None]
        phases = [
            phase(number, name, edges[number], edges[number + 1], *([("x", count)] if count else []))
            for number, (name, count) in enumerate(zip(names, held, strict=True))
        ]
        found, last = timeline(*phases), phases[-1]
        period = found.period_at(last.starts_at)
        versions = {
            name: read_version(version_id=name, name=name, currency="USD", prices=[], quota_on_change=on_change)
            for name in "abc"
        }
        versions["x"] = read_version(
            version_id="x",
            name="x",
            currency="USD",
            prices=[],
            is_add_on=True,
            quota_units=700,
            quota_on_change=on_change,
        )
        runs = period_runs(
            [
                PhaseUsage(
                    plan_version_id=one.plan_version_id,
                    starts_at=one.starts_at,
                    ends_at=one.ends_at,
                    add_ons={held.plan_version_id: held.quantity for held in one.add_ons},
                )
                for one in phases
            ],
            versions,
            period_start=period.start,
            period_end=period.end,
        )
        run = next(run for run in runs if run.version.version_id == last.plan_version_id)
        counting = counting_in(found, last, period, quota_on_change=on_change)
        assert counting.share.of_units(quota) == run.allowance_share.of_units(quota)
        terms = {"x": AddOnTerms(quota_units=700, quota_on_change=on_change, entitlements=())}
        brought = [
            brought_units(found, one, period, terms)
            for one in phases
            if one.plan_version_id == last.plan_version_id and one.within(period)
        ]
        assert max(brought) == run.extra_units


@pytest.fixture
def now():
    """A moment well within an hour and a month of 31 days, and late enough for Redis to keep what it is told."""
    return datetime(2096, 3, 17, 10, 25, tzinfo=UTC)


@pytest.fixture
async def shop(shop, now):
    await shop.add_catalog(now)
    async with shop.sessions() as session, session.begin():
        for position, (code, terms) in enumerate(
            {
                "small": {"quota_units": 100, "quota_hard": True},
                "large": {"quota_units": 500, "quota_hard": True},
                "priced": {"prices": (PER_CALL,)},
                "carrying": {"quota_units": 500, "quota_hard": True, "quota_on_change": "carry"},
                "prorated": {"quota_units": 310, "quota_hard": True, "quota_on_change": "prorated"},
            }.items()
        ):
            await offer(session, code, position=position + 10, now=now, **terms)
        await offer(
            session, "more", position=20, now=now, kind="add_on", quota_units=50, entitlements=("history",)
        )
    return shop


async def offer(session, code, *, position, now, kind="plan", **terms):
    facts = PlanFacts(code=code, name=code.title(), api_product="weather", position=position, visibility="public")
    await create_plan(session, plan=replace(facts, kind=kind), actor=ACTOR, now=now)
    wanted = PlanTerms(interval="month", currency="USD", **terms)
    await publish_version(session, plan_code=code, terms=wanted, actor=ACTOR, now=now)


@pytest.fixture
async def ada(shop, now):
    # 14 days into a period of 31
    return await shop.add_customer(floor_hour(now) - 14 * DAY, plan="small", quota_units=60)


class Subscribed:
    """A customer, its record, and its counters of the period."""

    def __init__(self, shop, gateway, project, customer, now):
        self.shop, self.gateway, self.project, self.customer = shop, gateway, project, customer
        self.with_period(floor_hour(now) - 14 * DAY)

    def with_period(self, start):
        customer, start_ms = self.customer, to_ms(start)
        self.counters = {
            mode: period_counters(customer.account_id, customer.subscription_id, start_ms, mode) for mode in Mode
        }
        self.key_counters = key_counters(customer.account_id, customer.keys[0], start_ms)
        return self

    async def do(self, operation, *, now, **arguments):
        async with self.shop.sessions() as session, session.begin():
            return await operation(
                session, subscription_id=self.customer.subscription_id, actor=ACTOR, now=now, **arguments
            )

    async def grant(self, now):
        await self.project(now)
        record = await self.gateway.account(self.customer.account_id)
        return record.products["weather"]

    async def move(self, plan, *, now, effective_at=None):
        await self.do(change_plan, plan_code=plan, effective_at=effective_at, now=now)
        return await self.grant(now)

    async def count(self, hour, *, units, part=""):
        for name in (self.counters[Mode.LIVE], self.key_counters):
            number = hour_number(to_ms(hour))
            fields = [CALLS, UNITS, hour_calls(number), hour_units(number)]
            if part:
                fields += [dimension_units(part), hour_dimension_units(part, number)]
            for field in fields:
                await self.gateway.client.hincrby(name, field, units)

    async def counted(self, part, *, mode=Mode.LIVE, key=False):
        name = self.key_counters if key else self.counters[mode]
        return int(await self.gateway.client.hget(name, dimension_units(part)) or 0)


@pytest.fixture
def subscribed(shop, gateway, project, ada, now):
    return Subscribed(shop, gateway, project, ada, now)


async def part_of(shop, customer, number=-1):
    async with shop.sessions() as session:
        phases = await session.scalars(
            select(SubscriptionPhase.plan_version_id)
            .where(SubscriptionPhase.subscription_id == customer.subscription_id)
            .order_by(SubscriptionPhase.starts_at)
        )
        return plan_part(phases.all()[number])


class TestProjectedGrant:
    async def test_counts_a_new_plan_apart_from_the_change_on(self, shop, subscribed, now):
        grant = await subscribed.move("large", now=now)
        part = await part_of(shop, subscribed.customer)
        assert grant.allowance == Allowance(to_ms(floor_hour(now) - 14 * DAY), part=part)
        assert grant.quota == Quota(500, hard=True)

    async def test_counts_all_under_carry(self, subscribed, now):
        assert (await subscribed.move("carrying", now=now)).allowance.carried

    async def test_cuts_a_prorated_quota_by_time_and_has_it_whole_in_the_next_period(self, subscribed, now):
        grant = await subscribed.move("prorated", now=floor_hour(now))
        # 17 of 31 days are left
        assert (grant.quota.units, grant.allowance.quota.units) == (310, 170)

    async def test_adds_what_add_ons_bring(self, subscribed, now):
        await subscribed.do(add_on, add_on_code="more", quantity=2, now=now)
        grant = await subscribed.grant(now)
        assert (grant.quota.units, grant.allowance, grant.entitlements) == (200, None, ("history",))

    async def test_holds_a_planned_change_ahead(self, subscribed, now):
        end = floor_hour(now) - 14 * DAY + 31 * DAY
        grant = await subscribed.move("large", effective_at=end, now=now)
        assert (grant.plan, grant.next.starts_at_ms) == ("small", to_ms(end))
        assert (grant.next.grant.plan, grant.next.grant.allowance) == ("large", None)

    async def test_holds_a_change_planned_within_the_period_ahead_with_its_own_counting(
        self, shop, subscribed, now
    ):
        grant = await subscribed.move("prorated", effective_at=floor_hour(now) + DAY, now=now)
        assert (grant.plan, grant.allowance) == ("small", None)
        assert grant.next.grant.allowance.part == await part_of(shop, subscribed.customer)
        assert grant.next.grant.allowance.quota.units == 160

    async def test_holds_no_change_ahead_under_a_cap_but_the_end(self, subscribed, now):
        await subscribed.move("priced", now=now - DAY)
        await subscribed.do(set_spend_cap, amount="10.00", now=now)
        await subscribed.do(change_plan, plan_code="large", effective_at=now + DAY, now=now)
        grant = await subscribed.grant(now)
        assert (grant.spend_cap.amount_minor, grant.next) == (10_00, None)
        await subscribed.do(cancel, at="period_end", now=now)
        assert (await subscribed.grant(now)).next.grant is None

    async def test_holds_the_end_ahead(self, subscribed, now):
        await subscribed.do(cancel, at="period_end", now=now)
        grant = await subscribed.grant(now)
        assert (grant.next.starts_at_ms, grant.next.grant) == (grant.periods[-1].end_ms, None)

    async def test_of_a_paused_subscription_says_so(self, subscribed, now):
        await subscribed.do(pause, now=now)
        assert (await subscribed.grant(now)).paused

    @pytest.mark.parametrize("then", ["end", "change", "add-on", "resume"])
    async def test_of_a_subscription_paused_for_a_whole_period_is_written(self, subscribed, now, then):
        if then == "add-on":
            await subscribed.do(add_on, add_on_code="more", quantity=2, now=now - DAY)
        await subscribed.do(pause, now=now)
        later = now + 31 * DAY
        if then == "end":
            await subscribed.do(cancel, at="period_end", now=later)
        elif then == "change":
            await subscribed.do(change_plan, plan_code="large", effective_at=later + DAY, now=later)
        elif then == "resume":
            await subscribed.do(resume, now=later)
        grant = await subscribed.grant(later)
        assert grant.paused is (then != "resume")
        assert grant.periods[0].start_ms == to_ms(floor_hour(now) - 14 * DAY + 31 * DAY)


class TestTrials:
    """A trial that is ended early, in the hour in which billing begins."""

    @pytest.fixture
    async def trialing(self, shop, gateway, project, now):
        async with shop.sessions() as session, session.begin():
            await offer(session, "tried", position=30, now=now, quota_units=100, quota_hard=True, trial_days=14)
        customer = await shop.add_customer(now - 2 * DAY, plan="tried", quota_units=60)
        found = Subscribed(shop, gateway, project, customer, now)
        return found.with_period(floor_hour(now))

    async def test_count_in_no_billing_period_once_the_hour_is_settled(self, shop, gateway, trialing, now):
        hour, customer = floor_hour(now), trialing.customer
        await trialing.do(end_trial, now=now)
        await trialing.grant(now)
        await trialing.count(hour, units=5)
        await shop.add_usage(customer, hour, units=90, phase=0, sealed=True)
        await shop.add_usage(customer, hour, units=4, failed_units=1, phase=1, sealed=True)
        await shop.seal(customer, hour, revision=1)
        assert await settle_sealed_hours(shop.sessions, gateway.client, now=now) == 1
        for name in (trialing.counters[Mode.LIVE], trialing.key_counters):
            assert int(await gateway.client.hget(name, UNITS)) == 4
        await gateway.client.flushall()
        await rebuild(shop.engine, gateway.client, public_url=PUBLIC_URL, now=now)
        for name in (trialing.counters[Mode.LIVE], trialing.key_counters):
            assert int(await gateway.client.hget(name, UNITS)) == 4

    async def test_of_another_plan_begin_nothing_anew(self, trialing, now):
        await trialing.do(change_plan, plan_code="large", now=now - timedelta(minutes=5))
        await trialing.do(end_trial, now=now)
        assert (await trialing.grant(now)).allowance is None

    async def used(self, trialing, now):
        """A trial with 3 calls of the hour before and 7 of this one."""
        period = (await trialing.grant(now)).periods[0]
        trialing.with_period(from_ms(period.start_ms))
        await trialing.count(floor_hour(now) - HOUR, units=3)
        await trialing.count(floor_hour(now), units=7)
        return trialing.counters[Mode.LIVE]

    async def moved(self, trialing, gateway, now):
        """The counters after the next record, which is written twice."""
        for units in (50, 51):
            await trialing.do(override_limits, quota_units=units, now=now)
            period = (await trialing.grant(now)).periods[-2]
        name = trialing.with_period(from_ms(period.start_ms)).counters[Mode.LIVE]
        assert await gateway.client.pttl(name) > 0
        return name, await gateway.client.hgetall(name)

    async def test_count_on_when_they_are_made_longer(self, gateway, trialing, now):
        before = await self.used(trialing, now)
        hour = hour_number(to_ms(now))
        await trialing.do(extend_trial, ends_at=floor_hour(now) + 30 * DAY, now=now)
        name, found = await self.moved(trialing, gateway, now)
        assert name != before
        assert found == {
            CALLS: "10",
            UNITS: "10",
            **{field(hour - 1): "3" for field in (hour_calls, hour_units)},
            **{field(hour): "7" for field in (hour_calls, hour_units)},
        }

    @pytest.mark.parametrize("behind", [timedelta(0), timedelta(seconds=5)])
    async def test_leave_their_call_numbers_to_the_period_that_their_early_end_begins(
        self, gateway, trialing, now, behind
    ):
        await self.used(trialing, now)
        await trialing.do(end_trial, now=now)
        await trialing.grant(now - behind)  # by a projector whose clock is behind
        _, found = await self.moved(trialing, gateway, now)
        assert found == {CALLS: "10", UNITS: "0", hour_calls(hour_number(to_ms(now))): "7"}


class TestCounters:
    async def settle(self, shop, gateway, customer, hour, now):
        await shop.seal(customer, hour, revision=1)
        assert await settle_sealed_hours(shop.sessions, gateway.client, now=now) == 1

    async def test_of_an_hour_with_two_plans_are_settled_by_what_each_was_billed(
        self, shop, gateway, subscribed, ada, now
    ):
        hour = floor_hour(now)
        await subscribed.count(hour, units=10)
        await subscribed.move("large", now=now)
        part = await part_of(shop, ada)
        await subscribed.count(hour, units=20, part=part)
        await shop.add_usage(ada, hour, units=8, failed_units=2, sealed=True, phase=0)
        await shop.add_usage(ada, hour, units=15, failed_units=5, sealed=True, phase=1)
        await self.settle(shop, gateway, ada, hour, now)
        found = await gateway.client.hgetall(subscribed.counters[Mode.LIVE])
        assert (int(found[UNITS]), int(found[CALLS])) == (23, 30)
        assert await subscribed.counted(part) == 15
        assert await subscribed.counted(part, key=True) == 15

    async def test_that_went_to_the_plan_before_by_mistake_are_put_right(
        self, shop, gateway, subscribed, ada, now
    ):
        """Calls between the change and the gateway's hearing of it."""
        hour = floor_hour(now)
        await subscribed.move("large", now=now)
        await subscribed.count(hour, units=7)
        await shop.add_usage(ada, hour, units=7, sealed=True)
        await self.settle(shop, gateway, ada, hour, now)
        assert await subscribed.counted(await part_of(shop, ada)) == 7

    async def test_of_test_keys_are_settled_apart_too(self, shop, gateway, subscribed, ada, now):
        hour = floor_hour(now)
        await subscribed.move("large", now=now)
        await shop.add_usage(ada, hour, units=4, failed_units=3, mode="test", sealed=True)
        await self.settle(shop, gateway, ada, hour, now)
        assert await subscribed.counted(await part_of(shop, ada), mode=Mode.TEST) == 4

    async def test_come_back_after_flushall(self, shop, gateway, subscribed, ada, now):
        hour = floor_hour(now)
        await shop.add_usage(ada, hour - HOUR, units=30, sealed=True)
        await subscribed.move("large", now=now)
        await shop.add_usage(ada, hour, units=5, phase=0)
        await shop.add_usage(ada, hour, units=6, failed_units=1, phase=1)
        await gateway.client.flushall()
        await rebuild(shop.engine, gateway.client, public_url=PUBLIC_URL, now=now)
        assert int(await gateway.client.hget(subscribed.counters[Mode.LIVE], UNITS)) == 42
        assert await subscribed.counted(await part_of(shop, ada)) == 7
        assert await subscribed.counted(await part_of(shop, ada), key=True) == 7

    async def test_that_nobody_kept_apart_before_are_known_to_the_first_record_that_does(
        self, shop, gateway, subscribed, ada, now
    ):
        """As after an upgrade from a release that counted the whole period under any plan."""
        moved = now - 2 * DAY
        await subscribed.move("large", now=moved)
        await shop.add_usage(ada, floor_hour(moved) + HOUR, units=70, sealed=True)
        await gateway.client.delete(subscribed.counters[Mode.LIVE], account_record(ada.account_id))
        await sweep(shop.sessions, gateway.client, public_url=PUBLIC_URL, now=now, restore=False)
        assert await subscribed.counted(await part_of(shop, ada)) == 70
