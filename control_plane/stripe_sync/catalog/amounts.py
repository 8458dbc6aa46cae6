"""Our amounts as Stripe takes them: minor units of its own idea of the currency. Pure.

Source: https://docs.stripe.com/currencies (zero-decimal currencies, special cases, three-decimal currencies).
"""

from decimal import Context, Decimal
from typing import Final

from control_plane.foundation.money import minor_units

# Stripe keeps two digits of krónur and shillings that have none, and none of ariary, which have two here
OTHER_DIGITS_AT_STRIPE: Final = frozenset({"ISK", "UGX", "MGA"})
THREE: Final = 3
MAX_DECIMALS: Final = 12
_EXACT = Context(prec=100)


def currency_problem(currency: str) -> str:
    """Return why Stripe cannot bill in a currency as we do, '' if it can."""
    if currency in OTHER_DIGITS_AT_STRIPE:
        return f"Stripe counts {currency} in other minor units than ISO 4217: bill it by own invoices"
    return ""


def minor_decimal(amount: str, currency: str) -> Decimal:
    """Return an amount of major units ("0.0015") in minor units, exactly, without needless zeros."""
    minor = _EXACT.scaleb(Decimal(amount), minor_units(currency))
    return Decimal(int(minor)) if minor == minor.to_integral_value() else minor.normalize(_EXACT)


def amount_problem(amount: str, currency: str) -> str:
    """Return why Stripe does not take an amount, '' if it does."""
    minor = minor_decimal(amount, currency)
    exponent = minor.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > MAX_DECIMALS:
        return f"Stripe takes at most {MAX_DECIMALS} digits after the point of a minor unit, {amount} has more"
    if minor_units(currency) == THREE and minor % 10:
        return f"Stripe charges {currency} in steps of 0.010 only, and {amount} is finer"
    return ""
