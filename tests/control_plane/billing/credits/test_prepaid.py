"""Prepaid subscriptions: usage is drawn as it is sealed, and the limit tells what may still be used."""

import asyncio
from contextlib import nullcontext
from datetime import timedelta

import pytest
from sqlalchemy import delete, select, update

from control_plane.accounts.tables import Account
from control_plane.billing.credits.due import look
from control_plane.billing.credits.model import CreditsUsedUpError, GrantKind, free_beside
from control_plane.billing.credits.prepaid import prepaid_limits
from control_plane.billing.credits.queries import invoice_credits
from control_plane.billing.credits.reservations import NewReservation, reserve_credits, settle_reservation
from control_plane.billing.credits.tables import PrepaidPeriod
from control_plane.billing.payments.operations import void_invoice
from control_plane.billing.prepaid import reserving
from control_plane.billing.prepaid.drawing import Drawn
from control_plane.billing.prepaid.worker import PrepaidDrawsConfig, draw_usage, run_prepaid_draws
from control_plane.billing.spend_caps import read_spend_caps
from control_plane.usage.tables import UsageHourly
from tests.control_plane.billing.credits.helpers import a_grant, entries_of, left_of, sums_agree
from tests.control_plane.billing.invoices.billing_kit import (
    DAY,
    FEB_1,
    HOUR,
    JAN_1,
    Billing,
    flat,
    per_unit,
    phase_in_force,
)
from tests.control_plane.builders import ACTOR, a_published_plan, a_subscription, an_account

PAYG = {"prices": (per_unit("0.01"),), "payment": "prepaid"}
KEEP = timedelta(hours=72)


class Prepaid(Billing):
    """The kit of invoices, with credits."""

    async def credited(self, amount_minor, *, plan="payg", **options):
        """A customer with credits, as the worker finds them first."""
        customer = await self.customer(plan)
        grant = await self.grant(customer, amount_minor, **options)
        await self.draw(JAN_1)
        return customer, grant

    async def grant(self, customer, amount_minor, *, now=JAN_1, **options):
        async with self.sessions() as session, session.begin():
            return await a_grant(session, customer.account_id, amount_minor, now=now, **options)

    async def draw(self, now):
        await self.seal(now)
        return await draw_usage(self.sessions, now=now)

    async def limit(self, customer, now):
        async with self.sessions() as session:
            return (await prepaid_limits(session, [customer.id], now=now)).get(customer.id)

    async def left(self, *grants):
        async with self.sessions() as session:
            assert await sums_agree(session)
            return await left_of(session, *grants)

    async def version(self, customer):
        """The version of the account's record: it grows whenever gateways are told."""
        async with self.sessions() as session:
            return await session.scalar(select(Account.gateway_version).where(Account.id == customer.account_id))


@pytest.fixture
async def prepaid(sessions):
    kit = Prepaid(sessions)
    await kit.plan("payg", **PAYG)
    return kit


