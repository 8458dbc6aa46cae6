"""Who may call the API, and what a refusal looks like."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import httpx
from fastapi import FastAPI
from sqlalchemy import event, func, select
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from control_plane.accounts.tables import Account
from control_plane.accounts.tokens import create_token, revoke_token
from control_plane.admin_api.access import authenticated
from control_plane.admin_api.app import create_app
from control_plane.admin_api.services import Services
from control_plane.gateway_sync.sweep import SweepReport

ClientOf = Callable[[str], httpx.AsyncClient]


NO_TOKENS = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer kmt_short",
    f"Bearer kmt_{'A' * 43}",
    f"Basic kmt_{'A' * 43}",
    "Bearer km_live_" + "A" * 38,
    "Bearer \xff\xfe",
]


def every_route(app: FastAPI) -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
        if path.startswith("/admin/")
    ]


async def count_accounts(sessions: async_sessionmaker[AsyncSession]) -> int:
    async with sessions() as session:
        return await session.scalar(select(func.count()).select_from(Account))


class TestClosedByDefault:
    async def test_every_route_refuses_a_call_without_token(self, app: FastAPI, stranger: httpx.AsyncClient):
        for method, path in every_route(app):
            answer = await stranger.request(method, path)
            assert (path, answer.status_code) == (path, 401)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["code"] == "unauthenticated"
            assert answer.json()["type"] == "urn:kong-monetize:problem:unauthenticated"

    async def test_metrics_need_a_token_and_health_does_not(
        self, stranger: httpx.AsyncClient, client: httpx.AsyncClient
    ):
        assert (await stranger.get("/metrics")).status_code == 401
        assert (await stranger.get("/healthz")).json() == {"status": "ok"}
        metrics = await client.get("/metrics")
        assert metrics.status_code == 200
        assert 'km_api_requests_total{method="GET",route="/healthz",status="200"}' in metrics.text

    async def test_refuses_what_is_no_token(self, stranger: httpx.AsyncClient):
        for value in NO_TOKENS:
            headers = [(b"authorization", value.encode("latin-1"))]
            answer = await stranger.get("/admin/v1/accounts", headers=headers)
            assert (value, answer.status_code) == (value, 401)

    async def test_refuses_expired_and_revoked_tokens(
        self, stranger: httpx.AsyncClient, sessions: async_sessionmaker[AsyncSession], services
    ):
        now = services.now()
        async with sessions() as session, session.begin():
            expired = await create_token(
                session,
                name="expired",
                role="owner",
                expires_at=now - timedelta(seconds=1),
                actor="test",
                now=now - timedelta(days=1),
            )
            revoked = await create_token(session, name="revoked", role="owner", actor="test", now=now)
            await revoke_token(session, token_id=revoked.token.id, actor="test", now=now)
        for text in (expired.text, revoked.text):
            answer = await stranger.get("/admin/v1/accounts", headers={"Authorization": f"Bearer {text}"})
            assert answer.status_code == 401


# they take a body, and change nothing
READING_POSTS = {
    "/admin/v1/plans/diff",
    "/admin/v1/plan-moves/preview",
    "/admin/v1/products/{code}/comparison",
    "/admin/v1/subscriptions/{subscription_id}/preview-change",
    "/admin/v1/usage/digests/proofs",
}


class TestRoles:
    async def test_reading_roles_change_nothing(
        self, client_of: ClientOf, sessions: async_sessionmaker[AsyncSession]
    ):
        for role in ("read_only", "support", "finance"):
            client = client_of(role)
            assert (await client.get("/admin/v1/accounts")).status_code == 200
            answer = await client.post("/admin/v1/accounts", json={"name": "Acme"})
            assert (answer.status_code, answer.json()["code"]) == (403, "role_not_allowed")
        assert await count_accounts(sessions) == 0

    async def test_no_route_that_changes_things_is_open_to_readers(self, app: FastAPI, client_of: ClientOf):
        client = client_of("read_only")
        for method, path in every_route(app):
            if method == "GET" or path in READING_POSTS:
                continue
            answer = await client.request(method, path)
            assert (path, answer.status_code) == (path, 403)

    async def test_only_owners_handle_tokens(self, client_of: ClientOf):
        admin, owner = client_of("admin"), client_of("owner")
        body = {"name": "mine", "role": "owner"}
        for answer in (
            await admin.get("/admin/v1/tokens"),
            await admin.post("/admin/v1/tokens", json=body),
            await admin.post(f"/admin/v1/tokens/tok_{'0' * 26}/revoke"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "role_not_allowed")
        created = await owner.post("/admin/v1/tokens", json=body)
        assert created.status_code == 201
        assert created.json()["text"].startswith("kmt_")
        assert created.json()["text"] not in (await owner.get("/admin/v1/tokens")).text

    def test_every_admin_route_depends_on_a_caller(self, app: FastAPI):
        for route in app.routes:
            if getattr(route, "path", "").startswith("/admin/"):
                assert authenticated in {dependency.call for dependency in route.dependant.dependencies}


class TestOneTransaction:
    async def test_a_caller_that_has_its_answer_finds_its_change(
        self, client: httpx.AsyncClient, sessions: async_sessionmaker[AsyncSession]
    ):
        answer = await client.post("/admin/v1/accounts", json={"name": "Acme"})
        async with sessions() as session:
            assert await session.get(Account, answer.json()["id"]) is not None

    async def test_a_commit_that_fails_is_an_error_answer(
        self, client: httpx.AsyncClient, sessions: async_sessionmaker[AsyncSession]
    ):
        def fail(_session: Session) -> None:
            raise OSError("secret detail of the disk")

        event.listen(Session, "before_commit", fail)
        try:
            answer = await client.post("/admin/v1/accounts", json={"name": "Acme"})
        finally:
            event.remove(Session, "before_commit", fail)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert "secret" not in answer.text
        assert await count_accounts(sessions) == 0

    async def test_many_at_once_each_get_their_own(self, client: httpx.AsyncClient):
        answers = await asyncio.gather(
            *(client.post("/admin/v1/accounts", json={"name": f"Account {number}"}) for number in range(20))
        )
        assert [answer.json()["name"] for answer in answers] == [f"Account {number}" for number in range(20)]


class TestLongRequests:
    async def test_hold_up_no_other_request_of_their_token(
        self, services: Services, tokens: dict[str, str], sessions: async_sessionmaker[AsyncSession]
    ):
        started, finish = asyncio.Event(), asyncio.Event()

        async def slow_rebuild(_now: datetime) -> SweepReport:
            started.set()
            await finish.wait()
            return SweepReport(keys=0, accounts=0, counters=0, written=0, seconds=1.0)

        transport = httpx.ASGITransport(create_app(replace(services, rebuild=slow_rebuild)))
        headers = {"Authorization": f"Bearer {tokens['owner']}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://km", headers=headers) as client:
            long_one = asyncio.create_task(client.post("/admin/v1/rebuild"))
            try:
                async with asyncio.timeout(20):
                    await started.wait()
                    # the first request of a minute notes the token's use; the next must not wait for it to end
                    assert (await client.get("/admin/v1/accounts")).status_code == 200
                    assert await idle_transactions(sessions) == 0
            finally:
                finish.set()
                assert (await long_one).status_code == 200


async def idle_transactions(sessions: async_sessionmaker[AsyncSession]) -> int:
    async with sessions() as session:
        found = await session.scalar(
            sql(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state = 'idle in transaction'"
            )
        )
    return int(found or 0)


class TestRequestId:
    async def test_a_given_id_comes_back_and_stands_in_the_audit_log(self, client: httpx.AsyncClient):
        answer = await client.post(
            "/admin/v1/accounts", json={"name": "Acme"}, headers={"X-Request-Id": "trace-0001"}
        )
        assert answer.headers["x-request-id"] == "trace-0001"
        audit = (await client.get("/admin/v1/audit", params={"entity_id": answer.json()["id"]})).json()
        assert [(row["action"], row["request_id"]) for row in audit["items"]] == [
            ("account.created", "trace-0001")
        ]

    async def test_an_unusable_id_is_replaced(self, stranger: httpx.AsyncClient):
        answer = await stranger.get("/healthz", headers={"X-Request-Id": "bad id\twith spaces"})
        assert len(answer.headers["x-request-id"]) == 32

    async def test_an_error_names_it(self, stranger: httpx.AsyncClient):
        answer = await stranger.get("/admin/v1/accounts")
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


class TestReadiness:
    async def test_names_what_is_not_usable(self, services, stranger: httpx.AsyncClient, app: FastAPI):
        async def fine() -> None:
            return None

        async def broken() -> None:
            raise ConnectionError("secret address")

        async def waiting() -> str:
            return "restarting"

        checks = {"postgres": fine, "redis": broken, "collector": waiting}
        app.state.services = replace(services, checks=checks)
        answer = await stranger.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {
            "status": "not_ready",
            "checks": {"postgres": "ok", "redis": "failed", "collector": "restarting"},
        }
