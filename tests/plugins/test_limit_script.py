"""The limit script against a brute-force oracle, on a real Valkey, at times of the test's choosing."""

import itertools
import math

import hiredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_contract import counters, redis_names
from gateway_contract.modes import Mode
from gateway_contract.records import Period, Quota, Window
from kong_plugins.parts.limit_script import ADMITTED, LOAD_COMMAND, REFUSED, SCRIPT, STALE
from tests.plugins.fakes import HOUR_MS, now_ms
from tests.plugins.limits import CLOCK, TEST_CLOCK, TIMED_SCRIPT

relaxed = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def windows(minimum: int = 1, maximum: int = 160, *, most: int = 3):
    one = st.builds(Window, st.integers(minimum, maximum), st.sampled_from([10_000, 17_001, 60_000, 100_003]))
    return st.lists(one, min_size=1, max_size=most, unique_by=lambda window: window.window_ms).map(tuple)


# bursts, sub-bucket steps, whole windows
steps_us = st.lists(
    st.one_of(
        st.just(0),
        st.integers(1, 2_000),
        st.integers(1, 1_000_000),
        st.integers(1, 12_000_000),
        st.sampled_from([10_000_000, 17_001_000, 60_000_000, 60_000_001, 59_999_999]),
    ),
    min_size=1,
    max_size=60,
)
repeats = st.integers(1, 25)


def in_window(admitted: list[int], at_us: int, length_us: int) -> int:
    return sum(1 for other in admitted if at_us - length_us < other <= at_us)


class TestTimedScript:
    def test_differs_from_the_shipped_script_in_the_clock_only(self):
        assert SCRIPT.count(CLOCK) == 1
        lines = zip(SCRIPT.splitlines(), TIMED_SCRIPT.splitlines(), strict=True)
        differing = [(old, new) for old, new in lines if old != new]
        assert differing == [(f"local clock = {CLOCK}", f"local clock = {TEST_CLOCK}")]

    def test_the_shipped_script_loads_whole(self):
        reader = hiredis.Reader()
        reader.feed(LOAD_COMMAND)
        assert reader.gets() == [b"SCRIPT", b"LOAD", SCRIPT.encode()]


