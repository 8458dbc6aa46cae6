"""Random histories of subscriptions, and books that are kept beside them, by hand and without any invoice."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from random import Random
from typing import Any

from sqlalchemy import func, select, update

from control_plane.accounts.tables import Account
from control_plane.billing.balance.tables import AccountBalance
from control_plane.billing.credit_notes.model import CreditedLine, Reason
from control_plane.billing.credit_notes.operations import CreditRequest, issue_credit_note
from control_plane.billing.credit_notes.tables import CreditNote
from control_plane.billing.invoices.tables import Invoice
from control_plane.billing.line_scopes import LineScope
from control_plane.billing.payments.operations import give_up_invoice, pay_invoice, void_invoice
from control_plane.billing.payments.tables import InvoicePayment
from control_plane.foundation.clock import floor_hour
from control_plane.foundation.errors import KmError
from control_plane.foundation.period import period_containing
from control_plane.subscriptions.tables import Subscription
from control_plane.usage.tables import UsageHourly
from tests.control_plane.billing.discounts.coupon_rows import a_coupon, redeem
from tests.control_plane.billing.invoices.billing_kit import (
    DAY,
    HOUR,
    JAN_1,
    Billing,
    commitment,
    flat,
    overage,
    setup_fee,
)
from tests.control_plane.builders import ACTOR, a_subscription, an_account


@dataclass(frozen=True)
class Sold:
    """A plan: a fee each period, a price for each request above those included, a setup fee, a minimum of use."""

    product: str
    fee: str
    price: str
    included: int
    setup: str = "0"
    minimum: str = "0"

    def terms(self) -> dict[str, Any]:
        """Return the plan's terms for the catalogue."""
        prices = [flat(self.fee), overage(self.price, self.included)]
        prices += [setup_fee(self.setup)] if Decimal(self.setup) else []
        prices += [commitment(self.minimum)] if Decimal(self.minimum) else []
        return {"product": self.product, "quota_units": self.included, "prices": tuple(prices)}


PLANS = {
    "weather-s": Sold("weather", "49.00", "0.0015", 1_000),
    "weather-l": Sold("weather", "199.00", "0.0006", 5_000, setup="25.00"),
    "maps-s": Sold("maps", "10.01", "0.013", 100, minimum="33.33"),
    "maps-l": Sold("maps", "99.99", "0.007", 2_000, setup="7.77"),
}
ZONES = ("UTC", "Asia/Kolkata", "America/New_York", "Europe/Berlin")
PAUSED = "paused"
# off the fees of every other subscription
DISCOUNT = Decimal("0.4")
MS = timedelta(milliseconds=1)


def cents(amount: Decimal) -> int:
    return int((amount * 100).to_integral_value(ROUND_HALF_UP))


@dataclass
class Books:
    """What happened to one subscription; says by itself what is due for it."""

    subscription: Subscription
    plans: list[tuple[datetime, str]]
    ends_at: datetime | None = None
    credited: bool = False
    used: list[list[Any]] = field(default_factory=list)
    discounted: bool = False

    def plan_at(self, moment: datetime) -> str:
        return [code for since, code in self.plans if since <= moment][-1]

    @property
    def paused(self) -> bool:
        return self.plans[-1][1] == PAUSED

    def due_minor(self) -> int:
        """Return all that is due to the end of the subscription; discounts to about a cent for each invoice."""
        parts = [self._due(code, start) for code in PLANS for start in self._starts()]
        left = 1 - DISCOUNT if self.discounted else 1
        return round(sum(fixed for fixed, _ in parts) * left) + sum(by_use for _, by_use in parts)

    def _period(self, moment: datetime) -> tuple[datetime, datetime]:
        row = self.subscription
        period = period_containing(moment, row.anchor_at, row.interval, row.time_zone)
        return period.start, period.end

    def _starts(self) -> list[datetime]:
        starts, moment = [], self.subscription.started_at
        while moment < self.ends_at:
            start, moment = self._period(moment)
            starts.append(start)
        return starts

    def _due(self, code: str, start: datetime) -> tuple[int, int]:
        """Return what a plan costs in a billing period before and by use."""
        sold = PLANS[code]
        _, end = self._period(start)
        ends_at = self.ends_at if self.credited or self.ends_at >= end else end
        bounds = [*(since for since, _ in self.plans), ends_at]
        covered = timedelta(0)
        for (since, running), until in zip(self.plans, bounds[1:], strict=True):
            if running == code:
                covered += max(timedelta(0), min(until, end) - max(since, start))
        part = Decimal(covered // MS) / Decimal((end - start) // MS)
        units = sum(count for at, count, *_ in self.used if start <= at < end and self.plan_at(at) == code)
        by_use = cents(Decimal(sold.price) * max(0, units - sold.included))
        missing = max(0, cents(Decimal(sold.minimum) * part - Decimal(by_use) / 100))
        fees = [since for since, other in self.plans if other != PAUSED and Decimal(PLANS[other].setup)]
        setup = sold.setup if fees and start <= fees[0] < end and (fees[0], code) in self.plans else "0"
        return cents(Decimal(sold.fee) * part) + cents(Decimal(setup)), by_use + missing


class World:
    """Accounts with two subscriptions each, to which something happens at every step."""

    def __init__(self, billing: Billing, seed: int) -> None:
        self.billing, self.random = billing, Random(seed)
        self.books: list[Books] = []
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

    async def cash(self) -> list[tuple[str, int, int]]:
        """Return what each account was billed in the end, and what became of it: both must be the same."""
        async with self.billing.sessions() as session:
            bills = select(Invoice).where(Invoice.status.not_in(["draft", "void"]))
            billed: dict[str, int] = defaultdict(int)
            settled: dict[str, int] = defaultdict(int)
            for one in await session.scalars(bills):
                billed[one.account_id] += one.total_minor
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
