"""What invoices and credit notes say, as a page and as a file."""

# ruff: noqa: RUF001 - dashes, signs and letters are what an invoice shows
import logging
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from control_plane.billing.credit_notes.tables import CreditNote, CreditNoteLine
from control_plane.billing.documents.composing import credit_note_document, invoice_document
from control_plane.billing.documents.html import render_html
from control_plane.billing.documents.model import money, span
from control_plane.billing.documents.pdf import render_pdf
from control_plane.billing.invoices.tables import Invoice
from tests.control_plane.billing.final_invoices import DEC_1, NOV_1, a_line

JAN_1 = datetime(2027, 1, 1, tzinfo=UTC)
SELLER = {
    "name": "Skyline GmbH",
    "address_lines": ["Königstraße 12"],
    "country": "DE",
    "tax_id": "DE1",
    "email": "",
    "payment_note": "IBAN DE00",
}
BUYER = {"legal_name": "Żółw Ελλάδα Привет 株式会社東京", "address_lines": ["<script>alert(1)</script> & Co"]}
TIERS = [
    {
        "first_unit": 1,
        "last_unit": 10_000,
        "quantity": 10_000,
        "unit_amount": "0.01",
        "flat_amount": "0",
        "amount": "100",
    },
    {
        "first_unit": 10_001,
        "last_unit": None,
        "quantity": 2_345,
        "unit_amount": "0.005",
        "flat_amount": "5",
        "amount": "16.725",
    },
]
SHORT = [
    a_line(1, 4_900, subscription_id="sub_1", description="Starter plan", period_start=DEC_1, period_end=JAN_1),
    a_line(
        2, 1_852, subscription_id="sub_1", description="Requests", formula="12,345 requests above 50,000 × $0.0015"
    ),
]
SHORT[1].exact_amount = Decimal("18.5175")


def an_invoice(*, lines=None, **facts):
    """Write nothing: $67.52, less $6.75, with $11.55 of tax."""
    given = {
        "status": "open",
        "number": "INV-000007",
        "subscription_id": "sub_1",
        "subtotal_minor": 6_752,
        "discount_minor": 675,
        "tax_minor": 1_155,
        "total_minor": 7_232,
        "credits_applied_minor": 1_000,
        "balance_applied_minor": 232,
        "amount_due_minor": 6_000,
        "amount_paid_minor": 1_500,
        "credited_minor": 500,
        "discounts": [{"description": "Founding member", "amount_minor": 675}],
        "taxes": [
            {"name": "VAT", "percent": "19", "taxable_minor": 6_077, "amount_minor": 1_155, "note": "Article 1."}
        ],
        "seller": SELLER,
        "buyer": BUYER,
        "note": "Thank you.",
        "finalised_at": DEC_1,
        "due_at": DEC_1 + timedelta(days=14),
        **facts,
    }
    return Invoice(
        id="inv_1",
        account_id="acc_1",
        reason="period",
        currency="USD",
        period_start=NOV_1,
        period_end=DEC_1,
        created_at=DEC_1,
        lines=SHORT if lines is None else lines,
        **given,
    )


def a_note(**facts):
    given = {"to_due_minor": 500, "to_balance_minor": 1_484, "to_outside_minor": 0, **facts}
    return CreditNote(
        number="CN-000004",
        account_id="acc_1",
        reason="correction",
        note="Ours.",
        currency="USD",
        subtotal_minor=1_852,
        discount_minor=185,
        tax_minor=317,
        total_minor=1_984,
        taxes=[{"name": "VAT", "percent": "19", "amount_minor": 317, "note": ""}],
        seller=SELLER,
        buyer=BUYER,
        created_at=DEC_1 + timedelta(days=3),
        lines=[CreditNoteLine(position=1, description="Requests", amount_minor=1_852)],
        **given,
    )


def document(invoice=None, **options):
    given = {"seller": {}, "buyer": {"legal_name": "Ada"}, "now": DEC_1, **options}
    return invoice_document(invoice or an_invoice(), **given)


