"""The calls that change a subscription at Stripe; each under the key of the change that it is for."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.catalog.queries import plan_versions
from control_plane.stripe_sync.client import options
from control_plane.stripe_sync.model import StripeContext
from control_plane.stripe_sync.subscriptions.items import held_params, item_params, priced, wanted_prices
from control_plane.stripe_sync.subscriptions.lookups import known_prices, prices_of_versions
from control_plane.stripe_sync.subscriptions.model import Holding, PriceAtStripe
from control_plane.stripe_sync.subscriptions.reading import id_of, seconds
from control_plane.stripe_sync.subscriptions.refusals import PlanNotAtStripeError
from control_plane.stripe_sync.subscriptions.steps import Call, Seen
from control_plane.stripe_sync.subscriptions.tables import StripeChange


async def make_call(ctx: StripeContext, call: Call, change: StripeChange, seen: Seen) -> None:
    """Ask Stripe for the next step of a change: the same step again has the same key and the same words.

    Raises:
        StripeRefused, StripeUnavailable, PlanNotAtStripeError.
    """
    state, key = seen.state, options(call_key(ctx, change, call))
    match call:
        case Call.RELEASE_SCHEDULE:
            held = state.schedule_id or ""
            await ctx.stripe.call(lambda c: c.v1.subscription_schedules.release_async(held, None, key))
        case Call.MAKE_SCHEDULE:
            origin: Any = {"from_subscription": state.stripe_id}
            await ctx.stripe.call(lambda c: c.v1.subscription_schedules.create_async(origin, key))
        case Call.PLAN_PHASES:
            await _plan_phases(ctx, change, seen)
        case Call.CHARGE_SETUP_FEE:
            await _charge_setup_fees(ctx, change, seen)
        case Call.END_NOW:
            ending: Any = {"invoice_now": True, "prorate": change.wanted["prorate"]}
            await ctx.stripe.call(lambda c: c.v1.subscriptions.cancel_async(state.stripe_id, ending, key))
        case _:
            params = await _update_params(ctx, call, change.wanted, seen)
            await ctx.stripe.call(lambda c: c.v1.subscriptions.update_async(state.stripe_id, params, key))


def call_key(ctx: StripeContext, change: StripeChange, call: Call) -> str:
    """Return the idempotency key of one step of a change."""
    return f"km:{ctx.config.installation}:change:{change.id}:{call}:{change.attempt}"


async def items_for(ctx: StripeContext, target: Holding, seen: Seen) -> list[dict[str, Any]]:
    """Return the items of an update from what Stripe has to what is wanted."""
    present = [item.price_id for item in seen.state.items]
    async with ctx.sessions() as session:
        known = await known_prices(session, present)
        prices = await _prices(session, target, seen.state.currency)
    return item_params(seen.state.items, wanted_prices(target, prices), known)


async def _prices(session: AsyncSession, target: Holding, currency: str) -> Mapping[str, Sequence[PriceAtStripe]]:
    prices = await prices_of_versions(session, target.version_ids, currency=currency)
    for version_id in sorted(target.version_ids - prices.keys()):
        raise PlanNotAtStripeError(version_id, None)
    return prices


async def _update_params(ctx: StripeContext, call: Call, wanted: Mapping[str, Any], seen: Seen) -> Any:
    match call:
        case Call.UPDATE_ITEMS:
            items = await items_for(ctx, Holding.from_dict(wanted), seen)
            return {"items": items, **proration_params(wanted), **_fees(wanted)}
        case Call.END_LATER:
            return {"cancel_at_period_end": True}
        case Call.GO_ON:
            return {"cancel_at_period_end": False} if seen.state.cancel_at_period_end else {"cancel_at": ""}
        case Call.MOVE_TRIAL_END if "ends_at" in wanted:
            ends_at = datetime.fromisoformat(wanted["ends_at"])
            return {"trial_end": seconds(ends_at), "proration_behavior": "none"}
        case Call.MOVE_TRIAL_END:
            return {"trial_end": "now", "payment_behavior": "pending_if_incomplete"}
        case _:
            return {"discounts": _discounts(wanted, seen)}


def proration_params(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return how an update of items is charged, and from which moment on."""
    params: dict[str, Any] = {"proration_behavior": wanted["proration"]}
    if wanted["proration"] != "none":
        params["proration_date"] = seconds(datetime.fromisoformat(wanted["proration_at"]))
    if wanted["proration"] == "always_invoice":
        params["payment_behavior"] = "pending_if_incomplete"
    return params