class TestPrepaidLimits:
    async def test_are_what_was_drawn_and_what_is_left_so_a_draw_changes_nothing(self, prepaid):
        customer, grant = await prepaid.credited(1000)
        version = await prepaid.version(customer)
        for day in (1, 2, 3):
            await prepaid.use(customer, 150, at=JAN_1 + day * DAY)
            assert (await prepaid.draw(JAN_1 + (day + 1) * DAY)).drawn_minor == 150
            assert await prepaid.left(grant) == [1000 - 150 * day]
            assert await prepaid.limit(customer, JAN_1 + (day + 1) * DAY) == 1000
        assert await prepaid.version(customer) == version

    async def test_of_plans_that_are_invoiced_there_are_none(self, prepaid):
        await prepaid.plan("starter")
        customer, _ = await prepaid.credited(1000, plan="starter")
        assert await prepaid.limit(customer, JAN_1) is None

    async def test_count_only_what_can_be_used_now(self, prepaid):
        customer, _ = await prepaid.credited(100)
        await prepaid.grant(customer, 10, expires_at=JAN_1 + DAY)
        await prepaid.grant(customer, 1, starts_at=JAN_1 + DAY)
        assert await prepaid.limit(customer, JAN_1) == 110
        assert await prepaid.limit(customer, JAN_1 + DAY) == 101

    async def test_are_lowered_by_what_is_reserved(self, prepaid):
        customer, _ = await prepaid.credited(100)
        version = await prepaid.version(customer)
        async with prepaid.sessions() as session, session.begin():
            wanted = NewReservation(amount_minor=30, ttl=HOUR, reference="job")
            await reserve_credits(session, account_id=customer.account_id, wanted=wanted, actor=ACTOR, now=JAN_1)
        assert await prepaid.limit(customer, JAN_1) == 70
        assert await prepaid.version(customer) == version + 1

    async def test_of_a_new_period_leave_out_what_the_old_one_has_used_and_not_drawn_yet(self, prepaid):
        customer, grant = await prepaid.credited(1000)
        await prepaid.use(customer, 400, at=FEB_1 - HOUR, known_at=FEB_1)
        begun = FEB_1 + timedelta(seconds=1)
        version = await prepaid.version(customer)
        # known by now, but not sealed
        assert (await prepaid.draw(begun)).drawn_minor == 0
        assert await prepaid.left(grant) == [1000]
        assert await prepaid.limit(customer, begun) == 600
        assert await prepaid.version(customer) > version
        await prepaid.use(customer, 5, at=FEB_1 - HOUR, known_at=FEB_1 + HOUR)
        await prepaid.draw(FEB_1 + 2 * HOUR)
        assert await prepaid.left(grant) == [595]
        assert await prepaid.limit(customer, FEB_1 + 2 * HOUR) == 595


class TestReservingBesideUse:
    """What an open hour has used is not drawn yet, and must not be spent a second time."""

    async def reserve(self, prepaid, customer, amount_minor, *, reference="job", now, **options):
        wanted = NewReservation(amount_minor=amount_minor, ttl=HOUR, reference=reference, **options)
        async with prepaid.sessions() as session, session.begin():
            return await reserving.reserve_credits(
                session, account_id=customer.account_id, wanted=wanted, actor=ACTOR, now=now
            )

    async def test_holds_no_more_than_an_open_hour_leaves(self, prepaid):
        customer, grant = await prepaid.credited(1000)
        await prepaid.use(customer, 400, at=JAN_1 + DAY)
        now = JAN_1 + DAY + HOUR / 2
        with pytest.raises(CreditsUsedUpError, match=r"6\.00 of the account's credits are left"):
            await self.reserve(prepaid, customer, 601, now=now)
        await self.reserve(prepaid, customer, 600, now=now)
        await prepaid.draw(JAN_1 + 2 * DAY)
        assert await prepaid.left(grant) == [0]

    async def test_draws_no_more_for_a_job_that_came_to_more_than_was_held(self, prepaid):
        customer, grant = await prepaid.credited(1000)
        now = JAN_1 + DAY + HOUR / 2
        held = await self.reserve(prepaid, customer, 500, now=now)
        await prepaid.use(customer, 400, at=JAN_1 + DAY)
        for amount, outcome in ((601, pytest.raises(CreditsUsedUpError)), (600, nullcontext())):
            with outcome:
                async with prepaid.sessions() as session, session.begin():
                    await reserving.settle_reservation(
                        session, reservation_id=held.id, amount_minor=amount, actor=ACTOR, now=now
                    )
        await prepaid.draw(JAN_1 + 2 * DAY)
        assert await prepaid.left(grant) == [0]

    async def test_what_was_drawn_is_taken_off_once(self, prepaid):
        customer, _ = await prepaid.credited(1000)
        await prepaid.use(customer, 400, at=JAN_1 + DAY)
        await prepaid.draw(JAN_1 + 2 * DAY)
        async with prepaid.sessions() as session:
            assert dict(await reserving.undrawn_use(session, customer.account_id)) == {customer.api_product_id: 0}
        await self.reserve(prepaid, customer, 600, now=JAN_1 + 2 * DAY)

    @pytest.mark.parametrize(
        ("product", "free"), [("maps", 30 + 100 - 40 - 50), ("weather", 20 + 100 - 70 - 10), (None, 100 - 50 - 10)]
    )
    def test_use_of_another_product_takes_its_own_credits_first(self, product, free):
        left = {None: 100, "maps": 30, "weather": 20}
        undrawn = {"maps": 40, "weather": 70}
        assert free_beside(left, undrawn, api_product_id=product) == free


