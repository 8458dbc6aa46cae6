"""Lines that were set aside: found, shown, put through the collector's path again, and dismissed."""

# ruff: noqa: PLR0917 - fixtures are arguments

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.audit import AuditRow
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.usage.collect.batch_attribution import Attribution
from control_plane.usage.collect.columns import EventColumns
from control_plane.usage.collect.endpoints import EndpointNames
from control_plane.usage.collect.enrichment import KeptDays
from control_plane.usage.collect.storing import IMPLAUSIBLE, TOO_LATE, UNPROVEN
from control_plane.usage.dead_letters import queries
from control_plane.usage.dead_letters.model import Letter, LetterState
from control_plane.usage.dead_letters.operations import dismiss_letters, replay_letters
from control_plane.usage.dead_letters.queries import find_letter, list_letters
from control_plane.usage.store import EventStore, UnstorableRowError
from gateway_contract.outcomes import Outcome
from gateway_contract.redis_names import usage_stream
from gateway_contract.usage_lines import FIELD_LINES

Sessions = async_sessionmaker[AsyncSession]
OTHER_SECRET = b"what gateways of the other site sign with"


@pytest.fixture
def unknowing() -> Attribution:
    """Knows another secret than the gateways have."""
    return Attribution(secrets=(OTHER_SECRET,), endpoints=EndpointNames())


@pytest.fixture
def letters(sessions: Sessions, store: EventStore) -> Callable[..., Any]:
    async def letters(**wanted: Any) -> list[Letter]:
        async with sessions() as session:
            found: list[Letter] = []
            cursor = None
            while True:
                page = await list_letters(session, store, cursor=cursor, **{"limit": 50, **wanted})
                found += page.items
                cursor = page.next_cursor
                if cursor is None:
                    return found

    return letters


@pytest.fixture
def replay(sessions: Sessions, store: EventStore, attribution: Attribution, noon: Any) -> Callable[..., Any]:
    async def replay(*found: Letter, by: Attribution = attribution) -> list[Letter]:
        async with sessions() as session, session.begin():
            return await replay_letters(
                session,
                store,
                letter_ids=[letter.stored.id for letter in found],
                attribution=by,
                kept=KeptDays(default_days=3000),
                reason="the secret is known now",
                actor="token:1",
                now=noon + timedelta(minutes=5),
            )

    return replay


@pytest.fixture
def dismiss(sessions: Sessions, store: EventStore, noon: Any) -> Callable[..., Any]:
    async def dismiss(*found: Letter) -> list[Letter]:
        async with sessions() as session, session.begin():
            return await dismiss_letters(
                session,
                store,
                letter_ids=[letter.stored.id for letter in found],
                reason="noise",
                actor="token:2",
                now=noon,
            )

    return dismiss


async def billed(sessions: Sessions) -> int:
    async with sessions() as session:
        return await session.scalar(
            text("SELECT coalesce(sum(calls), 0) FROM usage_hourly WHERE account_id <> ''")
        )


async def audited(sessions: Sessions) -> list[str]:
    async with sessions() as session:
        return list(await session.scalars(select(AuditRow.action).order_by(AuditRow.at, AuditRow.id)))


