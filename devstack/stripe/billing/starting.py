"""How a subscription begins: trial, anchor, first invoice, first payment."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from devstack.stripe.billing import discounts
from devstack.stripe.billing.amounts import charges, to_minor, unit_amount_of
from devstack.stripe.billing.billing_run import bill, preview_invoice
from devstack.stripe.billing.cards import declined
from devstack.stripe.billing.changes import begin_period
from devstack.stripe.billing.charging import method_for, will_pay
from devstack.stripe.billing.items import check_together, make_item, rates_of, recurring_price
from devstack.stripe.billing.lifecycle import collect
from devstack.stripe.billing.lines import advance_lines, is_metered, make_line, priced_lines, product_name
from devstack.stripe.billing.pending import one_time_price
from devstack.stripe.billing.periods import next_anchor, period_of, step
from devstack.stripe.billing.settings import DAY
from devstack.stripe.billing.shapes import apply_settings, make_subscription, refuse_not_simulated
from devstack.stripe.problems import StripeProblem
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object


def assemble(sim: Simulator, customer: Object, params: dict[str, Any], *, now: int) -> Object:
    """The subscription as it would begin, with its items; nothing is kept. Refuses what Stripe refuses."""
    refuse_not_simulated(params)
    entries = params.get("items") or []
    prices = [recurring_price(sim, entry, f"items[{number}]") for number, entry in enumerate(entries)]
    if not prices:
        raise StripeProblem("Missing required param: items.", code="parameter_missing", param="items")
    currency = prices[0]["currency"]
    if params.get("currency", currency) != currency:
        raise StripeProblem(f"The prices are in {currency}.", param="currency")
    if customer.get("currency") not in (None, currency):
        raise StripeProblem(
            "You cannot combine currencies on a single customer. This customer has had a subscription, coupon, or "
            f"invoice item with currency {customer['currency']}.",
            param="items",
        )
    sub = make_subscription(sim, customer, currency=currency, now=now)
    apply_settings(sim, sub, params)
    _set_dates(sub, params, now=now)
    for number, (entry, price) in enumerate(zip(entries, prices, strict=True)):
        if is_metered(price) and "quantity" in entry:
            raise StripeProblem(
                "You cannot set the quantity of an item whose price is metered: its quantity comes from usage.",
                param=f"items[{number}][quantity]",
            )
        item = make_item(
            sim,
            price,
            quantity=entry.get("quantity", 1),
            subscription=sub["id"],
            period=_first_period(sub, price, now=now),
            now=now,
            metadata=entry.get("metadata") or {},
            rates=rates_of(sim, entry.get("tax_rates"), f"items[{number}]"),
        )
        sub["items"]["data"].append(item)
        if entry.get("discounts"):
            where = f"items[{number}][discounts]"
            discounts.check(sim, entry["discounts"], customer=customer["id"], currency=currency, param=where)
    check_together(sub["items"]["data"])
    _set_end(sub, params)
    return sub


def _set_dates(sub: Object, params: dict[str, Any], *, now: int) -> None:
    trial_end = params.get("trial_end")
    if trial_end is not None and "trial_period_days" in params:
        raise StripeProblem("Give trial_end or trial_period_days, not both.", param="trial_end")
    if params.get("trial_period_days"):
        trial_end = now + params["trial_period_days"] * DAY
    if trial_end is not None and trial_end != "now":
        if trial_end <= now:
            raise StripeProblem("trial_end must be in the future.", param="trial_end")
        sub["trial_start"], sub["trial_end"], sub["status"] = now, trial_end, "trialing"
        sub["billing_cycle_anchor"] = trial_end
    if "billing_cycle_anchor" in params and "billing_cycle_anchor_config" in params:
        raise StripeProblem(
            "Give billing_cycle_anchor or billing_cycle_anchor_config, not both.", param="billing_cycle_anchor"
        )
    begins = sub["trial_end"] or now
    if "billing_cycle_anchor_config" in params:
        config = params["billing_cycle_anchor_config"]
        sub["billing_cycle_anchor_config"] = {
            name: config.get(name) for name in ("day_of_month", "hour", "minute", "month", "second")
        }
        sub["billing_cycle_anchor"] = next_anchor(begins, config)
    elif "billing_cycle_anchor" in params:
        anchor = params["billing_cycle_anchor"]
        if anchor < begins:
            raise StripeProblem("billing_cycle_anchor must not be in the past.", param="billing_cycle_anchor")
        sub["billing_cycle_anchor"] = anchor


def _first_period(sub: Object, price: Object, *, now: int) -> tuple[int, int]:
    if sub["trial_end"] is not None:
        return now, sub["trial_end"]
    recurring, anchor = price["recurring"], sub["billing_cycle_anchor"]
    if anchor > step(now, recurring["interval"], recurring["interval_count"], 1):
        raise StripeProblem(
            "billing_cycle_anchor cannot be later than next natural billing date.", param="billing_cycle_anchor"
        )
    return now, period_of(anchor, recurring["interval"], recurring["interval_count"], now)[1]


def _set_end(sub: Object, params: dict[str, Any]) -> None:
    ends = [item["current_period_end"] for item in sub["items"]["data"]]
    if params.get("cancel_at_period_end"):
        sub["cancel_at_period_end"], sub["cancel_at"], sub["canceled_at"] = True, max(ends), sub["created"]
    if "cancel_at" in params and params["cancel_at"] != "":
        named = {"min_period_end": min(ends), "max_period_end": max(ends), "max_billed_until": max(ends)}
        sub["cancel_at"] = named.get(params["cancel_at"], params["cancel_at"])


def first_lines(sim: Simulator, sub: Object, params: dict[str, Any], *, now: int) -> list[Object]:
    """The lines of the first invoice. A metered item has none in flexible billing mode."""
    prorate = params.get("proration_behavior", "create_prorations") != "none"
    lines: list[Object] = []
    for item in sub["items"]["data"]:
        price = item["price"]
        start, end = item["current_period_start"], item["current_period_end"]
        if sub["status"] == "trialing":
            lines += [_trial_line(sim, sub, item)] if not is_metered(price) else []
        elif is_metered(price):
            if sub["billing_mode"]["type"] == "classic":
                lines += priced_lines(sim, price, 0, period=(start, end), subscription=sub["id"], item=item["id"])
        else:
            recurring = price["recurring"]
            full = period_of(sub["billing_cycle_anchor"], recurring["interval"], recurring["interval_count"], now)
            if full == (start, end):
                begin_period(sim, sub, item, (start, end), lines)
            elif prorate:
                _begin_part(sim, sub, item, full, lines)
    lines += _extra_lines(sim, sub, params, now=now)
    return lines


def _begin_part(sim: Simulator, sub: Object, item: Object, full: tuple[int, int], into: list[Object]) -> None:
    start, end = item["current_period_start"], item["current_period_end"]
    made = advance_lines(sim, sub, item, start=start, end=end, share=(end - start, full[1] - full[0]))
    into += made
    whole = [one.exact for one in charges(item["price"], item["quantity"])]
    item["_debits"] = [
        {"exact": exact, "start": full[0], "end": full[1], "until": end, "discounts": (), "line": line}
        for exact, line in zip(whole, made, strict=True)
    ]
    item["billed_until"] = end


def _trial_line(sim: Simulator, sub: Object, item: Object) -> Object:
    return make_line(
        sim,
        amount=0,
        currency=sub["currency"],
        description=f"Trial period for {product_name(sim, item['price'])}",
        period=(item["current_period_start"], item["current_period_end"]),
        quantity=item["quantity"],
        price=item["price"],
        subscription=sub["id"],
        item=item["id"],
        metadata=sub["metadata"],
    )


def _extra_lines(sim: Simulator, sub: Object, params: dict[str, Any], *, now: int) -> list[Object]:
    return [
        line
        for number, entry in enumerate(params.get("add_invoice_items") or [])
        for line in [extra_line(sim, sub, entry, f"add_invoice_items[{number}]", now=now)]
    ]


def extra_line(sim: Simulator, sub: Object, entry: dict[str, Any], where: str, *, now: int) -> Object:
    """One entry of add_invoice_items: a one-time price on the next invoice. It becomes an invoice item."""
    from devstack.stripe.billing.items import price_of_data

    price = (
        price_of_data(sim, entry["price_data"])
        if "price_data" in entry
        else one_time_price(sim, entry["price"], f"{where}[price]")
    )
    quantity = entry.get("quantity", 1)
    unit = unit_amount_of(price)
    line = make_line(
        sim,
        amount=to_minor(unit * quantity),
        currency=price["currency"],
        description=product_name(sim, price),
        period=(now, now),
        quantity=quantity,
        price=price,
        unit_amount=unit,
        subscription=sub["id"],
        discountable=entry.get("discountable", True),
        metadata=entry.get("metadata") or {},
        rates=rates_of(sim, entry.get("tax_rates"), where),
    )
    line["_extra"] = True
    return line


@contextmanager
def discounted(sim: Simulator, sub: Object, params: dict[str, Any], *, now: int) -> Iterator[None]:
    """The subscription with the discounts asked for, for as long as a preview of it is worked out."""
    before = sub["discounts"]
    made: list[str] = []
    if "discounts" in params:
        checked = discounts.check(
            sim, params["discounts"], customer=sub["customer"], currency=sub["currency"], param="discounts"
        )
        made = discounts.give(sim, checked, customer=sub["customer"], now=now, emit=False, redeem=False)
        sub["discounts"] = made
    try:
        yield
    finally:
        sub["discounts"] = before
        for one in made:
            if one not in before:
                sim.state.remove("discount", one)


def start(sim: Simulator, customer: Object, params: dict[str, Any], *, behavior: str, pay: bool = True) -> Object:
    """Make the subscription and its first invoice, and charge the card as `behavior` says.

    `pay` False leaves the payment to the caller (a checkout page).
    """
    now = sim.now(customer["id"])
    sub = assemble(sim, customer, params, now=now)
    with discounted(sim, sub, params, now=now):
        lines = first_lines(sim, sub, params, now=now)
        expected = preview_invoice(sim, sub, lines, reason="subscription_create", now=now, period=(now, now))
    automatic = sub["collection_method"] == "charge_automatically"
    if pay and automatic and expected["amount_due"] > 0 and behavior != "default_incomplete":
        _refuse_without_payment(sim, expected, sub, behavior)
    _give_discounts(sim, sub, params, now=now)
    for item in sub["items"]["data"]:
        sim.state.add(item)
    if sub["status"] != "trialing" and (not expected["_lines"] or not automatic):
        sub["status"] = "active"
    sim.state.add(sub)
    customer["currency"] = customer.get("currency") or sub["currency"]
    sim.emit("customer.subscription.created", sub)
    extra = [line for line in lines if line.get("_extra")]
    plain = [line for line in lines if not line.get("_extra")]
    with sim.changing(sub, "customer.subscription.updated"):
        invoice = bill(
            sim,
            sub,
            plain,
            changes=extra,
            reason="subscription_create",
            now=now,
            period=(now, now),
            at_once=automatic,
        )
    if invoice and invoice["status"] == "open" and pay and behavior != "default_incomplete":
        collect(sim, invoice)
    sim.tell("subscription.moved", sub)
    return sub


def _refuse_without_payment(sim: Simulator, expected: Object, sub: Object, behavior: str) -> None:
    method = method_for(sim, expected, sub)
    if method is None:
        raise StripeProblem(
            "This customer has no attached payment source or default payment method. Please consider adding a "
            "default payment method.",
            code="resource_missing",
        )
    outcome = will_pay(method)
    if behavior == "error_if_incomplete" and not outcome.paid:
        raise declined(outcome.code or "generic_decline")


def _give_discounts(sim: Simulator, sub: Object, params: dict[str, Any], *, now: int) -> None:
    checked = discounts.check(
        sim, params.get("discounts") or [], customer=sub["customer"], currency=sub["currency"], param="discounts"
    )
    sub["discounts"] = discounts.give(
        sim, checked, customer=sub["customer"], now=now, subscription=sub["id"], **params.get("_discounted_by", {})
    )
    for number, entry in enumerate(params["items"]):
        item = sub["items"]["data"][number]
        if entry.get("discounts"):
            own = discounts.check(
                sim,
                entry["discounts"],
                customer=sub["customer"],
                currency=sub["currency"],
                param=f"items[{number}][discounts]",
            )
            item["discounts"] = discounts.give(
                sim, own, customer=sub["customer"], now=now, subscription=sub["id"], subscription_item=item["id"]
            )