class TestWhatGatewaysAreGiven:
    async def cap(self, prepaid, customer, now):
        async with prepaid.sessions() as session:
            phase = await phase_in_force(session, customer.id, now)
            return (await read_spend_caps(session, {customer.id: phase}, now=now)).compiled(customer.id)

    async def test_is_as_many_units_as_credits_pay_for(self, prepaid):
        customer, _ = await prepaid.credited(1000)
        cap = await self.cap(prepaid, customer, JAN_1 + DAY)
        assert (cap.prepaid, cap.ceiling_units, cap.amount_minor) == (True, 1000, 1000)

    async def test_leaves_out_use_that_an_earlier_plan_puts_on_the_invoice(self, prepaid):
        await prepaid.plan("invoiced", prices=(per_unit("0.02"),))
        customer, _ = await prepaid.credited(1000, plan="invoiced")
        await prepaid.use(customer, 100, at=JAN_1 + DAY)
        await prepaid.change_plan(customer, "payg", now=JAN_1 + 2 * DAY)
        await prepaid.draw(JAN_1 + 3 * DAY)
        cap = await self.cap(prepaid, customer, JAN_1 + 3 * DAY)
        # what the earlier plan counted is not charged again, wherever the gateway counts it
        assert cap.ceiling_units in {1000, 1100}
        assert await prepaid.limit(customer, JAN_1 + 3 * DAY) == 1000

    async def test_holds_for_a_plan_begun_by_a_clock_that_is_ahead_of_ours(self, prepaid):
        await prepaid.plan("invoiced", prices=(per_unit("0.02"),))
        customer, _ = await prepaid.credited(1000, plan="invoiced")
        changed = JAN_1 + 2 * DAY
        await prepaid.change_plan(customer, "payg", now=changed)
        async with prepaid.sessions() as session:
            phase = await phase_in_force(session, customer.id, changed)
            caps = await read_spend_caps(session, {customer.id: phase}, now=changed - timedelta(milliseconds=20))
        assert caps.compiled(customer.id).ceiling_units == 1000


class TestGatewaysAreTold:
    async def test_of_grants_that_are_made_begin_or_expire(self, prepaid):
        customer, _ = await prepaid.credited(100)
        version = await prepaid.version(customer)
        await prepaid.grant(customer, 10, starts_at=JAN_1 + DAY, expires_at=JAN_1 + 2 * DAY)
        assert await prepaid.version(customer) == version
        for day, told in ((1, 1), (2, 2), (3, 2)):
            async with prepaid.sessions() as session, session.begin():
                await look(session, now=JAN_1 + day * DAY, keep=KEEP)
            assert await prepaid.version(customer) == version + told
        await prepaid.grant(customer, 5, now=JAN_1 + 3 * DAY)
        assert await prepaid.version(customer) == version + 3

    async def test_of_nothing_where_no_subscription_is_prepaid(self, prepaid):
        await prepaid.plan("starter")
        customer = await prepaid.customer("starter")
        version = await prepaid.version(customer)
        await prepaid.grant(customer, 100, expires_at=JAN_1 + DAY)
        async with prepaid.sessions() as session, session.begin():
            await look(session, now=JAN_1 + DAY, keep=KEEP)
        assert await prepaid.version(customer) == version

    async def test_of_what_another_subscription_of_the_account_draws(self, prepaid):
        customer, _ = await prepaid.credited(1000)
        async with prepaid.sessions() as session, session.begin():
            await a_published_plan(session, now=JAN_1 - DAY, code="maps", product="maps", **PAYG)
            account = await session.get_one(Account, customer.account_id)
            other = await a_subscription(session, account, now=JAN_1, plan="maps")
        await prepaid.draw(JAN_1)
        version = await prepaid.version(customer)
        await prepaid.use(customer, 100, at=JAN_1 + DAY)
        await prepaid.draw(JAN_1 + 2 * DAY)
        assert await prepaid.version(customer) == version + 1
        now = JAN_1 + 2 * DAY
        assert (await prepaid.limit(customer, now), await prepaid.limit(other, now)) == (1000, 900)


