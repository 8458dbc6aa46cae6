"""Usage goes first: what a change has Stripe bill at once is reported before it."""

from datetime import datetime

from control_plane.stripe_sync.model import StripeContext


async def flush_usage(ctx: StripeContext, subscription_id: str, *, until: datetime) -> None:
    """Report the sealed usage of a subscription up to a moment, as far as that can be done now.

    What is not through by then is billed by our own adjustment of the invoice.
    """
