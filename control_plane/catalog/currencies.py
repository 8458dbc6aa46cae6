"""Several currencies: which prices of a plan version an account pays."""

from control_plane.catalog.tables import PlanVersion, Price
from control_plane.foundation.errors import ConflictError


class CurrencyDiffersError(ConflictError):
    """The plan has prices, none of them in the currency that the account pays in."""

    def __init__(self, plan_code: str, currency: str, sold_in: tuple[str, ...]) -> None:
        super().__init__(
            "currency_differs",
            f"Plan {plan_code} is priced in {', '.join(sold_in)}, the account pays in {currency}: "
            f"add prices in {currency} to the plan, or choose another plan.",
        )


def currencies_of(version: PlanVersion) -> tuple[str, ...]:
    """Return the currencies in which a version, loaded with its prices, has prices, its own first.

    A version without prices has its own; it suits every other (see `is_sold_in`).
    """
    others = sorted({price.currency for price in version.prices} - {version.currency})
    return version.currency, *others


def is_sold_in(version: PlanVersion, currency: str) -> bool:
    """Say whether an account that pays in the currency can have the version: what is free suits all."""
    return not version.prices or currency in currencies_of(version)


def prices_in(version: PlanVersion, currency: str) -> list[Price]:
    """Return the prices, in order, that an account with the currency pays; the version is loaded with its plan.

    Raises:
        CurrencyDiffersError: there are prices, and none in this currency.
    """
    if not is_sold_in(version, currency):
        raise CurrencyDiffersError(version.plan.code, currency, currencies_of(version))
    return [price for price in version.prices if price.currency == currency]
