"""Referrals: who brought which account, and what that is worth."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from control_plane.accounts.model import Role
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.discount_forms import Amount, TypedReferralCode, read_money
from control_plane.admin_api.forms import (
    AccountId,
    Moment,
    MoneyAnswer,
    PageAnswer,
    PageQuery,
    StrictBody,
    page_answer,
)
from control_plane.admin_api.services import Now
from control_plane.billing.discounts import referral_queries, referrals
from control_plane.billing.discounts.referral_queries import ReferrerReport
from control_plane.billing.discounts.tables import Referral

router = APIRouter(tags=["referrals"])

AccountIdField = Annotated[str, Field(pattern=r"^acc_[0-9a-hjkmnp-tv-z]{26}$")]
CurrencyPath = Annotated[str, Path(pattern="^[A-Z]{3}$", description="ISO 4217.")]


class AssignReferrer(StrictBody):
    account_id: Annotated[AccountIdField, Field(description="The account that was brought.")]
    code: TypedReferralCode


class SetReward(StrictBody):
    amount: Amount


class ReferralsQuery(PageQuery):
    referrer_id: Annotated[AccountIdField | None, Field(description="Only what this account brought.")] = None
    state: Annotated[Literal["pending", "rewarded", "forfeited"] | None, Field(description="Only those.")] = None


class ReferralCodeAnswer(BaseModel):
    account_id: str
    code: str


class RewardAnswer(BaseModel):
    currency: str
    reward: MoneyAnswer | None = Field(description="Null: referrers who pay in this currency are not rewarded.")


class RewardsAnswer(BaseModel):
    items: list[RewardAnswer]


class ReferralAnswer(BaseModel):
    account_id: str = Field(description="The account that was brought.")
    referrer_id: str
    state: str = Field(
        description="`pending` until its first payment; `rewarded`; `forfeited`: the referrer was deleted by then."
    )
    reward: MoneyAnswer = Field(description="As promised when it was brought.")
    invoice_id: str | None = Field(description="The first one that it paid.")
    created_at: Moment
    settled_at: Moment | None


class ReferrerAnswer(BaseModel):
    referrer_id: str
    referrer_name: str
    brought: int = Field(description="Accounts.")
    paying: int = Field(description="Of these, those that have paid.")
    rewarded: MoneyAnswer
    pending: MoneyAnswer = Field(description="Promised for those that have not paid yet.")


@router.post("/accounts/{account_id}/referral-code")
async def make_referral_code(
    account_id: AccountId, session: Database, _caller: Authenticated, now: Now
) -> ReferralCodeAnswer:
    """Return the code that an account gives to those whom it brings; made when it is first asked for."""
    return ReferralCodeAnswer(
        account_id=account_id, code=await referrals.referral_code(session, account_id=account_id, now=now)
    )


@router.post("/referrals", status_code=201)
async def assign_referrer(
    body: AssignReferrer, session: Database, caller: Authenticated, now: Now
) -> ReferralAnswer:
    """Note who brought an account, before its first payment and once for ever. The same again changes nothing."""
    row = await referrals.assign_referrer(
        session, account_id=body.account_id, code=body.code, actor=caller.actor, now=now
    )
    return _answer(row)


@router.get("/referrals")
async def list_referrals(
    session: Database, query: Annotated[ReferralsQuery, Query()]
) -> PageAnswer[ReferralAnswer]:
    """List referrals, the last one first."""
    page = await referral_queries.referral_page(
        session, limit=query.limit, cursor=query.cursor, referrer_id=query.referrer_id, state=query.state
    )
    return page_answer(page, _answer)


@router.get("/referrals/referrers")
async def report_referrers(session: Database, query: Annotated[PageQuery, Query()]) -> PageAnswer[ReferrerAnswer]:
    """Report what each referrer brought and was paid, by the referrer's id."""
    page = await referral_queries.referrer_page(session, limit=query.limit, cursor=query.cursor)
    return page_answer(page, _report)


@router.get("/referrals/rewards")
async def list_rewards(session: Database) -> RewardsAnswer:
    """List what a new paying account is worth to its referrer, by the referrer's currency."""
    found = await referral_queries.rewards(session)
    return RewardsAnswer(items=[_reward(row.currency, row.amount_minor) for row in found])


@router.put("/referrals/rewards/{currency}")
@allows(Role.FINANCE)
async def set_reward(
    currency: CurrencyPath, body: SetReward, session: Database, caller: Authenticated, now: Now
) -> RewardAnswer:
    """Set the reward for referrers who pay in a currency. Accounts brought before keep what was promised."""
    amount_minor = read_money(body.amount, currency, field="amount")
    await referrals.set_reward(session, currency=currency, amount_minor=amount_minor, actor=caller.actor, now=now)
    return _reward(currency, amount_minor)


@router.delete("/referrals/rewards/{currency}")
@allows(Role.FINANCE)
async def remove_reward(
    currency: CurrencyPath, session: Database, caller: Authenticated, now: Now
) -> RewardAnswer:
    """Reward referrers who pay in a currency no more: their codes are refused. Repeatable."""
    await referrals.set_reward(session, currency=currency, amount_minor=None, actor=caller.actor, now=now)
    return _reward(currency, None)


def _answer(row: Referral) -> ReferralAnswer:
    return ReferralAnswer(
        account_id=row.account_id,
        referrer_id=row.referrer_id,
        state=row.state,
        reward=MoneyAnswer.of(row.reward_minor, row.currency),
        invoice_id=row.invoice_id,
        created_at=row.created_at,
        settled_at=row.settled_at,
    )


def _report(report: ReferrerReport) -> ReferrerAnswer:
    return ReferrerAnswer(
        referrer_id=report.referrer_id,
        referrer_name=report.referrer_name,
        brought=report.brought,
        paying=report.paying,
        rewarded=MoneyAnswer.of(report.rewarded_minor, report.currency),
        pending=MoneyAnswer.of(report.pending_minor, report.currency),
    )


def _reward(currency: str, amount_minor: int | None) -> RewardAnswer:
    reward = None if amount_minor is None else MoneyAnswer.of(amount_minor, currency)
    return RewardAnswer(currency=currency, reward=reward)
