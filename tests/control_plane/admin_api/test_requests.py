"""Requests, exports and disputes over the API: who may do what, and what the answers say."""

import asyncio
import csv
import io
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from control_plane.admin_api.history import EventHistory, HistoryLimits
from control_plane.admin_api.services import Services
from control_plane.foundation.clock import from_ms, to_ms
from control_plane.usage.requests.exports.model import ExportConfig
from control_plane.usage.requests.exports.worker import Exporter
from control_plane.usage.store import EventStore, EventStoreConfig
from control_plane.usage.tables import TouchedHour, UnmatchedReplay, UsageHour, UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from tests.control_plane.admin_api.conftest import NOW
from tests.control_plane.usage.requests.conftest import an_event, keep_events, one_event_store

ClientOf = Callable[[str], httpx.AsyncClient]
REPOSITORY = Path(__file__).parents[3]
PLANS = (REPOSITORY / "plans.yml").read_text()
NOW_MS = to_ms(NOW)
HOUR = NOW - timedelta(hours=3)


def ok(answer: httpx.Response, status: int = 200) -> dict:
    assert answer.status_code == status, answer.text
    return answer.json()


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture(scope="module")
def shared_event_store(event_store_directory: Path) -> Iterator[tuple[str, EventStore]]:
    with one_event_store(event_store_directory) as found:
        yield found


@pytest.fixture
def clickhouse_dsn(shared_event_store: tuple[str, EventStore]) -> str:
    """The module's store, emptied."""
    dsn, store = shared_event_store
    store._client.command("TRUNCATE TABLE usage_events")
    return dsn


@pytest.fixture
def store(shared_event_store: tuple[str, EventStore], clickhouse_dsn: str) -> EventStore:
    return shared_event_store[1]


@pytest.fixture
def exports(app: FastAPI, services: Services, tmp_path: Path) -> ExportConfig:
    config = ExportConfig(directory=tmp_path / "exports", min_free_mb=0)
    app.state.services = replace(services, exports=config)
    return config


@pytest.fixture
async def account_id(client: httpx.AsyncClient) -> str:
    return ok(await client.post("/admin/v1/accounts", json={"name": "Acme"}), 201)["id"]


def calls(account_id: str, count: int = 5, *, at_ms: int = to_ms(HOUR), **changes):
    return [
        an_event(number, account_id=account_id, occurred_at_ms=at_ms + number, **changes)
        for number in range(count)
    ]


class TestSearch:
    async def test_without_an_account_support_finds_a_request_by_its_id(
        self, client_of: ClientOf, account_id: str, store: EventStore
    ):
        keep_events(
            store, [*calls(account_id), *calls("", 1, event_id="x", at_ms=to_ms(NOW - timedelta(days=80)))]
        )
        support = client_of("support")
        found = ok(await support.get("/admin/v1/requests", params={"request_id": f"{3:032x}"}))["items"]
        assert [(row["event_id"], row["account_id"]) for row in found] == [("node-3", account_id)]
        old = ok(await support.get("/admin/v1/requests", params={"event_id": "x"}))["items"]
        assert [row["account_id"] for row in old] == [""]
        # a span that was given holds
        params = {"event_id": "x", "start": (NOW - timedelta(days=1)).isoformat()}
        assert ok(await support.get("/admin/v1/requests", params=params))["items"] == []

    async def test_pages_in_both_orders_and_filters_by_status_class(
        self, client: httpx.AsyncClient, account_id: str, store: EventStore
    ):
        events = [
            replace(event, status=(200, 404, 503)[number % 3]) for number, event in enumerate(calls(account_id, 9))
        ]
        keep_events(store, events)
        for order in ("newest", "oldest"):
            found, cursor = [], None
            while True:
                params = {"account_id": account_id, "status": "4xx", "order": order, "limit": 2}
                page = ok(
                    await client.get("/admin/v1/requests", params=params | ({"cursor": cursor} if cursor else {}))
                )
                found += [row["event_id"] for row in page["items"]]
                cursor = page["next_cursor"]
                if cursor is None:
                    break
            wanted = [event.event_id for event in events if event.status == 404]
            assert found == (wanted[::-1] if order == "newest" else wanted)

    async def test_names_the_parameter_that_is_wrong(self, client: httpx.AsyncClient):
        for params, field in [
            ({"status": "5xx", "lowest_status": 3}, "status"),
            ({"status": "499-400"}, "status"),
            ({"status": "many"}, "status"),
            ({"unattributed": "true", "account_id": f"acc_{'0' * 26}"}, "unattributed"),
            ({"order": "random"}, "order"),
        ]:
            answer = await client.get("/admin/v1/requests", params=params)
            assert answer.status_code == 422
            assert [wrong["field"] for wrong in answer.json()["errors"]] == [field]

    async def test_finance_reads_figures_and_no_single_requests(self, client_of: ClientOf, account_id: str):
        finance = client_of("finance")
        for path in ("requests", "requests/x", "unattributed-events", f"accounts/{account_id}/events"):
            assert refused(await finance.get(f"/admin/v1/{path}")) == (403, "role_not_allowed")
        assert (await finance.get(f"/admin/v1/accounts/{account_id}/usage")).status_code == 200
        for role in ("support", "read_only"):
            assert (await client_of(role).get("/admin/v1/requests")).status_code == 200


