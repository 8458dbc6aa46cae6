"""Random histories of subscriptions, with books that are kept beside them."""

from collections import defaultdict
from random import Random
from typing import Any

from sqlalchemy import func, select, update

from control_plane.accounts.tables import Account
from control_plane.billing.balance.tables import AccountBalance
from control_plane.billing.credit_notes.model import CreditedLine, Reason
from control_plane.billing.credit_notes.operations import CreditRequest, issue_credit_note
from control_plane.billing.credit_notes.tables import CreditNote
from control_plane.billing.credits.tables import CreditGrant
from control_plane.billing.invoices.tables import Invoice
from control_plane.billing.line_scopes import LineScope
from control_plane.billing.payments.operations import give_up_invoice, pay_invoice, void_invoice
from control_plane.billing.payments.tables import InvoicePayment
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import KmError
from control_plane.usage.tables import UsageHourly
from tests.control_plane.billing.credits.helpers import a_grant, left_of
from tests.control_plane.billing.discounts.coupon_rows import a_coupon, redeem
from tests.control_plane.billing.invoices.billing_kit import (
    DAY,
    HOUR,
    JAN_1,
    Billing,
)
from tests.control_plane.billing.invoices.history_books import PAUSED, PLANS, ZONES, Books
from tests.control_plane.builders import ACTOR, a_subscription, an_account


