"""Stripe's events over the API: who may do what, and what the answers say."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.admin_api.services import Services
from control_plane.foundation.audit import AuditRow
from control_plane.stripe_sync.client import Stripe, StripeConfig
from control_plane.stripe_sync.events.allowlist import Kind
from control_plane.stripe_sync.events.inbox import store_delivered
from control_plane.stripe_sync.events.model import Told
from control_plane.stripe_sync.model import StripeContext
from tests.control_plane.admin_api.conftest import NOW

ClientOf = Callable[[str], httpx.AsyncClient]
PATH = "/admin/v1/stripe"


@pytest.fixture(autouse=True)
async def _events(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Three about an invoice and one that nobody acts on, a minute apart."""
    async with sessions() as session, session.begin():
        for number in range(3):
            at = NOW + timedelta(minutes=number)
            told = Told(f"evt_{number}", "invoice.paid", at, Kind.INVOICE, "in_1")
            await store_delivered(session, told, body=b'{"id": "evt"}', now=at)
        other = Told("evt_9", "charge.succeeded", NOW, None, None)
        await store_delivered(session, other, body=b"{}", now=NOW + timedelta(minutes=9))


@pytest.fixture
def _stripe_on(app: FastAPI, services: Services, sessions: async_sessionmaker[AsyncSession]) -> None:
    """There is a key; whatever would ask Stripe finds nobody."""
    nobody = httpx.MockTransport(lambda _: httpx.Response(500))
    stripe = Stripe(StripeConfig(api_key="sk_test_nobody", transport=nobody))
    app.state.services = replace(services, stripe=StripeContext(sessions=sessions, stripe=stripe, now=NOW))


class TestLooking:
    async def test_lists_shows_and_counts(self, client_of: ClientOf) -> None:
        client = client_of("read_only")
        first = (await client.get(f"{PATH}/events", params={"limit": 3})).json()
        rest = (await client.get(f"{PATH}/events", params={"cursor": first["next_cursor"]})).json()
        assert [one["id"] for one in first["items"] + rest["items"]] == ["evt_9", "evt_2", "evt_1", "evt_0"]
        waiting = (await client.get(f"{PATH}/events", params={"state": "waiting", "object_id": "in_1"})).json()
        assert len(waiting["items"]) == 3
        ignored = (await client.get(f"{PATH}/events/evt_9")).json()
        assert (ignored["state"], ignored["next_attempt_at"], ignored["body"]) == ("ignored", None, None)
        event = (await client.get(f"{PATH}/events/evt_1")).json()
        assert (event["deliveries"], event["source"], event["body"]) == (1, "webhook", '{"id": "evt"}')
        assert "body" not in first["items"][0]
        standing = (await client.get(f"{PATH}/inbox")).json()
        assert (standing["waiting"], standing["dead"]) == (3, 0)

    async def test_says_that_there_is_none(self, client_of: ClientOf) -> None:
        answer = await client_of("owner").get(f"{PATH}/events/evt_none")
        assert (answer.status_code, answer.json()["code"]) == (404, "stripe_event_not_found")


class TestReplay:
    @pytest.mark.parametrize(
        ("path", "body"), [("events/replay", {"object_id": "in_1"}), ("resync", {"object_id": "in_1"})]
    )
    async def test_needs_stripe_to_be_on(self, client_of: ClientOf, path: str, body: dict) -> None:
        answer = await client_of("owner").post(f"{PATH}/{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "stripe_off")

    @pytest.mark.usefixtures("_stripe_on")
    async def test_tells_of_every_event_what_it_does(
        self, client_of: ClientOf, sessions: async_sessionmaker[AsyncSession]
    ) -> None:
        client = client_of("admin")
        body = {"event_ids": ["evt_0", "evt_9", "evt_unknown", "evt_0"]}
        dry = (await client.post(f"{PATH}/events/replay", json={**body, "dry_run": True})).json()
        real = (await client.post(f"{PATH}/events/replay", json=body)).json()
        assert {**dry, "dry_run": False} == real
        assert real["outcomes"] == {"brought_forward": 1, "to_be_read": 1, "not_acted_on": 1}
        assert (await client.get(f"{PATH}/events/evt_unknown")).json()["kind"] == "event"
        async with sessions() as session:
            actions = select(AuditRow.entity_id).where(AuditRow.action == "stripe_events.replay")
            assert list(await session.scalars(actions)) == ["evt_0"]

    @pytest.mark.usefixtures("_stripe_on")
    async def test_of_a_range_says_from_when_stripe_is_asked(self, client_of: ClientOf) -> None:
        body = {"start": "2026-11-23T09:01:00Z", "end": "2026-11-23T09:02:00Z", "dry_run": True}
        answer = (await client_of("admin").post(f"{PATH}/events/replay", json=body)).json()
        assert [one["id"] for one in answer["events"]] == ["evt_1"]
        assert answer["listed_from"] == "2026-11-23T09:01:00.000Z"

    @pytest.mark.usefixtures("_stripe_on")
    async def test_wants_a_choice_and_a_role(self, client_of: ClientOf) -> None:
        for body in ({}, {"event_ids": ["in_1"]}, {"object_id": "in_1", "event_ids": ["evt_1"]}):
            assert (await client_of("admin").post(f"{PATH}/events/replay", json=body)).status_code == 422
        for role in ("read_only", "finance"):
            answer = await client_of(role).post(f"{PATH}/resync", json={"object_id": "in_1"})
            assert answer.status_code == 403

    @pytest.mark.usefixtures("_stripe_on")
    async def test_resyncs_what_is_read_and_nothing_else(self, client_of: ClientOf) -> None:
        client = client_of("admin")
        answer = await client.post(f"{PATH}/resync", json={"object_id": "sub_1"})
        assert answer.status_code == 202
        row = (await client.get(f"{PATH}/events/{answer.json()['event_id']}")).json()
        assert (row["type"], row["kind"], row["state"]) == ("resync", "subscription", "waiting")
        assert (await client.post(f"{PATH}/resync", json={"object_id": "price_1"})).status_code == 422
