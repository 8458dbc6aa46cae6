"""Mails in words: a subject, plain text and HTML of the same template. Pure.

Nothing is loaded from elsewhere, and every value is escaped; dates are by the clock of the account.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError, pass_context
from jinja2.runtime import Context

from control_plane.billing.documents.model import day, money
from control_plane.notifications.model import Branding, MailKind

MAX_SUBJECT = 200


class MailNotRenderedError(Exception):
    """The template and its values do not fit: it can never be sent as it is."""


@dataclass(frozen=True, slots=True)
class RenderedMail:
    """What is sent."""

    subject: str
    text: str
    html: str


def render_mail(
    kind: str, values: Mapping[str, Any], *, branding: Branding, account: str = "", time_zone: str = "UTC"
) -> RenderedMail:
    """Return a mail of one kind; `account` is the name that it is for.

    Raises:
        MailNotRenderedError: no such kind, or values that its template does not know what to do with.
    """
    given = {
        **values,
        "brand": branding,
        "account": account,
        "zone": ZoneInfo(time_zone),
        "pay_url": _web_address(values.get("pay_url")),
    }
    try:
        name = f"{MailKind(kind)}.mail"
        subject = _subject(name, given)
        given["subject"] = subject
        text = _TEXT.get_template(name).render({**given, "part": _part(_TEXT, "parts.txt"), "layout": "base.txt"})
        html = _HTML.get_template(name).render(
            {**given, "part": _part(_HTML, "parts.html"), "layout": "base.html"}
        )
    except (TemplateError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MailNotRenderedError(f"The template {kind} does not fit its values: {error}") from error
    return RenderedMail(subject, _tidy(text), html)


def _subject(name: str, given: Mapping[str, Any]) -> str:
    template = _TEXT.get_template(name)
    context = template.new_context({**given, "layout": "base.txt"})
    return one_line("".join(template.blocks["subject"](context)))[:MAX_SUBJECT]


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters: fit for a header."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _tidy(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _web_address(url: object) -> str:
    """Return an address that a button may lead to; '' for none, and for any other kind of link."""
    if not isinstance(url, str) or urlsplit(url).scheme not in {"https", "http"}:
        return ""
    return url


def _money(amount: Mapping[str, Any]) -> str:
    return money(amount["amount_minor"], amount["currency"])


@pass_context
def _day(context: Context, moment: str) -> str:
    return day(datetime.fromisoformat(moment), context["zone"])


@pass_context
def _moment(context: Context, moment: str) -> str:
    zone: ZoneInfo = context["zone"]
    at = datetime.fromisoformat(moment)
    return f"{day(at, zone)}, {at.astimezone(zone):%H:%M} ({zone.key})"


def _bills(invoices: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return a row for each unpaid invoice."""
    return [(f"Invoice {bill['number']}".strip(), _money(bill["amount"])) for bill in invoices]


def _environment(*, autoescape: bool) -> Environment:
    made = Environment(
        loader=PackageLoader("control_plane.notifications", "templates"),
        autoescape=autoescape,  # noqa: S701 - off for plain text only
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(money=_money, day=_day, moment=_moment, one_line=one_line)
    made.globals["bills"] = _bills
    return made


def _part(environment: Environment, name: str) -> object:
    return environment.get_template(name).module


_TEXT = _environment(autoescape=False)
_HTML = _environment(autoescape=True)
