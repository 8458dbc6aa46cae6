"""Declared meters through the API: declaring, where they are used, backfills, values."""

from datetime import timedelta

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.usage.meters.tables import MeterHourly, MeterPeriod, MeterPeriodState
from tests.control_plane.admin_api.conftest import NOW
from tests.control_plane.admin_api.test_resources import YAML, ok

HOUR = timedelta(hours=1)
PLANS = """
api_products: [{code: weather, name: Weather, service: weather, routes: [weather, heavy]}]
meters:
  - {code: users, name: Users, api_product: weather, aggregation: unique, value: properties.user, events: reported}
  - {code: writes, name: Writes, api_product: weather, aggregation: count, filters: {methods: [POST]}}
plans:
  - {code: pro, name: Pro, api_product: weather, prices: [{model: per_unit, meter: users, unit_amount: "0.5"}]}
"""
HEAVY = {
    "code": "heavy-calls",
    "name": "Heavy calls",
    "api_product": "weather",
    "aggregation": "count",
    "filters": {"endpoints": ["heavy"], "highest_status": 299},
    "weights": {"heavy": 3},
}


@pytest.fixture
async def applied(client: httpx.AsyncClient) -> dict:
    return ok(await client.post("/admin/v1/plans/apply", content=PLANS, headers=YAML))


@pytest.fixture
async def subscription(client: httpx.AsyncClient, applied: dict) -> dict:
    account = ok(await client.post("/admin/v1/accounts", json={"name": "Acme"}), 201)
    return ok(await client.post(f"/admin/v1/accounts/{account['id']}/subscriptions", json={"plan": "pro"}), 201)


class TestMeters:
    async def test_are_made_listed_shown_and_archived(self, client: httpx.AsyncClient, applied: dict) -> None:
        made = ok(await client.post("/admin/v1/meters", json=HEAVY), 201)
        assert {name: made[name] for name in ("code", "value", "events", "weights", "archived_at")} == {
            "code": "heavy-calls",
            "value": None,
            "events": "calls",
            "weights": {"heavy": 3},
            "archived_at": None,
        }
        assert made["filters"]["highest_status"] == 299
        first = ok(await client.get("/admin/v1/meters", params={"limit": 2}))
        rest = ok(await client.get("/admin/v1/meters", params={"limit": 2, "cursor": first["next_cursor"]}))
        codes = [meter["code"] for page in (first, rest) for meter in page["items"]]
        assert codes == ["heavy-calls", "users", "writes"]
        shown = ok(await client.get("/admin/v1/meters/users"))
        assert [(use["plan"], use["version"], use["status"]) for use in shown["used_by"]] == [
            ("pro", 1, "published")
        ]
        for _ in range(2):
            assert ok(await client.post("/admin/v1/meters/heavy-calls/archive"))["archived_at"] is not None
        left = ok(await client.get("/admin/v1/meters", params={"product": "weather"}))
        assert [meter["code"] for meter in left["items"]] == ["users", "writes"]

    @pytest.mark.parametrize(
        ("change", "status", "told"),
        [
            ({"aggregation": "average"}, 422, "aggregation"),
            ({"weights": {"heavy": "3"}}, 422, "weights.heavy"),
            ({"filters": {"endpoints": ["light"]}}, 422, "filters.endpoints"),
            ({"filters": {"colour": "red"}}, 422, "filters.colour"),
            ({"aggregation": "sum"}, 422, "value"),
            ({"code": "users"}, 409, "meter_code_taken"),
            ({"api_product": "maps"}, 404, "api_product_not_found"),
        ],
    )
    async def test_that_are_wrong_are_named(
        self, change: dict, status: int, told: str, client: httpx.AsyncClient, applied: dict
    ) -> None:
        answer = await client.post("/admin/v1/meters", json=HEAVY | change)
        assert answer.status_code == status
        problem = answer.json()
        assert told in [problem["code"], *(wrong["field"] for wrong in problem["errors"])]

    async def test_that_are_on_sale_cannot_be_archived(self, client: httpx.AsyncClient, applied: dict) -> None:
        answer = await client.post("/admin/v1/meters/users/archive")
        assert (answer.status_code, answer.json()["code"]) == (409, "meter_on_sale")

    async def test_are_for_readers_to_read_only(self, client_of, applied: dict) -> None:
        reader = client_of("read_only")
        assert (await reader.get("/admin/v1/meters/users")).status_code == 200
        assert (await reader.post("/admin/v1/meters", json=HEAVY)).status_code == 403
        assert (await reader.post("/admin/v1/meters/users/backfills", json={})).status_code == 403

    async def test_stand_in_plan_diffs(self, client: httpx.AsyncClient, applied: dict) -> None:
        changed = PLANS.replace("name: Writes", "name: Writing calls")
        diff = ok(await client.post("/admin/v1/plans/diff", content=changed, headers=YAML))
        assert [change["text"] for change in diff["changes"]] == [
            "meter writes: update (name: 'Writes' -> 'Writing calls')"
        ]


