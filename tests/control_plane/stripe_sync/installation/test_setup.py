"""Setting up an installation at Stripe, and the doctor that looks whether all is well there."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import formatdate
from time import time
from typing import Any, get_args

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from stripe.params import WebhookEndpointCreateParams

from control_plane.accounts.tokens import create_token
from control_plane.admin_api import problems
from control_plane.admin_api.access import authenticated
from control_plane.admin_api.resources import stripe_setup
from control_plane.admin_api.services import Services
from control_plane.foundation.errors import ValidationFailedError
from control_plane.stripe_sync.account import AccountDiffersError, require_account
from control_plane.stripe_sync.catalog.tables import StripeSetup
from control_plane.stripe_sync.client import API_VERSION, Stripe, StripeConfig
from control_plane.stripe_sync.events.allowlist import SNAPSHOT_TYPES
from control_plane.stripe_sync.installation.account_checks import (
    check_account,
    check_clock,
    check_key,
    check_permissions,
    check_taxes,
)
from control_plane.stripe_sync.installation.doctor import examine
from control_plane.stripe_sync.installation.findings import Finding
from control_plane.stripe_sync.installation.setup import SetUpThing, set_up
from control_plane.stripe_sync.installation.wanted import check_base_url
from control_plane.stripe_sync.model import StripeContext
from devstack.stripe.embedded import EmbeddedStripe
from tests.control_plane.builders import ACTOR, a_published_plan, audit_of

Sessions = async_sessionmaker[AsyncSession]
URL = "https://billing.example.com"
PORTAL, ENDPOINT, THIN = "portal configuration", "webhook endpoint", "thin event destination"


async def set_up_at(context: StripeContext, url: str = URL, *, new_secrets: bool = False) -> dict[str, SetUpThing]:
    things = await set_up(context, base_url=url, new_secrets=new_secrets, actor=ACTOR)
    return {thing.thing: thing for thing in things}


def standing(findings: list[Finding], about: str) -> list[str]:
    return [finding.standing for finding in findings if finding.about == about]


def says(findings: list[Finding], standing_: str) -> str:
    return "\n".join(finding.says for finding in findings if finding.standing == standing_)


class TestSetUp:
    async def test_makes_webhooks_and_portal_and_tells_their_secrets_once(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions
    ) -> None:
        first = await set_up_at(context)
        assert {thing.action for thing in first.values()} == {"made"}
        assert {name: bool(thing.secret) for name, thing in first.items()} == {
            PORTAL: False,
            ENDPOINT: True,
            THIN: True,
        }
        endpoint = await context.stripe.call(
            lambda c: c.v1.webhook_endpoints.retrieve_async(str(first[ENDPOINT].stripe_id))
        )
        assert (endpoint.url, endpoint.api_version) == (f"{URL}/webhooks/stripe", API_VERSION)
        assert set(endpoint.enabled_events) == set(SNAPSHOT_TYPES)
        again = await set_up_at(context)
        assert {thing.action for thing in again.values()} == {"as it was"}
        assert [thing.secret for thing in again.values()] == [None, None, None]
        async with sessions() as session:
            kept = await session.get_one(StripeSetup, "main")
            assert len(await audit_of(session, "main")) == 2
        assert (kept.portal_configuration_id, kept.webhook_endpoint_id, kept.thin_destination_id) == tuple(
            first[name].stripe_id for name in (PORTAL, ENDPOINT, THIN)
        )

    async def test_puts_right_what_was_changed(self, context: StripeContext) -> None:
        made = await set_up_at(context)
        endpoint_id, portal_id = str(made[ENDPOINT].stripe_id), str(made[PORTAL].stripe_id)
        ask = context.stripe.call
        await ask(
            lambda c: c.v1.webhook_endpoints.update_async(
                endpoint_id, {"enabled_events": ["invoice.paid", "charge.failed"], "disabled": True}
            )
        )
        await ask(
            lambda c: c.v1.billing_portal.configurations.update_async(
                portal_id, {"features": {"invoice_history": {"enabled": False}}}
            )
        )
        later = context.at(context.now + timedelta(minutes=1))
        changed = await set_up_at(later, "https://other.example.com/")
        assert {thing.action for thing in changed.values()} == {"changed"}
        because = " ".join(changed[ENDPOINT].because)
        for part in (f"It sent to {URL}", "It lacked", "It had charge.failed more.", "It was disabled."):
            assert part in because
        assert changed[PORTAL].because == ("Customers could not see their invoices.",)
        again = await set_up_at(later, "https://other.example.com")
        assert {thing.action for thing in again.values()} == {"as it was"}

    async def test_new_secrets_replace_the_webhooks(self, sim: EmbeddedStripe, context: StripeContext) -> None:
        first = await set_up_at(context)
        second = await set_up_at(context.at(context.now + timedelta(seconds=1)), new_secrets=True)
        assert second[PORTAL].action == "as it was"
        for name in (ENDPOINT, THIN):
            assert second[name].secret not in (None, first[name].secret)
        assert [one["id"] for one in sim.control.dump("webhook_endpoint")["webhook_endpoint"]] == [
            second[ENDPOINT].stripe_id
        ]

    async def test_webhooks_of_others_stay_as_they_are(self, sim: EmbeddedStripe, context: StripeContext) -> None:
        theirs = await context.stripe.call(
            lambda c: c.v1.webhook_endpoints.create_async(
                {
                    "url": f"{URL}/webhooks/stripe",
                    "enabled_events": ["invoice.paid"],
                    "metadata": {"km_installation": "other"},
                }
            )
        )
        made = await set_up_at(context, new_secrets=True)
        assert made[ENDPOINT].action == "made"
        kept = await context.stripe.call(lambda c: c.v1.webhook_endpoints.retrieve_async(theirs.id))
        assert kept.enabled_events == ["invoice.paid"]

    async def test_a_failure_loses_no_secret_of_the_rest(
        self, sim: EmbeddedStripe, context: StripeContext
    ) -> None:
        sim.control.fault("error_before", method="POST", path="/v2/core/event_destinations", count=1)
        made = await set_up_at(context)
        assert (made[THIN].action, made[THIN].stripe_id) == ("failed", None)
        assert made[ENDPOINT].secret
        again = await set_up_at(context)
        assert [again[name].action for name in (ENDPOINT, THIN)] == ["as it was", "made"]

    @pytest.mark.parametrize(
        ("url", "live"),
        [
            ("http://billing.example.com", True),
            ("ftp://billing.example.com", False),
            ("billing.example.com", False),
            ("https://billing.example.com?a=b", False),
            ("https://me@billing.example.com", False),
            ("https://billing.example.com#a", False),
        ],
    )
    def test_addresses_that_stripe_cannot_use_are_refused(self, url: str, *, live: bool) -> None:
        with pytest.raises(ValidationFailedError):
            check_base_url(url, live=live)

    def test_every_event_asked_for_is_one_of_stripe_s(self) -> None:
        [listed] = get_args(WebhookEndpointCreateParams.__annotations__["enabled_events"]) or [None]
        known = _literals(listed)
        assert set(SNAPSHOT_TYPES) <= known


def _literals(annotation: Any) -> set[str]:
    text = str(annotation)
    return {part.strip(" '\"[]") for part in text.replace("Literal[", ",").split(",")}


class TestAccount:
    async def test_a_key_of_another_mode_is_told_apart(
        self, context: StripeContext, stripe_config: StripeConfig
    ) -> None:
        await require_account(context)
        await require_account(context)
        account = {"id": "acct_1KongMonetizeSim", "object": "account"}
        transport = httpx.MockTransport(lambda _: httpx.Response(200, json=account))
        live = replace(stripe_config, api_key="sk_live_" + "a" * 24, transport=transport)
        async with Stripe.open(live) as stripe:
            with pytest.raises(AccountDiffersError, match="live mode"):
                await require_account(replace(context, stripe=stripe))

    async def test_a_key_of_another_account_is_told_apart(
        self, context: StripeContext, sessions: Sessions
    ) -> None:
        await require_account(context)
        async with sessions() as session, session.begin():
            (await session.get_one(StripeSetup, "main")).account_id = "acct_other"
        with pytest.raises(AccountDiffersError, match="acct_other"):
            await require_account(context)


class TestDoctor:
    async def test_a_fresh_account_lacks_what_setup_makes(self, context: StripeContext) -> None:
        found = await examine(context)
        assert {name: "problem" in standing(found, name) for name in ("webhooks", "usage errors", "portal")} == {
            "webhooks": True,
            "usage errors": True,
            "portal": True,
        }
        assert standing(found, "account") == ["ok"]
        assert standing(found, "permissions") == ["ok"]
        assert standing(found, "plans") == ["ok"]

    async def test_after_setup_nothing_is_a_problem(self, context: StripeContext) -> None:
        await set_up_at(context)
        assert says(await examine(context), "problem") == ""

    async def test_secrets_that_are_not_set_are_told(
        self, context: StripeContext, stripe_config: StripeConfig
    ) -> None:
        await set_up_at(context)
        async with Stripe.open(replace(stripe_config, webhook_secret="", thin_secret="")) as stripe:
            told = says(await examine(replace(context, stripe=stripe)), "problem")
        assert "KM_STRIPE_WEBHOOK_SECRET is not set" in told
        assert "KM_STRIPE_THIN_SECRET is not set" in told

    async def test_missing_events_and_a_disabled_endpoint_are_told(self, context: StripeContext) -> None:
        made = await set_up_at(context)
        endpoint_id = str(made[ENDPOINT].stripe_id)
        await context.stripe.call(
            lambda c: c.v1.webhook_endpoints.update_async(
                endpoint_id, {"enabled_events": ["invoice.paid"], "disabled": True}
            )
        )
        told = says(await examine(context), "problem")
        assert "does not send checkout.session.completed" in told
        assert "disabled" in told

    async def test_plans_that_stripe_cannot_have_and_what_drifted_are_told(
        self, sim: EmbeddedStripe, context: StripeContext, sessions: Sessions, now: datetime
    ) -> None:
        async with sessions() as session, session.begin():
            await a_published_plan(session, now=now, billed_by="stripe")
        assert "starter v1" in says(await examine(context), "warning")

    async def test_taxes_without_a_registration_are_a_problem(
        self, context: StripeContext, stripe_config: StripeConfig
    ) -> None:
        async with Stripe.open(replace(stripe_config, automatic_tax=True)) as stripe:
            taxed = replace(context, stripe=stripe)
            assert "no active registration" in says(await check_taxes(taxed), "problem")
            await stripe.call(
                lambda c: c.v1.tax.registrations.create_async(
                    {
                        "active_from": "now",
                        "country": "DE",
                        "country_options": {"de": {"type": "standard"}},
                    }
                )
            )
            assert standing(await check_taxes(taxed), "taxes") == ["ok"]

    @pytest.mark.parametrize(
        ("skew_seconds", "expected"),
        [(0, "ok"), (20, "ok"), (-45, "warning"), (45, "warning"), (-300, "problem"), (300, "problem")],
    )
    async def test_clocks_that_differ_are_told(self, now: datetime, skew_seconds: int, expected: str) -> None:
        found = await check_clock(in_place_of_stripe(_by_a_clock_behind_ours(skew_seconds), now))
        assert standing(found, "clock") == [expected]

    async def test_what_the_key_may_not_read_is_told(self, now: datetime) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path in {"/v1/coupons", "/v1/account"}:
                return httpx.Response(403, json={"error": {"type": "invalid_request_error", "message": "No."}})
            return httpx.Response(200, json={"object": "list", "data": [], "has_more": False, "url": "/"})

        restricted = in_place_of_stripe(httpx.MockTransport(answer), now)
        assert says(await check_permissions(restricted), "problem") == "the key may not read: Coupons"
        assert standing(await check_account(restricted), "account") == ["advice"]
        assert standing(await check_key(restricted), "key") == ["ok"]

    @pytest.mark.parametrize(
        ("status", "told"), [(401, "does not know the key"), (500, "cannot be looked at: Stripe failed (500).")]
    )
    async def test_where_nothing_can_be_looked_at_it_says_so_once(
        self, now: datetime, status: int, told: str
    ) -> None:
        error = {"error": {"type": "api_error", "message": "No."}}
        transport = httpx.MockTransport(lambda _: httpx.Response(status, json=error))
        found = await examine(in_place_of_stripe(transport, now))
        assert [finding.standing for finding in found] == ["ok", "problem"]
        assert told in found[-1].says


def in_place_of_stripe(transport: httpx.MockTransport, now: datetime) -> StripeContext:
    """For what asks nothing but Stripe; the key is a restricted one."""
    config = StripeConfig(api_key="rk_test_" + "a" * 24, network_retries=0, transport=transport)
    return StripeContext(sessions=None, stripe=Stripe(config), now=now)  # type: ignore[arg-type]


def _by_a_clock_behind_ours(seconds: int) -> httpx.MockTransport:
    """Answers in place of Stripe, always with an empty list."""

    def answer(_request: httpx.Request) -> httpx.Response:
        headers = {"Date": formatdate(time() - seconds, usegmt=True)}
        return httpx.Response(200, headers=headers, json={"object": "list", "data": [], "has_more": False})

    return httpx.MockTransport(answer)


@pytest.fixture(scope="session")
def built_app() -> FastAPI:
    """Only these routes; the services are those of the test."""
    app = FastAPI()
    problems.install(app)
    app.include_router(stripe_setup.router, prefix="/admin/v1", dependencies=[Depends(authenticated)])
    return app


@pytest.fixture
async def ask(
    built_app: FastAPI, sessions: Sessions, context: StripeContext, now: datetime
) -> Callable[..., Awaitable[httpx.Response]]:
    """The API as an owner, or with another role; without Stripe where `stripe=False`."""

    async def ask_(
        method: str, path: str, body: Any = None, *, role: str = "owner", stripe: bool = True
    ) -> httpx.Response:
        async with sessions() as session, session.begin():
            token = await create_token(session, name="t", role=role, actor=ACTOR, now=now)
        built_app.state.services = Services(
            sessions=sessions,
            history=None,  # type: ignore[arg-type]
            rebuild=None,  # type: ignore[arg-type]
            stripe=context if stripe else None,
            now=lambda: now,
        )
        transport = httpx.ASGITransport(app=built_app)
        async with httpx.AsyncClient(transport=transport, base_url="http://km.test/admin/v1") as client:
            return await client.request(method, path, json=body, headers={"Authorization": f"Bearer {token.text}"})

    return ask_


class TestRoutes:
    async def test_without_a_key_stripe_is_off(self, ask: Callable[..., Awaitable[httpx.Response]]) -> None:
        answer = await ask("GET", "/stripe/doctor", stripe=False)
        assert (answer.status_code, answer.json()["code"]) == (409, "stripe_off")

    async def test_plans_are_laid_and_compared(
        self, ask: Callable[..., Awaitable[httpx.Response]], sessions: Sessions, now: datetime
    ) -> None:
        async with sessions() as session, session.begin():
            await a_published_plan(session, now=now, billed_by="stripe")
        dry = (await ask("POST", "/stripe/sync", {"dry_run": True})).json()
        assert [(one["state"], len(one["steps"])) for one in dry["versions"]] == [("looked_at", 2)]
        done = (await ask("POST", "/stripe/sync", {})).json()
        assert [(one["version"], one["state"]) for one in done["versions"]] == [("starter v1", "pushed")]
        drift = (await ask("GET", "/stripe/drift")).json()
        assert (drift["agrees"], drift["versions"][0]["steps"]) == (True, [])

    async def test_only_owners_are_told_secrets(self, ask: Callable[..., Awaitable[httpx.Response]]) -> None:
        assert (await ask("POST", "/stripe/setup", {"url": URL}, role="admin")).status_code == 403
        answer = await ask("POST", "/stripe/setup", {"url": URL})
        assert answer.status_code == 200
        assert any(thing["secret"] for thing in answer.json()["things"])

    async def test_readers_may_look_and_not_change(self, ask: Callable[..., Awaitable[httpx.Response]]) -> None:
        assert (await ask("GET", "/stripe/drift", role="read_only")).status_code == 200
        assert (await ask("POST", "/stripe/sync", {}, role="read_only")).status_code == 403
