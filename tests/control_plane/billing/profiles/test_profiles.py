"""Who an invoice is addressed to."""

import asyncio

import pytest

from control_plane.billing.profiles.model import BillingProfile, Seller, TaxTreatment, check_profile
from control_plane.billing.profiles.operations import set_billing_profile
from control_plane.billing.profiles.queries import buyers, profile_or_default, profiles
from control_plane.foundation.errors import NotFoundError, ValidationFailedError
from tests.control_plane.builders import ACTOR, an_account, audit_of

ACME = BillingProfile(
    legal_name="Żółw i Spółka sp. z o.o.",
    address_lines=("ul. Świętokrzyska 1",),
    postal_code="00-001",
    city="Warszawa",
    country="PL",
    tax_id="PL1234567890",
    invoice_email="faktury@example.com",
)


async def give(session, account, profile, now):
    return await set_billing_profile(session, account_id=account.id, profile=profile, actor=ACTOR, now=now)


class TestBillingProfile:
    async def test_is_kept_whole_and_replaced_whole(self, session, now):
        account = await an_account(session, now=now)
        await give(session, account, ACME, now)
        shorter = BillingProfile(legal_name="Acme", tax_treatment=TaxTreatment.EXEMPT)
        await give(session, account, shorter, now)
        assert await profiles(session, [account.id]) == {account.id: shorter}
        rows = [row for row in await audit_of(session, account.id) if row.action == "billing_profile.set"]
        assert [row.before and row.before["legal_name"] for row in rows] == [None, ACME.legal_name]

    async def test_giving_the_same_again_writes_nothing(self, session, now):
        account = await an_account(session, now=now)
        await give(session, account, ACME, now)
        before = len(await audit_of(session, account.id))
        await give(session, account, ACME, now)
        assert len(await audit_of(session, account.id)) == before

    async def test_two_who_give_the_first_at_once_take_turns(self, sessions, now):
        async with sessions() as session, session.begin():
            account = await an_account(session, now=now)

        async def one(name):
            async with sessions() as session, session.begin():
                await give(session, account, BillingProfile(legal_name=name), now)

        await asyncio.gather(one("One"), one("Two"))
        async with sessions() as session:
            assert (await profiles(session, [account.id]))[account.id].legal_name in {"One", "Two"}

    async def test_refuses_an_account_that_is_not_there(self, session, now):
        with pytest.raises(NotFoundError):
            await set_billing_profile(session, account_id="acc_x", profile=ACME, actor=ACTOR, now=now)

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"legal_name": " "}, "legal_name"),
            ({"legal_name": "x" * 201}, "legal_name"),
            ({"country": "pl"}, "country"),
            ({"country": "XX"}, "country"),
            ({"invoice_email": "nobody"}, "invoice_email"),
            ({"address_lines": ("a",) * 5}, "address_lines"),
            ({"address_lines": ("a\nb",)}, "address_lines[0]"),
            ({"tax_treatment": TaxTreatment.REVERSE_CHARGE}, "tax_id"),
        ],
    )
    def test_refuses_what_an_invoice_cannot_say(self, wrong, field):
        with pytest.raises(ValidationFailedError) as refused:
            check_profile(BillingProfile(**{"legal_name": "Acme", **wrong}))
        assert [problem.field for problem in refused.value.problems] == [field]

    def test_exempt_and_reverse_charge_pay_no_tax(self):
        exempt = {
            treatment: BillingProfile(legal_name="A", tax_treatment=treatment).exempt for treatment in TaxTreatment
        }
        assert exempt == {
            TaxTreatment.STANDARD: False,
            TaxTreatment.EXEMPT: True,
            TaxTreatment.REVERSE_CHARGE: True,
        }


class TestBuyers:
    async def test_takes_the_accounts_name_where_no_profile_was_given(self, session, now):
        named, plain = await an_account(session, now=now), await an_account(session, name="Bob", now=now)
        await give(session, named, ACME, now)
        found = await buyers(session, [named.id, plain.id, "acc_gone"])
        assert found.keys() == {named.id, plain.id}
        assert found[named.id] == {**ACME.as_dict(), "account_id": named.id}
        assert found[plain.id]["legal_name"] == "Bob"
        assert await profile_or_default(session, "acc_gone") is None

    async def test_asks_nothing_for_no_accounts(self, session):
        assert await profiles(session, []) == {}
        assert await buyers(session, []) == {}


class TestSeller:
    def test_is_written_down_as_it_is(self):
        seller = Seller(name="Skyline", address_lines=("1 Street", "Town"), tax_id="DE1")
        assert seller.as_dict() == {
            "name": "Skyline",
            "address_lines": ["1 Street", "Town"],
            "country": "",
            "tax_id": "DE1",
            "email": "",
            "payment_note": "",
        }
