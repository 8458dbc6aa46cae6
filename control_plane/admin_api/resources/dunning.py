"""Unpaid subscriptions: their cases, more time for customers, and the notices on an account's pages."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, StringConstraints

from control_plane.accounts import queries as account_queries
from control_plane.accounts.model import Role
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import (
    AccountId,
    Answer,
    Moment,
    PageAnswer,
    PageQuery,
    StrictBody,
    page_answer,
)
from control_plane.admin_api.request_forms import AccountIdText
from control_plane.admin_api.services import Given, Now
from control_plane.dunning import operations, queries
from control_plane.dunning.model import After, CaseState
from control_plane.dunning.notices import Code, notices_of
from control_plane.dunning.tables import DunningCase

router = APIRouter(tags=["dunning"])
CaseId = Annotated[str, Path(pattern=r"^dun_[0-9a-hjkmnp-tv-z]{26}$", description="The case's id.")]
SubscriptionIdText = Annotated[str, StringConstraints(pattern=r"^sub_[0-9a-hjkmnp-tv-z]{26}$")]


class CasesQuery(PageQuery):
    """Which cases."""

    account_id: AccountIdText | None = None
    subscription_id: SubscriptionIdText | None = None
    state: CaseState | None = None
    open: Annotated[bool | None, Field(description="Only open ones, or only closed ones.")] = None


class GrantTimeBody(StrictBody):
    """Until when the customer has time to pay."""

    until: Moment


class CaseAnswer(Answer):
    id: str
    subscription_id: str
    account_id: str
    state: CaseState = Field(
        description="`grace` (served), `blocked` (calls are refused), `fallen_back` (a free plan's limits hold);"
        " closed: `recovered` (paid) or `over` (the subscription ended or rests)."
    )
    after: After = Field(description="What holds when the grace is over.")
    opened_at: Moment
    grace_until: Moment
    told: list[str] = Field(description="Which notices the customer was sent.")
    next_step_at: Moment | None = Field(validation_alias="look_at")
    fell_at: Moment | None = Field(description="Since when the subscription is held back.")
    closed_at: Moment | None


class NoticeAnswer(Answer):
    code: Code
    severity: Literal["info", "warning", "error"]
    text: str
    subscription_id: str
    since: Moment
    until: Moment | None = Field(description="When the grace or the trial ends.")
    link: str | None = Field(description="Where it can be paid.")


class NoticesAnswer(BaseModel):
    items: list[NoticeAnswer]


@router.get("/dunning")
async def list_dunning_cases(session: Database, query: Annotated[CasesQuery, Query()]) -> PageAnswer[CaseAnswer]:
    """List cases of unpaid subscriptions, newest first."""
    page = await queries.case_page(
        session,
        account_id=query.account_id,
        subscription_id=query.subscription_id,
        state=query.state,
        is_open=query.open,
        limit=query.limit,
        cursor=query.cursor,
    )
    return page_answer(page, _case)


@router.post("/dunning/{case_id}/grant-time")
@allows(Role.FINANCE, Role.SUPPORT)
async def grant_time(
    case_id: CaseId, body: GrantTimeBody, session: Database, caller: Authenticated, now: Now
) -> CaseAnswer:
    """Give a customer until another moment to pay; one who was held back has all limits again at once."""
    case = await operations.grant_time(session, case_id=case_id, until=body.until, actor=caller.actor, now=now)
    return _case(case)


@router.get("/accounts/{account_id}/notices")
async def list_notices(account_id: AccountId, session: Database, services: Given, now: Now) -> NoticesAnswer:
    """List what stands on the account's pages: unpaid bills, what holds for them, trials that end soon."""
    await account_queries.account(session, account_id)
    found = await notices_of(session, account_id, trial_notice=services.dunning.trial_notice, now=now)
    return NoticesAnswer(items=[NoticeAnswer.model_validate(notice) for notice in found])


def _case(case: DunningCase) -> CaseAnswer:
    return CaseAnswer.model_validate(case)
