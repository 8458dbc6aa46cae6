"""Previews of any period, and the hours of a line, by REST."""

from datetime import timedelta

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.control_plane.admin_api.conftest import NOW
from tests.control_plane.billing.invoices.billing_kit import HOUR, Billing

STARTED = NOW.replace(day=10, month=9)
DAY = timedelta(days=1)


@pytest.fixture
def billing(sessions: async_sessionmaker[AsyncSession]) -> Billing:
    return Billing(sessions)


class TestInvoiceOfASubscription:
    async def test_leads_to_its_hours_and_requests_and_previews_any_period(
        self, billing: Billing, client: httpx.AsyncClient
    ):
        await billing.plan(at=STARTED - DAY)
        customer = await billing.customer(at=STARTED)
        await billing.close(STARTED)
        await billing.use(customer, 51_000, at=STARTED + DAY)
        ended = STARTED + 30 * DAY
        await billing.close(ended + HOUR)
        invoice = (await billing.invoices(customer))[1]
        found = (await client.get(f"/admin/v1/invoices/{invoice.id}/lines/1/usage")).json()
        (hour,) = found["items"]
        assert (hour["units"], found["used_units"], found["other_units"]) == (51_000, 51_000, 0)
        assert (await client.get(hour["requests"])).status_code == 200
        refused = await client.get(f"/admin/v1/invoices/{invoice.id}/lines/2/usage")
        assert (refused.status_code, refused.json()["code"]) == (409, "line_without_usage")
        assert (await client.get(f"/admin/v1/invoices/{invoice.id}/lines/9/usage")).status_code == 404
        path = f"/admin/v1/accounts/{customer.account_id}/invoices/preview/weather"
        past = (await client.get(path, params={"period_start": STARTED.isoformat()})).json()
        assert [line["kind"] for line in past["lines"]] == ["recurring", "usage"]
        assert past["total"]["text"] == "$50.50"
        assert (past["subtotal"], past["discounts"], past["taxes"]) == (past["total"], [], [])
        for outside in (STARTED - DAY, NOW + 60 * DAY):
            refused = await client.get(path, params={"period_start": outside.isoformat()})
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "period_start")
