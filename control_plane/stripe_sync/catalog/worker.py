"""The worker that keeps at Stripe what is on sale here."""

import asyncio
from dataclasses import dataclass

from control_plane.foundation.rounds import repeat
from control_plane.foundation.sole_worker import sole_worker
from control_plane.stripe_sync.catalog import metrics
from control_plane.stripe_sync.catalog.pushing import PUSH_LOCK, push_what_waits
from control_plane.stripe_sync.model import Clock, StripeContext


@dataclass(frozen=True, slots=True)
class PushConfig:
    """`pause_seconds` between two looks at what is on sale."""

    pause_seconds: float = 2.0


async def run_catalog_push(
    *, config: PushConfig, context: StripeContext, clock: Clock, stop: asyncio.Event
) -> None:
    """Lay at Stripe what is on sale and billed there, until `stop`."""

    async def one_round() -> float:
        async with sole_worker(context.sessions, PUSH_LOCK) as mine:
            if mine:
                await push_what_waits(context.at(clock()))
        return config.pause_seconds

    await repeat("stripe_catalog", one_round, stop=stop, failures=metrics.ROUND_FAILURES)
