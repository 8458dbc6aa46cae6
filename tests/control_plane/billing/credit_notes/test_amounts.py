"""What a credit note comes to: never more than the invoice, and its discount and tax to the cent in any parts."""

from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.billing.credit_notes.model import (
    Billed,
    BilledLine,
    Credited,
    CreditedLine,
    CreditExceedsInvoiceError,
    NothingToCreditError,
    of_amount,
    of_everything,
    of_lines,
)
from control_plane.foundation.errors import ValidationFailedError


def vat(amount_minor: int, percent: str = "19") -> dict[str, Any]:
    return {"name": "VAT", "percent": percent, "taxable_minor": 0, "amount_minor": amount_minor}


def billed(*amounts: int, discounts: tuple[int, ...] = (), taxes: tuple[dict[str, Any], ...] = ()) -> Billed:
    """An invoice with lines of these amounts, and what discounts took off each."""
    lines = tuple(
        BilledLine(position=number, description=f"Line {number}", amount_minor=amount, discount_minor=discount)
        for number, (amount, discount) in enumerate(zip_longest(amounts, discounts, fillvalue=0), start=1)
    )
    subtotal, discount_minor = sum(amounts), sum(discounts)
    return Billed(
        number="INV-000001",
        currency="USD",
        lines=lines,
        subtotal_minor=subtotal,
        discount_minor=discount_minor,
        taxes=taxes,
        total_minor=subtotal - discount_minor + sum(tax["amount_minor"] for tax in taxes),
    )


def after(invoice: Billed, note) -> Billed:
    """The invoice with one more note."""
    before = invoice.credited
    taken = {line.position: line.amount_minor for line in note.lines if line.position is not None}
    lines = tuple(
        BilledLine(
            position=line.position,
            description=line.description,
            amount_minor=line.amount_minor,
            discount_minor=line.discount_minor,
            credited_minor=line.credited_minor + taken.get(line.position, 0),
        )
        for line in invoice.lines
    )
    taxes = before.taxes_minor or (0,) * len(invoice.taxes)
    credited = Credited(
        of_lines_minor=before.of_lines_minor + sum(taken.values()),
        taxes_minor=tuple(old + new["amount_minor"] for old, new in zip(taxes, note.taxes, strict=True)),
        net_minor=before.net_minor + note.subtotal_minor - note.discount_minor,
        total_minor=before.total_minor + note.total_minor,
    )
    return Billed(
        number=invoice.number,
        currency=invoice.currency,
        lines=lines,
        subtotal_minor=invoice.subtotal_minor,
        discount_minor=invoice.discount_minor,
        taxes=invoice.taxes,
        total_minor=invoice.total_minor,
        credited=credited,
    )


# $100.00 and $50.00, 10 % off ($15.00), VAT 19 % of $135.00: $25.65, in all $160.65
INVOICE = billed(10_000, 5_000, discounts=(1_000, 500), taxes=(vat(2_565),))


class TestWholeInvoice:
    def test_takes_back_all_of_it(self):
        note = of_everything(INVOICE)
        assert (note.subtotal_minor, note.discount_minor, note.tax_minor, note.total_minor) == (
            15_000,
            1_500,
            2_565,
            16_065,
        )

    def test_takes_back_lines_that_gave_something_back_too(self):
        note = of_everything(billed(10_000, -4_000))
        assert [line.amount_minor for line in note.lines] == [10_000, -4_000]
        assert note.total_minor == 6_000