class TestRequestDetail:
    @pytest.fixture
    async def subscribed(self, client: httpx.AsyncClient) -> dict:
        yaml = {"content-type": "application/yaml"}
        ok(await client.post("/admin/v1/plans/apply", content=PLANS, headers=yaml))
        account = ok(await client.post("/admin/v1/accounts", json={"name": "Acme"}), 201)
        body = {"plan": "starter", "anchor_at": "2026-11-01T00:00:00Z"}
        return ok(await client.post(f"/admin/v1/accounts/{account['id']}/subscriptions", json=body), 201)

    async def test_says_whether_it_is_billed_and_why(
        self, client: httpx.AsyncClient, subscribed: dict, store: EventStore, sessions
    ):
        account_id, phase = subscribed["account_id"], subscribed["phases"][0]
        at_ms = NOW_MS + 60_000  # the phase began now
        cases = {
            "billable": {},
            "test_mode": {"mode": Mode.TEST},
            "refused": {"outcome": Outcome.RATE_LIMITED, "status": 429},
            "status_not_billed": {"status": 502},
            "replayed": {"flags": ("replayed",)},
            "no_account": {"account_id": ""},
        }
        events = [
            replace(
                calls(account_id, 1)[0], event_id=reason, request_id=f"r-{reason}", occurred_at_ms=at_ms, **fields
            )
            for reason, fields in cases.items()
        ]
        unmatched = replace(events[4], event_id="unmatched", request_id="r-unmatched")
        keep_events(store, [*events, unmatched])
        async with sessions() as session, session.begin():
            session.add(
                UnmatchedReplay(
                    account_id=account_id, hour=NOW, call_hash="1", event_id="unmatched", occurred_at_ms=at_ms
                )
            )
        for reason in cases:
            answer = ok(await client.get(f"/admin/v1/requests/r-{reason}"))
            assert (answer["billing"]["reason"], answer["billing"]["billed"]) == (reason, reason == "billable")
            assert answer["receipt_id"] == answer["event"]["event_id"] == reason
        answer = ok(await client.get("/admin/v1/requests/unmatched"))
        assert answer["billing"]["reason"] == "billable"
        assert answer["billing"]["plan"] == "starter"
        assert answer["billing"]["phase_id"] == phase["id"]
        assert answer["billing"]["billed_below_status"] == 500

    async def test_shows_the_hour_and_its_row_of_the_rollup(
        self, client: httpx.AsyncClient, account_id: str, store: EventStore, sessions
    ):
        (event,) = calls(account_id, 1)
        keep_events(store, [event])
        path = f"/admin/v1/requests/{event.event_id}"
        waiting = ok(await client.get(path))
        assert (waiting["hour"]["state"], waiting["rollup"]) == ("waiting", None)
        shared = {"account_id": account_id, "hour": HOUR}
        async with sessions() as session, session.begin():
            session.add(UsageHour(**shared, revision=3, aggregated_at=NOW))
            session.add(
                UsageHourly(
                    **shared, phase_id="", product=event.product, mode="live", key_id=event.key_id,
                    endpoint=event.endpoint, status=200, outcome="served", calls=7, units=7, billable_calls=7,
                    billable_units=7, bytes_in=0, bytes_out=0, latency_ms_sum=0, gateway_ms_sum=0, revision=3,
                )
            )  # fmt: skip
        counted = ok(await client.get(path, params={"account_id": account_id}))
        assert (counted["hour"]["state"], counted["hour"]["revision"]) == ("open", 3)
        assert (counted["rollup"]["calls"], counted["rollup"]["billable_calls"]) == (7, 7)
        async with sessions() as session, session.begin():
            (await session.get(UsageHour, (account_id, HOUR))).sealed_at = NOW
        assert ok(await client.get(path))["hour"]["state"] == "sealed"
        async with sessions() as session, session.begin():
            session.add(TouchedHour(**shared, touched_at=NOW))
        assert ok(await client.get(path))["hour"]["state"] == "waiting"

    async def test_an_unknown_one_is_not_found(self, client: httpx.AsyncClient):
        assert refused(await client.get("/admin/v1/requests/nothing")) == (404, "request_not_found")

    async def test_one_of_another_account_is_not_found_either(self, client: httpx.AsyncClient, store: EventStore):
        keep_events(store, calls("acc_1", 1))
        params = {"account_id": f"acc_{'0' * 26}"}
        assert refused(await client.get("/admin/v1/requests/node-0", params=params))[0] == 404
        ok(await client.get("/admin/v1/requests/node-0"))


