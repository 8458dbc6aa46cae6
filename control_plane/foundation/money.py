"""Money: minor units and a currency. Unit prices are `Decimal`; rounding happens here and nowhere else."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal

from control_plane.foundation.errors import KmError


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ISO 4217, by the number of digits of the minor unit
ZERO_DIGITS = _codes("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF")
THREE_DIGITS = _codes("BHD IQD JOD KWD LYD OMR TND")
TWO_DIGITS = _codes(
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP "
    "CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR "
    "IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN "
    "NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP "
    "STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VES WST XCD YER ZAR ZMW"
)
# far more digits than any amount has, so that arithmetic below never rounds by itself
_EXACT = Context(prec=100)


class UnknownCurrencyError(KmError):
    """Not a currency code that amounts can be kept in."""

    def __init__(self, currency: str) -> None:
        super().__init__("unknown_currency", f"{currency!r} is not an ISO 4217 currency code.")


class CurrencyMixError(KmError):
    """Amounts of different currencies were added."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__("currency_mix", f"Amounts in {one} and {other} cannot be added.")


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in minor units (cents, yen, fils) of its currency; may be negative."""

    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        minor_units(self.currency)

    def __add__(self, other: "Money") -> "Money":
        if other.currency != self.currency:
            raise CurrencyMixError(self.currency, other.currency)
        return Money(self.amount_minor + other.amount_minor, self.currency)

    def __neg__(self) -> "Money":
        return Money(-self.amount_minor, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return self + -other

    def __str__(self) -> str:
        """`49.00 USD`."""
        return f"{self.as_decimal():f} {self.currency}"

    def as_decimal(self) -> Decimal:
        """Return the amount in major units with exactly the currency's digits."""
        return _EXACT.scaleb(Decimal(self.amount_minor), -minor_units(self.currency))


def minor_units(currency: str) -> int:
    """Return how many digits the currency's minor unit has: 2 for USD, 0 for JPY, 3 for KWD.

    Raises:
        UnknownCurrencyError: no such upper-case ISO 4217 code.
    """
    if currency in TWO_DIGITS:
        return 2
    if currency in ZERO_DIGITS:
        return 0
    if currency in THREE_DIGITS:
        return 3
    raise UnknownCurrencyError(currency)


def round_minor(amount: Decimal, currency: str) -> int:
    """Return an amount of major units (49.005 dollars) in whole minor units (4901 cents).

    The one rounding of money: half up, that is away from zero at exactly half (-0.005 becomes -1 cent).

    Raises:
        UnknownCurrencyError: no such currency.
    """
    return int(_EXACT.scaleb(amount, minor_units(currency)).to_integral_value(ROUND_HALF_UP, _EXACT))
