"""Invoices by REST: lists, documents, drafts by hand, payments, credit notes, balances, billing profiles."""

from datetime import timedelta

import pytest

from tests.control_plane.admin_api.conftest import NOW
from tests.control_plane.billing.final_invoices import a_final_invoice
from tests.control_plane.builders import an_account

PROFILE = {
    "legal_name": "Żółw i Spółka sp. z o.o.",
    "address_lines": ["ul. Świętokrzyska 1"],
    "postal_code": "00-001",
    "city": "Warszawa",
    "country": "PL",
    "tax_id": "PL1234567890",
}


@pytest.fixture
async def account(session):
    made = await an_account(session, name="Acme <b>", now=NOW)
    await session.commit()
    return made


@pytest.fixture
async def invoice(session, account):
    made = await a_final_invoice(
        session,
        account.id,
        amounts=(10_000, 5_000),
        taxes=[{"name": "VAT", "percent": "20", "taxable_minor": 15_000, "amount_minor": 3_000, "note": ""}],
        now=NOW - timedelta(days=1),
    )
    await session.commit()
    return made


def url(invoice, tail=""):
    return f"/admin/v1/invoices/{invoice.id}{tail}"


class TestReading:
    async def test_lists_find_by_account_status_number_and_period(self, client, session, account, invoice):
        draft = (await client.post("/admin/v1/invoices", json={"account_id": account.id})).json()
        every = (await client.get("/admin/v1/invoices")).json()["items"]
        assert [one["id"] for one in every] == [draft["id"], invoice.id]
        for query, expected in (
            ({"status": "draft"}, [draft["id"]]),
            ({"number": invoice.number}, [invoice.id]),
            ({"account_id": "acc_" + "0" * 26}, []),
            ({"period_from": "2026-11-10T00:00:00Z"}, [draft["id"]]),
            ({"period_until": "2026-11-10T00:00:00Z"}, [invoice.id]),
        ):
            found = (await client.get("/admin/v1/invoices", params=query)).json()["items"]
            assert [one["id"] for one in found] == expected, query
        first = (await client.get(f"/admin/v1/accounts/{account.id}/invoices", params={"limit": 1})).json()
        second = await client.get(
            f"/admin/v1/accounts/{account.id}/invoices", params={"limit": 1, "cursor": first["next_cursor"]}
        )
        assert [one["id"] for one in (*first["items"], *second.json()["items"])] == [draft["id"], invoice.id]

    async def test_tells_lines_taxes_and_what_is_left(self, client, invoice):
        found = (await client.get(url(invoice))).json()
        assert [line["amount"]["text"] for line in found["lines"]] == ["$100.00", "$50.00"]
        assert (found["total"]["text"], found["left"]["text"], found["overdue"]) == ("$180.00", "$180.00", False)
        assert found["taxes"] == [
            {
                "name": "VAT",
                "percent": "20",
                "amount": {"amount_minor": 3_000, "currency": "USD", "text": "$30.00"},
            }
        ]

    async def test_shows_documents_that_load_nothing(self, client_of, client, invoice):
        page = await client_of("support").get(url(invoice, ".html"))
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert invoice.number in page.text
        assert "Acme &lt;b&gt;" in page.text
        file = await client.get(url(invoice, ".pdf"))
        assert file.headers["content-type"] == "application/pdf"
        assert f'filename="{invoice.number}.pdf"' in file.headers["content-disposition"]
        assert file.content.startswith(b"%PDF-")

    async def test_says_which_invoice_is_not_there(self, client):
        for tail in ("", ".html", ".pdf", "/credit-notes"):
            answer = await client.get("/admin/v1/invoices/inv_" + "0" * 26 + tail)
            assert (answer.status_code, answer.json()["code"]) == (404, "invoice_not_found")


