"""No line twice and none missing, whoever dies or works beside; numbers without gaps; final is final."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from control_plane.billing.invoices import closing
from control_plane.billing.invoices.closing import ClosingConfig, close_due
from control_plane.billing.invoices.worker import close_round, run_closing
from control_plane.foundation.audit import AuditRow
from control_plane.foundation.outbox import Topic
from tests.control_plane.billing.invoices.billing_kit import (
    CONFIG,
    DAY,
    FEB_1,
    HOUR,
    JAN_1,
    MAR_1,
    Billing,
)
from tests.control_plane.builders import outbox_of

REFUSED = [
    "UPDATE invoices SET total_minor = total_minor + 1, amount_due_minor = amount_due_minor + 1",
    "UPDATE invoices SET due_at = due_at + interval '1 day'",
    "UPDATE invoices SET status = 'draft', number = NULL, finalised_at = NULL",
    "DELETE FROM invoices",
    "UPDATE invoice_lines SET amount_minor = 1",
    "UPDATE invoice_lines SET description = 'less'",
    "DELETE FROM invoice_lines",
    """INSERT INTO invoice_lines (id, invoice_id, position, kind, period_start, period_end, description,
        exact_amount, amount_minor)
        SELECT 'line_x', id, 99, 'manual', now(), now(), 'more', 1, 100 FROM invoices""",
]
STEPS = ["compute", "write_drafts", "note_progress", "finalise"]


async def charged(sessions: async_sessionmaker[AsyncSession]) -> dict[str, int]:
    """Sums of final lines by customer; also checks that numbers have no gap."""
    async with sessions() as session:
        numbers = list(
            await session.scalars(text("SELECT number FROM invoices WHERE number IS NOT NULL ORDER BY number"))
        )
        assert numbers == [f"INV-{number:06}" for number in range(1, len(numbers) + 1)]
        rows = await session.execute(
            text(
                "SELECT line.subscription_id, sum(line.amount_minor) FROM invoice_lines AS line"
                " JOIN invoices AS invoice ON invoice.id = line.invoice_id"
                " WHERE invoice.status <> 'draft' GROUP BY 1"
            )
        )
        return {subscription_id: int(amount) for subscription_id, amount in rows}


class TestWhoDies:
    async def test_leaves_nothing_half_done(self, billing: Billing, monkeypatch: pytest.MonkeyPatch):
        await billing.plan()
        customers = [await billing.customer() for _ in range(3)]
        await billing.close(JAN_1)
        for customer in customers:
            await billing.use(customer, 51_000, at=JAN_1 + DAY)
        await billing.seal(FEB_1 + HOUR)
        before = await charged(billing.sessions)
        for step in STEPS:
            real = getattr(closing, step)

            async def dies(*arguments, real=real, **options):
                await real(*arguments, **options)
                raise ConnectionError("the worker was killed")

            with monkeypatch.context() as patched:
                patched.setattr(closing, step, dies)
                with pytest.raises(ConnectionError):
                    async with billing.sessions() as session, session.begin():
                        await close_due(session, config=CONFIG, now=FEB_1 + HOUR)
            assert await charged(billing.sessions) == before, step
        await billing.close(FEB_1 + HOUR)
        assert set((await charged(billing.sessions)).values()) == {4_900 + 150 + 4_900}


class TestWorkersSideBySide:
    async def test_bill_everybody_once(self, billing: Billing):
        await billing.plan()
        customers = [await billing.customer() for _ in range(8)]
        for number, customer in enumerate(customers):
            await billing.use(customer, 50_000 + 1_000 * number, at=JAN_1 + DAY)
        await billing.seal(FEB_1 + HOUR)
        small = ClosingConfig(batch=2, terms=CONFIG.terms)

        async def worker() -> None:
            while await close_round(billing.sessions, config=small, now=FEB_1 + HOUR) is not None:
                pass

        await asyncio.wait_for(asyncio.gather(*(worker() for _ in range(4))), 60)
        await asyncio.wait_for(worker(), 60)
        assert await charged(billing.sessions) == {
            customer.id: 9_800 + 150 * number for number, customer in enumerate(customers)
        }

    async def test_bill_the_others_where_one_subscription_cannot_be_billed(self, billing: Billing):
        await billing.plan()
        broken, *others = [await billing.customer() for _ in range(3)]
        async with billing.sessions() as session, session.begin():
            statement = text("UPDATE accounts SET currency = 'EUR' WHERE id = :id")
            await session.execute(statement, {"id": broken.account_id})
        await billing.close(JAN_1)
        assert await charged(billing.sessions) == {other.id: 4_900 for other in others}
        async with billing.sessions() as session, session.begin():
            await session.execute(text("UPDATE accounts SET currency = 'USD'"))
        await billing.close(JAN_1 + HOUR)
        assert len(await charged(billing.sessions)) == 3

    async def test_do_nothing_where_nothing_is_due(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        for _ in range(3):
            result = await billing.close(JAN_1 + DAY)
            assert (result.looked, result.finalised) == (0, 0)
        assert len(await billing.invoices(customer, drafts=True)) == 1

    async def test_go_on_after_a_failure_until_they_are_stopped(
        self, billing: Billing, monkeypatch: pytest.MonkeyPatch
    ):
        await billing.plan()
        customer = await billing.customer()
        real, failures = closing.compute, iter([ConnectionError("away"), ConnectionError("away")])

        async def fails_twice(*arguments, **options):
            for failure in failures:
                raise failure
            await real(*arguments, **options)

        monkeypatch.setattr(closing, "compute", fails_twice)
        stop = asyncio.Event()
        worker = asyncio.create_task(
            run_closing(config=CONFIG, sessions=billing.sessions, stop=stop, clock=lambda: JAN_1)
        )
        async with asyncio.timeout(30):
            while not await billing.invoices(customer):  # noqa: ASYNC110 - the database tells nobody
                await asyncio.sleep(0.05)
        stop.set()
        await asyncio.wait_for(worker, 30)


class TestFinalInvoice:
    async def test_is_told_of_and_written_down(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        (invoice,) = await billing.invoices(customer)
        assert (invoice.status, invoice.due_at, invoice.finalised_at) == ("open", JAN_1 + 14 * DAY, JAN_1)
        assert invoice.seller["name"] == "Weather Ltd"
        assert invoice.buyer["account_id"] == customer.account_id
        async with billing.sessions() as session:
            assert await outbox_of(session, Topic.INVOICE_FINALISED) == [invoice.id]
            (row,) = await session.scalars(
                AuditRow.__table__.select()
                .where(AuditRow.entity_id == invoice.id)
                .with_only_columns(AuditRow.after)
            )
        assert row["number"] == "INV-000001"

    async def test_is_never_changed_but_paid(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        async with billing.sessions() as session, session.begin():
            for statement in REFUSED:
                with pytest.raises(IntegrityError, match="final"):
                    async with session.begin_nested():
                        await session.execute(text(statement))
            await session.execute(
                text("UPDATE invoices SET status = 'paid', paid_at = now(), amount_paid_minor = 4900")
            )
        assert [one.status for one in await billing.invoices(customer)] == ["paid"]


class TestUsageThatIsNotSealed:
    async def test_is_waited_for_and_then_billed_as_known(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.use(customer, 51_000, at=JAN_1 + DAY, known_at=JAN_1 + DAY)
        result = await billing.close(FEB_1 + 2 * HOUR, sealed=False)
        assert (result.waiting, result.finalised) == (1, 0)
        (draft,) = [one for one in await billing.invoices(customer, drafts=True) if one.status == "draft"]
        assert draft.subtotal_minor == 150 + 4_900
        await billing.close(FEB_1 + CONFIG.rules.max_wait, sealed=False)
        assert [one.subtotal_minor for one in await billing.invoices(customer)] == [4_900, 150 + 4_900]
        await billing.use(customer, 1_000, at=JAN_1 + DAY, known_at=FEB_1 + 5 * DAY)
        await billing.close(FEB_1 + 5 * DAY)
        await billing.close(MAR_1 + HOUR)
        assert (await charged(billing.sessions))[customer.id] == 3 * 4_900 + 300

    async def test_shows_in_the_draft_as_it_comes(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.close(FEB_1)
        await billing.use(customer, 52_000, at=JAN_1 + DAY)
        await billing.close(FEB_1 + CONFIG.rules.refresh)
        draft = (await billing.invoices(customer, drafts=True))[-1]
        assert (draft.status, draft.subtotal_minor) == ("draft", 300 + 4_900)
        assert [line.amount_minor for line in draft.lines] == [300, 4_900]
