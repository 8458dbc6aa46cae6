"""Phases of schedules as requests give them."""

from typing import Any

from devstack.stripe.billing import discounts
from devstack.stripe.billing.items import rates_of, recurring_price
from devstack.stripe.billing.lines import is_metered
from devstack.stripe.billing.periods import step
from devstack.stripe.problems import StripeProblem
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


def make_phase(*, start_date: int, end_date: int, currency: str, items: list[Object]) -> Object:
    return {
        "add_invoice_items": [],
        "application_fee_percent": None,
        "automatic_tax": None,
        "billing_cycle_anchor": None,
        "billing_thresholds": None,
        "collection_method": None,
        "currency": currency,
        "default_payment_method": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "end_date": end_date,
        "invoice_settings": None,
        "items": items,
        "metadata": {},
        "on_behalf_of": None,
        "proration_behavior": "create_prorations",
        "start_date": start_date,
        "transfer_data": None,
        "trial_end": None,
        "_discounts": [],
    }


def phase_item(
    price: Object, quantity: int | None, metadata: dict[str, str], rates: list[Object] | None
) -> Object:
    return {
        "billing_thresholds": None,
        "discounts": [],
        "metadata": dict(metadata),
        "plan": price["id"],
        "price": price["id"],
        **({} if is_metered(price) else {"quantity": 1 if quantity is None else quantity}),
        "tax_rates": list(rates or []),
    }


def given_phases(
    sim: Simulator,
    given: list[dict[str, Any]],
    customer: str,
    *,
    first_start: int,
    proration: str = "create_prorations",
) -> list[Object]:
    """The phases of a request, one behind the other. Refuses holes and overlaps."""
    if not given:
        raise StripeProblem("Missing required param: phases.", code="parameter_missing", param="phases")
    made: list[Object] = []
    begins = first_start
    for number, entry in enumerate(given):
        where = f"phases[{number}]"
        asked = entry.get("start_date", begins)
        asked = begins if asked == "now" else asked
        if asked != begins:
            raise StripeProblem(
                "A phase must begin where the one before it ends; the first where the schedule's does.",
                param=f"{where}[start_date]",
            )
        items = [_given_item(sim, one, f"{where}[items][{place}]") for place, one in enumerate(entry["items"])]
        prices = [sim.state.get("price", one["price"]) for one in items]
        ends = _end_of(entry, prices, begins, where)
        phase = make_phase(start_date=begins, end_date=ends, currency=prices[0]["currency"], items=items)
        phase["metadata"] = entry.get("metadata") or {}
        phase["proration_behavior"] = entry.get("proration_behavior", proration)
        phase["billing_cycle_anchor"] = entry.get("billing_cycle_anchor")
        if entry.get("trial_end") and entry["trial_end"] != "now":
            phase["trial_end"] = entry["trial_end"]
        checked = discounts.check(
            sim,
            entry.get("discounts") or [],
            customer=customer,
            currency=phase["currency"],
            param=f"{where}[discounts]",
        )
        phase["_discounts"] = checked
        phase["discounts"] = [
            {
                "coupon": one.get("coupon"),
                "discount": one.get("discount"),
                "promotion_code": one.get("promotion_code"),
            }
            for one in entry.get("discounts") or []
        ]
        made.append(phase)
        begins = ends
    return made


def _given_item(sim: Simulator, entry: dict[str, Any], where: str) -> Object:
    price = recurring_price(sim, entry, where)
    if is_metered(price) and "quantity" in entry:
        raise StripeProblem(
            "You cannot set the quantity of an item whose price is metered: its quantity comes from usage.",
            param=f"{where}[quantity]",
        )
    return phase_item(
        price, entry.get("quantity"), entry.get("metadata") or {}, rates_of(sim, entry.get("tax_rates"), where)
    )


def _end_of(entry: dict[str, Any], prices: list[Object], begins: int, where: str) -> int:
    if "end_date" in entry and "duration" in entry:
        raise StripeProblem("Give end_date or duration, not both.", param=f"{where}[duration]")
    if "duration" in entry:
        duration = entry["duration"]
        return step(begins, duration["interval"], duration.get("interval_count", 1), 1)
    if "end_date" in entry and entry["end_date"] != "now":
        if entry["end_date"] <= begins:
            raise StripeProblem("A phase must end after it begins.", param=f"{where}[end_date]")
        return int(entry["end_date"])
    recurring = prices[0]["recurring"]
    return step(begins, recurring["interval"], recurring["interval_count"], 1)
