"""Grants: how they are used up, taken back and written off."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from control_plane.billing.credits.applying import CreditDraw, draw_credits, return_credits
from control_plane.billing.credits.due import Looked, look
from control_plane.billing.credits.model import (
    CreditSum,
    GrantKind,
    GrantNotFoundError,
    ReferenceTakenError,
    in_order_of_use,
    parts_of,
)
from control_plane.billing.credits.operations import revoke_grant
from control_plane.billing.credits.queries import credit_sums, entry_page, grant_page
from control_plane.billing.credits.tables import CreditGrant
from control_plane.foundation.errors import ValidationFailedError
from tests.control_plane.billing.credits.helpers import a_grant, an_invoice, entries_of, left_of, sums_agree
from tests.control_plane.builders import ACTOR, an_account, an_api_product, audit_of

NOV_1 = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)
KEEP = timedelta(hours=72)


@dataclass
class AGrant:
    id: str
    remaining_minor: int = 10
    kind: str = "paid"
    priority: int = 100
    expires_at: datetime | None = None
    created_at: datetime = NOV_1


async def drawn(session, account, amount_minor, *, now=NOV_1, used_until=None):
    invoice = await an_invoice(session, account.id, now=now, total_minor=amount_minor)
    wanted = CreditDraw(
        invoice_id=invoice.id,
        account_id=account.id,
        subscription_id=None,
        period_start=None,
        currency="USD",
        amount_minor=amount_minor,
        used_until=used_until,
    )
    return invoice, (await draw_credits(session, [wanted], now=now))[invoice.id]


class TestOrderOfUse:
    def test_goes_by_priority_then_expiry_then_what_was_given_then_age(self):
        grants = [
            AGrant("old", created_at=NOV_1 - DAY),
            AGrant("young"),
            AGrant("given", kind="promotional"),
            AGrant("later", expires_at=NOV_1 + 2 * DAY),
            AGrant("soon", expires_at=NOV_1 + DAY),
            AGrant("soon, given", expires_at=NOV_1 + DAY, kind="promotional"),
            AGrant("first", priority=1, kind="paid"),
        ]
        in_order = [grant.id for grant in in_order_of_use(reversed(grants))]
        assert in_order == ["first", "soon, given", "soon", "later", "given", "old", "young"]

    def test_a_grant_is_used_up_before_the_next_is_touched(self):
        parts = parts_of([AGrant("b"), AGrant("a", priority=1), AGrant("c")], 15)
        assert [(grant.id, part) for grant, part in parts] == [("a", 10), ("b", 5)]
        assert parts_of([AGrant("empty", remaining_minor=0)], 5) == []
        assert [part for _, part in parts_of([AGrant("all")], 99)] == [10]


class TestGrantCredits:
    async def test_is_the_ledgers_first_entry_and_audited(self, session):
        account = await an_account(session, now=NOV_1)
        grant = await a_grant(session, account.id, 5000, now=NOV_1, kind=GrantKind.PAID, reason="PO 4711")
        assert await entries_of(session, account.id) == [("grant", 5000)]
        (audit,) = await audit_of(session, grant.id)
        assert (audit.action, audit.actor, audit.after["reason"]) == ("credits.granted", ACTOR, "PO 4711")

    async def test_the_same_reference_grants_once(self, session):
        account = await an_account(session, now=NOV_1)
        order = {"reference": "order 1", "expires_at": NOV_1 + DAY}
        first = await a_grant(session, account.id, 5000, now=NOV_1, **order)
        again = await a_grant(session, account.id, 5000, now=NOV_1 + DAY, **order)
        assert again.id == first.id
        assert await entries_of(session, account.id) == [("grant", 5000)]
        with pytest.raises(ReferenceTakenError):
            await a_grant(session, account.id, 6000, now=NOV_1, reference="order 1")

    async def test_refuses_what_cannot_be(self, session):
        account = await an_account(session, now=NOV_1)
        for wrong, field in (
            ({"amount_minor": 0}, "amount"),
            ({"amount_minor": 10**13}, "amount"),
            ({"priority": 1001}, "priority"),
            ({"expires_at": NOV_1}, "expires_at"),
            ({"starts_at": NOV_1 + 2 * DAY, "expires_at": NOV_1 + DAY}, "expires_at"),
            ({"reason": "x" * 501}, "reason"),
            ({"reference": ""}, "reference"),
        ):
            with pytest.raises(ValidationFailedError) as refused:
                await a_grant(session, account.id, now=NOV_1, **{"amount_minor": 100, **wrong})
            assert refused.value.field == field, wrong

    async def test_sums_tell_what_can_be_used_now(self, session):
        account = await an_account(session, now=NOV_1)
        assert await credit_sums(session, account.id, now=NOV_1) == []
        await a_grant(session, account.id, 100, now=NOV_1, expires_at=NOV_1 + DAY)
        await a_grant(session, account.id, 20, now=NOV_1)
        await a_grant(session, account.id, 3, now=NOV_1, starts_at=NOV_1 + DAY)
        (today,) = await credit_sums(session, account.id, now=NOV_1)
        (tomorrow,) = await credit_sums(session, account.id, now=NOV_1 + DAY)
        assert today == CreditSum(currency="USD", available_minor=120, reserved_minor=0, later_minor=3)
        assert tomorrow == CreditSum(currency="USD", available_minor=23, reserved_minor=0, later_minor=0)

    async def test_pages_neither_skip_nor_repeat(self, session):
        account = await an_account(session, now=NOV_1)
        grants = [await a_grant(session, account.id, 10 + n, now=NOV_1 + n * DAY) for n in range(3)]
        first = await grant_page(session, account.id, limit=2)
        second = await grant_page(session, account.id, limit=2, cursor=first.next_cursor)
        assert [row.id for row in (*first.items, *second.items)] == [row.id for row in reversed(grants)]
        assert second.next_cursor is None
        one = await entry_page(session, account.id, grant_id=grants[1].id, limit=2)
        assert [row.amount_minor for row in one.items] == [11]
        all_of_them = await entry_page(session, account.id, limit=2)
        rest = await entry_page(session, account.id, limit=2, cursor=all_of_them.next_cursor)
        assert [row.amount_minor for row in (*all_of_them.items, *rest.items)] == [12, 11, 10]


class TestDrawCredits:
    async def test_pays_from_several_grants_and_never_more_than_there_is(self, session):
        account = await an_account(session, now=NOV_1)
        kept = await a_grant(session, account.id, 500, now=NOV_1, kind=GrantKind.PAID)
        first = await a_grant(session, account.id, 300, now=NOV_1)
        assert (await drawn(session, account, 400))[1] == 400
        assert await left_of(session, first, kept) == [0, 400]
        assert (await drawn(session, account, 1000))[1] == 400
        assert (await drawn(session, account, 5))[1] == 0
        assert await left_of(session, first, kept) == [0, 0]
        assert await sums_agree(session)

    async def test_many_at_once_share_what_there_is(self, session):
        accounts = [await an_account(session, now=NOV_1) for _ in range(3)]
        await a_grant(session, accounts[0].id, 100, now=NOV_1)
        await a_grant(session, accounts[2].id, 70, now=NOV_1)
        wanted = []
        for account in (accounts[0], accounts[1], accounts[0], accounts[2]):
            invoice = await an_invoice(session, account.id, now=NOV_1)
            wanted.append(
                CreditDraw(
                    invoice_id=invoice.id,
                    account_id=account.id,
                    subscription_id=None,
                    period_start=None,
                    currency="USD",
                    amount_minor=60,
                )
            )
        paid = await draw_credits(session, wanted, now=NOV_1)
        assert [paid[draw.invoice_id] for draw in wanted] == [60, 0, 40, 60]

    async def test_asked_again_for_an_invoice_draws_nothing_more(self, session):
        account = await an_account(session, now=NOV_1)
        grant = await a_grant(session, account.id, 500, now=NOV_1)
        invoice, paid = await drawn(session, account, 200)
        wanted = CreditDraw(
            invoice_id=invoice.id,
            account_id=account.id,
            subscription_id=None,
            period_start=None,
            currency="USD",
            amount_minor=200,
        )
        assert await draw_credits(session, [wanted], now=NOV_1) == {invoice.id: paid}
        assert await left_of(session, grant) == [300]

    async def test_takes_neither_other_currencies_nor_other_products_nor_what_begins_later(self, session):
        account = await an_account(session, now=NOV_1)
        await an_api_product(session, now=NOV_1)
        await a_grant(session, account.id, 100, now=NOV_1, api_product="weather")
        await a_grant(session, account.id, 100, now=NOV_1, starts_at=NOV_1 + DAY)
        euros = await a_grant(session, account.id, 100, now=NOV_1)
        euros.currency = "EUR"
        await session.flush()
        assert (await drawn(session, account, 50))[1] == 0

    async def test_what_expired_pays_only_what_was_used_before(self, session):
        account = await an_account(session, now=NOV_1)
        ends = NOV_1 + 30 * DAY
        await a_grant(session, account.id, 100, now=NOV_1, expires_at=ends)
        closing = ends + timedelta(hours=1)
        assert (await drawn(session, account, 30, now=closing))[1] == 0
        assert (await drawn(session, account, 30, now=closing, used_until=ends + timedelta(hours=1)))[1] == 0
        assert (await drawn(session, account, 30, now=closing, used_until=ends))[1] == 30

    async def test_a_negative_invoice_draws_nothing(self, session):
        account = await an_account(session, now=NOV_1)
        grant = await a_grant(session, account.id, 100, now=NOV_1)
        assert (await drawn(session, account, -50))[1] == 0
        assert await left_of(session, grant) == [100]


class TestReturnCredits:
    async def test_gives_a_voided_invoices_credits_back_once(self, session):
        account = await an_account(session, now=NOV_1)
        grants = [await a_grant(session, account.id, amount, now=NOV_1) for amount in (30, 100)]
        invoice, _ = await drawn(session, account, 50)
        assert await left_of(session, *grants) == [0, 80]
        assert await return_credits(session, [invoice.id], now=NOV_1 + DAY) == {invoice.id: 50}
        assert await return_credits(session, [invoice.id], now=NOV_1 + DAY) == {}
        assert await left_of(session, *grants) == [30, 100]
        assert await sums_agree(session)

    async def test_what_comes_back_to_an_expired_grant_is_written_off(self, session):
        account = await an_account(session, now=NOV_1)
        grant = await a_grant(session, account.id, 100, now=NOV_1, expires_at=NOV_1 + DAY)
        invoice, _ = await drawn(session, account, 60)
        late = NOV_1 + 10 * DAY
        assert (await look(session, now=late, keep=KEEP)).written_off == 1
        await return_credits(session, [invoice.id], now=late)
        assert await left_of(session, grant) == [60]
        assert (await look(session, now=late + DAY, keep=KEEP)).written_off == 1
        assert await left_of(session, grant) == [0]
        assert await sums_agree(session)


class TestRevokeGrant:
    async def test_takes_back_only_what_is_left(self, session):
        account = await an_account(session, now=NOV_1)
        grant = await a_grant(session, account.id, 100, now=NOV_1)
        await drawn(session, account, 30)
        await revoke_grant(session, grant_id=grant.id, actor=ACTOR, now=NOV_1 + DAY)
        await revoke_grant(session, grant_id=grant.id, actor=ACTOR, now=NOV_1 + DAY)
        assert await entries_of(session, account.id) == [("grant", 100), ("draw", -30), ("revoke", -70)]
        assert [row.action for row in await audit_of(session, grant.id)] == ["credits.granted", "credits.revoked"]

    async def test_what_comes_back_to_it_is_revoked_too(self, session):
        account = await an_account(session, now=NOV_1)
        grant = await a_grant(session, account.id, 100, now=NOV_1)
        invoice, _ = await drawn(session, account, 30)
        await revoke_grant(session, grant_id=grant.id, actor=ACTOR, now=NOV_1 + DAY)
        await return_credits(session, [invoice.id], now=NOV_1 + DAY)
        assert await left_of(session, grant) == [0]
        assert await sums_agree(session)

    async def test_of_an_unknown_grant_is_refused(self, session):
        with pytest.raises(GrantNotFoundError):
            await revoke_grant(session, grant_id="crg_0", actor=ACTOR, now=NOV_1)


class TestExpiry:
    async def test_writes_the_rest_off_once_the_time_for_late_invoices_has_passed(self, session):
        account = await an_account(session, now=NOV_1)
        ends = NOV_1 + DAY
        grant = await a_grant(session, account.id, 100, now=NOV_1, expires_at=ends)
        await drawn(session, account, 30)
        assert await look(session, now=ends - DAY / 2, keep=KEEP) == Looked()
        assert await look(session, now=ends, keep=KEEP) == Looked(grants=1)
        assert await left_of(session, grant) == [70]
        assert await look(session, now=ends + KEEP, keep=KEEP) == Looked(grants=1, written_off=1)
        assert await look(session, now=ends + KEEP, keep=KEEP) == Looked()
        assert await entries_of(session, account.id) == [("grant", 100), ("draw", -30), ("expire", -70)]

    async def test_a_worker_that_slept_through_it_all_does_the_same(self, session):
        account = await an_account(session, now=NOV_1)
        starts, ends = NOV_1 + DAY, NOV_1 + 2 * DAY
        await a_grant(session, account.id, 100, now=NOV_1, starts_at=starts, expires_at=ends)
        assert await look(session, now=ends + KEEP, keep=KEEP) == Looked(grants=1, written_off=1)
        assert await entries_of(session, account.id) == [("grant", 100), ("expire", -100)]

    async def test_what_never_expires_is_looked_at_no_more(self, session):
        account = await an_account(session, now=NOV_1)
        grant = await a_grant(session, account.id, 100, now=NOV_1, starts_at=NOV_1 + DAY)
        assert await look(session, now=NOV_1 + DAY, keep=KEEP) == Looked(grants=1)
        assert (await session.get_one(CreditGrant, grant.id)).look_at is None


class TestTheDatabase:
    async def test_lets_no_grant_fall_below_zero(self, session):
        account = await an_account(session, now=NOV_1)
        grant = await a_grant(session, account.id, 100, now=NOV_1)
        with pytest.raises(IntegrityError, match="ck_credit_grants_remaining_minor"):
            await session.execute(
                text("UPDATE credit_grants SET remaining_minor = -1 WHERE id = :id"), {"id": grant.id}
            )

    async def test_lets_no_entry_be_changed(self, session):
        account = await an_account(session, now=NOV_1)
        await a_grant(session, account.id, 100, now=NOV_1)
        for change in ("UPDATE credit_entries SET amount_minor = 1", "DELETE FROM credit_entries"):
            with pytest.raises(IntegrityError, match="never changed"):
                async with session.begin_nested():
                    await session.execute(text(change))
