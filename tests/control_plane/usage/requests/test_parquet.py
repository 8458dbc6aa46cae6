"""Pieces that ClickHouse wrote, put together without reading them: every reader sees one file."""

import io

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.usage.requests.exports import thrift
from control_plane.usage.requests.exports.parquet import ParquetJoiner, ParquetJoinError
from control_plane.usage.requests.exports.thrift import Field, Items, ThriftError, read_struct, write_struct
from control_plane.usage.store.event_reads import FileFormat, write_rows

ROWS = """
SELECT number AS id, toString(number % 7) AS name, toLowCardinality(concat('kind', toString(number % 3))) AS kind,
    map('tokens', number) AS units, ['a', 'b'] AS flags, fromUnixTimestamp64Milli(toInt64(number), 'UTC') AS at
FROM numbers({start:UInt64}, {count:UInt64})
"""


def piece(store, start, count, statement=ROWS):
    parameters = {"start": start, "count": count}
    return write_rows(store, statement, parameters, file_format=FileFormat.PARQUET, with_names=True)


def joined(pieces):
    out = io.BytesIO()
    joiner = ParquetJoiner(out)
    rows = [joiner.add(each) for each in pieces]
    joiner.finish()
    return rows, out.getvalue()


class TestParquetJoiner:
    def test_the_rows_are_those_of_all_pieces_in_order(self, store):
        rows, content = joined(
            [piece(store, 0, 1000), piece(store, 5, 0), piece(store, 1000, 3), piece(store, 1003, 7000)]
        )
        assert rows == [1000, 0, 3, 7000]
        table = pq.read_table(io.BytesIO(content))
        whole = pq.read_table(io.BytesIO(piece(store, 0, 8003)))
        assert table.equals(whole)
        assert pq.ParquetFile(io.BytesIO(content)).metadata.num_row_groups == 3

    def test_clickhouse_reads_it_too(self, store, tmp_path):
        path = tmp_path / "joined.parquet"
        path.write_bytes(joined([piece(store, 0, 500), piece(store, 500, 500)])[1])
        asked = f"SELECT count(), sum(id), sum(units['tokens']), uniqExact(name) FROM file('{path}', Parquet)"
        assert tuple(store.query(asked, {})[0]) == (1000, 499_500, 499_500, 7)

    def test_a_file_without_rows_has_its_columns(self, store):
        rows, content = joined([piece(store, 0, 0)])
        table = pq.read_table(io.BytesIO(content))
        assert (rows, table.num_rows, table.column_names[:2]) == ([0], 0, ["id", "name"])

    def test_refuses_other_columns(self, store):
        other = piece(store, 0, 1, "SELECT number AS id FROM numbers({start:UInt64}, {count:UInt64})")
        with pytest.raises(ParquetJoinError, match="columns"):
            joined([piece(store, 0, 1), other])

    def test_refuses_offsets_that_it_cannot_move(self, store):
        indexed = store.raw(
            "SELECT number AS id FROM numbers(10)",
            {},
            fmt="Parquet",
            settings={"output_format_parquet_write_page_index": 1},
        )
        with pytest.raises(ParquetJoinError, match="page indexes"):
            joined([indexed])

    @pytest.mark.parametrize(
        "content", [b"", b"PAR1", b"PAR1" * 3, b"PAR1\xff\xff\xff\xffPAR1", b"id,name\n1,x\n"]
    )
    def test_refuses_what_is_no_parquet_file(self, content):
        with pytest.raises((ParquetJoinError, ThriftError, KeyError)):
            joined([content])

    def test_refuses_to_finish_without_any(self):
        with pytest.raises(ParquetJoinError):
            joined([])


NUMBERS = st.integers(-(2**63), 2**63 - 1)
PLAIN = st.one_of(
    st.builds(Field, st.sampled_from([thrift.I16, thrift.I32, thrift.I64]), NUMBERS),
    st.builds(Field, st.just(thrift.BINARY), st.binary(max_size=300)),
    st.builds(Field, st.just(thrift.BYTE), st.integers(0, 255)),
    st.builds(Field, st.just(thrift.DOUBLE), st.binary(min_size=8, max_size=8)),
    st.booleans().map(lambda value: Field(thrift.TRUE if value else thrift.FALSE, value)),
)


def structs(fields):
    return st.dictionaries(st.integers(-50, 2000), fields, max_size=6)


STRUCTS = st.recursive(
    structs(PLAIN),
    lambda inner: structs(
        st.one_of(
            PLAIN,
            inner.map(lambda value: Field(thrift.STRUCT, value)),
            st.lists(inner, max_size=20).map(lambda items: Field(thrift.LIST, Items(thrift.STRUCT, items))),
            st.lists(NUMBERS, max_size=20).map(lambda items: Field(thrift.LIST, Items(thrift.I64, items))),
        )
    ),
    max_leaves=8,
)


class TestThrift:
    @given(STRUCTS)
    @settings(max_examples=80, deadline=None, database=None)
    def test_what_was_written_is_read(self, struct):
        assert read_struct(write_struct(struct)) == struct

    def test_a_footer_comes_back_byte_for_byte(self, store):
        content = piece(store, 0, 100)
        footer = content[-8 - int.from_bytes(content[-8:-4], "little") : -8]
        assert write_struct(read_struct(footer)) == footer

    @given(STRUCTS, st.data())
    @settings(max_examples=40, deadline=None, database=None)
    def test_what_is_cut_off_is_refused(self, struct, data):
        written = write_struct(struct)
        with pytest.raises(ThriftError):
            read_struct(written[: data.draw(st.integers(0, len(written) - 1))])
