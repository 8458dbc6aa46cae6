"""What differs between what we want at Stripe and what is there, and what mends it. Pure.

The same steps lay a new plan there, name what drifted, and mend it. What another made is never touched.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from control_plane.stripe_sync.catalog.actual import Actual, ActualMeter, ActualPrice, ActualProduct
from control_plane.stripe_sync.catalog.wanted import (
    UNSPECIFIED,
    Wanted,
    WantedMeter,
    WantedPrice,
    WantedProduct,
)

Action = Literal["create", "update", "none"]
Thing = Literal["product", "meter", "price"]
CUSTOMER_KEY, VALUE_KEY = "stripe_customer_id", "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What has to be done to one object, `because` of these sentences. `stripe_id` None: there is none yet.

    `problems` say what cannot be done: then nothing is. `is_inactive`: a meter has to be reactivated first.
    """

    thing: Thing
    name: str
    action: Action
    because: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    stripe_id: str | None = None
    is_inactive: bool = False


def steps(wanted: Wanted, actual: Actual, *, installation: str, known: Mapping[str, str]) -> list[Step]:
    """Return a step for every object of a plan version, in the order in which they have to be done.

    `known`: Stripe's id by lookup key of prices that we have made.
    """
    found = [product_step(wanted.product, actual.products.get(wanted.product.id), installation=installation)]
    found += [meter_step(meter, actual.meters.get(meter.event_name)) for meter in wanted.meters]
    for price in wanted.prices:
        known_id = known.get(price.lookup_key)
        ours = actual.prices_by_id.get(known_id) if known_id else None
        found.append(price_step(price, actual.prices.get(price.lookup_key), ours, installation=installation))
    return found


def product_step(wanted: WantedProduct, there: ActualProduct | None, *, installation: str) -> Step:
    if there is None:
        return Step(thing="product", name=wanted.id, action="create", because=("Stripe does not have it.",))
    if there.owner != installation:
        return _not_ours("product", wanted.id, there.id, there.owner)
    because: list[str] = []
    if not there.active:
        because.append("It is archived at Stripe.")
    because += _differs("name", wanted.name, there.name)
    because += _differs("description", wanted.description, there.description)
    if wanted.tax_code is not None:
        because += _differs("tax code", wanted.tax_code, there.tax_code or "")
    return _update_if("product", wanted.id, there.id, because)


def meter_step(wanted: WantedMeter, there: ActualMeter | None) -> Step:
    if there is None:
        return Step(thing="meter", name=wanted.event_name, action="create", because=("Stripe does not have it.",))
    problems = [
        sentence
        for is_wrong, sentence in (
            (there.formula != "sum", f"It counts by {there.formula} at Stripe, not by sum."),
            (there.customer_key != CUSTOMER_KEY, f"It finds the customer in {there.customer_key}."),
            (there.value_key != VALUE_KEY, f"It finds the value in {there.value_key}."),
        )
        if is_wrong
    ]
    if problems:
        problems.append("Stripe lets nobody change that: count it by a meter of another code.")
        return Step(
            thing="meter", name=wanted.event_name, action="none", problems=tuple(problems), stripe_id=there.id
        )
    because = [] if there.active else ["It is inactive at Stripe."]
    because += _differs("name", wanted.display_name, there.display_name)
    found = _update_if("meter", wanted.event_name, there.id, because)
    return replace(found, is_inactive=not there.active)


def price_step(
    wanted: WantedPrice, there: ActualPrice | None, ours: ActualPrice | None, *, installation: str
) -> Step:
    """Return what a price needs. `there` has its lookup key, `ours` is what we made for it: mostly the same."""
    if there is not None and there.owner != installation:
        return _not_ours("price", wanted.lookup_key, there.id, there.owner)
    because: list[str] = []
    if there is None and ours is not None:
        because.append("Its lookup key was taken away at Stripe.")
    there = there or ours
    if there is None:
        return Step(thing="price", name=wanted.lookup_key, action="create", because=("Stripe does not have it.",))
    problems = []
    if there.terms_digest != wanted.terms_digest:
        problems.append(f"{there.id} has other terms at Stripe, which cannot be changed there.")
    if there.tax_behavior not in (UNSPECIFIED, wanted.tax_behavior) and wanted.tax_behavior != UNSPECIFIED:
        problems.append(f"Its tax behaviour at Stripe is {there.tax_behavior}, which cannot be changed there.")
    if problems:
        return Step(
            thing="price", name=wanted.lookup_key, action="none", problems=tuple(problems), stripe_id=there.id
        )
    if not there.active:
        because.append("It is archived at Stripe.")
    because += _differs("nickname", wanted.nickname, there.nickname)
    if there.tax_behavior == UNSPECIFIED:
        because += _differs("tax behaviour", wanted.tax_behavior, there.tax_behavior)
    return _update_if("price", wanted.lookup_key, there.id, because)


def _not_ours(thing: Thing, name: str, stripe_id: str, owner: str) -> Step:
    whose = f"installation {owner}" if owner else "something else"
    problem = (
        f"{stripe_id} at Stripe has this name and belongs to {whose}: choose another KM_STRIPE_INSTALLATION, "
        "or rename it there."
    )
    return Step(thing=thing, name=name, action="none", problems=(problem,), stripe_id=stripe_id)


def _update_if(thing: Thing, name: str, stripe_id: str, because: Sequence[str]) -> Step:
    action: Action = "update" if because else "none"
    return Step(thing=thing, name=name, action=action, because=tuple(because), stripe_id=stripe_id)


def _differs(what: str, wanted: str, there: str) -> Iterator[str]:
    if wanted != there:
        yield f"Its {what} at Stripe is {there!r}, here {wanted!r}."
