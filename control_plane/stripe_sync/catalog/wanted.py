"""What Stripe should have of a plan version: a product, meters, and prices in all its currencies. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from control_plane.catalog.model import ADD_ON, PlanFacts, PlanTerms
from control_plane.catalog.stripe_limits import THREE, stripe_problems
from control_plane.foundation.money import minor_units
from control_plane.stripe_sync.catalog.names import lookup_key, meter_event_name, product_id
from control_plane.stripe_sync.catalog.native import NOTHING, Native, Ours, RatedPrice, stripe_rating

SOFTWARE_AS_A_SERVICE: Final = "txcd_10103001"  # "Software as a service (SaaS) - business use"
EXCLUSIVE, UNSPECIFIED = "exclusive", "unspecified"
_DIGEST_DIGITS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFacts:
    """A plan version as the catalogue has it. `aggregations`: of declared meters, by code."""

    version_id: str
    plan_id: str
    version: int
    plan: PlanFacts
    api_product_id: str
    product_name: str
    terms: PlanTerms
    aggregations: Mapping[str, str]
    meter_names: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedProduct:
    """A plan's product. `tax_code` None: taxes are not Stripe's matter."""

    id: str
    plan_id: str
    name: str
    description: str
    tax_code: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedMeter:
    """A meter that adds up what is reported for a customer."""

    event_name: str
    meter: str
    display_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedPrice:
    """A price. `event_name` names its meter, None where nothing is counted; `interval` None: charged once."""

    lookup_key: str
    plan_version_id: str
    position: int
    currency: str
    product_id: str
    nickname: str
    native: Native
    interval: str | None
    event_name: str | None
    tax_behavior: str

    @property
    def terms_digest(self) -> str:
        """Return a digest of the terms that Stripe never lets change; it stands in the price's metadata."""
        native = self.native
        return digest_of(
            self.currency,
            self.product_id,
            native.kind,
            native.unit_amount,
            [(tier.up_to, str(tier.unit_amount)) for tier in native.tiers],
            native.tiers_mode,
            native.package_size,
            self.interval,
            self.event_name,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OursHere:
    """A price that our rating charges."""

    position: int
    currency: str
    model: str
    meter: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Everything that one plan version needs at Stripe, `problems` being what speaks against it."""

    version_id: str
    name: str
    api_product_id: str
    product: WantedProduct
    meters: tuple[WantedMeter, ...]
    prices: tuple[WantedPrice, ...]
    ours: tuple[OursHere, ...]
    problems: tuple[str, ...]


def digest_of(*values: object) -> str:
    """Return a digest of values; it is kept at Stripe, so what it is made of stays as it is."""
    return sha256(json.dumps(values, default=str).encode()).hexdigest()[:_DIGEST_DIGITS]


def wanted_of(facts: VersionFacts, *, installation: str, automatic_tax: bool) -> Wanted:
    """Return what a plan version needs at Stripe."""
    name = f"{facts.plan.code} v{facts.version}"
    product = WantedProduct(
        id=product_id(installation, facts.plan_id),
        plan_id=facts.plan_id,
        name=facts.plan.name,
        description=facts.plan.description,
        tax_code=SOFTWARE_AS_A_SERVICE if automatic_tax else None,
    )
    rated = rated_prices(facts)
    build = _Builder(facts=facts, installation=installation, automatic_tax=automatic_tax, product_id=product.id)
    prices = [
        build.price(position, price, rating) for position, price, rating in rated if isinstance(rating, Native)
    ]
    prices += build.carriers(prices)
    counted = {price.meter for _, price, rating in rated if price.meter and isinstance(rating, Native)}
    ours = [
        OursHere(
            position=position,
            currency=price.currency,
            model=price.model,
            meter=price.meter,
            reason=rating.reason,
        )
        for position, price, rating in rated
        if isinstance(rating, Ours)
    ]
    return Wanted(
        version_id=facts.version_id,
        name=name,
        api_product_id=facts.api_product_id,
        product=product,
        meters=tuple(build.meter(code) for code in sorted(counted)),
        prices=tuple(prices),
        ours=tuple(ours),
        problems=tuple(dict.fromkeys(_problems(facts, rated))),
    )


def _priced(terms: PlanTerms) -> Iterator[tuple[int, RatedPrice]]:
    """Yield the prices of every currency with their positions, which are the same in each."""
    for currency in (terms.currency, *terms.other_currencies):
        for position, price in enumerate(terms.in_currency(currency).prices):
            yield (
                position,
                RatedPrice(model=price.model, meter=price.meter, params=price.params, currency=currency),
            )


def rated_prices(facts: VersionFacts) -> list[tuple[int, RatedPrice, Native | Ours]]:
    """Return all prices of a version with their positions, and who rates each."""
    return [
        (position, price, stripe_rating(price, facts.aggregations.get(price.meter or "", "sum")))
        for position, price in _priced(facts.terms)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Builder:
    """Makes the wanted objects of one plan version."""

    facts: VersionFacts
    installation: str
    automatic_tax: bool
    product_id: str

    def meter(self, code: str) -> WantedMeter:
        return WantedMeter(
            event_name=self._event_name(code),
            meter=code,
            display_name=f"{self.facts.product_name}: {self.facts.meter_names.get(code, code)}",
        )

    def price(self, position: int, price: RatedPrice, native: Native) -> WantedPrice:
        counts = f"{price.model} {price.meter}" if price.meter else price.model
        return WantedPrice(
            lookup_key=self._lookup_key(position, price.currency),
            plan_version_id=self.facts.version_id,
            position=position,
            currency=price.currency,
            product_id=self.product_id,
            nickname=f"{self._name}: {counts.replace('_', ' ')}",
            native=native,
            interval=None if native.kind == "setup_fee" else self.facts.terms.interval,
            event_name=self._event_name(price.meter) if price.meter else None,
            tax_behavior=EXCLUSIVE if self.automatic_tax else UNSPECIFIED,
        )

    def carriers(self, prices: list[WantedPrice]) -> Iterator[WantedPrice]:
        """Yield a price of nothing for every currency in which a plan has no recurring price.

        Add-ons need none: they stand beside a plan.
        """
        terms = self.facts.terms
        if self.facts.plan.kind == ADD_ON:
            return
        for currency in (terms.currency, *terms.other_currencies):
            own = terms.in_currency(currency).prices
            if not any(price.interval for price in prices if price.currency == currency):
                yield WantedPrice(
                    lookup_key=self._lookup_key(len(own), currency),
                    plan_version_id=self.facts.version_id,
                    position=len(own),
                    currency=currency,
                    product_id=self.product_id,
                    nickname=f"{self._name}: carries what is charged otherwise",
                    native=Native(kind="carrier", unit_amount=NOTHING),
                    interval=terms.interval,
                    event_name=None,
                    tax_behavior=EXCLUSIVE if self.automatic_tax else UNSPECIFIED,
                )

    @property
    def _name(self) -> str:
        return f"{self.facts.plan.code} v{self.facts.version}"

    def _event_name(self, meter: str) -> str:
        return meter_event_name(self.installation, self.facts.plan.api_product, meter)

    def _lookup_key(self, position: int, currency: str) -> str:
        return lookup_key(self.installation, self.facts.plan.code, self.facts.version, position, currency)


def _problems(facts: VersionFacts, rated: list[tuple[int, RatedPrice, Native | Ours]]) -> Iterator[str]:
    """Yield every reason for which Stripe cannot have this, as sentences; most were told at publishing."""
    for problem in stripe_problems(facts.terms):
        yield f"{problem[0].upper()}{problem[1:]}."
    for _, price, rating in rated:
        if isinstance(rating, Ours) and minor_units(price.currency) == THREE:
            yield f"Stripe charges {price.currency} in steps of 0.010 only; a {price.model} price keeps none."
