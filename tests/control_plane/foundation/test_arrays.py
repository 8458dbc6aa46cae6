"""Lists as parameters: PostgreSQL reads back what was written, whatever is in it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from control_plane.foundation.arrays import ArrayDumper

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
SHORT = st.text(alphabet="aN_9,\"\\{} '", max_size=4)
MOMENTS = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001 - the zone is drawn
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001 - the zone is drawn
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(hours=11))]),
)


@pytest.fixture(scope="module")
def connection(postgres_server) -> Iterator[psycopg.Connection]:
    url = postgres_server.create_database("arrays")
    with psycopg.connect(url, autocommit=True, options="-c timezone=UTC") as connection:
        connection.adapters.register_dumper(list, ArrayDumper)
        yield connection
    postgres_server.drop_database("arrays")


def echo(connection: psycopg.Connection, sql_type: str, values: list) -> list:
    return connection.execute(f"SELECT CAST(%s AS {sql_type}[])", [values]).fetchone()[0]


class TestArrays:
    @given(values=st.lists(st.one_of(TEXTS, SHORT, st.sampled_from(["null", "NULL", "", "a,b"])), max_size=5))
    @example(values=["inv_01", "null"])
    @example(values=["a,b", "c"])
    @example(values=["a", ""])
    @settings(max_examples=150)
    def test_of_text(self, connection, values):
        assert echo(connection, "text", values) == values

    @given(values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
    @settings(max_examples=30)
    def test_of_numbers(self, connection, values):
        assert echo(connection, "bigint", values) == values

    @given(values=st.lists(MOMENTS, max_size=5))
    @settings(max_examples=50)
    def test_of_moments(self, connection, values):
        assert echo(connection, "timestamptz", values) == values

    def test_with_nothing_in_places(self, connection):
        assert echo(connection, "text", ["a", None]) == ["a", None]
        assert echo(connection, "boolean", [True, False]) == [True, False]
