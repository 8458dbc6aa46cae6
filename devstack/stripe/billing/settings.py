"""What an account sets in Stripe's dashboard, for this engine: grace, retries, and how they end."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from devstack.stripe.simulator import Simulator

HOUR = 3600
DAY = 24 * HOUR


@dataclass
class BillingSettings:
    """Changed by the control API, in force from then on."""

    grace_seconds: int = HOUR
    """Between the draft of a period's invoice and its finalisation."""
    retry_days: tuple[float, ...] = (3, 5, 7)
    """Days from one failed payment of a renewal to the next try."""
    after_retries: Literal["cancel", "unpaid", "past_due"] = "cancel"
    incomplete_seconds: int = 23 * HOUR
    """How long the first invoice, and a change that waits for its payment, may stay unpaid."""
    invoice_prefix: str = "KMSIM"
    number_series: Literal["account", "customer"] = "customer"


def settings_of(sim: "Simulator") -> BillingSettings:
    kept: BillingSettings = sim.features.setdefault("billing", BillingSettings())
    return kept
