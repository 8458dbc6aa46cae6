"""Operations on invoices."""

from functools import partial
from typing import Any

from devstack.stripe.billing import discounts
from devstack.stripe.billing.cards import attach, declined, own_method
from devstack.stripe.billing.invoicing import make_draft, recount, subscription_of
from devstack.stripe.billing.items import rates_of
from devstack.stripe.billing.lifecycle import (
    GRACE_OF_MANUAL,
    collect,
    finalize,
    keep,
    mark_uncollectible,
    plan_finalising,
    settle_paid,
    void,
)
from devstack.stripe.billing.pending import gather, put_on
from devstack.stripe.fields import merge_metadata, set_given
from devstack.stripe.paging import page, window
from devstack.stripe.problems import StripeProblem
from devstack.stripe.routes import Call, route
from devstack.stripe.search import search
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

PLAIN = ("description", "footer", "statement_descriptor", "number", "due_date", "effective_at")
FINAL_TOO = frozenset(("metadata", "auto_advance", "default_payment_method", "default_source", "rendering"))
"""What may be changed after finalisation."""


@route("POST", "/v1/invoices")
def create_invoice(sim: Simulator, call: Call) -> Object:
    params = call.params
    if "from_invoice" in params:
        raise StripeProblem("The simulator does not play revisions of invoices.", param="from_invoice")
    customer = sim.state.get("customer", params.get("customer", ""), param="customer")
    now = sim.now(customer["id"])
    sub = (
        sim.state.get("subscription", params["subscription"], param="subscription")
        if "subscription" in params
        else None
    )
    currency = params.get("currency") or (sub and sub["currency"]) or customer.get("currency") or "usd"
    include = params.get("pending_invoice_items_behavior", "exclude") == "include" or sub is not None
    items = gather(sim, customer["id"], sub["id"] if sub else None, currency) if include else []
    given: dict[str, Any] = {"auto_advance": params.get("auto_advance", False)}
    if given["auto_advance"]:
        given["automatically_finalizes_at"] = params.get("automatically_finalizes_at", now + GRACE_OF_MANUAL)
    checked = discounts.check(
        sim, params.get("discounts") or [], customer=customer["id"], currency=currency, param="discounts"
    )
    invoice = make_draft(
        sim,
        customer=customer,
        sub=sub,
        lines=[one["_line"] for one in items],
        reason="manual",
        now=now,
        currency=currency,
        collection_method=params.get("collection_method", "charge_automatically"),
        **given,
    )
    invoice["discounts"] = discounts.give(sim, checked, customer=customer["id"], now=now, invoice=invoice["id"])
    put_on(invoice, items)
    _set(sim, invoice, params)
    recount(sim, invoice)
    return keep(sim, invoice)


def _set(sim: Simulator, invoice: Object, params: dict[str, Any]) -> None:
    set_given(invoice, params, PLAIN)
    merge_metadata(invoice, params)
    if params.get("default_payment_method"):
        method = own_method(
            sim, params["default_payment_method"], invoice["customer"], param="default_payment_method"
        )
        invoice["default_payment_method"] = method["id"]
    if "default_tax_rates" in params:
        invoice["default_tax_rates"] = rates_of(sim, params["default_tax_rates"], "invoice")
    if "automatic_tax" in params:
        enabled = params["automatic_tax"]["enabled"]
        invoice["automatic_tax"].update(
            enabled=enabled,
            liability={"type": "self"} if enabled else None,
            provider="stripe" if enabled else None,
            status=None,
            disabled_reason=None,
        )


@route("GET", "/v1/invoices/{invoice}")
def retrieve_invoice(sim: Simulator, call: Call) -> Object:
    return of_path(sim, call)


def of_path(sim: Simulator, call: Call) -> Object:
    return fresh(sim, sim.state.get("invoice", call.path["invoice"]))


def fresh(sim: Simulator, invoice: Object) -> Object:
    """A draft shows the usage as it is now."""
    if invoice["status"] == "draft":
        recount(sim, invoice)
    return invoice


@route("GET", "/v1/invoices")
def list_invoices(sim: Simulator, call: Call) -> Object:
    wanted = call.params
    found = [
        fresh(sim, one)
        for one in sim.state.all("invoice")
        if wanted.get("customer") in (None, one["customer"])
        and wanted.get("status") in (None, one["status"])
        and wanted.get("subscription") in (None, subscription_of(one))
        and wanted.get("collection_method") in (None, one["collection_method"])
    ]
    return page(call, found)


@route("GET", "/v1/invoices/search")
def search_invoices(sim: Simulator, call: Call) -> Object:
    return search(call, sim.state.all("invoice"))


@route("POST", "/v1/invoices/{invoice}")
def update_invoice(sim: Simulator, call: Call) -> Object:
    invoice, params = of_path(sim, call), call.params
    if invoice["status"] != "draft" and (locked := sorted(params.keys() - FINAL_TOO)):
        raise StripeProblem(
            f"Finalized invoices can't be updated in this way ({locked[0]}).",
            code="invoice_not_editable",
            param=locked[0],
        )
    if params.get("auto_advance") and invoice["status"] in ("paid", "void", "uncollectible"):
        raise StripeProblem("The invoice is final.", code="invoice_not_editable", param="auto_advance")
    checked = discounts.check(
        sim,
        params.get("discounts") or [],
        customer=invoice["customer"],
        currency=invoice["currency"],
        param="discounts",
    )
    with sim.changing(invoice, "invoice.updated"):
        if "auto_advance" in params:
            _set_auto_advance(sim, invoice, advance=params["auto_advance"])
        if "automatically_finalizes_at" in params:
            invoice["automatically_finalizes_at"] = params["automatically_finalizes_at"]
        if "discounts" in params:
            invoice["discounts"] = discounts.give(
                sim, checked, customer=invoice["customer"], now=sim.now(invoice["customer"]), invoice=invoice["id"]
            )
        _set(sim, invoice, params)
        if invoice["status"] == "draft":
            recount(sim, invoice)
            plan_finalising(sim, invoice)
    return invoice