class TestHistoryLimits:
    async def test_too_many_searches_at_once_are_told_to_come_again(
        self, app: FastAPI, services: Services, client: httpx.AsyncClient, clickhouse_dsn: str
    ):
        history = EventHistory(EventStoreConfig(dsn=clickhouse_dsn), HistoryLimits(clients=1, wait_seconds=0.05))
        app.state.services = replace(services, history=history)
        async with history.store():
            answer = await client.get("/admin/v1/requests")
            await history.check()  # readiness does not suffer
        assert refused(answer) == (503, "history_busy")
        assert answer.headers["retry-after"] == "1"
        ok(await client.get("/admin/v1/requests"))
        await history.close()

    async def test_a_search_that_takes_too_long_says_what_to_do(
        self, app: FastAPI, services: Services, client: httpx.AsyncClient, clickhouse_dsn: str, store: EventStore
    ):
        keep_events(store, calls("acc_1", 50))
        history = EventHistory(EventStoreConfig(dsn=clickhouse_dsn))
        async with history.store() as one:
            one._client.set_client_setting("max_memory_usage", 1)
        app.state.services = replace(services, history=history)
        assert refused(await client.get("/admin/v1/requests")) == (422, "search_too_broad")
        await history.close()

    async def test_searches_run_side_by_side_and_each_client_does_one(self, clickhouse_dsn: str):
        history = EventHistory(EventStoreConfig(dsn=clickhouse_dsn), HistoryLimits(clients=2, wait_seconds=30))
        lent: list[EventStore] = []
        most = 0

        async def search() -> None:
            nonlocal most
            async with history.store() as store:
                assert store not in lent
                lent.append(store)
                most = max(most, len(lent))
                await asyncio.to_thread(store.query, "SELECT sleep(0.02)", {})
                lent.remove(store)

        await asyncio.gather(*(search() for _ in range(8)))
        assert most == 2
        await history.close()


