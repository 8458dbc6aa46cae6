"""What people and other workers do at the moment at which a period is closed: nothing is lost."""

import asyncio
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from control_plane.billing.credit_notes.model import CreditedLine, Reason
from control_plane.billing.credit_notes.operations import CreditRequest, issue_credit_note
from control_plane.billing.invoices import closing
from control_plane.billing.invoices.closing import close_due
from control_plane.billing.invoices.worker import sweep
from control_plane.billing.payments.operations import void_invoice
from control_plane.subscriptions.tables import Subscription
from tests.control_plane.billing.invoices.billing_kit import CONFIG, DAY, FEB_1, HOUR, JAN_1, MAR_1, Billing
from tests.control_plane.builders import ACTOR

LOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Beside:
    """A round of billing that has read what was billed, and waits for what `meanwhile` does."""

    def __init__(self, billing: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
        self.billing, self.monkeypatch = billing, monkeypatch

    async def close(self, now: datetime, meanwhile: Awaitable[Any]) -> None:
        """Close with `meanwhile` in between: it is done, or waits for a lock, before the round goes on."""
        started, go_on = asyncio.Event(), asyncio.Event()
        real = closing.write_drafts

        async def waits(*arguments: Any, **options: Any) -> int:
            started.set()
            await go_on.wait()
            return await real(*arguments, **options)

        async def round_of_billing() -> None:
            async with self.billing.sessions() as session, session.begin():
                await close_due(session, config=CONFIG, now=now)

        with self.monkeypatch.context() as patched:
            patched.setattr(closing, "write_drafts", waits)
            async with asyncio.timeout(30):
                working = asyncio.create_task(round_of_billing())
                await started.wait()
                other = asyncio.ensure_future(meanwhile)
                while not other.done() and not await self.somebody_waits():  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.01)
                go_on.set()
                await asyncio.gather(working, other)

    async def somebody_waits(self) -> bool:
        async with self.billing.sessions() as session:
            return bool(await session.scalar(text(LOCKED)))


@pytest.fixture
def beside(billing: Billing, monkeypatch: pytest.MonkeyPatch) -> Beside:
    return Beside(billing, monkeypatch)


async def charged(billing: Billing, customer: Subscription) -> int:
    """What final invoices that are not void charge, less what corrections took back."""
    return sum(
        line.amount_minor - line.corrected_minor
        for one in await billing.invoices(customer)
        if one.status != "void"
        for line in one.lines
    )


class TestClosing:
    async def test_charges_again_what_becomes_void_at_that_moment(self, billing: Billing, beside: Beside):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.close(FEB_1 + HOUR)
        _, period = await billing.invoices(customer)
        await billing.seal(MAR_1 + HOUR)

        async def void() -> None:
            async with billing.sessions() as session, session.begin():
                await void_invoice(session, invoice_id=period.id, reason="wrong", actor=ACTOR, now=MAR_1 + HOUR)

        await beside.close(MAR_1 + HOUR, void())
        await billing.close(MAR_1 + 31 * DAY + HOUR)
        # January, February, March, and April in advance
        assert await charged(billing, customer) == 4 * 4_900

    async def test_counts_what_is_corrected_at_that_moment(self, billing: Billing, beside: Beside):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.close(FEB_1 + HOUR)
        _, period = await billing.invoices(customer)
        await billing.seal(MAR_1 + HOUR)

        async def correct() -> None:
            lines = (CreditedLine(position=line.position) for line in period.lines if line.amount_minor)
            request = CreditRequest(reason=Reason.CORRECTION, lines=tuple(lines))
            async with billing.sessions() as session, session.begin():
                await issue_credit_note(
                    session,
                    invoice_id=period.id,
                    request=request,
                    idempotency_key="k",
                    actor=ACTOR,
                    now=MAR_1 + HOUR,
                )

        await beside.close(MAR_1 + HOUR, correct())
        await billing.close(MAR_1 + 31 * DAY + HOUR)
        assert await charged(billing, customer) == 4 * 4_900

    async def test_of_a_last_period_hides_no_usage_that_was_late_at_that_moment(
        self, billing: Billing, beside: Beside
    ):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.close(FEB_1 + HOUR)
        await billing.cancel(customer, at="period_end", now=FEB_1 + DAY)
        await billing.close(MAR_1)
        late = MAR_1 + HOUR - timedelta(minutes=1)
        await billing.use(customer, 51_000, at=JAN_1 + DAY, known_at=late)

        async def finds_late_usage() -> None:
            await billing.seal(MAR_1 + HOUR)
            await sweep(billing.sessions, now=MAR_1 + HOUR)

        await beside.close(MAR_1 + HOUR, finds_late_usage())
        await billing.close(MAR_1 + 2 * HOUR)
        await billing.close(MAR_1 + 4 * HOUR)
        assert await charged(billing, customer) == 2 * 4_900 + 150
