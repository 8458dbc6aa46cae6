"""Disputes: a case goes only where its table says, and nothing happens to it without an entry in its trail."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.foundation.clock import from_ms
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from control_plane.usage.corrections.queries import voided_events
from control_plane.usage.digests.tables import UsageDigest
from control_plane.usage.requests.disputes import operations, queries
from control_plane.usage.requests.disputes.case_file import case_file, safe_cell
from control_plane.usage.requests.disputes.model import (
    MAX_REQUESTS,
    TRANSITIONS,
    Decision,
    DisputeFacts,
    DisputeStatus,
    DisputeStepRefusedError,
    NoSuchRequestsError,
    Step,
    TooManyDisputedRequestsError,
    TooManyVoidsError,
    status_after,
)
from control_plane.usage.requests.disputes.tables import Dispute
from control_plane.usage.tables import UsageHour
from tests.control_plane.builders import an_account, audit_of
from tests.control_plane.usage.requests.conftest import NOON, an_event

FACTS = DisputeFacts(subject="Double charges", reason="We called once.", period_text="March", amount_text="$12")
ACTOR = "token:tok_support"
LATER = NOON + timedelta(hours=2)


@pytest.fixture
async def account_id(session: AsyncSession) -> str:
    return (await an_account(session, now=NOON - timedelta(days=40))).id


@pytest.fixture
def opened(session: AsyncSession, account_id: str) -> Callable[..., Any]:
    async def open_one(count: int = 3, **facts: str) -> Dispute:
        return await operations.open_dispute(
            session,
            account_id=account_id,
            facts=DisputeFacts(**facts) if facts else FACTS,
            events=[an_event(number, account_id=account_id) for number in range(count)],
            selection={"status": "5xx"},
            actor=ACTOR,
            now=NOON,
        )

    return open_one


async def take(session: AsyncSession, dispute_id: str, *steps: Step) -> Dispute:
    """Take steps in their plainest form."""
    common = {"dispute_id": dispute_id, "actor": ACTOR, "now": LATER}
    dispute = None
    for step in steps:
        match step:
            case Step.NOTED:
                dispute = await operations.add_note(session, text="a note", internal=False, **common)
            case Step.REVIEW_STARTED:
                dispute = await operations.start_review(session, text="", **common)
            case Step.DECIDED:
                words = {"decision": Decision.PARTLY, "explanation": "half of it"}
                dispute = await operations.decide(session, **words, **common)
            case Step.CLOSED:
                dispute = await operations.close_dispute(session, text="", **common)
            case Step.REOPENED:
                dispute = await operations.reopen_dispute(session, text="again", **common)
            case Step.REQUESTS_ADDED:
                known = await queries.dispute_by_id(session, dispute_id)
                event = an_event(10_000 + known.steps, account_id=known.account_id)
                dispute = await operations.add_requests(session, events=[event], selection={}, **common)
    return dispute


class TestTransitions:
    @pytest.mark.parametrize("step", [step for step in Step if step is not Step.OPENED])
    @pytest.mark.parametrize("status", list(DisputeStatus))
    def test_lead_where_the_table_says_or_nowhere(self, status, step):
        expected = TRANSITIONS[step].get(status)
        if expected is None:
            with pytest.raises(DisputeStepRefusedError) as refused:
                status_after(status, step)
            assert status.replace("_", " ") in refused.value.message
        else:
            assert status_after(status, step) is expected

    def test_every_status_can_be_left_and_reached(self):
        reached = {after for steps in TRANSITIONS.values() for before, after in steps.items() if before != after}
        assert reached == set(DisputeStatus) - {DisputeStatus.OPEN}

    def test_a_case_is_opened_once(self):
        with pytest.raises(DisputeStepRefusedError):
            status_after("open", Step.OPENED)


class TestCase:
    async def test_keeps_copies_of_its_requests_and_a_whole_trail(self, session, opened):
        dispute = await opened()
        await take(session, dispute.id, Step.REVIEW_STARTED, Step.NOTED, Step.DECIDED, Step.CLOSED, Step.REOPENED)
        await session.commit()
        trail = await queries.whole_trail(session, dispute.id)
        assert [(row.number, row.step, row.status_before, row.status_after) for row in trail] == [
            (1, "opened", None, "open"),
            (2, "review_started", "open", "under_review"),
            (3, "noted", "under_review", "under_review"),
            (4, "decided", "under_review", "decided"),
            (5, "closed", "decided", "closed"),
            (6, "reopened", "closed", "under_review"),
        ]
        assert {(row.author, row.at) for row in trail[1:]} == {(ACTOR, LATER)}
        assert trail[0].details == {"selection": {"status": "5xx"}, "requests": 3}
        assert trail[5].details == {"decision": "partly"}
        assert (dispute.decision, dispute.explanation, dispute.decided_at) == (None, "", None)
        audit = await audit_of(session, dispute.id)
        assert sorted(row.action for row in audit) == sorted(f"dispute.{row.step}" for row in trail)
        requests = await queries.all_disputed_requests(session, dispute.id)
        events = [an_event(number, account_id=dispute.account_id) for number in range(3)]
        assert [row.event for row in requests] == [event.as_dict() for event in events]
        assert [row.occurred_at for row in requests] == [from_ms(event.occurred_at_ms) for event in events]

    async def test_requests_are_added_once_and_stay_as_they_were(self, session, opened):
        dispute = await opened()
        account_id = dispute.account_id
        events = [an_event(number, account_id=account_id, status=500) for number in range(5)]
        arguments = {"dispute_id": dispute.id, "selection": {}, "actor": ACTOR, "now": LATER}
        await operations.add_requests(session, events=events, **arguments)
        assert dispute.request_count == 5
        page = await queries.disputed_requests(session, dispute_id=dispute.id, limit=4)
        rest = await queries.disputed_requests(session, dispute_id=dispute.id, limit=4, cursor=page.next_cursor)
        found = [(row.event["status"], row.added_in_step) for row in (*page.items, *rest.items)]
        assert found == [(200, 1)] * 3 + [(500, 2)] * 2
        with pytest.raises(NoSuchRequestsError):
            await operations.add_requests(session, events=events, **arguments)
        with pytest.raises(NotFoundError):
            await operations.add_requests(session, events=[an_event(9, account_id="acc_2")], **arguments)

    async def test_too_many_requests_are_refused(self, session, opened, monkeypatch):
        monkeypatch.setattr("control_plane.usage.requests.disputes.evidence.MAX_REQUESTS", 4)
        assert MAX_REQUESTS == 10_000
        dispute = await opened()
        events = [an_event(number, account_id=dispute.account_id) for number in range(6)]
        with pytest.raises(TooManyDisputedRequestsError):
            await operations.add_requests(
                session, dispute_id=dispute.id, events=events, selection={}, actor=ACTOR, now=LATER
            )

    async def test_any_row_of_steps_leaves_a_trail_without_gaps(self, session, opened):
        choices = [step for step in Step if step not in {Step.OPENED, Step.REQUESTS_VOIDED}]

        async def play(steps: list[Step]) -> None:
            dispute = await opened(count=1)
            expected = ["opened"]
            for step in steps:
                allowed = dispute.status in TRANSITIONS[step]
                if allowed:
                    await take(session, dispute.id, step)
                    expected.append(step.value)
                else:
                    with pytest.raises(DisputeStepRefusedError):
                        await take(session, dispute.id, step)
            await session.commit()
            trail = await queries.whole_trail(session, dispute.id)
            assert [row.step for row in trail] == expected
            assert [row.number for row in trail] == list(range(1, len(trail) + 1))
            assert trail[-1].status_after == dispute.status
            assert len(await audit_of(session, dispute.id)) == len(trail)

        wanted: list[list[Step]] = []

        @given(st.lists(st.sampled_from(choices), max_size=9))
        @settings(max_examples=12, database=None, suppress_health_check=list(HealthCheck))
        def draw(steps: list[Step]) -> None:
            wanted.append(steps)

        draw()
        for steps in wanted:
            await play(steps)

    async def test_lists_newest_first(self, session, opened):
        made = [(await opened(count=0, subject=f"case {number}")).id for number in range(3)]
        first = await queries.list_disputes(session, limit=2)
        second = await queries.list_disputes(session, limit=2, cursor=first.next_cursor)
        assert [row.id for row in (*first.items, *second.items)] == made[::-1]
        assert (await queries.list_disputes(session, status=DisputeStatus.CLOSED)).items == ()
        steps = await queries.dispute_steps(session, dispute_id=made[0])
        assert [row.number for row in steps.items] == [1]

    async def test_says_in_which_hours_its_requests_are_counted(self, session, opened):
        dispute = await opened()
        session.add(
            UsageHour(account_id=dispute.account_id, hour=NOON, revision=4, aggregated_at=NOON, sealed_at=LATER)
        )
        for sequence, revision in enumerate((3, 4), start=1):
            session.add(
                UsageDigest(
                    account_id=dispute.account_id,
                    sequence=sequence,
                    hour=NOON,
                    revision=revision,
                    events=3,
                    root=f"{revision}" * 64,
                    previous="0" * 64,
                    digest=f"{revision}" * 64,
                    created_at=LATER,
                )
            )
        await operations.add_requests(
            session,
            dispute_id=dispute.id,
            events=[an_event(8, account_id=dispute.account_id, occurred_at_ms=an_event(0).occurred_at_ms - 1)],
            selection={},
            actor=ACTOR,
            now=LATER,
        )
        hours = await queries.disputed_hours(session, dispute)
        assert [(hour.hour, hour.requests, hour.revision, hour.sealed_at, hour.root) for hour in hours] == [
            (NOON - timedelta(hours=1), 1, 0, None, ""),
            (NOON, 3, 4, LATER, "4" * 64),
        ]


class TestTheDatabase:
    async def test_refuses_to_change_trail_and_evidence(self, session, opened):
        await opened()
        await session.commit()
        for statement in (
            "UPDATE dispute_steps SET text = 'otherwise'",
            "DELETE FROM dispute_steps",
            "TRUNCATE dispute_steps",
            "UPDATE disputed_requests SET event = '{}'",
            "DELETE FROM disputed_requests",
            "TRUNCATE disputed_requests",
            "DELETE FROM disputes",
        ):
            with pytest.raises(DBAPIError, match="never changed"):
                await session.execute(text(statement))
            await session.rollback()

    async def test_refuses_a_change_without_an_entry_in_the_trail(self, session, opened):
        await opened()
        await session.commit()
        for statement in ("UPDATE disputes SET status = 'under_review'", "UPDATE disputes SET steps = 2"):
            await session.execute(text(statement))
            with pytest.raises(DBAPIError, match="without an entry in its trail"):
                await session.commit()
            await session.rollback()


class TestDecision:
    async def test_voids_the_requests_and_says_so_in_the_trail(self, session, store, keep, opened):
        dispute = await opened()
        keep(*(an_event(number, account_id=dispute.account_id) for number in range(4)))
        await take(session, dispute.id, Step.REVIEW_STARTED)
        arguments = {"dispute_id": dispute.id, "actor": ACTOR, "now": LATER, "explanation": "our fault"}
        await operations.decide(
            session, decision=Decision.PARTLY, void_in=store, void_only=["node-0", "node-2"], **arguments
        )
        await session.commit()
        voids = await voided_events(
            session, account_id=dispute.account_id, event_ids=[f"node-{number}" for number in range(4)]
        )
        assert voids.keys() == {"node-0", "node-2"}
        assert {dispute.id in void.reason for void in voids.values()} == {True}
        last = (await queries.whole_trail(session, dispute.id))[-1]
        assert last.step == "requests_voided"
        assert last.details == {"requests": 2, "voids": {key: void.id for key, void in voids.items()}}
        # reopened and decided again: what is voided stays so, and is not voided twice
        await take(session, dispute.id, Step.REOPENED)
        await operations.decide(session, decision=Decision.ACCEPTED, void_in=store, **arguments)
        await session.commit()
        again = await voided_events(
            session, account_id=dispute.account_id, event_ids=["node-0", "node-1", "node-2"]
        )
        assert {again[key].id for key in voids} == {void.id for void in voids.values()}
        assert len(again) == 3

    async def test_that_cannot_void_all_decides_nothing(self, session, store, keep, opened):
        dispute = await opened()
        keep(an_event(0, account_id=dispute.account_id))
        dispute_id = dispute.id
        await take(session, dispute_id, Step.REVIEW_STARTED)
        await session.commit()
        with pytest.raises(NotFoundError):
            await operations.decide(
                session,
                dispute_id=dispute_id,
                decision=Decision.ACCEPTED,
                explanation="yes",
                void_in=store,
                actor=ACTOR,
                now=LATER,
            )
        await session.rollback()
        found = await queries.dispute_by_id(session, dispute_id)
        await session.refresh(found)
        assert (found.status, found.decision) == ("under_review", None)
        assert await voided_events(session, account_id=found.account_id, event_ids=["node-0"]) == {}

    async def test_refuses_what_makes_no_sense(self, session, store, opened, monkeypatch):
        dispute = await opened()
        await take(session, dispute.id, Step.REVIEW_STARTED)
        arguments = {"dispute_id": dispute.id, "actor": ACTOR, "now": LATER, "explanation": "no"}
        for decision, void_in, void_only, field in (
            (Decision.REJECTED, store, [], "void_requests"),
            (Decision.PARTLY, None, ["node-0"], "void_only"),
            (Decision.PARTLY, store, ["node-0", "node-77"], "void_only"),
        ):
            with pytest.raises(ValidationFailedError) as refused:
                await operations.decide(
                    session, decision=decision, void_in=void_in, void_only=void_only, **arguments
                )
            assert refused.value.field == field

    async def test_voids_only_so_many(self, session, store, opened, monkeypatch):
        monkeypatch.setattr("control_plane.usage.requests.disputes.voiding.MAX_VOIDS", 2)
        dispute = await opened()
        await take(session, dispute.id, Step.REVIEW_STARTED)
        with pytest.raises(TooManyVoidsError):
            await operations.decide(
                session,
                dispute_id=dispute.id,
                decision=Decision.ACCEPTED,
                explanation="yes",
                void_in=store,
                actor=ACTOR,
                now=LATER,
            )


class TestCaseFile:
    async def test_tells_the_customer_everything_but_what_is_internal(self, session, opened):
        dispute = await opened()
        await operations.add_note(
            session, dispute_id=dispute.id, text="they always do this", internal=True, actor=ACTOR, now=LATER
        )
        await operations.add_note(
            session, dispute_id=dispute.id, text="we are looking", internal=False, actor=ACTOR, now=LATER
        )
        arguments = {
            "steps": await queries.whole_trail(session, dispute.id),
            "requests": await queries.all_disputed_requests(session, dispute.id),
            "hours": await queries.disputed_hours(session, dispute),
        }
        content = case_file(dispute, **arguments)
        assert content == case_file(dispute, **arguments)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.namelist() == ["case.json", "requests.csv"]
            case = json.loads(archive.read("case.json"))
            rows = list(csv.DictReader(io.StringIO(archive.read("requests.csv").decode())))
        assert [step["text"] for step in case["trail"]] == ["We called once.", "we are looking"]
        assert ACTOR not in json.dumps(case)
        assert (case["amount"], case["requests"]) == ("$12", 3)
        assert [row["event_id"] for row in rows] == ["node-0", "node-1", "node-2"]
        assert "emitter" not in rows[0]

    @pytest.mark.parametrize(
        ("value", "expected"),
        [("=1", "'=1"), (" +1", "' +1"), ("a\nb", "a b"), ("/x", "/x"), (5, 5), ({"a": 1}, '{"a": 1}'), ("", "")],
    )
    def test_no_cell_is_a_formula(self, value, expected):
        assert safe_cell(value) == expected
