"""Who buys and who sells, as values. Pure."""

import re
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from control_plane.billing.profiles.countries import COUNTRIES
from control_plane.foundation.errors import Problem, ValidationFailedError

MAX_TEXT = 200
MAX_ADDRESS_LINES = 4
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}")


class TaxTreatment(StrEnum):
    """`standard` pays tax, `exempt` none; under `reverse_charge` the buyer accounts for it: we charge none."""

    STANDARD = "standard"
    EXEMPT = "exempt"
    REVERSE_CHARGE = "reverse_charge"


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingProfile:
    """What an invoice says of the buyer. `country`: ISO 3166-1 alpha-2, '' where nobody said; texts may be ''."""

    legal_name: str
    address_lines: tuple[str, ...] = ()
    postal_code: str = ""
    city: str = ""
    region: str = ""
    country: str = ""
    tax_id: str = ""
    invoice_email: str = ""
    tax_treatment: TaxTreatment = TaxTreatment.STANDARD

    @property
    def exempt(self) -> bool:
        """Say whether no tax is charged: exempt, or reverse charge."""
        return self.tax_treatment is not TaxTreatment.STANDARD

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            **_shallow(self),
            "address_lines": list(self.address_lines),
            "tax_treatment": str(self.tax_treatment),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Seller:
    """Who sends invoices. Without a name they are made all the same, and say that no seller is set."""

    name: str = ""
    address_lines: tuple[str, ...] = ()
    country: str = ""
    tax_id: str = ""
    email: str = ""
    payment_note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return what an invoice writes down when it is finalised."""
        return {**_shallow(self), "address_lines": list(self.address_lines)}


def _shallow(value: BillingProfile | Seller) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def check_profile(profile: BillingProfile) -> BillingProfile:
    """Return the profile.

    Raises:
        ValidationFailedError: names every field that is not usable.
    """
    problems = [*_text_problems(profile)]
    if not profile.legal_name.strip():
        problems.append(Problem("legal_name", "must not be empty"))
    if profile.country and profile.country not in COUNTRIES:
        problems.append(Problem("country", "must be an ISO 3166 code of two capital letters, such as DE"))
    if profile.invoice_email and not _EMAIL.fullmatch(profile.invoice_email):
        problems.append(Problem("invoice_email", "must be an email address"))
    if len(profile.address_lines) > MAX_ADDRESS_LINES:
        problems.append(Problem("address_lines", f"must be at most {MAX_ADDRESS_LINES} lines"))
    if profile.tax_treatment is TaxTreatment.REVERSE_CHARGE and not profile.tax_id:
        problems.append(Problem("tax_id", "is wanted for reverse_charge: the invoice must name it"))
    if problems:
        first, *more = problems
        raise ValidationFailedError(first.field, first.message, *more)
    return profile


def _text_problems(profile: BillingProfile) -> list[Problem]:
    texts = {
        name: getattr(profile, name)
        for name in ("legal_name", "postal_code", "city", "region", "tax_id", "invoice_email")
    } | {f"address_lines[{number}]": line for number, line in enumerate(profile.address_lines)}
    return [
        Problem(field, f"must be at most {MAX_TEXT} printable characters")
        for field, text in texts.items()
        if len(text) > MAX_TEXT or not text.isprintable()
    ]
