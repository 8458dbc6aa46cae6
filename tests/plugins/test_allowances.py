"""Quotas of plans that changed within a billing period, and grants that take another's place by themselves."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_contract import counters
from gateway_contract.modes import Mode
from gateway_contract.records import Allowance, MeterPrice, NextGrant, PriceStep, Quota, SpendCap
from kong_plugins.parts.limit_script import ADMITTED, NO_PERIOD, REFUSED, STALE
from kong_plugins.parts.worker import current_worker
from tests.plugins.fakes import HOUR_MS, grant, now_ms

SECOND, THIRD = counters.plan_part("pv_2"), counters.plan_part("pv_3")
relaxed = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def hard(units: int, caller=None, **allowance):
    """A plan with a hard quota, and how its units count in the first period."""
    start_ms = grant().periods[0].start_ms if caller is None else caller.grant.periods[0].start_ms
    return {"quota": Quota(units, hard=True), "allowance": Allowance(start_ms, **allowance)}


def used(caller, question, most: int = 40) -> int:
    """Call until refused; returns how many were admitted."""
    for number in range(most):
        if caller.ask_of(question, 0)[0] != ADMITTED:
            return number
    return most


class TestQuotaAfterAChangeOfPlan:
    def test_begins_anew_for_a_version_that_counts_apart(self, timed):
        caller = timed(windows=(), quota=Quota(3, hard=True))
        assert used(caller, caller.question) == 3
        assert used(caller, caller.question_with(**hard(5, caller, part=SECOND))) == 5

    def test_goes_on_under_carry(self, timed):
        caller = timed(windows=(), quota=Quota(3, hard=True))
        used(caller, caller.question)
        assert used(caller, caller.question_with(**hard(5, caller, part=SECOND, carried=True))) == 2

    @pytest.mark.parametrize("carried", [False, True])
    def test_is_none_the_larger_for_changing_back_and_forth(self, timed, carried):
        caller = timed(windows=(), quota=Quota(6, hard=True))
        second = caller.question_with(**hard(4, caller, part=SECOND, carried=carried))
        first = caller.question_with(**hard(6, caller, others=(SECOND,)))
        assert caller.ask(0)[0] == ADMITTED
        assert caller.ask_of(second, 0)[0] == ADMITTED
        assert caller.ask_of(first, 0)[0] == ADMITTED
        assert used(caller, second) == (1 if carried else 3)
        assert used(caller, first) == 4
        assert used(caller, second) == 0

    def test_is_cut_by_time_where_the_record_says_so(self, timed):
        caller = timed(windows=())
        question = caller.question_with(**hard(9, caller, part=SECOND, quota=Quota(2, hard=True)))
        assert [caller.ask_of(question, 0)[0] for _ in range(3)] == [ADMITTED, ADMITTED, REFUSED]
        answer = caller.ask_of(question, 0)
        assert question.limits[answer[2] - 1].limit == 2
        assert [limit.limit for limit in question.shown] == [2]

    def test_is_whole_in_the_next_period_without_a_new_record(self, timed):
        caller = timed(windows=())
        question = caller.question_with(**hard(4, caller, part=SECOND, quota=Quota(1, hard=True)))
        assert used(caller, question) == 1
        later_us = (caller.grant.periods[1].start_ms + 1) * 1000 - caller.start_us
        assert [caller.ask_of(question, later_us)[0] for _ in range(5)] == [ADMITTED] * 4 + [REFUSED]

    def test_counts_a_keys_share_in_the_same_way(self, timed):
        caller = timed(windows=(), quota_units=2)
        assert used(caller, caller.question) == 2
        second = caller.question_with(**hard(50, caller, part=SECOND))
        assert used(caller, second) == 2
        assert used(caller, caller.question_with(**hard(50, caller, others=(SECOND,)))) == 0

    def test_keeps_call_numbers_and_units_of_the_whole_period(self, timed):
        caller = timed(windows=(), units=2)
        caller.ask(0)
        answer = caller.ask_of(caller.question_with(**hard(50, caller, part=SECOND)), 0)
        found = caller.counters()
        hour = counters.hour_number(answer[1])
        assert answer[2] == 2
        assert (found["calls"], found["units"], found[f"u:{hour}"]) == (2, 4, 4)
        assert found[counters.dimension_units(SECOND)] == 2
        assert found[counters.hour_dimension_units(SECOND, hour)] == 2

    def test_counts_apart_in_a_dry_run_too(self, timed):
        caller = timed(windows=())
        question = caller.question_with(**hard(1, caller, part=SECOND), dry_run=True)
        for _ in range(3):
            caller.ask_of(question, 0)
        assert caller.counters()[counters.dimension_units(SECOND)] == 3

    @relaxed
    @given(st.lists(st.tuples(st.sampled_from(["first", "second", "third"]), st.integers(1, 3)), max_size=25))
    def test_counts_each_version_by_its_own_calls_whatever_the_order(self, timed, calls):
        caller = timed(windows=(), mode=Mode.TEST)
        quotas = {"first": 9, "second": 6, "third": 12}
        terms = {
            "first": {"others": (SECOND, THIRD)},
            "second": {"part": SECOND, "others": (THIRD,)},
            "third": {"part": THIRD, "others": (SECOND,), "carried": True},
        }
        questions = {
            (name, units): caller.question_with(**hard(quotas[name], caller, **terms[name]), units=units)
            for name in quotas
            for units in (1, 2, 3)
        }
        admitted = dict.fromkeys(quotas, 0)
        for name, units in calls:
            counted = sum(admitted.values()) if name == "third" else admitted[name]
            fits = counted + units <= quotas[name]
            assert (caller.ask_of(questions[name, units], 0)[0] == ADMITTED) == fits
            admitted[name] += units * fits


class TestSpendCapAfterAChangeOfPlan:
    """A cap counts all units of the period: the control plane takes off what it knows to be of other plans."""

    def test_takes_off_what_other_plans_have_used(self, timed):
        caller = timed(windows=(), quota=None)
        assert used(caller, caller.question, most=5) == 5
        price = MeterPrice("requests", (PriceStep(0, 0, 1_000_000),), from_units=4)
        tokens = MeterPrice("tokens", (PriceStep(0, 0, 1_000_000),))
        cap = SpendCap(100, "USD", usage_minor=3, prices=(price, tokens), reserves={"forecast": {"tokens": 0}})
        allowance = Allowance(caller.grant.periods[0].start_ms, part=SECOND)
        question = caller.question_with(spend_cap=cap, allowance=allowance, route_name="forecast")
        # of the 5 calls before one is not known yet
        assert used(caller, question) == 2

    @pytest.mark.parametrize(("quota", "ceiling", "hit"), [(9, 7, "spend-cap"), (3, 8, "quota"), (3, 7, "quota")])
    def test_holds_beside_a_quota_that_counts_apart(self, timed, quota, ceiling, hit):
        caller = timed(windows=(), quota=Quota(4, hard=True))
        assert used(caller, caller.question) == 4
        cap = SpendCap(100, "USD", ceiling_units=ceiling)
        question = caller.question_with(**hard(quota, caller, part=SECOND), spend_cap=cap)
        assert used(caller, question) == 3
        assert question.limits[caller.ask_of(question, 0)[2] - 1].name == hit

    def test_tells_what_is_left_of_the_tighter_one(self, timed):
        caller = timed(windows=(), quota=Quota(4, hard=True))
        assert used(caller, caller.question) == 4
        cap = SpendCap(100, "USD", ceiling_units=12)
        question = caller.question_with(**hard(100, caller, part=SECOND), spend_cap=cap)
        _, _, _, tightest, remaining, _ = caller.ask_of(question, 0)
        assert (question.limits[tightest - 1].name, remaining) == ("spend-cap", 7)


class TestWhatIsToCome:
    def test_takes_the_place_of_the_grant_at_its_moment_of_redis_time(self, timed):
        moment = now_ms() + 60_000
        caller = timed(windows=(), next=NextGrant(moment, grant()))
        assert caller.ask(0)[0] == ADMITTED
        before_us = (moment - 1) * 1000 - caller.start_us
        assert caller.ask(before_us)[0] == ADMITTED
        answer = caller.ask(before_us + 1000)
        assert (answer[0], answer[2]) == (STALE, NO_PERIOD)
        assert caller.counters()["calls"] == 2

    def test_is_decided_by_without_a_new_record(self, call, project):
        then = grant(plan="free", quota=Quota(1, hard=True))
        kong = call(project(grant=grant(plan="growth", next=NextGrant(now_ms() - 1, then))).text)
        assert kong.served
        assert kong.upstream["X-Km-Plan"] == "free"

    def test_is_waited_for(self, call, project):
        kong = call(project(grant=grant(plan="growth", next=NextGrant(now_ms() + HOUR_MS, None))).text)
        assert kong.upstream["X-Km-Plan"] == "growth"

    def test_comes_between_two_calls_of_a_known_key(self, call, project):
        moment = now_ms() + 300
        account = project(grant=grant(plan="growth", next=NextGrant(moment, grant(plan="free"))))
        assert call(account.text).served
        while now_ms() <= moment:
            time.sleep(0.02)
        assert call(account.text).upstream["X-Km-Plan"] == "free"

    def test_is_waited_for_where_a_worker_began_with_a_clock_that_is_ahead(self, call, project):
        current_worker().clock.heard(now_ms() + 2 * HOUR_MS, monotonic=time.monotonic())
        then = grant(plan="free")
        account = project(grant=grant(plan="growth", next=NextGrant(now_ms() + HOUR_MS, then)))
        assert call(account.text).upstream["X-Km-Plan"] == "free"
        # now Redis was heard
        assert call(account.text).upstream["X-Km-Plan"] == "growth"

    def test_may_be_the_end(self, call, project):
        kong = call(project(grant=grant(next=NextGrant(now_ms() - 1, None))).text)
        assert (kong.status, kong.code) == (403, "not_subscribed")

    def test_may_be_a_pause(self, call, project):
        kong = call(project(grant=grant(next=NextGrant(now_ms() - 1, grant(paused=True)))).text)
        assert (kong.status, kong.code) == (403, "subscription_paused")

    def test_follows_one_after_the_other(self, call, project):
        last = grant(plan="last")
        middle = grant(plan="middle", next=NextGrant(now_ms() - 1, last))
        kong = call(project(grant=grant(next=NextGrant(now_ms() - 2, middle))).text)
        assert kong.upstream["X-Km-Plan"] == "last"


class TestPrepaidCredits:
    def test_that_are_used_up_are_402(self, call, project):
        cap = SpendCap(5, "USD", ceiling_units=1, prepaid=True)
        account = project(grant=grant(quota=None, spend_cap=cap))
        assert call(account.text).served
        kong = call(account.text)
        assert (kong.status, kong.code) == (402, "credits_used_up")
        assert "more" in kong.problem["detail"]

    def test_of_several_prices_too(self, call, project):
        price = MeterPrice("requests", (PriceStep(0, 0, 1_000_000),))
        tokens = MeterPrice("tokens", (PriceStep(0, 0, 1),))
        cap = SpendCap(
            1,
            "USD",
            usage_minor=1,
            prices=(price, tokens),
            reserves={"forecast": {"tokens": 0}},
            prepaid=True,
        )
        account = project(grant=grant(quota=None, spend_cap=cap))
        assert [call(account.text).code for _ in range(2)] == ["served", "credits_used_up"]