class TestExports:
    async def work(self, sessions, config: ExportConfig, store: EventStore) -> None:
        exporter = Exporter(config=config, sessions=sessions, store=store, stop=asyncio.Event(), clock=lambda: NOW)
        assert await exporter.work()

    async def test_are_asked_for_watched_and_fetched(
        self, client_of: ClientOf, account_id: str, store: EventStore, exports: ExportConfig, sessions
    ):
        events = calls(account_id, 20)
        keep_events(store, events)
        support = client_of("support")
        made = ok(await support.post("/admin/v1/exports", json={"kind": "events", "account_id": account_id}), 201)
        assert (made["status"], made["total_rows"], made["filters"]) == ("queued", None, {})
        path = f"/admin/v1/exports/{made['id']}"
        assert refused(await support.get(f"{path}/file")) == (409, "export_queued")
        await self.work(sessions, exports, store)
        done = ok(await support.get(path))
        assert (done["status"], done["done_rows"], done["total_rows"]) == ("done", 20, 20)
        file = await support.get(f"{path}/file")
        assert file.headers["content-type"] == "text/csv; charset=utf-8"
        assert made["id"] in file.headers["content-disposition"]
        rows = list(csv.DictReader(io.StringIO(file.text)))
        assert [row["event_id"] for row in rows] == [event.event_id for event in events]
        part = await support.get(f"{path}/file", headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, file.content[10:20])
        actions = ok(await support.get("/admin/v1/audit", params={"entity_id": made["id"]}))["items"]
        assert sorted(row["action"] for row in actions) == ["export.downloaded"] * 2 + ["export.requested"]

    async def test_roles_see_and_ask_for_what_they_may_read(self, client_of: ClientOf, exports: ExportConfig):
        finance, support = client_of("finance"), client_of("support")
        events = {"kind": "events"}
        assert refused(await finance.post("/admin/v1/exports", json=events)) == (403, "role_not_allowed")
        of_events = ok(await support.post("/admin/v1/exports", json=events), 201)["id"]
        of_rollups = ok(await finance.post("/admin/v1/exports", json={"kind": "rollups"}), 201)["id"]
        listed = ok(await finance.get("/admin/v1/exports"))["items"]
        assert [row["id"] for row in listed] == [of_rollups]
        assert {row["id"] for row in ok(await support.get("/admin/v1/exports"))["items"]} == {
            of_events,
            of_rollups,
        }
        for path in (of_events, f"{of_events}/file"):
            assert refused(await finance.get(f"/admin/v1/exports/{path}")) == (403, "role_not_allowed")
        assert refused(await finance.post(f"/admin/v1/exports/{of_events}/cancel")) == (403, "role_not_allowed")
        assert ok(await finance.post(f"/admin/v1/exports/{of_rollups}/cancel"))["status"] == "cancelled"
        assert refused(await client_of("read_only").post("/admin/v1/exports", json={"kind": "rollups"}))[0] == 403

    async def test_names_the_field_that_is_wrong(self, client: httpx.AsyncClient):
        for body, field in [
            ({}, "kind"),
            ({"kind": "events", "file_format": "xlsx"}, "file_format"),
            ({"kind": "events", "status": "5xy"}, "status"),
            ({"kind": "rollups", "start": "2026-11-01T00:30:00Z", "end": "2026-11-02T00:00:00Z"}, "start"),
            ({"kind": "rollups", "request_id": "a"}, "request_id"),
            ({"kind": "events", "unattributed": True, "account_id": f"acc_{'0' * 26}"}, "unattributed"),
        ]:
            answer = await client.post("/admin/v1/exports", json=body)
            assert answer.status_code == 422
            assert [wrong["field"] for wrong in answer.json()["errors"]] == [field]

    async def test_of_an_unknown_account_is_refused(self, client: httpx.AsyncClient):
        body = {"kind": "events", "account_id": f"acc_{'0' * 26}"}
        assert refused(await client.post("/admin/v1/exports", json=body)) == (404, "account_not_found")


