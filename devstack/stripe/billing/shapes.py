"""The subscription object, and taking over the parameters that only set something."""

from typing import Any

from devstack.stripe.billing.cards import own_method
from devstack.stripe.billing.items import rates_of
from devstack.stripe.fields import merge_metadata, set_given
from devstack.stripe.paging import listing
from devstack.stripe.problems import StripeProblem
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

NOT_SIMULATED = (
    "backdate_start_date",
    "billing_thresholds",
    "billing_schedules",
    "transfer_data",
    "on_behalf_of",
    "application_fee_percent",
    "pending_invoice_item_interval",
)


def refuse_not_simulated(params: dict[str, Any]) -> None:
    """Rather than to take a parameter and do nothing with it."""
    for name in NOT_SIMULATED:
        if params.get(name) not in (None, ""):
            raise StripeProblem(f"The simulator does not play {name}.", param=name)


def make_subscription(sim: Simulator, customer: Object, *, currency: str, now: int) -> Object:
    """With no items, no dates and status `incomplete`."""
    identifier = sim.state.new_id("sub", 24)
    return {
        "id": identifier,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": now,
        "billing_cycle_anchor_config": None,
        "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}, "updated_at": now},
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": "charge_automatically",
        "created": now,
        "currency": currency,
        "customer": customer["id"],
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": listing(f"/v1/subscription_items?subscription={identifier}", []),
        "latest_invoice": None,
        "livemode": False,
        "metadata": {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": now,
        "status": "incomplete",
        "status_details": None,
        "test_clock": customer.get("test_clock"),
        "transfer_data": None,
        "trial_end": None,
        "trial_settings": {
            "end_behavior": {"missing_payment_method": "create_invoice", "billing_cycle_anchor": "unchanged"}
        },
        "trial_start": None,
    }


def apply_settings(sim: Simulator, sub: Object, params: dict[str, Any]) -> None:
    """The parameters that do not bill anything. Refuses before it changes."""
    method = params.get("default_payment_method")
    if method:
        method = own_method(sim, method, sub["customer"], param="default_payment_method")["id"]
    rates = (
        rates_of(sim, params["default_tax_rates"], "default_tax_rates") if "default_tax_rates" in params else None
    )
    collection = params.get("collection_method", sub["collection_method"])
    days = params.get("days_until_due", sub["days_until_due"])
    if collection == "send_invoice" and days is None:
        raise StripeProblem(
            "days_until_due is needed with collection_method=send_invoice.", param="days_until_due"
        )
    if collection == "charge_automatically" and "days_until_due" in params:
        raise StripeProblem(
            "days_until_due can only be given with collection_method=send_invoice.", param="days_until_due"
        )
    sub["collection_method"] = collection
    sub["days_until_due"] = days if collection == "send_invoice" else None
    if method is not None:
        sub["default_payment_method"] = method or None
    if rates is not None:
        sub["default_tax_rates"] = rates
    set_given(sub, params, ("description",))
    merge_metadata(sub, params)
    _set_parts(sub, params)


def _set_parts(sub: Object, params: dict[str, Any]) -> None:
    if "automatic_tax" in params:
        enabled = params["automatic_tax"]["enabled"]
        sub["automatic_tax"] = {
            "disabled_reason": None,
            "enabled": enabled,
            "liability": {"type": "self"} if enabled else None,
        }
    if "trial_settings" in params:
        behavior = params["trial_settings"]["end_behavior"]
        sub["trial_settings"] = {"end_behavior": {"billing_cycle_anchor": "unchanged", **behavior}}
    if "payment_settings" in params:
        sub["payment_settings"] = {**sub["payment_settings"], **params["payment_settings"]}
    if "cancellation_details" in params:
        sub["cancellation_details"] = {**sub["cancellation_details"], **_cleared(params["cancellation_details"])}
    if "billing_mode" in params:
        _set_mode(sub, params["billing_mode"])
    if "invoice_settings" in params:
        sub["invoice_settings"] = {**sub["invoice_settings"], **params["invoice_settings"]}


def _cleared(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value or None for name, value in given.items()}


def _set_mode(sub: Object, mode: dict[str, Any]) -> None:
    if mode["type"] == "classic":
        sub["billing_mode"] = {"type": "classic", "flexible": None, "updated_at": None}
        return
    flexible = {"proration_discounts": "included", **mode.get("flexible", {})}
    sub["billing_mode"] = {"type": "flexible", "flexible": flexible, "updated_at": sub["created"]}
