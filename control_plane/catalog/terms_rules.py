"""What makes the terms of a plan version acceptable, wherever they come from. Pure.

Two steps, since a draft may be kept that cannot be sold yet: each field by itself in canonical form,
then what the terms say as a whole (`sale_rules`). `check_terms` does both, and tells everything it finds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from control_plane.catalog.model import FIXED_MODELS, PLAN, REQUESTS_METER, PlanTerms, PriceTerms
from control_plane.catalog.price_currencies import price_problems
from control_plane.catalog.prices import check_price_params
from control_plane.catalog.rules import (
    check_billable_below,
    check_concurrency,
    check_currency,
    check_entitlements,
    check_event_retention,
    check_level,
    check_quota,
    check_quota_cap,
    check_shown,
    check_trial,
)
from control_plane.catalog.sale_rules import Sale, reasons_against
from control_plane.foundation.errors import Problem, ValidationFailedError, refuse
from control_plane.foundation.windows import check_windows

MAX_PRICES = 20
MAX_CURRENCIES = 20
_CHOICES = {
    "interval": ("month", "year"),
    "redis_down": ("open", "closed"),
    "on_past_due": ("serve", "refuse"),
    "after_trial": ("continue", "cancel"),
    "quota_on_change": ("full", "carry", "prorated"),
    "payment": ("invoice", "prepaid"),
    "billed_by": ("own", "stripe"),
}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Names:
    """How those who wrote the terms call their fields, so that an error names what they wrote."""

    prefix: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    params: str = "params."

    def __call__(self, name: str) -> str:
        return self.prefix + self.renamed.get(name, name)


OF_TERMS = Names()
_FILE_WORDS = {
    "quota_units": "quota.units",
    "quota_hard": "quota.on_exceed",
    "quota_cap_units": "quota.cap",
    "windows": "limits",
    "lease_ms": "lease_seconds",
    "billable_below": "billable_statuses.below",
    "trial_days": "trial.days",
    "after_trial": "trial.after",
    "sla_level": "sla",
    "support_level": "support",
}


def names_in_file(path: str = "") -> Names:
    """Return how a plan file calls the fields of the plan at this path."""
    return Names(prefix=f"{path}." if path else "", renamed=_FILE_WORDS, params="")


def check_terms(terms: PlanTerms, *, sale: Sale, names: Names = OF_TERMS) -> PlanTerms:
    """Return the terms in canonical form.

    Raises:
        ValidationFailedError: with everything that keeps them from being sold (`prices[0].params.unit_amount`).
    """
    found = _Form(sale.kind, names).read(terms)
    reasons = reasons_against(
        found.terms, sale=sale, name=names, positions=found.positions, whole=not found.problems
    )
    refuse([*found.problems, *reasons])
    return found.terms


def check_form(terms: PlanTerms, *, kind: str = PLAN, names: Names = OF_TERMS) -> PlanTerms:
    """Return the terms in canonical form, whether or not they can be sold.

    Raises:
        ValidationFailedError: with every field that is wrong by itself.
    """
    found = _Form(kind, names).read(terms)
    refuse(found.problems)
    return found.terms


@dataclass(frozen=True, slots=True)
class _Formed:
    """Terms as far as they could be read. `positions`: where each of their own prices stood in the list given."""

    terms: PlanTerms
    problems: tuple[Problem, ...]
    positions: tuple[int, ...]


class _Form:
    """Collects problems, so that people mend everything in one go."""

    def __init__(self, kind: str, names: Names) -> None:
        self._kind = kind
        self._names = names
        self._problems: list[Problem] = []

    def read(self, terms: PlanTerms) -> _Formed:
        names = self._names
        for name, allowed in _CHOICES.items():
            if getattr(terms, name) not in allowed:
                self._problems.append(Problem(names(name), f"must be one of {', '.join(allowed)}"))
        currency = self._checked(lambda: check_currency(terms.currency, field=names("currency")))
        terms = replace(
            self._with_quota(terms),
            currency=currency or "USD",
            windows=self._checked(lambda: check_windows(terms.windows, field=names("windows"))) or (),
            concurrency=self._checked(
                lambda: check_concurrency(
                    terms.concurrency,
                    field=names("concurrency"),
                    lease_field=names.renamed.get("lease_ms", "lease_ms"),
                )
            ),
            entitlements=self._checked(lambda: check_entitlements(terms.entitlements, field=names("entitlements")))
            or (),
            billable_below=self._checked(
                lambda: check_billable_below(terms.billable_below, field=names("billable_below"))
            ),
            event_retention_days=self._checked(
                lambda: check_event_retention(terms.event_retention_days, field=names("event_retention_days"))
            ),
            trial_days=self._checked(lambda: check_trial(terms.trial_days, field=names("trial_days"))),
            features=self._checked(lambda: check_shown(terms.features, field=names("features"))) or (),
            sla_level=self._checked(lambda: check_level(terms.sla_level, field=names("sla_level"))),
            support_level=self._checked(lambda: check_level(terms.support_level, field=names("support_level"))),
        )
        prices, positions = self._prices(terms)
        return _Formed(replace(terms, prices=prices), tuple(self._problems), positions)

    def _with_quota(self, terms: PlanTerms) -> PlanTerms:
        names, before = self._names, len(self._problems)
        units = self._checked(lambda: check_quota(terms.quota_units, field=names("quota_units")))
        if len(self._problems) > before:
            # of a quota that is wrong itself nothing more is said
            return replace(terms, quota_units=None, quota_hard=False, quota_cap_units=None)
        if units is None and terms.quota_hard:
            self._problems.append(Problem(names("quota_hard"), "needs quota_units"))
            terms = replace(terms, quota_hard=False)
        cap = self._checked(
            lambda: check_quota_cap(
                terms.quota_cap_units,
                quota_units=units,
                quota_hard=terms.quota_hard,
                field=names("quota_cap_units"),
            )
        )
        return replace(terms, quota_cap_units=cap)

    def _prices(self, terms: PlanTerms) -> tuple[tuple[PriceTerms, ...], tuple[int, ...]]:
        path = self._names("prices")
        given: dict[str, list[PriceTerms]] = {"": []}
        for price in terms.prices:
            currency = "" if price.currency == terms.currency else price.currency
            given.setdefault(currency, []).append(replace(price, currency=currency))
        if len(given[""]) > MAX_PRICES:
            self._problems.append(Problem(path, f"must have at most {MAX_PRICES} entries"))
            return (), ()
        if len(given) > MAX_CURRENCIES:
            self._problems.append(Problem(path, f"must be in at most {MAX_CURRENCIES} currencies"))
            return (), ()
        before, positions = len(self._problems), []
        checked: list[PriceTerms] = []
        for currency in sorted(given):
            for index, price in enumerate(given[currency]):
                found = self._price(price, terms, f"{path}[{index}]")
                if found is not None:
                    checked.append(found)
                    positions += [] if currency else [index]
        if len(self._problems) == before:
            self._problems += price_problems(checked, field=path)
        return tuple(checked), tuple(positions)

    def _price(self, price: PriceTerms, terms: PlanTerms, path: str) -> PriceTerms | None:
        """Return the price in canonical form; overage without `included` includes the plan's quota."""
        currency = self._checked(lambda: check_currency(price.currency or terms.currency, field=path))
        if currency is None:
            return None
        params = dict(price.params)
        included = self._kind == PLAN and price.meter == REQUESTS_METER and terms.quota_units is not None
        if price.model == "overage" and "included" not in params and included:
            params["included"] = terms.quota_units
        params_path = f"{path}.{self._names.params}".rstrip(".")
        checked = self._checked(
            lambda: check_price_params(price.model, params, currency=currency, field=params_path),
            suffix=f".{price.currency}" if price.currency else "",
        )
        if price.model in FIXED_MODELS and price.meter is not None:
            article = "a flat price" if price.model == "flat" else f"a {price.model.replace('_', ' ')}"
            self._problems.append(Problem(f"{path}.meter", f"{article} counts nothing: leave it out"))
            return None
        if checked is None:
            return None
        return replace(price, params=checked, description=price.description.strip())

    def _checked(self, check: Callable[[], T], *, suffix: str = "") -> T | None:
        """`suffix`: of which currency an amount is wrong, unless it is wrong in the first one, too."""
        try:
            return check()
        except ValidationFailedError as error:
            told = {problem.field for problem in self._problems}
            self._problems += [
                replace(problem, field=problem.field + suffix)
                for problem in error.problems
                if not suffix or problem.field not in told
            ]
            return None


def reasons_not_to_sell(terms: PlanTerms, *, sale: Sale, names: Names = OF_TERMS) -> list[Problem]:
    """Return all that keeps terms in canonical form (a draft's) from being sold."""
    own = range(sum(not price.currency for price in terms.prices))
    return reasons_against(terms, sale=sale, name=names, positions=own, whole=True)
