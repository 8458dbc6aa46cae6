"""Reading from Stripe what there is of what we want there."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Final, TypeVar

import stripe as sdk

from control_plane.stripe_sync.catalog.actual import Actual, ActualMeter, ActualPrice, ActualProduct
from control_plane.stripe_sync.catalog.wanted import UNSPECIFIED, Wanted
from control_plane.stripe_sync.client import Stripe, StripeRefused

KEYS_A_REQUEST: Final = 10
PAGE: Final = 100
INSTALLATION, OBJECT, DIGEST = "km_installation", "km_object", "km_digest"
T = TypeVar("T")


async def read_actual(stripe: Stripe, wanted: Sequence[Wanted], *, known_prices: Collection[str] = ()) -> Actual:
    """Return what Stripe has of what is wanted, and of prices whose ids we know.

    Raises:
        StripeRefused, StripeUnavailable.
    """
    products = {one.product.id for one in wanted}
    keys = sorted(price.lookup_key for one in wanted for price in one.prices)
    found_products = [await _product(stripe, product_id) for product_id in sorted(products)]
    prices = await _prices(stripe, keys)
    by_id = {price.id: price for price in prices.values()}
    for price_id in sorted(set(known_prices) - set(by_id)):
        # its lookup key was taken from it, or given to another price
        if (price := await _price(stripe, price_id)) is not None:
            by_id[price_id] = price
    return Actual(
        products={product.id: product for product in found_products if product is not None},
        meters=await read_meters(stripe) if any(one.meters for one in wanted) else {},
        prices=prices,
        prices_by_id=by_id,
    )


async def read_meters(stripe: Stripe) -> dict[str, ActualMeter]:
    """Return all meters by event name; where several have one, the active one."""
    found: dict[str, ActualMeter] = {}
    async for meter in stripe.every(lambda c: c.v1.billing.meters.list_async({"limit": PAGE})):
        if meter.status == "active" or meter.event_name not in found:
            found[meter.event_name] = ActualMeter(
                id=meter.id,
                event_name=meter.event_name,
                display_name=meter.display_name,
                active=meter.status == "active",
                formula=meter.default_aggregation.formula,
                customer_key=meter.customer_mapping.event_payload_key,
                value_key=meter.value_settings.event_payload_key,
            )
    return found


async def _product(stripe: Stripe, product_id: str) -> ActualProduct | None:
    try:
        product = await stripe.call(lambda c: c.v1.products.retrieve_async(product_id))
    except StripeRefused as refused:
        if refused.is_missing:
            return None
        raise
    return None if getattr(product, "deleted", None) else actual_product(product)


def actual_product(product: sdk.Product) -> ActualProduct:
    return ActualProduct(
        id=product.id,
        owner=metadata_of(product, INSTALLATION),
        name=product.name,
        description=product.description or "",
        active=product.active,
        tax_code=_id_of(product.tax_code),
    )


async def _price(stripe: Stripe, price_id: str) -> ActualPrice | None:
    try:
        return actual_price(await stripe.call(lambda c: c.v1.prices.retrieve_async(price_id)))
    except StripeRefused as refused:
        if refused.is_missing:
            return None
        raise


async def _prices(stripe: Stripe, keys: Sequence[str]) -> dict[str, ActualPrice]:
    found: dict[str, ActualPrice] = {}
    for some in _in_parts(keys, KEYS_A_REQUEST):
        async for price in _prices_with_keys(stripe, list(some)):
            found[price.lookup_key or ""] = actual_price(price)
    return found


def _prices_with_keys(stripe: Stripe, keys: list[str]) -> AsyncIterator[sdk.Price]:
    return stripe.every(lambda c: c.v1.prices.list_async({"lookup_keys": keys, "limit": PAGE}))


def actual_price(price: sdk.Price) -> ActualPrice:
    return ActualPrice(
        id=price.id,
        owner=metadata_of(price, INSTALLATION),
        lookup_key=price.lookup_key or "",
        product_id=_id_of(price.product) or "",
        nickname=price.nickname or "",
        active=price.active,
        tax_behavior=price.tax_behavior or UNSPECIFIED,
        terms_digest=metadata_of(price, DIGEST),
    )


def metadata_of(thing: object, name: str) -> str:
    """Return a value of an object's metadata, '' where there is none."""
    metadata = getattr(thing, "metadata", None) or {}
    return str(metadata[name]) if name in metadata else ""


def _id_of(thing: object) -> str | None:
    """Return the id of what may have been expanded to an object."""
    return thing if isinstance(thing, str) else getattr(thing, "id", None)


def _in_parts(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
