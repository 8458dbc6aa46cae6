"""Completeness and digests by REST, and the page for operators."""

import asyncio
import shutil
import socket
from datetime import UTC, datetime, timedelta

import pytest
import uvicorn

from control_plane.accounts.tokens import create_token
from control_plane.foundation.clock import to_ms
from control_plane.usage.completeness.tables import CompletenessRun, CountedUsage, HourCheck
from control_plane.usage.digests.chain import NO_DIGEST
from control_plane.usage.digests.tables import UsageDigest

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
NAMES = ("Nimbus Labs", "Skylark Freight", "Øresund <Data> & a name that goes on for quite a while")


@pytest.fixture
async def accounts(client):
    return [(await client.post("/admin/v1/accounts", json={"name": name})).json()["id"] for name in NAMES]


@pytest.fixture
async def checked(accounts, sessions):
    """A day of three accounts: the second misses calls, the third's counters were lost for an hour."""
    async with sessions() as session, session.begin():
        session.add(CompletenessRun(id=1, counted_until=NOW, checked_at=NOW - timedelta(seconds=4)))
        for number, account_id in enumerate(accounts):
            for back in range(1, 23):
                state = {(1, 3): "missing", (2, 5): "unknown", (0, 1): "waiting"}.get((number, back), "complete")
                session.add(a_row(account_id, NOW - back * HOUR, state))
                session.add(
                    a_check(account_id, NOW - back * HOUR, "differs" if (number, back) == (2, 8) else "yes")
                )
    return accounts


def a_row(account_id, hour, state):
    missing = []
    if state == "missing":
        at_ms = to_ms(hour + timedelta(minutes=17, seconds=3))
        missing = [
            {
                "first": 90_417,
                "last": 90_417,
                "after_ms": at_ms,
                "before_ms": at_ms + 41,
                "nodes": ["node-7/q7Zk2mXb"],
            },
            {"first": 90_502, "last": 90_509, "after_ms": None, "before_ms": at_ms + 900, "nodes": []},
        ]
    return CountedUsage(
        hour=hour,
        subscription_id=f"sub_of_{account_id}",
        mode="live",
        account_id=account_id,
        product="weather",
        period_start=NOW.replace(day=1, hour=0),
        admitted=12_345,
        not_counted=0,
        numbers=[{"first": 80_000, "last": 92_344}],
        counted_at=hour + HOUR,
        state=state,
        stored=12_345 - 9 * len(missing) // 2,
        unnumbered=3 if state == "unknown" else 0,
        rolled_up=12_345,
        missing_calls=9 if missing else 0,
        missing=missing,
        checked_at=None if state == "waiting" else hour + 2 * HOUR,
    )


def a_check(account_id, hour, settled):
    differs = settled == "differs"
    return HourCheck(
        account_id=account_id,
        hour=hour,
        revision=1,
        checked_at=hour + 2 * HOUR,
        recheck_at=None,
        differs_since=hour + HOUR if differs else None,
        differences=[{"product": "weather"}] if differs else [],
        settled=settled,
    )


class TestRest:
    async def test_lists_hours_newest_first_page_by_page(self, client, checked):
        rows, cursor = [], None
        while True:
            params = {"limit": 25} | ({"cursor": cursor} if cursor else {})
            page = (await client.get("/admin/v1/completeness", params=params)).json()
            rows += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert len(rows) == len({(row["account_id"], row["hour"]) for row in rows}) == 66
        assert [row["hour"] for row in rows] == sorted((row["hour"] for row in rows), reverse=True)

    async def test_filters_by_state_and_account_and_names_what_is_missing(self, client, checked):
        page = (await client.get("/admin/v1/completeness", params={"state": "incomplete"})).json()
        assert sorted(row["state"] for row in page["items"]) == ["missing", "unknown"]
        params = {"state": "missing", "account_id": checked[1]}
        (row,) = (await client.get("/admin/v1/completeness", params=params)).json()["items"]
        assert (row["account_name"], row["missing_calls"]) == (NAMES[1], 9)
        assert row["missing"][0] == {
            "first": 90_417,
            "last": 90_417,
            "after": "2026-11-23T06:17:03.000Z",
            "before": "2026-11-23T06:17:03.041Z",
            "nodes": ["node-7/q7Zk2mXb"],
        }
        params["account_id"] = checked[0]
        assert (await client.get("/admin/v1/completeness", params=params)).json()["items"] == []

    async def test_sums_up(self, client, checked):
        found = (await client.get("/admin/v1/completeness/overview")).json()
        assert found["hours_by_state"] == {"waiting": 1, "complete": 63, "missing": 1, "surplus": 0, "unknown": 1}
        assert (found["missing_calls"], found["differing_hours"], found["wrongly_settled_hours"]) == (9, 1, 1)
        assert found["checked_at"] == "2026-11-23T08:59:56.000Z"

    async def test_tells_all_of_one_hour(self, client, checked):
        path = f"/admin/v1/accounts/{checked[2]}/completeness"
        found = (await client.get(path, params={"hour": (NOW - 8 * HOUR).isoformat()})).json()
        assert (found["settled"], found["differences"], len(found["counters"])) == (
            "differs",
            [{"product": "weather"}],
            1,
        )
        wrong = await client.get(path, params={"hour": "2026-11-23T01:30:00Z"})
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "hour")

    async def test_has_hours_checked_again_by_those_who_may_change_things(
        self, client, client_of, checked, sessions
    ):
        body = {"account_id": checked[0], "start": (NOW - 3 * HOUR).isoformat(), "end": NOW.isoformat()}
        assert (await client_of("support").post("/admin/v1/completeness/checks", json=body)).status_code == 403
        assert (await client.post("/admin/v1/completeness/checks", json=body)).json() == {"hours": 3}
        async with sessions() as session:
            check = await session.get(HourCheck, (checked[0], NOW - HOUR))
            assert check.recheck_at == NOW


