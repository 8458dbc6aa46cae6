"""The doors for Stripe's webhooks: what is let in, what is turned away, and what is said of it."""

import json
import logging
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import stripe as sdk
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.admin_api import problems
from control_plane.admin_api.middleware import RequestScope
from control_plane.stripe_sync.events.tables import StripeEvent
from control_plane.webhooks.refusals import Refusals
from control_plane.webhooks.stripe import MAX_BODY_BYTES, WebhooksConfig, stripe_webhooks

OLD, NEW, THIN = "whsec_old" + "o" * 20, "whsec_new" + "n" * 20, "whsec_thin" + "t" * 20
SNAPSHOT_PATH, THIN_PATH = "/webhooks/stripe", "/webhooks/stripe/thin"


def a_snapshot(**fields: Any) -> dict[str, Any]:
    return {
        "id": "evt_1",
        "object": "event",
        "type": "customer.subscription.updated",
        "created": 1_773_743_832,
        "data": {"object": {"id": "sub_1", "object": "subscription"}},
        **fields,
    }


def a_thin(**fields: Any) -> dict[str, Any]:
    return {
        "id": "evt_thin_1",
        "object": "v2.core.event",
        "type": "v1.billing.meter.error_report_triggered",
        "created": "2026-03-17T10:37:12.000Z",
        "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
        **fields,
    }


