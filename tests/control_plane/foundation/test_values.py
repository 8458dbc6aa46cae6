"""Ids, clock, cursors, windows and log entries."""

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from control_plane.foundation.clock import floor_hour, floor_ms, from_ms, to_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.ids import new_id
from control_plane.foundation.log import configure_logging
from control_plane.foundation.pagination import decode_cursor, encode_cursor, page_of
from control_plane.foundation.windows import check_windows
from gateway_contract.api_keys import generate_api_key
from gateway_contract.modes import Mode
from gateway_contract.records import Window

NOW = datetime(2026, 3, 17, 10, 37, 12, 345_678, tzinfo=UTC)


class TestNewId:
    def test_has_the_prefix_and_26_characters(self):
        prefix, _, rest = new_id("acc", NOW).partition("_")
        assert prefix == "acc"
        assert len(rest) == 26
        assert set(rest) <= set("0123456789abcdefghjkmnpqrstvwxyz")

    def test_sorts_by_the_time_of_creation(self):
        ids = [new_id("acc", NOW + timedelta(milliseconds=n)) for n in range(100)]
        assert ids == sorted(ids)

    def test_sorts_by_the_order_of_creation_within_a_millisecond_too(self):
        ids = [new_id("acc", NOW) for _ in range(1000)]
        assert ids == sorted(ids)
        assert len(set(ids)) == 1000

    def test_reads_the_clock_where_no_moment_is_given(self):
        assert new_id("acc") > new_id("acc", NOW - timedelta(days=365 * 50))


class TestClock:
    @given(st.integers(-(10**13), 10**13))
    def test_milliseconds_come_back_exactly(self, ms):
        assert to_ms(from_ms(ms)) == ms

    def test_cuts_and_never_rounds_up(self):
        assert floor_ms(NOW).microsecond == 345_000
        assert to_ms(datetime(1969, 12, 31, 23, 59, 59, 999_500, tzinfo=UTC)) == -1
        assert floor_hour(NOW) == datetime(2026, 3, 17, 10, tzinfo=UTC)


class TestCursor:
    def test_brings_sort_values_back(self):
        assert decode_cursor(encode_cursor(NOW, "acc_1", 7), datetime, str, int) == (NOW, "acc_1", 7)

    @pytest.mark.parametrize("cursor", ["", "x", "ä", "W10", encode_cursor("a"), encode_cursor("a", 2), "////"])
    def test_refuses_what_it_did_not_give_out(self, cursor):
        with pytest.raises(ValidationFailedError) as refused:
            decode_cursor(cursor, datetime, str)
        assert refused.value.field == "cursor"

    def test_is_given_only_where_more_follows(self):
        rows = ["a", "b", "c"]
        assert page_of(rows, limit=3, sort_values=lambda row: (row,)).next_cursor is None
        page = page_of(rows, limit=2, sort_values=lambda row: (row,))
        assert page.items == ("a", "b")
        assert decode_cursor(page.next_cursor, str) == ("b",)


class TestWindows:
    def test_come_back_shortest_first(self):
        minute, second = Window(300, 60_000), Window(10, 1_000)
        assert check_windows([minute, second]) == (second, minute)

    @pytest.mark.parametrize(
        ("windows", "field"),
        [
            ([Window(0, 1_000)], "windows[0].limit"),
            ([Window(1, 1_000), Window(-5, 60_000)], "windows[1].limit"),
            ([Window(1, 999)], "windows[0].window_ms"),
            ([Window(1, 86_400_001)], "windows[0].window_ms"),
            ([Window(1, 1_000), Window(2, 1_000)], "windows[1]"),
            ([Window(1, 1_000 + n) for n in range(9)], "windows"),
        ],
    )
    def test_refuses_by_field(self, windows, field):
        with pytest.raises(ValidationFailedError) as refused:
            check_windows(windows)
        assert refused.value.field == field


class TestLog:
    def test_never_holds_a_readable_key(self, capsys):
        key = generate_api_key(Mode.LIVE)
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        try:
            configure_logging()
            log = structlog.get_logger("test")
            event = f"called with {key}"
            log.info(event, header=key, nested={"list": [f"apikey={key}", b"x", 3]}, error=OSError(key))
            logging.getLogger("other").warning("query %s", key)
            try:
                int(key)
            except ValueError:
                log.exception("failed")
        finally:
            root.handlers[:], root.level = handlers, level
            structlog.reset_defaults()
        written = capsys.readouterr().err
        assert key not in written
        entries = [json.loads(line) for line in written.splitlines()]
        assert [entry["level"] for entry in entries] == ["info", "warning", "error"]
        assert entries[0]["event"] == "called with km_live_[redacted]"
        assert "'km_live_[redacted]'" in entries[2]["exception"]
