"""The terms of a plan between the words of a plan file and values: reading, and writing. Pure.

What they may say is judged by `terms_rules`.
"""

from collections.abc import Mapping
from typing import Any

from control_plane.catalog.model import ADD_ON, FIXED_MODELS, REQUESTS_METER, PlanTerms, PriceTerms
from control_plane.catalog.plan_schema import AddOnTermsShape, PlanTermsShape, PriceShape
from control_plane.catalog.price_currencies import join_params, split_params
from control_plane.catalog.rules import check_currency
from control_plane.foundation.errors import ConflictError, Problem, ValidationFailedError, refuse
from control_plane.foundation.windows import PER_MS
from gateway_contract.records import Concurrency, Window

_PER = {window_ms: name for name, window_ms in PER_MS.items()}


class LimitNotExpressibleError(ConflictError):
    """A plan file limits calls by second, minute, hour or day."""

    def __init__(self, plan: str, window_ms: int) -> None:
        super().__init__(
            "limit_not_expressible", f"Plan {plan} has a limit over {window_ms} ms, which a plan file cannot say."
        )


def read_terms(shape: PlanTermsShape | AddOnTermsShape, *, path: str = "") -> PlanTerms:
    """Return the terms as they are written, unchecked but for amounts that lack a currency.

    Raises:
        ValidationFailedError: a currency twice, or amounts not in all currencies; names the field below `path`.
    """
    prefix = f"{path}." if path else ""
    quota = shape.quota
    common: dict[str, Any] = {
        "interval": shape.interval,
        "currency": shape.currency,
        "quota_units": quota.units if quota else None,
        "entitlements": tuple(shape.entitlements),
        "by_quote": shape.by_quote,
        "billed_by": shape.billed_by,
        "features": tuple(shape.features),
        "sla_level": shape.sla,
        "support_level": shape.support,
        "prices": _prices(shape, prefix),
    }
    if isinstance(shape, AddOnTermsShape):
        return PlanTerms(**common)
    trial, limit = shape.trial, shape.concurrency
    return PlanTerms(
        **common,
        quota_hard=shape.quota is not None and shape.quota.on_exceed == "refuse",
        quota_cap_units=shape.quota.cap if shape.quota else None,
        windows=tuple(Window(limit=one.limit, window_ms=PER_MS[one.per]) for one in shape.limits),
        concurrency=Concurrency(limit.limit, limit.lease_seconds * 1000) if limit else None,
        redis_down=shape.redis_down,
        on_past_due=shape.on_past_due,
        billable_below=shape.billable_statuses.below if shape.billable_statuses else None,
        event_retention_days=shape.event_retention_days,
        trial_days=trial.days if trial else None,
        after_trial=trial.after if trial else "continue",
        quota_on_change=shape.quota_on_change,
        payment=shape.payment,
    )


def _prices(shape: PlanTermsShape | AddOnTermsShape, prefix: str) -> tuple[PriceTerms, ...]:
    others = shape.other_currencies
    for index, code in enumerate(others):
        check_currency(code, field=f"{prefix}other_currencies[{index}]")
        if code == shape.currency or code in others[:index]:
            raise ValidationFailedError(f"{prefix}other_currencies[{index}]", "is one of the plan's already")
    if others and not shape.prices:
        raise ValidationFailedError(f"{prefix}other_currencies", "needs prices: what is free suits every currency")
    currencies = (shape.currency, *others)
    found: dict[str, list[PriceTerms]] = {currency: [] for currency in currencies}
    problems: list[Problem] = []
    for index, price in enumerate(shape.prices):
        try:
            split = split_params(price.params, currencies, field=f"{prefix}prices[{index}]")
        except ValidationFailedError as error:
            problems += error.problems
            continue
        for currency, params in split.items():
            found[currency].append(_price(price, params, "" if currency == shape.currency else currency))
    refuse(problems)
    return tuple(price for currency in (shape.currency, *sorted(others)) for price in found[currency])


def _price(price: PriceShape, params: dict[str, Any], currency: str) -> PriceTerms:
    meter = price.meter or (None if price.model in FIXED_MODELS else REQUESTS_METER)
    return PriceTerms(
        model=price.model, meter=meter, params=params, description=price.description, currency=currency
    )


def written_terms(terms: PlanTerms, *, code: str, kind: str) -> dict[str, Any]:
    """Return the terms in the words of a plan file; what is as it is by default is left out.

    Raises:
        LimitNotExpressibleError: a limit over a time that plan files have no word for.
    """
    standard = PlanTerms(interval=terms.interval, currency=terms.currency)
    given: dict[str, Any] = {"interval": terms.interval, "currency": terms.currency}
    given |= {"other_currencies": list(terms.other_currencies)} if terms.other_currencies else {}
    given |= _quota(terms, kind) | _limits(terms, code)
    for field, word in _PLAIN_WORDS.items():
        value = getattr(terms, field)
        if value != getattr(standard, field):
            given[word] = list(value) if isinstance(value, tuple) else value
    if terms.trial_days is not None:
        given["trial"] = {"days": terms.trial_days, "after": terms.after_trial}
    if terms.billable_below is not None:
        given["billable_statuses"] = {"below": terms.billable_below}
    return given | ({"prices": _written_prices(terms)} if terms.prices else {})


_PLAIN_WORDS: Mapping[str, str] = {
    "by_quote": "by_quote",
    "payment": "payment",
    "billed_by": "billed_by",
    "quota_on_change": "quota_on_change",
    "entitlements": "entitlements",
    "features": "features",
    "sla_level": "sla",
    "support_level": "support",
    "redis_down": "redis_down",
    "on_past_due": "on_past_due",
    "event_retention_days": "event_retention_days",
}


def _quota(terms: PlanTerms, kind: str) -> dict[str, Any]:
    if terms.quota_units is None:
        return {}
    if kind == ADD_ON:
        return {"quota": {"units": terms.quota_units}}
    cap = {} if terms.quota_cap_units is None else {"cap": terms.quota_cap_units}
    on_exceed = "refuse" if terms.quota_hard else "charge"
    return {"quota": {"units": terms.quota_units, "on_exceed": on_exceed, **cap}}


def _limits(terms: PlanTerms, code: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for window in terms.windows:
        if window.window_ms not in _PER:
            raise LimitNotExpressibleError(code, window.window_ms)
    if terms.windows:
        given["limits"] = [{"limit": one.limit, "per": _PER[one.window_ms]} for one in terms.windows]
    if terms.concurrency is not None:
        lease_seconds = terms.concurrency.lease_ms // 1000
        given["concurrency"] = {"limit": terms.concurrency.limit, "lease_seconds": lease_seconds}
    return given


def _written_prices(terms: PlanTerms) -> list[dict[str, Any]]:
    currencies = (terms.currency, *terms.other_currencies)
    by_currency = {currency: terms.in_currency(currency).prices for currency in currencies}
    return [
        {
            "model": price.model,
            **({} if price.meter is None else {"meter": price.meter}),
            **join_params({currency: by_currency[currency][index].params for currency in currencies}),
            **({"description": price.description} if price.description else {}),
        }
        for index, price in enumerate(by_currency[terms.currency])
    ]
