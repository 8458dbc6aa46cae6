"""The founding offer: a discount for the first ones who pay."""

from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from control_plane.accounts.model import Role
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.discount_forms import MOST, Percent, percent_text
from control_plane.admin_api.forms import Moment, StrictBody
from control_plane.admin_api.services import Now
from control_plane.billing.discounts import founding
from control_plane.billing.discounts.founding import FoundingTerms
from control_plane.billing.discounts.tables import FoundingOffer
from control_plane.foundation.errors import NotFoundError

router = APIRouter(prefix="/founding-offer", tags=["discounts"])


class OpenFoundingOffer(StrictBody):
    """`max_accounts`, `until`, or both."""

    percent: Percent = Field(examples=["25"])
    months: Annotated[int, Field(strict=True, ge=1, le=120)] = 12
    max_accounts: Annotated[int | None, Field(strict=True, ge=1, le=MOST)] = None
    until: Annotated[Moment | None, Field(description="Who starts to pay before this moment is welcome.")] = None


class FoundingOfferAnswer(BaseModel):
    state: str = Field(description="`open` or `closed`.")
    percent: str
    months: int
    max_accounts: int | None
    until: Moment | None
    members: int
    coupon: str
    opened_at: Moment
    closed_at: Moment | None


@router.get("")
async def get_founding_offer(session: Database) -> FoundingOfferAnswer:
    """Return the founding offer that is open, else the last one."""
    offer = await founding.current_offer(session)
    if offer is None:
        raise NotFoundError("founding_offer", "yet")
    return _answer(offer)


@router.post("", status_code=201)
@allows(Role.FINANCE)
async def open_founding_offer(
    body: OpenFoundingOffer, session: Database, caller: Authenticated, now: Now
) -> FoundingOfferAnswer:
    """Open an offer: accounts that start to pay from now on become founding members, without asking.

    One at a time. Each account once, on the subscription with which it first is on a plan that costs something.
    """
    terms = FoundingTerms(
        percent=Decimal(body.percent), months=body.months, max_accounts=body.max_accounts, until=body.until
    )
    return _answer(await founding.open_founding_offer(session, terms=terms, actor=caller.actor, now=now))


@router.delete("")
@allows(Role.FINANCE)
async def close_founding_offer(session: Database, caller: Authenticated, now: Now) -> FoundingOfferAnswer:
    """Close the offer that is open; its members keep their discount."""
    return _answer(await founding.close_founding_offer(session, actor=caller.actor, now=now))


def _answer(offer: FoundingOffer) -> FoundingOfferAnswer:
    same = ("state", "max_accounts", "until", "members", "opened_at", "closed_at")
    return FoundingOfferAnswer(
        **{name: getattr(offer, name) for name in same},
        percent=percent_text(offer.coupon.percent) or "",
        months=offer.coupon.count or 0,
        coupon=offer.coupon.code,
    )
