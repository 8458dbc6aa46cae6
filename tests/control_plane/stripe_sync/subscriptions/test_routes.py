"""The routes by which people buy and change what Stripe bills."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI

from control_plane.accounts.tokens import create_token
from control_plane.admin_api import problems
from control_plane.admin_api.access import authenticated
from control_plane.admin_api.resources import add_ons, stripe_subscriptions, subscriptions
from control_plane.admin_api.services import Services
from control_plane.stripe_sync.subscriptions.checkout import apply_checkout
from tests.control_plane.stripe_sync.subscriptions.conftest import CANCEL, SUCCESS, Shop

PLAN = {"plan": "starter", "success_url": SUCCESS, "cancel_url": CANCEL}


@pytest.fixture(scope="session")
def built_app() -> FastAPI:
    """The routes in question alone: reading the models of all takes seconds."""
    app = FastAPI()
    problems.install(app)
    admin = APIRouter(prefix="/admin/v1", dependencies=[Depends(authenticated)])
    for resource in (subscriptions, add_ons, stripe_subscriptions):
        admin.include_router(resource.router)
    app.include_router(admin)
    return app


def serve(app: FastAPI, shop: Shop, *, stripe: bool = True) -> None:
    app.state.services = Services(
        sessions=shop.sessions,
        history=cast("Any", None),
        rebuild=cast("Any", None),
        stripe=shop.ctx if stripe else None,
        now=lambda: shop.ctx.now,
    )


@pytest.fixture
async def api(built_app: FastAPI, shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with shop.sessions() as session, session.begin():
        made = await create_token(session, name="t", role="admin", actor="test", now=shop.ctx.now)
    serve(built_app, shop)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=built_app),
        base_url="http://km.test/admin/v1",
        headers={"Authorization": f"Bearer {made.text}"},
    ) as client:
        yield client


class TestRoutes:
    async def test_lead_from_a_checkout_to_the_end(self, full_shop: Shop, api: httpx.AsyncClient) -> None:
        shop = full_shop
        started = (await api.post(f"/accounts/{shop.account_id}/checkouts", json=PLAN)).json()
        assert (started["state"], started["url"].startswith(shop.sim.url)) == ("open", True)
        listed = (await api.get(f"/accounts/{shop.account_id}/checkouts")).json()["items"]
        assert ("url" in listed[0], listed[0]["id"]) == (False, started["id"])
        [session] = shop.at_stripe("checkout.session")
        shop.sim.control.order("complete_checkout", session=session["id"])
        await apply_checkout(shop.ctx, session["id"])
        checkout = (await api.get(f"/checkouts/{started['id']}")).json()
        path = f"/subscriptions/{checkout['subscription_id']}"
        assert checkout["state"] == "completed"
        preview = (await api.post(f"{path}/preview-change", json={"plan": "growth"})).json()
        assert preview["amount_due"]["amount_minor"] == 15_000
        changed = await api.post(
            f"{path}/change", json={"plan": "growth", "proration_at": preview["proration_at"]}
        )
        assert (changed.json()["plan"], changed.json()["changed_at"]) == ("growth", "now")
        later = (await api.post(f"{path}/change", json={"plan": "starter"})).json()
        assert (later["plan"], later["changed_at"], len(later["phases"])) == ("growth", "period_end", 2)
        extra = await api.post(f"{path}/add-ons", json={"add_on": "extra", "quantity": 2})
        assert (extra.status_code, extra.json()["add_ons"][0]["quantity"]) == (201, 2)
        assert (await api.post(f"{path}/discard-change")).json()["phases"][-1]["plan"] == "growth"
        assert (await api.post(f"{path}/cancel", json={"at": "period_end"})).json()["ends_at"] is not None
        assert (await api.post(f"{path}/keep")).json()["ends_at"] is None
        assert (await api.post(f"{path}/pause")).json()["code"] == "billed_by_stripe"
        standing = (await api.post(f"{path}/stripe/refresh")).json()
        assert {one["state"] for one in standing["changes"]} <= {"done", "withdrawn"}
        over = await api.post(f"{path}/cancel", json={"at": "now", "unused_time": "credited"})
        assert (over.json()["status"], over.json()["stripe_change"]) == ("canceled", None)

    async def test_say_what_stripe_waits_for_and_what_it_refused(
        self, shop: Shop, api: httpx.AsyncClient, built_app: FastAPI
    ) -> None:
        bought = await shop.buy()
        path = f"/subscriptions/{bought.id}"
        serve(built_app, shop, stripe=False)
        assert (await api.post(f"{path}/keep")).json()["code"] == "stripe_off"
        assert (await api.post(f"{path}/preview-change", json=PLAN)).json()["code"] == "stripe_off"
        serve(built_app, shop)
        customer_id = (await shop.row()).customer_id
        shop.sim.control.order("set_card", customer=customer_id, card="pm_card_chargeCustomerFail")
        changed = (await api.post(f"{path}/change", json={"plan": "growth"})).json()
        assert (changed["plan"], changed["stripe_change"]["state"]) == ("starter", "pending")
        assert (await api.post(f"{path}/keep")).json()["code"] == "change_in_progress"
        subscribed = await api.post(f"/accounts/{shop.account_id}/subscriptions", json={"plan": "starter"})
        assert subscribed.json()["code"] == "bought_at_stripe"
        shop.sim.control.fault("reset_before", count=9)
        other = replace(shop, account_id=(await shop.another()).account_id)
        unreachable = await api.post(f"/accounts/{other.account_id}/checkouts", json=PLAN)
        assert (unreachable.status_code, unreachable.json()["code"]) == (503, "stripe_unavailable")
