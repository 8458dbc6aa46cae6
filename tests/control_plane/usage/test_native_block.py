"""Blocks as ClickHouse reads them: what was put in comes out, and what does not fit changes nothing."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import clickhouse_connect
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.usage.collect.columns import COLUMN_NAMES
from control_plane.usage.store import EventStore
from control_plane.usage.store.event_block import EventBlock, UnstorableRowError
from control_plane.usage.store.native_block import NativeBlock

TYPES = {
    "text": "String",
    "word": "LowCardinality(String)",
    "words": "Array(LowCardinality(String))",
    "amounts": "Map(LowCardinality(String), UInt64)",
    "properties": "Map(LowCardinality(String), String)",
    "small": "UInt16",
    "medium": "UInt32",
    "signed": "Int32",
    "large": "UInt64",
    "at": "DateTime64(3, 'UTC')",
}

texts = st.text(max_size=5) | st.just("ä" * 70) | st.just("x" * 127) | st.just("x" * 128) | st.just("x" * 20_000)
words = st.sampled_from(["a", "b", "", "ö"]) | st.integers(0, 999).map(str)
rows = st.tuples(
    texts,
    words,
    st.lists(words, max_size=3),
    st.dictionaries(words, st.integers(0, 2**64 - 1), max_size=3),
    st.dictionaries(words, texts, max_size=3),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 4_102_444_800_000),
)


def columns(given_rows: Sequence[Sequence[Any]]) -> dict[str, Sequence[Any]]:
    return dict(zip(TYPES, zip(*given_rows, strict=True), strict=True))


@pytest.fixture
def read_back(empty_clickhouse_dsn: str) -> Iterator[Callable[[NativeBlock], list[tuple[Any, ...]]]]:
    client = clickhouse_connect.get_client(dsn=empty_clickhouse_dsn)
    declared = ", ".join(f"{name} {type_name}" for name, type_name in TYPES.items())
    client.command(
        f"CREATE TABLE blocks ({declared}, position UInt64 DEFAULT rowNumberInAllBlocks()) ENGINE = Memory"
    )

    def read_back(block: NativeBlock) -> list[tuple[Any, ...]]:
        client.command("TRUNCATE TABLE blocks")
        client.raw_insert("blocks", column_names=block.names, insert_block=block.to_bytes(), fmt="Native")
        found = client.query(
            "SELECT text, word, words, amounts, properties, small, medium, signed, large,"
            " toUnixTimestamp64Milli(at) FROM blocks ORDER BY position"
        )
        return [tuple(row) for row in found.result_rows]

    yield read_back
    client.close()


class TestBlock:
    @settings(
        max_examples=30,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(pieces=st.lists(st.lists(rows, min_size=1, max_size=5), min_size=1, max_size=4))
    def test_comes_out_as_it_went_in_piece_by_piece(self, read_back, pieces):
        block = NativeBlock(TYPES.items())
        for piece in pieces:
            block.add(columns(piece))
        assert read_back(block) == [row for piece in pieces for row in piece]

    def test_holds_more_words_than_fit_a_byte_or_two(self, read_back):
        given_rows = [("", str(number), [], {}, {}, 0, 0, 0, 0, 0) for number in range(70_000)]
        block = NativeBlock(TYPES.items())
        for start in range(0, 70_000, 10_000):
            block.add(columns(given_rows[start : start + 10_000]))
        assert read_back(block) == given_rows

    def test_of_no_rows_adds_none(self, read_back):
        assert read_back(NativeBlock(TYPES.items())) == []

    @pytest.mark.parametrize(
        ("name", "odd"),
        [
            ("small", 2**16),
            ("small", -1),
            ("small", "7"),
            ("medium", 2**32),
            ("signed", 2**31),
            ("large", 1.5),
            ("text", None),
            ("text", 7),
            ("text", "\ud800"),
            ("word", None),
            ("word", "\ud800"),
            ("words", [None]),
            ("amounts", {"a": -1}),
            ("properties", {"a": 1}),
        ],
    )
    def test_takes_no_row_where_one_does_not_fit(self, name, odd):
        row = ("text", "word", ["a"], {"a": 1}, {"a": "b"}, 1, 2, 3, 4, 5)
        spoiled = dict(zip(TYPES, row, strict=True)) | {name: odd}
        block = NativeBlock(TYPES.items())
        block.add(columns([row]))
        with pytest.raises(ValueError, match=name):
            block.add(columns([row, tuple(spoiled.values())]))
        block.add(columns([row, row]))
        whole = NativeBlock(TYPES.items())
        whole.add(columns([row] * 3))
        assert block.to_bytes() == whole.to_bytes()

    def test_takes_columns_of_one_length_only_and_all_of_them(self):
        block = NativeBlock([("a", "String"), ("b", "String")])
        for odd in ({"a": ["x"], "b": []}, {"a": ["x"]}, {"a": ["x"], "b": ["x"], "c": ["x"]}, {}):
            with pytest.raises(ValueError, match="not the columns"):
                block.add(odd)
        assert len(block) == 0

    def test_is_joined_with_columns_for_the_same_rows_only(self):
        block, other = NativeBlock([("a", "String")]), NativeBlock([("a", "UInt16")])
        with pytest.raises(ValueError, match="together"):
            block.joined_with(other)
        more = NativeBlock([("b", "UInt16")])
        more.add({"b": [1]})
        with pytest.raises(ValueError, match="together"):
            block.joined_with(more)


class TestEventBlock:
    def test_knows_the_type_of_every_column_of_the_table(self, store: EventStore):
        described = {row[0]: row[1] for row in store.query("DESCRIBE TABLE usage_events", {})}
        for name in COLUMN_NAMES:
            one = EventBlock()
            zero: Any = {"U": 0, "I": 0, "D": 0, "A": (), "M": {}}.get(described[name][0], "")
            one.add({name: [zero]})
            _, body = one.body({})
            assert described[name].encode() in body

    def test_names_the_column_of_a_value_that_does_not_fit(self):
        with pytest.raises(UnstorableRowError, match="status"):
            EventBlock().add({"status": [70_000]})
        block = EventBlock()
        block.add({"status": [200]})
        with pytest.raises(UnstorableRowError, match="retention_days"):
            block.body({"retention_days": [-1]})
