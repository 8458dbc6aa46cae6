"""What accounts have to their credit."""

from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from control_plane.accounts.model import Role
from control_plane.accounts.queries import account as account_by_id
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import (
    AccountId,
    Moment,
    MoneyAnswer,
    PageAnswer,
    PageQuery,
    StrictBody,
    page_answer,
)
from control_plane.admin_api.invoice_forms import IdempotencyKey, SignedAmount, Words
from control_plane.admin_api.services import Now
from control_plane.billing.balance import operations, queries
from control_plane.billing.balance.tables import BalanceEntry
from control_plane.foundation.errors import ValidationFailedError
from control_plane.foundation.money import minor_units

router = APIRouter(prefix="/accounts/{account_id}/balance", tags=["invoices"])


class BalanceAnswer(BaseModel):
    """One balance for each currency; an account without any has none."""

    balances: list[MoneyAnswer]


class EntryAnswer(BaseModel):
    id: str
    kind: str = Field(description="`invoice`, `void`, `credit_note`, `surplus` or `adjustment`.")
    amount: MoneyAnswer
    balance: MoneyAnswer = Field(description="Right after it.")
    reason: str
    invoice_id: str | None
    credit_note_id: str | None
    author: str
    created_at: Moment


class AdjustBalance(StrictBody):
    amount: Annotated[
        SignedAmount,
        Field(description="Decimal, in the account's currency; below 0 takes away.", examples=["5.00"]),
    ]
    reason: Words
    idempotency_key: IdempotencyKey | None = None


@router.get("")
async def get_balance(account_id: AccountId, session: Database) -> BalanceAnswer:
    """Return what an account has to its credit: its next invoices are paid from it first."""
    await account_by_id(session, account_id)
    found = await queries.balances_of_account(session, account_id)
    return BalanceAnswer(balances=[MoneyAnswer.of(one.amount_minor, one.currency) for one in found])


@router.get("/entries")
async def list_balance_entries(
    account_id: AccountId, session: Database, query: Annotated[PageQuery, Query()]
) -> PageAnswer[EntryAnswer]:
    """List what changed an account's balance, newest first."""
    await account_by_id(session, account_id)
    page = await queries.balance_entries(session, account_id, cursor=query.cursor, limit=query.limit)
    return page_answer(page, _entry)


@router.post("/adjustments", status_code=201)
@allows(Role.FINANCE)
async def adjust_balance(
    account_id: AccountId, body: AdjustBalance, session: Database, caller: Authenticated, now: Now
) -> EntryAnswer:
    """Add to an account's balance, or take away; never below nothing. The same key again: the first entry."""
    currency = (await account_by_id(session, account_id)).currency
    entry = await operations.adjust_balance(
        session,
        account_id=account_id,
        currency=currency,
        amount_minor=_minor(body.amount, currency),
        reason=body.reason,
        idempotency_key=body.idempotency_key,
        actor=caller.actor,
        now=now,
    )
    return _entry(entry)


def _minor(amount: str, currency: str) -> int:
    exact = Decimal(amount).scaleb(minor_units(currency))
    if exact != exact.to_integral_value():
        raise ValidationFailedError("amount", f"{currency} has {minor_units(currency)} digits after the point")
    return int(exact)


def _entry(entry: BalanceEntry) -> EntryAnswer:
    same = ("id", "kind", "reason", "invoice_id", "credit_note_id", "author", "created_at")
    return EntryAnswer(
        **{name: getattr(entry, name) for name in same},
        amount=MoneyAnswer.of(entry.amount_minor, entry.currency),
        balance=MoneyAnswer.of(entry.sum_minor, entry.currency),
    )
