"""Invoices as drafts: making them, and counting what they come to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from devstack.stripe.billing import discounts, taxes
from devstack.stripe.billing.lines import counted_anew
from devstack.stripe.billing.totals import Counted, Taxing, settle, total_up
from devstack.stripe.paging import listing
from devstack.stripe.rendering import field_holds, shown_when_expanded
from devstack.stripe.state import Object, State

if TYPE_CHECKING:
    from devstack.stripe.simulator import Simulator

LINES_SHOWN = 10

field_holds("latest_invoice", "invoice")
field_holds("default_payment_method", "payment_method")
field_holds("schedule", "subscription_schedule")


def payments_of(state: State, invoice: Object) -> Object:
    found = [one for one in state.all("invoice_payment") if one["invoice"] == invoice["id"]]
    return listing(f"/v1/invoices/{invoice['id']}/payments", found[::-1])


def secret_of(state: State, invoice: Object) -> Object | None:
    intent = state.find("payment_intent", invoice.get("_intent") or "")
    return None if intent is None else {"client_secret": intent["client_secret"], "type": "payment_intent"}


shown_when_expanded("invoice", "payments", payments_of)
shown_when_expanded("invoice", "confirmation_secret", secret_of)


def make_draft(
    sim: "Simulator",
    *,
    customer: Object,
    lines: Sequence[Object],
    reason: str,
    now: int,
    sub: Object | None = None,
    period: tuple[int, int] | None = None,
    currency: str | None = None,
    **given: Any,
) -> Object:
    """An invoice that is not kept yet; `given` are further fields."""
    preview = given.pop("preview", False)
    start, end = period or (now, now)
    settings = customer.get("invoice_settings") or {}
    invoice: Object = {
        "id": sim.state.new_id("upcoming_in" if preview else "in", 24),
        "object": "invoice",
        "account_country": "US",
        "account_name": "Kong Monetize (simulated)",
        "account_tax_ids": None,
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": _automatic_tax(sub),
        "automatically_finalizes_at": None,
        "billing_reason": reason,
        "collection_method": sub["collection_method"] if sub else "charge_automatically",
        "created": now,
        "currency": currency or (sub["currency"] if sub else lines[0]["currency"] if lines else "usd"),
        "custom_fields": settings.get("custom_fields"),
        "customer": customer["id"],
        "customer_account": None,
        **_copied(sim, customer),
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": list(sub["default_tax_rates"] or []) if sub else [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": settings.get("footer"),
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "parent": _parent(sub),
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "period_end": end,
        "period_start": start,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": customer.get("balance") or 0,
        "statement_descriptor": None,
        "status": "draft",
        "status_details": None,
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "test_clock": customer.get("test_clock"),
        "threshold_reason": None,
        "total": 0,
        "total_discount_amounts": [],
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": now,
        "_preview": preview,
        "_intent": None,
        "_lines": [],
    }
    invoice.update(given)
    if invoice["collection_method"] == "send_invoice" and invoice["due_date"] is None:
        days = (sub or {}).get("days_until_due") or 30
        invoice["due_date"] = now + days * 86_400
    set_lines(invoice, lines)
    recount(sim, invoice)
    return invoice


def _automatic_tax(sub: Object | None) -> Object:
    enabled = bool(sub and sub["automatic_tax"]["enabled"])
    return {
        "disabled_reason": None,
        "enabled": enabled,
        "liability": {"type": "self"} if enabled else None,
        "provider": "stripe" if enabled else None,
        "status": None,
    }


def _copied(sim: "Simulator", customer: Object) -> Object:
    """What an invoice takes over from the customer, until it is finalised."""
    ids = [
        {"type": one["type"], "value": one["value"]} for one in sim.state.where("tax_id", customer=customer["id"])
    ]
    return {
        "customer_address": customer.get("address"),
        "customer_email": customer.get("email"),
        "customer_name": customer.get("name"),
        "customer_phone": customer.get("phone"),
        "customer_shipping": customer.get("shipping"),
        "customer_tax_exempt": customer.get("tax_exempt") or "none",
        "customer_tax_ids": ids,
    }


def _parent(sub: Object | None) -> Object | None:
    if sub is None:
        return None
    return {
        "quote_details": None,
        "subscription_details": {
            "metadata": dict(sub["metadata"]),
            "subscription": sub["id"],
            "subscription_proration_date": None,
        },
        "type": "subscription_details",
    }


def subscription_of(invoice: Object) -> str | None:
    """The id of the subscription an invoice belongs to."""
    details = (invoice["parent"] or {}).get("subscription_details")
    return details["subscription"] if details else None


def set_lines(invoice: Object, lines: Sequence[Object]) -> None:
    """Put lines on an invoice. Its `lines` shows the first ten, as Stripe does."""
    invoice["_lines"] = list(lines)
    for line in lines:
        line["invoice"] = invoice["id"]
    url = f"/v1/invoices/{invoice['id']}/lines"
    invoice["lines"] = listing(url, invoice["_lines"][:LINES_SHOWN], has_more=len(lines) > LINES_SHOWN)


def recount(sim: "Simulator", invoice: Object) -> None:
    """Read usage again and add a draft up: discounts, taxes, balance."""
    customer = sim.state.find("customer", invoice["customer"]) or {}
    set_lines(invoice, counted_anew(sim, invoice["_lines"]))
    lines = invoice["_lines"]
    counted = [_counted(sim, invoice, customer, line) for line in lines]
    ids = discounts.in_force(sim, invoice["discounts"], now=invoice["created"])
    totals = total_up(counted, [discounts.arithmetic(sim, one) for one in ids])
    for line, one in zip(lines, counted, strict=True):
        line["discount_amounts"] = _discount_amounts(one.discounts)
        line["pretax_credit_amounts"] = _pretax(one.discounts)
        line["taxes"] = [_tax(taxing, amount, of) for taxing, amount, of in one.taxes]
    invoice["subtotal"] = totals.subtotal
    invoice["subtotal_excluding_tax"] = totals.subtotal - totals.inclusive_tax
    invoice["total"] = totals.total
    invoice["total_excluding_tax"] = totals.total_excluding_tax
    _add_up_discounts(invoice, counted)
    invoice["total_taxes"] = _add_up_taxes(counted)
    if invoice["automatic_tax"]["enabled"]:
        known = taxes.located(customer).known
        invoice["automatic_tax"]["status"] = "complete" if known else "requires_location_inputs"
    apply_balance(invoice, customer.get("balance") or 0)


def apply_balance(invoice: Object, balance: int) -> int:
    """What is due with this balance of the customer; returns what the balance would be afterwards."""
    settled = settle(invoice["total"], balance=balance, currency=invoice["currency"])
    invoice["starting_balance"] = balance
    invoice["amount_due"] = settled.amount_due - invoice["pre_payment_credit_notes_amount"]
    invoice["amount_remaining"] = invoice["amount_due"] - invoice["amount_paid"]
    return settled.ending_balance


def _counted(sim: "Simulator", invoice: Object, customer: Object, line: Object) -> Counted:
    own = discounts.in_force(sim, line["discounts"], now=invoice["created"])
    return Counted(
        line["amount"],
        product=line["_product"],
        discountable=line["discountable"],
        own=tuple(discounts.arithmetic(sim, one) for one in own),
        fixed=tuple(line["_fixed"]),
        taxing=_taxing(sim, invoice, customer, line),
    )


def _taxing(sim: "Simulator", invoice: Object, customer: Object, line: Object) -> tuple[Taxing, ...]:
    if invoice["automatic_tax"]["enabled"]:
        found = taxes.automatic(sim, customer, line["_price"])
        return () if found is None else (found,)
    if customer.get("tax_exempt") == "exempt":
        return ()
    return tuple(taxes.of_rate(one) for one in line["_rates"] or invoice["default_tax_rates"])


def _discount_amounts(found: dict[str, int]) -> list[Object]:
    return [{"amount": amount, "discount": one} for one, amount in found.items()]


def _pretax(found: dict[str, int]) -> list[Object]:
    return [{"amount": amount, "discount": one, "type": "discount"} for one, amount in found.items()]


def _tax(taxing: Taxing, amount: int, of: int) -> Object:
    return {
        "amount": amount,
        "tax_behavior": "inclusive" if taxing.inclusive else "exclusive",
        "tax_rate_details": {"tax_rate": taxing.rate_id},
        "taxability_reason": taxing.reason if taxing.percent else "zero_rated",
        "taxable_amount": of,
        "type": "tax_rate_details",
    }


def _add_up_discounts(invoice: Object, counted: Sequence[Counted]) -> None:
    together: dict[str, int] = dict.fromkeys(invoice["discounts"], 0)
    for line in counted:
        for one, amount in line.discounts.items():
            together[one] = together.get(one, 0) + amount
    invoice["total_discount_amounts"] = _discount_amounts(together)
    invoice["total_pretax_credit_amounts"] = _pretax(together)


def _add_up_taxes(counted: Sequence[Counted]) -> list[Object]:
    together: dict[Taxing, tuple[int, int]] = {}
    for line in counted:
        for taxing, amount, of in line.taxes:
            before = together.get(taxing, (0, 0))
            together[taxing] = (before[0] + amount, before[1] + of)
    return [_tax(taxing, amount, of) for taxing, (amount, of) in together.items()]