class TestDraftByHand:
    async def test_is_made_changed_and_made_final(self, client, account):
        body = {
            "account_id": account.id,
            "note": "Order 7",
            "lines": [{"description": "Support", "quantity": 3, "unit_amount": "0.335"}],
        }
        draft = (await client.post("/admin/v1/invoices", json=body)).json()
        # 3 times $0.335 is $1.005, rounded half up once
        assert (draft["status"], draft["number"], draft["total"]["text"]) == ("draft", None, "$1.01")
        more = {
            "lines": [
                {"description": "Rebate", "unit_amount": "-0.5"},
                {"description": "Extra", "unit_amount": "9"},
            ]
        }
        path = f"/admin/v1/invoices/{draft['id']}"
        assert (await client.post(f"{path}/lines", json=more)).json()["total"]["text"] == "$9.51"
        changed = (await client.delete(f"{path}/lines/2")).json()
        assert ([line["position"] for line in changed["lines"]], changed["total"]["text"]) == ([1, 3], "$10.01")
        assert "draft" in (await client.get(f"{path}.html")).text
        final = (await client.post(f"{path}/finalise")).json()
        assert (final["status"], final["number"], final["left"]["text"]) == ("open", "INV-000001", "$10.01")
        assert (final["due_at"], final["buyer"]["legal_name"]) == ("2026-12-07T09:00:00.000Z", "Acme <b>")
        again = await client.post(f"{path}/finalise")
        assert (again.status_code, again.json()["code"]) == (409, "invoice_step_refused")
        assert (await client.delete(path)).status_code == 409

    async def test_can_be_discarded_and_empty_not_be_made_final(self, client, account):
        body = {"account_id": account.id, "lines": [{"description": "Support", "unit_amount": "1"}]}
        draft = (await client.post("/admin/v1/invoices", json=body)).json()
        await client.delete(f"/admin/v1/invoices/{draft['id']}/lines/1")
        answer = await client.post(f"/admin/v1/invoices/{draft['id']}/finalise")
        assert (answer.status_code, answer.json()["code"]) == (409, "invoice_empty")
        assert (await client.delete(f"/admin/v1/invoices/{draft['id']}")).status_code == 204
        assert (await client.get(f"/admin/v1/invoices/{draft['id']}")).status_code == 404

    async def test_is_paid_from_the_balance_as_far_as_it_goes(self, client, account):
        await client.post(
            f"/admin/v1/accounts/{account.id}/balance/adjustments", json={"amount": "4.00", "reason": "apology"}
        )
        body = {"account_id": account.id, "lines": [{"description": "Support", "unit_amount": "10"}]}
        draft = (await client.post("/admin/v1/invoices", json=body)).json()
        final = (await client.post(f"/admin/v1/invoices/{draft['id']}/finalise")).json()
        assert (final["balance_applied"]["text"], final["left"]["text"]) == ("$4.00", "$6.00")


