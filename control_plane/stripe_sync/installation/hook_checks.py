"""Webhooks and the customers' portal: there, of our version, complete, and their secrets known."""

from collections.abc import Sequence

from control_plane.stripe_sync.client import API_VERSION
from control_plane.stripe_sync.installation import finding
from control_plane.stripe_sync.installation.findings import Finding, advice, ok, problem, warning
from control_plane.stripe_sync.installation.setup import portal_differences
from control_plane.stripe_sync.installation.wanted import Hook, snapshot_hook, thin_hook
from control_plane.stripe_sync.model import StripeContext

SNAPSHOT, THIN, PORTAL = "webhooks", "usage errors", "portal"
ANYWHERE = "https://example.invalid"  # which address it is only the operator knows


async def check_webhooks(context: StripeContext) -> list[Finding]:
    """Say whether events reach us and can be verified."""
    endpoints = await finding.webhook_endpoints(context.stripe)
    secret = _secret(SNAPSHOT, "KM_STRIPE_WEBHOOK_SECRET", context.config.webhook_secret, is_made=bool(endpoints))
    if not endpoints:
        return [problem(SNAPSHOT, "no endpoint of this installation at Stripe: km stripe setup"), *secret]
    endpoint = endpoints[0]
    found = _hook(
        SNAPSHOT, snapshot_hook(ANYWHERE), url=endpoint.url, events=endpoint.enabled_events, status=endpoint.status
    )
    if endpoint.api_version != API_VERSION:
        version = endpoint.api_version or "the account's API version"
        found.append(problem(SNAPSHOT, f"the endpoint sends {version}, not {API_VERSION}: km stripe setup"))
    if len(endpoints) > 1:
        others = ", ".join(other.id for other in endpoints[1:])
        found.append(warning(SNAPSHOT, f"more than one endpoint is ours: {others} may be deleted at Stripe"))
    return [*(found or [ok(SNAPSHOT, f"{endpoint.url}, {API_VERSION}, no event missing")]), *secret]


async def check_thin_events(context: StripeContext) -> list[Finding]:
    """Say whether we hear of usage that Stripe took and then could not use."""
    destinations = await finding.thin_destinations(context.stripe)
    secret = _secret(THIN, "KM_STRIPE_THIN_SECRET", context.config.thin_secret, is_made=bool(destinations))
    if not destinations:
        return [problem(THIN, "no destination of this installation at Stripe: km stripe setup"), *secret]
    one = destinations[0]
    url = finding.url_of(one)
    found = _hook(THIN, thin_hook(ANYWHERE), url=url, events=one.enabled_events, status=one.status)
    return [*(found or [ok(THIN, f"{url or one.id}, no event missing")]), *secret]


async def check_portal(context: StripeContext) -> list[Finding]:
    """Say what customers can do at Stripe otherwise than wanted."""
    configurations = await finding.portal_configurations(context.stripe)
    if not configurations:
        return [problem(PORTAL, "no configuration of this installation at Stripe: km stripe setup")]
    differences = portal_differences(configurations[0])
    return [problem(PORTAL, f"{says} km stripe setup puts it right.") for says in differences] or [
        ok(PORTAL, f"{configurations[0].id}: cards, invoices, addresses, cancelling")
    ]


async def check_settings_at_stripe(_context: StripeContext) -> list[Finding]:
    """Say what has to be set in Stripe's own pages, where nobody can read it."""
    return [
        advice(
            "grace",
            "Billing > Invoices: let invoices with a metered price wait 24 to 72 hours before they are finalised "
            "(1 hour if nothing is set); usage that comes later is billed by an invoice item",
        ),
        advice(
            "retries",
            "Billing > Revenue recovery: 8 tries within 2 weeks, then leave the subscription unpaid; "
            "KM_DUNNING_GRACE_DAYS should be as long",
        ),
    ]


def _secret(about: str, variable: str, value: str, *, is_made: bool) -> list[Finding]:
    if value:
        return [ok(about, f"{variable} is set")]
    how = "setup --new-secrets" if is_made else "setup"
    return [problem(about, f"{variable} is not set, so nothing is taken: km stripe {how} tells it")]


def _hook(about: str, wanted: Hook, *, url: str, events: Sequence[str], status: str) -> list[Finding]:
    found = []
    path = wanted.url.removeprefix(ANYWHERE)
    if url and not url.endswith(path):
        found.append(problem(about, f"Stripe sends to {url}, which does not end in {path}: km stripe setup"))
    if status != "enabled":
        found.append(problem(about, "it is disabled at Stripe: km stripe setup"))
    if missing := wanted.missing(events):
        found.append(problem(about, f"Stripe does not send {', '.join(missing)}: km stripe setup"))
    return found