class TestDigests:
    @pytest.fixture
    async def chain(self, accounts, sessions):
        async with sessions() as session, session.begin():
            for number in range(1, 6):
                session.add(
                    UsageDigest(
                        account_id=accounts[0],
                        sequence=number,
                        hour=NOW - (6 - number) * HOUR,
                        revision=1,
                        events=number,
                        root="ab" * 32,
                        previous=NO_DIGEST,
                        digest=f"{number:064x}",
                        created_at=NOW,
                    )
                )
        return accounts[0]

    async def test_are_listed_by_hours_or_as_a_part_of_the_chain(self, client_of, chain):
        async def numbers(**params):
            params = {"account_id": chain, **params}
            answer = await client_of("read_only").get("/admin/v1/usage/digests", params=params)
            return [row["sequence"] for row in answer.json()["items"]]

        assert await numbers() == [1, 2, 3, 4, 5]
        assert await numbers(start=(NOW - 2 * HOUR).isoformat()) == [4, 5]
        assert await numbers(first=2, last=4) == [2, 3, 4]
        assert await numbers(first=4) == [4, 5]

    async def test_proofs_are_given_to_every_role(self, client_of, chain):
        event = {"event_id": "e-1", "decided_at_ms": to_ms(NOW - HOUR)}
        body = {"account_id": chain, "events": [event]}
        answer = await client_of("read_only").post("/admin/v1/usage/digests/proofs", json=body)
        assert answer.json()["absent"] == [
            {"event_id": "e-1", "hour": "2026-11-23T08:00:00.000Z", "reason": "not_stored"}
        ]

    async def test_a_proof_needs_something_to_prove(self, client, chain):
        answer = await client.post("/admin/v1/usage/digests/proofs", json={"account_id": chain})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "receipts")


class TestPage:
    PATH = "/admin/completeness"

    @pytest.mark.parametrize("role", ["owner", "admin", "finance", "support", "read_only"])
    async def test_opens_for_every_role_that_reads(self, stranger, tokens, checked, role):
        answer = await stranger.get(self.PATH, auth=("anybody", tokens[role]))
        assert answer.status_code == 200
        assert "Skylark Freight" in answer.text

    async def test_asks_for_a_token_and_takes_no_other_password(self, stranger, tokens):
        for auth in (None, ("owner", "guess"), (tokens["owner"], "")):
            answer = await stranger.get(self.PATH, auth=auth)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")

    async def test_is_closed_to_tokens_that_only_report(self, stranger, sessions):
        async with sessions() as session, session.begin():
            made = await create_token(session, name="app", role="ingest", actor="test", now=NOW)
        assert (await stranger.get(self.PATH, auth=("app", made.text))).status_code == 403

    async def test_shows_states_missing_numbers_time_and_node(self, stranger, tokens, checked):
        text = (await stranger.get(self.PATH, auth=("x", tokens["support"]))).text
        for part in ("Calls or figures are missing", "90,502\N{EN DASH}90,509", "06:17:03.041", "node-7/q7Zk2mXb"):
            assert part in text
        assert "Øresund &lt;Data&gt; &amp;" in text

    async def test_says_so_where_everything_is_complete(self, stranger, tokens, checked):
        params = {"account_id": checked[0], "state": "", "days": 7}
        text = (await stranger.get(self.PATH, params=params, auth=("x", tokens["support"]))).text
        assert "Complete, to the call" in text
        assert "Skylark" not in text

    async def test_loads_nothing_and_runs_nothing(self, stranger, tokens, checked):
        answer = await stranger.get(self.PATH, auth=("x", tokens["support"]))
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        for never in ("<script", "src=", "http:", "https:", " style="):
            assert never not in answer.text

    async def test_older_hours_are_on_the_next_page(self, stranger, tokens, checked):
        auth = ("x", tokens["support"])
        first = (await stranger.get(self.PATH, auth=auth)).text
        link = first.split('<nav class="pages"><a href="')[1].split('"')[0].replace("&amp;", "&")
        second = await stranger.get(self.PATH + link, auth=auth)
        assert second.status_code == 200
        assert ">Newest</a>" in second.text


@pytest.mark.browser
class TestPageInABrowser:
    @pytest.mark.parametrize("width", [1280, 390])
    async def test_nothing_is_cut_off_or_refused(self, app, tokens, checked, width):
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
                context = await browser.new_context(
                    viewport={"width": width, "height": 900},
                    http_credentials={"username": "x", "password": tokens["read_only"]},
                )
                page = await context.new_page()
                said = []
                page.on("console", lambda message: said.append(message.text))
                answer = await page.goto(f"http://127.0.0.1:{listener.getsockname()[1]}/admin/completeness")
                assert answer.ok
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                assert await page.locator("h1").inner_text() == "Is every admitted call in usage?"
                # the style has been taken, so the browser holds it to be the one that is allowed
                colour = await page.locator(".cell.missing").first.evaluate(
                    "cell => getComputedStyle(cell).backgroundColor"
                )
                assert colour == "rgb(179, 38, 30)"
                assert await page.locator("table.grid tbody tr").count() == 3
                assert [text for text in said if "favicon" not in text] == []
                await page.select_option("select[name=state]", "missing")
                await page.get_by_role("button", name="Show").click()
                await page.wait_for_url("**state=missing**")
                assert await page.locator("section.card").last.locator("tbody tr").count() == 1
                await browser.close()
        finally:
            server.should_exit = True
            await serving
            listener.close()
