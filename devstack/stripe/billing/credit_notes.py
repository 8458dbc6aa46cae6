"""Credit notes: of an open invoice they lower what is due, of a paid one they give back."""

from typing import Any

from devstack.stripe.billing.balances import change_balance
from devstack.stripe.billing.credit_note_lines import Credited, of_amount, of_lines
from devstack.stripe.billing.lifecycle import settle_paid
from devstack.stripe.billing.refunds import refund
from devstack.stripe.fields import merge_metadata, set_given
from devstack.stripe.paging import listing, page, window
from devstack.stripe.problems import StripeProblem
from devstack.stripe.rendering import field_holds
from devstack.stripe.routes import Call, route
from devstack.stripe.simulator import Simulator
from devstack.stripe.state import Object

KIND = "credit_note"
field_holds("customer_balance_transaction", "customer_balance_transaction")


@route("POST", "/v1/credit_notes")
def create_note(sim: Simulator, call: Call) -> Object:
    params = call.params
    invoice = sim.state.get("invoice", params["invoice"], param="invoice")
    credited, ways = _worked_out(sim, invoice, params)
    note = sim.state.add(_note(sim, invoice, credited, params, ways))
    if note["pre_payment_amount"]:
        _lower(sim, invoice, note["pre_payment_amount"])
    if note["post_payment_amount"]:
        invoice["post_payment_credit_notes_amount"] += note["post_payment_amount"]
        _give_back(sim, invoice, note, ways)
    sim.emit("credit_note.created", note)
    sim.emit("invoice.updated", invoice)
    return note


@route("GET", "/v1/credit_notes/preview")
def preview_note(sim: Simulator, call: Call) -> Object:
    invoice = sim.state.get("invoice", call.params["invoice"], param="invoice")
    credited, ways = _worked_out(sim, invoice, call.params)
    return _note(sim, invoice, credited, call.params, ways)


def _worked_out(sim: Simulator, invoice: Object, params: dict[str, Any]) -> tuple[Credited, dict[str, int]]:
    if invoice["status"] not in ("open", "paid", "uncollectible"):
        raise StripeProblem(
            "Credit notes can only be made for open, paid or uncollectible invoices; this one is "
            f"{invoice['status']}.",
            param="invoice",
        )
    if "amount" not in params and not params.get("lines"):
        raise StripeProblem("Give amount or lines.", code="parameter_missing", param="amount")
    credited = of_lines(sim, invoice, params["lines"]) if params.get("lines") else of_amount(sim, invoice, params)
    left = _creditable(sim, invoice)
    if not 0 < credited.total <= left:
        raise StripeProblem(
            f"The credit note's amount ({credited.total}) must be above 0 and at most {left}, what is left of the "
            "invoice.",
            param="amount",
        )
    return credited, _ways(invoice, params, credited.total)


def _creditable(sim: Simulator, invoice: Object) -> int:
    notes = sim.state.where(KIND, invoice=invoice["id"], status="issued")
    left: int = invoice["total"] - sum(one["total"] for one in notes)
    return left


def _ways(invoice: Object, params: dict[str, Any], total: int) -> dict[str, int]:
    """How the note takes effect: `pre` of what is due, `refund`, `balance`, `outside`. The parts must add up."""
    if invoice["status"] != "paid":
        if {"refund_amount", "credit_amount", "out_of_band_amount", "refunds"} & params.keys():
            raise StripeProblem("The invoice is not paid: the note lowers what is due.", param="refund_amount")
        if total > invoice["amount_remaining"]:
            raise StripeProblem("The credit note is more than what is due on the invoice.", param="amount")
        return {"pre": total}
    refunds = sum(one.get("amount_refunded", 0) for one in params.get("refunds") or [])
    ways = {
        "refund": params.get("refund_amount", 0),
        "attached": refunds,
        "balance": params.get("credit_amount", 0),
        "outside": params.get("out_of_band_amount", 0),
    }
    if sum(ways.values()) != total:
        raise StripeProblem(
            "The sum of refund_amount, credit_amount, out_of_band_amount and refunds must equal the credit note's "
            f"amount ({total}).",
            param="amount",
        )
    return ways


