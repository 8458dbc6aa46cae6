"""What mails say and how they look; addresses, pauses, ids."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from control_plane.foundation.errors import ValidationFailedError
from control_plane.notifications.model import (
    Branding,
    MailKind,
    SmtpConfig,
    message_id,
    parse_address,
    pause_after,
)
from control_plane.notifications.rendering import MailNotRenderedError, render_mail
from control_plane.notifications.samples import SAMPLES
from control_plane.notifications.smtp import MailRefusedError, compose

BRAND = Branding(name="Weather <Cloud>", support_email="help@weather.example.com")
NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
EVIL = '"><script>alert(1)</script>\r\nBcc: all@example.com'


class Addresses(HTMLParser):
    """What a page loads, and where it leads."""

    def __init__(self, page):
        super().__init__()
        self.loaded, self.links, self.tags = [], [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name in {"src", "background", "srcset"} or (tag == "link" and name == "href"):
                self.loaded.append(value)
            elif name == "href":
                self.links.append(value)


def rendered(kind, *, branding=BRAND, time_zone="Europe/Berlin", account="Acme", **changed):
    return render_mail(kind, {**SAMPLES[kind], **changed}, branding=branding, account=account, time_zone=time_zone)


@pytest.mark.parametrize("kind", MailKind)
class TestEveryKind:
    def test_has_a_subject_text_and_a_page_of_the_same_words(self, kind):
        mail = rendered(kind)
        assert 5 < len(mail.subject) < 80
        heading = mail.text.splitlines()[0]
        assert heading in re.sub(r"&#39;", "'", mail.html)
        for form in (mail.text, mail.html):
            assert "help@weather.example.com" in form
            assert not re.search(r"{{|{%|Undefined|None|\[\]|Decimal", form)
            assert "  " not in form.replace("\n", "") or form is mail.html

    def test_loads_nothing_and_runs_nothing(self, kind):
        page = Addresses(rendered(kind).html)
        assert not page.loaded
        assert not page.tags & {"script", "img", "iframe", "form", "object", "link"}
        assert all(link.startswith(("https://pay.example.com/", "mailto:help@")) for link in page.links)

    def test_escapes_whatever_customers_and_plans_are_called(self, kind):
        names = {"plan": EVIL, "product": EVIL, "free_plan": EVIL, "pay_url": f"https://pay.example.com/{EVIL}"}
        mail = rendered(kind, branding=Branding(name=EVIL), account=EVIL, **names)
        assert "<script" not in mail.html
        assert "\n" not in mail.subject
        assert "\r" not in mail.subject
        message = compose(
            mail, sender="a@example.com", to_address="b@example.com", message_id="<x@y>", now=NOW
        ).as_bytes()
        head = message.partition(b"\r\n\r\n")[0]
        assert b"\nBcc" not in head

    def test_has_short_lines(self, kind):
        assert all(len(line) <= 72 or line.startswith("http") for line in rendered(kind).text.splitlines())

    def test_reads_well_without_amounts_links_and_support(self, kind):
        mail = rendered(
            kind, branding=Branding(), total=None, invoices=[], pay_url=None, next_attempt=None, price=None
        )
        assert "None" not in mail.text
        assert "Pay now" not in mail.text
        assert "Questions?" not in mail.text


class TestWords:
    def test_tells_moments_by_the_clock_of_the_account(self):
        assert "15 Nov 2026, 10:00 (Europe/Berlin)" in " ".join(rendered("trial_ending").text.split())
        late = {"ends_at": "2026-11-15T23:30:00+00:00"}
        assert "ends on 16 Nov 2026" in rendered("trial_ending", **late).subject
        assert "ends on 15 Nov 2026" in rendered("trial_ending", time_zone="America/New_York", **late).subject

    @pytest.mark.parametrize(
        ("amount_minor", "currency", "text"),
        [(4900, "USD", "$49.00"), (4900, "EUR", "€49.00"), (4900, "JPY", "¥4,900"), (12345, "KWD", "12.345")],
    )
    def test_tells_amounts_as_invoices_do(self, amount_minor, currency, text):
        amount = {"amount_minor": amount_minor, "currency": currency}
        assert text in rendered("payment_failed", total=amount).subject

    def test_says_what_comes_after_the_grace(self):
        assert "refused with 402" in rendered("payment_failed", after="block").text
        assert "limits of Free" in rendered("payment_failed", after="free").text
        served = rendered("payment_failed", after="serve").text
        assert "go on working." in served
        assert "If nothing has been paid" not in served

    def test_says_how_to_pay_where_there_is_no_page_to_pay_at(self):
        brand = Branding(payment_note="Transfer to IBAN DE02 1203.")
        assert "IBAN DE02" in rendered("payment_failed", branding=brand, pay_url=None).text
        assert "IBAN DE02" not in rendered("payment_failed", branding=brand).text

    @pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "ftp://example.com/", 7])
    def test_leads_only_to_web_pages(self, url):
        mail = rendered("payment_failed", pay_url=url)
        assert not [link for link in Addresses(mail.html).links if not link.startswith("mailto:")]

    @pytest.mark.parametrize(
        ("kind", "values"),
        [("birthday", {}), ("trial_ending", {}), ("trial_ending", {**SAMPLES["trial_ending"], "ends_at": "soon"})],
    )
    def test_names_values_that_do_not_fit(self, kind, values):
        with pytest.raises(MailNotRenderedError):
            render_mail(kind, values, branding=BRAND)


class TestMessage:
    def test_is_plain_text_with_a_page_beside_it_in_seven_bits(self):
        mail = rendered("payment_failed", branding=Branding(name="Øresund Wetter"))
        message = compose(
            mail,
            sender="Øresund Wetter <billing@example.com>",
            to_address="ada@example.com",
            message_id="<mail_1.1@example.com>",
            now=NOW,
        )
        assert message.get_content_type() == "multipart/alternative"
        assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
        raw = message.as_bytes()
        assert raw.isascii()
        assert max(len(line) for line in raw.split(b"\r\n")) < 998
        assert b"Message-ID: <mail_1.1@example.com>" in raw
        assert b"Auto-Submitted: auto-generated" in raw

    @pytest.mark.parametrize(
        "address", ["", "ada", "a@b@c", "a b@c.d", "@example.com", "a@", "a@x.example\r\nBcc: b@c"]
    )
    def test_refuses_what_is_no_address(self, address):
        with pytest.raises(ValidationFailedError):
            parse_address(address)
        with pytest.raises(MailRefusedError):
            compose(rendered("test"), sender="a@example.com", to_address=address, message_id="<x@y>", now=NOW)

    def test_keeps_one_id_for_each_sending(self):
        first = message_id("mail_1", sending=1, domain="example.com")
        assert first == message_id("mail_1", sending=1, domain="example.com") == "<mail_1.1@example.com>"
        assert first != message_id("mail_1", sending=2, domain="example.com")


def test_pauses_grow_to_four_hours():
    pauses = [pause_after(attempts) for attempts in range(1, 30)]
    assert pauses[:4] == [timedelta(minutes=minutes) for minutes in (1, 2, 4, 8)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == timedelta(hours=4)


def test_a_password_is_not_shown():
    config = SmtpConfig(host="mail.example.com", username="km", password="hunter2", sender="a@example.com")
    assert "hunter2" not in repr(config)
