"""POST /ingest/v1/events: who may, what comes back, and when nothing was kept."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from control_plane.accounts.tokens import create_token
from control_plane.admin_api.services import Ingest, Services
from control_plane.foundation.redis import create_redis
from control_plane.usage.ingest.rate_limit import RateLimit, RateLimiter
from control_plane.usage.ingest.writer import EventIngest, IngestConfig
from control_plane.usage.store import EventStore, EventStoreConfig
from tests.control_plane.builders import a_published_plan, a_subscription, an_account

URL = "/ingest/v1/events"
SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


@pytest.fixture
async def account_id(sessions, services: Services) -> str:
    now = services.now()
    async with sessions() as session, session.begin():
        await a_published_plan(session, now=now)
        account = await an_account(session, now=now)
        await a_subscription(session, account, now=now - timedelta(days=2))
        return account.id


@pytest.fixture
async def ingest(app: FastAPI, services: Services, clickhouse_dsn: str, redis_url: str) -> AsyncIterator[Ingest]:
    """The app with a running writer."""
    opened = asyncio.Event()

    async def open_store(_stop: asyncio.Event) -> EventStore:
        opened.set()
        return EventStore.open(EventStoreConfig(dsn=clickhouse_dsn))

    redis = create_redis(redis_url)
    writer = EventIngest(
        sessions=services.sessions,
        open_store=open_store,
        config=IngestConfig(group_seconds=0.001),
        clock=services.now,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(writer.run(stop))
    async with asyncio.timeout(30):
        await opened.wait()
    ingest = Ingest(RateLimiter(redis, RateLimit(1000, 5000)), writer)
    app.state.services = replace(services, ingest=ingest)
    yield ingest
    stop.set()
    await task
    await redis.aclose()


@pytest.fixture
async def reporter(client_of, sessions, tokens, services, ingest) -> httpx.AsyncClient:
    """A client whose token may only report events."""
    async with sessions() as session, session.begin():
        created = await create_token(session, name="app", role="ingest", actor="test", now=services.now())
    tokens["ingest"] = created.text
    return client_of("ingest")


@pytest.fixture
def event(account_id: str) -> Callable[..., dict[str, Any]]:
    def make(number: int = 1, **changes: Any) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": f"order-{number}",
            "source": "/shop",
            "type": "sold",
            "subject": account_id,
            "data": {"units": {"transactions": 1}},
            **changes,
        }

    return make


async def send(client: httpx.AsyncClient, body: Any, *, media_type: str = BATCH, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.post(URL, content=content, headers={"Content-Type": media_type, **headers})


class TestWhoMay:
    async def test_report(self, reporter, client_of, stranger, event):
        may = {"ingest": 200, "owner": 200, "admin": 200, "finance": 403, "support": 403, "read_only": 403}
        for role, status in may.items():
            answer = await send(client_of(role), [event()])
            assert (role, answer.status_code) == (role, status)
        assert answer.json()["code"] == "role_not_allowed"
        assert (await send(stranger, [event()])).status_code == 401

    async def test_who_reports_may_do_nothing_else(self, app: FastAPI, reporter):
        paths = [
            (method.upper(), path)
            for path, methods in app.openapi()["paths"].items()
            for method in methods
            if path.startswith("/admin/")
        ]
        assert len(paths) > 30
        for method, path in [*paths, ("GET", "/metrics")]:
            answer = await reporter.request(method, path)
            assert (path, answer.status_code, answer.json()["code"]) == (path, 403, "role_not_allowed")


class TestAnswers:
    async def test_a_batch_names_each_event_in_order(self, reporter, event):
        await send(reporter, [event(1)])
        sent = [event(1), event(2), event(1, type="other"), event(3, subject="nobody"), {"id": "x"}, 5]
        answer = await send(reporter, sent)
        assert answer.status_code == 207
        body = answer.json()
        counts = {name: value for name, value in body.items() if name != "results"}
        assert counts == {"accepted": 1, "duplicates": 1, "conflicts": 1, "rejected": 3}
        assert [(found["index"], found["id"], found["result"], found["code"]) for found in body["results"]] == [
            (0, "order-1", "duplicate", ""),
            (1, "order-2", "accepted", ""),
            (2, "order-1", "conflict", "conflict"),
            (3, "order-3", "rejected", "unknown_subject"),
            (4, "x", "rejected", "malformed_event"),
            (5, None, "rejected", "malformed_event"),
        ]
        assert all(found["message"] for found in body["results"][2:])

    async def test_all_taken_is_200_and_none_is_a_batch_too(self, reporter, event):
        for _ in range(2):
            assert (await send(reporter, [event(1), event(2)])).status_code == 200
        assert (await send(reporter, [])).json()["results"] == []

    async def test_a_single_event_is_told_by_its_status(self, reporter, event):
        for body, status, code in (
            (event(), 200, None),
            (event(), 200, None),
            (event(type="other"), 409, "conflict"),
            (event(2, subject="nobody"), 422, "unknown_subject"),
            (event(2, specversion="2.0"), 422, "malformed_event"),
        ):
            answer = await send(reporter, body, media_type=SINGLE)
            assert (answer.status_code, answer.json().get("code")) == (status, code)

    async def test_attributes_may_stand_in_headers(self, reporter, account_id):
        headers = {"specversion": "1.0", "id": "a", "source": "/shop", "type": "sold", "subject": account_id}
        headers = {f"ce-{name}": value for name, value in headers.items()}
        for expected in ("accepted", "duplicate"):
            answer = await send(reporter, {"units": {"x": 1}}, media_type="application/json", **headers)
            assert answer.json()["results"][0]["result"] == expected

    async def test_what_was_accepted_is_found_in_the_history(self, reporter, client, event, account_id, services):
        at = (services.now() - timedelta(minutes=3)).isoformat()
        await send(reporter, gzip.compress(json.dumps([event(time=at)]).encode()), **{"Content-Encoding": "gzip"})
        (found,) = (await client.get(f"/admin/v1/accounts/{account_id}/events")).json()["items"]
        assert (found["outcome"], found["request_id"], found["dimensions"]) == (
            "reported", "order-1", {"transactions": 1},
        )  # fmt: skip


class TestLimits:
    @pytest.mark.parametrize(
        ("body", "headers", "status", "code"),
        [
            (b"{", {}, 400, "body_unreadable"),
            (b"{}", {}, 400, "body_unreadable"),
            (b"x", {"Content-Encoding": "gzip"}, 400, "body_unreadable"),
            (b"[]", {"Content-Encoding": "br"}, 415, "unsupported_encoding"),
            (b"[]", {"Content-Type": "application/json"}, 415, "unsupported_media_type"),
            (b" " * (1024 * 1024 + 1), {}, 413, "body_too_large"),
            (b" " * (8 * 1024 * 1024), {}, 413, "body_too_large"),
            (gzip.compress(bytes(11 * 1024 * 1024)), {"Content-Encoding": "gzip"}, 413, "body_too_large"),
            (b"[" + b"1," * 1000 + b"1]", {}, 413, "body_too_large"),
        ],
        ids=["broken", "object", "no-gzip", "br", "type", "sent", "sent-far", "bomb", "events"],
    )
    async def test_of_a_body_are_problems(self, reporter, body, headers, status, code):
        answer = await send(reporter, body, **headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["content-type"] == "application/problem+json"
        if status == 415:
            assert BATCH in answer.headers["accept-post"]

    async def test_of_a_token_are_told_before_they_are_met_and_after(self, reporter, ingest, event):
        answer = await send(reporter, [event(n) for n in range(600)])
        assert answer.headers["ratelimit-policy"] == '"events";q=5000;qu="events";w=5'
        name, left, full_in = answer.headers["ratelimit"].split(";")
        assert (name, left[:2], full_in) == ('"events"', "r=", "t=1")
        assert int(left[2:]) >= 4400
        ingest.limiter.limit = RateLimit(1, 1000)
        assert (await send(reporter, [event(n) for n in range(600)])).status_code == 200
        refused = await send(reporter, [event(n) for n in range(600)])
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_events")
        assert 1 < int(refused.headers["retry-after"]) <= 201
        assert 399 <= int(refused.headers["ratelimit"].split(";")[1].removeprefix("r=")) < 600


class TestStoresAway:
    async def test_nothing_kept_is_503_with_a_time_to_try_again(self, reporter, ingest, event, app):
        ingest.writer._refusal = ("ingest_unavailable", "A store cannot be reached.")
        answer = await send(reporter, [event()])
        assert (answer.status_code, answer.json()["code"]) == (503, "ingest_unavailable")
        assert answer.headers["retry-after"] == "1"
        app.state.services = replace(app.state.services, ingest=None)
        assert (await send(reporter, [event()])).status_code == 503

    async def test_without_redis_events_still_come_in(self, reporter, app, services, ingest, event):
        away = create_redis("redis://127.0.0.1:1", timeout_seconds=0.5)
        limiter = RateLimiter(away, RateLimit(1000, 5000))
        app.state.services = replace(services, ingest=Ingest(limiter, ingest.writer))
        assert (await send(reporter, [event()])).status_code == 200
        await away.aclose()
