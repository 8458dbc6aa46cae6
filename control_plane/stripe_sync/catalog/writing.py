"""The calls that create and change products, meters and prices at Stripe."""

from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from control_plane.stripe_sync.catalog.difference import CUSTOMER_KEY, VALUE_KEY, Step
from control_plane.stripe_sync.catalog.reading import DIGEST, INSTALLATION, OBJECT
from control_plane.stripe_sync.catalog.wanted import (
    UNSPECIFIED,
    WantedMeter,
    WantedPrice,
    WantedProduct,
    digest_of,
)
from control_plane.stripe_sync.client import options
from control_plane.stripe_sync.model import StripeContext

if TYPE_CHECKING:
    from stripe import RequestOptions
    from stripe.params import (
        PriceCreateParams,
        PriceCreateParamsRecurring,
        PriceCreateParamsTier,
        PriceUpdateParams,
        ProductCreateParams,
        ProductUpdateParams,
    )


async def write_product(context: StripeContext, wanted: WantedProduct, step: Step, *, attempt: int) -> str:
    """Do a product's step; returns its id."""
    key = _key(context, f"product:{wanted.plan_id}", attempt, wanted, step)
    if step.action == "create":
        made: ProductCreateParams = {
            "id": wanted.id,
            "name": wanted.name,
            "metadata": {INSTALLATION: context.config.installation, OBJECT: wanted.plan_id},
        }
        if wanted.description:  # Stripe takes '' as the wish to clear what is not there yet
            made["description"] = wanted.description
        if wanted.tax_code is not None:
            made["tax_code"] = wanted.tax_code
        await context.stripe.call(lambda c: c.v1.products.create_async(made, key))
    elif step.action == "update":
        changed: ProductUpdateParams = {
            "active": True,
            "name": wanted.name,
            "description": wanted.description,
        }
        if wanted.tax_code is not None:
            changed["tax_code"] = wanted.tax_code
        await context.stripe.call(lambda c: c.v1.products.update_async(wanted.id, changed, key))
    return wanted.id


async def write_meter(context: StripeContext, wanted: WantedMeter, step: Step, *, attempt: int) -> str:
    """Do a meter's step; returns its id."""
    key = _key(context, f"meter:{wanted.event_name}", attempt, wanted, step)
    if step.action == "create" or step.stripe_id is None:
        made = await context.stripe.call(
            lambda c: c.v1.billing.meters.create_async(
                {
                    "display_name": wanted.display_name,
                    "event_name": wanted.event_name,
                    "default_aggregation": {"formula": "sum"},
                    "customer_mapping": {"type": "by_id", "event_payload_key": CUSTOMER_KEY},
                    "value_settings": {"event_payload_key": VALUE_KEY},
                },
                key,
            )
        )
        return made.id
    meter_id = step.stripe_id
    if step.action == "update":
        if step.is_inactive:
            again = _key(context, f"meter_reactivation:{wanted.event_name}", attempt, wanted, step)
            await context.stripe.call(lambda c: c.v1.billing.meters.reactivate_async(meter_id, {}, again))
        await context.stripe.call(
            lambda c: c.v1.billing.meters.update_async(meter_id, {"display_name": wanted.display_name}, key)
        )
    return meter_id


async def write_price(
    context: StripeContext, wanted: WantedPrice, step: Step, *, meter_id: str | None, attempt: int
) -> str:
    """Do a price's step; returns its id."""
    name = f"price:{wanted.plan_version_id}:{wanted.position}:{wanted.currency}"
    key = _key(context, name, attempt, wanted, step)
    if step.action == "create" or step.stripe_id is None:
        params = price_params(wanted, installation=context.config.installation, meter_id=meter_id)
        return (await context.stripe.call(lambda c: c.v1.prices.create_async(params, key))).id
    price_id = step.stripe_id
    if step.action == "update":
        changed: PriceUpdateParams = {
            "active": True,
            "nickname": wanted.nickname,
            "lookup_key": wanted.lookup_key,
        }
        if wanted.tax_behavior != UNSPECIFIED:
            changed["tax_behavior"] = wanted.tax_behavior
        await context.stripe.call(lambda c: c.v1.prices.update_async(price_id, changed, key))
    return price_id


def price_params(wanted: WantedPrice, *, installation: str, meter_id: str | None) -> "PriceCreateParams":
    """Return what Stripe is asked for; amounts are exact decimals of minor units. Pure."""
    native = wanted.native
    params: PriceCreateParams = {
        "currency": wanted.currency.lower(),
        "product": wanted.product_id,
        "nickname": wanted.nickname,
        "lookup_key": wanted.lookup_key,
        "metadata": {
            INSTALLATION: installation,
            OBJECT: f"{wanted.plan_version_id}:{wanted.position}",
            DIGEST: wanted.terms_digest,
        },
    }
    if wanted.tax_behavior != UNSPECIFIED:
        params["tax_behavior"] = wanted.tax_behavior
    if native.tiers:
        params["billing_scheme"] = "tiered"
        params["tiers_mode"] = native.tiers_mode or "graduated"
        params["tiers"] = [_tier(tier.up_to, tier.unit_amount) for tier in native.tiers]
    else:
        params["billing_scheme"] = "per_unit"
        params["unit_amount_decimal"] = _Plain(native.unit_amount or 0)
    if native.package_size is not None:
        params["transform_quantity"] = {"divide_by": native.package_size, "round": "up"}
    if wanted.interval is not None:
        params["recurring"] = _recurring(wanted.interval, meter_id)
    return params


class _Plain(Decimal):
    """A decimal that is written without an exponent: a byte costs 0.000000009 cents, not 9E-9."""

    def __str__(self) -> str:
        return f"{Decimal(self):f}"


def _tier(up_to: int | None, unit_amount: Decimal) -> "PriceCreateParamsTier":
    bound: int | Literal["inf"] = "inf" if up_to is None else up_to
    return {"up_to": bound, "unit_amount_decimal": _Plain(unit_amount)}


def _recurring(interval: str, meter_id: str | None) -> "PriceCreateParamsRecurring":
    if meter_id is None:
        return {"interval": interval, "usage_type": "licensed"}
    return {"interval": interval, "usage_type": "metered", "meter": meter_id}


def _key(context: StripeContext, name: str, attempt: int, wanted: object, step: Step) -> "RequestOptions":
    """Return the idempotency key of a step.

    What creates has one key until it is done, so that a request which is still on its way does not make a second
    object. What sets may be needed again soon, and does no harm twice: its key is the moment's own.
    """
    digest = digest_of(repr(wanted))
    moment = f":{int(context.now.timestamp())}" if step.action == "update" else ""
    return options(f"km:{context.config.installation}:{name}:{digest}:{attempt}{moment}")
