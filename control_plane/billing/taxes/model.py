"""Tax terms, and what they come to. Pure.

Prices are net: tax is added. A rate is reckoned on the sum of what it is for, after discounts, and rounded once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from control_plane.billing.line_scopes import LineScope, kinds_of
from control_plane.foundation.money import Money, round_minor

CREDIT_PURCHASE = "credit_purchase"
REVERSE_CHARGE = "Reverse charge"
REVERSE_CHARGE_NOTE = (
    "Reverse charge: VAT is to be accounted for by the recipient (Article 196, Directive 2006/112/EC)."
)
EXEMPT = "Tax exempt"
EXEMPT_NOTE = "No tax is charged: the customer is exempt."
_WORKING_DIGITS = 100
_HUNDRED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TaxTerm:
    """One tax that an account pays. `note`: what the invoice must say beside it; '' for most."""

    name: str
    percent: Decimal
    scope: LineScope = LineScope.ALL
    note: str = ""
    rate_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedTax:
    """What one tax comes to on an invoice; below 0 where more is credited than charged."""

    name: str
    percent: Decimal
    taxable_minor: int
    amount_minor: int
    note: str = ""
    rate_id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return what an invoice writes down; it never changes with the rate."""
        return {
            "name": self.name,
            "percent": f"{self.percent.normalize():f}",
            "taxable_minor": self.taxable_minor,
            "amount_minor": self.amount_minor,
            "note": self.note,
            "rate_id": self.rate_id,
        }


def taxes_on(taxable: Mapping[str, int], terms: Sequence[TaxTerm], *, currency: str) -> tuple[AppliedTax, ...]:
    """Return what the taxes come to. `taxable`: what discounts leave of the lines, by kind (see `by_kind`).

    Each is reckoned on the lines, never on another tax. Purchases of prepaid credits are not taxed: credits pay
    invoices with their tax, so it would be paid twice.
    """
    return tuple(_applied(taxable, term, currency) for term in terms)


def by_kind(kinds_and_amounts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the sums of amounts by kind of line."""
    sums: dict[str, int] = {}
    for kind, amount in kinds_and_amounts:
        sums[kind] = sums.get(kind, 0) + amount
    return sums


def _applied(taxable: Mapping[str, int], term: TaxTerm, currency: str) -> AppliedTax:
    taxable_minor = sum(amount for kind, amount in taxable.items() if _is_for(term, kind))
    with localcontext(prec=_WORKING_DIGITS):
        exact = Money(taxable_minor, currency).as_decimal() * term.percent / _HUNDRED
    return AppliedTax(
        name=term.name,
        percent=term.percent,
        taxable_minor=taxable_minor,
        amount_minor=round_minor(exact, currency),
        note=term.note,
        rate_id=term.rate_id,
    )


def _is_for(term: TaxTerm, kind: str) -> bool:
    if term.scope is LineScope.ALL:
        return kind != CREDIT_PURCHASE
    return kind in kinds_of(term.scope)