class TestUnknownSecret:
    async def test_calls_are_set_aside_and_become_their_accounts_by_replay(
        self, gateway, collect, letters, replay, aggregate, store, sessions, unknowing
    ):
        calls = [*gateway.calls(3), *gateway.calls(2, account="acc_2", outcome=Outcome.RATE_LIMITED, status=429)]
        await gateway.ship(calls)
        await collect(by=unknowing)
        await aggregate()
        assert await billed(sessions) == 0
        found = await letters(state=LetterState.OPEN)
        assert {letter.stored.reason for letter in found} == {UNPROVEN}
        assert {letter.stored.shipper_id for letter in found} == {"node_a"}
        assert len(found) == 5
        done = await replay(*found)
        assert {letter.handling.state for letter in done} == {LetterState.REPLAYED}
        assert {letter.handling.event_id for letter in done} == {call.receipt.event_id for call in calls}
        await aggregate()
        assert await billed(sessions) == 5
        assert store.count_events(account_id="acc_1") == 3
        assert await audited(sessions) == ["dead_letter.replayed"] * 5
        assert await letters(state=LetterState.OPEN) == []

    async def test_a_replay_counts_once_however_often_and_beside_whom(
        self, gateway, collect, letters, replay, aggregate, store, sessions, unknowing
    ):
        await gateway.ship(gateway.calls(4))
        await collect(by=unknowing)
        found = await letters()
        await asyncio.gather(replay(*found), replay(*reversed(found)))
        await replay(*found)
        gateway.position = 0
        gateway.numbers = iter(range(1, 99))
        await gateway.ship(gateway.calls(4))  # shipped again, and the secret is known by now
        await collect()
        await aggregate()
        assert store.count_events(account_id="acc_1") == 4
        assert await billed(sessions) == 4
        assert await audited(sessions) == ["dead_letter.replayed"] * 4

    async def test_a_replay_that_was_not_committed_is_done_again(
        self, gateway, collect, letters, replay, aggregate, store, sessions, unknowing, attribution, noon
    ):
        await gateway.ship(gateway.calls(2))
        await collect(by=unknowing)
        found = await letters()
        async with sessions() as session:  # the process dies before it commits
            await replay_letters(
                session,
                store,
                letter_ids=[letter.stored.id for letter in found],
                attribution=attribution,
                kept=KeptDays(default_days=3000),
                reason="x",
                actor="x",
                now=noon,
            )
        assert len(await letters(state=LetterState.OPEN)) == 2
        await replay(*found)
        await aggregate()
        assert await billed(sessions) == 2

    async def test_that_stays_unknown_leaves_the_letter_open_with_its_reason(
        self, gateway, collect, letters, replay, store, sessions, unknowing
    ):
        await gateway.ship(gateway.calls(1))
        await collect(by=unknowing)
        (letter,) = await replay(*await letters(), by=unknowing)
        assert letter.handling.state is LetterState.OPEN
        assert (letter.handling.attempts, letter.handling.result) == (1, UNPROVEN)
        assert (letter.handling.author, letter.handling.reason) == ("token:1", "the secret is known now")
        assert store.count_events() == 1
        assert await audited(sessions) == ["dead_letter.replay_failed"]

    async def test_what_a_caller_sends_as_a_receipt_is_no_reason_to_set_a_line_aside(
        self, gateway, collect, letters, unknowing
    ):
        (call,) = gateway.calls(1)
        await gateway.ship([call.line() | {"ra": ""}, call.line() | {"ra": "the upstream's own", "id": "2"}])
        await collect(by=unknowing)
        assert await letters() == []


class TestOtherLetters:
    async def test_lines_of_an_entry_that_nobody_could_read_are_replayed_one_by_one(
        self, gateway, collect, letters, replay, store, redis
    ):
        lines = [json.dumps(call.line()).encode() for call in gateway.calls(2)]
        await redis.xadd(usage_stream(0), {"shipper": b"\xff", FIELD_LINES: b"\n".join([*lines, b"{nonsense"])})
        await collect()
        found = await letters(reason="unreadable entry")
        assert len(found) == 3
        done = await replay(*found)
        assert sorted(letter.handling.state for letter in done) == ["open", "replayed", "replayed"]
        assert store.count_events(account_id="acc_1") == 2

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"ru": "", "ra": "", "at": 12}, IMPLAUSIBLE),
            ({"ru": "", "ra": "", "at": 1_577_900_000_000}, TOO_LATE),
            ({"v": 2}, "unreadable line"),
        ],
    )
    async def test_what_can_never_be_an_event_stays_open(
        self, gateway, collect, letters, replay, store, changes, reason
    ):
        (call,) = gateway.calls(1)
        await gateway.ship([call.line() | changes])
        await collect()
        (letter,) = await replay(*await letters())
        assert reason in letter.stored.reason
        assert letter.handling.state is LetterState.OPEN
        assert reason in letter.handling.result
        assert store.count_events() == 0

    async def test_one_that_the_store_refuses_does_not_hold_up_the_others(
        self, gateway, collect, letters, replay, store, unknowing, monkeypatch
    ):
        await gateway.ship(gateway.calls(3))
        await collect(by=unknowing)
        found = await letters()
        insert = store.insert

        def refuse(events: EventColumns) -> None:
            if "testemitter-2" in events.columns.get("event_id", ()):
                raise UnstorableRowError("no column takes it")
            insert(events)

        monkeypatch.setattr(store, "insert", refuse)
        done = {letter.handling.result: letter.handling.state for letter in await replay(*found)}
        assert done == {"": "replayed", "unstorable: no column takes it": "open"}
        assert store.count_events(account_id="acc_1") == 2