def _set_auto_advance(sim: Simulator, invoice: Object, *, advance: bool) -> None:
    """Off: nothing happens by itself any more. On again: a draft is finalised an hour from now at the latest."""
    invoice["auto_advance"] = advance
    if invoice["status"] != "draft":
        return
    now = sim.now(invoice["customer"])
    if not advance:
        invoice["automatically_finalizes_at"] = None
    elif invoice["automatically_finalizes_at"] is None:
        invoice["automatically_finalizes_at"] = now + GRACE_OF_MANUAL


@route("DELETE", "/v1/invoices/{invoice}")
def delete_invoice(sim: Simulator, call: Call) -> Object:
    invoice = of_path(sim, call)
    if invoice["status"] != "draft" or subscription_of(invoice) is not None:
        raise StripeProblem(
            "You can only delete draft invoices that are not of a subscription.", code="invoice_not_editable"
        )
    if due := invoice.pop("_due", None):
        due.cancel()
    for item in sim.state.where("invoiceitem", invoice=invoice["id"]):
        sim.state.remove("invoiceitem", item["id"])
    sim.state.remove("invoice", invoice["id"])
    sim.emit("invoice.deleted", invoice)
    return {"id": invoice["id"], "object": "invoice", "deleted": True}


@route("POST", "/v1/invoices/{invoice}/finalize")
def finalize_invoice(sim: Simulator, call: Call) -> Object:
    invoice = of_path(sim, call)
    if invoice["status"] != "draft":
        raise StripeProblem(
            "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
            code="invoice_not_editable",
            param="invoice",
        )
    if "auto_advance" in call.params:
        invoice["auto_advance"] = call.params["auto_advance"]
    elif subscription_of(invoice) is not None:
        # asked for by hand, it goes on by itself afterwards, as Stripe does
        invoice["auto_advance"] = True
    if not finalize(sim, invoice):
        raise StripeProblem(
            invoice["last_finalization_error"]["message"], code=invoice["last_finalization_error"]["code"]
        )
    if invoice["collection_method"] == "charge_automatically":
        sim.after_answer(partial(_collect_open, sim, invoice))
    return invoice


def _collect_open(sim: Simulator, invoice: Object) -> None:
    if invoice["status"] == "open" and invoice["auto_advance"]:
        collect(sim, invoice)


@route("POST", "/v1/invoices/{invoice}/pay")
def pay_invoice(sim: Simulator, call: Call) -> Object:
    invoice, params = of_path(sim, call), call.params
    if invoice["status"] == "paid":
        raise StripeProblem("Invoice is already paid", code="invoice_already_paid")
    if invoice["status"] == "void":
        raise StripeProblem("This invoice is voided and cannot be paid.", code="invoice_not_editable")
    method = None
    if "payment_method" in params:
        method = sim.state.find("payment_method", params["payment_method"])
        method = (
            method
            if method and method["customer"] == invoice["customer"]
            else attach(sim, params["payment_method"], invoice["customer"])
        )
    if invoice["status"] == "draft" and not finalize(sim, invoice):
        raise StripeProblem(
            invoice["last_finalization_error"]["message"], code=invoice["last_finalization_error"]["code"]
        )
    if invoice["status"] == "paid":
        return invoice
    if params.get("paid_out_of_band"):
        invoice["amount_paid"] = invoice["amount_remaining"]
        settle_paid(sim, invoice)
        return invoice
    outcome = collect(sim, invoice, method=method, by_hand=True)
    if not outcome.paid:
        if outcome.code == "payment_method_missing":
            raise StripeProblem(
                "There is no default_payment_method set on this Customer or Invoice. Please set a "
                "default_payment_method.",
                code="invoice_payment_intent_requires_action" if outcome.needs_action else "resource_missing",
            )
        if outcome.needs_action:
            raise StripeProblem(
                "Payment for this invoice requires additional user action before it can be completed "
                "successfully.",
                status=402,
                kind="card_error",
                code="invoice_payment_intent_requires_action",
            )
        raise declined(outcome.code or "generic_decline")
    return invoice


@route("POST", "/v1/invoices/{invoice}/void")
def void_invoice(sim: Simulator, call: Call) -> Object:
    invoice = of_path(sim, call)
    void(sim, invoice)
    return invoice


@route("POST", "/v1/invoices/{invoice}/mark_uncollectible")
def mark_invoice_uncollectible(sim: Simulator, call: Call) -> Object:
    invoice = of_path(sim, call)
    mark_uncollectible(sim, invoice)
    return invoice


@route("POST", "/v1/invoices/{invoice}/send")
def send_invoice(sim: Simulator, call: Call) -> Object:
    invoice = of_path(sim, call)
    if invoice["status"] == "draft":
        finalize(sim, invoice)
    sim.emit("invoice.sent", invoice)
    return invoice


@route("GET", "/v1/invoices/{invoice}/lines")
def list_lines(sim: Simulator, call: Call) -> Object:
    return window(call, of_path(sim, call)["_lines"])
