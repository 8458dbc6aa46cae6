"""A limit that crosses a hundred changes the form of its window's state, never what the window has let through."""

import itertools
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_contract.records import Window
from kong_plugins.parts.limit_script import ADMITTED, EXACT_UP_TO, Limit
from kong_plugins.parts.local_windows import LocalWindows

WINDOW_MS = 60_000
WINDOW_US = WINDOW_MS * 1000
BUCKET_US = math.ceil(WINDOW_US / 60)

relaxed = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
# each part: a limit, and calls at steps under it
parts = st.lists(
    st.tuples(
        st.integers(0, 220),
        st.lists(
            st.tuples(
                st.one_of(st.just(0), st.integers(1, 2_000_000), st.integers(1, 30_000_000)), st.integers(1, 60)
            ),
            min_size=1,
            max_size=8,
        ),
    ),
    min_size=2,
    max_size=6,
)


def in_window(admitted: list[int], at_us: int, length_us: int = WINDOW_US) -> int:
    return sum(1 for other in admitted if at_us - length_us < other <= at_us)


class TestLimitThatCrossesAHundred:
    @given(parts=parts, back=st.lists(st.integers(0, 90_000_000), max_size=20))
    @relaxed
    def test_never_lets_more_through_than_the_limit_of_that_moment(self, timed, parts, back):
        caller = timed(windows=())
        admitted: list[int] = []
        true_us = skew_us = 0
        stepped_back = itertools.chain(back, itertools.repeat(0))
        for limit, steps in parts:
            question = caller.question_with(windows=(Window(limit, WINDOW_MS),))
            for step, repeat in steps:
                true_us += step
                skew_us += next(stepped_back)
                for _ in range(repeat):
                    if caller.ask_of(question, true_us - skew_us)[0] == ADMITTED:
                        admitted.append(true_us)
                        assert in_window(admitted, true_us) <= limit

    @given(parts=parts)
    @relaxed
    def test_is_at_most_two_buckets_too_strict(self, timed, parts):
        caller = timed(windows=())
        admitted: list[int] = []
        at_us = 0
        for limit, steps in parts:
            question = caller.question_with(windows=(Window(limit, WINDOW_MS),))
            for step, repeat in steps:
                at_us += step
                for _ in range(repeat):
                    if caller.ask_of(question, at_us)[0] == ADMITTED:
                        admitted.append(at_us)
                    else:
                        assert in_window(admitted, at_us, WINDOW_US + 2 * BUCKET_US) >= limit

    @pytest.mark.parametrize(("before", "after"), [(100, 101), (101, 100), (150, 80), (60, 300)])
    def test_keeps_the_state_under_one_name_and_changes_nothing_when_it_refuses(
        self, timed, client, before, after
    ):
        caller = timed(windows=(Window(before, WINDOW_MS),))
        assert all(caller.admits(number * 1000) for number in range(before))
        question = caller.question_with(windows=(Window(after, WINDOW_MS),))
        assert question.keys == caller.question.keys
        answers = [caller.ask_of(question, before * 1000)[0] for _ in range(after + 1)]
        assert answers.count(ADMITTED) == max(0, after - before)
        stored = caller.stored()
        caller.ask_of(question, before * 1000)
        assert caller.stored() == stored
        assert 0 < client.pttl(question.keys[-1]) <= 61 * WINDOW_MS / 60

    @pytest.mark.parametrize("limits", [(150, 10, 100), (150, 10, 151), (100, 5, 120), (300, 100, 301)])
    def test_forgets_nothing_when_it_is_raised_again(self, timed, limits):
        caller = timed(windows=())
        first, lowered, raised = (caller.question_with(windows=(Window(limit, WINDOW_MS),)) for limit in limits)
        assert all(caller.ask_of(first, 0)[0] == ADMITTED for _ in range(limits[0]))
        assert caller.ask_of(lowered, 1000)[0] != ADMITTED
        admitted = [caller.ask_of(raised, 2000)[0] for _ in range(limits[2])].count(ADMITTED)
        assert admitted == max(0, limits[2] - limits[0])

    @pytest.mark.parametrize("offset_us", range(0, BUCKET_US, 100_000))
    def test_counts_calls_for_a_whole_window_after_it_was_lowered(self, timed, offset_us):
        caller = timed(windows=(Window(150, WINDOW_MS),))
        assert all(caller.admits(offset_us) for _ in range(5))
        question = caller.question_with(windows=(Window(6, WINDOW_MS),))
        assert caller.ask_of(question, offset_us + 2 * BUCKET_US)[0] == ADMITTED
        assert caller.ask_of(question, offset_us + WINDOW_US - 1)[0] != ADMITTED
        answers = [caller.ask_of(question, offset_us + WINDOW_US + BUCKET_US)[0] for _ in range(6)]
        assert answers.count(ADMITTED) == 5

    @pytest.mark.parametrize("offset_us", range(0, BUCKET_US, 100_000))
    def test_counts_calls_for_a_window_and_a_bucket_after_it_was_raised(self, timed, offset_us):
        caller = timed(windows=(Window(100, WINDOW_MS),))
        assert all(caller.admits(offset_us + number) for number in range(100))
        question = caller.question_with(windows=(Window(101, WINDOW_MS),))
        assert caller.ask_of(question, offset_us + 2 * BUCKET_US)[0] == ADMITTED
        assert caller.ask_of(question, offset_us + WINDOW_US - 1)[0] != ADMITTED
        late_us = offset_us + WINDOW_US + BUCKET_US + 100
        assert [caller.ask_of(question, late_us)[0] for _ in range(101)].count(ADMITTED) == 100

    def test_is_exact_again_after_it_was_lowered(self, timed):
        caller = timed(windows=(Window(150, WINDOW_MS),))
        assert all(caller.admits(0) for _ in range(3))
        question = caller.question_with(windows=(Window(5, WINDOW_MS),))
        at_us = 70 * 1_000_000
        answers = [caller.ask_of(question, at_us + number)[0] for number in range(7)]
        assert answers.count(ADMITTED) == 5
        assert caller.ask_of(question, at_us + WINDOW_US - 1)[0] != ADMITTED
        assert caller.ask_of(question, at_us + WINDOW_US)[0] == ADMITTED


class TestLocalLimitThatCrossesAHundred:
    @given(parts=parts)
    @relaxed
    def test_never_lets_more_through_either(self, parts):
        local = LocalWindows()
        admitted: list[int] = []
        at_us = 0
        for limit, steps in parts:
            for step, repeat in steps:
                at_us += step
                at_ms = at_us // 1000
                for _ in range(repeat):
                    if local.take([("w", Limit("w", limit, WINDOW_MS))], now_ms=at_ms) is None:
                        admitted.append(at_ms * 1000)
                        assert in_window(admitted, at_ms * 1000) <= limit

    def test_keeps_what_was_admitted(self):
        local = LocalWindows()

        def admits(limit):
            return local.take([("w", Limit("w", limit, WINDOW_MS))], now_ms=5) is None

        assert sum(admits(EXACT_UP_TO) for _ in range(200)) == 100
        assert sum(admits(EXACT_UP_TO + 5) for _ in range(200)) == 5
        assert not admits(EXACT_UP_TO)