class TestTheExample:
    async def test_of_the_page_on_credits_comes_out_as_it_says(self, prepaid):
        customer, bought = await prepaid.credited(2000, kind=GrantKind.PAID)
        given = await prepaid.grant(customer, 10, expires_at=JAN_1 + 62 * DAY)
        seen = []

        async def look_at(now):
            seen.append((*await prepaid.left(given, bought), await prepaid.limit(customer, now)))

        await prepaid.use(customer, 500, at=JAN_1 + 9 * HOUR)
        await look_at(JAN_1 + 9 * HOUR)
        await prepaid.draw(JAN_1 + 12 * HOUR)
        await look_at(JAN_1 + 12 * HOUR)
        now = JAN_1 + DAY
        async with prepaid.sessions() as session, session.begin():
            wanted = NewReservation(amount_minor=500, ttl=HOUR, reference="report 17")
            held = await reserve_credits(
                session, account_id=customer.account_id, wanted=wanted, actor=ACTOR, now=now
            )
        await look_at(now)
        async with prepaid.sessions() as session, session.begin():
            await settle_reservation(session, reservation_id=held.id, amount_minor=320, actor=ACTOR, now=now)
        await look_at(now)
        await prepaid.use(customer, 1190, at=JAN_1 + 19 * DAY)
        await look_at(JAN_1 + 19 * DAY)
        await prepaid.draw(JAN_1 + 20 * DAY)
        await look_at(JAN_1 + 20 * DAY)
        assert seen == [
            (10, 2000, 2010),
            (0, 1510, 2010),
            (0, 1010, 1510),
            (0, 1190, 1690),
            (0, 1190, 1690),
            (0, 0, 1690),
        ]
        await prepaid.close(FEB_1 + HOUR)
        (invoice,) = await prepaid.invoices(customer)
        assert (invoice.total_minor, invoice.credits_applied_minor, invoice.status) == (1690, 1690, "paid")


