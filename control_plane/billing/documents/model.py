"""A document in words: every amount and date is text already. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from control_plane.billing.profiles.countries import COUNTRY_NAMES
from control_plane.foundation.money import Money
from control_plane.rating.words import MINUS, format_amount

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DASH = "–"  # noqa: RUF001 - an en dash, as between dates in print
NO_SELLER = "Seller not set"
# what stays on one line: moments, and numbers of documents
WHOLE = re.compile(
    rf"\d{{1,2}} (?:{'|'.join(MONTHS)}) \d{{4}}(?: \d\d:\d\d)?|(?<!\S)[A-Za-z0-9/_]{{1,12}}-[A-Za-z0-9/_-]*\d\b"
)
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Who sells or buys: a name, and lines below it."""

    name: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLine:
    """One amount, and how it came about in smaller print."""

    description: str
    amount: str
    explanation: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """An amount below the lines; `strong` ones are what the reader looks for."""

    label: str
    amount: str
    strong: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """An invoice or a credit note. `mark` stands across every page; '' for none. `made_at` dates the file."""

    title: str
    number: str
    mark: str
    seller: Party
    buyer: Party
    facts: tuple[tuple[str, str], ...]
    lines: tuple[DocumentLine, ...]
    summary: tuple[SummaryRow, ...]
    notes: tuple[str, ...]
    made_at: datetime

    @property
    def heading(self) -> str:
        """Return "Invoice INV-000001"."""
        return f"{self.title} {self.number}".strip()


def money(amount_minor: int, currency: str) -> str:
    """Return "$49.00", "−$5.00"."""  # noqa: RUF002 - as shown
    text = format_amount(Money(abs(amount_minor), currency).as_decimal(), currency)
    return f"{MINUS}{text}" if amount_minor < 0 else text


def day(moment: datetime, zone: ZoneInfo) -> str:
    """Return "1 Nov 2026", by the clock of the zone."""
    local = moment.astimezone(zone)
    return f"{local.day} {MONTHS[local.month - 1]} {local.year}"


def span(start: datetime, end: datetime, zone: ZoneInfo) -> str:
    """Return "1 Nov 2026 – 30 Nov 2026": first and last day; with times where days are cut."""  # noqa: RUF002
    if all(moment.astimezone(zone).time().isoformat() == "00:00:00" for moment in (start, end)):
        first, last = day(start, zone), day(end - _INSTANT, zone)
        return first if first == last else f"{first} {DASH} {last}"
    return f"{_minute(start, zone)} {DASH} {_minute(end, zone)}"


def _minute(moment: datetime, zone: ZoneInfo) -> str:
    return f"{day(moment, zone)} {moment.astimezone(zone):%H:%M}"


def seller_party(seller: Mapping[str, Any] | None) -> Party:
    """Return the seller as written down; says so where none was set."""
    if not seller or not seller.get("name"):
        return Party(name=NO_SELLER)
    tax_id = seller.get("tax_id", "")
    return Party(
        name=seller["name"],
        lines=_filled(
            *seller.get("address_lines", ()),
            _country(seller),
            tax_id and f"Tax ID {tax_id}",
            seller.get("email", ""),
        ),
    )


def buyer_party(buyer: Mapping[str, Any]) -> Party:
    """Return the buyer as written down."""
    tax_id = buyer.get("tax_id", "")
    return Party(
        name=buyer["legal_name"],
        lines=_filled(
            *buyer.get("address_lines", ()),
            f"{buyer.get('postal_code', '')} {buyer.get('city', '')}".strip(),
            buyer.get("region", ""),
            _country(buyer),
            tax_id and f"Tax ID {tax_id}",
            buyer.get("invoice_email", ""),
        ),
    )


def _country(party: Mapping[str, Any]) -> str:
    code: str = party.get("country", "")
    return COUNTRY_NAMES.get(code, code)


def _filled(*lines: str) -> tuple[str, ...]:
    return tuple(line for line in lines if line)
