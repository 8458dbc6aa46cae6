"""What Stripe is told of an account. Pure."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from control_plane.billing.profiles.model import BillingProfile, TaxTreatment

MAX_NAME: Final = 256
# ISO country -> Stripe's type of the tax id that its businesses have
_EU_WEST: Final = {"AT", "BE", "DE", "DK", "ES", "FI", "FR", "GR", "IE", "IT", "LU", "NL", "PT", "SE"}
_EU_EAST: Final = {"BG", "CY", "CZ", "EE", "HR", "HU", "LT", "LV", "MT", "PL", "RO", "SI", "SK"}
_EU: Final = _EU_WEST | _EU_EAST
_TAX_ID_TYPES: Final[Mapping[str, str]] = {
    "GB": "gb_vat",
    "US": "us_ein",
    "CH": "ch_vat",
    "NO": "no_vat",
    "AU": "au_abn",
    "NZ": "nz_gst",
    "CA": "ca_bn",
    "IN": "in_gst",
    "SG": "sg_gst",
    "JP": "jp_trn",
    "ZA": "za_vat",
    "IS": "is_vat",
    "AE": "ae_trn",
    "SA": "sa_vat",
}
_TAX_EXEMPT: Final = {
    TaxTreatment.STANDARD: "none",
    TaxTreatment.EXEMPT: "exempt",
    TaxTreatment.REVERSE_CHARGE: "reverse",
}


def customer_params(profile: BillingProfile) -> dict[str, Any]:
    """Return what the calls that make and update a customer say of it; '' takes away what was there."""
    lines = [line for line in profile.address_lines if line]
    address = {
        "line1": lines[0] if lines else "",
        "line2": ", ".join(lines[1:]),
        "city": profile.city,
        "state": profile.region,
        "postal_code": profile.postal_code,
        "country": profile.country,
    }
    params = {
        "name": profile.legal_name[:MAX_NAME],
        "email": profile.invoice_email,
        # what is left out of an address is empty there
        "address": {name: text for name, text in address.items() if text} or "",
        "tax_exempt": _TAX_EXEMPT[profile.tax_treatment],
    }
    if not profile.invoice_email:
        del params["email"]  # Stripe takes no empty one: a customer's e-mail address can be changed, not removed
    return params


def tax_id_params(profile: BillingProfile) -> dict[str, str] | None:
    """Return an account's tax id as Stripe takes it, None where it has none or Stripe has no type for it here."""
    kind = "eu_vat" if profile.country in _EU else _TAX_ID_TYPES.get(profile.country)
    if not profile.tax_id or kind is None:
        return None
    return {"type": kind, "value": profile.tax_id}


def has_place(profile: BillingProfile) -> bool:
    """Say whether the address is enough for Stripe to find the tax of its place."""
    return bool(profile.country) and (profile.country not in {"US", "CA"} or bool(profile.postal_code))


def digest_of(profile: BillingProfile) -> str:
    """Return what changes when Stripe has to be told anew."""
    told = [customer_params(profile), tax_id_params(profile)]
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
