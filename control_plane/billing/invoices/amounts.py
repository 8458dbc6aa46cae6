"""From lines to what an invoice comes to: subtotal, discounts, tax, total. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.billing.discounts.model import AppliedDiscount, ChargedLine, Discount
from control_plane.billing.discounts.stacking import amounts_left, discounts_on
from control_plane.billing.taxes.model import AppliedTax, TaxTerm, by_kind, taxes_on


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Minor units. `total_minor` = subtotal - discounts + taxes; below 0 where more is given back than charged."""

    subtotal_minor: int
    discounts: tuple[AppliedDiscount, ...] = ()
    taxes: tuple[AppliedTax, ...] = ()

    @property
    def discount_minor(self) -> int:
        return sum(discount.amount_minor for discount in self.discounts)

    @property
    def tax_minor(self) -> int:
        return sum(tax.amount_minor for tax in self.taxes)

    @property
    def total_minor(self) -> int:
        return self.subtotal_minor - self.discount_minor + self.tax_minor

    def discounts_as_json(self) -> list[dict[str, Any]]:
        """Return what the invoice writes down of discounts."""
        return [discount.as_dict() for discount in self.discounts]

    def taxes_as_json(self) -> list[dict[str, Any]]:
        """Return what the invoice writes down of taxes."""
        return [tax.as_dict() for tax in self.taxes]


def amounts_of(
    lines: Sequence[ChargedLine], *, discounts: Sequence[Discount], taxes: Sequence[TaxTerm], currency: str
) -> Amounts:
    """Return what an invoice with these lines comes to; taxes are reckoned on what discounts leave of them."""
    subtotal_minor = sum(line.amount_minor for line in lines)
    applied = discounts_on(lines, discounts, currency=currency) if discounts else ()
    if not taxes:
        return Amounts(subtotal_minor=subtotal_minor, discounts=applied)
    left = amounts_left(lines, applied)
    taxable = by_kind((line.kind, amount) for line, amount in zip(lines, left, strict=True))
    return Amounts(
        subtotal_minor=subtotal_minor,
        discounts=applied,
        taxes=taxes_on(taxable, taxes, currency=currency),
    )
