"""What Stripe has of the catalogue, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualProduct:
    """A product at Stripe. `owner`: the installation that its metadata names, '' where it names none."""

    id: str
    owner: str
    name: str
    description: str
    active: bool
    tax_code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualMeter:
    """A meter at Stripe; it has no metadata, so its event name says whose it is."""

    id: str
    event_name: str
    display_name: str
    active: bool
    formula: str
    customer_key: str
    value_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActualPrice:
    """A price at Stripe. `terms_digest` stands in its metadata."""

    id: str
    owner: str
    lookup_key: str
    product_id: str
    nickname: str
    active: bool
    tax_behavior: str
    terms_digest: str


@dataclass(frozen=True, slots=True)
class Actual:
    """What was found: products by id, meters by event name, prices by lookup key, and by id those known to us."""

    products: Mapping[str, ActualProduct] = field(default_factory=dict)
    meters: Mapping[str, ActualMeter] = field(default_factory=dict)
    prices: Mapping[str, ActualPrice] = field(default_factory=dict)
    prices_by_id: Mapping[str, ActualPrice] = field(default_factory=dict)
