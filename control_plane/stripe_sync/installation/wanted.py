"""What this installation needs at Stripe besides plans. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from control_plane.foundation.errors import ValidationFailedError
from control_plane.stripe_sync.events.allowlist import SNAPSHOT_TYPES, THIN_TYPES

if TYPE_CHECKING:
    from stripe.params.billing_portal import ConfigurationCreateParamsFeatures

SNAPSHOT_PATH: Final = "/webhooks/stripe"
THIN_PATH: Final = "/webhooks/stripe/thin"
MAX_URL: Final = 2_000
DESCRIPTION: Final = "Made by kong-monetize (km stripe setup). Please do not change or delete it here."


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Where Stripe is to send which events."""

    url: str
    events: tuple[str, ...]

    def missing(self, enabled: Collection[str]) -> tuple[str, ...]:
        """Return the events that an endpoint with these does not bring."""
        return () if "*" in enabled else tuple(name for name in self.events if name not in enabled)


def snapshot_hook(base_url: str) -> Hook:
    return Hook(url=base_url.rstrip("/") + SNAPSHOT_PATH, events=SNAPSHOT_TYPES)


def thin_hook(base_url: str) -> Hook:
    return Hook(url=base_url.rstrip("/") + THIN_PATH, events=THIN_TYPES)


def check_base_url(base_url: str, *, live: bool) -> str:
    """Return an address that Stripe can send webhooks to, as far as its text tells.

    Raises:
        ValidationFailedError: it is no address, or not of https where money is real.
    """
    parts = urlsplit(base_url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname or len(base_url) > MAX_URL:
        raise ValidationFailedError("url", "must be an http or https address, like https://billing.example.com")
    if parts.query or parts.fragment or parts.username:
        raise ValidationFailedError("url", "must hold neither a query, nor a fragment, nor a name")
    if live and parts.scheme != "https":
        raise ValidationFailedError("url", "must begin with https: with a live key Stripe sends nowhere else")
    return base_url.strip().rstrip("/")


def portal_features() -> "ConfigurationCreateParamsFeatures":
    """Return what customers can do at Stripe: cards, invoices, addresses, cancelling.

    Plans are changed on our side only: Stripe's page cannot change several prices at once.
    """
    return {
        "payment_method_update": {"enabled": True},
        "invoice_history": {"enabled": True},
        "customer_update": {"enabled": True, "allowed_updates": ["email", "name", "address", "tax_id"]},
        "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
        "subscription_update": {"enabled": False},
    }
