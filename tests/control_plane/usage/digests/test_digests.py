"""Digests of sealed hours: made once for each revision, chained, never changed; and what customers check."""

# ruff: noqa: PLR0917 - fixtures are arguments

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from control_plane.foundation.clock import to_ms
from control_plane.foundation.errors import ValidationFailedError
from control_plane.usage.collect.columns import COLUMN_NAMES, EventColumns
from control_plane.usage.corrections.tables import UsageVoid
from control_plane.usage.digests.chain import Digest, hash_digest
from control_plane.usage.digests.leaf import decode_leaf
from control_plane.usage.digests.making import make_digests, tree_of_hour
from control_plane.usage.digests.merkle import root_of
from control_plane.usage.digests.proofs import WantedEvent, prove_events, prove_in_hour, wanted_events
from control_plane.usage.digests.tables import UsageDigest
from control_plane.usage.digests.verify import Evidence, ReceiptFileError, read_receipts, verify
from control_plane.usage.model import HourKey
from control_plane.usage.rollups.sealing import SealingConfig, seal_hours
from control_plane.usage.store.digest_leaves import leaf_pages, leaves_of_events
from gateway_contract.outcomes import Outcome
from gateway_contract.receipts import Place, sign_receipt

HOUR = timedelta(hours=1)
GOLDEN = json.loads((Path(__file__).parent / "data" / "golden.json").read_text())


@pytest.fixture
def seal(gateway, collect, aggregate, sessions, noon):
    async def seal(calls, *, now=None):
        now = now or noon + 2 * HOUR
        await gateway.ship(calls, shipped_up_to=now + HOUR)
        await collect(now=now)
        await aggregate(now)
        async with sessions() as session, session.begin():
            await seal_hours(session, config=SealingConfig(), now=now)

    return seal


@pytest.fixture
def make(sessions, store, noon):
    async def make(now=None, **options):
        return await make_digests(sessions, store, since=None, now=now or noon + 2 * HOUR, **options)

    return make


@pytest.fixture
def digests(sessions):
    async def read():
        async with sessions() as session:
            return list(await session.scalars(select(UsageDigest).order_by(UsageDigest.sequence)))

    return read


@pytest.fixture
def receipts(secret):
    """Answer receipts, as a customer's client saves them."""
    return lambda calls: [sign_receipt(call.receipt, place=Place.ANSWER, secret=secret) for call in calls]


@pytest.fixture
def evidence(sessions, store, digests):
    """What the server says of receipts, as JSON would carry it."""

    async def gather(lines):
        async with sessions() as session:
            found = await prove_events(session, store, account_id="acc_1", wanted=wanted_events("acc_1", lines))
        return Evidence(
            digests=[_as_json(row) for row in await digests()],
            proofs={
                proof.event_id: {
                    "leaf": proof.leaf,
                    "index": proof.index,
                    "size": proof.size,
                    "path": list(proof.path),
                    "digest": _as_json(proof.digest),
                }
                for proof in found.found
            },
            absent={absence.event_id: absence.reason.value for absence in found.absent},
        )

    return gather


def vars_of(link):
    """A link's values, whether it is one or came as JSON."""
    read = link.__getitem__ if isinstance(link, dict) else lambda name: getattr(link, name)
    values = {name: read(name) for name in ("account_id", "sequence", "revision", "events", "root", "previous")}
    hour = read("hour")
    return values | {"hour": hour if isinstance(hour, str) else hour.isoformat()}


def _as_json(row):
    return {
        "account_id": row.account_id,
        "sequence": row.sequence,
        "hour": row.hour.isoformat(),
        "revision": row.revision,
        "events": row.events,
        "root": row.root,
        "previous": row.previous,
        "digest": row.digest,
    }


