"""The demo's purchase: a plan paid at the simulated Stripe's checkout, calls, an upgrade, Stripe's invoices."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import yaml

from devstack.children import ChildFailedError
from devstack.demo.control import ControlClient, ControlError
from devstack.demo.report import Purchase, StripeFigure
from devstack.demo.scenario import PRODUCT
from devstack.demo.traffic import Traffic, weather_calls
from devstack.stripe.embedded import EmbeddedStripe

NAME = "Lumen Maps"
PLAN, LARGER = "team", "team-plus"
CALLS = 40
CALLS_PER_SECOND = 15.0
PATIENCE_SECONDS = 60.0
KEY_SECONDS = 1.0  # within which gateways know of a new key
# the default catalogue sells one plan through Stripe: here is one to move up to
LARGER_PLAN = {
    "code": LARGER,
    "name": "Team Plus",
    "api_product": PRODUCT,
    "position": 5,
    "visibility": "hidden",
    "billed_by": "stripe",
    "interval": "month",
    "currency": "USD",
    "quota": {"units": 400_000, "on_exceed": "charge"},
    "limits": [{"limit": 40, "per": "second"}],
    "prices": [
        {"model": "flat", "amount": "299.00", "description": "Team Plus plan"},
        {"model": "overage", "unit_amount": "0.0008", "description": "Requests beyond the quota"},
    ],
}


def sells_through_stripe(plans: str) -> bool:
    """Say whether a plan file has the plan that the purchase is of."""
    found = yaml.safe_load(plans).get("plans") or ()
    return any(plan.get("code") == PLAN and plan.get("billed_by") == "stripe" for plan in found)


async def play_purchase(
    control: ControlClient, stripe: EmbeddedStripe, *, plans: str, proxy_url: str, page_url: str
) -> Purchase:
    """Buy, call, move up; return what we reckoned beforehand beside what Stripe invoiced.

    Raises:
        ControlError: the product refused something.
        ChildFailedError: something did not happen within a minute.
    """
    await control.post("/plans/apply", yaml=_with_larger_plan(plans))
    account = await control.post("/accounts", {"name": NAME, "email": "billing@lumen.example.com"})
    account_id = account["id"]
    offer = await control.get(f"/plans/{PLAN}")
    bought = {"plan": PLAN, "success_url": page_url, "cancel_url": page_url, "allow_unlisted": True}
    checkout = await _until("the plan's way to Stripe", lambda: _checkout(control, account_id, bought))
    began_seconds, subscription_id = await _pay(control, account_id, checkout["url"])
    served = await _call(control, account_id, proxy_url)
    figures = [
        StripeFigure(
            "the first invoice, against the plan's price",
            reckoned_minor=_flat_minor(offer["published"]["prices"]),
            invoiced_minor=await _invoiced(control, account_id, "subscription_create"),
        )
    ]
    preview = await control.post(
        f"/subscriptions/{subscription_id}/preview-change", {"plan": LARGER, "allow_unlisted": True}
    )
    change = {"plan": LARGER, "allow_unlisted": True, "proration_at": preview["proration_at"]}
    await control.post(f"/subscriptions/{subscription_id}/change", change)
    figures += [
        StripeFigure(
            "moving up now, against its preview",
            reckoned_minor=preview["total"]["amount_minor"],
            invoiced_minor=await _invoiced(control, account_id, "subscription_update"),
        ),
        StripeFigure(
            "the next period's invoice, as both expect it",
            reckoned_minor=(await control.get(f"/subscriptions/{subscription_id}/expected-invoice"))["total"][
                "amount_minor"
            ],
            invoiced_minor=await _expected_by_stripe(control, stripe, subscription_id),
        ),
    ]
    return Purchase(account=NAME, began_seconds=began_seconds, calls=served, figures=tuple(figures))


def _with_larger_plan(plans: str) -> str:
    file = yaml.safe_load(plans)
    return yaml.safe_dump({"api_products": file["api_products"], "plans": [LARGER_PLAN]})


async def _checkout(control: ControlClient, account_id: str, bought: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return dict(await control.post(f"/accounts/{account_id}/checkouts", bought))
    except ControlError as error:
        if "plan_not_at_stripe" in str(error):  # a worker lays it there within seconds
            return None
        raise


async def _pay(control: ControlClient, account_id: str, page: str) -> tuple[float, str]:
    """Pay at the checkout's page as a customer does; return how long after that the subscription began."""
    async with aiohttp.ClientSession() as browser:
        started = time.monotonic()
        async with browser.post(page, data={"card": "pm_card_visa"}, allow_redirects=False) as answer:
            if answer.status != 303:  # noqa: PLR2004 - the page sends the customer back
                raise ChildFailedError(f"the checkout's page answered {answer.status}")

    async def subscription() -> str | None:
        found = (await control.get(f"/accounts/{account_id}/subscriptions"))["items"]
        return str(found[0]["id"]) if found else None

    subscription_id = await _until("the subscription that was paid for", subscription)
    return time.monotonic() - started, subscription_id


async def _call(control: ControlClient, account_id: str, proxy_url: str) -> int:
    """Send some calls with a new key; return how many were served."""
    issued = await control.post(f"/accounts/{account_id}/keys", {"name": "production", "mode": "live"})
    await asyncio.sleep(KEY_SECONDS)
    async with Traffic(proxy_url) as traffic:
        calls = weather_calls(caller=NAME, key=issued["text"], count=CALLS)
        await traffic.send_paced(calls, per_second=CALLS_PER_SECOND)
        return sum(count for answer, count in traffic.ledger.counts.items() if answer.code == "served")


async def _invoiced(control: ControlClient, account_id: str, reason: str) -> int:
    """Return the total of a paid invoice of Stripe's, as soon as we have read it."""

    async def paid() -> int | None:
        found = (await control.get(f"/accounts/{account_id}/stripe-invoices"))["items"]
        totals = [one["total"]["amount_minor"] for one in found if _is_paid(one, reason)]
        return totals[0] if totals else None

    return int(await _until("Stripe's invoice", paid))


def _is_paid(invoice: dict[str, Any], reason: str) -> bool:
    return bool(invoice["billing_reason"] == reason and invoice["status"] == "paid")


async def _expected_by_stripe(control: ControlClient, stripe: EmbeddedStripe, subscription_id: str) -> int:
    """Return what Stripe itself expects the next invoice to be."""
    there = await control.get(f"/subscriptions/{subscription_id}/stripe")
    headers = {"Authorization": f"Bearer {stripe.api_key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.post(
            f"{stripe.url}/v1/invoices/create_preview", data={"subscription": there["stripe_id"]}
        ) as answer,
    ):
        return int((await answer.json())["total"])


def _flat_minor(prices: list[dict[str, Any]]) -> int:
    cents = sum(round(float(price["params"]["amount"]) * 100) for price in prices if price["model"] == "flat")
    return int(cents)


async def _until(what: str, look: Callable[[], Awaitable[Any]]) -> Any:
    """Return what `look` finds, asked again until it finds something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = await look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise ChildFailedError(f"{what} did not come within a minute")
        await asyncio.sleep(0.1)
