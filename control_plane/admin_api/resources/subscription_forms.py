"""What is sent to change subscriptions."""

from typing import Annotated, Literal

from pydantic import Field

from control_plane.admin_api.discount_forms import WithPromotionCode
from control_plane.admin_api.forms import Code, Moment, StrictBody, Units, WindowForm
from control_plane.catalog.rules import MAX_CONCURRENCY
from control_plane.foundation.windows import MAX_WINDOWS

PlanCode = Annotated[Code, Field(description="Its code; the version on sale is taken.", examples=["starter"])]
AllowUnlisted = Annotated[bool, Field(strict=True, description="Permit hidden plans and plans sold by quote.")]
At = Annotated[Literal["now", "period_end"], Field(description="`now`, or when the billing period ends.")]
ChangeAt = Annotated[
    Literal["auto", "now", "period_end"],
    Field(
        description="`auto`: now where the plan costs more before any use, or the same with a larger quota, and "
        "in a trial; else when the billing period ends."
    ),
]


class CreateSubscription(StrictBody):
    plan: PlanCode
    anchor_at: Annotated[
        Moment | None,
        Field(description="Where billing periods begin: a full hour. By default the hour that holds now."),
    ] = None
    anchor_day: Annotated[
        int | None,
        Field(
            strict=True,
            ge=1,
            le=31,
            description="In place of `anchor_at`: billing periods begin at midnight of this day, or of the "
            "month's last, in the account's time zone. The first one is cut short.",
        ),
    ] = None
    trial: Annotated[
        bool | None,
        Field(
            strict=True,
            description="`true`: the plan's trial, again if need be; `false`: none. By default the plan's, if the "
            "account never had a subscription to the API product. Billing periods begin where a trial ends.",
        ),
    ] = None
    promotion_code: WithPromotionCode = None
    allow_unlisted: AllowUnlisted = False


class PreviewChange(StrictBody):
    plan: PlanCode
    at: ChangeAt = "auto"
    allow_unlisted: AllowUnlisted = False


class ChangePlan(StrictBody):
    plan: PlanCode
    at: ChangeAt = "auto"
    proration_at: Annotated[
        Moment | None,
        Field(
            description="Where Stripe bills it: the moment of a preview made within the last hour: what it costs "
            "is reckoned from there."
        ),
    ] = None
    promotion_code: WithPromotionCode = None
    allow_unlisted: AllowUnlisted = False


class CancelSubscription(StrictBody):
    at: At
    unused_time: Annotated[
        Literal["kept", "credited"],
        Field(description="What was paid for the time after a cancellation now: `kept`, or `credited`."),
    ] = "kept"


class ExtendTrial(StrictBody):
    ends_at: Annotated[Moment, Field(description="The trial's new end: a full hour, later than the present one.")]


class OverrideLimits(StrictBody):
    """What is left out stays as it is; null goes back to the plan's."""

    windows: Annotated[list[WindowForm] | None, Field(max_length=MAX_WINDOWS)] = None
    quota_units: Units | None = None
    quota_cap_units: Annotated[
        Units | None, Field(description="Where a quota that charges refuses after all; more than the quota.")
    ] = None
    concurrency_limit: Annotated[
        int | None,
        Field(
            strict=True, ge=1, le=MAX_CONCURRENCY, description="Calls at a time, where the plan has such a limit."
        ),
    ] = None


class ChangeStatus(StrictBody):
    status: Annotated[
        Literal["active", "past_due", "paused"],
        Field(
            description="`past_due`: a payment is overdue; `paused`: no calls until it is `active` again. "
            "`active` ends a trial, too."
        ),
    ]