class TestSlidingWindows:
    @given(windows=windows(), steps=steps_us, repeat=repeats)
    @relaxed
    def test_never_admit_more_than_the_limit_in_any_interval(self, timed, windows, steps, repeat):
        caller = timed(windows=windows)
        admitted: list[int] = []
        at_us = 0
        for step in steps:
            at_us += step
            admitted += [at_us for _ in range(repeat) if caller.admits(at_us)]
        for window in windows:
            for moment in admitted:
                assert in_window(admitted, moment, window.window_ms * 1000) <= window.limit

    @given(windows=windows(maximum=100), steps=steps_us, repeat=repeats)
    @relaxed
    def test_are_exact_up_to_a_hundred(self, timed, windows, steps, repeat):
        caller = timed(windows=windows)
        admitted: list[int] = []
        at_us = 0
        for step in steps:
            at_us += step
            for _ in range(repeat):
                free = all(in_window(admitted, at_us, w.window_ms * 1000) < w.limit for w in windows)
                assert caller.admits(at_us) == free
                if free:
                    admitted.append(at_us)

    @given(windows=windows(minimum=101, most=1), steps=steps_us, repeat=repeats)
    @relaxed
    def test_are_at_most_a_sixtieth_too_strict_above(self, timed, windows, steps, repeat):
        caller, window = timed(windows=windows), windows[0]
        longest_us = 61 * math.ceil(window.window_ms * 1000 / 60)
        admitted: list[int] = []
        at_us = 0
        for step in steps:
            at_us += step
            for _ in range(repeat):
                if caller.admits(at_us):
                    admitted.append(at_us)
                else:
                    assert in_window(admitted, at_us, longest_us) >= window.limit

    @given(
        limit=st.sampled_from([1, 2, 7, 60, 99, 100, 101, 120, 240]),
        window_ms=st.sampled_from([10_000, 17_001, 60_000]),
        offset_us=st.integers(0, 2_000_000),
    )
    @settings(parent=relaxed, max_examples=25)
    def test_never_refuse_an_even_pace_at_95_percent(self, timed, limit, window_ms, offset_us):
        caller = timed(windows=(Window(limit, window_ms),))
        pause_us = window_ms * 1000 / (limit * 0.95)
        assert all(caller.admits(offset_us + math.ceil(n * pause_us)) for n in range(limit * 5 // 2 + 2))

    @given(windows=windows(most=2), steps=steps_us, repeat=repeats, back=st.lists(st.integers(0, 90_000_000)))
    @relaxed
    def test_hold_when_the_clock_steps_back(self, timed, windows, steps, repeat, back):
        caller = timed(windows=windows)
        admitted: list[int] = []
        true_us = skew_us = 0
        for step, stepped_back in itertools.zip_longest(steps, back[: len(steps)], fillvalue=0):
            true_us += step
            skew_us += stepped_back
            clock_us = true_us - skew_us
            admitted += [true_us for _ in range(repeat) if caller.admits(clock_us)]
        for window in windows:
            for moment in admitted:
                assert in_window(admitted, moment, window.window_ms * 1000) <= window.limit

    @pytest.mark.parametrize("limit", [3, 150])
    def test_open_again_within_a_window_after_the_clock_stepped_back(self, timed, limit):
        caller = timed(windows=(Window(limit, 60_000),))
        back_us = 1_800_000_000
        assert all(caller.admits(0) for _ in range(limit))
        assert not caller.admits(-back_us)
        assert not caller.admits(-back_us + 59_000_000)
        assert caller.admits(-back_us + 61 * 1_000_000 + 1_000)

    @pytest.mark.parametrize(("limit", "window_ms"), [(3, 10_000), (100, 60_000), (101, 60_000), (150, 17_001)])
    def test_say_when_the_next_call_would_be_admitted(self, timed, limit, window_ms):
        caller = timed(windows=(Window(limit, window_ms),))
        for number in range(limit):
            assert caller.admits(number * 1_000)
        kind, _, hit, remaining, wait_ms = caller.ask(limit * 1_000)
        assert (kind, hit, remaining) == (REFUSED, 1, 0)
        assert caller.admits(limit * 1_000 + wait_ms * 1_000)

    def test_tell_what_remains_and_when_a_slot_frees(self, timed):
        caller = timed(windows=(Window(3, 10_000),))
        assert caller.ask(0)[3:] == [1, 2, 10_000]
        assert caller.ask(4_000_000)[3:] == [1, 1, 6_000]
        assert caller.ask(5_000_000)[3:] == [1, 0, 5_000]
        assert caller.ask(10_000_000)[3:] == [1, 0, 4_000]

    def test_of_nothing_admit_nothing(self, timed):
        caller = timed(windows=(Window(0, 10_000),))
        assert caller.ask(0) == [REFUSED, caller.start_us // 1000, 1, 0, 10_000]

    def test_of_key_and_plan_hold_together(self, timed):
        caller = timed(windows=(Window(5, 10_000),), key_windows=(Window(2, 10_000),))
        assert [caller.ask(0)[0] for _ in range(3)] == [ADMITTED, ADMITTED, REFUSED]
        assert caller.ask(0)[2] == 2  # the key's own


class TestTightest:
    def test_is_the_one_with_the_lowest_share_left(self, timed):
        caller = timed(windows=(Window(10, 10_000), Window(12, 60_000)))
        assert caller.ask(0)[3:5] == [1, 9]
        for number in range(1, 9):
            caller.ask(number * 11_000_000 // 10)
        assert caller.ask(12_000_000)[3:5] == [2, 2]

    def test_may_be_the_hard_quota(self, timed):
        caller = timed(windows=(Window(10, 10_000),), quota=Quota(4, hard=True))
        assert caller.ask(0)[3:5] == [2, 3]

    def test_is_none_without_limits(self, timed):
        assert timed(windows=()).ask(0)[3:] == [0, 0, 0]


class TestAllOrNothing:
    @given(
        windows=windows(maximum=6, most=3),
        quotas=st.tuples(st.integers(0, 30), st.none() | st.integers(0, 30)),
        units=st.integers(1, 4),
        steps=steps_us,
    )
    @relaxed
    def test_a_refused_call_changes_nothing(self, timed, windows, quotas, units, steps):
        quota, share = quotas
        caller = timed(windows=windows, quota=Quota(quota, hard=True), quota_units=share, units=units)
        used = 0
        at_us = 0
        for step in steps:
            at_us += step
            before = caller.stored()
            if caller.admits(at_us):
                used += units
            else:
                assert caller.stored() == before
        assert used <= quota
        assert used <= (quota if share is None else share)


class TestQuota:
    def test_counts_units_and_refuses_what_does_not_fit(self, timed):
        caller = timed(windows=(), quota=Quota(5, hard=True), units=2)
        assert [caller.ask(0)[0] for _ in range(3)] == [ADMITTED, ADMITTED, REFUSED]
        _, moment, hit, remaining, wait_ms = caller.ask(0)
        assert (hit, remaining) == (1, 1)
        assert wait_ms == caller.grant.periods[0].end_ms - moment

    def test_that_is_soft_refuses_nothing(self, timed):
        caller = timed(windows=(), quota=Quota(1, hard=False))
        assert all(caller.admits(0) for _ in range(5))

    def test_share_of_a_key_is_a_limit_of_its_own(self, timed):
        caller = timed(windows=(), quota=Quota(50, hard=True), quota_units=2)
        assert [caller.ask(0)[0] for _ in range(3)] == [ADMITTED, ADMITTED, REFUSED]
        assert caller.ask(0)[2] == 2

    def test_is_named_when_a_window_is_full_too(self, timed):
        caller = timed(windows=(Window(1, 10_000),), quota=Quota(1, hard=True))
        assert caller.admits(0)
        assert caller.ask(0)[2] == 2

    def test_begins_anew_with_the_next_period(self, timed):
        start = now_ms() - HOUR_MS
        periods = (Period(start, start + 2 * HOUR_MS), Period(start + 2 * HOUR_MS, start + 4 * HOUR_MS))
        caller = timed(windows=(), quota=Quota(1, hard=True), periods=periods, quota_units=1)
        to_end_us = periods[0].end_ms * 1000 - caller.start_us
        assert caller.admits(0)
        assert not caller.admits(to_end_us - 1)
        assert caller.ask(to_end_us)[:3:2] == [ADMITTED, 1]
        assert not caller.admits(to_end_us)
        assert caller.ask(periods[1].end_ms * 1000 - caller.start_us)[0] == STALE


class TestCounters:
    def test_hold_calls_and_units_by_hour_and_number_the_calls(self, timed, client):
        caller = timed(windows=(), units=3)
        first_hour = counters.hour_number(caller.start_us // 1000)
        assert [caller.ask(at)[2] for at in (0, 0, HOUR_MS * 1000)] == [1, 2, 3]
        name = caller.question.keys[1]
        stored = {field.decode(): int(value) for field, value in client.hgetall(name).items()}
        assert stored == {
            counters.CALLS: 3,
            counters.UNITS: 9,
            counters.hour_calls(first_hour): 2,
            counters.hour_units(first_hour): 6,
            counters.hour_calls(first_hour + 1): 1,
            counters.hour_units(first_hour + 1): 3,
        }

    def test_are_kept_forty_days_beyond_the_period(self, timed, client):
        caller = timed()
        caller.ask(0)
        kept_until_ms = caller.grant.periods[0].end_ms + 40 * 24 * HOUR_MS
        assert client.pexpiretime(caller.question.keys[1]) == kept_until_ms

    def test_of_a_key_with_a_share_are_kept_beside(self, timed, client):
        caller = timed(quota_units=9, units=2)
        caller.ask(0)
        assert client.hmget(caller.question.keys[3], "calls", "units") == [b"1", b"2"]

    def test_windows_leave_nothing_behind_for_long(self, timed, client):
        caller = timed(windows=(Window(5, 10_000), Window(500, 60_000)))
        caller.ask(0)
        for name, longest_ms in zip(caller.question.keys[-2:], (10_000, 61_001), strict=True):
            assert 0 < client.pttl(name) <= longest_ms


class TestVersions:
    @pytest.mark.parametrize(("account", "key"), [(6, 3), (5, 4), (6, 4)])
    def test_newer_ones_make_the_call_stale_and_consume_nothing(self, timed, account, key):
        caller = timed()
        caller.write_versions(account=account, key=key)
        before = caller.stored()
        assert caller.ask(0)[::2] == [STALE, 2]
        assert caller.stored() == before

    @pytest.mark.parametrize(("account", "key"), [(4, 3), (5, 2), (5, 3)])
    def test_older_or_equal_ones_do_not(self, timed, account, key):
        caller = timed()
        caller.write_versions(account=account, key=key)
        assert caller.admits(0)

    @pytest.mark.parametrize("field", ["account", "key_1"])
    def test_missing_ones_make_the_call_stale(self, timed, client, field):
        caller = timed()
        client.hdel(redis_names.account_versions(caller.account), field)
        assert caller.ask(0)[::2] == [STALE, 1]


class TestModes:
    def test_are_counted_and_limited_apart(self, client, timed):
        live = timed(windows=(Window(1, 10_000),), quota=Quota(1, hard=True))
        test = timed(windows=(Window(1, 10_000),), quota=Quota(1, hard=True), mode=Mode.TEST)
        pairs = zip(live.question.keys, test.question.keys, strict=True)
        shared = [a for a, b in pairs if a.replace(live.account, "") == b.replace(test.account, "")]
        assert shared == [redis_names.account_versions(live.account)]