class TestDrawing:
    async def test_the_invoice_counts_what_was_drawn_and_draws_it_no_second_time(self, prepaid):
        customer, grant = await prepaid.credited(1000)
        await prepaid.use(customer, 300, at=JAN_1 + DAY)
        await prepaid.draw(JAN_1 + 2 * DAY)
        await prepaid.close(FEB_1 + HOUR)
        (invoice,) = await prepaid.invoices(customer)
        assert (invoice.total_minor, invoice.credits_applied_minor, invoice.status) == (300, 300, "paid")
        assert (await prepaid.draw(FEB_1 + 2 * HOUR)).drawn_minor == 0
        assert await prepaid.left(grant) == [700]
        async with prepaid.sessions() as session:
            paid = await invoice_credits(session, invoice.id)
            assert (paid.amount_minor, paid.prepaid_minor) == (300, 300)

    async def test_what_was_used_beyond_the_credits_stays_due(self, prepaid):
        customer, grant = await prepaid.credited(1000)
        await prepaid.use(customer, 1200, at=JAN_1 + DAY)
        assert (await prepaid.draw(JAN_1 + 2 * DAY)).drawn_minor == 1000
        await prepaid.close(FEB_1 + HOUR)
        (invoice,) = await prepaid.invoices(customer)
        assert (invoice.credits_applied_minor, invoice.amount_due_minor, invoice.status) == (1000, 200, "open")
        assert await prepaid.left(grant) == [0]

    async def test_voiding_the_invoice_gives_all_back_and_the_next_one_draws_it_again(self, prepaid):
        customer, grant = await prepaid.credited(1000)
        await prepaid.use(customer, 1200, at=JAN_1 + DAY)
        await prepaid.draw(JAN_1 + 2 * DAY)
        await prepaid.close(FEB_1 + HOUR)
        (invoice,) = await prepaid.invoices(customer)
        async with prepaid.sessions() as session, session.begin():
            await void_invoice(session, invoice_id=invoice.id, reason="wrong buyer", actor=ACTOR, now=FEB_1 + DAY)
        assert await prepaid.left(grant) == [1000]
        assert await prepaid.limit(customer, FEB_1 + DAY) == 1000
        await prepaid.close(FEB_1 + 28 * DAY + HOUR)
        again = (await prepaid.invoices(customer))[-1]
        assert (again.total_minor, again.credits_applied_minor, again.amount_due_minor) == (1200, 1000, 200)
        assert await prepaid.left(grant) == [0]

    async def test_credits_that_come_later_pay_what_is_missing(self, prepaid):
        customer, _ = await prepaid.credited(1000)
        await prepaid.use(customer, 1200, at=JAN_1 + DAY)
        await prepaid.draw(JAN_1 + 2 * DAY)
        more = await prepaid.grant(customer, 500, now=JAN_1 + 3 * DAY)
        await prepaid.close(FEB_1 + HOUR)
        (invoice,) = await prepaid.invoices(customer)
        assert (invoice.credits_applied_minor, invoice.amount_due_minor) == (1200, 0)
        assert await prepaid.left(more) == [300]

    async def test_without_the_worker_the_invoice_draws_all_of_it(self, prepaid):
        customer = await prepaid.customer("payg")
        grant = await prepaid.grant(customer, 1000)
        await prepaid.use(customer, 300, at=JAN_1 + DAY)
        await prepaid.close(FEB_1 + HOUR)
        assert [one.credits_applied_minor for one in await prepaid.invoices(customer)] == [300]
        assert (await prepaid.draw(FEB_1 + 2 * HOUR)).drawn_minor == 0
        assert await prepaid.left(grant) == [700]

    async def test_what_a_correction_takes_off_goes_back(self, prepaid):
        customer, grant = await prepaid.credited(1000)
        await prepaid.use(customer, 300, at=JAN_1 + DAY)
        await prepaid.draw(JAN_1 + 2 * DAY)
        async with prepaid.sessions() as session, session.begin():
            await session.execute(delete(UsageHourly))
        await prepaid.use(customer, 100, at=JAN_1 + DAY, known_at=JAN_1 + 3 * DAY)
        assert await prepaid.draw(JAN_1 + 4 * DAY) == Drawn(1, 0, 200)
        assert await prepaid.left(grant) == [900]
        assert await prepaid.limit(customer, JAN_1 + 4 * DAY) == 1000

    async def test_late_usage_of_a_billed_period_is_paid_with_the_next_invoice(self, prepaid):
        customer, grant = await prepaid.credited(1000)
        await prepaid.use(customer, 300, at=JAN_1 + DAY)
        await prepaid.draw(JAN_1 + 2 * DAY)
        await prepaid.close(FEB_1 + HOUR)
        await prepaid.use(customer, 50, at=FEB_1 - 5 * HOUR, known_at=FEB_1 + 2 * HOUR)
        await prepaid.use(customer, 20, at=FEB_1 + DAY)
        assert (await prepaid.draw(FEB_1 + 2 * DAY)).drawn_minor == 20
        await prepaid.close(FEB_1 + 28 * DAY + HOUR)
        assert [one.credits_applied_minor for one in await prepaid.invoices(customer)] == [300, 70]
        assert await prepaid.left(grant) == [630]

    async def test_credits_that_expired_between_use_and_seal_still_pay(self, prepaid):
        customer, grant = await prepaid.credited(1000, expires_at=JAN_1 + DAY)
        await prepaid.use(customer, 100, at=JAN_1 + DAY - HOUR)
        await prepaid.use(customer, 50, at=JAN_1 + DAY)
        for seconds in (180, 190, 200):
            await prepaid.draw(JAN_1 + DAY + timedelta(seconds=seconds))
        assert await prepaid.left(grant) == [900]
        assert (await prepaid.draw(JAN_1 + DAY + 3 * HOUR)).drawn_minor == 0
        assert await prepaid.left(grant) == [900]

    async def test_fixed_charges_and_usage_that_is_invoiced_are_not_drawn_ahead(self, prepaid):
        await prepaid.plan("invoiced", prices=(per_unit("0.02"),))
        await prepaid.plan("mixed", prices=(flat("5.00"), per_unit("0.01")), payment="prepaid")
        customer, _ = await prepaid.credited(1000, plan="invoiced")
        await prepaid.use(customer, 100, at=JAN_1 + DAY)
        await prepaid.change_plan(customer, "mixed", now=JAN_1 + 2 * DAY)
        await prepaid.use(customer, 30, at=JAN_1 + 3 * DAY)
        assert (await prepaid.draw(JAN_1 + 4 * DAY)).drawn_minor == 30

    async def test_two_workers_at_once_draw_once(self, prepaid):
        customer, grant = await prepaid.credited(1000)
        await prepaid.use(customer, 300, at=JAN_1 + DAY)
        now = JAN_1 + 2 * DAY
        await prepaid.seal(now)
        both = await asyncio.gather(*(draw_usage(prepaid.sessions, now=now) for _ in range(2)))
        assert sum(one.drawn_minor for one in both) == 300
        assert await prepaid.left(grant) == [700]

    async def test_what_the_invoice_does_not_need_goes_back(self, prepaid):
        customer, grant = await prepaid.credited(1000)
        await prepaid.use(customer, 300, at=JAN_1 + DAY)
        await prepaid.draw(JAN_1 + 2 * DAY)
        async with prepaid.sessions() as session, session.begin():
            # drawn for hours of which a correction is sealed before the worker comes by again
            await session.execute(delete(UsageHourly))
        await prepaid.use(customer, 120, at=JAN_1 + DAY, known_at=FEB_1)
        await prepaid.close(FEB_1 + 3 * HOUR)
        (invoice,) = await prepaid.invoices(customer)
        assert (invoice.total_minor, invoice.credits_applied_minor) == (120, 120)
        assert await prepaid.left(grant) == [880]
        async with prepaid.sessions() as session:
            assert await entries_of(session, customer.account_id) == [
                ("grant", 1000),
                ("draw", -300),
                ("return", 180),
            ]

    async def test_goes_on_in_its_worker(self, prepaid):
        customer, grant = await prepaid.credited(1000)
        await prepaid.use(customer, 300, at=JAN_1 + DAY)
        now, stop = JAN_1 + 2 * DAY, asyncio.Event()
        await prepaid.seal(now)
        config = PrepaidDrawsConfig(pause_seconds=0.05)
        running = asyncio.create_task(
            run_prepaid_draws(config=config, sessions=prepaid.sessions, stop=stop, clock=lambda: now)
        )
        async with asyncio.timeout(20):
            while await prepaid.left(grant) != [700]:  # noqa: ASYNC110 - the database rings no bell
                await asyncio.sleep(0.05)
        stop.set()
        await running

    async def test_draws_for_the_others_where_one_cannot_be_rated(self, prepaid):
        spoiled, untouched = await prepaid.credited(1000)
        customer, grant = await prepaid.credited(1000)
        for one in (spoiled, customer):
            await prepaid.use(one, 300, at=JAN_1 + DAY)
        async with prepaid.sessions() as session, session.begin():
            # of a currency in which the plan is not sold
            await session.execute(update(Account).where(Account.id == spoiled.account_id).values(currency="EUR"))
        assert (await prepaid.draw(JAN_1 + 2 * DAY)).drawn_minor == 300
        assert await prepaid.left(untouched, grant) == [1000, 700]

    async def test_opens_each_period_once(self, prepaid):
        await prepaid.credited(1000)
        await prepaid.draw(JAN_1 + DAY)
        await prepaid.draw(FEB_1)
        async with prepaid.sessions() as session:
            starts = sorted(await session.scalars(select(PrepaidPeriod.period_start)))
        assert starts == [JAN_1, FEB_1]

    async def test_of_an_account_without_credits_draws_nothing(self, prepaid):
        async with prepaid.sessions() as session, session.begin():
            await an_account(session, now=JAN_1)
        customer = await prepaid.customer("payg")
        await prepaid.use(customer, 300, at=JAN_1 + DAY)
        assert (await prepaid.draw(JAN_1 + 2 * DAY)).drawn_minor == 0
        assert await prepaid.limit(customer, JAN_1 + 2 * DAY) == 0
