"""Subscriptions by REST: trials, changes that say when they begin, pauses, add-ons; refusals by their codes."""

from datetime import timedelta

import httpx
import pytest

from control_plane.subscriptions.advance import advance
from tests.control_plane.admin_api.conftest import NOW
from tests.control_plane.admin_api.test_resources import ok
from tests.control_plane.builders import a_published_plan, a_subscription, an_account
from tests.control_plane.subscriptions.showing import flat

DAY = timedelta(days=1)
TRIAL_END, PERIOD_END = "2026-12-07T09:00:00.000Z", "2026-12-23T09:00:00.000Z"


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture
async def account(sessions) -> str:
    async with sessions() as session, session.begin():
        await a_published_plan(session, now=NOW, code="starter", prices=(flat("49"),), quota_units=1_000)
        await a_published_plan(session, now=NOW, code="growth", prices=(flat("199"),), position=1)
        await a_published_plan(session, now=NOW, code="tried", prices=(flat("9"),), position=2, trial_days=14)
        await a_published_plan(session, now=NOW, code="calls", kind="add_on", prices=(flat("5"),), position=3)
        await a_published_plan(session, now=NOW, code="maps-calls", kind="add_on", product="maps", position=4)
        return (await an_account(session, now=NOW, time_zone="Europe/Berlin")).id


@pytest.fixture
async def path(sessions, account: str) -> str:
    """Of a subscription to Starter."""
    async with sessions() as session, session.begin():
        holder = await an_account(session, now=NOW)
        return f"/admin/v1/subscriptions/{(await a_subscription(session, holder, now=NOW)).id}"


class TestSubscribing:
    async def test_with_a_trial(self, client: httpx.AsyncClient, account: str):
        started = ok(await client.post(f"/admin/v1/accounts/{account}/subscriptions", json={"plan": "tried"}), 201)
        assert (started["status"], started["trial_ends_at"], started["anchor_at"]) == (
            "trialing",
            TRIAL_END,
            TRIAL_END,
        )
        assert [(phase["kind"], phase["ends_at"]) for phase in started["phases"]] == [
            ("trial", TRIAL_END),
            ("paid", None),
        ]
        path = f"/admin/v1/subscriptions/{started['id']}"
        later = "2026-12-10T00:00:00Z"
        assert ok(await client.post(f"{path}/extend-trial", json={"ends_at": later}))["status"] == "trialing"
        early = await client.post(f"{path}/extend-trial", json={"ends_at": TRIAL_END})
        assert (refusal(early), early.json()["errors"][0]["field"]) == ((422, "validation_failed"), "ends_at")
        assert refusal(await client.post(f"{path}/pause")) == (409, "subscription_transition_refused")
        assert refusal(await client.post(f"{path}/add-ons", json={"add_on": "calls"})) == (409, "add_ons_closed")
        ended = ok(await client.post(f"{path}/end-trial"))
        assert (ended["status"], ended["anchor_at"]) == ("active", "2026-11-23T09:00:00.000Z")
        assert refusal(await client.post(f"{path}/end-trial")) == (409, "subscription_not_trialing")

    async def test_on_a_day_of_the_accounts_month(self, client: httpx.AsyncClient, account: str):
        body = {"plan": "tried", "trial": False, "anchor_day": 1}
        started = ok(await client.post(f"/admin/v1/accounts/{account}/subscriptions", json=body), 201)
        assert (started["time_zone"], started["status"]) == ("Europe/Berlin", "active")
        assert started["current_period"] == {
            "start": "2026-10-31T23:00:00.000Z",
            "end": "2026-11-30T23:00:00.000Z",
        }

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"plan": "starter", "anchor_day": 0}, "anchor_day"),
            ({"plan": "starter", "anchor_day": "1"}, "anchor_day"),
            ({"plan": "starter", "anchor_day": 1, "anchor_at": PERIOD_END}, "anchor_day"),
            ({"plan": "tried", "anchor_day": 1}, "anchor_day"),
            ({"plan": "starter", "trial": True}, "trial"),
            ({"plan": "starter", "trial": "yes"}, "trial"),
        ],
    )
    async def test_is_refused_by_field(self, client: httpx.AsyncClient, account: str, body, field):
        answer = await client.post(f"/admin/v1/accounts/{account}/subscriptions", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)

    async def test_to_an_add_on_is_refused(self, client: httpx.AsyncClient, account: str):
        answer = await client.post(f"/admin/v1/accounts/{account}/subscriptions", json={"plan": "calls"})
        assert refusal(answer) == (409, "plan_is_add_on")