class TestLines:
    def test_a_line_comes_back_with_its_share_of_discount_and_tax(self):
        # a third of the lines: $50.00 - $5.00 = $45.00, VAT $8.55
        note = of_lines(INVOICE, [CreditedLine(position=2)])
        assert (note.subtotal_minor, note.discount_minor, note.tax_minor, note.total_minor) == (
            5_000,
            500,
            855,
            5_355,
        )

    def test_a_line_takes_back_no_discount_of_others(self):
        # half off the first line only
        invoice = billed(4_900, 1_852, discounts=(2_450, 0))
        assert of_lines(invoice, [CreditedLine(position=2)]).total_minor == 1_852
        assert of_lines(invoice, [CreditedLine(position=1)]).total_minor == 2_450
        first = of_lines(invoice, [CreditedLine(position=1, amount_minor=333)])
        assert (first.discount_minor, first.total_minor) == (167, 166)
        assert of_everything(after(invoice, first)).total_minor == invoice.total_minor - 166

    def test_tax_is_rounded_once_for_all_notes_together(self):
        # VAT 19 % of $0.10 is $0.019, billed as $0.02; each cent of the line has a fifth of a cent of it
        invoice = billed(10, taxes=(vat(2),))
        taken = []
        for _ in range(10):
            note = of_lines(invoice, [CreditedLine(position=1, amount_minor=1)])
            taken.append(note.tax_minor)
            invoice = after(invoice, note)
        # half up: 0.2 0.4 0.6 0.8 1.0 | 1.2 1.4 1.6 1.8 2.0
        assert taken == [0, 0, 1, 0, 0, 0, 0, 1, 0, 0]
        assert invoice.left_minor == 0

    @pytest.mark.parametrize(
        ("wanted", "field"),
        [
            ([CreditedLine(position=3)], "lines[0].position"),
            ([CreditedLine(position=1), CreditedLine(position=1)], "lines[1].position"),
            ([CreditedLine(position=1, amount_minor=10_001)], "lines[0].amount_minor"),
            ([CreditedLine(position=1, amount_minor=0)], "lines[0].amount_minor"),
        ],
    )
    def test_refuses_what_the_invoice_did_not_charge(self, wanted, field):
        with pytest.raises(ValidationFailedError) as refused:
            of_lines(INVOICE, wanted)
        assert refused.value.field == field

    def test_refuses_a_line_that_was_taken_back(self):
        invoice = after(INVOICE, of_lines(INVOICE, [CreditedLine(position=2)]))
        with pytest.raises(ValidationFailedError, match=r"at most 0.00 USD"):
            of_lines(invoice, [CreditedLine(position=2)])

    def test_refuses_more_than_the_invoice_came_to(self):
        # the line charged $100.00, but the invoice gave $40.00 back by another
        with pytest.raises(CreditExceedsInvoiceError, match=r"At most 60.00 USD"):
            of_lines(billed(10_000, -4_000), [CreditedLine(position=1)])


class TestAmount:
    def test_is_taken_with_the_tax_in_it(self):
        note = of_amount(INVOICE, 1_190, description="Goodwill")
        assert (note.subtotal_minor, note.discount_minor, note.tax_minor, note.total_minor) == (
            1_000,
            0,
            190,
            1_190,
        )

    def test_refuses_a_cent_too_much(self):
        invoice = after(INVOICE, of_amount(INVOICE, 1_000, description="Goodwill"))
        assert of_amount(invoice, 15_065, description="Rest").total_minor == 15_065
        with pytest.raises(CreditExceedsInvoiceError, match=r"At most 150.65 USD"):
            of_amount(invoice, 15_066, description="Rest")

    def test_refuses_lines_that_amounts_have_taken_back(self):
        invoice = after(INVOICE, of_amount(INVOICE, 16_000, description="Goodwill"))
        with pytest.raises(CreditExceedsInvoiceError):
            of_lines(invoice, [CreditedLine(position=1)])

    def test_refuses_nothing(self):
        with pytest.raises(NothingToCreditError):
            of_lines(billed(1_000, discounts=(1_000,)), [CreditedLine(position=1)])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("amount"), st.integers(1, 20_000)),
        st.tuples(st.integers(1, 3), st.one_of(st.none(), st.integers(1, 9_000))),
        st.just(("all", None)),
    ),
    max_size=8,
)


class TestAnyNotes:
    @given(
        st.lists(st.integers(-3_000, 9_000), min_size=1, max_size=3),
        st.integers(0, 100),
        st.lists(st.integers(0, 2_500), max_size=2),
        STEPS,
    )
    def test_never_take_back_more_than_the_invoice_nor_tax_than_it_had(self, amounts, discount, taxes, steps):
        subtotal = sum(amounts)
        if subtotal <= 0:
            return
        invoice = billed(
            *amounts,
            discounts=tuple(amount * discount // 100 for amount in amounts),
            taxes=tuple(vat(tax) for tax in taxes),
        )
        for what, amount in steps:
            try:
                if what == "amount":
                    note = of_amount(invoice, amount, description="Goodwill")
                elif what == "all":
                    note = of_everything(invoice)
                else:
                    note = of_lines(invoice, [CreditedLine(position=what, amount_minor=amount)])
            except (ValidationFailedError, CreditExceedsInvoiceError, NothingToCreditError):
                continue
            assert note.total_minor > 0
            assert note.tax_minor >= 0
            assert note.total_minor == note.subtotal_minor - note.discount_minor + note.tax_minor
            invoice = after(invoice, note)
            assert invoice.left_minor >= 0
            taken = invoice.credited.taxes_minor
            assert all(part <= tax for part, tax in zip(taken, taxes, strict=True))
        if invoice.left_minor == 0:
            assert sum(invoice.credited.taxes_minor) == sum(taxes)
