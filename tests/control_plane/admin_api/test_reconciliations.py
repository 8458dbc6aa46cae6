"""Reconciliations by REST, and the page for operators."""

import asyncio
import shutil
import socket
from datetime import UTC, datetime, timedelta

import pytest
import uvicorn

from control_plane.reconciliation.model import Comparison, Difference, Link, Severity, not_checked
from control_plane.reconciliation.worker import work_once

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROUTE = "/admin/v1/reconciliations"
PATH = "/admin/reconciliation"


@pytest.fixture
async def account_id(client):
    return (await client.post("/admin/v1/accounts", json={"name": "Øresund <Data>"})).json()["id"]


@pytest.fixture
async def compared(client, sessions, account_id):
    """One of all accounts with a difference of money, one that waits, and a link that was not checked."""

    def a_difference(link, severity, **values):
        usual = {"account_id": account_id, "start": NOW - 30 * HOUR, "end": NOW - 29 * HOUR, "meter": "requests"}
        return Difference(**(usual | {"link": link, "severity": severity} | values))

    async def events(_session, _span):
        return Comparison(
            link=Link.GATEWAY_EVENTS,
            checked=1_204,
            checked_what="hours of counters",
            expected=12_345_678,
            found=12_345_676,
            differences=[
                a_difference(
                    Link.GATEWAY_EVENTS,
                    Severity.WAITING,
                    unit="calls",
                    expected=90_417,
                    found=90_415,
                    cause="not_judged_yet",
                    detail="the hour is not over, or a shipper has not shipped past it",
                )
            ],
        )

    async def invoices(_session, _span):
        return Comparison(
            link=Link.STRIPE_INVOICES,
            checked=40,
            checked_what="Stripe's final invoices",
            differences=[
                a_difference(
                    Link.STRIPE_INVOICES,
                    Severity.WRONG,
                    unit="EUR",
                    expected=1_852,
                    found=-1_850,
                    cause="unexplained",
                    detail="KM-0007: usage of requests",
                )
            ],
        )

    async def summaries(_session, _span):
        return not_checked(Link.REPORTS_STRIPE, "Stripe is off.")

    started = (await client.post(ROUTE, json={})).json()
    assert (started["status"], started["state"], started["links"]) == ("queued", "", [])
    assert await work_once(sessions, comparisons=(events, summaries, invoices), clock=lambda: NOW)
    return started["id"]


class TestRest:
    async def test_says_link_by_link_what_came_out(self, client_of, compared):
        found = (await client_of("read_only").get(f"{ROUTE}/{compared}")).json()
        assert (found["status"], found["state"]) == ("done", "differs")
        assert [(link["link"], link["state"], link["wrong"], link["waiting"]) for link in found["links"]] == [
            ("gateway_events", "waiting", 0, 1),
            ("reports_stripe", "not_checked", 0, 0),
            ("stripe_invoices", "differs", 1, 0),
        ]
        (listed,) = (await client_of("read_only").get(ROUTE)).json()["items"]
        assert listed == found

    async def test_lists_differences_with_their_cause_page_by_page(self, client, compared, account_id):
        first = (await client.get(f"{ROUTE}/{compared}/differences", params={"limit": 1})).json()
        (wrong,) = first["items"]
        assert (wrong["severity"], wrong["expected"], wrong["found"], wrong["unit"]) == (
            "wrong",
            1_852,
            -1_850,
            "EUR",
        )
        assert (wrong["cause"], wrong["account_id"]) == ("unexplained", account_id)
        params = {"limit": 1, "cursor": first["next_cursor"]}
        second = (await client.get(f"{ROUTE}/{compared}/differences", params=params)).json()
        assert ([one["severity"] for one in second["items"]], second["next_cursor"]) == (["waiting"], None)
        only = (await client.get(f"{ROUTE}/{compared}/differences", params={"link": "gateway_events"})).json()
        assert [one["cause"] for one in only["items"]] == ["not_judged_yet"]

    @pytest.mark.parametrize(("role", "status"), [("finance", 201), ("support", 201), ("read_only", 403)])
    async def test_is_started_by_those_who_answer_for_figures(self, client_of, role, status):
        assert (await client_of(role).post(ROUTE, json={})).status_code == status

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"start": "2026-11-01T00:30:00Z"}, "start"),
            ({"start": "2026-11-02T00:00:00Z", "end": "2026-11-01T00:00:00Z"}, "start"),
            ({"start": "2025-01-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}, "start"),
            ({"end": "2026-11-01T00:00:00.500Z"}, "end"),
        ],
    )
    async def test_refuses_spans_that_make_no_sense(self, client, wrong, field):
        answer = await client.post(ROUTE, json=wrong)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)

    async def test_knows_no_reconciliation_or_account_that_is_not_there(self, client):
        missing = "0" * 26
        assert (await client.get(f"{ROUTE}/rcn_{missing}")).status_code == 404
        assert (await client.get(f"{ROUTE}/rcn_{missing}/differences")).status_code == 404
        assert (await client.post(ROUTE, json={"account_id": f"acc_{missing}"})).status_code == 404


class TestPage:
    async def test_shows_links_differences_and_money(self, stranger, tokens, compared):
        text = (await stranger.get(PATH, auth=("x", tokens["read_only"]))).text
        for part in ("1 difference to look at", "12,345,678", "Stripe is off.", "-18.50 EUR", "KM-0007"):
            assert part in text
        assert "Øresund &lt;Data&gt;" in text

    async def test_says_so_before_the_first(self, stranger, tokens):
        text = (await stranger.get(PATH, auth=("x", tokens["read_only"]))).text
        assert "Nothing has been compared yet" in text

    async def test_asks_for_a_token(self, stranger):
        assert (await stranger.get(PATH)).status_code == 401


@pytest.mark.browser
class TestPageInABrowser:
    async def test_nothing_is_cut_off_or_refused(self, app, tokens, compared):
        from playwright.async_api import async_playwright

        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(
                    executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
                    args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
                )
                for width in (1280, 390):
                    context = await browser.new_context(
                        viewport={"width": width, "height": 900},
                        http_credentials={"username": "x", "password": tokens["read_only"]},
                    )
                    page = await context.new_page()
                    said = []
                    page.on("console", lambda message, said=said: said.append(message.text))
                    answer = await page.goto(f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}")
                    assert answer.ok
                    assert await page.evaluate("document.documentElement.scrollWidth") <= width
                    assert [text for text in said if "favicon" not in text] == []
                    await page.get_by_role("link", name="Completeness").click()
                    await page.wait_for_url("**/admin/completeness")
                await browser.close()
        finally:
            server.should_exit = True
            await serving
            listener.close()
