"""The sentences of an invoice line."""

# ruff: noqa: RUF001 - signs as an invoice shows them

from decimal import Decimal

import pytest

from control_plane.rating.explain import allowance_notes, explain, kept_tiers
from control_plane.rating.model import Allowance, Share, TierUse, Unit
from control_plane.rating.models import read_price
from control_plane.rating.words import unit_of

REQUESTS = unit_of("requests")
TWO_THIRDS = Share(covered_ms=20, period_ms=30)


def first_sentence(formula: str, exact: str, minor: int, *, currency: str = "USD", **more) -> str:
    return explain(formula=formula, exact_amount=Decimal(exact), amount_minor=minor, currency=currency, **more)[0]


def used_tier(first_unit: int, last_unit: int | None, quantity: int, *amounts: str) -> TierUse:
    unit_amount, flat_amount, amount = map(Decimal, amounts)
    return TierUse(
        first_unit=first_unit,
        last_unit=last_unit,
        quantity=quantity,
        unit_amount=unit_amount,
        flat_amount=flat_amount,
        amount=amount,
    )


class TestSum:
    @pytest.mark.parametrize(
        ("exact", "minor", "currency", "said"),
        [
            ("18.52", 18_52, "USD", "F = $18.52."),
            ("18.5175", 18_52, "USD", "F = $18.5175, rounded to $18.52."),
            ("0.0045", 0, "USD", "F = $0.0045, rounded to $0.00."),
            ("0", 0, "USD", "F: nothing to pay."),
            ("2.25", 2, "JPY", "F = ¥2.25, rounded to ¥2."),
            ("16.333333333333333333333333333333", 16_33, "USD", "F = $16.333333…, rounded to $16.33."),
            ("16.666666666666666666666666666667", 16_67, "USD", "F = $16.666666…, rounded to $16.67."),
            ("0.000000000001", 0, "USD", "F = $0.000000000001, rounded to $0.00."),
        ],
    )
    def test_says_where_it_was_rounded(self, exact, minor, currency, said):
        assert first_sentence("F", exact, minor, currency=currency) == said

    def test_of_a_correction_says_what_is_due_in_all(self):
        said = explain(
            formula="F − $10.00 billed before",
            exact_amount=Decimal("8.5175"),
            amount_minor=8_52,
            currency="USD",
            used_units=-5,
            unit=REQUESTS,
            due_minor=18_52,
        )
        assert said == ("F − $10.00 billed before = $8.52; what is due in all is $18.52.",)

    def test_of_what_is_given_back_has_its_sign_before_the_currency(self):
        assert first_sentence("F", "-10", -10_00) == "F = -$10.00."


class TestQuantityAndTiers:
    def test_says_what_was_counted_and_lists_several_tiers(self):
        tiers = (
            used_tier(1, 10, 10, "0", "0", "0"),
            used_tier(11, 20, 10, "0.001", "2", "2.01"),
            used_tier(21, None, 1, "1", "0", "1"),
        )
        said = explain(
            formula="F",
            exact_amount=Decimal("3.01"),
            amount_minor=3_01,
            currency="USD",
            used_units=21,
            unit=Unit(singular="active user", plural="active users"),
            tiers=tiers,
            notes=("And so on.",),
        )
        assert said[1:] == (
            "21 active users were counted.",
            "Active users 1 to 10: 10 included.",
            "Active users 11 to 20: 10 × $0.001 + $2.00 = $2.01.",
            "Active users from 21: 1 × $1.00 = $1.00.",
            "And so on.",
        )

    def test_one_tier_needs_no_list_and_one_unit_was_counted(self):
        said = explain(
            formula="F",
            exact_amount=Decimal(1),
            amount_minor=1_00,
            currency="USD",
            used_units=1,
            unit=REQUESTS,
            tiers=(used_tier(1, None, 1, "1", "0", "1"),),
        )
        assert said == ("F = $1.00.", "1 request was counted.")

    def test_tiers_are_read_back_as_an_invoice_keeps_them(self):
        numbers = {"first_unit": 1, "last_unit": None, "quantity": 5}
        kept = {**numbers, "unit_amount": "0.01", "flat_amount": "2"}
        (tier,) = kept_tiers([kept])
        assert (tier.quantity, tier.unit_amount, tier.amount) == (5, Decimal("0.01"), Decimal("2.05"))


class TestAllowanceNotes:
    @pytest.mark.parametrize(
        ("model", "params", "allowance", "notes"),
        [
            ("per_unit", {"unit_amount": "1"}, Allowance(units_before=5), ()),
            (
                "overage",
                {"included": 100, "unit_amount": "1"},
                Allowance(own_units=200, share=TWO_THIRDS, extra_units=1, units_before=30),
                (
                    "200 requests included by agreement, in place of 100.",
                    "Included for 0.02 s of 0.03 s: 134 of 200 requests.",
                    "1 request more included by add-ons.",
                    "30 requests used earlier in the period count against what is included.",
                ),
            ),
            (
                "overage",
                {"included": 100, "unit_amount": "1"},
                Allowance(quantity=3),
                ("3 × 100 requests included.",),
            ),
            (
                "graduated",
                {"tiers": [{"up_to": 10, "unit_amount": "1"}, {"up_to": None, "unit_amount": "2"}]},
                Allowance(share=TWO_THIRDS, units_before=1),
                (
                    "Tiers for 0.02 s of 0.03 s end at 7 requests, in place of 10.",
                    "1 request used earlier in the period count towards the tiers.",
                ),
            ),
            ("volume", {"tiers": [{"up_to": None, "unit_amount": "2"}]}, Allowance(share=TWO_THIRDS), ()),
            (
                "package",
                {"size": 1_000, "amount": "1"},
                Allowance(units_before=700),
                ("300 requests of a package begun earlier in the period came first.",),
            ),
            ("package", {"size": 1_000, "amount": "1"}, Allowance(units_before=2_000), ()),
        ],
    )
    def test_say_what_differs_from_the_price_as_sold(self, model, params, allowance, notes):
        assert allowance_notes(read_price(model, params, "USD"), allowance, REQUESTS) == notes
