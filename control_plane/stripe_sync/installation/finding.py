"""Finding at Stripe what `km stripe setup` once made there, by the name in its metadata."""

import stripe as sdk

from control_plane.stripe_sync.client import API_VERSION, Stripe

INSTALLATION = "km_installation"
PAGE = 100


async def webhook_endpoints(stripe: Stripe) -> list[sdk.WebhookEndpoint]:
    """Return our endpoints; first the one to keep: of our API version, enabled, the newest."""
    asked = stripe.every(lambda c: c.v1.webhook_endpoints.list_async({"limit": PAGE}))
    found = [endpoint async for endpoint in asked if is_ours(stripe, endpoint)]
    return sorted(
        found,
        key=lambda one: (one.api_version == API_VERSION, one.status == "enabled", one.created, one.id),
        reverse=True,
    )


async def thin_destinations(stripe: Stripe) -> list[sdk.v2.core.EventDestination]:
    """Return our destinations of thin events; first the one to keep: enabled, the newest."""
    asked = stripe.every(
        lambda c: c.v2.core.event_destinations.list_async({"limit": PAGE, "include": ["webhook_endpoint.url"]})
    )
    found = [one async for one in asked if is_ours(stripe, one) and one.event_payload == "thin"]
    return sorted(found, key=lambda one: (one.status == "enabled", one.created, one.id), reverse=True)


async def portal_configurations(stripe: Stripe) -> list[sdk.billing_portal.Configuration]:
    """Return our configurations of the customers' portal, the newest first."""
    asked = stripe.every(lambda c: c.v1.billing_portal.configurations.list_async({"limit": PAGE, "active": True}))
    found = [one async for one in asked if is_ours(stripe, one)]
    return sorted(found, key=lambda one: (one.created, one.id), reverse=True)


def is_ours(stripe: Stripe, thing: object) -> bool:
    """Say whether an object's metadata names this installation."""
    metadata = getattr(thing, "metadata", None) or {}
    return INSTALLATION in metadata and metadata[INSTALLATION] == stripe.config.installation


def url_of(destination: sdk.v2.core.EventDestination) -> str:
    """Return where a destination sends to, '' where Stripe does not tell."""
    hook = destination.webhook_endpoint
    return (hook.url or "") if hook is not None else ""
