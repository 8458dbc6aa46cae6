"""Time: frozen, advanced, and what happens on the way."""

import random
import time

import pytest

from devstack.stripe.clock import Clock


class TestClock:
    def test_it_follows_the_machine_until_it_is_frozen(self) -> None:
        clock = Clock()
        assert abs(clock.now() - time.time()) < 5
        clock.freeze()
        stands = clock.now()
        assert clock.is_frozen
        clock.advance_to(stands + 1_000)
        assert clock.now() == stands + 1_000
        clock.thaw()
        assert 0 <= clock.now() - (stands + 1_000) < 5

    def test_a_running_clock_can_be_put_ahead(self) -> None:
        clock = Clock()
        clock.advance_to(clock.now() + 86_400)
        assert abs(clock.now() - time.time() - 86_400) < 5

    def test_it_never_goes_back(self) -> None:
        clock = Clock(1_000)
        with pytest.raises(ValueError, match="cannot go back"):
            clock.advance_to(999)

    def test_all_that_is_due_happens_in_order_each_at_its_own_moment(self) -> None:
        clock, happened = Clock(1_000), []
        moments = [1_500, 1_100, 1_100, 1_900, 2_001]
        random.Random(3).shuffle(moments)
        for moment in moments:
            clock.at(moment, lambda: happened.append(clock.now()))
        clock.advance_to(2_000)
        assert happened == [1_100, 1_100, 1_500, 1_900]
        assert clock.now() == 2_000
        assert clock.next_due() == 2_001

    def test_what_is_asked_for_on_the_way_happens_on_the_way(self) -> None:
        clock, happened = Clock(0), []

        def every_hour() -> None:
            happened.append(clock.now())
            clock.at(clock.now() + 3_600, every_hour)

        clock.at(3_600, every_hour)
        clock.advance_to(3 * 3_600 + 5)
        assert happened == [3_600, 7_200, 10_800]

    def test_what_is_asked_for_in_the_past_happens_without_turning_back_time(self) -> None:
        clock, happened = Clock(1_000), []
        clock.at(500, lambda: happened.append(clock.now()))
        assert happened == []
        clock.run_due()
        assert happened == [1_000]

    def test_what_was_taken_back_does_not_happen(self) -> None:
        clock, happened = Clock(0), []
        clock.at(10, lambda: happened.append("no")).cancel()
        clock.at(20, lambda: happened.append("yes"))
        clock.advance_to(30)
        assert happened == ["yes"]