def summary(made):
    return [(row.label, row.amount) for row in made.summary]


class TestInvoiceDocument:
    def test_adds_up_from_lines_to_what_is_left(self):
        made = document(credit_notes=[a_note()])
        assert [line.amount for line in made.lines] == ["$49.00", "$18.52"]
        assert summary(made) == [
            ("Subtotal", "$67.52"),
            ("Founding member", "−$6.75"),
            ("VAT 19 % on $60.77", "$11.55"),
            ("Total", "$72.32"),
            ("Paid from prepaid credits", "−$10.00"),
            ("Paid from account balance", "−$2.32"),
            ("Paid", "−$15.00"),
            ("Credit note CN-000004", "−$5.00"),
            ("Amount due", "$40.00"),
        ]

    def test_does_not_say_that_an_amount_is_itself(self):
        fee = a_line(1, 4_900, subscription_id="sub_1", formula="$49.00")
        fee.exact_amount = Decimal("49.00")
        half = a_line(2, 2_450, subscription_id="sub_1", formula="$49.00 × 15 of 30 days")
        half.exact_amount = Decimal("24.50")
        lines = document(an_invoice(lines=[fee, half])).lines
        assert not any("$49.00" in text for text in lines[0].explanation)
        assert lines[1].explanation[0] == "$49.00 × 15 of 30 days = $24.50."

    def test_explains_how_a_line_came_about(self):
        tiered = a_line(1, 12_173, subscription_id="sub_1", formula="12,345 tokens", tiers=TIERS)
        tiered.exact_amount = Decimal("121.725")
        lines = document(an_invoice(lines=[tiered, *SHORT])).lines
        assert lines[0].explanation[0].startswith("12,345 tokens")
        assert any("2,345 × $0.005" in text for text in lines[0].explanation)
        # charged in advance: another period than that of the invoice
        assert lines[1].explanation == ("1 Dec 2026 – 31 Dec 2026",)
        assert lines[2].explanation[0] == ("12,345 requests above 50,000 × $0.0015 = $18.5175, rounded to $18.52.")

    def test_says_when_and_how_to_pay_and_what_the_law_wants_said(self):
        assert document().notes == (
            "Please pay by 15 Dec 2026 and quote INV-000007.",
            "IBAN DE00",
            "Article 1.",
            "Thank you.",
        )

    def test_dates_are_by_the_clock_of_the_subscription(self):
        facts = dict(document(time_zone="America/New_York").facts)
        assert (facts["Date"], facts["Period"]) == ("30 Nov 2026", "31 Oct 2026 20:00 – 30 Nov 2026 19:00")
        assert dict(document().facts)["Period"] == "1 Nov 2026 – 30 Nov 2026"

    def test_says_that_it_is_overdue_once_it_is(self):
        assert dict(document(now=DEC_1 + timedelta(days=14)).facts)["Status"] == "Overdue"
        assert dict(document(now=DEC_1 + timedelta(days=13)).facts)["Status"] == "Open"

    def test_a_draft_is_marked_and_takes_its_parties_from_now(self):
        facts = {
            "status": "draft",
            "number": None,
            "seller": None,
            "buyer": None,
            "finalised_at": None,
            "due_at": None,
        }
        made = document(an_invoice(**facts), seller=SELLER)
        assert (made.mark, made.seller.name, made.buyer.name) == ("Draft", "Skyline GmbH", "Ada")
        assert "not to be paid" in made.notes[0]

    def test_a_void_one_is_marked_and_asks_for_nothing(self):
        made = document(an_invoice(status="void", voided_at=DEC_1 + timedelta(days=1)))
        assert made.mark == "Void"
        assert "Amount due" not in [label for label, _ in summary(made)]
        assert "IBAN DE00" not in made.notes

    def test_names_countries(self):
        buyer = {"legal_name": "Ada", "postal_code": "00-001", "city": "Warszawa", "country": "PL"}
        made = document(an_invoice(buyer=buyer))
        assert made.seller.lines == ("Königstraße 12", "Germany", "Tax ID DE1")
        assert made.buyer.lines == ("00-001 Warszawa", "Poland")

    def test_says_where_no_seller_is_set(self):
        assert document(an_invoice(seller={"name": ""})).seller.name == "Seller not set"

    @pytest.mark.parametrize(("amount", "text"), [(4_900, "$49.00"), (-500, "−$5.00"), (0, "$0.00")])
    def test_amounts_have_their_sign_before_them(self, amount, text):
        assert money(amount, "USD") == text

    def test_a_day_is_no_span(self):
        from zoneinfo import ZoneInfo

        assert span(NOV_1, NOV_1 + timedelta(days=1), ZoneInfo("UTC")) == "1 Nov 2026"