class TestLeavesInTheStore:
    def test_are_written_as_the_known_ones(self, store):
        rows = [vector["leaf"] for vector in GOLDEN["leaves"]]
        columns = {
            **{name: [""] * len(rows) for name in COLUMN_NAMES},
            **{
                name: [0] * len(rows)
                for name in COLUMN_NAMES
                if name.startswith(("bytes", "latency", "gateway", "upstream", "ingested", "retention"))
            },
            "event_id": [row["event_id"] for row in rows],
            "occurred_at": [row["decided_at_ms"] for row in rows],
            "account_id": [row["account"] for row in rows],
            "key_id": [row["key"] for row in rows],
            "flags": [["bad_units:tokens", *row["flags"]] for row in rows],
        }
        for name in ("mode", "product", "endpoint", "status", "outcome", "units", "dimensions", "call_number"):
            columns[name] = [row[name] for row in rows]
        if "properties" in columns:
            columns["properties"] = [{}] * len(rows)
        if "retention_days" in columns:
            columns["retention_days"] = [90] * len(rows)
        store.insert(EventColumns(columns))
        hour = HourKey("acc_1", rows[0]["decided_at_ms"] // 3_600_000 * 3_600_000)
        voided = [row["event_id"] for row in rows if "voided" in row["flags"]]
        found = leaves_of_events(store, hour, voided=voided, event_ids=[row["event_id"] for row in rows])
        assert [leaf.text for leaf in found] == [vector["text"] for vector in GOLDEN["leaves"]]
        assert [leaf.leaf_hash.hex() for leaf in found] == [vector["sha256"] for vector in GOLDEN["leaves"]]


class TestMaking:
    async def test_covers_every_event_of_the_hour(self, gateway, seal, make, digests, store, noon):
        calls = [*gateway.calls(11), *gateway.calls(2, outcome=Outcome.RATE_LIMITED, units=0, status=429)]
        await seal(calls)
        assert (await make()).made == 1
        (digest,) = await digests()
        assert (digest.events, digest.revision, digest.sequence, digest.previous) == (13, 1, 1, "0" * 64)
        (page,) = leaf_pages(store, HourKey("acc_1", to_ms(noon)), voided=(), page_size=64)
        assert sorted(leaf.event_id for leaf in page) == [leaf.event_id for leaf in page]
        assert root_of([leaf.leaf_hash for leaf in page]).hex() == digest.root

    async def test_holds_one_page_at_a_time_and_comes_to_the_same(self, gateway, seal, store, noon):
        await seal(gateway.calls(37))
        hour = HourKey("acc_1", to_ms(noon))
        assert len({tree_of_hour(store, hour, voided=(), page_size=size) for size in (1, 4, 8, 64)}) == 1

    async def test_twice_makes_one(self, gateway, seal, make, digests):
        await seal(gateway.calls(3))
        assert ((await make()).made, (await make()).made) == (1, 0)
        assert len(await digests()) == 1

    async def test_a_late_event_adds_a_digest_and_leaves_the_old_one(self, gateway, seal, make, digests, noon):
        await seal(gateway.calls(3))
        await make()
        await seal(gateway.calls(1), now=noon + 5 * HOUR)
        await make(noon + 5 * HOUR)
        first, second = await digests()
        assert [(row.revision, row.events) for row in (first, second)] == [(1, 3), (2, 4)]
        assert second.previous == first.digest

    async def test_an_hour_with_new_events_waits_for_its_next_seal(
        self, gateway, seal, collect, make, digests, noon
    ):
        await seal(gateway.calls(3))
        await gateway.ship(gateway.calls(1))
        await collect(now=noon + 2 * HOUR)
        assert ((await make()).made, await digests()) == (0, [])

    async def test_leaves_none_out_where_there_are_more_than_fit_a_round(self, gateway, seal, make, digests, noon):
        await seal([call for hour in range(5) for call in gateway.calls(1, noon - hour * HOUR)])
        for _ in range(3):
            await make(limit=2)
        assert len(await digests()) == 5

    async def test_an_hour_that_fails_holds_up_no_other_and_is_tried_again(
        self, gateway, seal, make, digests, store, noon, monkeypatch
    ):
        await seal([call for hour in range(3) for call in gateway.calls(1, noon - hour * HOUR)])
        read = store.query

        def fail(statement, parameters):
            if parameters.get("hour") == to_ms(noon - HOUR) // 1000:
                raise OSError("too large")
            return read(statement, parameters)

        with monkeypatch.context() as patched:
            patched.setattr(store, "query", fail)
            assert (await make()).made == 2
        found = await make()
        assert (found.made, len(await digests())) == (1, 3)

    async def test_calls_of_nobody_have_none(self, gateway, seal, make):
        await seal([gateway.calls(1)[0].line() | {"ru": "", "ra": "-.no_key"}])
        assert (await make()).made == 0

    @pytest.mark.parametrize("statement", ["UPDATE usage_digests SET events = 0", "DELETE FROM usage_digests"])
    async def test_what_is_made_is_never_changed(self, gateway, seal, make, sessions, statement):
        await seal(gateway.calls(1))
        await make()
        with pytest.raises(DBAPIError, match="never changed"):
            async with sessions() as session, session.begin():
                await session.execute(text(statement))


class TestProofs:
    async def test_hold_for_every_event_whatever_the_page(self, gateway, seal, make, digests, store, noon):
        calls = gateway.calls(21)
        await seal(calls)
        await make()
        (digest,) = await digests()
        hour, ids = HourKey("acc_1", to_ms(noon)), {call.receipt.event_id for call in calls}
        whole = prove_in_hour(store, hour, digest=digest, event_ids=ids, voided=())
        paged = prove_in_hour(store, hour, digest=digest, event_ids=ids, voided=(), page_size=4)
        assert whole == paged
        assert len(whole) == 21

    async def test_tell_what_is_not_sealed_from_what_is_not_there(
        self, gateway, seal, make, sessions, store, noon
    ):
        await seal(gateway.calls(2))
        await make()
        wanted = [WantedEvent("nobodys-1", to_ms(noon)), WantedEvent("early-1", to_ms(noon + HOUR))]
        async with sessions() as session:
            found = await prove_events(session, store, account_id="acc_1", wanted=wanted)
        assert {absence.event_id: absence.reason.value for absence in found.absent} == {
            "nobodys-1": "not_stored",
            "early-1": "not_sealed",
        }

    async def test_are_bounded(self, sessions, store, noon):
        many = [WantedEvent(f"e-{number}", to_ms(noon)) for number in range(501)]
        far = [WantedEvent("e-1", to_ms(noon + hour * HOUR)) for hour in range(49)]
        for wanted in (many, far):
            async with sessions() as session:
                with pytest.raises(ValidationFailedError):
                    await prove_events(session, store, account_id="acc_1", wanted=wanted)

    def test_are_asked_for_by_receipts_of_the_account_alone(self, gateway, receipts):
        with pytest.raises(ValidationFailedError, match="another account"):
            wanted_events("acc_1", receipts(gateway.calls(1, account="acc_2")))
        with pytest.raises(ValidationFailedError, match="not a receipt"):
            wanted_events("acc_1", ["1.2.3"])


class TestVerify:
    async def test_holds_for_what_was_sealed(self, gateway, seal, make, receipts, evidence):
        calls = gateway.calls(9)
        await seal(calls)
        await make()
        lines = receipts(calls[:7])
        verdict = verify(read_receipts(lines), await evidence(lines))
        assert verdict.is_sound
        assert (verdict.verified, verdict.digests, verdict.events_without_receipt) == (7, 1, 2)

    async def test_names_receipts_that_are_not_in_usage(self, gateway, seal, make, receipts, evidence):
        calls = gateway.calls(5)
        await seal(calls[1:])
        await make()
        lines = receipts(calls)
        verdict = verify(read_receipts(lines), await evidence(lines))
        assert not verdict.is_sound
        assert [line.split(":")[0] for line in verdict.missing] == [calls[0].receipt.event_id]
        assert verdict.verified == 4

    async def test_fails_where_an_event_was_removed_after_the_seal(
        self, gateway, seal, make, receipts, evidence, store
    ):
        calls = gateway.calls(5)
        await seal(calls)
        await make()
        store._client.command(
            f"DELETE FROM usage_events WHERE event_id = '{calls[2].receipt.event_id}'",
            settings={"lightweight_deletes_sync": 2},
        )
        lines = receipts(calls)
        verdict = verify(read_receipts(lines), await evidence(lines))
        assert len(verdict.missing) == 1
        assert len(verdict.wrong) == 4
        assert "does not lead to the sealed root" in verdict.wrong[0]

    async def test_fails_where_an_event_was_altered_after_the_seal(
        self, gateway, seal, make, receipts, evidence, store
    ):
        calls = gateway.calls(5)
        await seal(calls)
        await make()
        store._client.command(
            f"ALTER TABLE usage_events UPDATE units = 100 WHERE event_id = '{calls[2].receipt.event_id}'",
            settings={"mutations_sync": 2},
        )
        lines = receipts(calls)
        verdict = verify(read_receipts(lines), await evidence(lines))
        assert any("units: 1 by the receipt, 100 in usage" in line for line in verdict.wrong)
        assert len(verdict.wrong) == 6

    async def test_fails_where_the_status_is_not_the_one_that_was_answered(
        self, gateway, seal, make, receipts, evidence
    ):
        calls = gateway.calls(1)
        await seal(calls)
        await make()
        (line,) = receipts(calls)
        saved = [json.dumps({"receipt": line, "status": 503})]
        verdict = verify(read_receipts(saved), await evidence([line]))
        assert verdict.wrong == [f"{calls[0].receipt.event_id}: status: 503 by the answer, 200 in usage"]

    async def test_fails_where_a_link_of_the_chain_was_rewritten_or_left_out(
        self, gateway, seal, make, receipts, evidence, noon
    ):
        calls = [call for hour in range(3) for call in gateway.calls(2, noon - hour * HOUR)]
        await seal(calls)
        await make()
        lines = receipts(calls)
        found = await evidence(lines)
        assert verify(read_receipts(lines), found).is_sound
        rewritten = [{**found.digests[0], "events": 3}, *found.digests[1:]]
        assert not verify(read_receipts(lines), Evidence(rewritten, found.proofs, {})).is_sound
        left_out = [found.digests[0], found.digests[2]]
        verdict = verify([], Evidence(left_out, {}, {}))
        assert "the 1 before it are left out" in verdict.chain[0]

    async def test_fails_where_a_proof_is_of_a_revision_that_does_not_count_any_more(
        self, gateway, seal, make, receipts, evidence, noon
    ):
        calls = gateway.calls(3)
        await seal(calls)
        await make()
        lines = receipts(calls)
        old = await evidence(lines)
        await seal(gateway.calls(1), now=noon + 5 * HOUR)
        await make(noon + 5 * HOUR)
        new = await evidence(lines)
        assert verify(read_receipts(lines), new).verified == 3
        verdict = verify(read_receipts(lines), Evidence(new.digests, old.proofs, {}))
        assert len(verdict.wrong) == 3
        assert "revision 1, but revision 2 counts" in verdict.wrong[0]

    async def test_fails_where_the_chain_is_forked(self, gateway, seal, make, receipts, evidence, noon):
        calls = [call for hour in range(2) for call in gateway.calls(2, noon - hour * HOUR)]
        await seal(calls)
        await make()
        lines = receipts(calls)
        found = await evidence(lines)
        last = found.digests[-1]
        other = Digest(
            account_id="acc_1",
            sequence=last["sequence"],
            hour=noon + 9 * HOUR,
            revision=1,
            events=0,
            root="ab" * 32,
            previous=last["previous"],
        )
        beside = {**vars_of(other), "digest": hash_digest(other)}
        for links in ([*found.digests, beside], [beside, *found.digests]):
            verdict = verify(read_receipts(lines), Evidence(links, found.proofs, {}))
            assert not verdict.is_sound
            assert "there are two with this number" in verdict.chain[0]

    async def test_fails_where_a_tree_of_another_hour_is_shown(
        self, gateway, seal, make, receipts, evidence, noon
    ):
        calls = gateway.calls(2)
        await seal(calls)
        await make()
        lines = receipts(calls)
        found = await evidence(lines)
        (link,) = found.digests
        moved = Digest(**(vars_of(link) | {"hour": noon + HOUR}))
        link = {**vars_of(moved), "digest": hash_digest(moved)}
        proofs = {event_id: {**proof, "digest": link} for event_id, proof in found.proofs.items()}
        verdict = verify(read_receipts(lines), Evidence([link], proofs, {}))
        assert [problem.split(": ")[1] for problem in verdict.wrong] == [
            "its digest is of another account or hour"
        ] * 2

    async def test_waits_for_an_hour_that_was_opened_again(
        self, gateway, seal, make, collect, aggregate, receipts, evidence, noon
    ):
        """A late event is no fault of anybody's: its hour can be proved once it is sealed and digested again."""
        calls = gateway.calls(3)
        await seal(calls)
        await make()
        lines = receipts(calls)
        await gateway.ship(gateway.calls(1))
        await collect(now=noon + 2 * HOUR)
        for step in (None, aggregate):  # marked, then recomputed
            if step is not None:
                await step(noon + 2 * HOUR)
            verdict = verify(read_receipts(lines), await evidence(lines))
            assert (verdict.is_sound, verdict.verified, verdict.pending, verdict.reopened) == (True, 0, 3, 3)

    async def test_waits_for_hours_that_are_not_sealed(self, gateway, receipts, evidence):
        lines = receipts(gateway.calls(2))
        verdict = verify(read_receipts(lines), await evidence(lines))
        assert verdict.is_sound
        assert verdict.pending == 2

    async def test_says_which_calls_were_voided(self, gateway, seal, make, receipts, evidence, sessions, noon):
        calls = gateway.calls(2)
        async with sessions() as session, session.begin():
            session.add(
                UsageVoid(
                    id="void_1",
                    account_id="acc_1",
                    hour=noon,
                    event_id=calls[0].receipt.event_id,
                    reason="a mistake",
                    author="test",
                    created_at=noon,
                )
            )
        await seal(calls)
        await make()
        lines = receipts(calls)
        found = await evidence(lines)
        assert decode_leaf(found.proofs[calls[0].receipt.event_id]["leaf"]).flags == ("voided",)
        verdict = verify(read_receipts(lines), found)
        assert (verdict.is_sound, verdict.verified, verdict.voided) == (True, 2, 1)


class TestReadingReceipts:
    def test_takes_each_call_once_and_passes_over_notes(self, gateway, receipts):
        one, two = receipts(gateway.calls(2))
        lines = [one, "", "-.no_key", one, json.dumps({"receipt": two, "status": 200, "url": "/x"})]
        assert [saved.status for saved in read_receipts(lines)] == [None, 200]

    @pytest.mark.parametrize("line", ["nonsense", '{"status": 200}', '{"receipt": "1.2"}', "{"])
    def test_names_the_line_that_is_none(self, line):
        with pytest.raises(ReceiptFileError, match="line 2"):
            read_receipts(["", line])
