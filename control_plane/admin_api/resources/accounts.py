"""Accounts: who pays."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field, StringConstraints

from control_plane.accounts import operations, queries
from control_plane.accounts.model import MAX_EXTERNAL_ID
from control_plane.accounts.tables import Account
from control_plane.admin_api.access import Authenticated
from control_plane.admin_api.database import Database
from control_plane.admin_api.discount_forms import TypedReferralCode
from control_plane.admin_api.forms import (
    AccountId,
    Answer,
    Line,
    Moment,
    Name,
    PageAnswer,
    PageQuery,
    PrintableText,
    StrictBody,
    page_answer,
)
from control_plane.admin_api.services import Now
from control_plane.billing.discounts.referrals import assign_referrer

router = APIRouter(prefix="/accounts", tags=["accounts"])


ExternalId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_EXTERNAL_ID),
    PrintableText,
    Field(description="What another system calls the account; one account has it at most."),
]


class CreateAccount(StrictBody):
    name: Name = Field(examples=["Acme Weather Apps"])
    email: Line | None = None
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217; invoices are in it.")] = "USD"
    time_zone: Annotated[Line, Field(description="IANA name; billing periods follow its clock.")] = "UTC"
    external_id: ExternalId | None = None
    referral_code: Annotated[
        TypedReferralCode | None, Field(description="Of the account that brought it; nothing is done if refused.")
    ] = None


class UpdateAccount(StrictBody):
    name: Name


class AccountAnswer(Answer):
    id: str
    name: str
    email: str | None
    status: str = Field(description="`active`, `suspended` or `deleted`.")
    currency: str
    time_zone: str
    external_id: str | None
    created_at: Moment


class AccountsQuery(PageQuery):
    search: Annotated[
        Line | None, Field(description="Part of a name or an email, or a whole id or external id.")
    ] = None


def answer(account: Account) -> AccountAnswer:
    return AccountAnswer.model_validate(account)


@router.post("", status_code=201)
async def create_account(body: CreateAccount, session: Database, caller: Authenticated, now: Now) -> AccountAnswer:
    """Make an account. It has no subscription yet, so its keys are refused until it has one."""
    account = await operations.create_account(
        session,
        name=body.name,
        email=body.email,
        currency=body.currency,
        time_zone=body.time_zone,
        external_id=body.external_id,
        actor=caller.actor,
        now=now,
    )
    if body.referral_code is not None:
        await assign_referrer(session, account_id=account.id, code=body.referral_code, actor=caller.actor, now=now)
    return answer(account)


@router.get("")
async def list_accounts(session: Database, query: Annotated[AccountsQuery, Query()]) -> PageAnswer[AccountAnswer]:
    """List accounts, newest first."""
    page = await queries.account_page(session, limit=query.limit, cursor=query.cursor, search=query.search)
    return page_answer(page, answer)


@router.get("/{account_id}")
async def get_account(account_id: AccountId, session: Database) -> AccountAnswer:
    """Return one account."""
    return answer(await queries.account(session, account_id))


@router.patch("/{account_id}")
async def update_account(
    account_id: AccountId, body: UpdateAccount, session: Database, caller: Authenticated, now: Now
) -> AccountAnswer:
    """Give an account another name."""
    account = await operations.rename_account(
        session, account_id=account_id, name=body.name, actor=caller.actor, now=now
    )
    return answer(account)


@router.post("/{account_id}/suspend")
async def suspend_account(
    account_id: AccountId, session: Database, caller: Authenticated, now: Now
) -> AccountAnswer:
    """Refuse every call of the account, at its next call, until it is resumed. Repeating changes nothing."""
    return answer(await operations.suspend_account(session, account_id=account_id, actor=caller.actor, now=now))


@router.post("/{account_id}/resume")
async def resume_account(
    account_id: AccountId, session: Database, caller: Authenticated, now: Now
) -> AccountAnswer:
    """Let a suspended account call again. Repeating changes nothing."""
    return answer(await operations.resume_account(session, account_id=account_id, actor=caller.actor, now=now))
