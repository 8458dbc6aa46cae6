"""Usage goes first: what a change has Stripe bill at once is reported before it."""

from datetime import datetime

import structlog

from control_plane.stripe_sync.client import StripeRefused, StripeUnavailable
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.usage.flushing import flush

log = structlog.get_logger(__name__)


async def flush_usage(ctx: StripeContext, subscription_id: str, *, until: datetime) -> None:
    """Report the sealed usage of a subscription up to a moment, as far as that can be done now.

    What is not through by then is billed by our own adjustment of the invoice.
    """
    try:
        left = await flush(
            ctx.sessions, ctx.stripe, subscription_id=subscription_id, until=until, clock=lambda: ctx.now
        )
    except (StripeRefused, StripeUnavailable) as error:
        log.warning("stripe_usage_not_first", subscription_id=subscription_id, problem=error.message)
    else:
        if left.waiting_rows:
            log.info("stripe_usage_not_first", subscription_id=subscription_id, rows=left.waiting_rows)