class TestChanging:
    async def test_says_which_moment_it_took(self, client: httpx.AsyncClient, path: str):
        upgraded = ok(await client.post(f"{path}/change", json={"plan": "growth"}))
        assert (upgraded["changed_at"], upgraded["plan"]) == ("now", "growth")
        planned = ok(await client.post(f"{path}/change", json={"plan": "starter"}))
        assert (planned["changed_at"], planned["effective_at"]) == ("period_end", PERIOD_END)
        assert [phase["plan"] for phase in planned["phases"]] == ["growth", "starter"]
        kept = ok(await client.post(f"{path}/discard-change"))
        assert [phase["plan"] for phase in kept["phases"]] == ["growth"]
        ok(await client.post(f"{path}/cancel", json={"at": "period_end"}))
        late = await client.post(f"{path}/change", json={"plan": "starter"})
        assert refusal(late) == (409, "subscription_ending")

    async def test_ends_now_with_a_credit_or_without(self, client: httpx.AsyncClient, path: str):
        answer = await client.post(f"{path}/cancel", json={"at": "period_end", "unused_time": "credited"})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "unused_time")
        ended = ok(await client.post(f"{path}/cancel", json={"at": "now", "unused_time": "credited"}))
        assert (ended["status"], ended["unused_time"], ended["phases"]) == ("canceled", "credited", [])

    async def test_rests_and_goes_on(self, client: httpx.AsyncClient, path: str):
        for _ in range(2):
            assert ok(await client.post(f"{path}/pause"))["status"] == "paused"
        for _ in range(2):
            assert ok(await client.post(f"{path}/resume"))["status"] == "active"


class TestAddOns:
    async def test_come_change_and_go(self, client: httpx.AsyncClient, path: str, sessions):
        added = ok(await client.post(f"{path}/add-ons", json={"add_on": "calls", "quantity": 3}), 201)
        assert [(held["add_on"], held["quantity"], held["ends_at"]) for held in added["add_ons"]] == [
            ("calls", 3, None)
        ]
        held = f"{path}/add-ons/calls"
        assert ok(await client.put(held, json={"quantity": 5}))["add_ons"][0]["quantity"] == 5
        for _ in range(2):
            ending = ok(await client.post(f"{held}/remove", json={"at": "period_end"}))
            assert ending["add_ons"][0]["ends_at"] == PERIOD_END
        assert ok(await client.post(f"{held}/keep"))["add_ons"][0]["ends_at"] is None
        assert ok(await client.get(f"{path}/add-ons"))["items"][0]["name"] == "Calls"
        assert ok(await client.post(f"{held}/remove", json={"at": "now"}))["add_ons"] == []
        assert ok(await client.get(f"{path}/add-ons"))["items"] == []
        async with sessions() as session, session.begin():
            assert (await advance(session, now=NOW + 60 * DAY)).phases_begun == 0

    async def test_are_refused_by_code(self, client: httpx.AsyncClient, path: str):
        ok(await client.post(f"{path}/add-ons", json={"add_on": "calls"}), 201)
        for add_on, code in (
            ("calls", "add_on_held"),
            ("maps-calls", "product_differs"),
            ("growth", "not_an_add_on"),
        ):
            assert refusal(await client.post(f"{path}/add-ons", json={"add_on": add_on})) == (409, code)
        assert refusal(await client.put(f"{path}/add-ons/growth", json={"quantity": 2})) == (
            404,
            "add_on_not_found",
        )
        assert refusal(await client.put(f"{path}/add-ons/calls", json={"quantity": 0})) == (
            422,
            "validation_failed",
        )

    async def test_that_the_spend_cap_cannot_bear_are_refused(self, client: httpx.AsyncClient, path: str):
        ok(await client.put(f"{path}/spend-cap", json={"amount": "50"}))
        refused = await client.post(f"{path}/add-ons", json={"add_on": "calls"})
        assert refusal(refused) == (409, "spend_cap_below_fixed_charges")
        assert ok(await client.get(path))["add_ons"] == []
