"""Corrections and past figures over the API."""

from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from control_plane.usage.store import EventStore, EventStoreConfig
from control_plane.usage.tables import UsageHour, UsageHourly
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from tests.control_plane.admin_api.conftest import NOW

PLANS = (Path(__file__).parents[3] / "plans.yml").read_text()
YAML = {"content-type": "application/yaml"}
WHY = {"reason": "the upstream served stale data"}


def ok(answer: httpx.Response, status: int = 200) -> dict:
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.fixture
async def place(client: httpx.AsyncClient, sessions) -> dict:
    """An account's hour with five billable calls, sealed half an hour ago; as bodies name it."""
    ok(await client.post("/admin/v1/plans/apply", content=PLANS, headers=YAML))
    account = ok(await client.post("/admin/v1/accounts", json={"name": "Acme"}), 201)["id"]
    body = {"plan": "starter", "anchor_at": "2026-11-01T00:00:00Z"}
    made = ok(await client.post(f"/admin/v1/accounts/{account}/subscriptions", json=body), 201)
    async with sessions() as session, session.begin():
        # the subscription runs from now on: a correction is of what went before
        phase = made["phases"][0]["id"]
        hour = NOW.replace(minute=0)
        session.add(
            UsageHour(
                account_id=account, hour=hour, revision=1, aggregated_at=NOW, sealed_at=NOW - timedelta(minutes=30)
            )
        )
        session.add(
            UsageHourly(
                account_id=account, hour=hour, phase_id=phase, product="weather", mode="live", key_id="key_1",
                endpoint="GET /", status=200, outcome="served", calls=5, units=5, billable_calls=5,
                billable_units=5, bytes_in=0, bytes_out=0, latency_ms_sum=0, gateway_ms_sum=0,
                dimensions={"tokens": 9}, billable_dimensions={"tokens": 9}, revision=1,
            )
        )  # fmt: skip
    return {"account_id": account, "hour": hour.isoformat()}


class TestAmendments:
    async def test_are_made_listed_and_withdrawn(self, client: httpx.AsyncClient, place: dict):
        body = {**place, **WHY, "product": "weather", "calls": -2, "meters": {"requests": -2}, "reference": "D-7"}
        made = ok(await client.post("/admin/v1/usage/amendments", json=body), 201)
        assert (made["calls"], made["meters"], made["withdrawal"]) == (-2, {"requests": -2}, None)
        assert made["author"].startswith("token:tok_")
        assert ok(await client.post("/admin/v1/usage/amendments", json=body), 201) == made
        path = f"/admin/v1/usage/amendments/{made['id']}/withdraw"
        withdrawn = ok(await client.post(path, json={"reason": "wrong hour"}))
        assert withdrawn["withdrawal"]["reason"] == "wrong hour"
        params = {"account_id": place["account_id"]}
        assert ok(await client.get("/admin/v1/usage/amendments", params=params))["items"] == [withdrawn]

    async def test_that_take_too_much_are_a_409(self, client: httpx.AsyncClient, place: dict):
        body = {**place, **WHY, "product": "weather", "calls": -6}
        refused = await client.post("/admin/v1/usage/amendments", json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "below_zero")

    async def test_need_a_role_that_changes_things(self, client_of, place: dict):
        body = {**place, **WHY, "product": "weather", "calls": -1}
        assert (await client_of("read_only").post("/admin/v1/usage/amendments", json=body)).status_code == 403


class TestVoids:
    async def test_are_made_listed_and_withdrawn(
        self, client: httpx.AsyncClient, place: dict, clickhouse_dsn: str
    ):
        store = EventStore.open(EventStoreConfig(dsn=clickhouse_dsn))
        try:
            store.query(
                "INSERT INTO usage_events (event_id, account_id, occurred_at, mode, outcome, status)"
                " SELECT {event_id:String}, {account_id:String}, parseDateTime64BestEffort({at:String}, 3, 'UTC'),"
                " {mode:String}, {outcome:String}, 200",
                {"event_id": "emitter-1", "account_id": place["account_id"], "at": place["hour"],
                 "mode": Mode.LIVE.value, "outcome": Outcome.SERVED.value},
            )  # fmt: skip
        finally:
            store.close()
        made = ok(await client.post("/admin/v1/usage/voids", json={**place, **WHY, "event_id": "emitter-1"}), 201)
        path = f"/admin/v1/usage/voids/{made['id']}/withdraw"
        withdrawn = ok(await client.post(path, json={"reason": "it was right"}))
        assert ok(await client.get("/admin/v1/usage/voids", params={"hour": place["hour"]}))["items"] == [
            withdrawn
        ]

    async def test_of_an_unknown_event_is_a_404(self, client: httpx.AsyncClient, place: dict):
        refused = await client.post("/admin/v1/usage/voids", json={**place, **WHY, "event_id": "emitter-9"})
        assert (refused.status_code, refused.json()["code"]) == (404, "usage_event_not_found")


class TestPastFigures:
    async def test_are_those_that_were_sealed(self, client: httpx.AsyncClient, place: dict):
        path = f"/admin/v1/accounts/{place['account_id']}/usage"
        at = {"sealed": NOW - timedelta(minutes=20), "before": NOW - timedelta(minutes=40)}
        found = {
            name: ok(await client.get(path, params={"as_of": moment.isoformat(), "group_by": "product"}))
            for name, moment in at.items()
        }
        (row,) = found["sealed"]["items"]
        assert (row["calls"], row["dimensions"], found["sealed"]["open_hours"]) == (5, {"tokens": 9}, 0)
        assert found["before"]["items"] == []

    async def test_of_the_future_are_refused(self, client: httpx.AsyncClient, place: dict):
        params = {"as_of": (NOW + timedelta(hours=1)).isoformat()}
        refused = await client.get("/admin/v1/usage", params=params)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "as_of")
