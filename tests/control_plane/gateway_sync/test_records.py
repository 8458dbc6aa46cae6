from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from control_plane.foundation.clock import to_ms
from control_plane.gateway_sync.plan_snapshots import ProductSnapshot
from control_plane.gateway_sync.records import (
    AccountSnapshot,
    FittingPlan,
    PlanTerms,
    SubscriptionSnapshot,
    build_account_record,
    build_grant,
    choose_upgrade,
)
from gateway_contract.records import (
    AccountStatus,
    Period,
    Quota,
    RedisDownPolicy,
    Window,
    decode_account_record,
    encode_record,
)

NOW = datetime(2026, 3, 17, 10, 37, tzinfo=UTC)
ANCHOR = datetime(2026, 1, 31, 9, tzinfo=UTC)
PUBLIC_URL = "https://api.example.com/"


def plan(code: str = "starter", **changes) -> PlanTerms:
    values = {
        "code": code,
        "name": code.title(),
        "version": 3,
        "position": 1,
        "windows": (Window(10, 1000),),
        "quota_units": 50_000,
        "quota_hard": False,
        "entitlements": ("history",),
        "redis_down": "open",
        "by_quote": False,
    }
    return PlanTerms(**values | changes)


def subscription(**changes) -> SubscriptionSnapshot:
    values = {
        "id": "sub_1",
        "product": "weather",
        "plan": plan(),
        "anchor_at": ANCHOR,
        "ends_at": None,
        "interval": "month",
        "time_zone": "UTC",
        "windows_override": None,
        "quota_override": None,
        "route_units": {"history": 5},
        "offers": (),
    }
    return SubscriptionSnapshot(**values | changes)


def grant(**changes):
    return build_grant(subscription(**changes), now=NOW, public_url=PUBLIC_URL)


def period(start: datetime, end: datetime) -> Period:
    return Period(to_ms(start), to_ms(end))


FEBRUARY = period(datetime(2026, 2, 28, 9, tzinfo=UTC), datetime(2026, 3, 31, 9, tzinfo=UTC))
MARCH = period(datetime(2026, 3, 31, 9, tzinfo=UTC), datetime(2026, 4, 30, 9, tzinfo=UTC))


class TestGrant:
    def test_carries_the_plan(self):
        assert (grant().plan, grant().plan_name, grant().plan_version) == ("starter", "Starter", 3)
        assert grant().windows == (Window(10, 1000),)
        assert grant().quota == Quota(units=50_000, hard=False)
        assert grant().entitlements == ("history",)
        assert grant().route_units == {"history": 5}
        assert grant().redis_down is RedisDownPolicy.OPEN

    def test_holds_the_current_and_the_next_period_of_the_anchor(self):
        assert grant().periods == (FEBRUARY, MARCH)

    def test_holds_no_period_after_the_subscriptions_end(self):
        assert grant(ends_at=datetime(2026, 3, 31, 9, tzinfo=UTC)).periods == (FEBRUARY,)
        assert grant(ends_at=datetime(2026, 4, 1, tzinfo=UTC)).periods == (FEBRUARY, MARCH)

    def test_the_first_moment_of_a_period_belongs_to_it(self):
        snapshot = subscription()
        at_start = build_grant(snapshot, now=datetime(2026, 3, 31, 9, tzinfo=UTC), public_url=PUBLIC_URL)
        before = build_grant(
            snapshot, now=datetime(2026, 3, 31, 9, tzinfo=UTC) - timedelta(microseconds=1), public_url=PUBLIC_URL
        )
        assert at_start.periods[1] == MARCH
        assert before.periods == (FEBRUARY, MARCH)

    def test_around_a_periods_start_the_one_before_still_counts_where_the_clock_of_redis_is_behind(self):
        start = datetime(2026, 3, 31, 9, tzinfo=UTC)

        def periods(after: timedelta, **changes) -> tuple[Period, ...]:
            return build_grant(subscription(**changes), now=start + after, public_url=PUBLIC_URL).periods

        assert periods(timedelta(0))[:2] == (FEBRUARY, MARCH)
        assert periods(timedelta(seconds=59))[:2] == (FEBRUARY, MARCH)
        assert periods(timedelta(seconds=60))[0] == MARCH
        assert periods(timedelta(0), ends_at=start + timedelta(hours=1)) == (FEBRUARY, MARCH)

    def test_an_annual_subscription_has_annual_periods(self):
        assert grant(interval="year").periods[0] == period(ANCHOR, ANCHOR.replace(year=2027))

    def test_overrides_take_the_plans_place(self):
        changed = grant(windows_override=(Window(500, 1000),), quota_override=7)
        assert changed.windows == (Window(500, 1000),)
        assert changed.quota == Quota(units=7, hard=False)

    def test_a_plan_without_quota_gives_none(self):
        assert grant(plan=plan(quota_units=None)).quota is None


