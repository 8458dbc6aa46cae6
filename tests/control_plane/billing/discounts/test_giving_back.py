"""What a correction takes back of an invoice's discounts can be given again: so much, and no more."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.billing.discounts.giving_back import CorrectedLine, left_of_uses
from control_plane.billing.discounts.model import Taken

JAN, FEB = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2))
USAGE, PRICE = (JAN, "usage"), (FEB, "flat")
# January's usage of 15.00, of which nothing was taken off; February's price of 49.00, 10.00 off
USES = [(USAGE, Taken(1_500, 0)), (PRICE, Taken(4_900, 1_000))]


def corrected(charge, billed, taken_back):
    return CorrectedLine(charge=charge, billed_minor=billed, taken_back_minor=taken_back)


class TestLeftOfUses:
    @pytest.mark.parametrize(
        ("line", "discount", "left"),
        [
            (corrected(PRICE, 4_900, 2_450), 383, [Taken(1_500, 0), Taken(2_450, 617)]),
            (corrected(PRICE, 4_900, 4_900), 766, [Taken(1_500, 0), Taken(0, 234)]),
            (corrected(PRICE, 2_000, 1_000), 0, [Taken(1_500, 0), Taken(2_450, 1_000)]),
            # a share of a discount that was not on the line is the other line's to have again
            (corrected(USAGE, 1_500, 1_500), 234, [Taken(0, 0), Taken(4_900, 766)]),
        ],
    )
    def test_are_less_by_what_was_taken_back(self, line, discount, left):
        assert left_of_uses(USES, [line], discount_minor=discount) == left

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from([USAGE, PRICE, (JAN, "other")]), st.integers(0, 900)), max_size=6),
        st.integers(0, 1_000),
        st.integers(0, 5_000),
    )
    def test_are_never_less_than_nothing_and_lose_what_was_taken_back(self, taken, part, discount):
        uses = [(charge, Taken(1_000, amount)) for charge, amount in taken]
        left = left_of_uses(uses, [corrected(USAGE, 1_000, part)], discount_minor=discount)
        assert all(one.base_minor >= 0 and one.taken_minor >= 0 for one in left)
        before = sum(amount for _, amount in taken)
        assert sum(one.taken_minor for one in left) == before - min(before, discount)
