"""Tax rates: added, ended, never changed; and which ones accounts pay at a moment."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from control_plane.billing.profiles.model import BillingProfile
from control_plane.billing.profiles.operations import set_billing_profile
from control_plane.billing.taxes.applying import tax_terms
from control_plane.billing.taxes.operations import (
    TaxRateEndedError,
    TaxRateFacts,
    TaxRateOverlapsError,
    create_tax_rate,
    end_tax_rate,
)
from control_plane.billing.taxes.queries import tax_rate_page
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from tests.control_plane.billing.invoices.billing_kit import FEB_1, HOUR, JAN_1, Billing
from tests.control_plane.builders import ACTOR, an_account, audit_of

DAY = timedelta(days=1)


async def a_rate(session, *, now, percent="19", country="DE", **facts):
    rate = TaxRateFacts(
        **{"name": "VAT", "percent": Decimal(percent), "country": country, "valid_from": now, **facts}
    )
    return await create_tax_rate(session, rate=rate, actor=ACTOR, now=now)


async def a_buyer(session, *, now, country="DE", **facts):
    account = await an_account(session, now=now)
    profile = BillingProfile(legal_name="Ada Ltd", country=country, **facts)
    await set_billing_profile(session, account_id=account.id, profile=profile, actor=ACTOR, now=now)
    return account


class TestRates:
    async def test_names_the_field_that_is_wrong(self, session, now):
        for facts, field in (
            ({"percent": "0"}, "percent"),
            ({"percent": "100.1"}, "percent"),
            ({"percent": "1.00001"}, "percent"),
            ({"country": "ZZ"}, "country"),
            ({"country": "", "region": "QC"}, "region"),
            ({"region": "Q" * 101}, "region"),
            ({"name": ""}, "name"),
        ):
            with pytest.raises(ValidationFailedError) as refused:
                await a_rate(session, now=now, **facts)
            assert refused.value.field == field

    async def test_ends_before_the_next_one_begins(self, session, now):
        first = await a_rate(session, now=now, percent="19")
        with pytest.raises(TaxRateOverlapsError):
            await a_rate(session, now=now, percent="21", valid_from=now + DAY)
        await end_tax_rate(session, rate_id=first.id, at=now + DAY, actor=ACTOR, now=now)
        await a_rate(session, now=now, percent="21", valid_from=now + DAY)
        await a_rate(session, now=now, name="City tax")
        await a_rate(session, now=now, region="Helgoland")
        with pytest.raises(TaxRateOverlapsError):
            await a_rate(session, now=now, region="helgoland")
        assert [row.action for row in await audit_of(session, first.id)] == ["tax_rate.created", "tax_rate.ended"]

    async def test_two_at_once_do_not_overlap(self, sessions, now):
        async def attempt(percent):
            async with sessions() as session, session.begin():
                try:
                    await a_rate(session, now=now, percent=percent)
                except TaxRateOverlapsError:
                    return "overlaps"
            return "added"

        assert sorted(await asyncio.gather(attempt("19"), attempt("21"))) == ["added", "overlaps"]

    async def test_has_an_end_that_is_not_past_and_stays_ended(self, session, now):
        rate = await a_rate(session, now=now)
        with pytest.raises(ValidationFailedError):
            await end_tax_rate(session, rate_id=rate.id, at=now - DAY, actor=ACTOR, now=now)
        await end_tax_rate(session, rate_id=rate.id, at=now + 2 * DAY, actor=ACTOR, now=now)
        await end_tax_rate(session, rate_id=rate.id, at=now + DAY, actor=ACTOR, now=now)
        with pytest.raises(ValidationFailedError):
            await end_tax_rate(session, rate_id=rate.id, at=now + 3 * DAY, actor=ACTOR, now=now)
        with pytest.raises(TaxRateEndedError):
            await end_tax_rate(session, rate_id=rate.id, at=now + 5 * DAY, actor=ACTOR, now=now + DAY)
        with pytest.raises(NotFoundError):
            await end_tax_rate(session, rate_id="txr_0", at=now, actor=ACTOR, now=now)

    async def test_are_listed_by_place(self, session, now):
        await a_rate(session, now=now, country="FR")
        await a_rate(session, now=now, country="DE", valid_until=now + DAY)
        await a_rate(session, now=now, country="")
        page = await tax_rate_page(session, limit=2)
        rest = await tax_rate_page(session, limit=2, cursor=page.next_cursor)
        assert [one.country for one in (*page.items, *rest.items)] == ["", "DE", "FR"]
        valid = await tax_rate_page(session, limit=5, valid_at=now + DAY)
        assert [one.country for one in valid.items] == ["", "FR"]
        assert [one.country for one in (await tax_rate_page(session, limit=5, country="FR")).items] == ["FR"]


class TestTerms:
    async def test_are_those_valid_at_the_moment(self, session, now):
        await a_rate(session, now=now, percent="19", valid_until=now + DAY)
        await a_rate(session, now=now, percent="21", valid_from=now + DAY)
        buyer = await a_buyer(session, now=now)
        found = [
            {term.percent for term in (await tax_terms(session, [buyer.id], at=at)).get(buyer.id, ())}
            for at in (now - HOUR, now, now + DAY - HOUR, now + DAY)
        ]
        assert found == [set(), {19}, {19}, {21}]

    async def test_of_many_accounts_are_read_at_once(self, session, now):
        await a_rate(session, now=now)
        await a_rate(session, now=now, country="", name="Default", percent="7")
        german = await a_buyer(session, now=now)
        french = await a_buyer(session, now=now, country="FR", tax_id="FR1")
        swiss = await a_buyer(session, now=now, country="CH")
        unknown = await an_account(session, now=now)
        terms = await tax_terms(
            session, [one.id for one in (german, french, swiss, unknown)], at=now, seller_country="DE"
        )
        assert {key: [term.name for term in value] for key, value in terms.items()} == {
            german.id: ["VAT"],
            french.id: ["Reverse charge"],
            unknown.id: ["Default"],
        }
        assert await tax_terms(session, [], at=now) == {}


class TestTaxOnInvoices:
    async def test_is_added_to_what_discounts_leave_and_never_changes_again(self, sessions):
        billing = Billing(sessions)
        await billing.plan()
        async with sessions() as session, session.begin():
            rate = await a_rate(session, now=JAN_1)
            rate_id = rate.id
        customer = await billing.customer()
        async with sessions() as session, session.begin():
            profile = BillingProfile(legal_name="Ada Ltd", country="DE")
            await set_billing_profile(
                session, account_id=customer.account_id, profile=profile, actor=ACTOR, now=JAN_1
            )
        await billing.close(JAN_1 + HOUR)
        async with sessions() as session, session.begin():
            await end_tax_rate(session, rate_id=rate_id, at=FEB_1, actor=ACTOR, now=JAN_1 + DAY)
            await a_rate(session, now=JAN_1 + DAY, percent="7", valid_from=FEB_1)
        await billing.close(FEB_1 + 2 * HOUR)
        start, second = await billing.invoices(customer)
        assert (start.subtotal_minor, start.tax_minor, start.total_minor) == (4_900, 931, 5_831)
        assert start.taxes == [
            {
                "name": "VAT",
                "percent": "19",
                "taxable_minor": 4_900,
                "amount_minor": 931,
                "note": "",
                "rate_id": rate_id,
            }
        ]
        assert (second.tax_minor, second.taxes[0]["percent"]) == (343, "7")
