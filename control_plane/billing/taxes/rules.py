"""Which taxes a buyer pays. Pure."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from control_plane.billing.profiles.model import BillingProfile, TaxTreatment
from control_plane.billing.taxes.model import (
    EXEMPT,
    EXEMPT_NOTE,
    REVERSE_CHARGE,
    REVERSE_CHARGE_NOTE,
    TaxTerm,
)

# whose businesses account for each other's VAT themselves
_EU = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
EU = frozenset(_EU.split())
NOTHING = Decimal(0)

Place = tuple[str, str]


def place_of(country: str, region: str) -> Place:
    """Return country and region as they are compared: capitals or not, spaces around or not."""
    return country.upper(), region.strip().casefold()


def terms_for(
    buyer: BillingProfile | None, rates: Mapping[Place, Sequence[TaxTerm]], *, seller_country: str
) -> tuple[TaxTerm, ...]:
    """Return the taxes of a buyer; None: one who gave no billing profile.

    Rates of the buyer's region replace those of the country. Rates without a country are for buyers of whom no
    country is known. Exempt buyers, and businesses under the reverse charge, have one tax of 0 % with a note.
    """
    if buyer is not None and buyer.tax_treatment is TaxTreatment.EXEMPT:
        return (TaxTerm(name=EXEMPT, percent=NOTHING, note=EXEMPT_NOTE),)
    if buyer is not None and is_reverse_charge(buyer, seller_country=seller_country):
        return (TaxTerm(name=REVERSE_CHARGE, percent=NOTHING, note=REVERSE_CHARGE_NOTE),)
    country, region = ("", "") if buyer is None else place_of(buyer.country, buyer.region if buyer.country else "")
    return tuple(rates.get((country, region)) or rates.get((country, "")) or ())


def is_reverse_charge(buyer: BillingProfile, *, seller_country: str) -> bool:
    """Say whether the buyer accounts for the tax: said so, or a business elsewhere in the EU, by its tax id."""
    if buyer.tax_treatment is TaxTreatment.REVERSE_CHARGE:
        return True
    elsewhere = buyer.country != seller_country and buyer.country in EU and seller_country in EU
    return elsewhere and bool(buyer.tax_id.strip())
