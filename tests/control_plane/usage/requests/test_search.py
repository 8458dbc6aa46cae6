"""A search finds what plain Python finds in a list, page after page, whatever arrives meanwhile."""

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.foundation.clock import from_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.requests.history import SearchTooBroadError, event_search, stretches
from control_plane.usage.requests.model import EventFilters, EventSpan, parse_statuses
from control_plane.usage.store import EventStore, EventStoreConfig
from control_plane.usage.store.event_reads import (
    FileFormat,
    QueryTooLargeError,
    count_slices,
    search_events,
    write_rows,
)
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from tests.control_plane.usage.requests.conftest import NOON, an_event

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def some_events(count=400):
    """Calls over four days, of a few accounts and kinds, several of them in one millisecond."""
    for number in range(count):
        yield an_event(
            number,
            occurred_at_ms=an_event(0).occurred_at_ms + (number // 3) * 2_591_000 % (4 * 86_400_000),
            account_id=("acc_1", "acc_2", "")[number % 3],
            key_id=f"key_{number % 4}",
            mode=Mode.TEST if number % 5 == 0 else Mode.LIVE,
            product=("weather", "maps")[number % 2],
            endpoint=f"GET /{number % 6}",
            status=(200, 204, 404, 429, 500, 503)[number % 6],
            outcome=Outcome.RATE_LIMITED if number % 6 == 3 else Outcome.SERVED,
            request_id=f"{number // 2:032x}",
        )


EVENTS = list(some_events())


def plainly(events, *, account_id, start, end, filters):
    """The filter as a person would write it."""
    return [
        event
        for event in events
        if (account_id is None or event.account_id == account_id)
        and start <= from_ms(event.occurred_at_ms) < end
        and filters.mode in {"", event.mode.value}
        and filters.product in {"", event.product}
        and filters.key_id in {"", event.key_id}
        and filters.endpoint in {"", event.endpoint}
        and filters.outcome in {"", event.outcome.value}
        and filters.request_id in {"", event.request_id}
        and filters.event_id in {"", event.event_id}
        and filters.lowest_status <= event.status <= filters.highest_status
        and (not filters.event_ids or event.event_id in filters.event_ids)
        and (not filters.request_ids or event.request_id in filters.request_ids)
    ]


def order(event):
    return (event.occurred_at_ms, event.event_id, event.account_id)


async def every_page(store, *, limit, **wanted):
    found, cursor = [], None
    while True:
        page = await event_search(store, limit=limit, cursor=cursor, **wanted)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


def text_of(name):
    values = sorted({str(getattr(event, name)) for event in EVENTS})
    return st.one_of(*[st.just("")] * 4, st.sampled_from([*values, "unknown"]))


FILTERS = st.builds(
    EventFilters,
    mode=text_of("mode"),
    product=text_of("product"),
    key_id=text_of("key_id"),
    endpoint=text_of("endpoint"),
    outcome=text_of("outcome"),
    request_id=text_of("request_id"),
    event_id=text_of("event_id"),
    lowest_status=st.sampled_from([0, 0, 200, 400, 404, 500]),
    highest_status=st.sampled_from([999, 999, 299, 404, 499, 599]),
    event_ids=st.one_of(
        st.just(()), st.lists(st.sampled_from([e.event_id for e in EVENTS]), max_size=9).map(tuple)
    ),
)


class TestSearch:
    def test_any_filter_finds_what_plain_python_finds(self, store, keep):
        keep(*EVENTS, *EVENTS[::7])

        @given(
            filters=FILTERS,
            account_id=st.sampled_from([None, None, "acc_1", "acc_2", "", "acc_9"]),
            start=st.integers(-2, 90).map(lambda hours: NOON + hours * HOUR + timedelta(milliseconds=7)),
            hours=st.integers(1, 110),
            newest_first=st.booleans(),
            limit=st.sampled_from([3, 50, 200]),
        )
        @settings(max_examples=35, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def check(*, filters, account_id, start, hours, newest_first, limit):
            wanted = {"account_id": account_id, "start": start, "end": start + hours * HOUR, "filters": filters}
            found = asyncio.run(every_page(store, limit=limit, newest_first=newest_first, **wanted))
            assert found == sorted(plainly(EVENTS, **wanted), key=order, reverse=newest_first)

        check()

    @pytest.mark.parametrize("newest_first", [True, False])
    async def test_pages_neither_skip_nor_repeat_while_events_arrive(self, store, keep, newest_first):
        keep(*EVENTS[:200])
        seen, cursor, arriving = [], None, iter(EVENTS[200:])
        while True:
            page = await event_search(
                store,
                account_id=None,
                start=NOON - DAY,
                end=NOON + 9 * DAY,
                newest_first=newest_first,
                cursor=cursor,
                limit=11,
            )
            seen += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
            keep(*(event for _, event in zip(range(9), arriving, strict=False)))
        assert [order(event) for event in seen] == sorted(map(order, seen), reverse=newest_first)
        assert len({event.event_id for event in seen}) == len(seen)
        assert {event.event_id for event in EVENTS[:200]} <= {event.event_id for event in seen}

    async def test_a_request_id_alone_is_found_in_everything_that_is_kept(self, store, keep):
        keep(*EVENTS, an_event(900, occurred_at_ms=an_event(0).occurred_at_ms - 80 * 86_400_000))
        filters = EventFilters(request_id=f"{900:032x}")
        page = await event_search(
            store, account_id=None, start=NOON - 400 * DAY, end=NOON + DAY, filters=filters, limit=5
        )
        assert [event.event_id for event in page.items] == ["node-900"]

    async def test_a_search_that_takes_too_much_is_given_up_with_words(self, keep, clickhouse_dsn):
        keep(*EVENTS)
        small = EventStore.open(EventStoreConfig(dsn=clickhouse_dsn))
        small._client.set_client_setting("max_memory_usage", 1)
        with pytest.raises(SearchTooBroadError) as refused:
            await event_search(small, account_id=None, start=NOON - DAY, end=NOON + 9 * DAY)
        small.close()
        assert refused.value.code == "search_too_broad"

    def test_a_query_ends_at_its_limit_and_not_before(self, clickhouse_dsn):
        slow = EventStore.open(EventStoreConfig(dsn=clickhouse_dsn))
        assert slow.query("SELECT sleep(0.2)", {})
        slow.limit(seconds=1)
        with pytest.raises(Exception, match="TIMEOUT_EXCEEDED"):
            slow.query("SELECT sleepEachRow(0.05) FROM numbers(1200) SETTINGS max_block_size = 20", {})
        slow.close()

    def test_other_failures_stay_what_they_are(self, store):
        span = EventSpan(account_id=None, start=NOON, end=NOON + HOUR)
        with pytest.raises(Exception, match="UNKNOWN_IDENTIFIER") as failed:
            write_rows(store, "SELECT nothing", {}, file_format=FileFormat.CSV, with_names=True)
        assert not isinstance(failed.value, QueryTooLargeError)
        assert search_events(store, span, EventFilters(), limit=1) == []

    @pytest.mark.parametrize("cursor", ["zzz", "WzEsMiwzXQ", "WzkwMDcxOTkyNTQ3NDA5OTEsIiIsIiJd"])
    async def test_refuses_cursors_that_it_has_not_given_out(self, store, cursor):
        with pytest.raises(ValidationFailedError):
            await event_search(store, account_id=None, start=NOON, end=NOON + HOUR, cursor=cursor)

    async def test_newest_calls_do_not_cost_reading_all(self, store, keep, monkeypatch):
        keep(
            *(
                an_event(number, occurred_at_ms=an_event(0).occurred_at_ms - number * 60_000)
                for number in range(600)
            )
        )
        asked = []
        real = store.query

        def counted(statement, parameters):
            asked.append((parameters["end_ms"] - parameters["start_ms"]) // 3_600_000)
            return real(statement, parameters)

        monkeypatch.setattr(store, "query", counted)
        await event_search(store, account_id="acc_1", start=NOON - 30 * DAY, end=NOON + HOUR, limit=20)
        assert sum(asked) < 24


class TestCounts:
    def test_slices_count_each_event_once(self, store, keep):
        keep(*EVENTS, *EVENTS)
        span = EventSpan(account_id=None, start=NOON - DAY, end=NOON + 9 * DAY)
        slices = count_slices(store, span, EventFilters(), slice_ms=3_600_000)
        plain = {}
        for event in EVENTS:
            start = event.occurred_at_ms // 3_600_000 * 3_600_000
            plain[start] = plain.get(start, 0) + 1
        assert dict(slices) == plain
        assert slices == sorted(slices)


class TestStretches:
    @pytest.mark.parametrize("newest_first", [True, False])
    def test_cover_the_span_once_and_grow(self, newest_first):
        span = EventSpan(account_id="a", start=NOON - 90 * DAY, end=NOON)
        parts = list(stretches(span, newest_first=newest_first))
        if newest_first:
            parts.reverse()
        assert (parts[0].start, parts[-1].end) == (span.start, span.end)
        assert all(before.end == after.start for before, after in itertools.pairwise(parts))
        assert len(parts) < 10

    def test_an_empty_span_has_none(self):
        assert list(stretches(EventSpan(account_id="a", start=NOON, end=NOON), newest_first=True)) == []


class TestStatuses:
    @pytest.mark.parametrize(
        ("text", "expected"), [("404", (404, 404)), ("4xx", (400, 499)), ("400-428", (400, 428)), ("0", (0, 0))]
    )
    def test_are_read(self, text, expected):
        assert parse_statuses(text) == expected

    @pytest.mark.parametrize("text", ["", "xx", "0xx", "4XX", "428-400", "1000", "4-", "4xx-5xx", " 404"])
    def test_that_make_no_sense_are_refused(self, text):
        with pytest.raises(ValidationFailedError) as refused:
            parse_statuses(text)
        assert refused.value.field == "status"

    def test_filters_survive_being_written_down(self):
        filters = EventFilters(mode="live", event_ids=("a", "b"), lowest_status=400)
        assert EventFilters.from_dict(filters.as_dict()) == filters
        assert filters.as_dict() == {"mode": "live", "event_ids": ["a", "b"], "lowest_status": 400}
        assert replace(filters, mode="").with_statuses("") == replace(filters, mode="")