def _fees(wanted: Mapping[str, Any]) -> dict[str, Any]:
    fees = [{"price": price_id, "quantity": 1} for price_id in wanted.get("setup_fees", ())]
    return {"add_invoice_items": fees} if fees else {}


def _discounts(wanted: Mapping[str, Any], seen: Seen) -> list[dict[str, str]] | str:
    kept = [one.discount_id for one in seen.state.discounts if one.discount_id != wanted.get("remove")]
    found: list[dict[str, str]] = [{"discount": discount_id} for discount_id in kept]
    if "coupon" in wanted:
        found.append({"coupon": wanted["coupon"]})
    return found or ""


async def _plan_phases(ctx: StripeContext, change: StripeChange, seen: Seen) -> None:
    """Have a schedule repeat the running phase to its end, and then put what is wanted in its place."""
    schedule_id = seen.state.schedule_id or ""
    target = Holding.from_dict(change.wanted.get("later") or change.wanted)
    async with ctx.sessions() as session:
        prices = await _prices(session, target, seen.state.currency)
    schedule = await ctx.stripe.call(lambda c: c.v1.subscription_schedules.retrieve_async(schedule_id))
    running = schedule.current_phase
    starts_at = seconds(seen.state.period_start) if running is None else running.start_date
    interval = await _interval(ctx, target)
    discounts: Any = [{"discount": one.discount_id} for one in seen.state.discounts if one.item_id is None]
    shared: dict[str, Any] = {"proration_behavior": "none"}
    if discounts:
        shared["discounts"] = discounts
    present: dict[str, Any] = {
        **shared,
        "start_date": starts_at,
        "end_date": seconds(seen.state.period_end),
        "items": held_params((item.price_id, item.quantity) for item in seen.state.items),
    }
    if seen.state.status == "trialing" and seen.state.trial_end is not None:
        present["trial_end"] = present["end_date"] = seconds(seen.state.trial_end)
    following: dict[str, Any] = {
        **shared,
        "items": [priced(one) for one in wanted_prices(target, prices)],
        "duration": {"interval": interval, "interval_count": 1},
    }
    params: Any = {
        "end_behavior": "release",
        "proration_behavior": "none",
        "phases": [present, following],
        "metadata": {**ctx.config.metadata, "km_object": change.id},
    }
    key = options(call_key(ctx, change, Call.PLAN_PHASES))
    await ctx.stripe.call(lambda c: c.v1.subscription_schedules.update_async(schedule_id, params, key))


async def _interval(ctx: StripeContext, target: Holding) -> str:
    async with ctx.sessions() as session:
        return (await plan_versions(session, [target.plan_version_id]))[target.plan_version_id].interval


async def _charge_setup_fees(ctx: StripeContext, change: StripeChange, seen: Seen) -> None:
    """Put the setup fees of what began with a trial on the invoice that ends it, unless they are there."""
    listed: Any = {"customer": seen.state.customer_id, "limit": 100}
    there = set()
    async for item in ctx.stripe.every(lambda c: c.v1.invoice_items.list_async(listed)):
        told = {} if item.metadata is None else item.metadata.to_dict()
        if (
            told.get("km_object") == change.id
            and item.pricing is not None
            and item.pricing.price_details is not None
        ):
            there.add(id_of(item.pricing.price_details.price))
    for price_id in change.wanted["setup_fees"]:
        if price_id not in there:
            await _charge_setup_fee(ctx, change, seen, price_id)


async def _charge_setup_fee(ctx: StripeContext, change: StripeChange, seen: Seen, price_id: str) -> None:
    params: Any = {
        "customer": seen.state.customer_id,
        "subscription": seen.state.stripe_id,
        "pricing": {"price": price_id},
        "metadata": {**ctx.config.metadata, "km_object": change.id},
    }
    key = options(f"{call_key(ctx, change, Call.CHARGE_SETUP_FEE)}:{price_id}")
    await ctx.stripe.call(lambda c: c.v1.invoice_items.create_async(params, key))