class TestBackfills:
    async def test_are_started_once_and_tell_their_progress(
        self, client: httpx.AsyncClient, subscription: dict
    ) -> None:
        path = "/admin/v1/meters/users/backfills"
        job = ok(await client.post(path, json={"starts_at": "2026-11-23T08:00:00Z"}), 201)
        assert (job["status"], job["subscriptions_total"], job["hours_done"]) == ("running", 1, 0)
        assert ok(await client.get(f"/admin/v1/meters/backfills/{job['id']}")) == job
        assert ok(await client.get(path))["items"] == [job]
        again = await client.post(path, json={})
        assert (again.status_code, again.json()["code"]) == (409, "meter_backfill_running")

    async def test_need_a_full_hour_within_reach(self, client: httpx.AsyncClient, applied: dict) -> None:
        for wrong in ("2026-11-23T08:30:00Z", "2026-11-24T00:00:00Z", "2026-01-01T00:00:00Z"):
            answer = await client.post("/admin/v1/meters/users/backfills", json={"starts_at": wrong})
            assert [one["field"] for one in answer.json()["errors"]] == ["starts_at"]


class TestValues:
    @pytest.fixture
    async def counted(
        self, client: httpx.AsyncClient, subscription: dict, sessions: async_sessionmaker[AsyncSession]
    ) -> dict:
        """Values of two hours, and of the period."""
        phase, start = subscription["phases"][0], NOW.replace(minute=0)
        meters = {code: ok(await client.get(f"/admin/v1/meters/{code}"))["id"] for code in ("users", "writes")}
        period = subscription["current_period"]
        place = {"subscription_id": subscription["id"], "period_start": start.fromisoformat(period["start"])}
        (version,) = ok(await client.get("/admin/v1/plans/pro"))["versions"]
        async with sessions() as session, session.begin():
            for hour in (start, start + HOUR):
                for code, meter_id in meters.items():
                    session.add(
                        MeterHourly(
                            account_id=subscription["account_id"],
                            hour=hour,
                            phase_id=phase["id"],
                            meter_id=meter_id,
                            value=2 if code == "users" else 5,
                            events=5,
                        )
                    )
            session.add(
                MeterPeriod(
                    **place,
                    meter_id=meters["users"],
                    plan_version_id=version["id"],
                    value=3,
                    events=10,
                )
            )
            session.add(
                MeterPeriodState(
                    **place,
                    period_end=start.fromisoformat(period["end"]),
                    account_id=subscription["account_id"],
                    due_at=NOW,
                )
            )
        return subscription

    async def test_are_told_by_period(self, client: httpx.AsyncClient, counted: dict) -> None:
        answer = ok(await client.get("/admin/v1/usage/meters", params={"account_id": counted["account_id"]}))
        period = counted["current_period"]
        assert [(one["meter"], one["value"], one["pending"]) for one in answer["items"]] == [
            ("users", 3, True),
            ("writes", 10, False),
        ]
        assert {(one["start"], one["end"]) for one in answer["items"]} == {(period["start"], period["end"])}

    async def test_are_told_by_hour_in_pages(self, client: httpx.AsyncClient, counted: dict) -> None:
        asked = {"by": "hour", "subscription_id": counted["id"], "meter": "users", "limit": 1}
        asked["end"] = (NOW + 3 * HOUR).isoformat()
        first = ok(await client.get("/admin/v1/usage/meters", params=asked))
        second = ok(await client.get("/admin/v1/usage/meters", params=asked | {"cursor": first["next_cursor"]}))
        found = first["items"] + second["items"]
        assert [(one["start"], one["value"], one["events"]) for one in found] == [
            ("2026-11-23T09:00:00.000Z", 2, 5),
            ("2026-11-23T10:00:00.000Z", 2, 5),
        ]
        assert second["next_cursor"] is None

    async def test_by_period_need_to_know_whose(self, client: httpx.AsyncClient, applied: dict) -> None:
        for params, field in (({}, "account_id"), ({"subscription_id": "x"}, "subscription_id")):
            answer = await client.get("/admin/v1/usage/meters", params=params)
            assert [one["field"] for one in answer.json()["errors"]] == [field]
