"""Amounts, quantities and parts of a period as people read them. English, US number form."""

from decimal import Decimal
from functools import lru_cache

from control_plane.foundation.money import minor_units
from control_plane.rating.model import EXACT, Quantity, Share, Unit

TIMES = "×"  # noqa: RUF001 - the multiplication sign, as on any invoice
MINUS = "−"  # noqa: RUF001 - the minus sign, as on any invoice
_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩"}
_WORDS = {
    "requests": Unit(singular="request", plural="requests"),
    "bytes_in": Unit(singular="byte received", plural="bytes received"),
    "bytes_out": Unit(singular="byte sent", plural="bytes sent"),
    "upstream_ms": Unit(singular="millisecond of processing time", plural="milliseconds of processing time"),
}
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_SPANS = (("days", _DAY_MS), ("hours", _HOUR_MS))


@lru_cache(maxsize=4096)  # the same prices stand on every invoice
def format_amount(amount: Decimal, currency: str) -> str:
    """Return "$49.00", "$0.0015" (every digit that counts, at least the currency's own), "-$5.00", "49.00 CHF"."""
    text = f"{amount.copy_abs().normalize(EXACT):,f}"
    whole, _, fraction = text.partition(".")
    fraction = fraction.ljust(minor_units(currency), "0")
    number = f"{whole}.{fraction}" if fraction else whole
    sign = "-" if amount < 0 else ""
    symbol = _SYMBOLS.get(currency)
    return f"{sign}{symbol}{number}" if symbol else f"{sign}{number} {currency}"


def format_held(amount: Decimal, used: Quantity) -> str:
    """Return an amount that is due for each of what is held: "$10.00", "3 × $10.00"."""  # noqa: RUF002 - as shown
    text = format_amount(amount, used.currency)
    return text if used.held == 1 else f"{used.held:,} {TIMES} {text}"


def unit_of(meter: str) -> Unit:
    """Return the words for a meter: the gateway's own, or a dimension such as `tokens` or `compute_ms`."""
    if meter in _WORDS:
        return _WORDS[meter]
    plural = meter.replace("_", " ")
    singular = plural[:-1] if plural.endswith("s") and not plural.endswith(("ss", " ms")) else plural
    return Unit(singular=singular, plural=plural)


def unit_named(name: str) -> Unit:
    """Return the words for a declared meter by its name: "Active users" counts "active users"."""
    plural = name if name[1:2].isupper() else f"{name[:1].lower()}{name[1:]}"
    singular = plural[:-1] if plural.endswith("s") and not plural.endswith(("ss", "us", "is")) else plural
    return Unit(singular=singular, plural=plural)


def format_units(count: int, unit: Unit) -> str:
    """Return "1 request", "12,345 requests"."""
    return f"{count:,} {unit.singular if count == 1 else unit.plural}"


def format_share(share: Share) -> str:
    """Return "12 of 30 days", "151 of 720 hours", or exactly: "6 days 6 h 58 min 48.566 s of 30 days"."""
    for name, size_ms in _SPANS:
        if share.covered_ms % size_ms == 0 and share.period_ms % size_ms == 0:
            return f"{share.covered_ms // size_ms:,} of {share.period_ms // size_ms:,} {name}"
    return f"{_span(share.covered_ms)} of {_span(share.period_ms)}"


def _span(length_ms: int) -> str:
    """Return a length of time to the millisecond, without the parts that are nothing."""
    days, within_day_ms = divmod(length_ms, _DAY_MS)
    hours, within_hour_ms = divmod(within_day_ms, _HOUR_MS)
    minutes, within_minute_ms = divmod(within_hour_ms, 60_000)
    seconds = f"{Decimal(within_minute_ms).scaleb(-3).normalize():f} s"
    parts = (
        (days, f"{days:,} day{'' if days == 1 else 's'}"),
        (hours, f"{hours} h"),
        (minutes, f"{minutes} min"),
        (within_minute_ms, seconds),
    )
    return " ".join(text for size, text in parts if size) or seconds
