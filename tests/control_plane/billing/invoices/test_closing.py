"""Invoices of whole subscriptions, from the first charge to the last correction."""

from collections import Counter
from dataclasses import replace

from sqlalchemy import select, update

from control_plane.billing.invoices.tables import BilledPeriod
from control_plane.billing.payments.operations import void_invoice
from control_plane.subscriptions.tables import Subscription
from tests.control_plane.billing.invoices.billing_kit import (
    DAY,
    FEB_1,
    GROWTH,
    HOUR,
    JAN_1,
    MAR_1,
    STARTER,
    Billing,
    as_table,
    per_unit,
    setup_fee,
)


class TestOneCustomer:
    async def test_pays_the_fee_in_advance_and_usage_afterwards(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.use(customer, 62_345, at=JAN_1 + 3 * DAY)
        await billing.close(FEB_1)
        assert [one.status for one in await billing.invoices(customer, drafts=True)] == ["open", "draft"]
        await billing.close(FEB_1 + HOUR)
        found = await billing.invoices(customer)
        assert as_table(found) == [
            ("start", [("Starter plan", 4_900)]),
            ("period", [("Requests", 1_852), ("Starter plan", 4_900)]),
        ]
        assert [one.number for one in found] == ["INV-000001", "INV-000002"]
        assert [one.amount_due_minor for one in found] == [4_900, 6_752]

    async def test_is_charged_for_an_upgrade_at_once_less_the_unused_time(self, billing: Billing):
        await billing.plan()
        await billing.plan("growth", **GROWTH)
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.use(customer, 60_000, at=JAN_1 + DAY)
        await billing.change_plan(customer, "growth", now=JAN_1 + 10 * DAY)
        await billing.close(JAN_1 + 10 * DAY)
        await billing.use(customer, 500_001, at=JAN_1 + 12 * DAY)
        await billing.close(FEB_1 + HOUR)
        assert as_table(await billing.invoices(customer)) == [
            ("start", [("Starter plan", 4_900)]),
            (
                "change",
                [("Unused time on Starter, 21 of 31 days", 1_581 - 4_900), ("Growth: Growth plan", 13_481)],
            ),
            (
                "period",
                [("Starter: Requests", 1_500), ("Growth: Requests", 0), ("Growth plan", 19_900)],
            ),
        ]

    async def test_is_credited_for_a_downgrade_with_the_next_invoice(self, billing: Billing):
        await billing.plan()
        await billing.plan("growth", **GROWTH)
        customer = await billing.customer("growth")
        await billing.close(JAN_1)
        await billing.change_plan(customer, "starter", now=JAN_1 + 10 * DAY)
        await billing.close(JAN_1 + 10 * DAY)
        assert len(await billing.invoices(customer)) == 1
        await billing.close(FEB_1 + HOUR)
        assert as_table(await billing.invoices(customer))[1] == (
            "period",
            [
                ("Unused time on Growth, 21 of 31 days", 6_419 - 19_900),
                ("Growth: Requests", 0),
                ("Starter: Starter plan", 3_319),
                ("Starter: Requests", 0),
                ("Starter plan", 4_900),
            ],
        )

    async def test_gets_what_is_below_zero_as_balance(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.cancel(customer, now=JAN_1 + 10 * DAY, unused_time="credited")
        await billing.close(JAN_1 + 11 * DAY)
        found = await billing.invoices(customer)
        assert as_table(found)[1] == (
            "final",
            [("Unused time on Starter, 21 of 31 days", -3_319), ("Requests", 0)],
        )
        assert (found[1].status, found[1].total_minor, found[1].balance_applied_minor) == ("paid", -3_319, -3_319)

    async def test_keeps_nothing_of_unused_time_unless_it_was_agreed(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.use(customer, 51_000, at=JAN_1 + DAY)
        await billing.cancel(customer, now=JAN_1 + 10 * DAY)
        await billing.close(JAN_1 + 11 * DAY)
        await billing.close(MAR_1)
        assert as_table(await billing.invoices(customer))[1:] == [("final", [("Requests", 150)])]


class TestUsageThatComesLate:
    async def test_is_on_the_next_invoice_in_words(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.use(customer, 50_000, at=JAN_1 + DAY)
        await billing.close(FEB_1 + HOUR)
        await billing.use(customer, 1_204, at=JAN_1 + 2 * DAY, known_at=FEB_1 + 3 * DAY)
        await billing.close(FEB_1 + 3 * DAY)
        await billing.close(MAR_1 + HOUR)
        found = await billing.invoices(customer)
        assert as_table(found)[2] == (
            "period",
            [
                ("Requests: 1,204 requests arrived late", 181),
                ("Requests", 0),
                ("Starter plan", 4_900),
            ],
        )
        assert found[2].lines[0].period_start == JAN_1
        assert found[2].lines[0].formula == "1,204 requests above 50,000 × $0.0015 − $0.00 billed before"  # noqa: RUF001

    async def test_has_an_invoice_of_its_own_where_the_subscription_is_over(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.use(customer, 50_000, at=JAN_1 + DAY)
        await billing.cancel(customer, now=JAN_1 + 10 * DAY)
        await billing.close(JAN_1 + 11 * DAY)
        await billing.use(customer, 1_000, at=JAN_1 + 2 * DAY, known_at=JAN_1 + 12 * DAY)
        await billing.close(JAN_1 + 12 * DAY)
        await billing.close(JAN_1 + 12 * DAY + HOUR)
        found = await billing.invoices(customer)
        assert as_table(found) == [
            ("start", [("Starter plan", 4_900)]),
            ("final", [("Requests", 150)]),
        ]


class TestWhoPaysNothingYet:
    async def test_is_charged_when_the_trial_ends(self, billing: Billing):
        await billing.plan("tried", trial_days=14, prices=(setup_fee("10.00"), *STARTER["prices"]))
        customer = await billing.customer("tried")
        await billing.close(JAN_1)
        await billing.use(customer, 60_000, at=JAN_1 + DAY)
        await billing.close(JAN_1 + 14 * DAY)
        assert as_table(await billing.invoices(customer)) == [
            ("start", [("Setup fee", 1_000), ("Tried plan", 4_900)])
        ]
        await billing.use(customer, 50_010, at=JAN_1 + 20 * DAY)
        await billing.close(FEB_1 + 14 * DAY + HOUR)
        found = await billing.invoices(customer)
        assert as_table(found)[1:] == [("period", [("Requests", 2), ("Tried plan", 4_900)])]
        assert found[1].period_start == JAN_1 + 14 * DAY

    async def test_has_no_invoice_where_nothing_comes_to_anything(self, billing: Billing):
        await billing.plan("free", quota_units=1_000, quota_hard=True, prices=())
        await billing.plan("by-use", prices=(per_unit("0.01"),))
        free, silent = await billing.customer("free"), await billing.customer("by-use")
        for moment in (JAN_1, FEB_1, FEB_1 + HOUR, MAR_1 + HOUR):
            await billing.close(moment)
        assert await billing.invoices(free, drafts=True) == []
        assert await billing.invoices(silent, drafts=True) == []
        async with billing.sessions() as session:
            billed = await session.scalars(select(BilledPeriod.subscription_id))
            assert Counter(billed) == {free.id: 2, silent.id: 2}

    async def test_is_left_alone_where_stripe_bills(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        async with billing.sessions() as session, session.begin():
            await session.execute(update(Subscription).values(billed_by="stripe"))
        for moment in (JAN_1, FEB_1 + HOUR):
            await billing.close(moment)
        assert await billing.invoices(customer, drafts=True) == []


class TestPayingOtherwise:
    async def test_is_in_the_currency_of_the_account(self, billing: Billing):
        euro = [
            replace(price, currency="EUR", params={**price.params, **params})
            for price, params in zip(
                STARTER["prices"], ({"amount": "45.00"}, {"unit_amount": "0.0010"}), strict=True
            )
        ]
        await billing.plan("two", prices=(*STARTER["prices"], *euro))
        customer = await billing.customer("two", currency="EUR")
        await billing.close(JAN_1)
        await billing.use(customer, 51_000, at=JAN_1 + DAY)
        await billing.close(FEB_1 + HOUR)
        found = await billing.invoices(customer)
        assert [(one.currency, one.total_minor) for one in found] == [("EUR", 4_500), ("EUR", 4_600)]

    async def test_takes_the_balance_first(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.give_balance(customer, 6_000, now=JAN_1)
        await billing.close(JAN_1)
        await billing.close(FEB_1 + HOUR)
        found = await billing.invoices(customer)
        assert [(one.status, one.balance_applied_minor, one.amount_due_minor) for one in found] == [
            ("paid", 4_900, 0),
            ("open", 1_100, 3_800),
        ]


class TestVoidInvoice:
    async def test_counts_as_never_made(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.use(customer, 51_000, at=JAN_1 + DAY)
        await billing.close(FEB_1 + HOUR)
        period = (await billing.invoices(customer))[1]
        async with billing.sessions() as session, session.begin():
            await void_invoice(session, invoice_id=period.id, reason="wrong", actor="test", now=FEB_1 + DAY)
        await billing.close(FEB_1 + DAY)
        await billing.close(MAR_1 + HOUR)
        assert as_table(await billing.invoices(customer))[2:] == [
            ("change", [("Starter plan", 4_900)]),
            ("period", [("Requests", 150), ("Requests", 0), ("Starter plan", 4_900)]),
        ]


class TestTimeThatJumps:
    async def test_bills_every_period_on_its_own(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.close(JAN_1 + 155 * DAY)
        found = await billing.invoices(customer)
        assert len(found) == 6
        assert {one.subtotal_minor for one in found} == {4_900}
        assert [one.number for one in found] == [f"INV-{number:06}" for number in range(1, 7)]