class TestAfterwards:
    async def test_is_paid_in_parts_and_once_for_each_reference(self, client, invoice):
        part = {"amount": "80.00", "reference": "wire 1", "method": "bank transfer", "paid_on": "2026-11-23"}
        for _ in range(2):
            found = (await client.post(url(invoice, "/pay"), json=part)).json()
            assert (found["status"], found["left"]["text"], len(found["payments"])) == ("open", "$100.00", 1)
        paid = (await client.post(url(invoice, "/pay"), json={"reference": "wire 2"})).json()
        assert (paid["status"], paid["left"]["text"]) == ("paid", "$0.00")
        void = await client.post(url(invoice, "/void"), json={"reason": "oops"})
        assert (void.status_code, void.json()["code"]) == (409, "invoice_step_refused")

    async def test_can_be_made_void_and_given_up(self, client, session, account, invoice):
        other = await a_final_invoice(session, account.id, now=NOW)
        await session.commit()
        void = (await client.post(url(invoice, "/void"), json={"reason": "wrong"})).json()
        assert (void["status"], void["total"]["text"], void["left"]["text"]) == ("void", "$180.00", "$0.00")
        found = await client.post(url(other, "/uncollectible"), json={"reason": "bankrupt"})
        assert found.json()["status"] == "uncollectible"

    async def test_is_credited_with_its_tax_once_for_each_key(self, client, invoice):
        body = {"reason": "goodwill", "lines": [{"position": 2, "amount": "25.00"}], "idempotency_key": "k1"}
        notes = [(await client.post(url(invoice, "/credit-notes"), json=body)).json() for _ in range(2)]
        assert notes[0] == notes[1]
        assert (notes[0]["number"], notes[0]["total"]["text"]) == ("CN-000001", "$30.00")
        found = (await client.get(url(invoice))).json()
        assert (found["left"]["text"], found["credit_notes"]) == ("$150.00", ["CN-000001"])
        for listed in (url(invoice, "/credit-notes"), "/admin/v1/credit-notes"):
            assert (await client.get(listed)).json()["items"] == [notes[0]]
        path = f"/admin/v1/credit-notes/{notes[0]['id']}"
        assert (await client.get(path)).json() == notes[0]
        assert "CN-000001" in (await client.get(f"{path}.html")).text
        assert (await client.get(f"{path}.pdf")).content.startswith(b"%PDF-")

    async def test_money_that_was_paid_can_be_paid_back(self, client, invoice):
        await client.post(url(invoice, "/pay"), json={"reference": "wire 1"})
        refund = {"amount": "60.00", "reference": "back 1"}
        early = await client.post(url(invoice, "/refunds"), json=refund)
        assert (early.status_code, early.json()["code"]) == (409, "refund_exceeds_credit")
        body = {"reason": "goodwill", "amount": "60.00", "surplus": "outside", "idempotency_key": "k1"}
        note = (await client.post(url(invoice, "/credit-notes"), json=body)).json()
        assert (note["to_outside"]["text"], note["to_balance"]["text"]) == ("$60.00", "$0.00")
        found = (await client.post(url(invoice, "/refunds"), json=refund)).json()
        assert [one["kind"] for one in found["payments"]] == ["payment", "refund"]

    async def test_finance_may_and_support_may_not(self, client_of, invoice):
        support, finance = client_of("support"), client_of("finance")
        for tail, body in (
            ("/finalise", {}),
            ("/refunds", {"amount": "1", "reference": "r"}),
            ("/void", {"reason": "r"}),
            ("/uncollectible", {"reason": "r"}),
            ("/pay", {"reference": "r"}),
            ("/credit-notes", {"reason": "goodwill", "idempotency_key": "k"}),
        ):
            assert (await support.post(url(invoice, tail), json=body)).json()["code"] == "role_not_allowed"
            assert (await finance.post(url(invoice, tail), json=body)).status_code != 403


class TestBalance:
    async def test_is_adjusted_and_told(self, client, account):
        path = f"/admin/v1/accounts/{account.id}/balance"
        made = await client.post(f"{path}/adjustments", json={"amount": "5.00", "reason": "apology"})
        assert (made.status_code, made.json()["balance"]["text"]) == (201, "$5.00")
        taken = await client.post(f"{path}/adjustments", json={"amount": "-1.50", "reason": "taken back"})
        assert taken.json()["amount"]["amount_minor"] == -150
        assert [one["text"] for one in (await client.get(path)).json()["balances"]] == ["$3.50"]
        entries = (await client.get(f"{path}/entries")).json()["items"]
        assert [one["reason"] for one in entries] == ["taken back", "apology"]
        too_much = await client.post(f"{path}/adjustments", json={"amount": "-3.51", "reason": "r"})
        assert (too_much.status_code, too_much.json()["code"]) == (409, "balance_too_low")
        wrong = await client.post(f"{path}/adjustments", json={"amount": "0.001", "reason": "r"})
        assert wrong.json()["errors"] == [{"field": "amount", "message": "USD has 2 digits after the point"}]


class TestBillingProfile:
    async def test_is_put_and_got_and_stands_on_documents(self, client, account):
        path = f"/admin/v1/accounts/{account.id}/billing-profile"
        assert (await client.get(path)).json()["legal_name"] == "Acme <b>"
        kept = (await client.put(path, json=PROFILE)).json()
        assert kept == (await client.get(path)).json()
        assert (kept["city"], kept["tax_treatment"]) == ("Warszawa", "standard")
        draft = (await client.post("/admin/v1/invoices", json={"account_id": account.id})).json()
        assert "Świętokrzyska" in (await client.get(f"/admin/v1/invoices/{draft['id']}.html")).text

    async def test_names_every_wrong_field(self, client, account):
        path = f"/admin/v1/accounts/{account.id}/billing-profile"
        answer = await client.put(path, json={**PROFILE, "country": "XX", "invoice_email": "nobody"})
        assert [one["field"] for one in answer.json()["errors"]] == ["country", "invoice_email"]