Client = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def client_of(sessions: async_sessionmaker[AsyncSession], now: datetime) -> AsyncIterator[Client]:
    """Makes clients of an application with these secrets."""
    made: list[httpx.AsyncClient] = []

    def make(snapshot: tuple[str, ...] = (NEW,), thin: tuple[str, ...] = (THIN,)) -> httpx.AsyncClient:
        app = FastAPI()
        problems.install(app)
        app.add_middleware(RequestScope)
        app.include_router(
            stripe_webhooks(
                WebhooksConfig(sessions=sessions, snapshot_secrets=snapshot, thin_secrets=thin, now=lambda: now)
            )
        )
        made.append(httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://km"))
        return made[-1]

    yield make
    for client in made:
        await client.aclose()


def signed(body: str, secret: str, at: datetime) -> dict[str, str]:
    stamp = int(at.timestamp())
    return {"Stripe-Signature": sdk.WebhookSignature.generate_signature_header(body, secret, stamp)}


async def send(
    client: httpx.AsyncClient,
    event: dict[str, Any] | str,
    *,
    at: datetime,
    secret: str = NEW,
    path: str = SNAPSHOT_PATH,
) -> httpx.Response:
    body = event if isinstance(event, str) else json.dumps(event)
    return await client.post(path, content=body.encode(), headers=signed(body, secret, at))


async def stored(session: AsyncSession) -> list[StripeEvent]:
    return list(await session.scalars(select(StripeEvent).order_by(StripeEvent.id)))


class TestStoring:
    async def test_stores_an_event_once_however_often_it_comes(
        self, client_of: Client, session: AsyncSession, now: datetime
    ) -> None:
        client = client_of()
        for _ in range(3):
            answer = await send(client, a_snapshot(), at=now)
            assert answer.status_code == 200
        (event,) = await stored(session)
        assert (event.kind, event.object_id, event.state) == ("subscription", "sub_1", "waiting")
        assert (event.deliveries, event.source) == (3, "webhook")
        assert json.loads(event.body or b"") == a_snapshot()

    async def test_stores_two_events_for_one_fact_apart(
        self, client_of: Client, session: AsyncSession, now: datetime
    ) -> None:
        client = client_of()
        await send(client, a_snapshot(), at=now)
        await send(client, a_snapshot(id="evt_2"), at=now)
        assert [(one.id, one.object_id) for one in await stored(session)] == [
            ("evt_1", "sub_1"),
            ("evt_2", "sub_1"),
        ]

    async def test_takes_thin_events_at_their_own_address(
        self, client_of: Client, session: AsyncSession, now: datetime
    ) -> None:
        client = client_of()
        errors = await send(client, a_thin(), at=now, secret=THIN, path=THIN_PATH)
        paid = a_thin(id="evt_thin_2", type="v1.invoice.paid", related_object={"id": "in_1"})
        invoice = await send(client, paid, at=now, secret=THIN, path=THIN_PATH)
        assert (errors.status_code, invoice.status_code) == (200, 200)
        assert [(one.kind, one.object_id) for one in await stored(session)] == [
            ("meter_errors", "evt_thin_1"),
            ("invoice", "in_1"),
        ]

    async def test_keeps_of_other_types_only_that_they_came(
        self, client_of: Client, session: AsyncSession, now: datetime
    ) -> None:
        event = a_snapshot(
            type="billing_portal.session.created", data={"object": {"url": "https://x.test/bearer"}}
        )
        assert (await send(client_of(), event, at=now)).status_code == 200
        (row,) = await stored(session)
        assert (row.state, row.kind, row.body) == ("ignored", None, None)

    async def test_says_nothing_in_the_log_but_id_and_type(
        self,
        client_of: Client,
        now: datetime,
        caplog: pytest.LogCaptureFixture,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        caplog.set_level(logging.DEBUG)
        event = a_snapshot(data={"object": {"id": "sub_1", "email": "ada@example.test"}})
        client = client_of()
        await send(client, event, at=now)
        await send(client, event, at=now, secret="whsec_forged")
        written = caplog.text + "".join(capsys.readouterr())
        assert "evt_1" in written
        assert "customer.subscription.updated" in written
        for secret in ("ada@example.test", NEW, "whsec_forged", "v1="):
            assert secret not in written


class TestRefusing:
    async def test_is_not_there_without_a_secret(
        self, client_of: Client, session: AsyncSession, now: datetime
    ) -> None:
        client = client_of(snapshot=(), thin=())
        for path in (SNAPSHOT_PATH, THIN_PATH):
            answer = await send(client, a_snapshot(), at=now, path=path)
            unknown = await client.post("/webhooks/nobody", content=b"{}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            assert answer.json()["detail"] == unknown.json()["detail"]
        empty = await client.post(SNAPSHOT_PATH, content=b"{}", headers=signed("{}", "", now))
        assert empty.status_code == 404
        assert await stored(session) == []

    async def test_takes_both_secrets_while_one_replaces_the_other(
        self, client_of: Client, session: AsyncSession, now: datetime
    ) -> None:
        client = client_of(snapshot=(NEW, OLD))
        for number, secret in enumerate((OLD, NEW)):
            answer = await send(client, a_snapshot(id=f"evt_{number}"), at=now, secret=secret)
            assert answer.status_code == 200
        only_new = await send(client_of(), a_snapshot(id="evt_9"), at=now, secret=OLD)
        assert only_new.status_code == 400
        assert [one.id for one in await stored(session)] == ["evt_0", "evt_1"]

    async def test_refuses_what_was_signed_at_another_time(
        self, client_of: Client, session: AsyncSession, now: datetime
    ) -> None:
        client = client_of()
        for age in (timedelta(minutes=6), timedelta(days=3), -timedelta(minutes=6)):
            answer = await send(client, a_snapshot(), at=now - age)
            assert (answer.status_code, answer.json()["code"]) == (400, "wrong_signature")
        assert await stored(session) == []

    async def test_refuses_signatures_that_make_no_sense(self, client_of: Client) -> None:
        client = client_of()
        for header in ("", "rubbish", "t=1,v1=\u00e9"):
            answer = await client.post(
                SNAPSHOT_PATH, content=b"{}", headers={b"Stripe-Signature": header.encode("latin-1")}
            )
            assert (answer.status_code, answer.json()["code"]) == (400, "wrong_signature")

    async def test_refuses_a_body_that_was_changed(self, client_of: Client, now: datetime) -> None:
        body = json.dumps(a_snapshot())
        answer = await client_of().post(
            SNAPSHOT_PATH, content=body.replace("sub_1", "sub_2").encode(), headers=signed(body, NEW, now)
        )
        assert answer.status_code == 400

    async def test_refuses_thin_events_among_snapshots_and_the_reverse(
        self, client_of: Client, session: AsyncSession, now: datetime
    ) -> None:
        client = client_of(snapshot=(NEW,), thin=(NEW,))
        first = await send(client, a_thin(), at=now)
        second = await send(client, a_snapshot(), at=now, path=THIN_PATH)
        assert [(one.status_code, one.json()["code"]) for one in (first, second)] == [(400, "wrong_event")] * 2
        assert await stored(session) == []

    async def test_refuses_signed_bodies_that_are_no_event(
        self, client_of: Client, session: AsyncSession, now: datetime
    ) -> None:
        client = client_of()
        for body in ("", "[]", "[" * 100_000, json.dumps(a_snapshot(id="e\x00vt"))):
            answer = await send(client, body, at=now)
            assert (answer.status_code, answer.json()["code"]) == (400, "wrong_event")
        assert await stored(session) == []

    async def test_refuses_bytes_that_are_no_text(self, client_of: Client, now: datetime) -> None:
        answer = await client_of().post(SNAPSHOT_PATH, content=b"\xff\xfe", headers=signed("x", NEW, now))
        assert (answer.status_code, answer.json()["code"]) == (400, "wrong_signature")

    async def test_reads_no_more_than_the_limit(self, client_of: Client, now: datetime) -> None:
        filled = json.dumps(a_snapshot(filler=""))
        exact = json.dumps(a_snapshot(filler="x" * (MAX_BODY_BYTES - len(filled))))
        assert len(exact) == MAX_BODY_BYTES
        client = client_of()
        assert (await send(client, exact, at=now)).status_code == 200
        answer = await send(client, exact + " ", at=now)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")

    async def test_takes_true_webhooks_during_a_flood_of_forged_ones(
        self, client_of: Client, session: AsyncSession, now: datetime
    ) -> None:
        client = client_of()
        statuses = [(await send(client, a_snapshot(), at=now, secret=OLD)).status_code for _ in range(80)]
        assert set(statuses) == {400, 429}
        assert (await send(client, a_snapshot(), at=now)).status_code == 200
        assert len(await stored(session)) == 1


class TestRefusals:
    def test_are_explained_within_their_rate(self) -> None:
        seconds = 0.0
        refusals = Refusals(per_second=2, at_once=3, clock=lambda: seconds)
        assert [refusals.take() for _ in range(4)] == [True, True, True, False]
        seconds = 1.0
        assert [refusals.take() for _ in range(3)] == [True, True, False]
        seconds = 1_000.0
        assert [refusals.take() for _ in range(4)] == [True, True, True, False]