class TestUpgrade:
    FREE = plan("free", quota_units=1000, windows=(Window(2, 1000), Window(60, 60_000)))
    STARTER = plan("starter")
    GROWTH = plan("growth", quota_units=500_000, windows=(Window(50, 1000),))
    ENTERPRISE = plan("enterprise", by_quote=True, quota_units=None, windows=(), position=0)
    OFFERS = (ENTERPRISE, GROWTH, STARTER, FREE)

    @pytest.mark.parametrize(
        ("present", "fits"),
        [(FREE, "starter"), (STARTER, "growth"), (GROWTH, "enterprise"), (ENTERPRISE, None)],
    )
    def test_names_the_smallest_larger_plan(self, present, fits):
        assert self.choose(present) == fits

    def test_never_names_a_plan_that_allows_less_of_something(self):
        quick = plan("quick", quota_units=100, windows=(Window(9000, 1000),))
        assert choose_upgrade([quick], windows=(), quota_units=1000, plan_code="free") is None

    def test_sees_what_overrides_allow_already(self):
        found = choose_upgrade(self.OFFERS, windows=(Window(20, 1000),), quota_units=50_000, plan_code="starter")
        assert found is self.GROWTH

    def test_prefers_any_priced_plan_to_one_by_quote(self):
        unlimited = plan("unlimited", quota_units=None, windows=(), position=9)
        found = choose_upgrade(
            (self.ENTERPRISE, unlimited), windows=self.GROWTH.windows, quota_units=500_000, plan_code="growth"
        )
        assert found is unlimited

    @pytest.mark.parametrize("fitting", [None, FittingPlan(None, True), FittingPlan("starter", True)])
    def test_never_names_a_plan_that_the_subscription_cannot_move_to(self, fitting):
        offers = [replace(offer, interval="year") for offer in self.OFFERS]
        assert grant(plan=self.FREE, offers=tuple(offers), fitting=fitting).upgrade is None

    def test_offers_only_what_is_sold_in_the_currency_of_the_account(self):
        dollars = plan("dollars", quota_units=1, windows=(), position=0, currencies=("USD",))
        both = plan("both", quota_units=2, windows=(), position=1, currencies=("EUR", "USD"))
        free = plan("free", quota_units=3, windows=(), position=2)
        product = ProductSnapshot(code="weather", route_units={}, offers=(dollars, both, free))
        assert product.offers_in("EUR") == (both, free)
        assert product.offers_in("USD") == (dollars, both, free)

    def test_links_absolutely(self):
        found = grant(plan=self.FREE, offers=self.OFFERS).upgrade
        assert (found.plan, found.name) == ("starter", "Starter")
        assert found.url == "https://api.example.com/upgrade?product=weather&plan=starter"

    def choose(self, present: PlanTerms) -> str | None:
        found = choose_upgrade(
            self.OFFERS, windows=present.windows, quota_units=present.quota_units, plan_code=present.code
        )
        return found and found.code


class TestAccountRecord:
    def test_survives_the_way_to_the_gateway(self):
        account = AccountSnapshot("acc_1", "Ada", "suspended", 9, (subscription(offers=TestUpgrade.OFFERS),))
        record = build_account_record(account, now=NOW, public_url=PUBLIC_URL)
        assert decode_account_record(encode_record(record)) == record
        assert (record.status, record.version, set(record.products)) == (AccountStatus.SUSPENDED, 9, {"weather"})
