"""One price in several currencies: amounts differ, everything else is the same. Pure.

People write `unit_amount: {USD: "0.0015", EUR: "0.0014"}`; a price's terms are kept for each currency by itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from control_plane.catalog.model import PriceTerms
from control_plane.foundation.errors import Problem, refuse


def is_amount(name: str) -> bool:
    """Say whether a parameter of a price is money, and so may differ between currencies."""
    return name == "amount" or name.endswith("_amount")


def split_params(params: Mapping[str, Any], currencies: Sequence[str], *, field: str) -> dict[str, dict[str, Any]]:
    """Return the parameters by currency, each as if the price had been written in that currency alone.

    Raises:
        ValidationFailedError: with every amount that lacks a currency or has one too many; names it below `field`.
    """
    splitting = _Splitting(currencies)
    split = {currency: splitting.of(params, currency, field) for currency in currencies}
    refuse(splitting.problems)
    return split


def join_params(by_currency: Mapping[str, Any]) -> Any:
    """Return parameters as people write them: the other way round. All have the same form."""
    first = next(iter(by_currency.values()))
    if isinstance(first, Mapping):
        return {name: _joined(name, by_currency) for name in first}
    if isinstance(first, list):
        return [
            join_params({currency: values[index] for currency, values in by_currency.items()})
            for index in range(len(first))
        ]
    return first


def price_problems(prices: Iterable[PriceTerms], *, field: str) -> list[Problem]:
    """Return where the prices in other currencies are not those of the version's own, amounts apart."""
    by_currency: dict[str, list[PriceTerms]] = {"": []}
    for price in prices:
        by_currency.setdefault(price.currency, []).append(price)
    own = by_currency.pop("")
    problems = []
    for currency, others in by_currency.items():
        if len(others) != len(own):
            words = f"has {len(others)} prices in {currency} and {len(own)} in its own currency: give each in both"
            problems.append(Problem(field, words))
            continue
        problems += [
            Problem(f"{field}[{index}]", f"differs in {currency} by more than its amounts")
            for index, (one, other) in enumerate(zip(own, others, strict=True))
            if _without_amounts(one) != _without_amounts(other)
        ]
    return problems


class _Splitting:
    """Takes prices apart, and collects what is wrong with their amounts."""

    def __init__(self, currencies: Sequence[str]) -> None:
        self._currencies = currencies
        self._problems: dict[Problem, None] = {}

    @property
    def problems(self) -> list[Problem]:
        """Return what was found, each once."""
        return list(self._problems)

    def of(self, params: Mapping[str, Any], currency: str, field: str) -> dict[str, Any]:
        """Return the parameters in one currency."""
        return {name: self._part(str(name), part, currency, f"{field}.{name}") for name, part in params.items()}

    def _part(self, name: str, part: Any, currency: str, field: str) -> Any:
        if is_amount(name):
            return self._amount(part, currency, field)
        if isinstance(part, list | tuple):
            return [
                self.of(one, currency, f"{field}[{index}]") if isinstance(one, Mapping) else one
                for index, one in enumerate(part)
            ]
        return part

    def _amount(self, part: Any, currency: str, field: str) -> Any:
        wanted = self._currencies
        if not isinstance(part, Mapping):
            if len(wanted) > 1:
                example = ", ".join(f"{code}: ..." for code in wanted)
                self._add(field, f"the plan is sold in several currencies: write {{{example}}}")
            return part
        if missing := [code for code in wanted if code not in part]:
            self._add(field, f"has no amount in {', '.join(missing)}")
        if foreign := sorted(str(code) for code in part if code not in wanted):
            self._add(f"{field}.{foreign[0]}", "is neither the plan's currency nor one of its other_currencies")
        return part.get(currency)

    def _add(self, field: str, message: str) -> None:
        self._problems[Problem(field, message)] = None


def _joined(name: str, by_currency: Mapping[str, Any]) -> Any:
    parts = {currency: values[name] for currency, values in by_currency.items()}
    return parts if is_amount(name) and len(parts) > 1 else join_params(parts)


def _without_amounts(price: PriceTerms) -> tuple[Any, ...]:
    return price.model, price.meter, price.description, _plain(price.params)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: None if is_amount(name) else _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
