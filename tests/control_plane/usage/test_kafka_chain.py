"""What the numbers of messages prove: nothing that brokers confirmed is missing, or it is noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.usage.collect.kafka_chain import Reached, Sent, follow, read_reached, read_sent


class TestFollow:
    @pytest.mark.parametrize(
        ("reached", "sent", "expected"),
        [
            (None, Sent("a", 1, 0), Reached("a", 1)),
            (None, Sent("a", 3, 0), Reached("a", 3)),  # the first two attempts failed
            (None, Sent("a", 2, 1), None),
            (Reached("a", 4), Sent("a", 5, 4), Reached("a", 5)),
            (Reached("a", 4), Sent("a", 7, 4), Reached("a", 7)),
            (Reached("a", 4), Sent("a", 3, 2), Reached("a", 4)),  # again
            (Reached("a", 4), Sent("a", 6, 5), None),
            (Reached("a", 4), Sent("b", 1, 0), Reached("b", 1)),
            (Reached("a", 4), Sent("b", 4, 3), None),
        ],
    )
    def test_says_how_far_or_that_something_is_missing(self, reached, sent, expected):
        assert follow(reached, sent) == expected

    # for each attempt: whether it was confirmed, whether the brokers kept it, how often it is read
    @given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 2)), max_size=30))
    def test_never_passes_a_message_that_was_confirmed_and_lost(self, attempts):
        log, confirmed, after = [], set(), 0
        for number, (was_confirmed, kept, times) in enumerate(attempts, start=1):
            if kept:
                log += [Sent("a", number, after)] * times
            if was_confirmed:
                confirmed.add(number)
                after = number
        reached, collected = None, set()
        for sent in log:
            found = follow(reached, sent)
            if found is None:
                continue
            reached = found
            collected.add(sent.number)
            assert {number for number in confirmed if number <= sent.number} <= collected


class TestReading:
    def test_gives_back_what_was_written(self):
        assert read_reached(Reached("a:b", 7).text()) == Reached("a:b", 7)
        assert read_sent({b"epoch": b"a", b"number": b"3", b"after": b"1"}) == Sent("a", 3, 1)

    @pytest.mark.parametrize("text", [None, "", "a", "a:", "a:-1", "a:x"])
    def test_nonsense_is_as_if_nothing_were_known(self, text):
        assert read_reached(text) is None

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {b"epoch": b"a", b"number": b"1"},
            {b"epoch": b"\xff", b"number": b"1", b"after": b"0"},
            {b"epoch": b"a", b"number": b"x", b"after": b"0"},
            {b"epoch": b"a", b"number": b"1", b"after": b"1"},
            {b"epoch": b"a", b"number": b"1", b"after": b"-1"},
            {b"epoch": b"a" * 65, b"number": b"1", b"after": b"0"},
        ],
    )
    def test_messages_of_others_have_no_place_in_a_chain(self, fields):
        assert read_sent(fields) is None
