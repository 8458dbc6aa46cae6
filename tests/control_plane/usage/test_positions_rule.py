"""How far a segment is complete, given pieces in any order."""

from hypothesis import given
from hypothesis import strategies as st

from control_plane.usage.model import ByteRange, advance_position

pieces = st.lists(st.builds(lambda a, b: ByteRange(min(a, b), max(a, b)), st.integers(0, 30), st.integers(0, 30)))


class TestAdvancePosition:
    @given(st.integers(0, 30), pieces)
    def test_stops_at_the_first_byte_that_is_missing(self, position, received):
        reached, waiting = advance_position(position, received)
        have = set(range(position)).union(*(range(piece.start, piece.end) for piece in received))
        first_missing = next(byte for byte in range(100) if byte not in have)
        assert reached == max(position, first_missing) if first_missing >= position else reached == position
        assert set().union(*(range(piece.start, piece.end) for piece in waiting)) == {
            byte for byte in have if byte >= reached
        }
        assert all(piece.start > reached for piece in waiting)

    @given(st.randoms(use_true_random=False), st.lists(st.integers(1, 9), min_size=1, max_size=9))
    def test_reaches_the_end_whatever_the_order_and_however_often(self, random, sizes):
        ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
        whole = [ByteRange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        order = whole * 2
        random.shuffle(order)
        position, waiting = 0, []
        for piece in order:
            position, waiting = advance_position(position, [*waiting, piece])
        assert (position, waiting) == (ends[-1], [])
