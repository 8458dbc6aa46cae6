"""Which prices Stripe rates itself, and which our rating puts on its invoices as lines. Pure.

What both can do Stripe does, so that whoever looks at Stripe sees how a bill came about. Ours is what Stripe
cannot count or would charge otherwise than docs/pricing-models.md promises.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

from control_plane.catalog.stripe_limits import minor_decimal

Kind = Literal["flat", "metered", "setup_fee", "carrier"]
# meters whose values add up, hour after hour, as Stripe's do
ADDS_UP: Final = frozenset({"sum", "count"})
NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Tier:
    """Units up to and with `up_to` (None: the rest) at `unit_amount` minor units each."""

    up_to: int | None
    unit_amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """A price as Stripe has it; amounts in minor units. `unit_amount` None: `tiers` say it.

    `package_size`: units are charged in packages of so many, one begun is charged whole.
    """

    kind: Kind
    unit_amount: Decimal | None = None
    tiers: tuple[Tier, ...] = ()
    tiers_mode: Literal["graduated", "volume"] | None = None
    package_size: int | None = None


@dataclass(frozen=True, slots=True)
class Ours:
    """A price that our rating charges, with a line on Stripe's invoice; `reason` is a public phrase."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedPrice:
    """A price of a plan version in one currency; `params` are canonical."""

    model: str
    meter: str | None
    params: Mapping[str, Any]
    currency: str


_Rate = Callable[[RatedPrice], Native | Ours]


def stripe_rating(price: RatedPrice, aggregation: str) -> Native | Ours:
    """Say who rates a price. `aggregation` is its meter's; measured and reported units are a `sum`."""
    if price.model == "commitment":
        return Ours("what is missing to a minimum is known only when the period's other lines are")
    if price.meter is not None and aggregation not in ADDS_UP:
        return Ours(f"Stripe adds up what it is told of a meter, and this one counts {_WORDS[aggregation]}")
    if price.model == "percentage":
        return Ours("Stripe has no price that is a part of an amount")
    return _OF_MODEL[price.model](price)


_WORDS: Final = {"unique": "different values", "max": "the largest value", "latest": "the last value"}


def _fixed(kind: Kind) -> _Rate:
    return lambda price: Native(kind=kind, unit_amount=minor_decimal(price.params["amount"], price.currency))


def _per_unit(price: RatedPrice) -> Native:
    return Native(kind="metered", unit_amount=minor_decimal(price.params["unit_amount"], price.currency))


def _overage(price: RatedPrice) -> Native:
    if not price.params["included"]:
        return _per_unit(price)
    unit_amount = minor_decimal(price.params["unit_amount"], price.currency)
    tiers = (Tier(price.params["included"], NOTHING), Tier(None, unit_amount))
    return Native(kind="metered", tiers=tiers, tiers_mode="graduated")


def _tiered(mode: Literal["graduated", "volume"]) -> _Rate:
    def rate(price: RatedPrice) -> Native | Ours:
        tiers = price.params["tiers"]
        if any(Decimal(tier.get("flat_amount", "0")) for tier in tiers):
            return Ours("amounts per tier are cut by time here, and are due once a unit falls into the tier")
        found = tuple(
            Tier(tier["up_to"], minor_decimal(tier.get("unit_amount", "0"), price.currency)) for tier in tiers
        )
        if len(found) == 1:
            return Native(kind="metered", unit_amount=found[0].unit_amount)
        return Native(kind="metered", tiers=found, tiers_mode=mode)

    return rate


def _package(price: RatedPrice) -> Native:
    amount = minor_decimal(price.params["amount"], price.currency)
    if price.params["size"] == 1:
        return Native(kind="metered", unit_amount=amount)
    return Native(kind="metered", unit_amount=amount, package_size=price.params["size"])


_OF_MODEL: Final[Mapping[str, _Rate]] = {
    "flat": _fixed("flat"),
    "setup_fee": _fixed("setup_fee"),
    "per_unit": _per_unit,
    "overage": _overage,
    "graduated": _tiered("graduated"),
    "volume": _tiered("volume"),
    "package": _package,
}