def _note(
    sim: Simulator, invoice: Object, credited: Credited, params: dict[str, Any], ways: dict[str, int]
) -> Object:
    number = 1 + len(sim.state.where(KIND, invoice=invoice["id"]))
    pre = ways.get("pre", 0)
    identifier = sim.state.new_id("cn", 24)
    inclusive = sum(one["amount"] for one in credited.taxes if one["tax_behavior"] == "inclusive")
    exclusive = sum(one["amount"] for one in credited.taxes if one["tax_behavior"] == "exclusive")
    return {
        "id": identifier,
        "object": KIND,
        "amount": credited.total,
        "amount_shipping": 0,
        "created": sim.now(invoice["customer"]),
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "customer_account": None,
        "customer_balance_transaction": None,
        "discount_amount": sum(credited.discounts.values()),
        "discount_amounts": [{"amount": amount, "discount": one} for one, amount in credited.discounts.items()],
        "effective_at": sim.now(invoice["customer"]),
        "invoice": invoice["id"],
        "lines": listing(f"/v1/credit_notes/{identifier}/lines", credited.lines),
        "livemode": False,
        "memo": params.get("memo"),
        "metadata": params.get("metadata") or {},
        "number": f"{invoice['number']}-CN-{number:02d}",
        "out_of_band_amount": ways.get("outside") or None,
        "pdf": f"{sim.base_url}/_pages/credit_notes/{identifier}/pdf",
        "post_payment_amount": credited.total - pre,
        "pre_payment_amount": pre,
        "pretax_credit_amounts": [],
        "reason": params.get("reason"),
        "refunds": [],
        "shipping_cost": None,
        "status": "issued",
        "subtotal": credited.subtotal,
        "subtotal_excluding_tax": credited.subtotal - inclusive,
        "total": credited.total,
        "total_excluding_tax": credited.total - inclusive - exclusive,
        "total_taxes": credited.taxes,
        "type": "pre_payment" if pre else "post_payment",
        "voided_at": None,
    }


def _lower(sim: Simulator, invoice: Object, amount: int) -> None:
    invoice["pre_payment_credit_notes_amount"] += amount
    invoice["amount_due"] -= amount
    invoice["amount_remaining"] -= amount
    intent = sim.state.find("payment_intent", invoice["_intent"] or "")
    if intent:
        intent["amount"] = invoice["amount_remaining"]
    if invoice["amount_remaining"] == 0 and invoice["status"] == "open":
        settle_paid(sim, invoice)


def _give_back(sim: Simulator, invoice: Object, note: Object, ways: dict[str, int]) -> None:
    if ways.get("refund"):
        intent = sim.state.get("payment_intent", invoice["_intent"] or "", param="refund_amount")
        made = refund(sim, sim.state.get("charge", intent["latest_charge"]), ways["refund"], param="refund_amount")
        note["refunds"] = [{"amount_refunded": ways["refund"], "refund": made["id"], "type": "refund"}]
    if ways.get("balance"):
        customer = sim.state.get("customer", invoice["customer"])
        transaction = change_balance(
            sim,
            customer,
            -ways["balance"],
            kind="credit_note",
            currency=invoice["currency"],
            invoice=invoice["id"],
            credit_note=note["id"],
        )
        note["customer_balance_transaction"] = transaction["id"]


@route("GET", "/v1/credit_notes/{id}")
def retrieve_note(sim: Simulator, call: Call) -> Object:
    return sim.state.get(KIND, call.path["id"])


@route("POST", "/v1/credit_notes/{id}")
def update_note(sim: Simulator, call: Call) -> Object:
    note = sim.state.get(KIND, call.path["id"])
    with sim.changing(note, "credit_note.updated"):
        set_given(note, call.params, ("memo",))
        merge_metadata(note, call.params)
    return note


@route("GET", "/v1/credit_notes")
def list_notes(sim: Simulator, call: Call) -> Object:
    wanted = call.params
    found = [
        one
        for one in sim.state.all(KIND)
        if wanted.get("customer") in (None, one["customer"]) and wanted.get("invoice") in (None, one["invoice"])
    ]
    return page(call, found)


@route("GET", "/v1/credit_notes/{credit_note}/lines")
def list_note_lines(sim: Simulator, call: Call) -> Object:
    return window(call, sim.state.get(KIND, call.path["credit_note"])["lines"]["data"])


@route("POST", "/v1/credit_notes/{id}/void")
def void_note(sim: Simulator, call: Call) -> Object:
    """Only one that lowered an open invoice; what is due goes up again."""
    note = sim.state.get(KIND, call.path["id"])
    invoice = sim.state.get("invoice", note["invoice"])
    if note["status"] == "void" or note["type"] != "pre_payment" or invoice["status"] != "open":
        raise StripeProblem("This credit note cannot be voided.", param="id")
    note.update(status="void", voided_at=sim.now(note["customer"]))
    invoice["pre_payment_credit_notes_amount"] -= note["pre_payment_amount"]
    invoice["amount_due"] += note["pre_payment_amount"]
    invoice["amount_remaining"] += note["pre_payment_amount"]
    sim.emit("credit_note.voided", note)
    return note
