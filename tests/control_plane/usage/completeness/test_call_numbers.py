"""Which numbers an hour was given, which of them have no event, and who may have had them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.usage.completeness.model import (
    NOTHING_COUNTED,
    CountedHour,
    CounterReading,
    Emitter,
    MissingCalls,
    Numbers,
    State,
    StoredCalls,
    gaps,
    hours_of_numbers,
    judge,
    suspects,
)


def reading(calls, *, last=None, skipped=(), not_counted=None):
    return CounterReading(
        last_number=sum(calls.values()) if last is None else last,
        skipped=skipped,
        calls=calls,
        not_counted=not_counted or {},
    )


class TestNumbersOfHours:
    def test_follow_each_other_from_hour_to_hour(self):
        found = hours_of_numbers(reading({10: 5, 11: 3, 13: 1}), [10, 11, 12, 13])
        assert found == {
            10: CountedHour(5, 0, (Numbers(1, 5),)),
            11: CountedHour(3, 0, (Numbers(6, 8),)),
            13: CountedHour(1, 0, (Numbers(9, 9),)),
        }

    def test_of_an_hour_need_only_the_hours_after_it(self):
        assert hours_of_numbers(reading({11: 3, 12: 4}, last=100), [11])[11].numbers == (Numbers(94, 96),)

    def test_go_round_those_that_were_skipped_when_counters_were_restored(self):
        # ten counted, four more made while Redis was away (11 to 14 are skipped), then six
        found = hours_of_numbers(
            reading({10: 14, 11: 6}, skipped=((11, 14),), not_counted={10: 4}, last=20), [10, 11]
        )
        assert found == {10: CountedHour(10, 4, (Numbers(1, 10),)), 11: CountedHour(6, 0, (Numbers(15, 20),))}

    def test_of_one_hour_may_lie_on_both_sides_of_what_was_skipped(self):
        found = hours_of_numbers(reading({10: 12}, skipped=((6, 7),), not_counted={10: 2}, last=12), [10])
        assert found[10].numbers == (Numbers(1, 5), Numbers(8, 12))

    def test_end_where_a_counter_contradicts_itself(self):
        assert hours_of_numbers(reading({10: 5}, last=3), [10])[10] == CountedHour(5, 0, (Numbers(1, 3),))

    @given(
        st.lists(st.tuples(st.sampled_from(["call", "skip", "hour"]), st.integers(1, 5)), max_size=40),
        st.integers(0, 5),
    )
    def test_are_those_that_were_issued_in_the_hour(self, steps, first_wanted):
        hour = last = 0
        issued, calls, not_counted, skipped = {0: []}, {0: 0}, {0: 0}, []
        for step, count in steps:
            if step == "hour":
                hour += 1
                issued[hour], calls[hour], not_counted[hour] = [], 0, 0
            elif step == "call":
                issued[hour] += range(last + 1, last + count + 1)
                calls[hour] += count
                last += count
            else:
                skipped.append((last + 1, last + count))
                calls[hour] += count
                not_counted[hour] += count
                last += count
        # hours before the first that is wanted are not read
        kept = {number: calls[number] for number in calls if number >= first_wanted}
        found = hours_of_numbers(
            CounterReading(last, tuple(skipped), kept, {number: not_counted[number] for number in kept}), kept
        )
        for number in kept:
            numbers = found[number].numbers if number in found else ()
            assert [n for part in numbers for n in range(part.first, part.last + 1)] == issued[number]


class TestGaps:
    def test_stand_between_the_moments_of_their_neighbours(self):
        assert gaps(Numbers(1, 10), [(1, 100), (2, 200), (5, 500), (9, 900), (10, 1000), (11, 1100)]) == [
            MissingCalls(Numbers(3, 4), 200, 500),
            MissingCalls(Numbers(6, 8), 500, 900),
        ]

    def test_at_the_edges_take_the_moments_from_calls_of_other_hours(self):
        assert gaps(Numbers(5, 8), [(4, 400), (6, 600), (7, 700), (20, 2000)]) == [
            MissingCalls(Numbers(5, 5), 400, 600),
            MissingCalls(Numbers(8, 8), 700, 2000),
        ]

    def test_without_neighbours_have_no_moments(self):
        assert gaps(Numbers(1, 3), []) == [MissingCalls(Numbers(1, 3), None, None)]

    def test_are_none_where_all_are_stored(self):
        assert gaps(Numbers(2, 3), [(1, 1), (2, 2), (3, 3)]) == []


class TestJudge:
    @pytest.mark.parametrize(
        ("counted", "stored", "more", "state"),
        [
            (CountedHour(5, 0), StoredCalls(5), {}, State.COMPLETE),
            # made while Redis was away, known from usage afterwards
            (CountedHour(5, 3), StoredCalls(5, 3), {}, State.COMPLETE),
            (CountedHour(5, 0), StoredCalls(5, 3), {}, State.COMPLETE),
            (None, StoredCalls(0, 3), {}, State.COMPLETE),
            (CountedHour(5, 0), StoredCalls(4), {"missing": 1}, State.MISSING),
            (CountedHour(5, 0), StoredCalls(4), {"missing": 1, "is_early": True}, State.WAITING),
            # one missing call is not made up for by another that was made while Redis was away
            (CountedHour(5, 0), StoredCalls(4, 1), {"missing": 1}, State.MISSING),
            # Redis was emptied: what it forgot it heard of from usage again
            (CountedHour(2, 3), StoredCalls(5), {}, State.UNKNOWN),
            (NOTHING_COUNTED, StoredCalls(5), {}, State.UNKNOWN),
            (None, StoredCalls(5), {}, State.UNKNOWN),
            # Redis went back to older data and issued numbers twice
            (CountedHour(5, 0), StoredCalls(7), {}, State.SURPLUS),
            # one subscription followed another within the hour
            (CountedHour(5, 0), StoredCalls(7), {"is_shared": True}, State.COMPLETE),
        ],
    )
    def test_says_what_is_known(self, counted, stored, more, state):
        options = {"missing": 0, "is_shared": False, "is_early": False, **more}
        assert judge(counted, stored, **options) is state


class TestSuspects:
    HOUR_MS = 3_600_000
    GAP = MissingCalls(Numbers(7, 7), HOUR_MS + 10_000, HOUR_MS + 11_000)

    def test_name_who_was_heard_before_and_not_after(self):
        emitters = [
            Emitter("killed", "node_a", self.HOUR_MS, self.HOUR_MS + 10_500),
            Emitter("alive", "node_a", self.HOUR_MS, self.HOUR_MS + 900_000),
            Emitter("later", "node_a", self.HOUR_MS + 12_000, self.HOUR_MS + 900_000),
            Emitter("long_gone", "node_b", self.HOUR_MS - 900_000, self.HOUR_MS - 890_000),
        ]
        assert suspects(self.GAP, emitters, hour_ms=self.HOUR_MS) == ("node_a/killed",)

    def test_name_who_lives_but_lacks_decisions(self):
        emitters = [
            Emitter("whole", "node_a", self.HOUR_MS, self.HOUR_MS + 900_000),
            Emitter("lost_a_line", "node_b", self.HOUR_MS, self.HOUR_MS + 900_000, holes=1),
        ]
        assert suspects(self.GAP, emitters, hour_ms=self.HOUR_MS) == ("node_b/lost_a_line",)
