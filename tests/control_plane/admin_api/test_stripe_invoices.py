"""Stripe's invoices over the API: what the answers say, and who may do what."""

from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.stripe_sync.invoices.tables import (
    StripeAdjustment,
    StripeInvoice,
    StripeInvoiceCheck,
    StripeInvoiceLine,
    StripeInvoiceTask,
)
from tests.control_plane.admin_api.conftest import NOW
from tests.control_plane.builders import a_published_plan, a_subscription, an_account

ClientOf = Callable[[str], httpx.AsyncClient]
PATH = "/admin/v1/stripe/invoices"


def an_invoice(number: int, account_id: str, subscription_id: str) -> StripeInvoice:
    return StripeInvoice(
        id=f"in_{number}",
        account_id=account_id,
        subscription_id=subscription_id,
        stripe_subscription_id="sub_stripe",
        customer_id="cus_1",
        number=f"KM-000{number}",
        status="paid" if number > 1 else "draft",
        billing_reason="subscription_cycle",
        collection="charge_automatically",
        currency="USD",
        period_start=NOW - timedelta(days=31),
        period_end=NOW,
        subtotal_minor=5_000,
        discount_minor=500,
        tax_minor=0,
        total_minor=4_500,
        balance_minor=0,
        amount_due_minor=4_500,
        amount_paid_minor=4_500,
        amount_remaining_minor=0,
        auto_advance=False,
        attempt_count=1,
        created_at=NOW + timedelta(minutes=number),
        hosted_url="https://invoice.example/1",
        read_at=NOW,
    )


@pytest.fixture(autouse=True)
async def account_id(sessions: async_sessionmaker[AsyncSession]) -> str:
    """Three invoices, the last with all that can belong to one."""
    async with sessions() as session, session.begin():
        await a_published_plan(session, now=NOW)
        account = await an_account(session, now=NOW)
        subscription = await a_subscription(session, account, now=NOW)
        for number in (1, 2, 3):
            session.add(an_invoice(number, account.id, subscription.id))
        await session.flush()
        span = {"period_start": NOW - timedelta(days=31), "period_end": NOW}
        line = {"kind": "metered", "description": "Requests", "amount_minor": 5_000, "discount_minor": 500}
        session.add(StripeInvoiceLine(invoice_id="in_3", id="il_1", position=0, proration=False, **line, **span))
        session.add(
            StripeInvoiceTask(
                invoice_id="in_3",
                subscription_id=subscription.id,
                state="done",
                created_at=NOW,
                done_at=NOW,
                **span,
            )
        )
        session.add(
            StripeInvoiceCheck(
                invoice_id="in_3",
                account_id=account.id,
                subscription_id=subscription.id,
                expected_minor=4_400,
                actual_minor=4_500,
                agrees=False,
                differences=[{"what": "Pro", "cause": "price", "expected_minor": 4_400, "actual_minor": 4_500}],
                checked_at=NOW,
            )
        )
        session.add(
            StripeAdjustment(
                id="adj_1",
                subscription_id=subscription.id,
                period_start=NOW,
                charge_key="plv_1/1",
                turn=1,
                cause="late_usage",
                way="item",
                state="done",
                currency="USD",
                amount_minor=150,
                description="late",
                invoice_id="in_3",
                created_at=NOW,
            )
        )
        return account.id


class TestLooking:
    async def test_lists_them_newest_first_page_by_page(self, client_of: ClientOf, account_id: str) -> None:
        client = client_of("read_only")
        page = (await client.get(PATH, params={"limit": 2, "account_id": account_id})).json()
        assert [one["id"] for one in page["items"]] == ["in_3", "in_2"]
        rest = (await client.get(PATH, params={"cursor": page["next_cursor"]})).json()
        assert [one["status"] for one in rest["items"]] == ["draft"]
        own = (
            await client.get(f"/admin/v1/accounts/{account_id}/stripe-invoices", params={"status": "paid"})
        ).json()
        assert [one["number"] for one in own["items"]] == ["KM-0003", "KM-0002"]

    async def test_shows_one_by_its_number_with_all_that_belongs_to_it(self, client_of: ClientOf) -> None:
        found = (await client_of("read_only").get(f"{PATH}/KM-0003")).json()
        assert (found["id"], found["total"]["text"], found["hosted_url"]) == (
            "in_3",
            "$45.00",
            "https://invoice.example/1",
        )
        assert [line["discount"]["amount_minor"] for line in found["lines"]] == [500]
        assert [(one["cause"], one["amount"]["text"]) for one in found["adjustments"]] == [("late_usage", "$1.50")]
        assert found["draft"]["state"] == "done"
        assert [one["cause"] for one in found["check"]["differences"]] == ["price"]
        assert (await client_of("read_only").get(f"{PATH}/in_9")).status_code == 404


class TestCrediting:
    async def test_is_for_finance_and_needs_stripe(self, client_of: ClientOf) -> None:
        body = {"amount_minor": 100, "reason": "goodwill", "note": "Sorry."}
        path = f"{PATH}/in_3/credit-notes"
        assert (await client_of("read_only").post(path, json=body)).status_code == 403
        refused = await client_of("owner").post(path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "stripe_off")
