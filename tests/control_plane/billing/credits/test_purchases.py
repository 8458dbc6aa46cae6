"""Credits that are bought: granted when the invoice is paid, never before, never twice."""

from datetime import UTC, date, datetime, timedelta

import pytest

from control_plane.billing.credits.queries import credit_sums, grant_page
from control_plane.billing.invoices.finalising import InvoiceTerms
from control_plane.billing.payments.operations import pay_invoice
from control_plane.billing.prepaid.purchases import NewPurchase, grant_paid_credits, sell_credits
from control_plane.billing.profiles.model import Seller
from control_plane.foundation.errors import ValidationFailedError
from tests.control_plane.billing.credits.helpers import a_grant
from tests.control_plane.builders import ACTOR, an_account

NOV_1 = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TERMS = InvoiceTerms(seller=Seller(name="Weather Ltd", country="DE"))


async def sold(session, account, amount_minor=5000, **options):
    wanted = NewPurchase(amount_minor=amount_minor, **options)
    return await sell_credits(session, account_id=account.id, purchase=wanted, terms=TERMS, actor=ACTOR, now=NOV_1)


async def paid(session, invoice, amount_minor=None, *, reference="wire 1", now=NOV_1 + DAY):
    return await pay_invoice(
        session,
        invoice_id=invoice.id,
        amount_minor=amount_minor,
        paid_on=date(2026, 11, 2),
        reference=reference,
        actor=ACTOR,
        now=now,
    )


@pytest.fixture
async def account(session):
    return await an_account(session, now=NOV_1)


class TestBoughtCredits:
    async def test_are_granted_when_the_last_part_is_paid(self, session, account):
        invoice = await sold(session, account, expires_at=NOV_1 + 365 * DAY)
        assert (invoice.status, invoice.amount_due_minor, invoice.reason) == ("open", 5000, "manual")
        await paid(session, invoice, 2000)
        assert await credit_sums(session, account.id, now=NOV_1 + DAY) == []
        await paid(session, invoice, reference="wire 2")
        (grant,) = (await grant_page(session, account.id, limit=5)).items
        assert (grant.kind, grant.amount_minor, grant.expires_at) == ("paid", 5000, NOV_1 + 365 * DAY)
        assert grant.reason == f"Invoice {invoice.number}: Prepaid credits"

    async def test_are_granted_once(self, session, account):
        invoice = await sold(session, account)
        await paid(session, invoice)
        await grant_paid_credits(session, invoice=invoice, now=NOV_1 + 2 * DAY)
        (sums,) = await credit_sums(session, account.id, now=NOV_1 + 2 * DAY)
        assert sums.available_minor == 5000

    async def test_are_not_paid_for_with_credits(self, session, account):
        await a_grant(session, account.id, 9000, now=NOV_1)
        invoice = await sold(session, account)
        assert (invoice.credits_applied_minor, invoice.amount_due_minor) == (0, 5000)

    async def test_never_expire_where_they_were_paid_for_after_that(self, session, account):
        invoice = await sold(session, account, expires_at=NOV_1 + DAY)
        await paid(session, invoice, now=NOV_1 + 3 * DAY)
        (grant,) = (await grant_page(session, account.id, limit=5)).items
        assert (grant.amount_minor, grant.expires_at) == (5000, None)

    async def test_at_no_price_are_refused(self, session, account):
        with pytest.raises(ValidationFailedError):
            await sold(session, account, 0)