class TestDismissing:
    async def test_takes_letters_off_the_open_ones_and_a_replay_takes_them_back(
        self, gateway, collect, letters, replay, dismiss, store, sessions, unknowing
    ):
        await gateway.ship(gateway.calls(2))
        await collect(by=unknowing)
        first, second = await letters()
        for _ in range(2):
            (done,) = await dismiss(first)
            assert done.handling.state is LetterState.DISMISSED
            assert (done.handling.reason, done.handling.author) == ("noise", "token:2")
        assert await letters(state=LetterState.OPEN) == [second]
        assert [letter.stored.id for letter in await letters(state=LetterState.DISMISSED)] == [first.stored.id]
        (done,) = await replay(first)
        assert done.handling.state is LetterState.REPLAYED
        (done,) = await dismiss(first)
        assert done.handling.state is LetterState.REPLAYED
        assert store.count_events(account_id="acc_1") == 1
        assert await audited(sessions) == ["dead_letter.dismissed", "dead_letter.replayed"]


class TestListing:
    async def test_pages_neither_skip_nor_repeat_and_scan_on_for_a_rare_state(
        self, gateway, collect, letters, dismiss, sessions, store, monkeypatch
    ):
        monkeypatch.setattr(queries, "SCANNED", 4)
        monkeypatch.setattr(queries, "_SCANNED_AT_ONCE", 2)
        await gateway.ship_bytes(b"\n".join(b"{nonsense %d" % number for number in range(11)))
        await collect()
        every = await letters(limit=2)
        assert sorted(letter.stored.number for letter in every) == list(range(11))
        assert every == sorted(every, key=lambda letter: letter.stored.id, reverse=True)
        last = every[-1]
        await dismiss(last)
        assert [letter.stored.id for letter in await letters(state=LetterState.DISMISSED, limit=1)] == [
            last.stored.id
        ]
        assert len(await letters(state=LetterState.OPEN, limit=3)) == 10

    async def test_finds_by_a_part_of_the_reason_and_by_shipper(self, gateway, make_gateway, collect, letters):
        await gateway.ship_bytes(b"{nonsense")
        await make_gateway(shipper="node_b").ship([gateway.calls(1)[0].line() | {"v": 3}])
        await collect()
        assert len(await letters()) == 2
        assert [letter.stored.shipper_id for letter in await letters(shipper_id="node_b")] == ["node_b"]
        assert len(await letters(reason="UNREADABLE")) == 2
        assert await letters(reason="no such reason") == []

    async def test_a_letter_keeps_its_id_when_it_comes_again(self, gateway, collect, letters):
        await gateway.ship_bytes(b"{nonsense")
        await collect()
        (first,) = await letters()
        gateway.position = 0
        await gateway.ship_bytes(b"{nonsense")
        await collect()
        (again,) = await letters()
        assert again.stored.id == first.stored.id

    async def test_says_so_where_there_is_no_such_letter_or_cursor(self, sessions, store, dismiss):
        async with sessions() as session:
            with pytest.raises(NotFoundError):
                await find_letter(session, store, letter_id="dl_" + "0" * 32)
            with pytest.raises(ValidationFailedError):
                await list_letters(session, store, cursor="x", limit=1)
            assert await session.scalar(select(func.count()).select_from(AuditRow)) == 0
