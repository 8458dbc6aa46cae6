"""Moves of many subscriptions as bodies say them and answers show them."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from control_plane.admin_api.forms import Code, Line, Moment, MoneyAnswer, StrictBody
from control_plane.billing.plan_moves.candidates import MoveScope
from control_plane.billing.plan_moves.model import Candidate, MonthlyCost, MoveTime
from control_plane.billing.plan_moves.queries import MovePreview, MoveReport
from control_plane.billing.plan_moves.tables import PlanMoveItem
from control_plane.foundation.clock import floor_ms

MAX_NOTICE_DAYS = 365
MAX_EXCLUDED = 1000
SubscriptionIdText = Annotated[str, StringConstraints(pattern=r"^sub_[0-9a-hjkmnp-tv-z]{26}$")]
Why = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class PreviewPlanMove(StrictBody):
    """Whom to move, to what, and when."""

    from_plan: Code
    from_versions: Annotated[
        list[Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]],
        Field(default_factory=list, max_length=100, description="All but the one to move to, if left out."),
    ]
    to_plan: Annotated[Code | None, Field(description="Its version on sale; the same plan if left out.")] = None
    timing: Annotated[
        Literal["period_end", "date"],
        Field(description="`period_end`: at each one's first period end from `at` on; `date`: all at `at`."),
    ] = "period_end"
    at: Moment
    notice_days: Annotated[
        int, Field(strict=True, ge=0, le=MAX_NOTICE_DAYS, description="How long before customers must be told.")
    ] = 30

    def scope(self) -> MoveScope:
        return MoveScope(
            from_plan=self.from_plan,
            from_versions=tuple(self.from_versions),
            to_plan=self.to_plan or self.from_plan,
        )

    def when(self) -> MoveTime:
        return MoveTime(timing=self.timing, at=floor_ms(self.at), notice_days=self.notice_days)


class SchedulePlanMove(PreviewPlanMove):
    """The same, to be done."""

    message: Annotated[Line, Field(description="Added to each notice.")] = ""
    exclude: Annotated[
        dict[SubscriptionIdText, Why],
        Field(
            default_factory=dict,
            max_length=MAX_EXCLUDED,
            description="Subscriptions that stay as they are, with the reason.",
        ),
    ]


class ExcludeFromMove(StrictBody):
    subscription_id: SubscriptionIdText
    reason: Why


class MonthlyCostAnswer(BaseModel):
    """Each month, before and after: flat prices, and all that the use of the last 30 days costs."""

    recurring_before: MoneyAnswer
    recurring_after: MoneyAnswer
    with_use_before: MoneyAnswer
    with_use_after: MoneyAnswer
    difference: MoneyAnswer = Field(description="With use; below zero where the move is cheaper.")

    @classmethod
    def of(cls, cost: MonthlyCost, currency: str) -> "MonthlyCostAnswer":
        return cls(
            recurring_before=MoneyAnswer.of(cost.recurring_before_minor, currency),
            recurring_after=MoneyAnswer.of(cost.recurring_after_minor, currency),
            with_use_before=MoneyAnswer.of(cost.month_before_minor, currency),
            with_use_after=MoneyAnswer.of(cost.month_after_minor, currency),
            difference=MoneyAnswer.of(cost.difference_minor, currency),
        )


class CandidateAnswer(BaseModel):
    subscription_id: str
    account_id: str
    account_name: str
    from_version: int
    effective_at: Moment
    cost: MonthlyCostAnswer | None = Field(description="Null where the plan is not sold in the currency.")
    setup_fee: MoneyAnswer = Field(description="Due once when it moves; zero where one was paid before.")
    reason_code: str = Field(description="Why it cannot be moved; empty where it can.")
    reason: str

    @classmethod
    def of(cls, one: Candidate) -> "CandidateAnswer":
        return cls(
            subscription_id=one.subscription_id,
            account_id=one.account_id,
            account_name=one.account_name,
            from_version=one.from_version,
            effective_at=one.effective_at,
            cost=MonthlyCostAnswer.of(one.cost, one.currency) if one.cost else None,
            setup_fee=MoneyAnswer.of(one.setup_fee_minor, one.currency),
            reason_code=one.cannot.code if one.cannot else "",
            reason=one.cannot.text if one.cannot else "",
        )


class PlanMovePreviewAnswer(BaseModel):
    to_plan: str
    to_version: int
    subscriptions: int
    movable: int
    totals: dict[str, MonthlyCostAnswer] = Field(description="Of those who can be moved, by currency.")
    reasons: dict[str, int] = Field(description="How many cannot be moved, by reason.")
    items: list[CandidateAnswer] = Field(description="The largest differences first.")

    @classmethod
    def of(cls, preview: MovePreview, *, limit: int) -> "PlanMovePreviewAnswer":
        reasons: dict[str, int] = {}
        for one in preview.candidates:
            if one.cannot:
                reasons[one.cannot.code] = reasons.get(one.cannot.code, 0) + 1
        return cls(
            to_plan=preview.target.plan_code,
            to_version=preview.target.version,
            subscriptions=len(preview.candidates),
            movable=preview.movable,
            totals=_totals(preview.totals),
            reasons=reasons,
            items=[CandidateAnswer.of(one) for one in preview.candidates[:limit]],
        )


class PlanMoveAnswer(BaseModel):
    """A move, and what became of its subscriptions."""

    id: str
    status: str = Field(description="`scheduled`, `done`, `canceling` or `canceled`.")
    from_plan: str
    from_versions: list[int] = Field(description="Empty for all.")
    to_plan: str
    to_version: int
    timing: str
    at: Moment
    notice_days: int
    message: str
    created_by: str
    created_at: Moment
    finished_at: Moment | None
    counts: dict[str, int] = Field(
        description="Subscriptions `waiting`, `planned`, `moved`, `skipped`, `failed`, `excluded` and `canceled`."
    )
    totals: dict[str, MonthlyCostAnswer] = Field(description="Of those waiting, planned and moved, by currency.")
    to_tell: int = Field(description="Customers who have not been told yet.")
    tell_from: Moment | None = Field(description="By when the first of them must be told.")

    @classmethod
    def of(cls, report: MoveReport) -> "PlanMoveAnswer":
        move = report.move
        return cls(
            id=move.id,
            status=move.status,
            from_plan=report.from_plan,
            from_versions=[int(version) for version in move.from_versions],
            to_plan=report.to_plan,
            to_version=report.to_version,
            timing=move.timing,
            at=move.move_at,
            notice_days=move.notice_days,
            message=move.message,
            created_by=move.created_by,
            created_at=move.created_at,
            finished_at=move.finished_at,
            counts=report.counts,
            totals=_totals(report.totals),
            to_tell=report.to_tell,
            tell_from=report.tell_from,
        )


class NoticeAnswer(BaseModel):
    """What the customer is to be told."""

    account_name: str
    from_plan: str
    from_version: int
    to_plan: str
    to_plan_name: str
    to_version: int
    effective_at: str
    currency: str
    recurring_before_minor: int | None
    recurring_after_minor: int | None
    setup_fee_minor: int = 0
    message: str


class PlanMoveItemAnswer(BaseModel):
    subscription_id: str
    account_id: str
    account_name: str
    status: str
    reason_code: str
    reason: str
    effective_at: Moment
    tell_by: Moment
    told_at: Moment | None
    notice: NoticeAnswer
    cost: MonthlyCostAnswer | None

    @classmethod
    def of(cls, item: PlanMoveItem, account_name: str) -> "PlanMoveItemAnswer":
        return cls(
            subscription_id=item.subscription_id,
            account_id=item.account_id,
            account_name=account_name,
            status=item.status,
            reason_code=item.reason_code,
            reason=item.reason,
            effective_at=item.effective_at,
            tell_by=item.tell_by,
            told_at=item.told_at,
            notice=NoticeAnswer(**item.notice),
            cost=_cost_of_item(item),
        )


def _cost_of_item(item: PlanMoveItem) -> MonthlyCostAnswer | None:
    if item.recurring_before_minor is None:
        return None
    cost = MonthlyCost(
        recurring_before_minor=item.recurring_before_minor,
        recurring_after_minor=item.recurring_after_minor or 0,
        month_before_minor=item.month_before_minor or 0,
        month_after_minor=item.month_after_minor or 0,
    )
    return MonthlyCostAnswer.of(cost, item.currency)


def _totals(totals: dict[str, MonthlyCost]) -> dict[str, MonthlyCostAnswer]:
    return {currency: MonthlyCostAnswer.of(cost, currency) for currency, cost in totals.items()}
