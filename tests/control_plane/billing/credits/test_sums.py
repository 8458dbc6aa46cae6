"""Whatever is done to credits in whatever order: no grant falls below zero, and no amount is lost or made."""

from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.billing.credits.applying import CreditDraw, draw_credits, return_credits
from control_plane.billing.credits.due import look
from control_plane.billing.credits.model import CreditsUsedUpError, ReservationOverError
from control_plane.billing.credits.operations import revoke_grant
from control_plane.billing.credits.reservations import (
    NewReservation,
    release_reservation,
    reserve_credits,
    settle_reservation,
)
from tests.control_plane.billing.credits.helpers import a_grant, an_invoice, left_of, sums_agree
from tests.control_plane.builders import ACTOR, an_account

NOV_1 = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
AMOUNTS = st.integers(1, 120)
STEPS = st.one_of(
    st.tuples(st.just("grant"), AMOUNTS, st.integers(0, 5)),
    st.tuples(st.just("draw"), AMOUNTS),
    st.tuples(st.just("void"), st.integers(0, 9)),
    st.tuples(st.just("reserve"), AMOUNTS, st.integers(1, 6)),
    st.tuples(st.just("settle"), st.integers(0, 9), AMOUNTS),
    st.tuples(st.just("release"), st.integers(0, 9)),
    st.tuples(st.just("revoke"), st.integers(0, 9)),
    st.tuples(st.just("wait")),
)


class Books:
    """Does steps, and keeps by itself what must come out."""

    def __init__(self, session, account):
        self.session, self.account, self.now = session, account, NOV_1
        self.grants, self.invoices, self.reservations = [], {}, []
        self.number = 0

    async def do(self, step):
        kind, *values = step
        await getattr(self, kind)(*values)

    async def grant(self, amount, lasts_hours):
        expires_at = self.now + lasts_hours * HOUR if lasts_hours else None
        self.grants.append(
            await a_grant(self.session, self.account.id, amount, now=self.now, expires_at=expires_at)
        )

    async def draw(self, amount):
        usable = [one for one in self.grants if one.expires_at is None or one.expires_at > self.now]
        there_is = sum(await left_of(self.session, *usable))
        invoice = await an_invoice(self.session, self.account.id, now=self.now)
        wanted = CreditDraw(
            invoice_id=invoice.id,
            account_id=self.account.id,
            subscription_id=None,
            period_start=None,
            currency="USD",
            amount_minor=amount,
        )
        self.invoices[invoice.id] = (await draw_credits(self.session, [wanted], now=self.now))[invoice.id]
        assert self.invoices[invoice.id] == min(amount, there_is)

    async def void(self, index):
        if self.invoices:
            invoice_id = sorted(self.invoices)[index % len(self.invoices)]
            returned = await return_credits(self.session, [invoice_id], now=self.now)
            assert returned.get(invoice_id, 0) == self.invoices[invoice_id]
            self.invoices[invoice_id] = 0

    async def reserve(self, amount, lasts_hours):
        self.number += 1
        wanted = NewReservation(amount_minor=amount, ttl=lasts_hours * HOUR, reference=str(self.number))
        try:
            row = await reserve_credits(
                self.session, account_id=self.account.id, wanted=wanted, actor=ACTOR, now=self.now
            )
        except CreditsUsedUpError:
            return
        self.reservations.append(row)

    async def settle(self, index, amount):
        if self.reservations:
            row = self.reservations[index % len(self.reservations)]
            try:
                async with self.session.begin_nested():
                    await settle_reservation(
                        self.session, reservation_id=row.id, amount_minor=amount, actor=ACTOR, now=self.now
                    )
            except (CreditsUsedUpError, ReservationOverError):
                await self.session.refresh(row)

    async def release(self, index):
        if self.reservations:
            row = self.reservations[index % len(self.reservations)]
            if row.status != "settled":
                await release_reservation(self.session, reservation_id=row.id, actor=ACTOR, now=self.now)

    async def revoke(self, index):
        if self.grants:
            grant = self.grants[index % len(self.grants)]
            await revoke_grant(self.session, grant_id=grant.id, actor=ACTOR, now=self.now)

    async def wait(self):
        self.now += HOUR
        await look(self.session, now=self.now, keep=HOUR)

    async def agree(self):
        assert await sums_agree(self.session)
        assert all(left >= 0 for left in await left_of(self.session, *self.grants))


class TestSumsOfCredits:
    @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(steps=st.lists(STEPS, min_size=4, max_size=14))
    async def test_agree_whatever_is_done(self, sessions, steps):
        async with sessions() as session:
            books = Books(session, await an_account(session, now=NOV_1))
            for step in steps:
                await books.do(step)
                await books.agree()
            await session.rollback()
