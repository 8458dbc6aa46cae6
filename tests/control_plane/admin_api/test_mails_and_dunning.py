"""Mails, cases of unpaid subscriptions and an account's notices by REST."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import update

from control_plane.dunning.worker import look_after
from control_plane.notifications.model import Branding, MailKind, SmtpConfig
from control_plane.notifications.tables import Mail
from control_plane.notifications.worker import MailConfig
from control_plane.subscriptions.statuses import change_status
from tests.control_plane.builders import ACTOR, a_published_plan, a_subscription, an_account

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


@pytest.fixture
async def unpaid(sessions, services):
    """An account whose subscription has a case, and a mail that waits."""
    async with sessions() as session, session.begin():
        account = await an_account(session, now=NOW, name="Øresund <Data>", time_zone="Europe/Berlin")
        account.email = "ada@example.com"
        await a_published_plan(session, now=NOW, code="growth")
        subscription = await a_subscription(session, account, now=NOW, plan="growth")
        await change_status(session, subscription_id=subscription.id, status="past_due", actor=ACTOR, now=NOW)
    config = replace(services.dunning, settle=timedelta(), wait_for_invoice=timedelta())
    for _ in range(2):
        await look_after(config=config, sessions=sessions, now=NOW)
    return account.id


@pytest.fixture
def branded(services, app):
    branding = Branding(name="Weather Cloud", support_email="help@weather.example.com")
    app.state.services = replace(services, mail=MailConfig(branding=branding))


@pytest.fixture
def owner(client_of):
    return client_of("owner")


class TestMails:
    async def test_lists_what_waits_and_says_that_nothing_is_sent(self, owner, unpaid):
        listed = (await owner.get("/admin/v1/mails")).json()
        assert listed["sending"] is False
        (mail,) = listed["items"]
        assert (mail["kind"], mail["state"], mail["account_id"]) == ("payment_failed", "waiting", unpaid)
        assert (await owner.get("/admin/v1/mails", params={"state": "sent"})).json()["items"] == []
        found = await owner.get("/admin/v1/mails", params={"account_id": unpaid, "kind": "payment_failed"})
        assert len(found.json()["items"]) == 1

    async def test_says_that_mails_are_sent_where_a_server_is_set(self, owner, services, app):
        smtp = SmtpConfig(host="mail.example.com", sender="a@example.com", password="hunter2")
        app.state.services = replace(services, mail=MailConfig(smtp=smtp))
        answer = await owner.get("/admin/v1/mails")
        assert answer.json()["sending"] is True
        assert "hunter2" not in answer.text

    @pytest.mark.usefixtures("branded")
    async def test_shows_a_mail_as_text_and_as_a_page_that_can_do_nothing(self, owner, unpaid):
        mail_id = (await owner.get("/admin/v1/mails")).json()["items"][0]["id"]
        shown = (await owner.get(f"/admin/v1/mails/{mail_id}")).json()
        assert shown["subject"] == "Payment failed: Growth"
        assert "Europe/Berlin" in shown["text"]
        assert "Weather Cloud" in shown["text"]
        page = await owner.get(f"/admin/v1/mails/{mail_id}/html")
        assert page.headers["content-type"].startswith("text/html")
        assert "sandbox" in page.headers["content-security-policy"]
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "Øresund &lt;Data&gt;" in page.text

    @pytest.mark.usefixtures("branded")
    async def test_previews_every_kind(self, owner):
        listed = (await owner.get("/admin/v1/mails/previews")).json()["items"]
        assert {kind["kind"] for kind in listed} == set(MailKind)
        for kind in MailKind:
            text = (await owner.get(f"/admin/v1/mails/previews/{kind}")).json()["text"]
            page = (await owner.get(f"/admin/v1/mails/previews/{kind}/html")).text
            assert "help@weather.example.com" in text
            assert "help@weather.example.com" in page

    async def test_queues_a_test_mail_and_refuses_what_is_no_address(self, owner):
        made = await owner.post("/admin/v1/mails/test", json={"to": "ada@example.com"})
        assert (made.status_code, made.json()["state"]) == (201, "waiting")
        refused = await owner.post("/admin/v1/mails/test", json={"to": "a@b@c"})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == "to"

    async def test_resends_what_is_over_but_not_what_waits(self, owner, client_of, sessions, unpaid):
        mail_id = (await owner.get("/admin/v1/mails")).json()["items"][0]["id"]
        waiting = await owner.post(f"/admin/v1/mails/{mail_id}/resend")
        assert (waiting.status_code, waiting.json()["code"]) == (409, "mail_waiting")
        async with sessions() as session, session.begin():
            await session.execute(update(Mail).values(state="refused", error="550 no"))
        assert (await client_of("read_only").post(f"/admin/v1/mails/{mail_id}/resend")).status_code == 403
        again = await client_of("support").post(f"/admin/v1/mails/{mail_id}/resend")
        assert (again.json()["state"], again.json()["error"]) == ("waiting", None)


class TestDunning:
    async def test_lists_cases_and_the_accounts_notices(self, owner, unpaid):
        (case,) = (await owner.get("/admin/v1/dunning", params={"open": True})).json()["items"]
        assert (case["state"], case["after"], case["told"]) == ("grace", "block", ["failed"])
        assert case["grace_until"] == "2026-12-07T09:00:00.000Z"
        (notice,) = (await owner.get(f"/admin/v1/accounts/{unpaid}/notices")).json()["items"]
        assert (notice["code"], notice["severity"]) == ("payment_failed", "warning")
        assert notice["text"] == "The payment of Growth failed."
        assert notice["until"] == case["grace_until"]
        assert (await owner.get("/admin/v1/dunning", params={"open": False})).json()["items"] == []

    async def test_shows_them_as_a_page_to_whoever_may_read(self, app, tokens, unpaid):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://km") as stranger:
            assert (await stranger.get("/admin/unpaid")).status_code == 401
            page = await stranger.get("/admin/unpaid", auth=("x", tokens["read_only"]))
        assert "Øresund &lt;Data&gt;" in page.text
        assert "The payment of Growth failed." in page.text
        assert "KM_SMTP_HOST is not set" in page.text
        assert "<script" not in page.text

    async def test_gives_more_time(self, owner, client_of, unpaid):
        (case,) = (await owner.get("/admin/v1/dunning", params={"account_id": unpaid})).json()["items"]
        path, body = f"/admin/v1/dunning/{case['id']}/grant-time", {"until": "2026-12-24T00:00:00Z"}
        assert (await client_of("read_only").post(path, json=body)).status_code == 403
        granted = await client_of("finance").post(path, json=body)
        assert granted.json()["grace_until"] == "2026-12-24T00:00:00.000Z"
        refused = await owner.post(path, json={"until": "2020-01-01T00:00:00Z"})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "until")
        unknown = await owner.post(f"/admin/v1/dunning/dun_{'0' * 26}/grant-time", json=body)
        assert (unknown.status_code, unknown.json()["code"]) == (404, "dunning_case_not_found")

    async def test_an_account_without_trouble_has_no_notices(self, owner, sessions):
        async with sessions() as session, session.begin():
            account = await an_account(session, now=NOW)
        assert (await owner.get(f"/admin/v1/accounts/{account.id}/notices")).json() == {"items": []}
        assert (await owner.get(f"/admin/v1/accounts/acc_{'0' * 26}/notices")).status_code == 404
