"""From a usage line down to its hours."""

import pytest

from control_plane.billing.invoices.line_usage import LineWithoutUsageError, line_usage
from control_plane.foundation.errors import NotFoundError
from tests.control_plane.billing.invoices.billing_kit import DAY, FEB_1, HOUR, JAN_1, MAR_1, Billing


async def hours_of(billing: Billing, invoice, position: int):
    """All pages, two hours a page."""
    hours, cursor = [], None
    async with billing.sessions() as session:
        while True:
            found = await line_usage(session, invoice_id=invoice.id, position=position, cursor=cursor, limit=2)
            hours += [(hour.hour, hour.units) for hour in found.hours.items]
            cursor = found.hours.next_cursor
            if cursor is None:
                return found, hours


class TestLineUsage:
    async def test_names_every_hour_and_of_a_correction_only_what_came_since(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        for day in (1, 2, 3):
            await billing.use(customer, 20_000, at=JAN_1 + day * DAY)
        await billing.close(FEB_1 + HOUR)
        await billing.use(customer, 1_204, at=JAN_1 + 2 * DAY, known_at=FEB_1 + 3 * DAY)
        await billing.close(FEB_1 + 3 * DAY)
        await billing.close(MAR_1 + HOUR)
        _, period, later = await billing.invoices(customer)
        found, hours = await hours_of(billing, period, 1)
        assert hours == [(JAN_1 + day * DAY, 20_000) for day in (1, 2, 3)]
        assert (found.used_units, found.other_units, found.since, found.meter) == (60_000, 0, None, "requests")
        found, hours = await hours_of(billing, later, 1)
        assert hours == [(JAN_1 + 2 * DAY, 1_204)]
        assert (found.used_units, found.other_units, found.since) == (1_204, 0, FEB_1 + HOUR)

    async def test_says_what_has_no_hours(self, billing: Billing):
        await billing.plan()
        customer = await billing.customer()
        await billing.close(JAN_1)
        (invoice,) = await billing.invoices(customer)
        async with billing.sessions() as session:
            with pytest.raises(LineWithoutUsageError, match="Line 1 of invoice"):
                await line_usage(session, invoice_id=invoice.id, position=1)
            with pytest.raises(NotFoundError):
                await line_usage(session, invoice_id=invoice.id, position=2)
            with pytest.raises(NotFoundError):
                await line_usage(session, invoice_id="inv_none", position=1)
