"""Invoices of whole subscriptions, from the first charge to the last correction."""

from datetime import timedelta

from tests.control_plane.billing.invoices.billing_kit import (
    DAY,
    FEB_1,
    GROWTH,
    HOUR,
    JAN_1,
    MAR_1,
    Billing,
    as_table,
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
