"""What Stripe cannot bill, told when terms are published and not when somebody subscribes. Pure.

Sources: https://docs.stripe.com/currencies (zero-decimal currencies, special cases, three-decimal currencies),
https://docs.stripe.com/api/subscriptions/create (items), https://docs.stripe.com/api/prices/create
(unit_amount_decimal).
"""

from collections.abc import Iterator
from decimal import Context, Decimal
from typing import Final

from control_plane.catalog.model import PlanTerms, PriceTerms
from control_plane.foundation.money import minor_units

MAX_ITEMS: Final = 20
MAX_DECIMALS: Final = 12
THREE: Final = 3
# Stripe keeps two digits of krónur and shillings that have none, and none of ariary, which have two here
OTHER_DIGITS_AT_STRIPE: Final = frozenset({"ISK", "UGX", "MGA"})
_WITHOUT_ITEM: Final = frozenset({"setup_fee", "commitment"})
_ROUNDED_HERE: Final = frozenset({"commitment", "percentage"})
_EXACT: Final = Context(prec=100)


def stripe_problems(terms: PlanTerms) -> list[str]:
    """Return every reason for which Stripe cannot have these terms, each once, without a full stop."""
    return list(dict.fromkeys(_problems(terms)))


def _problems(terms: PlanTerms) -> Iterator[str]:
    for currency in (terms.currency, *terms.other_currencies):
        prices = terms.in_currency(currency).prices
        items = sum(price.model not in _WITHOUT_ITEM for price in prices)
        if items > MAX_ITEMS:
            yield f"a subscription at Stripe has at most {MAX_ITEMS} items, and this needs {items}"
        if currency in OTHER_DIGITS_AT_STRIPE:
            yield f"Stripe counts {currency} in other minor units than ISO 4217: bill it by own invoices"
            continue
        for price in prices:
            if minor_units(currency) == THREE and price.model in _ROUNDED_HERE:
                yield f"Stripe charges {currency} in steps of 0.010 only; a {price.model} price keeps none"
            yield from (problem for amount in _amounts(price) if (problem := _amount_problem(amount, currency)))


def minor_decimal(amount: str, currency: str) -> Decimal:
    """Return an amount of major units ("0.0015") in minor units, exactly, without needless zeros."""
    minor = _EXACT.scaleb(Decimal(amount), minor_units(currency))
    return Decimal(int(minor)) if minor == minor.to_integral_value() else minor.normalize(_EXACT)


def _amount_problem(amount: str, currency: str) -> str:
    minor = minor_decimal(amount, currency)
    exponent = minor.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > MAX_DECIMALS:
        return f"Stripe takes at most {MAX_DECIMALS} digits after the point of a minor unit, {amount} has more"
    if minor_units(currency) == THREE and minor % 10:
        return f"Stripe charges {currency} in steps of 0.010 only, and {amount} is finer"
    return ""


def _amounts(price: PriceTerms) -> Iterator[str]:
    for holder in (price.params, *price.params.get("tiers", ())):
        for name in ("amount", "unit_amount", "flat_amount"):
            if name in holder:
                yield holder[name]
