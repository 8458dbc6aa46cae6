"""Forms of checkouts, the customer portal, and how a subscription stands at Stripe."""

from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, Field, StringConstraints

from control_plane.admin_api.discount_forms import WithPromotionCode
from control_plane.admin_api.forms import Moment, MoneyAnswer, PrintableText, StrictBody
from control_plane.admin_api.resources.subscription_forms import AllowUnlisted, PlanCode
from control_plane.admin_api.stripe_changes import StripeChangeAnswer

Url = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2_000),
    PrintableText,
    Field(examples=["https://shop.example/thanks"]),
]
CheckoutId = Annotated[str, Path(pattern=r"^sco_[0-9a-hjkmnp-tv-z]{26}$", description="The checkout's id.")]


class StartCheckout(StrictBody):
    plan: PlanCode
    success_url: Annotated[Url, Field(description="Where the browser goes when it is paid.")]
    cancel_url: Annotated[Url, Field(description="Where it goes when the customer turns back.")]
    trial: Annotated[
        bool | None,
        Field(
            strict=True,
            description="`true`: the plan's trial, again if need be; `false`: none. By default the plan's, if the "
            "account never had a subscription to the API product.",
        ),
    ] = None
    promotion_code: WithPromotionCode = None
    allow_unlisted: AllowUnlisted = False


class CheckoutAnswer(BaseModel):
    id: str
    account_id: str
    plan: str
    plan_version: int
    currency: str
    state: str = Field(
        description="`wanted` (not at Stripe yet: start it again), `open`, `completed`, `expired` or `refused`."
    )
    problem: str
    trial_ends_at: Moment | None
    trial_days: int | None = Field(description="In place of `trial_ends_at`, from the purchase on.")
    has_discount: bool
    subscription_id: str | None = Field(description="What it began.")
    created_at: Moment
    expires_at: Moment
    finished_at: Moment | None


class StartedCheckoutAnswer(CheckoutAnswer):
    url: str = Field(description="Where the customer pays. It is told once for each start, and kept nowhere.")


class CheckoutsAnswer(BaseModel):
    items: list[CheckoutAnswer]


class OpenPortal(StrictBody):
    return_url: Annotated[Url, Field(description="Where the portal's way back leads.")]
    flow: Annotated[
        Literal["payment_method_update"] | None, Field(description="Go straight to giving another card.")
    ] = None


class PortalAnswer(BaseModel):
    url: str = Field(description="Good for minutes, for one visitor; kept nowhere.")


class PreviewLineAnswer(BaseModel):
    description: str
    amount: MoneyAnswer


class ChangePreviewAnswer(BaseModel):
    at: str = Field(description="`now` or `period_end`.")
    effective_at: Moment
    proration_at: Moment | None = Field(description="Give it with the change, and it costs exactly this.")
    subtotal: MoneyAnswer
    total: MoneyAnswer
    amount_due: MoneyAnswer
    lines: list[PreviewLineAnswer]


class StripeItemAnswer(BaseModel):
    item_id: str
    price_id: str
    quantity: int | None


class StripeDiscountAnswer(BaseModel):
    discount_id: str
    coupon_id: str
    starts_at: Moment
    ends_at: Moment | None


class StripeStandingAnswer(BaseModel):
    """A subscription as it was at Stripe when it was read last."""

    subscription_id: str
    stripe_id: str
    customer_id: str
    status: str
    current_period_start: Moment
    current_period_end: Moment
    trial_end: Moment | None
    cancel_at: Moment | None
    schedule_id: str | None
    pending_update_until: Moment | None = Field(description="Until when Stripe waits for a change's payment.")
    automatic_tax: bool
    problem: str
    read_at: Moment
    items: list[StripeItemAnswer]
    discounts: list[StripeDiscountAnswer]
    changes: list[StripeChangeAnswer] = Field(description="The last hundred, newest first.")