class TestDisputes:
    @pytest.fixture
    async def events(self, account_id: str, store: EventStore) -> AsyncIterator[list]:
        events = [
            replace(event, status=503 if number % 2 else 200) for number, event in enumerate(calls(account_id, 8))
        ]
        keep_events(store, events)
        return events

    async def test_go_from_opening_to_closing(self, client_of: ClientOf, account_id: str, events: list):
        support, finance = client_of("support"), client_of("finance")
        body = {
            "account_id": account_id,
            "subject": "Charged for errors",
            "reason": "Line one.\nLine two.",
            "requests": {"status": "5xx"},
        }
        case = ok(await support.post("/admin/v1/disputes", json=body), 201)
        path = f"/admin/v1/disputes/{case['id']}"
        assert (case["status"], case["request_count"], case["steps"]) == ("open", 4, 1)
        more = {"request_ids": [events[0].request_id], "event_ids": [events[0].event_id]}
        assert ok(await support.post(f"{path}/requests", json=more))["request_count"] == 5
        note = {"text": "called them", "internal": True}
        assert ok(await support.post(f"{path}/notes", json=note))["steps"] == 3
        decision = {
            "decision": "partly",
            "explanation": "half of it",
            "void_requests": True,
            "void_only": ["node-1"],
        }
        assert refused(await finance.post(f"{path}/decide", json=decision)) == (409, "dispute_step_refused")
        assert ok(await support.post(f"{path}/review", json={}))["status"] == "under_review"
        assert refused(await support.post(f"{path}/decide", json=decision)) == (403, "role_not_allowed")
        decided = ok(await finance.post(f"{path}/decide", json=decision))
        assert (decided["status"], decided["decision"], decided["steps"]) == ("decided", "partly", 6)
        assert ok(await support.post(f"{path}/close", json={"text": "told them"}))["status"] == "closed"
        steps = ok(await support.get(f"{path}/steps", params={"limit": 200}))["items"]
        assert [step["step"] for step in steps] == [
            "opened", "requests_added", "noted", "review_started", "decided", "requests_voided", "closed",
        ]  # fmt: skip
        requests = ok(await finance.get(f"{path}/requests"))["items"]
        assert [row["event"]["event_id"] for row in requests] == ["node-0", "node-1", "node-3", "node-5", "node-7"]
        hours = ok(await support.get(f"{path}/hours"))["items"]
        assert [(row["requests"], row["revision"]) for row in hours] == [(5, 0)]
        voided = ok(await support.get("/admin/v1/requests/node-1"))
        assert (voided["billing"]["reason"], voided["rollup"]) == ("voided", None)
        listed = ok(await support.get("/admin/v1/disputes", params={"status": "closed"}))["items"]
        assert [row["id"] for row in listed] == [case["id"]]
        file = await support.get(f"{path}/case-file")
        assert file.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
            text = archive.read("case.json").decode()
            rows = list(csv.DictReader(io.StringIO(archive.read("requests.csv").decode())))
        assert "called them" not in text
        assert "told them" in text
        assert rows[0]["occurred_at"] == from_ms(events[0].occurred_at_ms).isoformat().replace("+00:00", ".000Z")

    async def test_evidence_outlives_the_events(
        self, client: httpx.AsyncClient, account_id: str, events: list, store: EventStore
    ):
        body = {"account_id": account_id, "subject": "x", "requests": {"event_ids": ["node-2"]}}
        case = ok(await client.post("/admin/v1/disputes", json=body), 201)
        store._client.command("TRUNCATE TABLE usage_events")
        kept = ok(await client.get(f"/admin/v1/disputes/{case['id']}/requests"))["items"]
        assert kept[0]["event"]["path"] == events[2].path

    async def test_requests_that_cannot_be_found_are_named(
        self, client: httpx.AsyncClient, account_id: str, events: list
    ):
        for selection in ({"event_ids": ["node-1", "node-99"]}, {"request_ids": ["nobody"]}):
            body = {"account_id": account_id, "subject": "x", "requests": selection}
            answer = await client.post("/admin/v1/disputes", json=body)
            assert refused(answer) == (404, "request_not_found")
            assert selection.popitem()[1][-1] in answer.json()["detail"]
        assert ok(await client.get("/admin/v1/disputes"))["items"] == []

    async def test_readers_read_and_change_nothing(
        self, client_of: ClientOf, client: httpx.AsyncClient, account_id: str
    ):
        case = ok(await client.post("/admin/v1/disputes", json={"account_id": account_id, "subject": "x"}), 201)
        reader = client_of("read_only")
        path = f"/admin/v1/disputes/{case['id']}"
        for end in ("", "/steps", "/requests", "/hours", "/case-file"):
            assert (await reader.get(path + end)).status_code == 200
        assert refused(await reader.post(f"{path}/notes", json={"text": "x"})) == (403, "role_not_allowed")
        unknown = f"/admin/v1/disputes/dsp_{'0' * 26}"
        for end in ("", "/steps", "/requests", "/hours", "/case-file"):
            assert refused(await reader.get(unknown + end)) == (404, "dispute_not_found")

    async def test_names_the_field_that_is_wrong(self, client: httpx.AsyncClient, account_id: str):
        for body, field in [
            ({"subject": " "}, "subject"),
            ({"reason": "a\x00b"}, "reason"),
            ({"requests": {"status": "9"}}, None),
            ({"requests": {"event_ids": [""]}}, "requests.event_ids[0]"),
            ({"requests": {"event_ids": ["x"] * 1001}}, "requests.event_ids"),
            ({"account_id": "acme"}, "account_id"),
        ]:
            answer = await client.post(
                "/admin/v1/disputes", json={"account_id": account_id, "subject": "x", **body}
            )
            if field is None:
                assert answer.status_code == 201  # a status nobody had finds nothing, which is no mistake
                continue
            assert answer.status_code == 422
            assert [wrong["field"] for wrong in answer.json()["errors"]] == [field]
