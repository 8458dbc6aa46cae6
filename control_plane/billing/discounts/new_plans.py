"""What a subscription is given with a new plan."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.billing.discounts.founding import join_founders
from control_plane.billing.discounts.redeeming import redeem_promotion_code


async def discount_new_plan(
    session: AsyncSession, *, subscription_id: str, code: str | None, actor: str, now: datetime
) -> None:
    """Give a founding member's discount, where one is open, and then that of a promotion code.

    To be called in the transaction in which the subscription began or changed its plan, with the same `now`.

    Raises:
        NotFoundError: no such code. RedemptionRefusedError: see `refusals`.
    """
    await join_founders(session, [subscription_id], now=now)
    if code is not None:
        await redeem_promotion_code(session, subscription_id=subscription_id, code=code, actor=actor, now=now)
