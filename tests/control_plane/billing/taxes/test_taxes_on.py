"""What taxes come to, and who pays which."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.billing.line_scopes import LineScope
from control_plane.billing.profiles.model import BillingProfile, TaxTreatment
from control_plane.billing.taxes.model import REVERSE_CHARGE_NOTE, TaxTerm, by_kind, taxes_on
from control_plane.billing.taxes.rules import EU, terms_for

VAT = TaxTerm(name="VAT", percent=Decimal(19), rate_id="txr_de")
GST = TaxTerm(name="GST", percent=Decimal(5))
QST = TaxTerm(name="QST", percent=Decimal("9.975"))


def amounts(taxable, *terms, currency="USD"):
    return [(tax.taxable_minor, tax.amount_minor) for tax in taxes_on(taxable, terms, currency=currency)]


class TestTaxesOn:
    def test_is_reckoned_on_the_sum_and_rounded_once(self):
        # 19 % of 0.10 is 0.019; three times that is 0.06 rounded line by line, 0.057 on the sum
        assert amounts({"recurring": 10, "usage": 20}, VAT) == [(30, 6)]
        assert amounts({"usage": 13}, VAT) == [(13, 2)]

    def test_each_is_reckoned_on_the_lines_and_not_on_another(self):
        assert amounts({"recurring": 10_000}, GST, QST) == [(10_000, 500), (10_000, 998)]

    def test_a_tax_of_usage_leaves_what_is_fixed_alone(self):
        taxable = {"recurring": 1_000, "usage": 2_000, "commitment": 4_000, "manual": 8_000}
        usage = TaxTerm(name="T", percent=Decimal(10), scope=LineScope.USAGE)
        fixed = TaxTerm(name="T", percent=Decimal(10), scope=LineScope.FIXED)
        assert amounts(taxable, usage, fixed, VAT) == [(6_000, 600), (1_000, 100), (15_000, 2_850)]

    def test_prepaid_credits_are_not_taxed_when_they_are_bought(self):
        """They pay invoices with their tax: it would be paid twice."""
        assert amounts({"credit_purchase": 10_000, "usage": 100}, VAT) == [(100, 19)]

    def test_what_is_credited_is_credited_with_its_tax(self):
        assert amounts({"recurring": -1_000}, VAT) == [(-1_000, -190)]

    @pytest.mark.parametrize(("currency", "expected"), [("JPY", 19), ("KWD", 19), ("USD", 19)])
    def test_is_rounded_to_the_currencys_minor_unit(self, currency, expected):
        assert amounts({"usage": 100}, VAT, currency=currency) == [(100, expected)]

    @given(
        lines=st.lists(st.tuples(st.sampled_from(["recurring", "usage", "manual"]), st.integers(-(10**9), 10**9))),
        percent=st.decimals(min_value="0.0001", max_value=100, places=4, allow_nan=False),
    )
    @settings(max_examples=40)
    def test_is_within_half_a_minor_unit_of_the_exact_tax_of_the_sum(self, lines, percent):
        (tax,) = taxes_on(by_kind(lines), [TaxTerm(name="T", percent=percent)], currency="USD")
        exact = sum(amount for _, amount in lines) * percent / 100
        assert tax.taxable_minor == sum(amount for _, amount in lines)
        assert abs(tax.amount_minor - exact) <= Decimal("0.5")

    def test_what_is_written_down_does_not_depend_on_the_rate_any_more(self):
        (tax,) = taxes_on({"usage": 100}, [VAT], currency="EUR")
        assert tax.as_dict() == {
            "name": "VAT",
            "percent": "19",
            "taxable_minor": 100,
            "amount_minor": 19,
            "note": "",
            "rate_id": "txr_de",
        }


def a_buyer(country="DE", **facts):
    return BillingProfile(legal_name="Ada Ltd", country=country, **facts)


RATES = {
    ("DE", ""): (VAT,),
    ("CA", ""): (GST,),
    ("CA", "qc"): (GST, QST),
    ("", ""): (TaxTerm(name="D", percent=Decimal(1)),),
}


def names(buyer, seller_country="DE", rates=RATES):
    return [term.name for term in terms_for(buyer, rates, seller_country=seller_country)]


class TestWhoPaysWhat:
    @pytest.mark.parametrize(
        ("buyer", "expected"),
        [
            (a_buyer("DE"), ["VAT"]),
            (a_buyer("CA"), ["GST"]),
            (a_buyer("CA", region="ON"), ["GST"]),
            (a_buyer("CA", region=" QC "), ["GST", "QST"]),
            (a_buyer("FR"), []),
            (a_buyer("US", region="CA"), []),
            (a_buyer(""), ["D"]),
            (a_buyer("", region="QC"), ["D"]),
            (None, ["D"]),
        ],
    )
    def test_by_country_then_by_region_in_its_place(self, buyer, expected):
        assert names(buyer) == expected

    def test_without_a_rate_for_unknown_countries_there_is_no_tax(self):
        assert names(None, rates={("DE", ""): (VAT,)}) == []

    def test_who_is_exempt_pays_none_and_the_invoice_says_so(self):
        (term,) = terms_for(a_buyer(tax_treatment=TaxTreatment.EXEMPT), RATES, seller_country="DE")
        assert (term.percent, bool(term.note)) == (0, True)

    @pytest.mark.parametrize(
        ("country", "seller", "tax_id", "reverse"),
        [
            ("FR", "DE", "FR123", True),
            ("FR", "DE", "", False),
            ("FR", "DE", "  ", False),
            ("DE", "DE", "DE123", False),
            ("CA", "DE", "123", False),
            ("FR", "CH", "FR123", False),
            ("FR", "", "FR123", False),
        ],
    )
    def test_businesses_elsewhere_in_the_eu_account_for_the_tax_themselves(self, country, seller, tax_id, reverse):
        terms = terms_for(a_buyer(country, tax_id=tax_id), RATES, seller_country=seller)
        assert any(term.note == REVERSE_CHARGE_NOTE and term.percent == 0 for term in terms) is reverse

    def test_who_is_said_to_account_for_it_does_so_anywhere(self):
        buyer = a_buyer("CH", tax_id="CHE-1", tax_treatment=TaxTreatment.REVERSE_CHARGE)
        assert names(buyer) == ["Reverse charge"]

    def test_the_union_has_27_members(self):
        assert len(EU) == 27
