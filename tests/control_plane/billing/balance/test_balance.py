"""An account's balance: only ever added to, never below nothing, whoever draws at the same time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from control_plane.billing.balance.applying import BalanceDraw, _applied, apply_balances
from control_plane.billing.balance.entries import BalanceTooLowError
from control_plane.billing.balance.operations import IdempotencyKeyTakenError, adjust_balance
from control_plane.billing.balance.queries import balance_entries, balances_of_account
from control_plane.billing.balance.tables import BalanceEntry
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from tests.control_plane.billing.final_invoices import a_final_invoice
from tests.control_plane.builders import ACTOR, an_account, audit_of


async def adjust(session, account, amount_minor, *, now, currency="USD", **options):
    return await adjust_balance(
        session,
        account_id=account.id,
        currency=currency,
        amount_minor=amount_minor,
        actor=ACTOR,
        now=now,
        **{"reason": "an apology", **options},
    )


async def held(session, account, currency="USD"):
    """What the balance says, after comparing it with the sum of the entries."""
    entries = select(func.coalesce(func.sum(BalanceEntry.amount_minor), 0)).where(
        BalanceEntry.account_id == account.id, BalanceEntry.currency == currency
    )
    found = {row.currency: row.amount_minor for row in await balances_of_account(session, account.id)}
    assert found.get(currency, 0) == await session.scalar(entries)
    return found.get(currency, 0)


class TestAdjustBalance:
    async def test_adds_takes_away_and_says_who_did_it_and_why(self, session, now):
        account = await an_account(session, now=now)
        first = await adjust(session, account, 1_500, now=now)
        second = await adjust(session, account, -400, reason="taken back", now=now)
        assert await held(session, account) == 1_100
        assert (first.sum_minor, second.sum_minor) == (1_500, 1_100)
        row = (await audit_of(session, account.id))[-1]
        assert (row.actor, row.action) == (ACTOR, "balance.adjusted")
        assert row.after == {
            "currency": "USD",
            "balance_minor": 1_100,
            "amount_minor": -400,
            "reason": "taken back",
        }

    async def test_keeps_currencies_apart(self, session, now):
        account = await an_account(session, now=now)
        await adjust(session, account, 1_500, now=now)
        await adjust(session, account, 900, currency="JPY", now=now)
        assert await held(session, account, "USD") == 1_500
        assert await held(session, account, "JPY") == 900

    async def test_refuses_to_take_more_than_there_is(self, session, now):
        account = await an_account(session, now=now)
        await adjust(session, account, 100, now=now)
        with pytest.raises(BalanceTooLowError, match=r"holds 1.00 USD"):
            await adjust(session, account, -101, now=now)
        assert await held(session, account) == 100

    async def test_the_same_key_adds_once_and_refuses_another_amount(self, session, now):
        account = await an_account(session, now=now)
        first = await adjust(session, account, 700, idempotency_key="ticket-9", now=now)
        again = await adjust(session, account, 700, idempotency_key="ticket-9", now=now)
        assert again.id == first.id
        with pytest.raises(IdempotencyKeyTakenError):
            await adjust(session, account, 800, idempotency_key="ticket-9", now=now)
        assert await held(session, account) == 700

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [({"reason": "  "}, "reason"), ({"amount_minor": 0}, "amount_minor"), ({"currency": "XXX"}, "currency")],
    )
    async def test_refuses_what_cannot_be_explained(self, now, wrong, field):
        given = {"amount_minor": 5, "reason": "why", "currency": "USD", **wrong}
        with pytest.raises(ValidationFailedError) as refused:
            await adjust_balance(None, account_id="acc_x", **given, actor=ACTOR, now=now)
        assert refused.value.field == field

    async def test_refuses_an_account_that_is_not_there(self, session, now):
        with pytest.raises(NotFoundError):
            await adjust_balance(
                session, account_id="acc_x", currency="USD", amount_minor=1, reason="r", actor=ACTOR, now=now
            )

    async def test_the_database_refuses_to_change_or_delete_an_entry(self, session, now):
        account = await an_account(session, now=now)
        await adjust(session, account, 700, now=now)
        for statement in ("UPDATE balance_entries SET amount_minor = 9", "DELETE FROM balance_entries"):
            with pytest.raises(IntegrityError, match="never changed"):
                async with session.begin_nested():
                    await session.execute(text(statement))

    async def test_pages_tell_every_entry_once_newest_first(self, session, now):
        account = await an_account(session, now=now)
        made = [(await adjust(session, account, amount, now=now)).id for amount in (1, 2, 3)]
        first = await balance_entries(session, account.id, limit=2)
        second = await balance_entries(session, account.id, limit=2, cursor=first.next_cursor)
        assert [row.id for row in (*first.items, *second.items)] == made[::-1]
        assert second.next_cursor is None


class TestApplyBalances:
    async def test_pays_what_there_is_of_many_invoices_and_adds_negative_totals(self, session, now):
        rich, poor, none = [await an_account(session, name=name, now=now) for name in ("Rich", "Poor", "None")]
        await adjust(session, rich, 10_000, now=now)
        await adjust(session, poor, 300, now=now)
        invoices = {
            name: await a_final_invoice(session, account.id, amounts=(amount,), balance_applied_minor=amount)
            for name, account, amount in (
                ("rich", rich, 4_900),
                ("poor", poor, 4_900),
                ("none", none, 4_900),
                ("given back", none, -2_000),
            )
        }
        wanted = [
            (invoices["rich"].id, rich.id, "USD", 4_900),
            (invoices["poor"].id, poor.id, "USD", 4_900),
            # what this account is given back pays its other invoice of the same hour
            (invoices["none"].id, none.id, "USD", 4_900),
            (invoices["given back"].id, none.id, "USD", -2_000),
        ]
        applied = await apply_balances(session, wanted, now=now)
        assert {name: applied[row.id] for name, row in invoices.items()} == {
            "rich": 4_900,
            "poor": 300,
            "none": 2_000,
            "given back": -2_000,
        }
        assert [await held(session, account) for account in (rich, poor, none)] == [5_100, 0, 0]

    async def test_says_nothing_was_applied_where_there_is_no_balance(self, session, now):
        account = await an_account(session, now=now)
        invoice = await a_final_invoice(session, account.id)
        assert await apply_balances(session, [(invoice.id, account.id, "USD", 4_900)], now=now) == {invoice.id: 0}
        assert await apply_balances(session, [], now=now) == {}

    async def test_does_not_pay_in_another_currency(self, session, now):
        account = await an_account(session, now=now)
        await adjust(session, account, 9_000, currency="EUR", now=now)
        invoice = await a_final_invoice(session, account.id)
        assert await apply_balances(session, [(invoice.id, account.id, "USD", 4_900)], now=now) == {invoice.id: 0}

    async def test_an_invoice_draws_once(self, session, now):
        account = await an_account(session, now=now)
        await adjust(session, account, 9_000, now=now)
        invoice = await a_final_invoice(session, account.id)
        await apply_balances(session, [(invoice.id, account.id, "USD", 100)], now=now)
        with pytest.raises(IntegrityError, match="uq_balance_entries_invoice"):
            async with session.begin_nested():
                await apply_balances(session, [(invoice.id, account.id, "USD", 100)], now=now)
        assert await held(session, account) == 8_900

    async def test_draws_at_the_same_time_never_take_more_than_there_is(self, sessions, now):
        async with sessions() as session, session.begin():
            accounts = [await an_account(session, name=f"A{number}", now=now) for number in range(3)]
            for account in accounts:
                await adjust(session, account, 1_000, now=now)
            invoices = [[await a_final_invoice(session, account.id) for account in accounts] for _ in range(4)]

        async def draw(batch):
            async with sessions() as session, session.begin():
                wanted = [BalanceDraw(invoice.id, invoice.account_id, "USD", 300) for invoice in batch]
                return await apply_balances(session, wanted, now=now)

        # whoever locked in another order would meet the others half-way
        drawn = await asyncio.gather(*(draw(batch[:: (-1) ** turn]) for turn, batch in enumerate(invoices)))
        by_account = {
            account.id: sorted(
                applied[invoice.id]
                for applied, batch in zip(drawn, invoices, strict=True)
                for invoice in batch
                if invoice.account_id == account.id
            )
            for account in accounts
        }
        assert by_account == {account.id: [100, 300, 300, 300] for account in accounts}
        async with sessions() as session:
            assert [await held(session, account) for account in accounts] == [0, 0, 0]

    @given(
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(-500, 500)), max_size=12),
        st.integers(0, 600),
        st.integers(0, 600),
    )
    def test_whatever_is_wanted_no_balance_falls_below_nothing(self, wanted, held_by_a, held_by_b):
        draws = [
            BalanceDraw(str(number), account, "USD", amount) for number, (account, amount) in enumerate(wanted)
        ]
        left = {("a", "USD"): held_by_a, ("b", "USD"): held_by_b}
        for draw, amount in _applied(draws, dict(left)):
            left[draw.account_id, "USD"] -= amount
            assert left[draw.account_id, "USD"] >= 0
            assert amount == draw.amount_minor or 0 < amount < draw.amount_minor
