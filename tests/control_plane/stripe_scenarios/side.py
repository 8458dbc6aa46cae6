"""What a story needs of Stripe beyond its API, which the simulator and Stripe itself do each in their own way."""

from datetime import datetime
from typing import Protocol

from control_plane.stripe_sync.model import StripeContext


class Side(Protocol):
    """Stripe as the world around it sees it: its time, its news, and the people at its pages."""

    @property
    def is_late(self) -> bool:
        """Say whether things may be told of some time after they happened, with nothing to wait for."""
        ...

    async def advance(self, ctx: StripeContext, to: datetime) -> None:
        """Move Stripe's time to a moment; everything due until then happens. Not later than now: nothing."""
        ...

    async def delivered(self) -> None:
        """Wait until what Stripe has sent has come."""
        ...

    async def look_for_more(self, ctx: StripeContext) -> int:
        """Put what Stripe tells and nobody brings into the inbox; returns how many events were new."""
        ...

    async def complete_checkout(self, session_id: str, url: str, card: str) -> bool:
        """Fill the page in and press its button; says whether it was taken. `card` such as pm_card_visa."""
        ...

    async def retry_after(self, *days: int) -> None:
        """Have Stripe try a failed card again so many days after each failure, and cancel after the last."""
        ...

    def told(self) -> str:
        """Return where to look at Stripe when a story fails."""
        ...
