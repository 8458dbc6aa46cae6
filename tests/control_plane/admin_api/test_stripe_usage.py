"""Usage on its way to Stripe over the API: what the answers say, and who may do what."""

from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.foundation.clock import floor_hour
from control_plane.stripe_sync.usage.tables import StripeUsageError, StripeUsageRow
from tests.control_plane.admin_api.conftest import NOW

ClientOf = Callable[[str], httpx.AsyncClient]
PATH = "/admin/v1/stripe/usage"
ACCOUNT = "acc_" + "0" * 26
SUBSCRIPTION = "sub_" + "0" * 26
HOUR = floor_hour(NOW - timedelta(hours=5))


@pytest.fixture(autouse=True)
async def _rows(sessions: async_sessionmaker[AsyncSession]) -> None:
    """A row refused, one that waits, one delivered; and a report of Stripe's."""
    same = {
        "account_id": ACCOUNT,
        "hour": HOUR,
        "phase_id": "ph_1",
        "meter": "requests",
        "subscription_id": SUBSCRIPTION,
        "plan_version_id": "plv_1",
        "sealed_at": NOW,
        "due_at": NOW,
    }
    sent = {
        "way": "event",
        "customer_id": "cus_1",
        "event_name": "km_main_weather_requests",
        "stripe_at": HOUR,
        "first_sent_at": NOW,
        "sent_at": NOW,
        "attempts": 1,
    }
    async with sessions() as session, session.begin():
        session.add(
            StripeUsageRow(
                **same, **sent, revision=1, delta_units=5, state="refused", reason="no_meter", identifier="km:1"
            )
        )
        session.add(StripeUsageRow(**same, revision=2, delta_units=6, state="waiting"))
        session.add(
            StripeUsageRow(
                **same, **sent, revision=3, delta_units=7, state="delivered", identifier="km:3", delivered_at=NOW
            )
        )
        session.add(
            StripeUsageError(event_id="evt_1", code="no_meter", error_count=1, rows_found=1, reported_at=NOW)
        )


class TestLooking:
    async def test_tells_progress_rows_and_reports(self, client_of: ClientOf) -> None:
        client = client_of("read_only")
        (meter,) = (await client.get(PATH)).json()["meters"]
        assert (meter["waiting_rows"], meter["refused_rows"]) == (1, 1)
        page = (await client.get(f"{PATH}/rows", params={"account_id": ACCOUNT, "limit": 2})).json()
        assert [row["delta_units"] for row in page["items"]] == [5, 6]
        rest = (await client.get(f"{PATH}/rows", params={"cursor": page["next_cursor"]})).json()
        assert [row["state"] for row in rest["items"]] == ["delivered"]
        (error,) = (await client.get(f"{PATH}/errors")).json()["items"]
        assert "km stripe sync" in error["to_do"]


class TestRetry:
    async def test_shows_first_and_then_does_it(self, client_of: ClientOf) -> None:
        body = {"subscription_id": SUBSCRIPTION, "reason": "the meter is there now"}
        shown = (await client_of("owner").post(f"{PATH}/retry", json={**body, "dry_run": True})).json()
        assert [row["outcome"] for row in shown["rows"]] == ["sent_anew", "tried_now", "left"]
        done = (await client_of("owner").post(f"{PATH}/retry", json=body)).json()
        assert done["rows"] == shown["rows"]
        left = (await client_of("owner").get(f"{PATH}/rows", params={"state": "refused"})).json()
        assert left["items"] == []

    async def test_needs_a_role_and_rows(self, client_of: ClientOf) -> None:
        refused = await client_of("read_only").post(f"{PATH}/retry", json={"state": "refused", "reason": "x"})
        assert refused.status_code == 403
        unclear = await client_of("owner").post(f"{PATH}/retry", json={"reason": "x"})
        assert unclear.status_code == 422

    async def test_comparing_needs_stripe(self, client_of: ClientOf) -> None:
        window = {"subscription_id": SUBSCRIPTION, "start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z"}
        answer = await client_of("read_only").get(f"{PATH}/differences", params=window)
        assert (answer.status_code, answer.json()["code"]) == (409, "stripe_off")