class TestCreditNoteDocument:
    def test_says_what_is_taken_back_and_where_it_goes(self):
        made = credit_note_document(a_note(), an_invoice())
        assert made.heading == "Credit note CN-000004"
        assert dict(made.facts)["For invoice"] == "INV-000007"
        assert summary(made) == [
            ("Subtotal", "$18.52"),
            ("Discount given before", "−$1.85"),
            ("VAT 19 %", "$3.17"),
            ("Total credited", "$19.84"),
            ("Taken off what was due", "$5.00"),
            ("Added to account balance", "$14.84"),
        ]


class TestHtml:
    def test_escapes_everything(self):
        evil = '<img src=x onerror="alert(1)">'
        facts = {"note": evil, "number": evil, "discounts": [{"description": evil, "amount_minor": 675}]}
        line = a_line(1, 4_900, description=evil, formula=evil)
        page = render_html(document(an_invoice(lines=[line], seller={**SELLER, "name": evil}, **facts)))
        assert "<img" not in page
        assert "<script" not in page
        assert page.count("&lt;img") >= 6

    def test_loads_nothing(self):
        page = render_html(document())
        assert not re.search(r"<(script|link|img|iframe|object)|url\(|@import|https?://", page)

    def test_breaks_neither_numbers_nor_dates(self):
        page = render_html(document(an_invoice(number="ACME/EU-000011"), time_zone="America/New_York"))
        for text in ("ACME/EU-000011", "14 Dec 2026", "31 Oct 2026 20:00", "30 Nov 2026 19:00"):
            assert f'<span class="whole">{text}</span>' in page
        assert "pre-paid" in render_html(document(an_invoice(note="pre-paid")))

    def test_marks_what_is_not_to_be_paid(self):
        assert 'class="mark"' in render_html(document(an_invoice(status="void", voided_at=DEC_1)))
        assert 'class="mark"' not in render_html(document())

    def test_says_all_that_the_document_says(self):
        made = document(credit_notes=[a_note()])
        page = re.sub(r"</?span[^>]*>", "", render_html(made))
        texts = [
            made.number,
            *(row.amount for row in made.summary),
            *(text for _, text in made.facts),
            *made.notes,
        ]
        texts += [line.description for line in made.lines]
        assert [text for text in texts if text not in page] == []


class TestPdf:
    def test_the_same_document_gives_the_same_bytes_with_polish_greek_russian_and_japanese(self, caplog):
        with caplog.at_level(logging.WARNING):
            first, second = render_pdf(document()), render_pdf(document())
        assert first.startswith(b"%PDF-")
        assert first == second
        assert caplog.records == []

    def test_goes_over_pages_and_says_in_the_log_what_no_font_prints(self, caplog):
        lines = [a_line(number, 100, description="word" * 30, formula="because " * 20) for number in range(1, 15)]
        invoice = an_invoice(lines=lines, note="n" * 1_000, buyer={"legal_name": "한국"})
        with caplog.at_level(logging.WARNING):
            file = render_pdf(document(invoice))
        assert len(re.findall(rb"/Type /Page\b", file)) > 1
        assert any("missing" in record.getMessage() for record in caplog.records)
