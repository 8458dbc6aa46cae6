"""The key and the account: what they are, what the key may read, whether our clocks agree, and taxes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from stripe import StripeClient

from control_plane.stripe_sync.account import AccountDiffersError, require_account
from control_plane.stripe_sync.client import StripeKeyRefused
from control_plane.stripe_sync.installation.findings import Finding, advice, ok, problem, warning
from control_plane.stripe_sync.model import StripeContext

# webhooks whose signature is five minutes off are refused, usage dated five minutes ahead is, too
SKEW_NOTICED_SECONDS: Final = 30
SKEW_TOO_LARGE_SECONDS: Final = 240

Read = Callable[[StripeClient], Awaitable[Any]]
_ONE: Final[Any] = {"limit": 1}
READS: Final[Mapping[str, Read]] = {
    "Customers": lambda c: c.v1.customers.list_async(_ONE),
    "Products": lambda c: c.v1.products.list_async(_ONE),
    "Prices": lambda c: c.v1.prices.list_async(_ONE),
    "Billing meters": lambda c: c.v1.billing.meters.list_async(_ONE),
    "Subscriptions": lambda c: c.v1.subscriptions.list_async(_ONE),
    "Subscription schedules": lambda c: c.v1.subscription_schedules.list_async(_ONE),
    "Checkout sessions": lambda c: c.v1.checkout.sessions.list_async(_ONE),
    "Invoices": lambda c: c.v1.invoices.list_async(_ONE),
    "Credit notes": lambda c: c.v1.credit_notes.list_async(_ONE),
    "Coupons": lambda c: c.v1.coupons.list_async(_ONE),
    "Promotion codes": lambda c: c.v1.promotion_codes.list_async(_ONE),
    "Customer portal": lambda c: c.v1.billing_portal.configurations.list_async(_ONE),
    "Disputes": lambda c: c.v1.disputes.list_async(_ONE),
    "Events": lambda c: c.v1.events.list_async(_ONE),
    "Webhook endpoints": lambda c: c.v1.webhook_endpoints.list_async(_ONE),
    "Event destinations": lambda c: c.v2.core.event_destinations.list_async(_ONE),
}


async def check_key(context: StripeContext) -> list[Finding]:
    """Say what kind of key it is, and whether Stripe is asked at all."""
    config = context.config
    kind = (
        f"{'restricted' if config.is_restricted else 'secret'} key of {'live' if config.is_live else 'test'} mode"
    )
    found = [
        ok("key", f"a {kind}")
        if config.is_restricted
        else warning("key", f"a {kind}, which may do everything: a restricted one (rk_...) does less harm if lost")
    ]
    if config.api_base:
        found.append(warning("address", f"KM_STRIPE_API_BASE is set: {config.api_base} is asked, not Stripe"))
    return found


async def check_account(context: StripeContext) -> list[Finding]:
    """Say whose account it is, and whether it is the one that we know objects of."""
    try:
        account = await context.stripe.call(lambda c: c.v1.accounts.retrieve_current_async())
    except StripeKeyRefused as refused:
        if refused.is_unknown or not context.config.is_restricted:
            raise
        return [advice("account", "the key may not read its account, so nobody notices if it is another one's")]
    found = [ok("account", f"{account.id}, {account.country or 'no country'}")]
    if context.config.is_live and not account.charges_enabled:
        found.append(problem("account", "Stripe does not let it charge anybody yet: finish its activation"))
    try:
        await require_account(context)
    except AccountDiffersError as differs:
        found.append(problem("account", differs.message))
    return found


async def check_permissions(context: StripeContext) -> list[Finding]:
    """Say what the key may not read. What it may write cannot be found out without writing."""
    names = list(READS)
    refused = [name for name, may in zip(names, await asyncio.gather(*_asked(context)), strict=True) if not may]
    if refused:
        return [problem("permissions", f"the key may not read: {', '.join(refused)}")]
    found = [ok("permissions", f"the key reads all that is needed ({len(names)} kinds of objects)")]
    if context.config.is_restricted:
        found.append(
            advice(
                "permissions", "a restricted key needs `write` for these, too, and for usage: Billing meter events"
            )
        )
    return found


def _asked(context: StripeContext) -> list[Awaitable[bool]]:
    async def may(read: Read) -> bool:
        try:
            await context.stripe.call(read)
        except StripeKeyRefused:
            return False
        return True

    return [may(read) for read in READS.values()]


async def check_clock(context: StripeContext) -> list[Finding]:
    """Compare the machine's clock with that of Stripe's answers."""
    before = time.time()
    answer = await context.stripe.call(lambda c: c.v1.products.list_async(_ONE))
    told = answer.last_response.headers.get("date") if answer.last_response else None
    if told is None:
        return [advice("clock", "Stripe's answers tell no time here")]
    middle = (before + time.time()) / 2
    skew = middle - (parsedate_to_datetime(told).timestamp() + 0.5)  # the header has whole seconds
    says = f"ours is {abs(skew):.0f} seconds {'ahead of' if skew > 0 else 'behind'} Stripe's"
    if abs(skew) >= SKEW_TOO_LARGE_SECONDS:
        return [problem("clock", f"{says}: webhooks and usage are refused at 5 minutes; run NTP")]
    if abs(skew) >= SKEW_NOTICED_SECONDS:
        return [warning("clock", f"{says}; run NTP")]
    return [ok("clock", "within half a minute of Stripe's")]


async def check_taxes(context: StripeContext) -> list[Finding]:
    """Stripe Tax without an active registration collects nothing and says nothing: so it is said here."""
    if not context.config.automatic_tax:
        return [advice("taxes", "KM_STRIPE_TAX is off: Stripe adds no taxes to its invoices")]
    try:
        settings = await context.stripe.call(lambda c: c.v1.tax.settings.retrieve_async())
        asked = context.stripe.every(
            lambda c: c.v1.tax.registrations.list_async({"status": "active", "limit": 100})
        )
        countries = sorted({registration.country async for registration in asked})
    except StripeKeyRefused:
        return [problem("taxes", "KM_STRIPE_TAX is on, and the key may not read tax settings and registrations")]
    found = []
    if settings.status != "active":
        missing = getattr(settings.status_details.pending, "missing_fields", None) or ["its settings"]
        found.append(problem("taxes", f"Stripe Tax is not active: it lacks {', '.join(missing)}"))
    if not countries:
        found.append(
            problem("taxes", "no active registration: Stripe Tax would collect nothing, without an error")
        )
    return found or [ok("taxes", f"registered in {', '.join(countries)}")]
