"""A plan version as rating needs it: its prices read once, for any number of subscriptions and periods."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from control_plane.rating.model import PriceModel, Unit
from control_plane.rating.models import read_price
from control_plane.rating.words import unit_named, unit_of

REQUESTS = "requests"
# where routes weigh differently, one request is not one unit
WEIGHTED_REQUESTS = Unit(singular="request unit", plural="request units")
FULL = "full"
CARRY = "carry"
PRORATED = "prorated"


@dataclass(frozen=True, slots=True, kw_only=True)
class SoldPrice:
    """A price as the catalogue holds it; `meter` is None where nothing is counted."""

    position: int
    model: str
    meter: str | None
    params: Mapping[str, Any]
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPrice:
    """The same, read. `unit`: what its meter counts, in words."""

    position: int
    model: str
    meter: str | None
    price: PriceModel
    description: str
    unit: Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedVersion:
    """A version of a plan or add-on in one currency. Make it by `read_version` and keep it: it never changes.

    `quota_on_change`: `full`, `carry` or `prorated`. `quota_hard`: calls above the quota are refused, so that a
    quota of the subscription's own, or of add-ons, changes no price. `quota_units` of an add-on: what one brings.
    """

    version_id: str
    name: str
    currency: str
    prices: tuple[VersionPrice, ...] = ()
    is_add_on: bool = False
    quota_units: int | None = None
    quota_hard: bool = False
    quota_on_change: str = FULL
    models: frozenset[str] = field(init=False, repr=False, compare=False, default=frozenset())

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", frozenset(price.model for price in self.prices))


def read_version(
    *,
    version_id: str,
    name: str,
    currency: str,
    prices: Iterable[SoldPrice],
    is_add_on: bool = False,
    quota_units: int | None = None,
    quota_hard: bool = False,
    quota_on_change: str = FULL,
    meter_names: Mapping[str, str] | None = None,
    weighted: bool = False,
) -> RatedVersion:
    """Return a version ready for rating. `prices` are those in `currency`, in any order.

    `meter_names`: of declared meters, by code. `weighted`: routes of the API product count different quota units.

    Raises:
        RatingError: a price has unusable parameters; names the first.
    """
    names = meter_names or {}
    read = []
    for sold in sorted(prices, key=lambda sold: sold.position):
        unit = _unit(sold.meter, names, weighted=weighted)
        read.append(
            VersionPrice(
                position=sold.position,
                model=sold.model,
                meter=sold.meter,
                price=read_price(sold.model, sold.params, currency),
                description=sold.description or _description(sold, name, names, is_add_on=is_add_on),
                unit=unit,
            )
        )
    return RatedVersion(
        version_id=version_id,
        name=name,
        currency=currency,
        prices=tuple(read),
        is_add_on=is_add_on,
        quota_units=quota_units,
        quota_hard=quota_hard,
        quota_on_change=quota_on_change,
    )


def _unit(meter: str | None, names: Mapping[str, str], *, weighted: bool) -> Unit:
    if meter is None or meter == REQUESTS:
        return WEIGHTED_REQUESTS if weighted else unit_of(REQUESTS)
    return unit_named(names[meter]) if meter in names else unit_of(meter)


def _description(sold: SoldPrice, name: str, names: Mapping[str, str], *, is_add_on: bool) -> str:
    if sold.model == "setup_fee":
        return "Setup fee"
    if sold.model == "commitment":
        return "Minimum"
    if sold.meter is None:
        return "" if is_add_on else f"{name} plan"
    if sold.meter in names:
        return names[sold.meter]
    plural = unit_of(sold.meter).plural
    return f"{plural[:1].upper()}{plural[1:]}"