class World:
    """Accounts with two subscriptions each, to which something happens at every step."""

    def __init__(self, billing: Billing, seed: int) -> None:
        self.billing, self.random = billing, Random(seed)
        self.books: list[Books] = []
        self.grants: list[CreditGrant] = []
        self.now = JAN_1
        self.number = 0
        self.done: dict[str, int] = defaultdict(int)

    async def begin(self, accounts: int) -> None:
        for code, sold in PLANS.items():
            await self.billing.plan(code, **sold.terms())
        async with self.billing.sessions() as session, session.begin():
            await a_coupon(session, now=JAN_1, percent=40, scope=LineScope.FIXED)
            for _ in range(accounts):
                account = await an_account(session, now=JAN_1, time_zone=self.random.choice(ZONES))
                if self.random.random() < 0.5:
                    self.grants.append(await a_grant(session, account.id, 15_000, now=JAN_1))
                for product in ("weather", "maps"):
                    at = JAN_1 + self.random.randrange(72) * HOUR
                    plan = f"{product}-{self.random.choice('sl')}"
                    day = self.random.choice([None, 15, 31])
                    row = await a_subscription(session, account, now=at, plan=plan, anchor_day=day)
                    books = Books(row, [(at, plan)], discounted=self.random.random() < 0.5)
                    if books.discounted:
                        await redeem(session, row.id, now=at)
                    self.books.append(books)
        self.now = JAN_1 + 3 * DAY
        await self.billing.close(self.now)

    async def step(self) -> None:
        """Let some days pass, and something happen to every subscription."""
        self.now += self.random.randrange(6, 240) * HOUR
        await self.billing.close(self.now)
        for books in self.books:
            action = self.random.choice(ACTIONS)
            if await self.try_to(action, books):
                self.done[action] += 1

    async def try_to(self, action: str, books: Books) -> bool:
        """Do it, if it can be done now; what is refused has changed nothing."""
        try:
            return await getattr(self, action)(books) is not False
        except KmError:
            return False

    async def use(self, books: Books) -> Any:
        """Count requests at any moment that was, so mostly late."""
        began = floor_hour(books.subscription.started_at)
        until = min(books.ends_at or self.now, self.now) - 3 * HOUR
        if until <= began:
            return False
        at = began + self.random.randrange((until - began) // HOUR) * HOUR
        if books.plan_at(at) == PAUSED:
            return False
        units = self.random.randrange(1, 9_000)
        await self.billing.use(books.subscription, units, at=at, known_at=self.now)
        async with self.billing.sessions() as session:
            row = await session.scalar(
                select(UsageHourly)
                .where(UsageHourly.account_id == books.subscription.account_id, UsageHourly.hour == at)
                .order_by(UsageHourly.revision.desc())
                .limit(1)
            )
        books.used.append([at, units, row.phase_id, row.endpoint])
        return True

    async def take_back(self, books: Books) -> Any:
        if not books.used:
            return False
        event = self.random.choice(books.used)
        at, units, phase_id, endpoint = event
        if not units:
            return False
        less = self.random.randrange(1, units + 1)
        async with self.billing.sessions() as session, session.begin():
            account_id = books.subscription.account_id
            revision = await self.billing._touch(session, account_id, at, self.now)
            await session.execute(
                update(UsageHourly)
                .where(
                    UsageHourly.account_id == account_id,
                    UsageHourly.hour == at,
                    UsageHourly.phase_id == phase_id,
                    UsageHourly.endpoint == endpoint,
                )
                .values(
                    billable_units=UsageHourly.billable_units - less,
                    billable_calls=UsageHourly.billable_calls - less,
                    revision=revision,
                )
            )
        event[1] -= less
        return True

    async def change(self, books: Books) -> Any:
        if books.ends_at is not None or books.paused:
            return False
        product, size = books.plans[-1][1].split("-")
        plan = f"{product}-{'l' if size == 's' else 's'}"
        await self.billing.change_plan(books.subscription, plan, now=self.now)
        books.plans.append((self.now, plan))
        return True

    async def pause(self, books: Books) -> Any:
        """Pause, or resume the plan that ran before."""
        if books.ends_at is not None:
            return False
        now, before = self.now, books.plans[-2:][0][1]
        await self.billing.set_status(books.subscription, "active" if books.paused else "paused", now=now)
        books.plans.append((now, before if books.paused else PAUSED))
        return True

    async def end(self, books: Books, *, at: str = "now") -> Any:
        if books.ends_at is not None:
            return False
        books.credited = self.random.random() < 0.5
        unused = "credited" if books.credited and at == "now" else "kept"
        await self.billing.cancel(books.subscription, now=self.now, at=at, unused_time=unused)
        books.ends_at = self.now if at == "now" else books._period(self.now)[1]
        return True

    async def end_with_the_period(self, books: Books) -> Any:
        return await self.end(books, at="period_end")

    async def _invoice(self, books: Books) -> Invoice | None:
        found = await self.billing.invoices(books.subscription)
        return self.random.choice(found) if found else None

    async def void(self, books: Books) -> Any:
        if (invoice := await self._invoice(books)) is None:
            return False
        async with self.billing.sessions() as session, session.begin():
            before = invoice.status
            await void_invoice(session, invoice_id=invoice.id, reason="wrong", actor=ACTOR, now=self.now)
        return before != "void"

    async def give_up(self, books: Books) -> Any:
        if (invoice := await self._invoice(books)) is None:
            return False
        async with self.billing.sessions() as session, session.begin():
            await give_up_invoice(session, invoice_id=invoice.id, reason="gone", actor=ACTOR, now=self.now)
        return True

    async def pay(self, books: Books) -> Any:
        if (invoice := await self._invoice(books)) is None:
            return False
        self.number += 1
        async with self.billing.sessions() as session, session.begin():
            await pay_invoice(
                session,
                invoice_id=invoice.id,
                amount_minor=self.random.choice([None, 1, 500, 30_000]),
                paid_on=self.now.date(),
                reference=f"wire {self.number}",
                surplus_to_balance=True,
                actor=ACTOR,
                now=self.now,
            )
        return True

    async def correct(self, books: Books, *, reason: Reason = Reason.CORRECTION) -> Any:
        """Take back a part of a line, or all that is left of the invoice."""
        if (invoice := await self._invoice(books)) is None:
            return False
        self.number += 1
        above = [line for line in invoice.lines if line.amount_minor > 0]
        lines: tuple[CreditedLine, ...] = ()
        if above and self.random.random() < 0.7:
            line = self.random.choice(above)
            amount = self.random.choice([None, self.random.randrange(1, line.amount_minor + 1)])
            lines = (CreditedLine(position=line.position, amount_minor=amount),)
        request = CreditRequest(reason=reason, lines=lines, surplus=self.random.choice(["balance", "outside"]))
        async with self.billing.sessions() as session, session.begin():
            await issue_credit_note(
                session,
                invoice_id=invoice.id,
                request=request,
                idempotency_key=f"note {self.number}",
                actor=ACTOR,
                now=self.now,
            )
        return True

    async def be_kind(self, books: Books) -> Any:
        return await self.correct(books, reason=Reason.GOODWILL)

    async def finish(self) -> None:
        """End what still runs, and let all of it be billed."""
        self.now += HOUR
        for books in self.books:
            await self.end(books)
        for _ in range(3):
            self.now += 40 * DAY
            await self.billing.close(self.now)

    async def charged_minor(self, books: Books) -> int:
        """Return what invoices charge, less what corrections took back; goodwill is given on top."""
        async with self.billing.sessions() as session:
            mine = Invoice.subscription_id == books.subscription.id
            total = await session.scalar(
                select(func.sum(Invoice.total_minor)).where(mine, Invoice.status.not_in(["draft", "void"]))
            )
            corrected = await session.scalar(
                select(func.sum(CreditNote.total_minor))
                .join(Invoice, Invoice.id == CreditNote.invoice_id)
                .where(mine, CreditNote.lowers_billed)
            )
        return int(total or 0) - int(corrected or 0)

    async def papers(self, books: Books) -> int:
        """Return how many invoices and credit notes there are of a subscription."""
        mine = Invoice.subscription_id == books.subscription.id
        notes = select(func.count()).select_from(CreditNote).join(Invoice, Invoice.id == CreditNote.invoice_id)
        async with self.billing.sessions() as session:
            invoices = await session.scalar(select(func.count()).select_from(Invoice).where(mine))
            return int(invoices or 0) + int(await session.scalar(notes.where(mine)) or 0)

    async def drawn(self) -> list[int]:
        """Return what invoices drew from prepaid credits, and what is gone of these: both must be the same."""
        async with self.billing.sessions() as session:
            bills = Invoice.status.not_in(["draft", "void"])
            drew = await session.scalar(select(func.sum(Invoice.credits_applied_minor)).where(bills))
            left = await left_of(session, *self.grants)
        return [int(drew or 0), 15_000 * len(self.grants) - sum(left)]

    async def cash(self) -> list[tuple[str, int, int]]:
        """Return what each account was billed in the end, and what became of it: both must be the same."""
        async with self.billing.sessions() as session:
            bills = select(Invoice).where(Invoice.status.not_in(["draft", "void"]))
            billed: dict[str, int] = defaultdict(int)
            settled: dict[str, int] = defaultdict(int)
            for one in await session.scalars(bills):
                billed[one.account_id] += one.total_minor - one.credits_applied_minor
                left = one.amount_due_minor - one.amount_paid_minor - one.credited_minor
                settled[one.account_id] += left
            for note in await session.scalars(select(CreditNote)):
                billed[note.account_id] -= note.total_minor
                settled[note.account_id] -= note.to_outside_minor
            for payment in await session.scalars(select(InvoicePayment)):
                settled[payment.account_id] += payment.amount_minor
            for balance in await session.scalars(select(AccountBalance)):
                settled[balance.account_id] -= balance.amount_minor
            accounts = await session.scalars(select(Account.id).order_by(Account.id))
            return [(one, billed[one], settled[one]) for one in accounts]


ACTIONS = (
    *("use",) * 4,
    *("take_back", "change", "pause", "pay", "correct", "void") * 2,
    *("end", "end_with_the_period", "give_up", "be_kind"),
)
