"""Stripe as our own simulator, ordered about by its control API."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from control_plane.stripe_sync.model import StripeContext
from devstack.stripe.embedded import EmbeddedStripe


@dataclass(frozen=True)
class Simulated:
    sim: EmbeddedStripe
    is_late: bool = False

    async def advance(self, ctx: StripeContext, to: datetime) -> None:
        await asyncio.to_thread(self.sim.control.advance, to=int(to.timestamp()))

    async def delivered(self) -> None:
        await asyncio.to_thread(self.sim.control.wait_delivered)

    async def look_for_more(self, ctx: StripeContext) -> int:
        return 0  # webhooks bring everything

    async def complete_checkout(self, session_id: str, url: str, card: str) -> bool:
        done = await asyncio.to_thread(
            lambda: self.sim.control.order("complete_checkout", session=session_id, card=card)
        )
        return bool(done["completed"])

    async def retry_after(self, *days: int) -> None:
        await asyncio.to_thread(lambda: self.sim.control.order("billing_settings", retry_days=days))

    def told(self) -> str:
        return f"the simulator at {self.sim.url}"
