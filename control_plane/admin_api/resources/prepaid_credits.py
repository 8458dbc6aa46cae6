"""Prepaid credits: grants, what they were used for, reservations."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from control_plane.accounts.model import Role
from control_plane.accounts.queries import account as account_by_id
from control_plane.admin_api.access import Authenticated, allows
from control_plane.admin_api.credit_forms import (
    BalancesAnswer,
    EntriesQuery,
    EntryAnswer,
    GrantAnswer,
    GrantCredits,
    GrantId,
    ReservationAnswer,
    ReservationId,
    ReserveCredits,
    SaleAnswer,
    SellCredits,
    SettleReservation,
    balance_answer,
    entry_answer,
    grant_answers,
    reservation_answers,
    sale_answer,
)
from control_plane.admin_api.database import Database
from control_plane.admin_api.forms import AccountId, PageAnswer, PageQuery
from control_plane.admin_api.services import Given, Now
from control_plane.billing.credits import operations, queries, reservations
from control_plane.billing.credits.model import read_amount
from control_plane.billing.credits.operations import NewGrant
from control_plane.billing.credits.reservations import NewReservation
from control_plane.billing.prepaid import purchases, reserving
from control_plane.billing.prepaid.purchases import NewPurchase

router = APIRouter(tags=["credits"])


@router.get("/accounts/{account_id}/credits")
async def get_credits(account_id: AccountId, session: Database, now: Now) -> BalancesAnswer:
    """Return what the account has of credits, by currency; no item where it never had any."""
    account = await account_by_id(session, account_id)
    sums = await queries.credit_sums(session, account_id, now=now)
    undrawn = sum((await reserving.undrawn_use(session, account_id)).values())
    return BalancesAnswer(
        items=[balance_answer(one, undrawn if one.currency == account.currency else 0) for one in sums]
    )


@router.post("/accounts/{account_id}/credits/grants", status_code=201)
@allows(Role.FINANCE)
async def grant_credits(
    account_id: AccountId, body: GrantCredits, session: Database, caller: Authenticated, now: Now
) -> GrantAnswer:
    """Give the account credits, in the currency that it pays in. Invoices and prepaid usage draw them."""
    account = await account_by_id(session, account_id)
    grant = NewGrant(
        amount_minor=read_amount(body.amount, account.currency),
        kind=body.kind,
        priority=body.priority,
        starts_at=body.starts_at,
        expires_at=body.expires_at,
        api_product=body.api_product,
        reason=body.reason,
        reference=body.reference,
    )
    row = await operations.grant_credits(session, account_id=account_id, grant=grant, actor=caller.actor, now=now)
    return (await grant_answers(session, [row]))[0]


@router.post("/accounts/{account_id}/credits/purchases", status_code=201)
@allows(Role.FINANCE)
async def sell_credits(
    account_id: AccountId, body: SellCredits, session: Database, caller: Authenticated, services: Given
) -> SaleAnswer:
    """Sell the account credits by invoice: they are granted when it is paid."""
    account = await account_by_id(session, account_id)
    purchase = NewPurchase(
        amount_minor=read_amount(body.amount, account.currency),
        priority=body.priority,
        expires_at=body.expires_at,
        api_product=body.api_product,
        description=body.description,
    )
    invoice = await purchases.sell_credits(
        session,
        account_id=account_id,
        purchase=purchase,
        terms=services.invoice_terms,
        actor=caller.actor,
        now=services.now(),
    )
    return sale_answer(invoice)


@router.get("/accounts/{account_id}/credits/grants")
async def list_grants(
    account_id: AccountId, session: Database, query: Annotated[PageQuery, Query()]
) -> PageAnswer[GrantAnswer]:
    """List the account's grants, newest first, used up ones too."""
    await account_by_id(session, account_id)
    page = await queries.grant_page(session, account_id, limit=query.limit, cursor=query.cursor)
    return PageAnswer(items=await grant_answers(session, page.items), next_cursor=page.next_cursor)


@router.get("/accounts/{account_id}/credits/entries")
async def list_entries(
    account_id: AccountId, session: Database, query: Annotated[EntriesQuery, Query()]
) -> PageAnswer[EntryAnswer]:
    """List what the account's credits were used for, newest first."""
    await account_by_id(session, account_id)
    page = await queries.entry_page(
        session, account_id, grant_id=query.grant_id, limit=query.limit, cursor=query.cursor
    )
    currencies = await queries.currencies(session, {row.grant_id for row in page.items})
    items = [entry_answer(row, currencies[row.grant_id]) for row in page.items]
    return PageAnswer(items=items, next_cursor=page.next_cursor)


@router.get("/credits/grants/{grant_id}")
async def get_grant(grant_id: GrantId, session: Database) -> GrantAnswer:
    """Return one grant."""
    return (await grant_answers(session, [await queries.grant(session, grant_id)]))[0]


@router.post("/credits/grants/{grant_id}/revoke")
@allows(Role.FINANCE)
async def revoke_grant(grant_id: GrantId, session: Database, caller: Authenticated, now: Now) -> GrantAnswer:
    """Take back what is left of a grant; what was used stays used. Repeating changes nothing."""
    row = await operations.revoke_grant(session, grant_id=grant_id, actor=caller.actor, now=now)
    return (await grant_answers(session, [row]))[0]


@router.post("/accounts/{account_id}/credits/reservations", status_code=201)
@allows(Role.FINANCE)
async def reserve_credits(
    account_id: AccountId, body: ReserveCredits, session: Database, caller: Authenticated, now: Now
) -> ReservationAnswer:
    """Hold credits back for something that is about to be done; 409 `credits_used_up` where less is left."""
    account = await account_by_id(session, account_id)
    wanted = NewReservation(
        amount_minor=read_amount(body.amount, account.currency),
        ttl=timedelta(seconds=body.ttl_seconds),
        reference=body.reference,
        api_product=body.api_product,
    )
    row = await reserving.reserve_credits(
        session, account_id=account_id, wanted=wanted, actor=caller.actor, now=now
    )
    return (await reservation_answers(session, [row]))[0]


@router.get("/accounts/{account_id}/credits/reservations")
async def list_reservations(
    account_id: AccountId, session: Database, query: Annotated[PageQuery, Query()]
) -> PageAnswer[ReservationAnswer]:
    """List the account's reservations, newest first, those that ended too."""
    await account_by_id(session, account_id)
    page = await queries.reservation_page(session, account_id, limit=query.limit, cursor=query.cursor)
    return PageAnswer(items=await reservation_answers(session, page.items), next_cursor=page.next_cursor)


@router.post("/credits/reservations/{reservation_id}/settle")
@allows(Role.FINANCE)
async def settle_reservation(
    reservation_id: ReservationId, body: SettleReservation, session: Database, caller: Authenticated, now: Now
) -> ReservationAnswer:
    """Draw what it came to; the rest of what was held goes back. Repeatable with the same amount."""
    held = await queries.reservation(session, reservation_id)
    row = await reserving.settle_reservation(
        session,
        reservation_id=reservation_id,
        amount_minor=read_amount(body.amount, held.currency),
        actor=caller.actor,
        now=now,
    )
    return (await reservation_answers(session, [row]))[0]


@router.post("/credits/reservations/{reservation_id}/release")
@allows(Role.FINANCE)
async def release_reservation(
    reservation_id: ReservationId, session: Database, caller: Authenticated, now: Now
) -> ReservationAnswer:
    """Give back all that was held. Repeating changes nothing."""
    row = await reservations.release_reservation(
        session, reservation_id=reservation_id, actor=caller.actor, now=now
    )
    return (await reservation_answers(session, [row]))[0]
